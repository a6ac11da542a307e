//! Which incoming request of a process caused which outgoing one, when no context was propagated.
//!
//! Events of exchanges go in, in nearly their order of time; links come out, one for each outgoing request. Nothing here
//! reads a clock, a file or a socket, so that recorded traces can be replayed through it.
//!
//! Exact facts of the kernel side speak first ([`exact`]). What they leave open is decided by a model of each process
//! that is learnt from its own traffic ([`model`]): what an incoming operation does next, and how long after what. A
//! decision is put off while requests compete, and taken for all of them jointly ([`cluster`]).
//!
//! # When a link is given
//! - at once where nothing competes: exact facts, or one request that is the cause in every reading still possible;
//! - else when all candidates were answered, as nothing more can be learnt then;
//! - else `hold_back` after the call returned. The call's own span cannot be exported before it returned, so waiting for
//!   that costs nothing;
//! - a new process is watched for `warm_up` before its first decisions.
//!
//! Times are nanoseconds of one clock per process (`CLOCK_MONOTONIC`); times of different processes are never compared.

mod background;
mod cluster;
mod exact;
mod grasp;
mod histogram;
mod load;
mod model;
mod offspring;
mod plenty;
mod pool;
mod process;
mod slab;
mod tasks;
#[cfg(test)]
mod tests;
mod track;

use rustc_hash::FxHashMap;

use process::{Event, Process};

/// Names an exchange; chosen by the caller. Incoming and outgoing exchanges have separate names.
pub type Ref = u64;

/// Bounds and thresholds. Times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A link is given at the latest so long after the outgoing call returned.
    pub hold_back: u64,
    /// Events of one process may be fed so much out of order; each is looked at only after that time.
    pub disorder: u64,
    /// A new process is watched so long before its first decisions.
    pub warm_up: u64,
    /// No parent is given when its probability is below this.
    pub floor: f64,
    /// Incoming requests remembered per process; the oldest is given up first.
    pub max_open: usize,
    /// Outgoing requests remembered per process.
    pub max_calls: usize,
    /// An incoming request without an answer, or a call without a return, is given up after this time.
    pub max_age: u64,
    /// Outgoing requests one incoming request may cause.
    pub max_children: usize,
    /// Processes remembered; the one without events for the longest time is given up first.
    pub max_processes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold_back: 1_000_000_000,
            disorder: 10_000_000,
            warm_up: 1_000_000_000,
            floor: 0.4,
            max_open: 1024,
            max_calls: 4096,
            max_age: 120_000_000_000,
            max_children: 1024,
            max_processes: 4096,
        }
    }
}

/// What the kernel side recorded about who sent or received a request. Each is optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The thread of the system call.
    pub thread: Option<u32>,
    /// The goroutine, or what else runs a request in user space.
    pub coroutine: Option<u32>,
    /// The coroutine that started `coroutine`.
    pub parent_coroutine: Option<u32>,
    /// Coroutines that had not been started when the request's head had been read, or sent.
    pub unborn: Option<Unborn>,
    /// Of the first call on a connection: the coroutine that made the connection, and the one that started that.
    pub dialler: Option<(u32, u32)>,
    /// A hash of the request's `X-Request-ID`.
    pub request_id: Option<u64>,
    /// Of a call: the task of an event loop that made it, on its thread, and those that wait for that. Which request one serves, its
    /// answer tells.
    pub tasks: [Option<u64>; 3],
    /// Of a request: the connection on which it came.
    pub connection: Option<u64>,
}

/// Numbers of coroutines of which none had been given at a time: from one on to before another, modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unborn {
    pub at: u64,
    pub next: u32,
    pub end: u32,
}

/// An incoming request's head was seen.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    pub id: Ref,
    pub process: u32,
    /// A small number for its method and route, and for its caller where that is known.
    pub operation: u32,
    pub at: u64,
    pub facts: Facts,
}

/// An outgoing request began.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    pub id: Ref,
    pub process: u32,
    /// A small number for its peer, method and route.
    pub operation: u32,
    pub at: u64,
    pub facts: Facts,
}

