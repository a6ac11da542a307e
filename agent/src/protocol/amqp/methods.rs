//! What each method does.

use std::sync::Arc;

use agent_common::ids::MonoNanos;

use super::channel::{Channel, Closing, Confirms, Consumer, Settling};
use super::follower::Follower;
use super::lane::Frame;
use super::message::{Exchange, Kind, Settled};
use super::method::{How, Method, Sender, Text};
use crate::protocol::http::Loss;
use crate::protocol::piece::Piece;

impl Follower {
    /// A method that was read; `last` is the call with its last octet.
    pub(super) fn method(
        &mut self,
        sender: Sender,
        frame: &Frame,
        method: Method<'_>,
        last: &Piece<'_>,
        out: &mut impl FnMut(Exchange),
    ) {
        let (id, at) = (frame.channel, last.at);
        // A content that is not over does not go on behind a method.
        self.cut(sender, id, at, out);
        let text = |text: Text<'_>| text.map(Arc::from);
        let settling = |how, tag, multiple| Settling { how, tag, multiple, start: frame.start, end: at };
        match method {
            Method::Start { cluster } => self.cluster = text(cluster),
            Method::TuneOk { frame_max } => self.frame_max = Some(frame_max),
            Method::Open { virtual_host } => self.virtual_host = text(virtual_host),
            Method::ConnectionClose { code, text } => {
                self.closing = Some(closing(sender, code, text));
                self.end_all(sender == Sender::Client, settling(How::Ack, 0, false), out);
            }
            Method::ConnectionCloseOk => self.end_all(false, settling(How::Ack, 0, false), out),
            Method::ChannelOpen => self.restart_channel(id, Some(frame.start.at), at, out),
            Method::ChannelOpenOk => match self.channels.get_mut(&id) {
                Some(channel) if channel.opening => channel.opening = false,
                // Its opening was not seen, nor perhaps the end of what was there before.
                _ => self.restart_channel(id, None, at, out),
            },
            Method::ChannelClose { code, text } => {
                let Some(channel) = self.channels.get_mut(&id) else { return };
                if channel.opened <= frame.start.at {
                    channel.closing = Some(closing(sender, code, text));
                    self.end_channel(id, sender == Sender::Client, settling(How::Ack, 0, false), out);
                }
            }
            Method::ChannelCloseOk => {
                if self.channels.get(&id).is_some_and(|channel| channel.opened <= frame.start.at) {
                    self.end_channel(id, false, settling(How::Ack, 0, false), out);
                    self.drop_channel(id);
                }
            }
            Method::Publish { route, mandatory, immediate } => {
                self.publish(frame, route, (mandatory, immediate), out);
            }
            Method::Deliver { consumer, tag, redelivered, route } => {
                self.check_delivery(id, tag, at, out);
                let consumer = consumer.map(|consumer| self.consumer(id, consumer));
                self.deliver(Kind::Deliver, frame, (tag, redelivered, route), consumer, out);
            }
            Method::GetOk { tag, redelivered, route } => {
                self.check_delivery(id, tag, at, out);
                let asked = self.channel(id).and_then(|channel| channel.gets.answer());
                self.deliver(Kind::Get, frame, (tag, redelivered, route), asked, out);
            }
            Method::Return { code, text, route } => self.give_back(frame, code, text, route),
            Method::Settle { how, tag, multiple } => {
                let settling = settling(how, tag, multiple);
                match sender {
                    Sender::Client => self.acknowledge(id, settling, out),
                    _ => self.confirm(id, settling, out),
                }
            }
            Method::Recover => self.recover(id, settling(How::Ack, 0, true), out),
            Method::RecoverOk => self.recovered(id, at, out),
            Method::Other => {}
            Method::ConfirmSelect
            | Method::Declare { .. }
            | Method::DeclareOk { .. }
            | Method::Consume { .. }
            | Method::ConsumeOk { .. }
            | Method::Cancel { .. }
            | Method::CancelOk { .. }
            | Method::Get { .. }
            | Method::GetEmpty => self.set(sender, id, method),
        }
    }

