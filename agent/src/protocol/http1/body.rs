//! Where a message's content ends: `Content-Length`, chunked coding, or the connection's close (RFC 9112, section 6).

use crate::protocol::grpc::{Coding, Messages};

/// How the end of a message's content is found, as its head tells it (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many octets; 0 when there is no content.
    Length(u64),
    Chunked,
    /// All octets until the sender closes; responses only.
    UntilClose,
    /// The head contradicts itself, or was not seen to its end.
    Unknown,
}

/// The content of one message while it is being read.
#[derive(Debug)]
pub(super) struct Body {
    state: State,
    content: Content,
}

#[derive(Debug)]
struct Content {
    /// Octets so far; `None` once an unknown number went by unseen.
    octets: Option<u64>,
    /// What they are messages of.
    messages: Option<Box<Messages>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Length { left: u64 },
    Chunk(Chunk),
    UntilClose,
}

/// The chunked coding's grammar (RFC 9112, section 7.1); a bare LF ends a line too.
#[derive(Clone, Copy, Debug)]
enum Chunk {
    /// In `chunk-size`; `None` before its first digit.
    Size(Option<u64>),
    /// After the size's digits: extensions and white space, up to the LF.
    Extension(u64),
    Data(u64),
    /// The line end after the data.
    DataEnd,
    DataEndLf,
    /// At the start of a trailer line, or of the empty line that ends the message.
    Trailer,
    TrailerLine,
    TrailerLf,
}

/// What some octets did to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All octets belong to the body, and more may follow.
    More,
    /// The message ends after this many of the octets.
    Done(usize),
    /// The chunked coding is broken here.
    Invalid,
}

impl Body {
    /// `None` when there is nothing to read: no content, or no known way to find its end. `coding` is that of a call.
    pub(super) fn new(framing: Framing, coding: Option<Coding>) -> Option<Self> {
        let state = match framing {
            Framing::Length(0) | Framing::Unknown => return None,
            Framing::Length(left) => State::Length { left },
            Framing::Chunked => State::Chunk(Chunk::Size(None)),
            Framing::UntilClose => State::UntilClose,
        };
        let messages = coding.map(Messages::new).map(Box::new);
        Some(Self { state, content: Content { octets: Some(0), messages } })
    }

    /// Octets of content read so far, without chunk framing; `None` when some went by uncounted.
    pub(super) fn content(&self) -> Option<u64> {
        self.content.octets
    }

    /// The messages of a call, until now.
    pub(super) fn messages(&self) -> Option<&Messages> {
        self.content.messages.as_deref()
    }

    pub(super) fn take_messages(&mut self) -> Option<Box<Messages>> {
        self.content.messages.take()
    }

    pub(super) fn is_chunked(&self) -> bool {
        matches!(self.state, State::Chunk(_))
    }

