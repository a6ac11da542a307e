//! For how long consumers work on the messages that they got.
//!
//! Nothing on the wire tells when one is done. So it is concluded from the calls that a process makes:
//! - it works on a message until it has made no call for a second, or until the next one is there and it was quiet for a moment;
//! - once it is known that it makes the same number of calls for each record, it is done with as many, and takes up the next message then, in their
//!   order. The order of several partitions' messages in one response is known of some processes alone ([`Works::takes_in_order`]). A
//!   consumer that calls for one message while it does so for the one before works on several at once, and then nothing is concluded from
//!   numbers and order;
//! - one miscounted message would move all calls after it to the wrong one, so where anything says that the count is out of step, nothing is
//!   concluded from it until it is learnt anew: the consumer asks for an offset again, has committed what it should not have taken up yet,
//!   or is quiet for long though there should be something to do.

use std::collections::VecDeque;

use agent_common::ids::{ConnId, MonoNanos, Tgid};
use rustc_hash::FxHashMap;

use crate::conn::ExchangeId;

/// Without a call for so long, a consumer is done with what it got, in nanoseconds.
const IDLE: u64 = 1_000_000_000;
/// Between two calls for the same message a consumer is not as quiet as that, as a rule; in nanoseconds.
const QUIET: u64 = 2_000_000;
/// The same where it had several messages at once.
const CALM: u64 = 50_000_000;
/// After so long a message is done with in any case: a call that never ends says nothing.
const LONGEST: u64 = 60_000_000_000;
/// It is out of step when it is quiet for so many times the longest pause before a call that was seen, and at least for [`CALM`].
const PAUSES: u64 = 4;
/// Responses whose messages a process has at the same time, as far as is kept.
const MOST: usize = 1024;
/// Messages with the same number of calls for each record, one after the other, until others are expected to have as many.
const ENOUGH: u32 = 3;

/// What becomes of messages.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Their process is done with them.
    pub(super) done: Vec<ExchangeId>,
    /// Their process works on them from now on.
    pub(super) begun: Vec<ExchangeId>,
}

/// Messages of one partition that a response has brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brought {
    pub(super) id: ExchangeId,
    /// `None`: not known.
    pub(super) records: Option<u32>,
    pub(super) from: Option<Stretch>,
}

/// Where messages stand in their log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// The connection that has brought them: a process may have several consumers, each of which gets them.
    pub(super) conn: ConnId,
    /// A hash of topic and partition.
    pub(super) partition: u64,
    pub(super) first: i64,
    pub(super) last: i64,
}

/// What all processes work on. One owner; memory is bounded by the number of processes.
#[derive(Debug, Default)]
pub(super) struct Works {
    consumers: FxHashMap<Tgid, Consumer>,
}

#[derive(Debug, Default)]
struct Consumer {
    /// In the order in which they came.
    works: VecDeque<Work>,
    /// Calls without an answer.
    calling: u32,
    /// When the newest call began or ended.
    last: MonoNanos,
    /// Calls for each record of the newest messages, and for how many messages that was the same.
    usual: (u32, u32),
    /// It works on several messages at once.
    parallel: bool,
    /// It takes up what one response has brought in the order that it has there.
    in_order: bool,
    /// The longest pause before a call, in nanoseconds, while there was something to do and messages were taken up one by one.
    pause: u64,
}

/// What one response has brought, or one partition of it where the order is known.
#[derive(Debug)]
struct Work {
    ids: Vec<ExchangeId>,
    at: MonoNanos,
    /// `None`: not known.
    records: Option<u32>,
    /// Where they stand in their log, if they are of one partition.
    from: Option<Stretch>,
    begun: Option<MonoNanos>,
    /// Calls that it is known to have made for it.
    calls: u32,
    /// It was worked on beside others, so that its calls are not known.
    crowded: bool,
}

impl Works {
    /// Whether a process takes up the partitions' messages in the order of the response that has brought them.
    pub(super) fn takes_in_order(&mut self, tgid: Tgid, in_order: bool) {
        if in_order {
            self.consumers.entry(tgid).or_default().in_order = true;
        } else if let Some(consumer) = self.consumers.get_mut(&tgid) {
            consumer.in_order = false;
        }
    }

