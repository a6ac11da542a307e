//! One direction of a connection: octets by position. Records come as good as always in order; where two threads share
//! a socket, one may be stopped between its call and its record, so a record that is ahead waits a little for what is
//! missing before that is called lost.

use std::collections::VecDeque;

use agent_common::ids::{MonoNanos, Seq};
use agent_common::limits::PUTS;

use crate::protocol::{Segment, Thread};

/// Records of one direction that wait for an earlier one, at most.
const HELD: usize = 64;
/// Octets of those, at most.
const HELD_OCTETS: usize = 256 * 1024;
/// How long a record waits, in nanoseconds. A thread that was stopped longer is rare; what it did is then a gap.
pub(super) const PATIENCE: u64 = 50_000_000;

/// Places where octets were put into records to come, at most.
const INSERTED: usize = 4 * PUTS;

/// A record kept until its turn.
#[derive(Debug)]
pub(super) struct Held {
    seq: Seq,
    len: u32,
    at: MonoNanos,
    thread: Thread,
    octets: Box<[u8]>,
    tail: Box<[u8]>,
}

impl Held {
    pub(super) fn segment(&self) -> Segment<'_> {
        let missing = u64::from(self.len).saturating_sub(self.octets.len() as u64);
        Segment {
            at: self.at,
            thread: self.thread,
            position: self.seq,
            octets: &self.octets,
            missing,
            tail: &self.tail,
        }
    }
}

/// What became of the first held record.
#[derive(Debug)]
pub(super) enum Popped {
    /// It is to be delivered, after so many octets that were left out on request.
    Ready { held: Held, skipped: u32 },
    /// All of it was seen already.
    Stale,
    /// What comes before it is missing, or there is none.
    Blocked,
}

/// Where a record belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Directly after what came before.
    Next,
    /// After a gap that user space asked for: body that needed no record.
    AfterSkipped(u32),
    /// After octets that are still missing: wait.
    Ahead,
    /// All of it was seen already.
    Stale,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Where the next octet belongs; `None` before the first record.
    next: Option<Seq>,
    /// Calls that end before this position get no record, as the kernel side was told.
    skip: Option<Seq>,
    /// Where so many octets were put into records, of which the process does not know.
    inserted: VecDeque<(Seq, u32)>,
    held: VecDeque<Held>,
    held_octets: usize,
}

impl Stream {
    /// A direction whose next octet has this position.
    pub(super) fn starting_at(seq: Seq) -> Self {
        Self { next: Some(seq), ..Self::default() }
    }

    /// The direction has come to `position`: how many octets were not delivered before it, and whether they are lost
    /// or were left out on request. `None` when all were delivered, or nobody knows.
    pub(super) fn advance(&mut self, position: Seq) -> Option<(u32, bool)> {
        let ahead = position.ahead_of(self.next?);
        if ahead <= 0 {
            return None;
        }
        self.next = Some(position);
        let asked = self.skip.is_some_and(|skip| skip.ahead_of(position) >= 0);
        Some((ahead.unsigned_abs(), !asked))
    }

    /// The position after what was delivered.
    pub(super) const fn position(&self) -> Option<Seq> {
        self.next
    }

    /// Notes up to where the kernel side leaves records out.
    pub(super) const fn set_skip(&mut self, skip: Option<Seq>) {
        self.skip = skip;
    }

    pub(super) fn place(&mut self, seq: Seq, len: u32) -> Place {
        let Some(next) = self.next else {
            self.next = Some(seq);
            return Place::Next;
        };
        let ahead = seq.ahead_of(next);
        if ahead == 0 {
            return Place::Next;
        }
        if ahead < 0 {
            // Partly seen cannot be: a call's octets are one piece. What ends further on is a position that jumped, and
            // is taken for the truth.
            return if seq.plus(len).ahead_of(next) <= 0 { Place::Stale } else { Place::Next };
        }
        match self.skip {
            Some(skip) if skip.ahead_of(seq) >= 0 => Place::AfterSkipped(ahead.unsigned_abs()),
            _ => Place::Ahead,
        }
    }

    /// So many octets were put into a record to come, at this position.
    pub(super) fn insert(&mut self, at: Seq, octets: u32) {
        if self.inserted.len() >= INSERTED {
            self.inserted.pop_front();
        }
        self.inserted.push_back((at, octets));
    }

    /// The record at `seq` is delivered next.
    pub(super) fn delivered(&mut self, seq: Seq, len: u32) {
        self.inserted.retain(|(at, _)| at.ahead_of(seq) > 0);
        let mut end = seq.plus(len);
        for (at, octets) in &self.inserted {
            if at.ahead_of(end) <= 0 {
                end = end.plus(*octets);
            }
        }
        self.next = Some(end);
    }

    /// Where what is delivered from `position` on has to be cut, and how far apart the pieces are: after how many octets
    /// others were put into it, and how many those are.
    pub(super) fn cut(&mut self, position: Seq) -> Option<(u32, u32)> {
        let (at, octets) = *self.inserted.front()?;
        if at.ahead_of(self.next?) >= 0 {
            return None;
        }
        self.inserted.pop_front();
        Some((at.ahead_of(position).max(0).unsigned_abs(), octets))
    }

    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Keeps a record until its turn; `false` when there is no room, so that what is missing has to be given up.
    pub(super) fn hold(&mut self, seq: Seq, len: u32, segment: &Segment<'_>) -> bool {
        let octets = segment.octets.len() + segment.tail.len();
        if self.held.len() >= HELD || self.held_octets + octets > HELD_OCTETS {
            return false;
        }
        self.held_octets += octets;
        let held = Held {
            seq,
            len,
            at: segment.at,
            thread: segment.thread,
            octets: segment.octets.into(),
            tail: segment.tail.into(),
        };
        let place = self.held.partition_point(|other| other.seq.ahead_of(seq) <= 0);
        self.held.insert(place, held);
        true
    }

