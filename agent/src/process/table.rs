//! The processes seen so far: whether each is traced, and its resource.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_common::ids::{MonoNanos, Tgid};
use agent_common::limits;
use rustc_hash::FxHashMap;

use super::filter::Filter;
use super::name::Program;
use super::read::{self, Identity, Launch};
use super::resource::Common;
use crate::signal::resource::Resource;

/// The most processes remembered; then the least recently used are forgotten.
const PROCESSES: usize = limits::PROCESSES as usize;
/// The most resources kept, a few kilobytes each; then the least recently used are forgotten.
const RESOURCES: usize = 4096;
/// The most executions remembered, for processes that are gone before they can be looked at.
const EXECUTIONS: usize = 1024;
/// How long a process is remembered after its end, as records of it may still be on their way, in nanoseconds.
const AFTER_EXIT: u64 = 30 * 1_000_000_000;
/// Records of a process that has ended make it looked at again so often, in nanoseconds: a process may outlive its first
/// thread, whose end is taken for its own.
const RECHECK: u64 = 1_000_000_000;
/// How far up a process' ancestors are looked for. Nobody nests deeper, and a loop ends.
const ANCESTORS: usize = 64;

/// The processes of the host, as far as they were met. One owner; reading `/proc` for a process met for the first time
/// takes about 0.1 ms, in [`Processes::of`] itself.
///
/// With `--pid`, a process named so is traced together with its descendants: whoever has it among the ancestors
/// when it is first met, since servers such as gunicorn and nginx work in children.
pub struct Processes {
    filter: Filter,
    common: Common,
    /// The agent itself, never traced.
    agent: Tgid,
    entries: FxHashMap<Tgid, Entry>,
    resources: usize,
    last_resource: u64,
    executions: VecDeque<Execution>,
    decided: Vec<(Tgid, bool)>,
    evicted: u64,
}

struct Entry {
    state: State,
    used: MonoNanos,
    exited: Option<MonoNanos>,
    started: Option<u64>,
    /// Named by its id, or descended from one that was.
    family: bool,
    /// What was read may no longer be true: read it again before the next use.
    doubtful: bool,
}

enum State {
    /// It runs another file than when it was decided about.
    Executed,
    Untraced,
    /// To be traced, but it has not said anything yet.
    Chosen,
    Traced(Arc<Resource>),
}

struct Execution {
    tgid: Tgid,
    comm: [u8; 16],
    filename: Box<[u8]>,
}

impl Entry {
    /// Whether at the time `at` it has to be looked at again: another process may have its id by then.
    fn stale(&self, at: MonoNanos) -> bool {
        self.doubtful || self.exited.is_some_and(|exited| at > exited)
    }
}

impl Processes {
    /// An empty table. `agent` is the agent's own process.
    #[must_use]
    pub fn new(filter: Filter, common: Common, agent: Tgid) -> Self {
        Self {
            filter,
            common,
            agent,
            entries: FxHashMap::default(),
            resources: 0,
            last_resource: 0,
            executions: VecDeque::new(),
            decided: Vec::new(),
            evicted: 0,
        }
    }

    /// The resource of the process that `tgid` was at the time `at` of a record; `None` if it is not to be traced.
    /// Known processes cost one look-up. One that is gone before it could be read is called as its exec said, or
    /// `unknown_service`.
    pub fn of(&mut self, tgid: Tgid, at: MonoNanos) -> Option<Arc<Resource>> {
        self.seen(tgid, &[], at)
    }

    /// The resource of a traced process that was met before.
    #[must_use]
    pub fn known(&self, tgid: Tgid) -> Option<&Arc<Resource>> {
        match &self.entries.get(&tgid)?.state {
            State::Traced(resource) => Some(resource),
            _ => None,
        }
    }

    /// [`Processes::of`], for a record that also brings the kernel's name of the process (at most 16 octets, ended by
    /// 0): the last resort for a process that is gone.
    pub fn seen(&mut self, tgid: Tgid, comm: &[u8], at: MonoNanos) -> Option<Arc<Resource>> {
        if let Some(entry) = self.entries.get_mut(&tgid)
            && !entry.stale(at)
        {
            entry.used = entry.used.max(at);
            match &entry.state {
                State::Untraced => return None,
                State::Traced(resource) => return Some(Arc::clone(resource)),
                State::Executed | State::Chosen => {}
            }
        }
        self.resolve(tgid, comm, at)
    }

