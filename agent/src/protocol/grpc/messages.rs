//! The messages in the content of one direction of a call, by the head that stands before each: an octet of flags and the
//! length in four, big-endian. With gRPC-Web what has the highest flag is no message but the trailers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Coding, status};

/// What a head may say of a message: it is compressed.
const COMPRESSED: u8 = 1;
const TRAILERS: u8 = 0x80;
/// What is kept of trailers at most.
const KEPT: usize = 4096;

/// Counts messages.
#[derive(Debug)]
pub(in crate::protocol) struct Messages {
    coding: Coding,
    state: State,
    count: u32,
    /// Symbols of base64 that are no whole group yet.
    group: Vec<u8>,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many octets of a head were read.
    Head {
        octets: [u8; 5],
        read: usize,
    },
    /// So many octets of a message are still to come.
    Message {
        left: u32,
    },
    Trailers {
        left: u32,
    },
    /// Where the next message begins is not known.
    Lost,
}

const BEGINNING: State = State::Head { octets: [0; 5], read: 0 };

impl Messages {
    pub(in crate::protocol) const fn new(coding: Coding) -> Self {
        Self { coding, state: BEGINNING, count: 0, group: Vec::new(), trailers: Vec::new() }
    }

    /// More of the content.
    pub(in crate::protocol) fn feed(&mut self, octets: &[u8]) {
        if self.coding != Coding::WebText {
            return self.read(octets);
        }
        // Whatever was coded by itself ends with its padding, and the next begins with a group of its own.
        for symbol in octets.iter().filter(|symbol| !symbol.is_ascii_whitespace()) {
            self.group.push(*symbol);
            if self.group.len() == 4 {
                let mut octets = [0; 3];
                match STANDARD.decode_slice(&self.group, &mut octets) {
                    Ok(length) => self.read(octets.get(..length).unwrap_or_default()),
                    Err(_) => self.lose(),
                }
                self.group.clear();
            }
        }
    }

    fn read(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            match &mut self.state {
                State::Head { octets: head, read } => {
                    let room = head.get_mut(*read..).unwrap_or_default();
                    let (taken, rest) = octets.split_at_checked(room.len()).unwrap_or((octets, &[]));
                    room.iter_mut().zip(taken).for_each(|(to, from)| *to = *from);
                    *read += taken.len();
                    octets = rest;
                    if *read == head.len() {
                        let [flags, a, b, c, d] = *head;
                        self.begin(flags, u32::from_be_bytes([a, b, c, d]));
                    }
                }
                State::Message { left } => {
                    let taken = octets.len().min(*left as usize);
                    *left -= taken as u32;
                    octets = octets.get(taken..).unwrap_or_default();
                    if *left == 0 {
                        self.end_message();
                    }
                }
                State::Trailers { left } => {
                    let (taken, rest) = octets.split_at_checked(*left as usize).unwrap_or((octets, &[]));
                    *left -= taken.len() as u32;
                    let room = KEPT.saturating_sub(self.trailers.len()).min(taken.len());
                    self.trailers.extend_from_slice(taken.get(..room).unwrap_or_default());
                    octets = rest;
                }
                State::Lost => return,
            }
        }
    }

    fn begin(&mut self, flags: u8, left: u32) {
        let trailers = self.coding != Coding::Plain && flags & TRAILERS != 0;
        self.state = match flags & !COMPRESSED {
            0 => State::Message { left },
            TRAILERS if trailers && flags & COMPRESSED == 0 => State::Trailers { left },
            _ => State::Lost,
        };
        if matches!(self.state, State::Message { left: 0 }) {
            self.end_message();
        }
    }

    fn end_message(&mut self) {
        self.count = self.count.saturating_add(1);
        self.state = BEGINNING;
    }

    /// Octets of the content went by unseen.
    pub(in crate::protocol) fn pass(&mut self, octets: u64) {
        match &mut self.state {
            State::Message { left } if self.coding != Coding::WebText && octets <= u64::from(*left) => {
                // It is at most `left`.
                *left -= octets as u32;
                if *left == 0 {
                    self.end_message();
                }
            }
            _ if octets == 0 => {}
            _ => self.lose(),
        }
    }

    /// Nothing more can be told.
    pub(in crate::protocol) fn lose(&mut self) {
        self.state = State::Lost;
    }

    /// How many octets of the content may go by unseen.
    pub(in crate::protocol) fn left(&self) -> u64 {
        match self.state {
            State::Message { left } if self.coding != Coding::WebText => left.into(),
            State::Lost => u64::MAX,
            _ => 0,
        }
    }

    /// How many there were until now, without one that was not read to its end.
    pub(in crate::protocol) fn count(&self) -> Option<u32> {
        (!matches!(self.state, State::Lost)).then_some(self.count)
    }

    /// Octets of trailers.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.trailers.len()
    }

    /// The status in the trailers: lines as those of a head in HTTP/1.
    pub(in crate::protocol) fn status(&self) -> Option<u32> {
        let lines =
            matches!(self.state, State::Trailers { left: 0 }).then(|| self.trailers.split(|octet| *octet == b'\n'));
        lines?.find_map(|line| {
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            name.eq_ignore_ascii_case(b"grpc-status").then(|| status(value.get(1..)?)).flatten()
        })
    }
}
