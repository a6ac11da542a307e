//! How far the order of responses can be trusted to be that of the requests seen.

use agent_common::ids::MonoNanos;

/// Exchanges, one at a time, after which a client counts as one that does not pipeline.
const SEQUENTIAL: u32 = 4;
/// How often in a row all requests must have been answered before the next one, for doubt to end.
const ROUNDS: u32 = 8;
/// Batches after which a client counts as one that sends its requests so, and none between a batch's responses.
const BATCHES: u32 = 4;
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
    /// A request came after a response, so that what was answered by then is not what was under way when we came.
    confirmed: bool,
    /// Messages were once lost.
    lossy: bool,
    /// A request was once sent before the response to the one before it had ended.
    pipelined: bool,
    /// A message's content came in chunks.
    chunked: bool,
    /// Trust has come back after doubt: pipelining alone does not shake it.
    proven: bool,
    /// It came back since the client sends batches, so a request between a batch's responses shakes it.
    by_batches: bool,
    /// A request was once sent between the responses to requests sent together: not all may ever be answered at once.
    interleaves: bool,
    /// Exchanges in a row without pipelining, and those of them with small heads.
    sequential: u32,
    small: u32,
    /// Responses paired since messages were last lost.
    paired: u32,
    /// In doubt: requests less responses, above the least that this ever was, and how often in a row it came back to 0.
    depth: u64,
    rounds: u32,
    /// Rounds of several requests; the most that were outstanding in this one.
    batches: u32,
    peak: u64,
    /// There were [`BATCHES`] of them while it was known which response belongs to which request.
    shown: bool,
    /// The first request sent since nothing was outstanding.
    round_start: MonoNanos,
    /// A response has begun since, and since messages were last lost.
    answering: bool,
    /// The request with which trust came back: responses before it are none too many.
    regained: MonoNanos,
    /// The first octet of the newest response.
    last_start: MonoNanos,
}

impl Trust {
    pub(super) fn new(fresh: bool) -> Self {
        Self {
            degree: if fresh { Degree::Sure } else { Degree::Assumed },
            late: !fresh,
            confirmed: false,
            lossy: false,
            pipelined: false,
            chunked: false,
            proven: false,
            by_batches: false,
            interleaves: false,
            sequential: 0,
            small: 0,
            paired: 0,
            depth: 0,
            rounds: 0,
            batches: 0,
            peak: 0,
            shown: false,
            round_start: MonoNanos(0),
            answering: false,
            regained: MonoNanos(0),
            last_start: MonoNanos(0),
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

    /// Whether what was paired may still prove wrong: more than one request may have been under way when we came, of
    /// which only the last was seen.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.late && self.degree == Degree::Assumed && !self.confirmed && !self.proven
    }

    /// Whether pipelining proves wrong what was assumed.
    pub(super) fn rests_on_order(&self) -> bool {
        self.degree == Degree::Assumed && !self.proven
    }

    /// Whether a response too many, begun at `start`, proves wrong what was paired.
    pub(super) fn rests_on_count(&self, start: MonoNanos) -> bool {
        self.degree == Degree::Assumed && (self.paired > 0 || self.proven) && start >= self.regained
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

    /// A response has begun.
    pub(super) fn note_response(&mut self, start: MonoNanos) {
        self.last_start = start;
        self.answering |= start >= self.round_start;
    }

    /// A response was paired and ended, before or after the next request was sent.
    pub(super) fn note_pair(&mut self, pipelined: bool) {
        self.paired = self.paired.saturating_add(1);
        if pipelined {
            self.note_pipelining();
        } else {
            self.sequential = self.sequential.saturating_add(1);
            self.small = self.small.saturating_add(1);
        }
    }

    /// A request was sent at `start`, while others were outstanding or not. `false` when that is not what trust was built on.
    pub(super) fn request_fits(&mut self, start: MonoNanos, others: bool) -> bool {
        self.confirmed |= self.answering && !others;
        if self.is_in_doubt() {
            return true;
        }
        if others {
            self.interleaves |= self.answering;
            self.peak += 1;
        } else {
            self.batches = self.batches.saturating_add(u32::from(self.peak > 1));
            (self.answering, self.peak, self.round_start) = (false, 1, start);
        }
        !(self.by_batches && self.interleaves)
    }

    /// In doubt, a request was sent at `start`. `quiet`: after a pause. `idle`: no request is outstanding that was
    /// certain, and no response is being read. Whether it can be paired after all.
    ///
    /// A client that sends batches has all of them answered whenever it begins another one: between two batches the
    /// requests less the responses are as few as they can be. That this is so often, and that no request comes between
    /// a batch's responses, is what tells it from a client that keeps some requests outstanding all the time.
    pub(super) fn request_in_doubt(&mut self, start: MonoNanos, quiet: bool, idle: bool) -> bool {
        if self.depth == 0 {
            let batches = (self.batches >= BATCHES && !self.lossy) || (self.shown && self.answering);
            let by_batches = batches && !self.interleaves;
            let by_itself = quiet || self.rounds >= ROUNDS;
            if idle && (by_itself || by_batches) {
                self.regain(start, !by_itself);
                return true;
            }
            if start < self.last_start {
                // It came before the response that was taken for one too many.
                return false;
            }
            (self.answering, self.peak, self.round_start) = (false, 0, start);
        } else if quiet {
            // Some response was never counted, or comes late; then it will be one too many.
            self.restart();
        }
        self.interleaves |= self.answering;
        self.depth += 1;
        self.peak = self.peak.max(self.depth);
        false
    }

    /// A response that belongs to no request kept has ended.
    pub(super) fn note_unmatched(&mut self) {
        if !self.is_in_doubt() {
            return;
        }
        if self.depth == 0 {
            // One that answers a request not seen.
            let answering = self.answering;
            self.restart();
            self.answering = answering;
            return;
        }
        self.depth -= 1;
        if self.depth == 0 {
            self.rounds += 1;
            self.batches += u32::from(self.peak > 1);
        }
    }

    /// A request may have begun unseen.
    pub(super) fn note_overlooked(&mut self) {
        self.answering &= !self.is_in_doubt();
    }

    /// Messages were lost, the newest of them at `lost`; `None` when that is not known.
    pub(super) fn degrade(&mut self, lost: Option<MonoNanos>) {
        let sequential = !self.pipelined && (self.late || self.sequential >= SEQUENTIAL);
        self.shown |= self.batches >= BATCHES && !self.is_in_doubt();
        self.degree = if sequential && !self.is_in_doubt() { Degree::Assumed } else { Degree::Doubt };
        self.lossy = true;
        self.proven = false;
        self.by_batches = false;
        self.paired = 0;
        self.small = 0;
        self.restart();
        self.answering = lost.is_some_and(|lost| self.last_start > lost);
    }

    /// What was assumed has proved wrong. `outstanding`: requests seen whose responses, if they are the next ones, have
    /// not ended.
    pub(super) fn doubt(&mut self, outstanding: u64) {
        self.note_pipelining();
        let lossy = self.lossy;
        self.degrade(None);
        (self.shown, self.lossy) = (false, lossy);
        (self.depth, self.peak) = (outstanding, outstanding);
        self.answering = self.last_start >= self.round_start;
    }

    /// Begins to count anew.
    fn restart(&mut self) {
        (self.depth, self.peak, self.rounds, self.batches, self.answering) = (0, 0, 0, 0, false);
    }

    fn regain(&mut self, start: MonoNanos, by_batches: bool) {
        self.regained = start;
        self.degree = Degree::Assumed;
        self.proven = true;
        self.by_batches = by_batches;
        self.paired = 0;
        self.restart();
    }
}