    /// A process runs another file: what was known of it is forgotten. `comm` and `filename` as the kernel's record has
    /// them, ended by 0 unless cut.
    pub fn executed(&mut self, tgid: Tgid, comm: &[u8; 16], filename: &[u8]) {
        match self.entries.get_mut(&tgid) {
            // Its parent may be gone when it is met again; that it belongs to the family stays true.
            Some(entry) if entry.family && entry.exited.is_none() => {
                let state = std::mem::replace(&mut entry.state, State::Executed);
                self.resources -= usize::from(matches!(state, State::Traced(_)));
            }
            _ => self.forget(tgid),
        }
        if self.executions.len() >= EXECUTIONS {
            self.executions.pop_front();
        }
        let until = filename.iter().position(|octet| *octet == 0).unwrap_or(filename.len());
        let filename = filename.get(..until).unwrap_or_default().into();
        self.executions.push_back(Execution { tgid, comm: *comm, filename });
    }

    /// A process has ended at `at`. It is remembered for 30 s more.
    pub fn exited(&mut self, tgid: Tgid, at: MonoNanos) {
        if let Some(entry) = self.entries.get_mut(&tgid) {
            entry.exited = Some(at);
        }
        self.filter.ended(tgid);
    }

    /// Forgets processes that ended more than 30 s before `now`. To be called every few seconds.
    pub fn sweep(&mut self, now: MonoNanos) {
        self.entries.retain(|_, entry| entry.exited.is_none_or(|exited| now.since(exited) <= AFTER_EXIT));
        self.count();
    }

    /// Notices of ends and executions were lost: every process is looked at again before its next use.
    pub fn doubt(&mut self) {
        for entry in self.entries.values_mut() {
            entry.doubtful = true;
        }
    }

    /// Decides about all processes there are, where the filter chooses some; nothing to do otherwise. Takes some 50 µs
    /// a process. `/proc` not being there leaves all undecided, to be met one by one.
    pub fn scan(&mut self, now: MonoNanos) {
        if self.filter.takes_all() {
            return;
        }
        let Ok(all) = procfs::process::all_processes() else { return };
        // In ascending order parents mostly come before their children, which then need not look far.
        let mut ids: Vec<u32> =
            all.filter_map(|process| u32::try_from(process.ok()?.pid).ok()).take(PROCESSES).collect();
        ids.sort_unstable();
        for tgid in ids.into_iter().map(Tgid) {
            if self.entries.contains_key(&tgid) {
                continue;
            }
            if let Ok(launch) = read::launch(tgid) {
                let family = self.family(&launch);
                let traced = self.decide(&launch, &launch.program(), family);
                let state = if traced { State::Chosen } else { State::Untraced };
                self.insert(
                    tgid,
                    Entry { state, used: now, exited: None, started: launch.started, family, doubtful: false },
                );
                self.tell(tgid, traced);
            }
        }
    }

