//! Runs of octets as parsers take them: what was captured of a segment, without what was not.

use agent_common::ids::{MonoNanos, Seq};

use super::{Segment, Thread, UNKNOWN};

/// Where and when something began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Start {
    pub(super) at: MonoNanos,
    pub(super) thread: Thread,
    pub(super) position: Seq,
}

/// Octets of a segment that follow one another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) at: MonoNanos,
    pub(super) thread: Thread,
    pub(super) octets: &'a [u8],
    /// The position behind them.
    pub(super) end: Seq,
    /// They begin where a call does, so a message may begin there though the octets before it are not known.
    pub(super) begins: bool,
}

impl<'a> Piece<'a> {
    /// Where the next octet stands.
    pub(super) fn start(&self) -> Start {
        let position = Seq(self.end.0.wrapping_sub(low(self.octets.len() as u64)));
        Start { at: self.at, thread: self.thread, position }
    }

    /// Takes so many octets off the front, as far as they are there.
    pub(super) fn take(&mut self, most: u64) -> &'a [u8] {
        let here = usize::try_from(most).unwrap_or(usize::MAX).min(self.octets.len());
        let (taken, rest) = self.octets.split_at(here);
        self.octets = rest;
        self.begins &= taken.is_empty();
        taken
    }
}

impl<'a> Segment<'a> {
    /// What was captured; where something is missing behind it, how many octets that are (or [`UNKNOWN`]) and the tail behind them.
    pub(super) fn pieces(&self) -> (Piece<'a>, Option<(u64, Piece<'a>)>) {
        let Self { at, thread, position, octets, missing, tail } = *self;
        // A tail longer than what it is the tail of would shift every position after it.
        let tail = if tail.len() as u64 > missing { &[] } else { tail };
        let end = position.plus(low(octets.len() as u64));
        let first = Piece { at, thread, octets, end, begins: true };
        let rest = (missing > 0).then(|| {
            let hidden = if missing == UNKNOWN { UNKNOWN } else { missing - tail.len() as u64 };
            (hidden, Piece { octets: tail, end: end.plus(low(missing)), begins: false, ..first })
        });
        (first, rest)
    }
}

/// A number of octets as positions count them: modulo 2^32.
#[expect(clippy::cast_possible_truncation, reason = "that is what modulo means")]
pub(super) const fn low(octets: u64) -> u32 {
    octets as u32
}
