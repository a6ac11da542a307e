//! What becomes of messages: confirms, returned messages, acknowledgements, and the ends of channels and of the connection.

use std::ops::Bound;

use agent_common::ids::MonoNanos;

use super::channel::{Channel, Confirms, Returned, Settling};
use super::content::short;
use super::follower::Follower;
use super::message::{Exchange, Kind, Settled};
use super::method::How;
use super::pending::Open;
use crate::protocol::http::Loss;
use crate::protocol::{Course, Failure};

/// How a publish or a delivery is settled by what names it; `named`: it alone, and not all up to another.
fn settled(open: &Open, how: How, named: bool) -> Settled {
    match (open.transfer.kind, how) {
        (Kind::Publish, _) if open.doubt.broker && !named => Settled::Unknown,
        (Kind::Publish, How::Ack) => match &open.returned {
            Some((code, text)) => Settled::Returned { code: *code, text: text.clone() },
            // Perhaps it was returned and that was not seen, or is not known to be this one.
            None if open.returnable && (open.doubt.broker || open.suspect) => Settled::Unknown,
            None => Settled::Confirmed,
        },
        (Kind::Publish, How::Nack { .. } | How::Reject { .. }) => Settled::Nacked { requeue: false },
        // Of one for which no acknowledgement is due, it means nothing.
        (Kind::Deliver | Kind::Get, _) if !named && (open.is_doubtful() || open.no_ack != Some(false)) => {
            Settled::Unknown
        }
        (Kind::Deliver | Kind::Get, How::Ack) => Settled::Acknowledged,
        (Kind::Deliver | Kind::Get, How::Nack { requeue }) => Settled::Nacked { requeue },
        (Kind::Deliver | Kind::Get, How::Reject { requeue }) => Settled::Rejected { requeue },
    }
}

/// What a message is that is still open when its channel or connection ends.
fn abandoned(open: &Open, connection: bool) -> Settled {
    let (kind, doubt) = (open.transfer.kind, open.doubt);
    match kind {
        Kind::Publish if open.whole && doubt.broker => Settled::Unknown,
        Kind::Publish => match &open.returned {
            Some((code, text)) => Settled::Returned { code: *code, text: text.clone() },
            None if connection => Settled::ConnectionClosed,
            None => Settled::ChannelClosed,
        },
        Kind::Deliver | Kind::Get => match open.no_ack {
            Some(true) => Settled::Automatic,
            Some(false) if !open.is_doubtful() => Settled::Open,
            _ => Settled::Unknown,
        },
    }
}

impl Follower {
    /// No more of the content of a message is to come: it ends, or waits to be settled.
    pub(super) fn arrived(&mut self, number: u64, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let Some(open) = self.pending.get_mut(number) else { return };
        open.whole = true;
        let (id, start) = (open.transfer.channel, open.start);
        let (kind, tag) = (open.transfer.kind, open.transfer.delivery_tag);
        let waits = match kind {
            Kind::Publish => tag.is_some(),
            Kind::Deliver | Kind::Get => open.no_ack != Some(true),
        };
        let Some(tag) = tag.filter(|_| waits) else {
            let settled = if kind == Kind::Publish { open.transfer.settled.clone() } else { Settled::Automatic };
            return self.settle(number, settled, None, at, out);
        };
        if open.doubt.is_total() {
            return self.settle(number, Settled::Unknown, None, at, out);
        }
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let early = if kind == Kind::Publish { &mut channel.early_confirms } else { &mut channel.early_acks };
        early.retain(|early| early.start.at >= start.at);
        let early = Channel::take_early(early, tag);
        if kind == Kind::Publish {
            let returned = std::mem::take(&mut channel.early_returns);
            returned.into_iter().filter(|returned| returned.at >= start.at).for_each(|one| self.returned(id, one));
        }
        if let Some(early) = early {
            return self.settle_by(number, early, early.tag == tag, out);
        }
        let closing = |channel: &Channel| channel.closing.clone();
        let Some((closing, connection)) = self
            .closing
            .clone()
            .map(|closing| (closing, true))
            .or_else(|| self.channels.get(&id).and_then(closing).map(|closing| (closing, false)))
        else {
            return;
        };
        // A client that closes may be told of confirms until that is answered.
        if !(closing.by_client && kind == Kind::Publish)
            && let Some(open) = self.pending.get_mut(number)
        {
            let settled = abandoned(open, connection);
            open.transfer.error = Some(closing.error);
            self.settle(number, settled, None, at, out);
        }
    }