    /// The decisions made since the last call, oldest first: whether each process is traced. The kernel side is to be
    /// told; it asks again by sending records of processes that it knows nothing of.
    pub fn newly_decided(&mut self) -> impl Iterator<Item = (Tgid, bool)> + '_ {
        self.decided.drain(..)
    }

    /// How many processes are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many processes were forgotten for want of room since the start. They are read again when met again; those
    /// that are gone by then lose their name.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Whether no process is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cold]
    fn resolve(&mut self, tgid: Tgid, comm: &[u8], at: MonoNanos) -> Option<Arc<Resource>> {
        let read = Identity::read(tgid).ok();
        let mut chosen = false;
        if let Some(entry) = self.entries.get_mut(&tgid)
            && !matches!(entry.state, State::Executed)
        {
            // The number names the same process still if it started at the same time. Of one that is gone, or a zombie,
            // nothing can be learnt that would be better than what is known.
            let gone = read.as_ref().is_none_or(|identity| !identity.launch.tells());
            let ended = entry.exited.is_some() && read.as_ref().is_some_and(|new| new.launch.started == entry.started);
            if gone || ended {
                entry.doubtful = false;
                entry.exited = entry.exited.map(|exited| exited.max(MonoNanos(at.0.saturating_add(RECHECK))));
                entry.used = entry.used.max(at);
                match &entry.state {
                    State::Untraced => return None,
                    State::Traced(resource) => return Some(Arc::clone(resource)),
                    // The little that is left of it must not undo what was decided when more was known.
                    State::Executed | State::Chosen => chosen = true,
                }
            }
        }
        let living = read.is_some();
        let identity = self.completed(tgid, comm, read);
        let family = self.family(&identity.launch);
        let traced = chosen || self.decide(&identity.launch, &identity.program, family);
        let state = if traced { State::Traced(self.shared(tgid, &identity)) } else { State::Untraced };
        let resource = match &state {
            State::Traced(resource) => Some(Arc::clone(resource)),
            _ => None,
        };
        let exited = (!living).then_some(at);
        let entry = Entry { state, used: at, exited, started: identity.launch.started, family, doubtful: false };
        self.insert(tgid, entry);
        // A decision about a process that is gone would only wait for whoever gets its number next.
        if living {
            self.tell(tgid, traced);
        }
        resource
    }

    /// What was read, or, where that tells nothing, what the exec and the kernel's name say.
    fn completed(&self, tgid: Tgid, comm: &[u8], read: Option<Identity>) -> Identity {
        if let Some(identity) = &read
            && identity.launch.tells()
        {
            return read.unwrap_or_default();
        }
        // A zombie still has the kernel's name.
        let zombie = read.as_ref().and_then(|zombie| zombie.launch.comm.as_deref()).unwrap_or_default().as_bytes();
        let comm = if comm.first().is_none_or(|first| *first == 0) { zombie } else { comm };
        let named = match self.executions.iter().rev().find(|execution| execution.tgid == tgid) {
            Some(execution) => Identity::from_exec(tgid, &execution.comm, &execution.filename),
            None => Identity::from_exec(tgid, comm, &[]),
        };
        match read {
            Some(zombie) => Identity { program: named.program, ..zombie },
            None => named,
        }
    }

    /// The resource of a process: the one it has, if nothing about it has changed.
    fn shared(&mut self, tgid: Tgid, identity: &Identity) -> Arc<Resource> {
        let resource = self.common.resource(identity, self.last_resource + 1);
        if let Some(Entry { state: State::Traced(known), .. }) = self.entries.get(&tgid)
            && known.attributes == resource.attributes
        {
            return Arc::clone(known);
        }
        self.last_resource += 1;
        Arc::new(resource)
    }

    fn decide(&self, launch: &Launch, program: &Program, family: bool) -> bool {
        if launch.tgid == self.agent {
            return false;
        }
        self.filter.takes_all() || self.filter.traces(&launch.subject(program), family)
    }

    /// Whether a process, or one of its ancestors, was named by its id.
    fn family(&self, launch: &Launch) -> bool {
        if !self.filter.by_pid() {
            return false;
        }
        let before =
            self.entries.get(&launch.tgid).is_some_and(|entry| entry.family && entry.started == launch.started);
        if before || self.filter.names(launch.tgid) {
            return true;
        }
        let mut next = launch.parent;
        for _ in 0..ANCESTORS {
            let Some(ancestor) = next else { return false };
            if self.filter.names(ancestor) {
                return true;
            }
            if let Some(entry) = self.entries.get(&ancestor)
                && entry.exited.is_none()
            {
                return entry.family;
            }
            next = read::parent(ancestor);
        }
        false
    }

    fn insert(&mut self, tgid: Tgid, entry: Entry) {
        self.forget(tgid);
        self.make_room();
        if matches!(entry.state, State::Traced(_)) {
            self.resources += 1;
        }
        self.entries.insert(tgid, entry);
    }

    fn forget(&mut self, tgid: Tgid) {
        if let Some(Entry { state: State::Traced(_), .. }) = self.entries.remove(&tgid) {
            self.resources -= 1;
        }
    }

    /// Keeps the table within its bounds. A sixteenth at a time, so that a busy host pays for a look at the whole
    /// table now and then only.
    fn make_room(&mut self) {
        if self.resources >= RESOURCES {
            self.drop_oldest(RESOURCES / 16, |entry| matches!(entry.state, State::Traced(_)));
        }
        if self.entries.len() >= PROCESSES {
            self.drop_oldest(PROCESSES / 16, |_| true);
        }
    }

    /// Drops the `count` least recently used of the entries `which`.
    fn drop_oldest(&mut self, count: usize, which: impl Fn(&Entry) -> bool) {
        let mut ages: Vec<(MonoNanos, Tgid)> =
            self.entries.iter().filter(|(_, entry)| which(entry)).map(|(tgid, entry)| (entry.used, *tgid)).collect();
        if ages.len() > count {
            ages.select_nth_unstable(count);
            ages.truncate(count);
        }
        self.evicted += ages.len() as u64;
        for (_, tgid) in ages {
            self.entries.remove(&tgid);
        }
        self.count();
    }

    fn count(&mut self) {
        self.resources = self.entries.values().filter(|entry| matches!(entry.state, State::Traced(_))).count();
    }

    fn tell(&mut self, tgid: Tgid, traced: bool) {
        // Nobody asks: the kernel side knows no more then than it would without, which is safe.
        if self.decided.len() < PROCESSES {
            self.decided.push((tgid, traced));
        }
    }
}
