//! Messages that go through a broker which gives them no number: which one that a consumer gets is one that a publisher of this host has
//! sent.
//!
//! Such a broker passes on what it was given: exchange, routing key, properties and body name a message at both ends, together with all
//! that are like it. So a delivery is of a publish where no other can be meant: only one like it has been sent by then that its queue has
//! not handed out yet. Of several alike (`alike`) their order tells, where that is certain, and else nothing; that they are all handed
//! out is known when as many have come.

use std::collections::VecDeque;

use agent_common::ids::MonoNanos;
use rustc_hash::FxHashMap;

use super::alike::Alike;
use super::messages::By;
use super::place::Place;
use crate::conn::ExchangeId;

/// Publishes remembered; past it the oldest are forgotten.
const MOST: usize = 32 * 1024;
/// How long one is remembered, in nanoseconds.
const MEMORY: u64 = 3_600_000_000_000;
/// A message that was sent.
#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) id: ExchangeId,
    pub(super) by: By,
    pub(super) channel: u16,
    /// Its first octet, and its last one.
    pub(super) start: MonoNanos,
    pub(super) at: MonoNanos,
    /// When the broker had said that it has it.
    pub(super) confirmed: Option<MonoNanos>,
}

impl Publish {
    /// Whether it is certain that the broker had it before the other: by one channel, or it was confirmed before the other was sent.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        let behind = self.channel == other.channel && self.id.conn() == other.id.conn() && self.id < other.id;
        behind || self.confirmed.is_some_and(|at| at <= other.start)
    }
}

/// A message that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    /// What names the message.
    pub(super) name: u64,
    /// What names the queue that it comes from.
    pub(super) queue: u64,
    /// Who has got it, by connection, channel and consumer.
    pub(super) reader: u64,
    pub(super) redelivered: bool,
    /// Its first octet.
    pub(super) at: MonoNanos,
}

/// What is known of publishes. One owner; memory is bounded.
#[derive(Debug, Default)]
pub(super) struct Published {
    by_name: FxHashMap<u64, Alike>,
    order: VecDeque<(MonoNanos, u64, ExchangeId)>,
    /// What brokers of this host were seen to get, remembered as long.
    taken: VecDeque<(MonoNanos, u64)>,
    /// When one of them got something that has no name, since not all of it was seen.
    unnamed: Option<MonoNanos>,
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