/// The decision about one outgoing request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    pub child: Ref,
    pub parent: Option<Ref>,
    pub method: Method,
    /// The probability that `parent` is right; without a parent, of the best candidate.
    pub confidence: f32,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    RequestId,
    Coroutine,
    /// The thread was started while the request was served.
    BornIn,
    /// The thread serves this request and no other.
    Thread,
    /// No other request was open in the process.
    Only,
    /// Requests in the same state, served in the order of their last event.
    Order,
    /// The learnt model.
    Delay,
    None(Reason),
}

/// Why there is no parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No request was open when the call began.
    NoneOpen,
    /// The call more likely has no cause among the requests, as calls of a timer.
    Unlikely,
    /// The best candidate is below the floor.
    Ambiguous,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub incoming: u64,
    pub outgoing: u64,
    pub request_id: u64,
    pub coroutine: u64,
    pub born_in: u64,
    pub thread: u64,
    pub only: u64,
    pub order: u64,
    pub delay: u64,
    pub none_open: u64,
    pub unlikely: u64,
    pub ambiguous: u64,
    /// Incoming requests given up for `max_open` or `max_age`.
    pub lost_incoming: u64,
    /// Calls given up for `max_calls` or `max_age`.
    pub lost_outgoing: u64,
    /// Processes given up for `max_processes`.
    pub lost_processes: u64,
    /// Candidates not looked at because there were too many.
    pub skipped_candidates: u64,
    /// Readings of the events dropped because too many or too improbable.
    pub pruned: u64,
    /// Ends of exchanges that were not known, or not any more.
    pub unknown: u64,
    /// Names used again before their exchange had ended.
    pub repeated: u64,
}

impl Stats {
    fn count(&mut self, method: Method) {
        *match method {
            Method::RequestId => &mut self.request_id,
            Method::Coroutine => &mut self.coroutine,
            Method::BornIn => &mut self.born_in,
            Method::Thread => &mut self.thread,
            Method::Only => &mut self.only,
            Method::Order => &mut self.order,
            Method::Delay => &mut self.delay,
            Method::None(Reason::NoneOpen) => &mut self.none_open,
            Method::None(Reason::Unlikely) => &mut self.unlikely,
            Method::None(Reason::Ambiguous) => &mut self.ambiguous,
        } += 1;
    }

    /// Outgoing requests for which a link was given.
    #[cfg(test)]
    fn decided(&self) -> u64 {
        let found = self.request_id + self.coroutine + self.born_in + self.thread + self.only + self.order + self.delay;
        found + self.none_open + self.unlikely + self.ambiguous
    }
}

/// What processes share while they work: bounds, counters, and decisions on their way out.
struct Shared {
    settings: Settings,
    stats: Stats,
    links: Vec<Link>,
    /// Names that may be forgotten: they ended without their end being seen.
    forgotten_incoming: Vec<Ref>,
    forgotten_outgoing: Vec<Ref>,
}

impl Shared {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            stats: Stats::default(),
            links: Vec::new(),
            forgotten_incoming: Vec::new(),
            forgotten_outgoing: Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.links.clear();
        self.forgotten_incoming.clear();
        self.forgotten_outgoing.clear();
    }

    fn link(&mut self, link: Link) {
        self.stats.count(link.method);
        self.links.push(link);
    }
}

/// All processes observed.
pub struct Causality {
    shared: Shared,
    processes: FxHashMap<u32, Process>,
    incoming: FxHashMap<Ref, u32>,
    outgoing: FxHashMap<Ref, u32>,
}

impl Causality {
    pub fn new(settings: Settings) -> Self {
        Self {
            shared: Shared::new(settings),
            processes: FxHashMap::default(),
            incoming: FxHashMap::default(),
            outgoing: FxHashMap::default(),
        }
    }

    /// An incoming request's head was seen. A name still in use is ignored and counted.
    pub fn incoming(&mut self, incoming: Incoming) {
        if self.incoming.contains_key(&incoming.id) {
            self.shared.stats.repeated += 1;
            return;
        }
        self.shared.stats.incoming += 1;
        self.incoming.insert(incoming.id, incoming.process);
        self.feed(incoming.process, incoming.at, Event::Incoming(incoming));
    }

    /// The last octet of the response to an incoming request was sent.
    pub fn answered(&mut self, id: Ref, at: u64) {
        self.answered_in(id, at, None);
    }

