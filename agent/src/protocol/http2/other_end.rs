//! What one end of a connection can learn from its other end, where that is on this host as well: both see the same
//! octets, but a record may be lost at one end alone, be too long to be captured whole, or come before the end was found.
//!
//! Which octets came before a position decides where frames begin there and what stands in the table of header fields.
//! So two followers that stand at the same position of the same direction may copy these from one another as they are.

use std::hash::Hasher as _;

use agent_common::ids::{Direction, Seq};
use rustc_hash::FxHasher;

use super::follower::{Block, Follower};
use crate::protocol::Exchange;
use crate::protocol::http::Loss;

/// A block of header fields, by where it begins, whose it is, and what its octets are. Two ends with the same one in
/// either direction are those of one connection: positions begin anywhere, also where addresses are in use twice on this
/// host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    position: Seq,
    stream: u32,
    digest: u64,
}

impl Mark {
    pub(super) fn of(block: &Block) -> Self {
        let mut hasher = FxHasher::default();
        hasher.write(&block.octets);
        Self { position: block.start.position, stream: block.stream, digest: hasher.finish() }
    }
}

/// One end as it stands.
#[derive(Debug)]
pub struct Side<'a> {
    pub follower: &'a mut Follower,
    /// Up to where it has read what its process sends, and what that receives.
    pub positions: [Option<Seq>; 2],
}

/// Whether two followers are those of the two ends of one connection: in which directions, as the first one sees them, the
/// same block was seen by both.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kinship([bool; 2]);

impl Kinship {
    /// Lets both learn from one another where they have read up to the same octet. Whether there is more to learn.
    pub fn compare(&mut self, first: Side<'_>, second: Side<'_>) -> bool {
        let (one, other) = (first.follower, second.follower);
        let directions = [Direction::Egress, Direction::Ingress];
        for (proven, direction) in self.0.iter_mut().zip(directions) {
            let mark = one.lane_of(direction).mark;
            *proven |= mark.is_some() && mark == other.lane_of(direction.opposite()).mark;
        }
        if self.0 == [true; 2] {
            let [sent, received] = second.positions;
            for ((direction, ours), theirs) in directions.into_iter().zip(first.positions).zip([received, sent]) {
                if ours.is_some() && ours == theirs {
                    one.learn(direction, other);
                    other.learn(direction.opposite(), one);
                }
            }
        }
        one.is_lacking() || other.is_lacking()
    }
}

impl Follower {
    /// Something of what was sent is not known that the other end may know.
    #[must_use]
    pub fn is_lacking(&self) -> bool {
        [&self.egress, &self.ingress].iter().any(|lane| lane.frames.is_lost() || !lane.decoder.is_complete())
    }

    /// Whether exchanges have ended unseen, which [`Self::settle`] gives out.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.streams.is_overdue()
    }

    /// Gives out what has ended unseen.
    pub fn settle(&mut self, out: &mut impl FnMut(Exchange)) {
        self.streams.settle_overdue(out);
    }

    /// Takes over what the other end of this connection knows of `direction`, as seen from here. Both have read it up to the
    /// same octet.
    fn learn(&mut self, direction: Direction, other: &Self) {
        let theirs = other.lane_of(direction.opposite());
        let open = theirs.block.is_some() || !theirs.frames.is_certain() || !theirs.frames.is_between();
        if open || self.over.is_some() || other.over.is_some() {
            return;
        }
        let ours = self.lane(direction);
        let (lost, between) = (ours.frames.is_lost(), ours.frames.is_between() && ours.block.is_none());
        if !between {
            if ours.frames.is_certain() {
                return;
            }
            // Where it was lost, or has guessed wrongly where frames begin.
            ours.decoder.lose();
            ours.block = None;
        }
        ours.frames.resume();
        ours.decoder.learn(&theirs.decoder);
        if lost && self.certain {
            self.streams.stats.lose(Loss::Resynchronised);
        }
        if lost && self.request_direction == Some(direction.opposite()) {
            self.streams.compare(&other.streams);
        }
    }
}