    /// A confirm.
    pub(super) fn confirm(&mut self, id: u16, settling: Settling, out: &mut impl FnMut(Exchange)) {
        let Some(channel) = self.channel(id) else { return self.stats.lose(Loss::UnmatchedResponse) };
        let covered = covered(&channel.publishes, settling.tag, settling.multiple);
        let (ahead, known) = match channel.confirms {
            Confirms::Off => (true, true),
            Confirms::On(Some(next)) => (settling.tag >= next, true),
            // As a rule it is of a publish that was seen, and told as one of which nothing more is known.
            Confirms::On(None) | Confirms::Unknown => (false, false),
        };
        let under_way = covered.last().is_some_and(|&(_, number)| self.is_under_way(number));
        if (ahead || under_way)
            && let Some(channel) = self.channels.get_mut(&id)
        {
            channel.keep_confirm(settling);
        } else if covered.is_empty() && known {
            self.stats.lose(Loss::UnmatchedResponse);
        }
        self.settle_covered(&covered, settling, out);
    }

    /// An acknowledgement of deliveries.
    pub(super) fn acknowledge(&mut self, id: u16, settling: Settling, out: &mut impl FnMut(Exchange)) {
        let Some(channel) = self.channel(id) else { return self.stats.lose(Loss::UnmatchedResponse) };
        let covered = covered(&channel.deliveries, settling.tag, settling.multiple);
        if settling.tag == 0 {
            channel.swept = true;
        }
        let closing = channel.closing.is_some();
        // On a channel of which nothing was seen yet, it is of what went before.
        let ahead = settling.tag > channel.newest_delivery && (channel.newest_delivery > 0 || channel.opened.0 > 0);
        let named = covered.last().filter(|(tag, _)| *tag == settling.tag).map(|&(_, number)| number);
        let under_way = covered.last().is_some_and(|&(_, number)| self.is_under_way(number));
        if let Some(open) = named.and_then(|number| self.pending.get_mut(number)) {
            open.no_ack = Some(false);
            let consumer = open.transfer.consumer_tag.clone();
            self.acknowledges(id, consumer.as_deref());
            self.unsweep(id, settling.tag);
        }
        if let Some(channel) = self.channels.get_mut(&id).filter(|_| !closing) {
            if ahead || under_way {
                channel.keep_ack(settling);
            } else if covered.is_empty() && settling.tag > 0 {
                channel.miss_ack(settling.start.at);
                self.stats.lose(Loss::UnmatchedResponse);
            }
        }
        self.settle_covered(&covered, settling, out);
    }

