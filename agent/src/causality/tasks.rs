//! Tasks of event loops: one that answers a request has made its calls since the request came for that one.
//!
//! A loop reads a request outside of any task and starts a task for it, or wakes the one of its connection. So a task tells for
//! which request it calls only in the end, when it answers, and its calls wait for that; so do those of tasks for which it waited.
//! A task is named by where it stands in memory: another one may have its name once it has ended, which is after its answer; so a
//! request that comes later is no concern of it.
//!
//! Not so where a task serves a connection and goes on with a request after its answer: the next one may have come by then. Where other
//! tasks were seen to answer on the connection, or none before, this cannot be. Else the process must have been seen not to do that: its
//! tasks would call on a connection's account while no request is under way there.

use rustc_hash::FxHashMap;

use super::Ref;

/// Share of answers at which tasks prove nothing: such as were given by a task that had answered another request since theirs came, so
/// that it served both at the same time.
const BUSY_SHARE: f32 = 0.02;
/// Answers, and calls, after which the past is weighed half.
const MEMORY: f32 = 1000.0;
/// Share of calls whose task has to answer for calls to wait for that, and calls from which on that is asked.
const WORTH: f32 = 0.2;
const ASKED: f32 = 32.0;
/// Answers in a row, by tasks that may have gone on after the one before on the same connection and have not, from which on it is believed
/// that tasks do not; and after one that has.
const ENOUGH: u32 = 256;
const FORGIVEN: u32 = 10_000;
/// Tasks and connections remembered; past it those that have had no answer for `RECENT` nanoseconds are forgotten, or all.
const MOST: usize = 4096;
const RECENT: u64 = 10_000_000_000;

/// A call that is not decided: its key and name, and when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) key: u32,
    pub(super) id: Ref,
    pub(super) at: u64,
}

/// A connection on which requests come.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// Who answered last, and when.
    task: u64,
    at: u64,
    /// Several tasks have answered.
    several: bool,
}

#[derive(Debug)]
pub(super) struct Tasks {
    /// By the task that made them and those that wait for it.
    calls: FxHashMap<u64, Vec<Waiting>>,
    /// When tasks answered last.
    answered: FxHashMap<u64, u64>,
    lanes: FxHashMap<u64, Lane>,
    answers: f32,
    in_turns: f32,
    /// Calls whose task has answered, and those that had to be decided before, or without that.
    claimed: f32,
    missed: f32,
    faithful: u32,
    needed: u32,
}

impl Default for Tasks {
    fn default() -> Self {
        let (calls, answered, lanes) = (FxHashMap::default(), FxHashMap::default(), FxHashMap::default());
        let (answers, in_turns, claimed, missed) = (0.0, 0.0, 0.0, 0.0);
        Self { calls, answered, lanes, answers, in_turns, claimed, missed, faithful: 0, needed: ENOUGH }
    }
}

impl Tasks {
    /// A call was made by the first of these tasks, for which the others wait.
    pub(super) fn call(&mut self, tasks: &[Option<u64>], call: Waiting) {
        for task in tasks.iter().flatten() {
            self.calls.entry(*task).or_default().push(call);
        }
    }

    /// The call of tasks was decided, by facts or without any, or is given up.
    pub(super) fn decided(&mut self, tasks: &[Option<u64>], key: u32, by_facts: bool) {
        let mut waited = false;
        for task in tasks.iter().flatten() {
            let Some(calls) = self.calls.get_mut(task) else { continue };
            let before = calls.len();
            calls.retain(|call| call.key != key);
            waited |= calls.len() != before;
            if calls.is_empty() {
                self.calls.remove(task);
            }
        }
        if waited && !by_facts {
            self.note(false);
        }
    }

    /// A task answers at `at` a request that came at `arrived` on a connection: the calls that it has made since and that are not
    /// decided yet, if it is believed.
    pub(super) fn answers(&mut self, task: u64, connection: Option<u64>, arrived: u64, at: u64) -> Vec<Waiting> {
        if self.answers > MEMORY {
            (self.answers, self.in_turns) = (self.answers * 0.5, self.in_turns * 0.5);
        }
        make_room(&mut self.answered, task, |last| last.saturating_add(RECENT) > at);
        let busy = self.answered.insert(task, at).is_some_and(|before| before > arrived);
        self.answers += 1.0;
        self.in_turns += f32::from(u8::from(busy));
        let mut calls = self.calls.remove(&task).unwrap_or_default();
        let is_new = connection.is_some_and(|connection| self.is_new(task, connection, arrived, at, &calls));
        calls.retain(|call| call.at >= arrived);
        calls.iter().for_each(|_| self.note(true));
        if self.in_turns > self.answers * BUSY_SHARE || !(is_new || self.faithful >= self.needed) {
            calls.clear();
        }
        calls
    }

    /// Whether the task cannot have had to do with an earlier request on the connection. Learns whether tasks go on after their answers.
    fn is_new(&mut self, task: u64, connection: u64, arrived: u64, at: u64, calls: &[Waiting]) -> bool {
        make_room(&mut self.lanes, connection, |lane| lane.at.saturating_add(RECENT) > at);
        let Some(lane) = self.lanes.get_mut(&connection) else {
            self.lanes.insert(connection, Lane { task, at, several: false });
            return true;
        };
        let answered = std::mem::replace(&mut lane.at, at);
        lane.several |= std::mem::replace(&mut lane.task, task) != task;
        if lane.several {
            return true;
        }
        if calls.iter().any(|call| call.at > answered && call.at < arrived) {
            (self.faithful, self.needed) = (0, FORGIVEN);
        } else {
            self.faithful = self.faithful.saturating_add(1);
        }
        false
    }

    /// Whether calls of tasks are to wait until a request is answered: not where those that call are not those that answer.
    pub(super) fn are_worth_waiting_for(&self) -> bool {
        let all = self.claimed + self.missed;
        all < ASKED || self.claimed >= all * WORTH
    }

    fn note(&mut self, claimed: bool) {
        if self.claimed + self.missed > MEMORY {
            (self.claimed, self.missed) = (self.claimed * 0.5, self.missed * 0.5);
        }
        *if claimed { &mut self.claimed } else { &mut self.missed } += 1.0;
    }
}

/// Makes room for an entry: what is not recent goes, or all.
fn make_room<T>(map: &mut FxHashMap<u64, T>, entry: u64, is_recent: impl Fn(&T) -> bool) {
    if map.len() < MOST || map.contains_key(&entry) {
        return;
    }
    map.retain(|_, value| is_recent(value));
    if map.len() >= MOST {
        map.clear();
    }
}
