//! Calls that no request causes: those of timers, intervals, tasks and threads of a process's own.
//!
//! Only what happens while nothing is served proves that there are such calls. An operation (or a thread) that calls
//! about as often while requests are served as it does in idle moments is such a one; one that calls much more often has
//! a share of calls without a cause, and the model weighs their rate against the requests.

use rustc_hash::FxHashMap;

/// Operations and threads remembered each; the rare ones are forgotten when there are more.
const MAX_CALLERS: usize = 2048;
/// Times over which the past is weighed half, in nanoseconds.
const IDLE_MEMORY: f64 = 60e9;
const BUSY_MEMORY: f64 = 10e9;
/// Shortest time over which a rate is taken.
const SETTLING: f64 = 1e9;
/// Calls in idle moments that make a habit.
const HABIT: f32 = 1.5;
/// Calls in busy moments are explained by the idle ones up to so many times the expected ones, and so many more.
const EXCESS: f64 = 2.0;
const MORE: f64 = 2.0;

#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    idle: f32,
    busy: f32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    calls: Calls,
    /// It has read requests.
    reads: bool,
}

/// What a process does by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Background {
    /// Time without any open request, and with one, in nanoseconds.
    idle: f64,
    busy: f64,
    operations: FxHashMap<u32, Calls>,
    /// Of the threads of a process whose threads tell.
    threads: FxHashMap<u32, Thread>,
    /// Threads that have read requests; not all, when some were forgotten.
    readers: usize,
}

impl Background {
    pub(super) fn pass(&mut self, time: u64, idle: bool) {
        if idle {
            self.idle += time as f64;
        } else {
            self.busy += time as f64;
        }
        let fade_idle = self.idle > IDLE_MEMORY;
        let fade_busy = self.busy > BUSY_MEMORY;
        if fade_idle || fade_busy {
            let factor = |fades| if fades { 0.5 } else { 1.0 };
            self.fade_each(factor(fade_idle), factor(fade_busy));
        }
    }

    /// A call was made, with a request open or not.
    pub(super) fn call(&mut self, operation: u32, thread: Option<u32>, idle: bool) {
        make_room(&mut self.operations, |calls| *calls);
        self.operations.entry(operation).or_default().add(idle);
        if let Some(thread) = thread {
            self.thread(thread).calls.add(idle);
        }
    }

    /// The thread has read a request.
    pub(super) fn reads(&mut self, thread: u32) {
        let known = self.thread(thread);
        let new = !std::mem::replace(&mut known.reads, true);
        self.readers += usize::from(new);
    }

    /// Whether requests are read by several threads, so that it is no single event loop.
    pub(super) fn has_several_readers(&self) -> bool {
        self.readers > 1
    }

    fn thread(&mut self, thread: u32) -> &mut Thread {
        make_room(&mut self.threads, |thread| thread.calls);
        self.threads.entry(thread).or_default()
    }

    /// Whether calls of the operation need no request to explain them.
    pub(super) fn explains_operation(&self, operation: u32) -> bool {
        self.operations.get(&operation).is_some_and(|calls| self.explains(calls))
    }

    /// The same for all calls of a thread, which must never have read a request.
    pub(super) fn explains_thread(&self, thread: u32) -> bool {
        self.threads.get(&thread).is_some_and(|thread| !thread.reads && self.explains(&thread.calls))
    }

    /// Whether the operation was never called in idle moments, or too seldom to matter.
    pub(super) fn is_always_caused(&self, operation: u32) -> bool {
        let Some(calls) = self.operations.get(&operation) else { return true };
        calls.idle < HABIT || self.expected(calls) < 0.001 * f64::from(calls.busy)
    }

    /// Calls of the operation per nanosecond that no request causes.
    pub(super) fn rate(&self, operation: u32) -> f64 {
        self.operations.get(&operation).map_or(0.0, |calls| f64::from(calls.idle)) / self.idle.max(SETTLING)
    }

    pub(super) fn fade(&mut self, factor: f32) {
        self.fade_each(factor, factor);
    }

    /// Calls in busy moments that the rate in idle ones lets expect.
    fn expected(&self, calls: &Calls) -> f64 {
        f64::from(calls.idle) * self.busy / self.idle.max(1.0)
    }

    fn explains(&self, calls: &Calls) -> bool {
        calls.idle >= HABIT && f64::from(calls.busy) <= EXCESS * self.expected(calls) + MORE
    }

    fn fade_each(&mut self, idle: f32, busy: f32) {
        self.idle *= f64::from(idle);
        self.busy *= f64::from(busy);
        let threads = self.threads.values_mut().map(|thread| &mut thread.calls);
        for calls in self.operations.values_mut().chain(threads) {
            calls.idle *= idle;
            calls.busy *= busy;
        }
    }
}

impl Calls {
    fn add(&mut self, idle: bool) {
        *(if idle { &mut self.idle } else { &mut self.busy }) += 1.0;
    }
}

/// Forgets the rare ones when there are too many.
fn make_room<T>(all: &mut FxHashMap<u32, T>, calls: impl Fn(&T) -> Calls) {
    if all.len() >= MAX_CALLERS {
        all.retain(|_, one| calls(one).idle + calls(one).busy > 2.0);
        if all.len() >= MAX_CALLERS {
            all.clear();
        }
    }
}
