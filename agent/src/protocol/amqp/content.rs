//! What a message is made of: a method, its content header, its body.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos};

use super::channel::{Confirms, Consumer, Content, Of, Returned};
use super::follower::Follower;
use super::lane::Frame;
use super::message::{Exchange, Kind, Properties, Settled, Transfer};
use super::method::{Route, Sender};
use super::pending::Open;
use super::properties::ContentHeader;
use crate::protocol::http::Loss;
use crate::protocol::piece::{Piece, Start};
use crate::protocol::{Begun, Brokered, Coroutine, Notice};

/// How long a delivery waits for an acknowledgement that may not be due, in nanoseconds.
const UNKNOWN_AFTER: u64 = 1_000_000_000;

impl Content {
    const fn new(of: Of) -> Self {
        Self { of, left: None, hashed: 0, hasher: None }
    }

    fn hash(&mut self, octets: &[u8]) {
        let here = octets.len().min(usize::try_from(self.hashed).unwrap_or(usize::MAX));
        self.hashed -= here as u64;
        if let (Some(hasher), Some(octets)) = (&mut self.hasher, octets.get(..here)) {
            hasher.write(octets);
        }
    }
}

impl Follower {
    pub(super) fn publish(
        &mut self,
        frame: &Frame,
        route: Route<'_>,
        (mandatory, immediate): (bool, bool),
        out: &mut impl FnMut(Exchange),
    ) {
        let Some((number, mut open)) = self.open(Kind::Publish, frame, route) else { return };
        if let Some(channel) = self.channels.get_mut(&frame.channel) {
            if channel.confirms == Confirms::Off {
                open.transfer.settled = Settled::Unconfirmed;
            }
            let tag = channel.next_publish();
            open.transfer.delivery_tag = tag;
            channel.publishes.extend(tag.map(|tag| (tag, number)));
            channel.strays |= tag.is_none() && (mandatory || immediate);
            channel.published = Some(Content::new(Of::Transfer(number)));
        }
        open.transfer.mandatory = mandatory;
        open.returnable = mandatory || immediate;
        self.push(number, open, out);
    }

