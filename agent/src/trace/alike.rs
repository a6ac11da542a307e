//! Messages that nothing on the wire tells apart: which of those that a queue hands out is which of those that were sent.

use std::collections::VecDeque;

use agent_common::ids::MonoNanos;

use super::published::{Delivery, Publish};
use crate::conn::ExchangeId;

/// So many alike are told apart, and so many queues are.
pub(super) const ALIKE: usize = 64;
const QUEUES: usize = 64;

/// Messages alike.
#[derive(Debug, Default)]
pub(super) struct Alike {
    /// In the order in which they were sent, each with the queues that have handed it out, as bits by the order of `queues`.
    pub(super) publishes: VecDeque<(Publish, u64)>,
    /// Each with how many it has handed out of which it is not known which they were.
    queues: Vec<(u64, usize)>,
    /// How many are in the order of all.
    pub(super) remembered: usize,
    /// How many were seen to be sent, and how many a broker of this host was seen to be sent.
    sent: u64,
    taken: u64,
    /// Some were forgotten: what comes may be those.
    pub(super) forgetful: bool,
    /// There are too many, or others come than were seen to be sent: nothing is known of any.
    unknown: bool,
}

impl Alike {
    /// Room for one: most messages are like no other.
    pub(super) fn of_one() -> Self {
        Self { publishes: VecDeque::with_capacity(1), ..Self::default() }
    }

    pub(super) fn push(&mut self, publish: Publish) {
        self.sent += 1;
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

    /// A broker has got one.
    pub(super) fn taken(&mut self) {
        self.taken += 1;
    }

    /// The place of a queue; `None` when it may hand out what was forgotten.
    fn queue(&mut self, name: u64) -> Option<usize> {
        let found = self.queues.iter().position(|(queue, _)| *queue == name);
        if found.is_none() && self.queues.len() < QUEUES && (!self.forgetful || self.queues.is_empty()) {
            self.queues.push((name, 0));
            return Some(self.queues.len() - 1);
        }
        found
    }

    /// Whether several can be meant.
    pub(super) fn are_several(&self) -> bool {
        self.publishes.len() > 1 && !self.unknown
    }

    /// The publish that a delivery is of, where only one can be meant.
    pub(super) fn take(&mut self, delivery: &Delivery) -> Option<Publish> {
        let queue = self.queue(delivery.queue)?;
        let bit = 1_u64 << queue;
        let before = |publish: &Publish| publish.at <= delivery.at;
        let meant = |(publish, queues): &(Publish, u64)| before(publish) && (delivery.redelivered || queues & bit == 0);
        let count = self.publishes.iter().filter(|one| meant(one)).count();
        // A broker has got one that nobody was seen to send, or it hands out one.
        if self.taken > self.sent || (count == 0 && !delivery.redelivered) {
            self.unknown = true;
            self.publishes.clear();
            return None;
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

    /// The publishes that the first of these deliveries of one queue are of, in their order, where that is certain: a queue hands out in
    /// the order in which it was given, so where it has handed out to one consumer as many as it was given by then, each is the
    /// one in its place, and none was thrown away. For that, the order in which the broker got them has to be certain; every one
    /// that it got, seen to be sent; and none is handed out anew, or to another consumer.
    pub(super) fn take_all(&mut self, deliveries: &[Delivery], unnamed: Option<MonoNanos>) -> Option<Vec<ExchangeId>> {
        let first = deliveries.first()?;
        let queue = self.queue(first.queue)?;
        let bit = 1_u64 << queue;
        let &(_, doubtful) = self.queues.get(queue)?;
        let certain = !self.unknown && !self.forgetful && self.sent == self.taken && doubtful == 0;
        let alone = deliveries.iter().all(|delivery| !delivery.redelivered && delivery.reader == first.reader);
        if !(certain && alone) {
            return None;
        }
        let waiting = self.publishes.iter().filter(|(_, queues)| queues & bit == 0).map(|(publish, _)| publish);
        let waiting: Vec<&Publish> = waiting.collect();
        // How many were sent by each of the deliveries.
        let sent = |by: MonoNanos| waiting.iter().filter(|publish| publish.at <= by).count();
        let balances: Vec<_> = deliveries.iter().map(|delivery| sent(delivery.at)).zip(1..).collect();
        if balances.iter().any(|(sent, number)| sent < number) {
            // Some were in the queue before any was seen to be sent.
            self.unknown = true;
            self.publishes.clear();
            return None;
        }
        let &(number, _) = balances.iter().find(|(sent, number)| sent == number)?;
        let waiting = waiting.get(..number)?;
        let oldest = waiting.iter().map(|publish| publish.start).min()?;
        let known = unnamed.is_none_or(|unnamed| unnamed < oldest);
        let ordered = waiting.windows(2).all(|two| matches!(two, [one, other] if one.is_before(other)));
        let in_time = waiting.iter().zip(deliveries).all(|(publish, delivery)| publish.at <= delivery.at);
        if !(known && ordered && in_time) {
            return None;
        }
        let ids: Vec<ExchangeId> = waiting.iter().map(|publish| publish.id).collect();
        let handed_out = self.publishes.iter_mut().filter(|(_, queues)| *queues & bit == 0).take(number);
        handed_out.for_each(|(_, queues)| *queues |= bit);
        Some(ids)
    }
}
