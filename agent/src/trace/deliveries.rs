//! Messages that a broker moves one by one: what a process publishes, and what it is given and acknowledges.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

use agent_common::ids::MonoNanos;

use super::inside::Faithful;
use super::messages::By;
use super::place::{Link, Method};
use super::published::{Delivery, Publish};
use super::sdk::Beginning;
use super::work::{Brought, Changes};
use super::{Open, PATIENCE, Placed, Subject, Traces};
use crate::conn::{ExchangeId, Finished};
use crate::protocol::amqp::{Settled, Side, Transfer};
use crate::protocol::context::TraceContext;
use crate::protocol::{Begun, Brokered};
use crate::signal::resource::Resource;
use crate::signal::span::Kind;

/// A message that was published, or came.
#[derive(Debug)]
pub struct Moved {
    pub transfer: Finished<Transfer>,
    /// Nanoseconds since it was published, when that was seen.
    pub queued: Option<u64>,
}

/// What is known of a message that came, besides what is of every request.
pub(super) struct Arrival {
    /// No acknowledgement is due: until when it is worked on is concluded.
    pub(super) worked: bool,
    /// Its last octet.
    end: MonoNanos,
    context: Option<TraceContext>,
    queued: Option<u64>,
}

/// Of so many deliveries that wait, those are looked for that are alike; with more nothing is concluded from their order.
const LOOKED_AT: usize = 1024;

/// A delivery that waits for what tells of which publish it is.
#[derive(Debug)]
pub(super) enum Given {
    /// Not all of it was seen.
    Unnamed,
    Named(Delivery),
    /// It is known already.
    Of {
        name: u64,
        publish: ExchangeId,
    },
}

impl Traces {
    /// A broker has given a message to a process.
    pub(super) fn given(
        &mut self,
        id: ExchangeId,
        request: &Begun,
        brokered: &Brokered,
        resource: &Arc<Resource>,
        out: &mut Vec<Placed>,
    ) {
        let Begun { thread, at, .. } = *request;
        let tgid = thread.tgid;
        let (target, context) = (&*request.target_text, request.context.as_ref());
        let beginning = Beginning { id, kind: Kind::Server, tgid, at, target, context };
        let own = self.sdks.begun(&beginning, |id| self.open.get(&id).is_some_and(|open| !open.over));
        let worked = !brokered.acknowledged;
        let arrival = Arrival { worked, end: request.head_end, context: request.context.clone(), queued: None };
        let open = Open {
            coroutine: request.coroutine,
            head_end: request.head_end,
            operation: request.operation,
            target: request.target,
            target_text: self.judge.needs_target().then(|| Arc::clone(&request.target_text)),
            left_out: own.left_out,
            queued: worked,
            arrival: Some(Box::new(arrival)),
            ..Open::new(Kind::Server, thread, at, self.judge.span_id(), resource)
        };
        self.note_consumer(tgid, at);
        if worked {
            self.make_room(out);
            self.begun.push_back((at, id));
            self.open.insert(id, open);
            let mut changes = Changes::default();
            self.works.got(tgid, &[Brought { id, records: Some(1), from: None }], at, &mut changes);
            self.change_work(changes, at, out);
        } else {
            self.enter(id, open, out);
        }
        let queue = match &brokered.queue {
            Some(queue) => hash(queue),
            None => hash((id.conn().0, brokered.consumer)),
        };
        let redelivered = brokered.redelivered;
        let reader = hash((id.conn().0, brokered.consumer));
        let given = match brokered.name {
            Some(name) => Given::Named(Delivery { name, queue, reader, redelivered, at }),
            None => Given::Unnamed,
        };
        self.given.insert((request.head_end, id), given);
    }

    /// The last octet of a message was sent: from then on it may come to others.
    pub fn sent(&mut self, id: ExchangeId, name: u64, channel: u16, at: MonoNanos) {
        let Some(open) = self.open.get_mut(&id) else { return };
        open.published = Some(name);
        let by = match &open.place {
            Some(place) => By::Placed(open.cause(place, Some(Link::certain(Method::Content)))),
            None => By::Open(id),
        };
        self.published.sent(name, Publish { id, by, channel, start: open.at, at, confirmed: None });
    }

    /// A broker of this host has got a message, whoever has sent it. `name`: where all of it was seen.
    pub fn taken(&mut self, name: Option<u64>, at: MonoNanos) {
        self.published.taken(name, at);
    }