    /// Whether the sender's close is this body's proper end.
    pub(super) fn ends_by_close(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// How many octets from here on are certain to be content that tells nothing.
    pub(super) fn certain(&self) -> u64 {
        let content = match self.state {
            State::Length { left } | State::Chunk(Chunk::Data(left)) => left,
            State::Chunk(_) | State::UntilClose => 0,
        };
        self.messages().map_or(content, |messages| messages.left().min(content))
    }

    /// Reads on.
    pub(super) fn advance(&mut self, octets: &[u8]) -> Progress {
        match &mut self.state {
            State::UntilClose => {
                self.content.seen(octets);
                Progress::More
            }
            State::Length { left } => {
                let take = (octets.len() as u64).min(*left);
                *left -= take;
                self.content.seen(octets.get(..take as usize).unwrap_or_default());
                // `take` is at most `octets.len()`, so the cast loses nothing.
                if *left == 0 { Progress::Done(take as usize) } else { Progress::More }
            }
            State::Chunk(chunk) => chunk.advance(octets, &mut self.content),
        }
    }

    /// Passes over at most `octets` unseen octets as far as they are content for certain; says how many, and whether
    /// the message ended with the last of them.
    pub(super) fn skip(&mut self, octets: u64) -> (u64, bool) {
        match &mut self.state {
            State::UntilClose => {
                if octets == super::UNKNOWN {
                    self.content = Content { octets: None, messages: None };
                } else {
                    self.content.unseen(octets);
                }
                (octets, false)
            }
            // An unknown number may end anywhere, so it cannot be passed over.
            _ if octets == super::UNKNOWN => (0, false),
            State::Length { left } => {
                let take = octets.min(*left);
                *left -= take;
                self.content.unseen(take);
                (take, *left == 0)
            }
            State::Chunk(Chunk::Data(left)) => {
                let take = octets.min(*left);
                *left -= take;
                let emptied = *left == 0;
                if emptied {
                    self.state = State::Chunk(Chunk::DataEnd);
                }
                self.content.unseen(take);
                (take, false)
            }
            State::Chunk(_) => (0, false),
        }
    }
}

impl Content {
    fn seen(&mut self, octets: &[u8]) {
        self.count(octets.len() as u64);
        if let Some(messages) = &mut self.messages {
            messages.feed(octets);
        }
    }

    fn unseen(&mut self, octets: u64) {
        self.count(octets);
        if let Some(messages) = &mut self.messages {
            messages.pass(octets);
        }
    }

    fn count(&mut self, octets: u64) {
        self.octets = self.octets.map(|content| content.saturating_add(octets));
    }
}

impl Chunk {
    fn advance(&mut self, octets: &[u8], content: &mut Content) -> Progress {
        let mut rest = octets;
        while let Some((&octet, after)) = rest.split_first() {
            match *self {
                Self::Data(left) => {
                    let take = (rest.len() as u64).min(left);
                    content.seen(rest.get(..take as usize).unwrap_or_default());
                    *self = if take == left { Self::DataEnd } else { Self::Data(left - take) };
                    rest = rest.get(take as usize..).unwrap_or_default();
                    continue;
                }
                // Extensions and trailers have no meaning here: on to their line's end.
                Self::Extension(_) | Self::TrailerLine => {
                    let Some(end) = memchr::memchr(b'\n', rest) else { return Progress::More };
                    *self = match *self {
                        Self::Extension(size) => Self::after_size(size),
                        _ => Self::Trailer,
                    };
                    rest = rest.get(end + 1..).unwrap_or_default();
                    continue;
                }
                Self::Size(size) => match ((octet as char).to_digit(16), size) {
                    (Some(digit), size) => {
                        let size = size.unwrap_or(0).checked_mul(16).map(|size| size | u64::from(digit));
                        let Some(size) = size else { return Progress::Invalid };
                        *self = Self::Size(Some(size));
                    }
                    (None, Some(size)) => match octet {
                        b'\n' => *self = Self::after_size(size),
                        b';' | b' ' | b'\t' | b'\r' => *self = Self::Extension(size),
                        _ => return Progress::Invalid,
                    },
                    (None, None) => return Progress::Invalid,
                },
                Self::DataEnd => match octet {
                    b'\r' => *self = Self::DataEndLf,
                    b'\n' => *self = Self::Size(None),
                    _ => return Progress::Invalid,
                },
                Self::DataEndLf => match octet {
                    b'\n' => *self = Self::Size(None),
                    _ => return Progress::Invalid,
                },
                Self::Trailer => match octet {
                    b'\n' => return Progress::Done(octets.len() - after.len()),
                    b'\r' => *self = Self::TrailerLf,
                    _ => *self = Self::TrailerLine,
                },
                Self::TrailerLf => match octet {
                    b'\n' => return Progress::Done(octets.len() - after.len()),
                    _ => return Progress::Invalid,
                },
            }
            rest = after;
        }
        Progress::More
    }

    fn after_size(size: u64) -> Self {
        if size == 0 { Self::Trailer } else { Self::Data(size) }
    }
}
