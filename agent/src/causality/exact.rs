//! Facts of the kernel side that name the cause of a call without doubt.
//!
//! In this order: the same `X-Request-ID`; the same coroutine; a coroutine that was started while its parent served the
//! request ([`super::offspring`]); a thread that was started by the one that serves it; the same thread. A thread proves
//! nothing in a process whose threads serve requests in turns (event loops, pools of asynchronous tasks). Those are
//! recognised by requests that arrive on a thread while another one that it read is still open; and as they look like others as
//! long as one request comes after the other, a thread is only believed among several when some were seen to serve beside each other.

use rustc_hash::FxHashMap;

use super::offspring::Offspring;
use super::{Facts, Incoming, Method, Outgoing, Ref};

/// Share of requests that arrive on a busy thread at which threads prove nothing. Above zero, as a request whose end
/// was lost looks as if it was still open.
const BUSY_SHARE: f32 = 0.02;
/// Requests after which the past is weighed half for that share.
const MEMORY: f32 = 1000.0;
/// Requests that have to have been served beside others, by threads of their own, for threads to tell several open ones apart.
const BESIDE: u32 = 8;
/// Threads remembered that were started for a request and have not called.
const MOST_NEWBORN: usize = 4096;

/// What the facts say about the cause of a call. Requests are named by their keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    One(u32, Method),
    /// It is among these.
    Several(Vec<u32>),
    Nothing,
}

/// An open request of a coroutine or thread.
#[derive(Clone, Copy, Debug)]
struct Served {
    key: u32,
    id: Ref,
    /// When it was opened here, and when its head had been read.
    at: u64,
    read: Option<u64>,
}

/// The open requests of a process by their facts.
#[derive(Debug, Default)]
pub(super) struct Exact {
    request_ids: FxHashMap<u64, Vec<u32>>,
    coroutines: FxHashMap<u32, Vec<Served>>,
    threads: FxHashMap<u32, Vec<Served>>,
    pub(super) offspring: Offspring,
    /// Threads that were started by one that served a request, and have called.
    kin: Offspring,
    /// Those that have not called yet: who started them, and for which request.
    newborn: FxHashMap<u32, (u32, Ref)>,
    arrivals: f32,
    arrivals_on_busy: f32,
    /// Requests that were answered while another thread served one, up to [`BESIDE`].
    beside: u32,
}

impl Exact {
    pub(super) fn open(&mut self, key: u32, incoming: &Incoming) {
        let &Incoming { id, at, facts, .. } = incoming;
        self.note_unborn(&facts);
        if let Some(id) = facts.request_id {
            self.request_ids.entry(id).or_default().push(key);
        }
        if let Some(coroutine) = facts.coroutine {
            let read = facts.unborn.map(|unborn| unborn.at);
            self.coroutines.entry(coroutine).or_default().push(Served { key, id, at, read });
        }
        if let Some(thread) = facts.thread {
            if self.arrivals > MEMORY {
                self.arrivals *= 0.5;
                self.arrivals_on_busy *= 0.5;
            }
            let open = self.threads.entry(thread).or_default();
            self.arrivals += 1.0;
            self.arrivals_on_busy += if open.is_empty() { 0.0 } else { 1.0 };
            open.push(Served { key, id, at, read: None });
        }
    }

    pub(super) fn close(&mut self, key: u32, facts: &Facts) {
        take(&mut self.request_ids, facts.request_id, |other| *other == key);
        take(&mut self.coroutines, facts.coroutine, |served| served.key == key);
        take(&mut self.threads, facts.thread, |served| served.key == key);
        if facts.thread.is_some_and(|own| self.threads.keys().any(|other| *other != own)) {
            self.beside = BESIDE.min(self.beside + 1);
        }
    }

    /// `parent` has started `thread`.
    pub(super) fn born(&mut self, thread: u32, parent: u32) {
        // A number that was in use before.
        self.kin.forget(thread);
        self.newborn.remove(&thread);
        if let Some([served]) = self.of_thread(parent) {
            let id = served.id;
            if self.newborn.len() >= MOST_NEWBORN {
                self.newborn.clear();
            }
            self.newborn.insert(thread, (parent, id));
        }
    }