    /// A delivery was settled by its number: so those behind it were not before.
    fn unsweep(&mut self, id: u16, tag: u64) {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| channel.swept) else { return };
        channel.swept = false;
        for number in channel.deliveries.range((Bound::Excluded(tag), Bound::Unbounded)).map(|(_, number)| *number) {
            if let Some(open) = self.pending.get_mut(number) {
                open.swept = false;
            }
        }
    }

    /// A consumer is seen to acknowledge: so its deliveries are to be.
    fn acknowledges(&mut self, id: u16, consumer: Option<&str>) {
        let Some(tag) = consumer else { return };
        let known = self.channels.get_mut(&id).and_then(|channel| channel.consumers.get_mut(tag));
        let Some(known) = known.filter(|known| known.no_ack.is_none()) else { return };
        known.no_ack = Some(false);
        for (_, open) in self.pending.iter_mut() {
            let transfer = &open.transfer;
            if transfer.kind == Kind::Deliver && transfer.channel == id && transfer.consumer_tag.as_deref() == consumer
            {
                open.no_ack.get_or_insert(false);
            }
        }
    }

    fn is_under_way(&self, number: u64) -> bool {
        self.pending.get(number).is_some_and(|open| !open.whole)
    }

    fn settle_covered(&mut self, covered: &[(u64, u64)], settling: Settling, out: &mut impl FnMut(Exchange)) {
        for &(tag, number) in covered {
            // What comes after a confirm in time is not what that means.
            let before = |open: &Open| open.whole && open.start.at <= settling.start.at;
            if self.pending.get(number).is_some_and(before) {
                self.settle_by(number, settling, tag == settling.tag, out);
            }
        }
    }

    fn settle_by(&mut self, number: u64, settling: Settling, named: bool, out: &mut impl FnMut(Exchange)) {
        let Some(open) = self.pending.get(number) else { return };
        let settled = settled(open, settling.how, named);
        self.settle(number, settled, Some(settling), settling.end, out);
    }

    /// A client gives all deliveries of a channel back.
    pub(super) fn recover(&mut self, id: u16, by: Settling, out: &mut impl FnMut(Exchange)) {
        let Some(channel) = self.channel(id) else { return };
        channel.swept = true;
        let all: Vec<u64> = channel.deliveries.values().copied().collect();
        for number in all {
            let Some(open) = self.pending.get(number).filter(|open| open.whole) else { continue };
            let known = open.no_ack == Some(false) && !open.is_doubtful();
            self.settle(number, if known { Settled::Recovered } else { Settled::Unknown }, Some(by), by.end, out);
        }
    }

    /// The broker has taken them back. Those that it had sent before were among them, or settled by what was not seen.
    pub(super) fn recovered(&mut self, id: u16, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        channel.swept = false;
        let all: Vec<u64> = channel.deliveries.values().copied().collect();
        all.into_iter().for_each(|number| self.settle(number, Settled::Unknown, None, at, out));
    }

    /// A message that came back whole. Which publish it was is certain when no other can be meant, or when as many came back.
    pub(super) fn returned(&mut self, id: u16, returned: Returned) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if !matches!(channel.confirms, Confirms::On(_)) {
            return;
        }
        let (mut candidates, mut certain) = (Vec::new(), returned.content.is_some() && !channel.strays);
        for &number in channel.publishes.values() {
            let Some(open) = self.pending.get_mut(number) else { continue };
            let transfer = &open.transfer;
            let differs = transfer.content.zip(returned.content).is_some_and(|(one, other)| one != other);
            if open.whole
                && open.returnable
                && open.returned.is_none()
                && !differs
                && transfer.exchange.as_deref() == returned.exchange.as_deref()
                && transfer.routing_key.as_deref() == returned.routing_key.as_deref()
                && open.start.at <= returned.at
            {
                open.suspect = true;
                open.returns += 1;
                certain &= transfer.content.is_some();
                candidates.push((number, open.returns));
            }
        }
        if candidates.is_empty() {
            return channel.keep_return(returned);
        }
        if certain && candidates.iter().all(|&(_, returns)| returns >= candidates.len()) {
            for (number, _) in candidates {
                if let Some(open) = self.pending.get_mut(number) {
                    open.returned = Some((returned.code, returned.text.clone()));
                }
            }
        }
    }

    /// What came back may have been one that does not wait any more.
    fn forget_return(&mut self, id: u16) {
        let Some(channel) = self.channels.get(&id) else { return };
        for &number in channel.publishes.values() {
            if let Some(open) = self.pending.get_mut(number) {
                open.returns = open.returns.saturating_sub(1);
            }
        }
    }

    /// A channel is closed, or its client says so, which then settles no more deliveries.
    pub(super) fn end_channel(&mut self, id: u16, by_client: bool, by: Settling, out: &mut impl FnMut(Exchange)) {
        let numbers = self.of_channel(id);
        let error =
            self.channels.get(&id).and_then(|channel| channel.closing.as_ref()).map(|closing| closing.error.clone());
        self.end_these(&numbers, by_client, false, error, by, out);
    }

    /// The same of the connection.
    pub(super) fn end_all(&mut self, by_client: bool, by: Settling, out: &mut impl FnMut(Exchange)) {
        let error = self.closing.as_ref().map(|closing| closing.error.clone());
        self.end_these(&self.pending.numbers(), by_client, true, error, by, out);
    }

    fn end_these(
        &mut self,
        numbers: &[u64],
        by_client: bool,
        connection: bool,
        error: Option<(u16, Box<str>)>,
        by: Settling,
        out: &mut impl FnMut(Exchange),
    ) {
        for &number in numbers {
            let Some(open) = self.pending.get_mut(number) else { continue };
            if by_client && open.transfer.kind == Kind::Publish && open.whole {
                continue;
            }
            open.transfer.error.clone_from(&error);
            let settled = abandoned(open, connection);
            self.settle(number, settled, Some(by), by.end, out);
        }
    }

    /// A channel is not the same any more, and how it ended was not seen.
    pub(super) fn abandon_channel(&mut self, id: u16, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        for number in self.of_channel(id) {
            self.settle(number, Settled::Unknown, None, at, out);
        }
    }

    fn of_channel(&mut self, id: u16) -> Vec<u64> {
        self.pending.iter_mut().filter(|(_, open)| open.transfer.channel == id).map(|(number, _)| number).collect()
    }

    /// The connection is gone.
    pub(super) fn fail(&mut self, failure: Failure, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let failure = Some(failure).filter(|_| self.closing.is_none());
        let error = self.closing.as_ref().map(|closing| closing.error.clone());
        for number in self.pending.numbers() {
            let Some(open) = self.pending.get_mut(number) else { continue };
            open.transfer.error.clone_from(&error);
            let settled = abandoned(open, true);
            self.give(number, settled, None, failure, at, out);
        }
    }

    /// A message is over.
    pub(super) fn settle(
        &mut self,
        number: u64,
        settled: Settled,
        by: Option<Settling>,
        at: MonoNanos,
        out: &mut impl FnMut(Exchange),
    ) {
        self.give(number, settled, by, None, at, out);
    }

    fn give(
        &mut self,
        number: u64,
        settled: Settled,
        by: Option<Settling>,
        failure: Option<Failure>,
        at: MonoNanos,
        out: &mut impl FnMut(Exchange),
    ) {
        let Some(requests) = self.request_direction else { return };
        let Some(open) = self.pending.take(number) else { return };
        let Open { start, end, mut transfer, whole, partial, suspect, returned, .. } = open;
        if let (Some(channel), Some(tag)) = (self.channels.get_mut(&transfer.channel), transfer.delivery_tag) {
            let open = if transfer.kind == Kind::Publish { &mut channel.publishes } else { &mut channel.deliveries };
            if open.get(&tag) == Some(&number) {
                open.remove(&tag);
            }
        }
        // What may have been settled before has not failed by what ends it now.
        let known = settled != Settled::Unknown;
        let (by, failure) = (by.filter(|_| known), failure.filter(|_| known));
        transfer.error.take_if(|_| !known);
        transfer.settled = settled;
        if suspect && returned.is_none() {
            self.forget_return(transfer.channel);
        }
        transfer.virtual_host.clone_from(&self.virtual_host);
        transfer.cluster.clone_from(&self.cluster);
        let request_end = if whole { end } else { at.max(start.at) };
        self.stats.exchanges += 1;
        out(Exchange {
            course: Course {
                number: short(number),
                request_direction: if transfer.kind == Kind::Publish { requests } else { requests.opposite() },
                request_thread: start.thread,
                start: start.at,
                position: start.position,
                request_end,
                response_start: by.map(|by| by.start.at),
                response_thread: by.map(|by| by.start.thread),
                end: at.max(request_end),
                failure,
                partial: partial || !whole,
            },
            message: transfer,
        });
    }
}

/// Of those that wait, the one with this tag; with `multiple` all up to it, and of tag 0 all.
fn covered(waiting: &std::collections::BTreeMap<u64, u64>, tag: u64, multiple: bool) -> Vec<(u64, u64)> {
    let pair = |(&tag, &number): (&u64, &u64)| (tag, number);
    if !multiple {
        return waiting.get_key_value(&tag).map(pair).into_iter().collect();
    }
    let end = if tag == 0 { Bound::Unbounded } else { Bound::Included(tag) };
    waiting.range((Bound::Unbounded, end)).map(pair).collect()
}
