//! Messages that go through a broker which gives them no number: which one that a consumer gets is one that a publisher of this host has
//! sent.
//!
//! Such a broker passes on what it was given: exchange, routing key, properties and body name a message at both ends, together with all
//! that are like it. So a delivery is of a publish where no other can be meant: only one like it has been sent by then that its queue has
//! not handed out yet. Of several alike nothing tells which; that they are all handed out is known when as many have come.

use std::collections::VecDeque;

use agent_common::ids::MonoNanos;
use rustc_hash::FxHashMap;

use super::messages::By;
use super::place::Place;
use crate::conn::ExchangeId;

/// Publishes remembered; past it the oldest are forgotten.
const MOST: usize = 32 * 1024;
/// How long one is remembered, in nanoseconds.
const MEMORY: u64 = 3_600_000_000_000;
/// So many alike are told apart, and so many queues are.
const ALIKE: usize = 64;
const QUEUES: usize = 64;

/// A message that was sent.
#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) id: ExchangeId,
    pub(super) by: By,
    /// Its first octet, and its last one.
    pub(super) start: MonoNanos,
    pub(super) at: MonoNanos,
}

/// A message that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    /// What names the message.
    pub(super) name: u64,
    /// What names the queue that it comes from.
    pub(super) queue: u64,
    pub(super) redelivered: bool,
    /// Its first octet.
    pub(super) at: MonoNanos,
}

/// Messages alike.
#[derive(Debug, Default)]
struct Alike {
    /// In the order in which they were sent, each with the queues that have handed it out, as bits by the order of `queues`.
    publishes: VecDeque<(Publish, u64)>,
    /// Each with how many it has handed out of which it is not known which they were.
    queues: Vec<(u64, usize)>,
    /// How many are in the order of all.
    remembered: usize,
    /// Some were forgotten: what comes may be those.
    forgetful: bool,
    /// There are too many, or others come than were seen to be sent: nothing is known of any.
    unknown: bool,
}

/// What is known of publishes. One owner; memory is bounded.
#[derive(Debug, Default)]
pub(super) struct Published {
    by_name: FxHashMap<u64, Alike>,
    order: VecDeque<(MonoNanos, u64, ExchangeId)>,
}

impl Published {
    pub(super) fn len(&self) -> u64 {
        self.order.len() as u64
    }

    /// A message was sent.
    pub(super) fn sent(&mut self, name: u64, publish: Publish) {
        while let Some((at, ..)) = self.order.front()
            && (self.order.len() >= MOST || publish.at.since(*at) > MEMORY)
        {
            let Some((_, name, id)) = self.order.pop_front() else { break };
            self.forget_oldest(name, id);
        }
        self.order.push_back((publish.at, name, publish.id));
        let alike = self.by_name.entry(name).or_insert_with(Alike::of_one);
        alike.remembered += 1;
        alike.push(publish);
    }

    fn forget_oldest(&mut self, name: u64, id: ExchangeId) {
        let Some(alike) = self.by_name.get_mut(&name) else { return };
        alike.remembered = alike.remembered.saturating_sub(1);
        if alike.remembered == 0 {
            self.by_name.remove(&name);
        } else if let Some(place) = alike.publishes.iter().position(|(publish, _)| publish.id == id) {
            alike.publishes.remove(place);
            alike.forgetful = true;
        }
    }

    /// No queue has taken a message.
    pub(super) fn returned(&mut self, name: u64, id: ExchangeId) {
        if let Some(alike) = self.by_name.get_mut(&name) {
            alike.publishes.retain(|(publish, _)| publish.id != id);
        }
    }

    /// Who has sent a message has its place.
    pub(super) fn placed(&mut self, name: u64, id: ExchangeId, place: &Place) {
        let publishes = self.by_name.get_mut(&name).into_iter().flat_map(|alike| &mut alike.publishes);
        for (publish, _) in publishes.filter(|(publish, _)| publish.id == id) {
            publish.by = By::Placed(place.clone());
        }
    }

    /// The publish that a delivery is of, where that is certain. Deliveries have to come in the order of time, and after what was sent
    /// before them.
    pub(super) fn take(&mut self, delivery: &Delivery) -> Option<Publish> {
        self.by_name.get_mut(&delivery.name)?.take(delivery)
    }
}

impl Alike {
    /// Room for one: most messages are like no other.
    fn of_one() -> Self {
        Self { publishes: VecDeque::with_capacity(1), ..Self::default() }
    }

    fn push(&mut self, publish: Publish) {
        if self.publishes.len() >= ALIKE {
            // What every queue has handed out is of no more use, unless to one that is not known yet.
            let all = if self.queues.len() < QUEUES { (1_u64 << self.queues.len()) - 1 } else { u64::MAX };
            self.unknown |= all == 0 || self.publishes.front().is_none_or(|(_, queues)| *queues != all);
            self.forgetful = true;
            self.publishes.pop_front();
        }
        if self.unknown {
            self.publishes.clear();
        } else {
            self.publishes.push_back((publish, 0));
        }
    }