    /// The same, with the task of an event loop that began the response, as in [`Facts::tasks`].
    pub fn answered_in(&mut self, id: Ref, at: u64, task: Option<u64>) {
        match self.incoming.remove(&id) {
            Some(process) => self.feed(process, at, Event::Answered(id, task)),
            None => self.shared.stats.unknown += 1,
        }
    }

    /// An outgoing request began. A name still in use is ignored and counted: no second link is given for it.
    pub fn outgoing(&mut self, outgoing: Outgoing) {
        if self.outgoing.contains_key(&outgoing.id) {
            self.shared.stats.repeated += 1;
            return;
        }
        self.shared.stats.outgoing += 1;
        self.outgoing.insert(outgoing.id, outgoing.process);
        self.feed(outgoing.process, outgoing.at, Event::Outgoing(outgoing));
    }

    /// The response to an outgoing request has ended.
    pub fn returned(&mut self, id: Ref, at: u64) {
        match self.outgoing.remove(&id) {
            Some(process) => self.feed(process, at, Event::Returned(id)),
            None => self.shared.stats.unknown += 1,
        }
    }

    /// Coroutines of a process were seen not to have been started yet.
    pub fn unborn(&mut self, process: u32, unborn: Unborn) {
        if self.processes.contains_key(&process) {
            self.feed(process, unborn.at, Event::Unborn(unborn));
        }
    }

    /// A thread of a process has started another one.
    pub fn born(&mut self, process: u32, at: u64, thread: u32, parent: u32) {
        if self.processes.contains_key(&process) {
            self.feed(process, at, Event::Born { thread, parent });
        }
    }

    /// The process has given up waiting for the response to a call.
    pub fn gave_up(&mut self, process: u32, at: u64) {
        if self.processes.contains_key(&process) {
            self.feed(process, at, Event::GaveUp);
        }
    }

    /// What the process was asked to do until now was not seen: nothing is known of what it calls unasked.
    pub fn asked_unseen(&mut self, process: u32, at: u64) {
        if self.processes.contains_key(&process) {
            self.feed(process, at, Event::AskedUnseen);
        }
    }

    /// Decides what can be decided at `now` and moves all decisions since the last call to `links`.
    pub fn poll(&mut self, now: u64, links: &mut Vec<Link>) {
        for process in self.processes.values_mut() {
            process.poll(now, &mut self.shared);
        }
        // A process without any open exchange for so long has most likely ended.
        let idle = self.shared.settings.max_age.saturating_mul(10);
        self.processes.retain(|_, process| !process.is_idle() || process.newest().saturating_add(idle) > now);
        self.hand_over(links);
    }

    /// The end of the input: decides everything that is left.
    pub fn finish(&mut self, links: &mut Vec<Link>) {
        for process in self.processes.values_mut() {
            process.finish(&mut self.shared);
        }
        self.hand_over(links);
    }

    /// The process has exited: decides what is left of it and forgets it.
    pub fn exited(&mut self, process: u32) {
        if let Some(mut process) = self.processes.remove(&process) {
            process.finish(&mut self.shared);
            self.forget();
        }
    }

    pub fn stats(&self) -> Stats {
        self.shared.stats
    }

    fn feed(&mut self, id: u32, at: u64, event: Event) {
        if !self.processes.contains_key(&id) && self.processes.len() >= self.shared.settings.max_processes {
            self.drop_stalest();
        }
        self.processes.entry(id).or_insert_with(|| Process::new(at)).feed(at, event, &mut self.shared);
        self.forget();
    }

    fn drop_stalest(&mut self) {
        let stalest = self.processes.iter().min_by_key(|(_, process)| process.newest()).map(|(&id, _)| id);
        if let Some(id) = stalest {
            self.exited(id);
            self.shared.stats.lost_processes += 1;
        }
    }

    fn hand_over(&mut self, links: &mut Vec<Link>) {
        self.forget();
        links.append(&mut self.shared.links);
    }

    fn forget(&mut self) {
        for id in self.shared.forgotten_incoming.drain(..) {
            self.incoming.remove(&id);
        }
        for id in self.shared.forgotten_outgoing.drain(..) {
            self.outgoing.remove(&id);
        }
    }
}