    pub(super) fn find(&mut self, call: &Outgoing) -> Finding {
        let facts = &call.facts;
        self.note_unborn(facts);
        let by_birth = self.of_birth(call);
        let of_newborn = self.of_newborn(call);
        let by_id = facts.request_id.and_then(|id| self.request_ids.get(&id));
        if let Some(&[key]) = by_id.map(Vec::as_slice) {
            return Finding::One(key, Method::RequestId);
        }
        let by_coroutine = facts.coroutine.and_then(|coroutine| self.coroutines.get(&coroutine));
        if let Some([served]) = by_coroutine.map(Vec::as_slice) {
            return Finding::One(served.key, Method::Coroutine);
        }
        if let Some(key) = by_birth {
            return Finding::One(key, Method::Coroutine);
        }
        if let Some(key) = of_newborn {
            return Finding::One(key, Method::BornIn);
        }
        if let Some([served]) = facts.thread.and_then(|thread| self.of_thread(thread)) {
            return Finding::One(served.key, Method::Thread);
        }
        let several = by_coroutine.map(|served| served.iter().map(|served| served.key).collect());
        match several.or(by_id.cloned()) {
            Some(keys) => Finding::Several(keys),
            None => Finding::Nothing,
        }
    }

    /// The request in which the coroutine that calls was born, or the one that made its connection, if that says for whom
    /// it calls: the first call after the birth, in a process whose coroutines end with their requests.
    fn of_birth(&mut self, call: &Outgoing) -> Option<u32> {
        let Facts { coroutine, parent_coroutine, dialler, .. } = call.facts;
        let coroutine = coroutine?;
        let coroutines = &self.coroutines;
        let is_open = |parent: u32, id: Ref| {
            coroutines.get(&parent).is_some_and(|served| served.iter().any(|served| served.id == id))
        };
        if self.offspring.calls(coroutine, call.at, is_open) {
            return None;
        }
        let offspring = &self.offspring;
        let births = [parent_coroutine.map(|parent| (coroutine, parent)), dialler];
        let mut requests = births.into_iter().flatten().filter_map(|(child, parent)| {
            let [served] = coroutines.get(&parent)?.as_slice() else { return None };
            offspring.is_born_after(child, served.read?).then_some((parent, *served))
        });
        let (parent, served) = requests.next()?;
        if requests.any(|(_, other)| other.key != served.key) {
            return None;
        }
        self.offspring.add(coroutine, parent, served.id, call.at);
        self.offspring.is_believed(served.at).then_some(served.key)
    }

    /// The request during which the thread was started that calls for the first time, in a process whose threads end with
    /// the requests that they are started for.
    fn of_newborn(&mut self, call: &Outgoing) -> Option<u32> {
        let thread = call.facts.thread?;
        let threads = &self.threads;
        let open = |parent: u32, id: Ref| threads.get(&parent)?.iter().find(|served| served.id == id).copied();
        if self.kin.calls(thread, call.at, |parent, id| open(parent, id).is_some()) {
            return None;
        }
        let (parent, id) = self.newborn.remove(&thread)?;
        let served = open(parent, id)?;
        self.kin.add(thread, parent, id, call.at);
        self.kin.is_believed(served.at).then_some(served.key)
    }

    fn note_unborn(&mut self, facts: &Facts) {
        if let Some(unborn) = facts.unborn {
            self.offspring.unborn(unborn);
        }
    }

    /// Threads serve several requests in turns.
    pub(super) fn takes_turns(&self) -> bool {
        self.arrivals_on_busy > self.arrivals * BUSY_SHARE
    }

    fn of_thread(&self, thread: u32) -> Option<&[Served]> {
        let believed = !self.takes_turns() && (self.beside >= BESIDE || self.threads.len() <= 1);
        if believed { self.threads.get(&thread).map(Vec::as_slice) } else { None }
    }
}

fn take<K: std::hash::Hash + Eq, T>(map: &mut FxHashMap<K, Vec<T>>, fact: Option<K>, is_it: impl Fn(&T) -> bool) {
    let Some(fact) = fact else { return };
    if let Some(entries) = map.get_mut(&fact) {
        entries.retain(|entry| !is_it(entry));
        if entries.is_empty() {
            map.remove(&fact);
        }
    }
}