    fn take(&mut self, delivery: &Delivery) -> Option<Publish> {
        let queue = match self.queues.iter().position(|(name, _)| *name == delivery.queue) {
            Some(queue) => queue,
            None if self.queues.len() < QUEUES && (!self.forgetful || self.queues.is_empty()) => {
                self.queues.push((delivery.queue, 0));
                self.queues.len() - 1
            }
            // It may hand out what was forgotten.
            None => return None,
        };
        let bit = 1_u64 << queue;
        let before = |publish: &Publish| publish.at <= delivery.at;
        let meant = |(publish, queues): &(Publish, u64)| before(publish) && (delivery.redelivered || queues & bit == 0);
        let count = self.publishes.iter().filter(|one| meant(one)).count();
        if count == 0 && !delivery.redelivered {
            self.unknown = true;
            self.publishes.clear();
        }
        let (_, doubtful) = self.queues.get_mut(queue)?;
        if count == 1 && (delivery.redelivered || *doubtful == 0) {
            let (publish, queues) = self.publishes.iter_mut().find(|one| meant(one))?;
            *queues |= bit;
            return Some(publish.clone());
        }
        if !delivery.redelivered {
            *doubtful += 1;
            // As many have come as were sent: so they all have.
            if *doubtful >= count && !self.forgetful {
                *doubtful = 0;
                self.publishes.iter_mut().filter(|one| meant(one)).for_each(|(_, queues)| *queues |= bit);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: u64 = 1;

    fn sent(published: &mut Published, id: u64, at: u64) {
        let id = ExchangeId(id);
        published.sent(7, Publish { id, by: By::Open(id), start: MonoNanos(at), at: MonoNanos(at) });
    }

    /// Whose message a queue hands out, if that is certain.
    fn taken(published: &mut Published, queue: u64, at: u64, redelivered: bool) -> Option<u64> {
        let delivery = Delivery { name: 7, queue, redelivered, at: MonoNanos(at) };
        published.take(&delivery).map(|publish| publish.id.0)
    }

    #[test]
    fn each_queue_hands_a_message_out_once_and_then_again() {
        let mut all = Published::default();
        sent(&mut all, 1, 10);
        assert_eq!(taken(&mut all, QUEUE, 20, false), Some(1));
        assert_eq!(taken(&mut all, 2, 30, false), Some(1), "another queue");
        assert_eq!(taken(&mut all, QUEUE, 40, true), Some(1), "again");
        sent(&mut all, 2, 50);
        assert_eq!(taken(&mut all, QUEUE, 60, false), Some(2), "the first one has come");
        assert_eq!(taken(&mut all, QUEUE, 70, true), None, "one of two");
    }

    #[test]
    fn of_messages_alike_none_is_known_until_all_have_come() {
        let mut all = Published::default();
        sent(&mut all, 1, 10);
        sent(&mut all, 2, 11);
        sent(&mut all, 3, 30);
        assert_eq!(taken(&mut all, QUEUE, 20, false), None);
        assert_eq!(taken(&mut all, QUEUE, 21, false), None);
        assert_eq!(taken(&mut all, QUEUE, 40, false), Some(3));
    }

    #[test]
    fn what_no_queue_took_is_not_waited_for() {
        let mut all = Published::default();
        sent(&mut all, 1, 10);
        all.returned(7, ExchangeId(1));
        sent(&mut all, 2, 20);
        assert_eq!(taken(&mut all, QUEUE, 30, false), Some(2));
    }

    #[test]
    fn messages_of_others_that_are_alike_end_all_certainty() {
        let mut all = Published::default();
        sent(&mut all, 1, 10);
        assert_eq!(taken(&mut all, QUEUE, 5, false), None, "before it was sent");
        sent(&mut all, 2, 20);
        assert_eq!(taken(&mut all, QUEUE, 30, false), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut all = Published::default();
        for id in 0..2 * ALIKE as u64 {
            sent(&mut all, id, 2 * id);
            assert_eq!(taken(&mut all, QUEUE, 2 * id + 1, false), Some(id));
        }
        assert_eq!(taken(&mut all, 2, 1_000, false), None, "it may have those that are forgotten");
        let mut crowd = Published::default();
        (0..=ALIKE as u64).for_each(|id| sent(&mut crowd, id, id));
        assert_eq!(taken(&mut crowd, QUEUE, 1_000, false), None);
        sent(&mut crowd, 1_000, 2 * MEMORY);
        assert_eq!((crowd.len(), taken(&mut crowd, QUEUE, 2 * MEMORY, false)), (1, Some(1_000)), "after an hour");
        for id in 0..2 * MOST as u64 {
            let publish =
                Publish { id: ExchangeId(id), by: By::Open(ExchangeId(id)), start: MonoNanos(1), at: MonoNanos(1) };
            crowd.sent(id, publish);
        }
        assert_eq!((crowd.len(), crowd.by_name.len()), (MOST as u64, MOST));
    }
}