    /// A broker has got a message.
    pub(super) fn taken(&mut self, name: Option<u64>, at: MonoNanos) {
        let Some(name) = name else {
            self.unnamed = self.unnamed.max(Some(at));
            return;
        };
        while let Some(&(oldest, name)) = self.taken.front()
            && (self.taken.len() >= MOST || at.since(oldest) > MEMORY)
        {
            self.taken.pop_front();
            let forgotten = self.by_name.get_mut(&name).is_some_and(|alike| {
                alike.remembered = alike.remembered.saturating_sub(1);
                alike.remembered == 0
            });
            if forgotten {
                self.by_name.remove(&name);
            }
        }
        self.taken.push_back((at, name));
        let alike = self.by_name.entry(name).or_insert_with(Alike::of_one);
        alike.remembered += 1;
        alike.taken();
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

    /// The broker has told its publisher, by `at`, that it has a message.
    pub(super) fn confirmed(&mut self, name: u64, id: ExchangeId, at: MonoNanos) {
        if let Some(publish) = self.get_mut(name, id) {
            publish.confirmed = Some(at);
        }
    }

    fn get_mut(&mut self, name: u64, id: ExchangeId) -> Option<&mut Publish> {
        let publishes = &mut self.by_name.get_mut(&name)?.publishes;
        publishes.iter_mut().map(|(publish, _)| publish).find(|publish| publish.id == id)
    }

    pub(super) fn get(&self, name: u64, id: ExchangeId) -> Option<&Publish> {
        let publishes = &self.by_name.get(&name)?.publishes;
        publishes.iter().map(|(publish, _)| publish).find(|publish| publish.id == id)
    }

    /// Whether a delivery may be of several that are alike.
    pub(super) fn is_of_several(&self, delivery: &Delivery) -> bool {
        self.by_name.get(&delivery.name).is_some_and(Alike::are_several)
    }

    /// The publishes that the first of these deliveries of one name and queue are of, where that is certain. They have to be all that
    /// have come since the last one was asked for, in their order.
    pub(super) fn take_all(&mut self, deliveries: &[Delivery]) -> Option<Vec<ExchangeId>> {
        self.by_name.get_mut(&deliveries.first()?.name)?.take_all(deliveries, self.unnamed)
    }

    /// Who has sent a message has its place.
    pub(super) fn placed(&mut self, name: u64, id: ExchangeId, place: &Place) {
        if let Some(publish) = self.get_mut(name, id) {
            publish.by = By::Placed(place.clone());
        }
    }

    /// The publish that a delivery is of, where that is certain. Deliveries have to come in the order of time, and after what was sent
    /// before them.
    pub(super) fn take(&mut self, delivery: &Delivery) -> Option<Publish> {
        self.by_name.get_mut(&delivery.name)?.take(delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::ExchangeId;
    use crate::trace::alike::ALIKE;

    const QUEUE: u64 = 1;

    fn publish(id: u64, channel: u16, at: u64) -> Publish {
        let (id, at) = (ExchangeId(id), MonoNanos(at));
        Publish { id, by: By::Open(id), channel, start: at, at, confirmed: None }
    }

    fn sent(published: &mut Published, id: u64, at: u64) {
        published.sent(7, publish(id, 1, at));
    }

    fn delivery(queue: u64, at: u64, redelivered: bool) -> Delivery {
        Delivery { name: 7, queue, reader: queue, redelivered, at: MonoNanos(at) }
    }

    /// Whose message a queue hands out, if that is certain.
    fn taken(published: &mut Published, queue: u64, at: u64, redelivered: bool) -> Option<u64> {
        published.take(&delivery(queue, at, redelivered)).map(|publish| publish.id.0)
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
            crowd.sent(id, publish(id, 1, 1));
            crowd.taken(Some(id), MonoNanos(1));
        }
        assert_eq!((crowd.len(), crowd.by_name.len(), crowd.taken.len()), (MOST as u64, MOST, MOST));
        let mut others = Published::default();
        (0..2 * MOST as u64).for_each(|name| others.taken(Some(name), MonoNanos(1)));
        assert_eq!(others.by_name.len(), MOST, "of publishers elsewhere");
    }

    /// Three alike that were sent and taken, and what else `change` makes of it; whose messages two queues then hand out.
    fn three(change: impl Fn(&mut Published, &mut Vec<Delivery>)) -> Option<Vec<u64>> {
        let mut all = Published::default();
        for id in 1..=3 {
            sent(&mut all, id, 10 * id);
            all.taken(Some(7), MonoNanos(10 * id + 1));
        }
        let mut deliveries = [40, 41, 42].map(|at| delivery(QUEUE, at, false)).to_vec();
        change(&mut all, &mut deliveries);
        let other: Vec<_> = deliveries.iter().map(|&delivery| Delivery { queue: 2, ..delivery }).collect();
        let ids = all.take_all(&deliveries).map(|ids| ids.into_iter().map(|id| id.0).collect());
        assert_eq!(all.take_all(&other).is_some(), ids.is_some(), "each queue hands out all");
        assert!(ids.is_none() || all.take_all(&deliveries[..1]).is_none(), "none is handed out twice");
        ids
    }

    #[test]
    fn messages_alike_go_by_their_order_where_that_is_certain() {
        assert_eq!(three(|_, _| ()), Some(vec![1, 2, 3]));
        assert_eq!(three(|_, deliveries| deliveries.truncate(2)), None, "one may have been thrown away");
        let more = three(|_, deliveries| deliveries.push(delivery(QUEUE, 90, false)));
        assert_eq!(more, None, "one was there before");
        assert_eq!(three(|_, deliveries| deliveries[1].redelivered = true), None);
        assert_eq!(three(|_, deliveries| deliveries[2].reader = 9), None, "two consumers");
        assert_eq!(three(|_, deliveries| deliveries[0].at = MonoNanos(9)), None, "before it was sent");
        assert_eq!(three(|all, _| all.taken(Some(7), MonoNanos(35))), None, "of a publisher that is not seen");
        assert_eq!(three(|all, _| sent(all, 4, 35)), None, "the broker does not have it");
        assert_eq!(three(|all, _| all.taken(None, MonoNanos(35))), None, "perhaps one of these");
        assert_eq!(three(|all, _| all.taken(None, MonoNanos(5))), Some(vec![1, 2, 3]));
        assert_eq!(three(|all, _| all.taken(Some(8), MonoNanos(35))), Some(vec![1, 2, 3]), "another message");
        let doubtful = three(|all, _| _ = (taken(all, QUEUE, 39, false), taken(all, 2, 39, false)));
        assert_eq!(doubtful, None, "one was handed out that may be any of them");
        // What was sent later waits for its own; what comes late was perhaps never seen to be sent.
        let later = |all: &mut Published, _: &mut Vec<Delivery>| {
            sent(all, 4, 41);
            all.taken(Some(7), MonoNanos(41));
        };
        assert_eq!(three(later), None, "one of the four");
        let pause = three(|all, deliveries| {
            sent(all, 4, 50);
            all.taken(Some(7), MonoNanos(50));
            deliveries.push(delivery(QUEUE, 55, false));
        });
        assert_eq!(pause, Some(vec![1, 2, 3]), "all were handed out before the fourth was sent");
        // Of what was not seen to be taken by a broker nothing is known.
        let mut elsewhere = Published::default();
        (1..=2).for_each(|id| sent(&mut elsewhere, id, id));
        assert_eq!(elsewhere.take_all(&[delivery(QUEUE, 5, false), delivery(QUEUE, 6, false)]), None);
    }

    #[test]
    fn two_publishers_are_in_order_where_one_waits_for_the_other() {
        let of = |channel: u16, conn: u64, confirmed: Option<u64>| {
            let mut all = Published::default();
            all.sent(7, publish(1, 1, 10));
            all.sent(7, publish(conn << 24 | 2, channel, 20));
            (0..2).for_each(|_| all.taken(Some(7), MonoNanos(25)));
            if let Some(at) = confirmed {
                all.confirmed(7, ExchangeId(1), MonoNanos(at));
            }
            all.take_all(&[delivery(QUEUE, 30, false), delivery(QUEUE, 31, false)]).is_some()
        };
        assert!(of(1, 0, None), "one channel");
        assert!(!of(2, 0, None) && !of(1, 1, None), "another channel, another connection");
        assert!(of(2, 0, Some(20)) && of(1, 1, Some(15)));
        assert!(!of(2, 0, Some(21)), "both at once");
    }

    #[test]
    fn what_others_have_sent_ends_all_certainty() {
        let mut all = Published::default();
        sent(&mut all, 1, 10);
        (0..2).for_each(|_| all.taken(Some(7), MonoNanos(11)));
        assert_eq!(taken(&mut all, QUEUE, 20, false), None, "it may be the other's");
    }
}
