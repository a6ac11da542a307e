//! For how long consumers work on the messages that they got.
//!
//! Nothing on the wire tells when one is done. So it is concluded from the calls that a process makes:
//! - it works on a message until it has made no call for a second, or until the next one is there and it was quiet for a moment;
//! - once it is known that it makes the same number of calls for each record, it is done with as many, and takes up the next message then, in their
//!   order. A consumer that calls for one message while it does so for the one before works on several at once, and then nothing is
//!   concluded from numbers and order.

use std::collections::VecDeque;

use agent_common::ids::{MonoNanos, Tgid};
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
}

/// What one response has brought.
#[derive(Debug)]
struct Work {
    /// Messages of several partitions: in which order these are taken nothing tells.
    ids: Vec<ExchangeId>,
    at: MonoNanos,
    records: u32,
    begun: bool,
    /// Calls that it is known to have made for it.
    calls: u32,
    /// It was worked on beside others, so that its calls are not known.
    crowded: bool,
}

impl Works {
    /// A process has got messages of so many records.
    pub(super) fn got(&mut self, tgid: Tgid, ids: Vec<ExchangeId>, records: u32, at: MonoNanos, changes: &mut Changes) {
        let consumer = self.consumers.entry(tgid).or_default();
        if consumer.works.len() >= MOST {
            consumer.finish(changes);
        }
        if consumer.is_calm(at) {
            consumer.finish_all(changes);
        } else if consumer.is_over(at) {
            consumer.finish(changes);
        }
        consumer.works.push_back(Work { ids, at, records, begun: false, calls: 0, crowded: false });
        consumer.take_up(changes);
    }

    /// A process calls.
    pub(super) fn calls(&mut self, tgid: Tgid, at: MonoNanos, changes: &mut Changes) {
        let Some(consumer) = self.consumers.get_mut(&tgid) else { return };
        if consumer.has_enough() && consumer.works.len() > 1 {
            // It does not wait for the answer to what it asked for the one before.
            consumer.parallel |= consumer.calling > 0;
            consumer.finish(changes);
        }
        consumer.take_up(changes);
        (consumer.calling, consumer.last) = (consumer.calling.saturating_add(1), at);
        consumer.works.iter_mut().filter(|work| work.begun).for_each(|work| work.calls = work.calls.saturating_add(1));
    }

