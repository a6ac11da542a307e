//! What `causality` is told of a process: requests that come in, calls that go out, their ends, and who made them; and what
//! becomes of the links that it finds.

use std::collections::hash_map::Entry;

use agent_common::ids::{MonoNanos, Tgid};

use super::habits::Habits;
use super::place::{Link, Method};
use super::{Open, Placed, Traces};
use crate::causality::{self, Facts, Incoming, Outgoing, Unborn};
use crate::conn::ExchangeId;
use crate::protocol::{Coroutine, Thread};
use crate::signal::resource::Resource;
use crate::signal::span::Kind;

/// What an exchange's end means for its process.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    pub(super) kind: Kind,
    pub(super) tgid: Tgid,
    pub(super) tid: u32,
    pub(super) told: bool,
    pub(super) target: u64,
}

/// What was in stock of numbers for coroutines at `at`.
pub(super) const fn unborn(Coroutine { next, end, .. }: Coroutine, at: MonoNanos) -> Unborn {
    Unborn { at: at.0, next, end }
}

/// The task that a thread of an event loop runs, and those that wait for it, as `causality` names them.
fn tasks(tid: u32, coroutine: Coroutine) -> [Option<u64>; 3] {
    let name = |task: u32| (task != 0).then_some(u64::from(tid) << 32 | u64::from(task));
    coroutine.as_task().map_or([None; 3], |tasks| tasks.map(name))
}

/// Whether those who read a request have answered it.
#[derive(Clone, Copy)]
pub(super) struct Faithful {
    pub(super) thread: bool,
    /// `None` when one of the two is not known.
    pub(super) coroutine: Option<bool>,
    /// The task that has answered.
    pub(super) task: Option<u64>,
}

impl Faithful {
    /// Of a request that one thread has read, and another one, or the same, has answered.
    pub(super) fn of(open: &Open, request: Thread, response: Thread) -> Self {
        let both = open.coroutine.id != 0 && response.coroutine.id != 0;
        Self {
            thread: response.tid == request.tid,
            coroutine: both.then_some(response.coroutine.id == open.coroutine.id),
            task: tasks(response.tid.0, response.coroutine)[0],
        }
    }
}

impl Open {
    /// Adds who made the call.
    pub(super) fn with_coroutine(&self, facts: Facts) -> Facts {
        let known = |id: u32| (id != 0).then_some(id);
        let Coroutine { id, parent, .. } = self.coroutine;
        if self.coroutine.as_task().is_some() {
            // Tasks have no numbers that would tell of their births.
            return Facts { coroutine: known(id), ..facts };
        }
        Facts {
            coroutine: known(id),
            parent_coroutine: known(parent),
            unborn: Some(unborn(self.coroutine, self.head_end)),
            dialler: known(self.dialler.id).zip(known(self.dialler.parent)),
            ..facts
        }
    }

    pub(super) const fn ending(&self) -> Ending {
        Ending { kind: self.kind, tgid: self.tgid, tid: self.tid, told: self.told, target: self.target }
    }
}

impl Traces {
    /// Remembers an exchange. Whether its process served nothing when it began, so that nothing can have caused it.
    pub(super) fn enter(&mut self, id: ExchangeId, mut open: Open, out: &mut Vec<Placed>) -> bool {
        self.make_room(out);
        let tgid = open.tgid;
        if open.kind == Kind::Client {
            self.note_call(tgid, open.at, out);
        }
        if !self.habits.contains_key(&tgid) {
            let expected = self.expected(tgid, &open.resource);
            self.habits.insert(tgid, expected);
        }
        let habits = self.habits.entry(tgid).or_default();
        open.calls = habits.calls;
        let alone = habits.serving == 0;
        self.propagated.enters(open.kind, tgid, open.tid, habits);
        let (mut tell, mut first_call) = (habits.calls > 0, false);
        if open.kind == Kind::Server {
            habits.serving = habits.serving.saturating_add(1);
        } else {
            // What may have been made for several requests hangs on none of several.
            let anyones = open.collected && habits.serving > 1;
            tell = !anyones && (!alone || (open.started_for.is_none() && habits.tells_idle(open.at)));
            first_call = tell && habits.calls == 0;
            habits.calls = habits.calls.wrapping_add(u32::from(tell)).max(u32::from(tell));
        }
        if first_call {
            self.introduce(tgid);
        }
        if open.kind == Kind::Client && !alone {
            let repeats = self.targets.contains_key(&(tgid, open.target));
            self.habits.entry(tgid).or_default().called(repeats);
        }
        open.told = tell;
        if tell {
            self.tell(id, &open);
        }
        self.begun.push_back((open.at, id));
        if let Some(displaced) = self.open.insert(id, open) {
            self.give_up(displaced, out);
        }
        alone
    }