    /// A message was moved, and is settled.
    pub fn moved(&mut self, transfer: Finished<Transfer>, resource: &Arc<Resource>, out: &mut Vec<Placed>) {
        let exchange = &transfer.exchange;
        let message = &exchange.message;
        if message.side == Side::Broker {
            return;
        }
        let (id, end) = (transfer.id(), exchange.end);
        let known = |open: &&mut Open| !open.over || open.is_worked_on();
        let Some(open) = self.open.get_mut(&id).filter(known) else {
            let (context, target) = (message.context.clone(), message.routing_key.clone().unwrap_or_default());
            let subject = Subject::Moved(Box::new(Moved { transfer, queued: None }));
            return self.untracked(subject, resource, context.as_ref(), &target, out);
        };
        match (&message.settled, open.published) {
            (Settled::Returned { .. }, Some(name)) => self.published.returned(name, id),
            (Settled::Confirmed, Some(name)) => self.published.confirmed(name, id, end),
            _ => {}
        }
        let faithful = exchange.response_thread.map(|thread| Faithful::of(open, exchange.request_thread, thread));
        let queued = open.arrival.as_ref().and_then(|arrival| arrival.queued);
        let subject = Subject::Moved(Box::new(Moved { transfer, queued }));
        if !open.is_worked_on() {
            open.over = true;
            let ending = open.ending();
            self.ended(id, ending, end, faithful, out);
            return self.conclude(id, subject, Arc::clone(resource), out);
        }
        match open.place.clone() {
            Some(place) => {
                let (span_id, left_out) = (open.span_id, open.left_out);
                out.push(Placed { subject, resource: Arc::clone(resource), span_id, place, left_out });
            }
            None => open.finished = Some(subject),
        }
    }

    /// Places messages that came when all is known that was sent before them.
    pub(super) fn poll_given(&mut self, now: MonoNanos, out: &mut Vec<Placed>) {
        while let Some(first) = self.given.first_entry()
            && now.since(first.key().0) > PATIENCE
        {
            let ((_, id), given) = first.remove_entry();
            let publish = match given {
                Given::Unnamed => None,
                Given::Named(delivery) => self.publish_of(delivery),
                Given::Of { name, publish } => self.published.get(name, publish).cloned(),
            };
            self.place_given(id, publish, out);
        }
    }

    /// The publish that a delivery is of. Where several are alike, it is decided of all together that have come.
    fn publish_of(&mut self, delivery: Delivery) -> Option<Publish> {
        if self.published.is_of_several(&delivery) {
            let name = delivery.name;
            let (mut keys, mut deliveries) = (Vec::new(), vec![delivery]);
            for (key, given) in self.given.iter().take(LOOKED_AT) {
                if let Given::Named(other) = given
                    && (other.name, other.queue) == (name, delivery.queue)
                {
                    keys.push(*key);
                    deliveries.push(*other);
                }
            }
            let publishes = if self.given.len() <= LOOKED_AT { self.published.take_all(&deliveries) } else { None };
            if let Some([first, others @ ..]) = publishes.as_deref() {
                for (key, &publish) in keys.into_iter().zip(others) {
                    self.given.insert(key, Given::Of { name, publish });
                }
                return self.published.get(name, *first).cloned();
            }
        }
        self.published.take(&delivery)
    }

    fn place_given(&mut self, id: ExchangeId, publish: Option<Publish>, out: &mut Vec<Placed>) {
        let Some(open) = self.open.get_mut(&id).filter(|open| open.place.is_none()) else { return };
        let Some(arrival) = &mut open.arrival else { return };
        arrival.queued = publish.as_ref().map(|publish| arrival.end.since(publish.start));
        if let Some(Subject::Moved(moved)) = &mut open.finished {
            moved.queued = arrival.queued;
        }
        match (publish, arrival.context.take()) {
            (Some(Publish { by: By::Open(sender), .. }), _) => {
                self.join(id, sender, Link::certain(Method::Content), out);
            }
            (Some(Publish { by: By::Placed(place), .. }), _) => self.settle(id, place, out),
            (None, Some(context)) => {
                let place = self.judge.continued(&context, open.origin(), open.at);
                self.settle(id, place, out);
            }
            (None, None) => self.uproot(id, out),
        }
    }
}

impl Open {
    /// A message that nobody will acknowledge.
    fn is_worked_on(&self) -> bool {
        self.arrival.as_ref().is_some_and(|arrival| arrival.worked)
    }
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
