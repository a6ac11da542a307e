//! What is known of how a process serves its requests, as far as it matters for what its threads tell.

/// One process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    /// Outgoing requests so far.
    pub(super) calls: u32,
    /// Incoming requests that are open.
    pub(super) serving: u32,
    /// Requests answered by the thread that had read them.
    faithful: u32,
    /// Requests answered by another thread: work moves between threads.
    moved: u32,
}

/// A process is believed again after so many requests in a row that stayed on their thread.
const FORGIVEN: u32 = 10_000;

impl Habits {
    /// Notes whether a request was answered by the thread that had read it.
    pub(super) fn answered(&mut self, same_thread: bool) {
        if !same_thread {
            (self.moved, self.faithful) = (self.moved.saturating_add(1), 0);
            return;
        }
        self.faithful = self.faithful.saturating_add(1);
        if self.faithful >= FORGIVEN {
            self.moved = 0;
        }
    }

    /// Whether a thread stays with the request that it has read: not where coroutines move between threads (Go, tokio),
    /// nor where a request is handed to another thread.
    pub(super) fn threads_are_telling(&self) -> bool {
        self.moved == 0 && self.faithful > 0
    }
}
