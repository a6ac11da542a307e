//! Facts of the kernel side that name the cause of a call without doubt.
//!
//! In this order: the same `X-Request-ID`; the same goroutine or an ancestor of it; a socket or thread born while the
//! request was served; the same thread. A thread proves nothing in a process whose threads serve requests in turns
//! (event loops, pools of asynchronous tasks). Those are recognised by requests that arrive on a thread while another
//! one that it read is still open.

use rustc_hash::FxHashMap;

use super::{Facts, Method};

/// Ancestors of a coroutine that are looked at.
const GENERATIONS: usize = 16;
/// Coroutines whose parent is remembered; all are forgotten when there are more.
const MAX_COROUTINES: usize = 1 << 14;
/// Share of requests that arrive on a busy thread at which threads prove nothing. Above zero, as a request whose end
/// was lost looks as if it was still open.
const BUSY_SHARE: f32 = 0.02;
/// Requests after which the past is weighed half for that share.
const MEMORY: f32 = 1000.0;

/// What the facts say about the cause of a call. Requests are named by their keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    One(u32, Method),
    /// It is among these.
    Several(Vec<u32>),
    Nothing,
}

/// The open requests of a process by their facts.
#[derive(Debug, Default)]
pub(super) struct Exact {
    request_ids: FxHashMap<u64, Vec<u32>>,
    coroutines: FxHashMap<u64, Vec<u32>>,
    threads: FxHashMap<u32, Vec<u32>>,
    parents: FxHashMap<u64, u64>,
    arrivals: f32,
    arrivals_on_busy: f32,
}

impl Exact {
    pub(super) fn open(&mut self, key: u32, facts: &Facts) {
        self.note_parent(facts);
        if let Some(id) = facts.request_id {
            self.request_ids.entry(id).or_default().push(key);
        }
        if let Some(coroutine) = facts.coroutine {
            self.coroutines.entry(coroutine).or_default().push(key);
        }
        if let Some(thread) = facts.thread {
            if self.arrivals > MEMORY {
                self.arrivals *= 0.5;
                self.arrivals_on_busy *= 0.5;
            }
            let open = self.threads.entry(thread).or_default();
            self.arrivals += 1.0;
            self.arrivals_on_busy += if open.is_empty() { 0.0 } else { 1.0 };
            open.push(key);
        }
    }

    pub(super) fn close(&mut self, key: u32, facts: &Facts) {
        take(&mut self.request_ids, facts.request_id, key);
        take(&mut self.coroutines, facts.coroutine, key);
        take(&mut self.threads, facts.thread, key);
    }

    /// `born_in` is the key of the open request that the facts name.
    pub(super) fn find(&mut self, facts: &Facts, born_in: Option<u32>) -> Finding {
        self.note_parent(facts);
        let by_id = facts.request_id.and_then(|id| self.request_ids.get(&id));
        if let Some(&[key]) = by_id.map(Vec::as_slice) {
            return Finding::One(key, Method::RequestId);
        }
        let by_coroutine = self.of_coroutine(facts);
        if let Some(&[key]) = by_coroutine {
            return Finding::One(key, Method::Coroutine);
        }
        if let Some(key) = born_in {
            return Finding::One(key, Method::BornIn);
        }
        if let Some(&[key]) = self.of_thread(facts) {
            return Finding::One(key, Method::Thread);
        }
        match by_coroutine.or(by_id.map(Vec::as_slice)) {
            Some(keys) => Finding::Several(keys.to_vec()),
            None => Finding::Nothing,
        }
    }

    /// The open requests of the coroutine, or of its nearest ancestor that has any.
    fn of_coroutine(&self, facts: &Facts) -> Option<&[u32]> {
        let mut coroutine = facts.coroutine?;
        for _ in 0..GENERATIONS {
            if let Some(keys) = self.coroutines.get(&coroutine) {
                return Some(keys);
            }
            coroutine = *self.parents.get(&coroutine)?;
        }
        None
    }

    /// Threads serve several requests in turns.
    pub(super) fn takes_turns(&self) -> bool {
        self.arrivals_on_busy > self.arrivals * BUSY_SHARE
    }

    fn of_thread(&self, facts: &Facts) -> Option<&[u32]> {
        if self.takes_turns() { None } else { self.threads.get(&facts.thread?).map(Vec::as_slice) }
    }

    fn note_parent(&mut self, facts: &Facts) {
        let (Some(coroutine), Some(parent)) = (facts.coroutine, facts.parent_coroutine) else { return };
        if self.parents.len() >= MAX_COROUTINES {
            self.parents.clear();
        }
        self.parents.insert(coroutine, parent);
    }
}

fn take<K: std::hash::Hash + Eq>(map: &mut FxHashMap<K, Vec<u32>>, fact: Option<K>, key: u32) {
    let Some(fact) = fact else { return };
    if let Some(keys) = map.get_mut(&fact) {
        keys.retain(|&other| other != key);
        if keys.is_empty() {
            map.remove(&fact);
        }
    }
}