    /// What is expected of a process that is seen for the first time: what another one of the same program does.
    fn expected(&mut self, tgid: Tgid, resource: &Resource) -> Habits {
        let Some(program) = resource.program() else { return Habits::default() };
        let known = self.programs.entry(program).or_insert(tgid);
        match self.habits.get(known) {
            Some(habits) => habits.expected_of_another(),
            None => {
                *known = tgid;
                Habits::default()
            }
        }
    }

    /// A process that serves requests calls for the first time: those open may be the cause.
    pub(super) fn introduce(&mut self, tgid: Tgid) {
        let mut serving: Vec<(MonoNanos, ExchangeId)> = self
            .open
            .iter()
            .filter(|(_, open)| open.tgid == tgid && open.kind == Kind::Server && !open.over)
            .map(|(id, open)| (open.at, *id))
            .collect();
        serving.sort_unstable();
        for (_, id) in serving {
            let Some(mut open) = self.open.remove(&id) else { continue };
            open.told = true;
            self.tell(id, &open);
            self.open.insert(id, open);
        }
    }

    pub(super) fn tell(&mut self, id: ExchangeId, open: &Open) {
        let habits = self.habits.get(&open.tgid).copied().unwrap_or_default();
        // A target that is passed on names a request as well as an id does.
        let request_id = open.request_id.or(habits.passes_on().then_some(open.target));
        let thread = habits.threads_are_telling().then_some(open.tid);
        let facts = Facts { thread, request_id, ..Facts::default() };
        let facts = if habits.coroutines_are_telling() { open.with_coroutine(facts) } else { facts };
        let (connection, id, process) = (id.conn().0, id.0, open.tgid.0);
        let (operation, at) = (open.operation, open.at.0);
        match open.kind {
            Kind::Server => {
                *self.targets.entry((open.tgid, open.target)).or_default() += 1;
                let facts = Facts { connection: Some(connection), ..facts };
                self.causality.incoming(Incoming { id, process, operation, at, facts });
            }
            Kind::Client => {
                let facts = Facts { tasks: tasks(open.tid, open.coroutine), ..facts };
                self.causality.outgoing(Outgoing { id, process, operation, at, facts });
            }
        }
    }

    /// A link was found, or that there is none.
    pub(super) fn linked(&mut self, link: &causality::Link, out: &mut Vec<Placed>) {
        let child = ExchangeId(link.child);
        if self.open.get(&child).is_some_and(|open| open.passes_on) {
            return;
        }
        let of_message = |parent: u64| self.open.get(&ExchangeId(parent)).is_some_and(|open| open.arrival.is_some());
        match (link.parent, Method::of(link.method)) {
            // A broker gives many messages at once, and how soon calls follow then tells them apart too badly.
            (Some(parent), Some(Method::Delay)) if of_message(parent) => self.uproot(child, out),
            (Some(parent), Some(method)) => {
                let by_target = self.open.get(&child).is_some_and(|open| open.request_id.is_none());
                let method = if method == Method::RequestId && by_target { Method::Target } else { method };
                self.join(child, ExchangeId(parent), Link { method, confidence: link.confidence }, out);
            }
            _ => self.uproot(child, out),
        }
    }

    /// What an exchange's end means for its process. `faithful`: who has answered it, if it was.
    pub(super) fn ended(
        &mut self,
        id: ExchangeId,
        ending: Ending,
        at: MonoNanos,
        faithful: Option<Faithful>,
        out: &mut Vec<Placed>,
    ) {
        let Ending { kind, tgid, tid, told, target } = ending;
        match kind {
            Kind::Server => {
                if let Some(habits) = self.habits.get_mut(&tgid) {
                    habits.serving = habits.serving.saturating_sub(1);
                    if let Some(faithful) = faithful {
                        habits.answered(faithful.thread, faithful.coroutine);
                    }
                    self.propagated.leaves(tgid, tid, habits);
                }
                if told {
                    self.causality.answered_in(id.0, at.0, faithful.and_then(|faithful| faithful.task));
                    if let Entry::Occupied(mut open) = self.targets.entry((tgid, target)) {
                        *open.get_mut() -= 1;
                        if *open.get() == 0 {
                            open.remove();
                        }
                    }
                }
            }
            Kind::Client => {
                if told {
                    self.causality.returned(id.0, at.0);
                }
                self.note_return(tgid, at, out);
            }
        }
    }
}