    /// A call of a process is over.
    pub(super) fn returned(&mut self, tgid: Tgid, at: MonoNanos, changes: &mut Changes) {
        let Some(consumer) = self.consumers.get_mut(&tgid) else { return };
        (consumer.calling, consumer.last) = (consumer.calling.saturating_sub(1), consumer.last.max(at));
        if consumer.calling == 0 && consumer.has_enough() && consumer.works.len() > 1 {
            consumer.finish(changes);
            consumer.take_up(changes);
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
                consumer.take_up(changes);
            }
        }
    }

    pub(super) fn exited(&mut self, tgid: Tgid, changes: &mut Changes) {
        let consumer = self.consumers.remove(&tgid);
        changes.done.extend(consumer.into_iter().flat_map(|consumer| consumer.works).flat_map(|work| work.ids));
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
        !work.crowded && work.begun && work.calls >= each.saturating_mul(work.records)
    }

    /// Whether it is done with the oldest message when another comes at `at`.
    fn is_over(&self, at: MonoNanos) -> bool {
        if self.calls_each().is_some() {
            return self.has_enough();
        }
        let quiet = self.calling == 0 && at.since(self.last) >= QUIET;
        quiet && !self.parallel && self.works.front().is_some_and(|work| !work.crowded && work.begun && work.calls > 0)
    }

    /// Whether it is done with all that it has when another message comes at `at`.
    fn is_calm(&self, at: MonoNanos) -> bool {
        let Some(work) = self.works.front().filter(|work| work.crowded) else { return false };
        let records = self.works.iter().fold(0, |sum: u32, work| sum.saturating_add(work.records));
        self.calling == 0 && at.since(self.last) >= CALM && work.calls >= records
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
        if work.crowded || !work.begun {
            return;
        }
        let records = work.records.max(1);
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
    fn take_up(&mut self, changes: &mut Changes) {
        let one_by_one = self.calls_each().is_some() && self.works.front().is_none_or(|work| !work.crowded);
        let most = if one_by_one { 1 } else { self.works.len() };
        let crowded = most > 1;
        for work in self.works.iter_mut().take(most) {
            work.crowded |= crowded;
            if !work.begun {
                work.begun = true;
                changes.begun.extend(&work.ids);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const CONSUMER: Tgid = Tgid(7);

    /// A consumer, by what happens to it at which millisecond: `m` a message of one record (`2` of two), `c` a call, `r` its
    /// return, `.` nothing. What begins and ends then, by the messages' numbers.
    fn told(script: &[(u64, &str)]) -> Vec<String> {
        let (mut works, mut number) = (Works::default(), 0);
        let mut told = Vec::new();
        for (at, what) in script {
            let (at, mut changes) = (MonoNanos(at * MS), Changes::default());
            match *what {
                "c" => works.calls(CONSUMER, at, &mut changes),
                "r" => works.returned(CONSUMER, at, &mut changes),
                "." => works.poll(at, &mut changes),
                message => {
                    number += 1;
                    let records = if message == "m" { 1 } else { message.parse().unwrap() };
                    works.got(CONSUMER, vec![ExchangeId(number)], records, at, &mut changes);
                }
            }
            let list = |ids: Vec<ExchangeId>, sign: char| ids.into_iter().map(move |id| format!("{sign}{}", id.0));
            let all: Vec<String> = list(changes.done, '-').chain(list(changes.begun, '+')).collect();
            told.push(all.concat());
        }
        told
    }

    /// Messages far apart, each with so many calls.
    fn apart(messages: u64, calls: u64) -> Vec<(u64, &'static str)> {
        let one = |message: u64| {
            let at = 1 + message * 100;
            let pairs = (0..calls).flat_map(move |call| [(at + 1 + call * 10, "c"), (at + 2 + call * 10, "r")]);
            std::iter::once((at, "m")).chain(pairs)
        };
        (0..messages).flat_map(one).collect()
    }

    #[test]
    fn a_message_is_done_with_when_nothing_was_called_for_a_second() {
        let script = [(1, "m"), (2, "c"), (900, "r"), (1500, "."), (1899, "."), (1901, ".")];
        assert_eq!(told(&script), ["+1", "", "", "", "", "-1"]);
        let script = [(1, "m"), (2, "c"), (59_000, "."), (60_002, ".")];
        assert_eq!(told(&script), ["+1", "", "", "-1"], "a call without an end");
    }

    #[test]
    fn the_next_one_ends_it_after_a_moment_of_quiet() {
        let script = [(1, "m"), (2, "c"), (3, "r"), (6, "m"), (7, "c")];
        assert_eq!(told(&script), ["+1", "", "", "-1+2", ""]);
        for script in [
            [(1, "m"), (2, "c"), (3, "r"), (4, "m")],
            [(1, "m"), (2, "c"), (3, "."), (50, "m")],
            [(1, "m"), (2, "."), (3, "."), (50, "m")],
        ] {
            assert_eq!(told(&script), ["+1", "", "", "+2"], "not quiet, under way, without a call: {script:?}");
        }
    }

    #[test]
    fn what_came_in_a_crowd_is_over_when_each_had_a_call_and_it_is_calm() {
        let crowd = [(1, "m"), (2, "m"), (3, "c"), (4, "r"), (5, "c"), (6, "r")];
        let after = |at| told(&[&crowd[..], &[(at, "m")]].concat()).pop().unwrap();
        assert_eq!((after(55), after(57)), ("+3".to_owned(), "-1-2+3".to_owned()));
        let few = [&crowd[..4], &[(100, "m")]].concat();
        assert_eq!(told(&few).pop().unwrap(), "+3", "one of them may still call");
    }

    #[test]
    fn messages_are_taken_up_one_by_one_when_their_calls_are_known() {
        let mut script = apart(4, 2);
        let known = script.len();
        // Three at once, of one and two records.
        script.extend([(501, "m"), (501, "2"), (501, "m")]);
        for at in 0..8 {
            script.extend([(510 + at * 10, "c"), (511 + at * 10, "r")]);
        }
        let told = told(&script);
        let changes: Vec<&str> = told[known..].iter().map(String::as_str).filter(|all| !all.is_empty()).collect();
        assert_eq!(changes, ["-4+5", "-5+6", "-6+7"]);
        // After two calls each, at the return of the second.
        assert_eq!((told[known + 6].as_str(), told[known + 14].as_str()), ("-5+6", "-6+7"));
    }

    #[test]
    fn several_at_once_are_not_taken_one_by_one() {
        let mut script = apart(4, 1);
        let known = script.len();
        script.extend([(501, "m"), (501, "m"), (502, "c"), (503, "c"), (504, "r"), (505, "r"), (600, "m"), (600, "m")]);
        let told = told(&script);
        assert_eq!(told[known..], ["-4+5", "", "", "-5+6", "", "", "+7", "+8"]);
    }
}
