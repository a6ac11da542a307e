//! How far the order of responses can be trusted to be that of the requests seen.

use agent_common::ids::MonoNanos;

/// Exchanges, one at a time, after which a client counts as one that does not pipeline.
const SEQUENTIAL: u32 = 4;
/// How often in a row all requests must have been answered before the next one, for doubt to end.
const ROUNDS: u32 = 8;
/// Heads shorter than this let the kernel side capture less.
const SMALL_HEAD: u64 = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Degree {
    /// Every message was seen.
    Sure,
    /// Some were not, but a request proves those before it answered, since the client waits for each response before it
    /// sends the next request. Nearly all do; it is taken for granted of a connection older than the agent and of one
    /// that has behaved so before, until something speaks against it.
    Assumed,
    /// The client pipelines, or may, and messages were lost.
    Doubt,
}

/// What a connection's past says about which response belongs to which request.
#[derive(Debug)]
pub(super) struct Trust {
    degree: Degree,
    /// The connection is older than what we saw of it.
    late: bool,
    /// A request was once sent before the response to the one before it had ended.
    pipelined: bool,
    /// A message's content came in chunks.
    chunked: bool,
    /// Trust has come back after doubt: pipelining alone does not shake it.
    proven: bool,
    /// Exchanges in a row without pipelining, and those of them with small heads.
    sequential: u32,
    small: u32,
    /// Responses paired since messages were last lost.
    paired: u32,
    /// In doubt: requests less responses, and how often that came back to 0.
    depth: u64,
    rounds: u32,
    /// The last octet of the newest complete response.
    last_end: MonoNanos,
}

impl Trust {
    pub(super) fn new(fresh: bool) -> Self {
        Self {
            degree: if fresh { Degree::Sure } else { Degree::Assumed },
            late: !fresh,
            pipelined: false,
            chunked: false,
            proven: false,
            sequential: 0,
            small: 0,
            paired: 0,
            depth: 0,
            rounds: 0,
            last_end: MonoNanos(0),
        }
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.degree == Degree::Doubt
    }

    pub(super) fn has_pipelined(&self) -> bool {
        self.pipelined
    }

    /// Whether a new request proves that those before it are answered.
    pub(super) fn is_sequential(&self) -> bool {
        let behaved = self.degree == Degree::Assumed || self.sequential >= SEQUENTIAL;
        !self.pipelined && behaved && !self.is_in_doubt()
    }

    /// Whether heads are small and come one at a time, and what follows them needs not be seen whole: the sizes of chunks
    /// do.
    pub(super) fn is_lean(&self) -> bool {
        self.small >= SEQUENTIAL && !self.pipelined && !self.chunked
    }

    /// Whether pipelining proves wrong what was assumed.
    pub(super) fn rests_on_order(&self) -> bool {
        self.degree == Degree::Assumed && !self.proven
    }

    /// Whether a response too many proves wrong what was paired.
    pub(super) fn rests_on_count(&self) -> bool {
        self.degree == Degree::Assumed && self.paired > 0
    }

    pub(super) fn note_pipelining(&mut self) {
        self.pipelined = true;
        self.sequential = 0;
        self.small = 0;
    }

    pub(super) fn note_chunked(&mut self) {
        self.chunked = true;
    }

    pub(super) fn note_head(&mut self, size: u64, partial: bool) {
        if size >= SMALL_HEAD || partial {
            self.small = 0;
        }
    }

    /// A response was paired and ended at `at`, before or after the next request was sent.
    pub(super) fn note_pair(&mut self, at: MonoNanos, pipelined: bool) {
        self.last_end = at;
        self.paired = self.paired.saturating_add(1);
        if pipelined {
            self.note_pipelining();
        } else {
            self.sequential = self.sequential.saturating_add(1);
            self.small = self.small.saturating_add(1);
        }
    }

    /// In doubt, a request was sent at `start`. `quiet`: after a pause, and with no request outstanding that was
    /// certain. Whether it can be paired after all.
    pub(super) fn request_in_doubt(&mut self, start: MonoNanos, quiet: bool) -> bool {
        if self.depth == 0 && quiet {
            self.regain();
            return true;
        }
        if self.depth == 0 && start < self.last_end {
            self.rounds = 0;
        }
        self.depth += 1;
        false
    }

    /// A response that belongs to no request kept ended at `at`. `idle`: no request is outstanding that was certain.
    pub(super) fn note_unmatched(&mut self, at: MonoNanos, idle: bool) {
        self.last_end = at;
        if !self.is_in_doubt() {
            return;
        }
        if self.depth == 0 {
            self.rounds = 0;
            return;
        }
        self.depth -= 1;
        if self.depth == 0 {
            self.rounds += 1;
            if self.rounds >= ROUNDS && idle {
                self.regain();
            }
        }
    }

    /// Messages were lost.
    pub(super) fn degrade(&mut self) {
        let sequential = !self.pipelined && (self.late || self.sequential >= SEQUENTIAL);
        self.degree = if sequential && !self.is_in_doubt() { Degree::Assumed } else { Degree::Doubt };
        self.proven = false;
        self.paired = 0;
        self.small = 0;
        (self.depth, self.rounds) = (0, 0);
    }

    /// What was assumed has proved wrong.
    pub(super) fn doubt(&mut self) {
        self.note_pipelining();
        self.degrade();
    }

    fn regain(&mut self) {
        self.degree = Degree::Assumed;
        self.proven = true;
        self.paired = 0;
        (self.depth, self.rounds) = (0, 0);
    }
}
