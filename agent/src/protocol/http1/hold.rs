//! Segments of responses that reached us before their request did: the two may come from different threads.

use std::collections::VecDeque;

use agent_common::ids::{MonoNanos, Seq};

use super::SECOND;
use crate::protocol::http::Limits;
use crate::protocol::{Segment, Thread};

#[derive(Debug)]
pub(in crate::protocol) struct Held {
    at: MonoNanos,
    thread: Thread,
    position: Seq,
    octets: Vec<u8>,
    missing: u64,
    tail: Vec<u8>,
}

impl Held {
    pub(in crate::protocol) fn as_segment(&self) -> Segment<'_> {
        Segment {
            at: self.at,
            thread: self.thread,
            position: self.position,
            octets: &self.octets,
            missing: self.missing,
            tail: &self.tail,
        }
    }
}

/// A short queue of segments.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Hold {
    queue: VecDeque<Held>,
    octets: usize,
}

impl Hold {
    pub(in crate::protocol) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(in crate::protocol) fn push(&mut self, segment: &Segment<'_>) {
        self.octets += segment.octets.len() + segment.tail.len();
        self.queue.push_back(Held {
            at: segment.at,
            thread: segment.thread,
            position: segment.position,
            octets: segment.octets.to_vec(),
            missing: segment.missing,
            tail: segment.tail.to_vec(),
        });
    }

    /// Whether `more` octets in one more segment stay within the limits.
    pub(in crate::protocol) fn has_room(&self, more: usize, limits: &Limits) -> bool {
        self.queue.len() < limits.held_segments && self.octets.saturating_add(more) <= limits.held_octets
    }

    /// Whether the oldest has waited too long at `now`.
    pub(in crate::protocol) fn is_stale(&self, now: MonoNanos) -> bool {
        self.queue.front().is_some_and(|oldest| now.since(oldest.at) > SECOND)
    }

    /// Whether a response in it may be one that switches to another protocol, whatever was asked.
    pub(super) fn switches(&self) -> bool {
        let octets: Vec<u8> = self.queue.iter().flat_map(|held| held.octets.iter().copied()).collect();
        octets.windows(12).any(|line| line.starts_with(b"HTTP/1.") && line.ends_with(b" 101"))
    }

    pub(in crate::protocol) fn take(&mut self) -> VecDeque<Held> {
        self.octets = 0;
        std::mem::take(&mut self.queue)
    }

    /// Puts what was taken and not read back behind what was held since.
    pub(in crate::protocol) fn extend(&mut self, later: VecDeque<Held>) {
        self.octets += later.iter().map(|held| held.octets.len() + held.tail.len()).sum::<usize>();
        self.queue.extend(later);
    }
}
