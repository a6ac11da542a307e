//! Where one direction stands: in a frame's head, in its payload, or lost.

use super::begins::{HEAD, HEADER, METHOD};
use crate::protocol::piece::Start;

/// A frame whose head was read.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) start: Start,
    pub(super) kind: u8,
    pub(super) channel: u16,
    pub(super) size: u32,
    /// Octets of the payload that are still to come; the frame's end is not among them.
    pub(super) left: u64,
    /// What was read of the payload of a method or content header that came in parts.
    pub(super) payload: Vec<u8>,
    /// Some of that was not seen.
    pub(super) torn: bool,
}

impl Frame {
    pub(super) fn read(head: [u8; HEAD], start: Start) -> Self {
        let [kind, a, b, c, d, e, f] = head;
        let size = u32::from_be_bytes([c, d, e, f]);
        let channel = u16::from_be_bytes([a, b]);
        Self { start, kind, channel, size, left: size.into(), payload: Vec::new(), torn: false }
    }

    /// All octets of it.
    pub(super) fn octets(&self) -> u64 {
        HEAD as u64 + u64::from(self.size) + 1
    }

    /// Its payload has to be whole to be read.
    pub(super) const fn is_kept(&self) -> bool {
        matches!(self.kind, METHOD | HEADER)
    }
}

#[derive(Debug)]
pub(super) enum State {
    /// In the head of the next frame or in a protocol header, or before it.
    Head {
        octets: Vec<u8>,
        start: Option<Start>,
    },
    Frame(Frame),
    /// It is not known where the next frame begins. What was read of a call that may begin one.
    Lost {
        octets: Vec<u8>,
        start: Option<Start>,
    },
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) state: State,
    /// Where frames begin is certain.
    pub(super) proven: bool,
    /// Nothing was read of it, and its beginning is to come.
    pub(super) first: bool,
}

impl Lane {
    pub(super) const fn new(fresh: bool) -> Self {
        let state = if fresh { boundary() } else { State::Lost { octets: Vec::new(), start: None } };
        Self { state, proven: fresh, first: fresh }
    }

    pub(super) const fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost { .. })
    }
}

pub(super) const fn boundary() -> State {
    State::Head { octets: Vec::new(), start: None }
}
