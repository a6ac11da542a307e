//! What is known of how a process serves its requests: whether its threads stay with them, whether it passes their
//! targets on, and what it calls while it serves none.

use agent_common::ids::MonoNanos;
use agent_common::layout::{PROCESS_CALLS_UNASKED, PROCESS_THREADS_TELL};

/// One process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    /// Outgoing requests that were told to what finds causes.
    pub(super) calls: u32,
    /// Of those, the ones made while it served nothing, since when.
    idle: (MonoNanos, u32),
    /// Incoming requests that are open.
    pub(super) serving: u32,
    /// Calls made while requests were open, and those of them that repeated the target of one.
    busy_calls: u32,
    repeated: u32,
    /// Whether threads answer what they have read, and coroutines.
    threads: Fidelity,
    coroutines: Fidelity,
    /// Requests that began while another one was open, on another thread, and those on the same thread.
    beside: u32,
    in_turns: u32,
    /// It called while it served nothing.
    calls_unasked: bool,
    /// What the kernel side was told.
    pub(super) told: u8,
}

/// So many calls a second that a process makes while it serves nothing are told, to know such calls by when it does.
/// A load generator makes far more; there is no use in telling them all.
const IDLE_CALLS: u32 = 200;
const SECOND: u64 = 1_000_000_000;
/// From so many calls on it can be said that a process passes targets on.
const ENOUGH: u32 = 8;
/// After so many, the past counts half.
const MEMORY: u32 = 1_000;
/// A process is believed again after so many requests in a row that stayed on their thread.
const FORGIVEN: u32 = 10_000;

/// Requests that have to have been served beside others on threads of their own, and none in turns, before the kernel
/// side may conclude from a thread: it decides at once, and what it has sent cannot be taken back.
const BESIDE: u32 = 32;

impl Habits {
    /// What another process of the same program may be expected to do, until it shows otherwise: servers that fork have several,
    /// and each would have to be got to know.
    pub(super) fn expected_of_another(self) -> Self {
        let known = if self.passes_on() { ENOUGH } else { 0 };
        let Self { threads, coroutines, .. } = self;
        Self { busy_calls: known, repeated: known, threads, coroutines, ..Self::default() }
    }

    /// Notes that a request began while others were open; whether one of them is on the same thread.
    pub(super) fn overlaps(&mut self, same_thread: bool) {
        if same_thread {
            self.in_turns = self.in_turns.saturating_add(1);
        } else {
            self.beside = self.beside.saturating_add(1);
        }
    }

    /// Notes that the process called while it served nothing.
    pub(super) fn called_unasked(&mut self) {
        self.calls_unasked = true;
    }

    /// These habits as the kernel side has them, and whether that is news.
    pub(super) fn tell(&mut self) -> Option<u8> {
        let now = self.bits();
        (std::mem::replace(&mut self.told, now) != now).then_some(now)
    }

    pub(super) fn bits(&self) -> u8 {
        let telling = self.threads_are_telling() && self.in_turns == 0 && self.beside >= BESIDE;
        let told = if telling { PROCESS_THREADS_TELL } else { 0 };
        if self.calls_unasked { told | PROCESS_CALLS_UNASKED } else { told }
    }

    /// Notes whether a call made while requests are open repeats the target of one.
    pub(super) fn called(&mut self, repeats: bool) {
        if self.busy_calls >= MEMORY {
            (self.busy_calls, self.repeated) = (self.busy_calls / 2, self.repeated / 2);
        }
        self.busy_calls += 1;
        self.repeated += u32::from(repeats);
    }

    /// Whether the process passes targets on as they came, as proxies do.
    pub(super) fn passes_on(&self) -> bool {
        self.busy_calls >= ENOUGH && self.repeated >= self.busy_calls - self.busy_calls / 20
    }

    /// Whether a call that nothing can have caused is to be told.
    pub(super) fn tells_idle(&mut self, at: MonoNanos) -> bool {
        if at.since(self.idle.0) >= SECOND {
            self.idle = (at, 0);
        }
        self.idle.1 = self.idle.1.saturating_add(1);
        self.idle.1 <= IDLE_CALLS
    }

    /// Notes whether a request was answered by the thread that had read it, and by the coroutine, where that is known.
    pub(super) fn answered(&mut self, same_thread: bool, same_coroutine: Option<bool>) {
        self.threads.note(same_thread);
        if let Some(same) = same_coroutine {
            self.coroutines.note(same);
        }
    }

    /// Whether a thread stays with the request that it has read: not where coroutines move between threads (Go, tokio),
    /// nor where a request is handed to another thread.
    pub(super) fn threads_are_telling(&self) -> bool {
        self.threads.holds()
    }

    /// The same of coroutines: not where one that reads from many connections hands the requests to others.
    pub(super) fn coroutines_are_telling(&self) -> bool {
        self.coroutines.holds()
    }
}

/// Whether requests are answered by who has read them.
#[derive(Clone, Copy, Debug, Default)]
struct Fidelity {
    faithful: u32,
    /// Requests answered by another: work moves between them.
    moved: u32,
}

impl Fidelity {
    fn note(&mut self, same: bool) {
        if !same {
            (self.moved, self.faithful) = (self.moved.saturating_add(1), 0);
            return;
        }
        self.faithful = self.faithful.saturating_add(1);
        if self.faithful >= FORGIVEN {
            self.moved = 0;
        }
    }

    const fn holds(self) -> bool {
        self.moved == 0 && self.faithful > 0
    }
}