    /// What a channel is set to from now on, or asks for.
    fn set(&mut self, sender: Sender, id: u16, method: Method<'_>) {
        let doubt = self.blind();
        let Some(channel) = self.channel(id) else { return };
        match method {
            Method::ConfirmSelect if !matches!(channel.confirms, Confirms::On(_)) => {
                // Of a channel that is not known from its beginning on, it may be the second time.
                channel.confirms = Confirms::On((channel.confirms == Confirms::Off).then_some(1));
            }
            Method::Declare { queue, no_wait } => {
                let name = queue.filter(|name| !name.is_empty()).map(Arc::from);
                channel.declare(name, no_wait);
            }
            Method::DeclareOk { queue } => channel.declared(queue),
            Method::Consume { queue, consumer: Some(tag), no_ack, no_wait } => {
                let queue = channel.queue(queue);
                let tag = Some(tag).filter(|tag| !tag.is_empty()).map(Arc::from);
                let consumer = Consumer { tag, queue, no_ack: Some(no_ack), doubt };
                if !no_wait {
                    channel.consumes.ask(consumer.clone());
                }
                self.consume(id, consumer);
            }
            Method::ConsumeOk { consumer: Some(tag) } => match channel.consumes.answer() {
                Some(Consumer { tag: Some(asked), .. }) if *asked != *tag => channel.consumes.blur(),
                Some(consumer @ Consumer { tag: None, .. }) => {
                    self.consume(id, Consumer { tag: Some(tag.into()), ..consumer });
                }
                _ => {}
            },
            Method::Cancel { consumer: Some(tag) } if sender == Sender::Broker => self.cancel(id, tag),
            Method::CancelOk { consumer: Some(tag) } => self.cancel(id, tag),
            Method::Get { queue, no_ack } => {
                let queue = channel.queue(queue);
                channel.gets.ask(Consumer { queue, no_ack: Some(no_ack), ..Consumer::default() });
            }
            Method::GetEmpty => _ = channel.gets.answer(),
            _ => {}
        }
    }

    /// A consumer that was named. A name that is taken is known for neither.
    fn consume(&mut self, id: u16, consumer: Consumer) {
        let most = self.config.consumers;
        let all = self.consumers < most.saturating_mul(4);
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Some(tag) = consumer.tag.clone() else { return };
        if let Some(known) = channel.consumers.get_mut(&tag) {
            (known.queue, known.no_ack) = (None, None);
        } else if all && channel.consumers.len() < most {
            channel.consumers.insert(tag, consumer);
            self.consumers += 1;
        }
    }

    fn cancel(&mut self, id: u16, tag: &str) {
        if let Some(channel) = self.channels.get_mut(&id)
            && channel.consumers.remove(tag).is_some()
        {
            self.consumers -= 1;
        }
    }

    /// The consumer of this name, as far as it is known.
    fn consumer(&mut self, id: u16, tag: &str) -> Consumer {
        let find = |channel: &Channel| channel.consumers.get(tag).cloned();
        self.channels.get(&id).and_then(find).unwrap_or_else(|| {
            let consumer = Consumer { tag: Some(tag.into()), doubt: self.blind(), ..Consumer::default() };
            if self.channel(id).is_some() {
                self.consume(id, consumer.clone());
            }
            consumer
        })
    }

    /// Numbers of deliveries go up on a channel: with one that does not, it is another channel than before.
    fn check_delivery(&mut self, id: u16, tag: u64, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if self.channels.get(&id).is_some_and(|channel| tag <= channel.newest_delivery) {
            self.restart_channel(id, None, at, out);
        }
    }

    /// A channel begins, or is another than before: what was under way on it ends. `opened`: when, if that was seen.
    pub(super) fn restart_channel(
        &mut self,
        id: u16,
        opened: Option<MonoNanos>,
        at: MonoNanos,
        out: &mut impl FnMut(Exchange),
    ) {
        self.abandon_channel(id, at, out);
        self.drop_channel(id);
        if self.channels.len() < self.config.channels {
            self.channels.insert(id, Channel::new(opened));
        }
    }

    /// Octets of one side were lost: what it has set is not known any more, and what it was sending is cut.
    pub(super) fn forget(&mut self, sender: Sender, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if sender != Sender::Broker {
            self.tell_unseen(at);
        }
        let ids: Vec<u16> = self.channels.keys().copied().collect();
        for id in ids {
            self.cut(sender, id, at, out);
        }
        for channel in self.channels.values_mut() {
            match sender {
                Sender::Client => {
                    channel.early_confirms.iter().for_each(|_| self.stats.lose(Loss::UnmatchedResponse));
                    channel.client_lost();
                }
                _ => channel.broker_lost(),
            }
            let before = channel.consumers.len();
            channel.consumers.retain(|_, consumer| {
                consumer.doubt.add(sender);
                !consumer.doubt.is_total()
            });
            self.consumers -= before - channel.consumers.len();
        }
        for number in self.pending.numbers() {
            if let Some(open) = self.pending.get_mut(number) {
                open.doubt.add(sender);
                if open.doubt.is_total() && open.whole {
                    self.settle(number, Settled::Unknown, None, at, out);
                }
            }
        }
    }
}

fn closing(sender: Sender, code: u16, text: &[u8]) -> Closing {
    Closing { by_client: sender == Sender::Client, error: (code, String::from_utf8_lossy(text).into()) }
}