    /// A process has got messages by one response.
    pub(super) fn got(&mut self, tgid: Tgid, messages: &[Brought], at: MonoNanos, changes: &mut Changes) {
        let consumer = self.consumers.entry(tgid).or_default();
        messages.iter().filter_map(|message| message.from).for_each(|from| consumer.left_out(from, changes));
        if consumer.is_calm(at) {
            consumer.finish_all(changes);
        } else if consumer.is_over(at) {
            consumer.finish(changes);
        } else if consumer.is_stalled(at) {
            consumer.lose_step();
        }
        let together = if consumer.in_order { 1 } else { messages.len().max(1) };
        for messages in messages.chunks(together) {
            if consumer.works.len() >= MOST {
                consumer.finish(changes);
            }
            consumer.works.push_back(Work::new(messages, at));
        }
        consumer.take_up(at, changes);
    }

    /// A process says that it has got all messages of a partition up to before an offset.
    pub(super) fn committed(&mut self, tgid: Tgid, partition: u64, offset: i64, at: MonoNanos, changes: &mut Changes) {
        let Some(consumer) = self.consumers.get_mut(&tgid).filter(|consumer| consumer.in_order) else { return };
        let taken = |work: &Work| work.from.is_some_and(|from| from.partition == partition && from.last < offset);
        let Some(newest) = consumer.works.iter().rposition(taken) else { return };
        let behind = consumer.works.iter().take(newest + 1).any(|work| work.begun.is_none());
        (0..newest).for_each(|_| consumer.finish(changes));
        if behind {
            consumer.lose_step();
        }
        consumer.take_up(at, changes);
    }

    /// A process calls.
    pub(super) fn calls(&mut self, tgid: Tgid, at: MonoNanos, changes: &mut Changes) {
        let Some(consumer) = self.consumers.get_mut(&tgid) else { return };
        if consumer.has_enough() && consumer.works.len() > 1 {
            // It does not wait for the answer to what it asked for the one before.
            consumer.parallel |= consumer.calling > 0;
            consumer.finish(changes);
        }
        consumer.take_up(at, changes);
        if let Some(quiet) = consumer.quiet(at).filter(|_| consumer.calls_each().is_some()) {
            consumer.pause = consumer.pause.max(quiet);
        }
        (consumer.calling, consumer.last) = (consumer.calling.saturating_add(1), at);
        consumer
            .works
            .iter_mut()
            .filter(|work| work.begun.is_some())
            .for_each(|work| work.calls = work.calls.saturating_add(1));
    }

    /// A call of a process is over.
    pub(super) fn returned(&mut self, tgid: Tgid, at: MonoNanos, changes: &mut Changes) {
        let Some(consumer) = self.consumers.get_mut(&tgid) else { return };
        (consumer.calling, consumer.last) = (consumer.calling.saturating_sub(1), consumer.last.max(at));
        if consumer.calling == 0 && consumer.has_enough() && consumer.works.len() > 1 {
            consumer.finish(changes);
            consumer.take_up(at, changes);
        }
    }

    /// What processes are done with by `now`, the time up to which everything has been seen.
    pub(super) fn poll(&mut self, now: MonoNanos, changes: &mut Changes) {
        for consumer in self.consumers.values_mut() {
            while let Some(work) = consumer.works.front()
                && ((consumer.calling == 0 && now.since(work.at.max(consumer.last)) > IDLE)
                    || now.since(work.at) > LONGEST)
            {
                consumer.finish(changes);
                consumer.take_up(now, changes);
            }
        }
    }

    pub(super) fn exited(&mut self, tgid: Tgid, changes: &mut Changes) {
        let consumer = self.consumers.remove(&tgid);
        changes.done.extend(consumer.into_iter().flat_map(|consumer| consumer.works).flat_map(|work| work.ids));
    }
}

impl Work {
    fn new(messages: &[Brought], at: MonoNanos) -> Self {
        let counts = messages.iter().map(|message| message.records);
        let records =
            counts.reduce(|one, other| one.zip(other).map(|(one, other)| one.saturating_add(other))).flatten();
        let from = if let [one] = messages { one.from } else { None };
        let ids = messages.iter().map(|message| message.id).collect();
        Self { ids, at, records, from, begun: None, calls: 0, crowded: false }
    }