    /// When the first held record was made.
    pub(super) fn front(&self) -> Option<MonoNanos> {
        self.held.front().map(|held| held.at)
    }

    /// Takes the first held record, if its turn has come.
    pub(super) fn pop(&mut self) -> Popped {
        let Some((seq, len)) = self.held.front().map(|held| (held.seq, held.len)) else { return Popped::Blocked };
        let place = self.place(seq, len);
        if place == Place::Ahead {
            return Popped::Blocked;
        }
        let Some(first) = self.held.pop_front() else { return Popped::Blocked };
        self.held_octets = self.held_octets.saturating_sub(first.octets.len() + first.tail.len());
        if place == Place::Stale {
            return Popped::Stale;
        }
        self.delivered(seq, len);
        let skipped = if let Place::AfterSkipped(octets) = place { octets } else { 0 };
        Popped::Ready { held: first, skipped }
    }

    /// Gives up on what is missing before the first held record: how many octets that are, and when that was made.
    pub(super) fn give_up(&mut self) -> Option<(u32, MonoNanos)> {
        let first = self.held.front()?;
        let gap = self.next.map_or(0, |next| first.seq.ahead_of(next));
        self.next = Some(first.seq);
        Some((gap.max(0).unsigned_abs(), first.at))
    }

    /// Whether the first held record has waited long enough.
    pub(super) fn is_overdue(&self, now: MonoNanos) -> bool {
        self.held.iter().any(|held| now.since(held.at) > PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(octets: &[u8]) -> Segment<'_> {
        Segment { at: MonoNanos(1000), thread: Thread::default(), position: Seq(0), octets, missing: 0, tail: &[] }
    }

    #[test]
    fn positions_wrap_around() {
        let mut stream = Stream::default();
        assert_eq!(stream.place(Seq(u32::MAX - 1), 4), Place::Next);
        stream.delivered(Seq(u32::MAX - 1), 4);
        assert_eq!(stream.position(), Some(Seq(2)));
        assert_eq!(stream.place(Seq(2), 1), Place::Next);
        assert_eq!(stream.place(Seq(u32::MAX), 3), Place::Stale);
    }

    #[test]
    fn a_record_that_came_early_waits_for_the_missing_one() {
        let mut stream = Stream::default();
        stream.place(Seq(10), 5);
        stream.delivered(Seq(10), 5);
        assert_eq!(stream.place(Seq(18), 2), Place::Ahead);
        assert!(stream.hold(Seq(18), 2, &segment(b"ij")));
        assert!(stream.hold(Seq(15), 0, &segment(b"")));
        assert!(matches!(stream.pop(), Popped::Ready { .. }), "of no octets");
        assert!(matches!(stream.pop(), Popped::Blocked));
        assert_eq!(stream.place(Seq(15), 3), Place::Next);
        stream.delivered(Seq(15), 3);
        let Popped::Ready { held, skipped: 0 } = stream.pop() else { panic!("its turn has come") };
        assert_eq!(held.segment().octets, b"ij");
        assert!(!stream.is_holding());
    }

    #[test]
    fn what_never_comes_is_a_gap_of_known_size() {
        let mut stream = Stream::default();
        stream.place(Seq(0), 1);
        stream.delivered(Seq(0), 1);
        assert!(stream.hold(Seq(101), 1, &segment(b"x")));
        assert!(!stream.is_overdue(MonoNanos(1000 + PATIENCE)));
        assert!(stream.is_overdue(MonoNanos(1001 + PATIENCE)));
        assert_eq!(stream.give_up(), Some((100, MonoNanos(1000))));
        assert!(matches!(stream.pop(), Popped::Ready { .. }));
        assert_eq!(stream.position(), Some(Seq(102)));
    }

    #[test]
    fn skipped_octets_are_no_surprise_and_others_are() {
        let mut stream = Stream::default();
        stream.place(Seq(0), 100);
        stream.delivered(Seq(0), 100);
        stream.set_skip(Some(Seq(5000)));
        assert_eq!(stream.place(Seq(4000), 2000), Place::AfterSkipped(3900));
        assert_eq!(stream.place(Seq(5001), 10), Place::Ahead);
    }

    #[test]
    fn octets_put_in_by_the_kernel_side_are_no_gap() {
        let mut stream = Stream::default();
        stream.place(Seq(0), 100);
        stream.insert(Seq(40), 70);
        stream.insert(Seq(120), 60);
        // In a record to come.
        stream.insert(Seq(240), 1);
        stream.delivered(Seq(0), 100);
        assert_eq!(stream.place(Seq(230), 10), Place::Next);
        let pieces = [stream.cut(Seq(0)), stream.cut(Seq(110)), stream.cut(Seq(180))];
        assert_eq!(pieces, [Some((40, 70)), Some((10, 60)), None]);
        stream.delivered(Seq(230), 10);
        assert_eq!(stream.cut(Seq(230)), Some((10, 1)));
        assert_eq!(stream.place(Seq(241), 10), Place::Next, "once");
    }

    #[test]
    fn held_memory_is_bounded() {
        let mut stream = Stream::default();
        stream.place(Seq(0), 1);
        let big = vec![0; HELD_OCTETS];
        assert!(stream.hold(Seq(10), 1, &segment(&big)));
        assert!(!stream.hold(Seq(20), 1, &segment(b"x")));
        let mut stream = Stream::default();
        for turn in 0..HELD {
            assert!(stream.hold(Seq(100 + u32::try_from(turn).unwrap()), 1, &segment(b"x")));
        }
        assert!(!stream.hold(Seq(1), 1, &segment(b"x")));
    }
}