    /// A delivery, or with the consumer that it answers what was asked for.
    pub(super) fn deliver(
        &mut self,
        kind: Kind,
        frame: &Frame,
        (tag, redelivered, route): (u64, bool, Route<'_>),
        consumer: Option<Consumer>,
        out: &mut impl FnMut(Exchange),
    ) {
        let Some((number, mut open)) = self.open(kind, frame, route) else { return };
        if let Some(channel) = self.channels.get_mut(&frame.channel) {
            channel.newest_delivery = tag;
            channel.deliveries.insert(tag, number);
            channel.delivered = Some(Content::new(Of::Transfer(number)));
            open.swept = channel.swept;
            open.doubt.client |= channel.missed_acks.is_some_and(|at| at >= frame.start.at);
        }
        let Consumer { tag: consumer_tag, queue, no_ack, .. } = consumer.unwrap_or_default();
        open.no_ack = no_ack;
        self.unsure |= no_ack.is_none();
        let transfer = &mut open.transfer;
        (transfer.consumer_tag, transfer.queue) = (consumer_tag, queue);
        (transfer.delivery_tag, transfer.redelivered) = (Some(tag), Some(redelivered));
        self.push(number, open, out);
    }

    /// A message that has begun with this frame.
    fn open(&mut self, kind: Kind, frame: &Frame, route: Route<'_>) -> Option<(u64, Open)> {
        self.stats.requests += 1;
        let (side, doubt) = (self.side(), self.blind());
        let Some(channel) = self.channel(frame.channel) else {
            self.stats.lose(Loss::PipelineLimit);
            return None;
        };
        let (exchange, routing_key) = channel.share(route);
        self.number += 1;
        let transfer = Transfer {
            kind,
            side,
            channel: frame.channel,
            exchange,
            routing_key,
            queue: None,
            consumer_tag: None,
            delivery_tag: None,
            redelivered: None,
            mandatory: false,
            properties: Properties::default(),
            context: None,
            body_size: None,
            envelope_size: frame.octets(),
            content: None,
            settled: Settled::Unknown,
            virtual_host: None,
            cluster: None,
            error: None,
        };
        Some((self.number, Open::new(frame.start, transfer, doubt)))
    }

    fn push(&mut self, number: u64, open: Open, out: &mut impl FnMut(Exchange)) {
        let at = open.start.at;
        self.pending.push(number, open);
        self.limit(at, out);
    }

    /// Gives out the oldest while too many are outstanding.
    fn limit(&mut self, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let limits = self.config.limits;
        while self.pending.len() > limits.outstanding
            || (self.pending.len() > 1 && self.pending.octets() > limits.outstanding_octets)
        {
            let Some(oldest) = self.pending.oldest() else { return };
            self.stats.lose(Loss::Unsettled);
            let stray = self.pending.get(oldest).filter(|open| open.returnable).map(|open| open.transfer.channel);
            if let Some(channel) = stray.and_then(|id| self.channels.get_mut(&id)) {
                channel.strays = true;
            }
            self.settle(oldest, Settled::Unknown, None, at, out);
        }
    }

    /// Gives out deliveries that nobody has acknowledged for a second, where it is not known whether anybody will.
    pub fn settle_unknown(&mut self, now: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let (mut overdue, mut unsure) = (Vec::new(), false);
        for (number, open) in self.pending.iter_mut() {
            if open.transfer.kind != Kind::Publish && open.no_ack.is_none() {
                if open.whole && now.since(open.end) > UNKNOWN_AFTER {
                    overdue.push((number, open.end));
                } else {
                    unsure = true;
                }
            }
        }
        self.unsure = unsure;
        overdue.into_iter().for_each(|(number, end)| self.settle(number, Settled::Unknown, None, end, out));
    }

    /// A message that the broker gives back: its content follows.
    pub(super) fn give_back(&mut self, frame: &Frame, code: u16, text: &[u8], route: Route<'_>) {
        let Some(channel) = self.channel(frame.channel) else { return };
        let returned = Returned {
            at: frame.start.at,
            code,
            text: String::from_utf8_lossy(text).into(),
            exchange: route.exchange.map(Into::into),
            routing_key: route.routing_key.map(Into::into),
            content: None,
        };
        channel.delivered = Some(Content::new(Of::Returned(Box::new(returned))));
    }

    /// A content header.
    pub(super) fn header(
        &mut self,
        sender: Sender,
        frame: &Frame,
        payload: &[u8],
        last: &Piece<'_>,
        out: &mut impl FnMut(Exchange),
    ) {
        let most = self.config.content as u64;
        let Some(channel) = self.channels.get_mut(&frame.channel) else { return };
        let Some(content) = channel.content(sender).as_mut().filter(|content| content.left.is_none()) else {
            // That of a message whose beginning was not seen, or one too many.
            return self.cut(sender, frame.channel, last.at, out);
        };
        let Some(header) = ContentHeader::read(payload) else {
            self.stats.lose(Loss::Invalid);
            return self.cut(sender, frame.channel, last.at, out);
        };
        content.left = Some(header.body_size);
        content.hashed = most.min(header.body_size);
        content.hasher = Some(header.hasher).filter(|_| payload.len() as u64 == u64::from(frame.size));
        if let Of::Transfer(number) = content.of
            && let Some(open) = self.pending.get_mut(number)
        {
            let transfer = &mut open.transfer;
            transfer.envelope_size += frame.octets();
            transfer.body_size = Some(header.body_size);
            (transfer.properties, transfer.context) = (header.properties, header.context);
            self.pending.weigh(number);
            if sender == Sender::Client {
                self.tell(number, last);
            }
            self.limit(last.at, out);
        }
        if header.body_size == 0 {
            self.end_content(sender, frame.channel, last, out);
        }
    }

    /// Octets of a body; a frame has no more of them than are still to come.
    pub(super) fn body(&mut self, direction: Direction, channel: u16, octets: &[u8]) {
        if let Some(content) = self.content(direction, channel) {
            content.left = content.left.map(|left| left.saturating_sub(octets.len() as u64));
            content.hash(octets);
        }
    }

    /// Octets of a body that are not seen.
    pub(super) fn pass_body(&mut self, direction: Direction, channel: u16, octets: u64) {
        if let Some(content) = self.content(direction, channel)
            && octets > 0
        {
            content.left = content.left.map(|left| left.saturating_sub(octets));
            if content.hashed > 0 {
                content.hasher = None;
            }
        }
    }

    fn content(&mut self, direction: Direction, channel: u16) -> Option<&mut Content> {
        let sender = self.sender(direction)?;
        self.channels.get_mut(&channel)?.content(sender).as_mut()
    }

    /// A frame of a body is over.
    pub(super) fn body_frame(
        &mut self,
        sender: Sender,
        frame: &Frame,
        last: &Piece<'_>,
        out: &mut impl FnMut(Exchange),
    ) {
        let Some(channel) = self.channels.get_mut(&frame.channel) else { return };
        let Some(content) = channel.content(sender) else { return };
        let over = content.left == Some(0);
        if let Of::Transfer(number) = content.of
            && let Some(open) = self.pending.get_mut(number)
        {
            open.transfer.envelope_size += frame.octets();
        }
        if over {
            self.end_content(sender, frame.channel, last, out);
        }
    }

    /// All of a content was there.
    fn end_content(&mut self, sender: Sender, channel: u16, last: &Piece<'_>, out: &mut impl FnMut(Exchange)) {
        let content = self.channels.get_mut(&channel).and_then(|channel| channel.content(sender).take());
        let Some(Content { of, hasher, .. }) = content else { return };
        let hash = hasher.map(|hasher| hasher.finish());
        match of {
            Of::Returned(returned) => self.returned(channel, Returned { content: hash, ..*returned }),
            Of::Transfer(number) => {
                let Some(open) = self.pending.get_mut(number) else { return };
                open.end = last.at;
                open.transfer.content = hash;
                open.partial |= hash.is_none();
                match sender {
                    Sender::Broker => self.tell(number, last),
                    _ => self.tell_sent(number, last.at),
                }
                self.arrived(number, last.at, out);
            }
        }
    }

    /// No more of what is under way on a channel will be seen.
    pub(super) fn cut(&mut self, sender: Sender, channel: u16, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let content = self.channels.get_mut(&channel).and_then(|channel| channel.content(sender).take());
        if content.is_some() && sender == Sender::Client {
            self.tell_unseen(at);
        }
        if let Some(Content { of: Of::Transfer(number), .. }) = content
            && let Some(open) = self.pending.get_mut(number)
        {
            open.end = at;
            open.partial = true;
            self.arrived(number, at, out);
        }
    }

    /// Tells that a message which a client sends is on its way, or has come to the broker.
    fn tell_sent(&mut self, number: u64, at: MonoNanos) {
        let Some(open) = self.pending.get(number) else { return };
        let (name, channel) = (name(&open.transfer), open.transfer.channel);
        match (self.request_direction, name) {
            (Some(Direction::Egress), Some(name)) => {
                self.notices.push(Notice::Sent { number: short(number), name, channel, at });
            }
            (Some(Direction::Ingress), name) => self.notices.push(Notice::Taken { name, at }),
            _ => {}
        }
    }

    /// Tells that a broker may have got what was not seen as a whole.
    pub(super) fn tell_unseen(&mut self, at: MonoNanos) {
        if self.request_direction == Some(Direction::Ingress) {
            self.notices.push(Notice::Taken { name: None, at });
        }
    }

    /// Tells of a message that a client sends, with its content header, or has received as a whole: something may be caused by it.
    fn tell(&mut self, number: u64, last: &Piece<'_>) {
        let Some(open) = self.pending.get(number).filter(|_| self.request_direction == Some(Direction::Egress)) else {
            return;
        };
        let (kind, transfer) = (open.transfer.kind, &open.transfer);
        let Start { at, thread, position } = open.start;
        let queue = transfer.queue.as_ref().filter(|_| kind != Kind::Publish);
        let brokered = (kind != Kind::Publish).then(|| Brokered {
            name: name(transfer),
            queue: transfer.queue.clone(),
            consumer: hash((transfer.channel, &transfer.consumer_tag)),
            redelivered: transfer.redelivered == Some(true),
            acknowledged: open.no_ack != Some(true),
        });
        let unique = (thread.tgid.0, thread.tid.0, at.0, position.0, number);
        let named = [&transfer.routing_key, &transfer.exchange].into_iter().flatten().find(|name| !name.is_empty());
        self.notices.push(Notice::Begun(Begun {
            number: short(number),
            direction: if kind == Kind::Publish { Direction::Egress } else { Direction::Ingress },
            thread,
            coroutine: last.thread.coroutine,
            dialler: Coroutine::default(),
            at,
            head_end: last.at,
            position,
            stream: None,
            pipelined: self.pending.count(kind) > 1,
            collected: false,
            brokered,
            operation: short(hash((kind, &transfer.exchange, &transfer.routing_key, queue))),
            target: hash(unique),
            target_text: named.map_or_else(|| Arc::from(""), Arc::clone),
            request_id: None,
            context: transfer.context.clone(),
        }));
    }
}

/// Names a message at both ends, unless something of it was not seen.
fn name(transfer: &Transfer) -> Option<u64> {
    let (exchange, routing_key) = (transfer.exchange.as_ref()?, transfer.routing_key.as_ref()?);
    Some(hash((transfer.content?, exchange, routing_key)))
}

fn hash(what: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// The low half.
#[expect(clippy::cast_possible_truncation, reason = "numbers are counted modulo 2^32, and half of a hash is one")]
pub(super) const fn short(number: u64) -> u32 {
    number as u32
}