    /// Whether the number of its calls can say that it is done with.
    const fn is_counted(&self) -> bool {
        !self.crowded && self.records.is_some()
    }
}

impl Consumer {
    /// How many calls it makes for each record, when that is known and says something.
    fn calls_each(&self) -> Option<u32> {
        let (calls, messages) = self.usual;
        (messages >= ENOUGH && !self.parallel).then_some(calls)
    }

    /// Whether the oldest message has had its calls.
    fn has_enough(&self) -> bool {
        let Some((each, work)) = self.calls_each().zip(self.works.front()) else { return false };
        let Some(records) = work.records else { return false };
        !work.crowded && work.begun.is_some() && work.calls >= each.saturating_mul(records)
    }

    /// For how long it has made no call, though it works on a message; `None` while it calls, or when it has none.
    fn quiet(&self, at: MonoNanos) -> Option<u64> {
        let begun = self.works.front().filter(|_| self.calling == 0)?.begun?;
        Some(at.since(self.last.max(begun)))
    }

    /// Whether it is done with the oldest message when another comes at `at`.
    fn is_over(&self, at: MonoNanos) -> bool {
        let Some(work) = self.works.front().filter(|work| !work.crowded && work.begun.is_some()) else { return false };
        if self.calls_each().is_some() && work.records.is_some() {
            return self.has_enough();
        }
        self.calling == 0 && at.since(self.last) >= QUIET && !self.parallel && work.calls > 0
    }

    /// Whether it is done with all that it has when another message comes at `at`.
    fn is_calm(&self, at: MonoNanos) -> bool {
        let Some(work) = self.works.front().filter(|work| work.crowded) else { return false };
        let records = self.works.iter().fold(0, |sum: u32, work| sum.saturating_add(work.records.unwrap_or(1)));
        self.calling == 0 && at.since(self.last) >= CALM && work.calls >= records
    }

    /// Whether it has long been quiet when another message comes at `at`, though it should work on the oldest.
    fn is_stalled(&self, at: MonoNanos) -> bool {
        let long = CALM.max(PAUSES.saturating_mul(self.pause));
        let counts = self.calls_each().is_some() && self.works.front().is_some_and(Work::is_counted);
        counts && !self.has_enough() && self.quiet(at).is_some_and(|quiet| quiet >= long)
    }

    /// Numbers and order say nothing until they are learnt anew.
    const fn lose_step(&mut self) {
        self.usual = (0, 0);
    }

    /// It has asked for messages again that it got before: it has left those out, unless it called because of them.
    fn left_out(&mut self, again: Stretch, changes: &mut Changes) {
        self.works.retain(|work| {
            let log = |from: Stretch| (from.conn, from.partition);
            let same = |from: Stretch| log(from) == log(again) && from.last >= again.first;
            let left_out = work.calls == 0 && work.from.is_some_and(same);
            if left_out {
                changes.done.extend(&work.ids);
            }
            !left_out
        });
    }

    fn finish_all(&mut self, changes: &mut Changes) {
        while !self.works.is_empty() {
            self.finish(changes);
        }
    }

    /// It is done with the oldest message.
    fn finish(&mut self, changes: &mut Changes) {
        let Some(work) = self.works.pop_front() else { return };
        changes.done.extend(work.ids);
        let Some(records) = work.records.filter(|_| !work.crowded && work.begun.is_some()) else { return };
        let records = records.max(1);
        let (calls, messages) = self.usual;
        self.usual = if calls * records == work.calls {
            (calls, messages.saturating_add(1))
        } else if work.calls % records == 0 {
            (work.calls / records, 1)
        } else {
            (0, 0)
        };
    }

    /// Works on the oldest message, or on all where nothing says that it takes them one after the other.
    fn take_up(&mut self, at: MonoNanos, changes: &mut Changes) {
        let one_by_one = self.calls_each().is_some() && self.works.front().is_none_or(Work::is_counted);
        let most = if one_by_one { 1 } else { self.works.len() };
        let crowded = most > 1;
        for work in self.works.iter_mut().take(most) {
            work.crowded |= crowded;
            if work.begun.is_none() {
                work.begun = Some(at);
                changes.begun.extend(&work.ids);
            }
        }
    }
}

#[cfg(test)]
mod tests;
