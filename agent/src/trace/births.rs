//! Threads and processes that are started while a request is served: what they call, they may call for it.
//!
//! What a thread tells is judged by [`crate::causality`]. A process that is started, as for a script or a tool, is for
//! the request that its starter's thread served then, if that was only one: what it calls while that is open and it serves
//! nothing itself has that request as its cause.

use std::collections::VecDeque;

use agent_common::ids::{MonoNanos, Tgid, Tid};
use rustc_hash::FxHashMap;

use super::Traces;
use crate::conn::ExchangeId;
use crate::signal::span::Kind;
use crate::source::{Born, Child};

/// Births that wait for what was seen before them; past it the oldest are forgotten.
const MOST_WAITING: usize = 32 * 1024;
/// Processes remembered with the request that they were started for.
const MOST_CHILDREN: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Births {
    /// By time. They are known before the octets that were moved before them, which come through another ring.
    waiting: VecDeque<Born>,
    children: FxHashMap<Tgid, ExchangeId>,
}

impl Births {
    pub(super) fn forget(&mut self, tgid: Tgid) {
        self.children.remove(&tgid);
    }
}

impl Traces {
    /// A traced process has started a thread or a process.
    pub fn born(&mut self, born: &Born) {
        if self.births.waiting.len() >= MOST_WAITING {
            self.births.waiting.pop_front();
        }
        self.births.waiting.push_back(*born);
    }

    /// Everything up to `now` has been seen.
    pub(super) fn note_births(&mut self, now: MonoNanos) {
        while let Some(&born) = self.births.waiting.front()
            && born.at <= now
        {
            self.births.waiting.pop_front();
            match born.child {
                Child::Thread(tid) => self.causality.born(born.tgid.0, born.at.0, tid.0, born.tid.0),
                Child::Process(tgid) => self.note_child(tgid, &born),
            }
        }
    }

    fn note_child(&mut self, child: Tgid, born: &Born) {
        self.births.children.remove(&child);
        let Some(request) = self.served_by(born.tgid, born.tid, born.at) else { return };
        let Self { births, open, .. } = self;
        if births.children.len() >= MOST_CHILDREN {
            births.children.retain(|_, request| open.get(request).is_some_and(|open| !open.over));
        }
        if births.children.len() < MOST_CHILDREN {
            births.children.insert(child, request);
        }
    }

    /// The one request that a thread serves at `at`, in a process whose threads stay with their requests.
    fn served_by(&self, tgid: Tgid, tid: Tid, at: MonoNanos) -> Option<ExchangeId> {
        self.habits.get(&tgid).filter(|habits| habits.serving > 0 && habits.threads_are_telling())?;
        let mut served = self.open.iter().filter(|(_, open)| {
            open.kind == Kind::Server && (open.tgid, open.tid) == (tgid, tid.0) && !open.over && open.at <= at
        });
        let (id, _) = served.next()?;
        served.next().is_none().then_some(*id)
    }

    /// The request that a process was started for, while that is open and the process serves nothing itself.
    pub(super) fn started_for(&self, tgid: Tgid) -> Option<ExchangeId> {
        let request = *self.births.children.get(&tgid)?;
        let idle = self.habits.get(&tgid).is_none_or(|habits| habits.serving == 0);
        (idle && self.open.get(&request).is_some_and(|open| !open.over)).then_some(request)
    }
}
