//! Where a message's content ends: `Content-Length`, chunked coding, or the connection's close (RFC 9112, section 6).

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
#[derive(Clone, Debug)]
pub(super) struct Body {
    state: State,
    /// Octets of content so far; `None` once an unknown number went by unseen.
    content: Option<u64>,
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
    /// `None` when there is nothing to read: no content, or no known way to find its end.
    pub(super) fn new(framing: Framing) -> Option<Self> {
        let state = match framing {
            Framing::Length(0) | Framing::Unknown => return None,
            Framing::Length(left) => State::Length { left },
            Framing::Chunked => State::Chunk(Chunk::Size(None)),
            Framing::UntilClose => State::UntilClose,
        };
        Some(Self { state, content: Some(0) })
    }

    /// Octets of content read so far, without chunk framing; `None` when some went by uncounted.
    pub(super) fn content(&self) -> Option<u64> {
        self.content
    }

    pub(super) fn is_chunked(&self) -> bool {
        matches!(self.state, State::Chunk(_))
    }

    /// Whether the sender's close is this body's proper end.
    pub(super) fn ends_by_close(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// How many octets from here on are certain to be content.
    pub(super) fn certain(&self) -> u64 {
        match self.state {
            State::Length { left } | State::Chunk(Chunk::Data(left)) => left,
            State::Chunk(_) | State::UntilClose => 0,
        }
    }

    /// Reads on.
    pub(super) fn advance(&mut self, octets: &[u8]) -> Progress {
        match &mut self.state {
            State::UntilClose => {
                count(&mut self.content, octets.len() as u64);
                Progress::More
            }
            State::Length { left } => {
                let take = (octets.len() as u64).min(*left);
                *left -= take;
                count(&mut self.content, take);
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
                    self.content = None;
                } else {
                    count(&mut self.content, octets);
                }
                (octets, false)
            }
            // An unknown number may end anywhere, so it cannot be passed over.
            _ if octets == super::UNKNOWN => (0, false),
            State::Length { left } => {
                let take = octets.min(*left);
                *left -= take;
                count(&mut self.content, take);
                (take, *left == 0)
            }
            State::Chunk(Chunk::Data(left)) => {
                let take = octets.min(*left);
                *left -= take;
                let emptied = *left == 0;
                if emptied {
                    self.state = State::Chunk(Chunk::DataEnd);
                }
                count(&mut self.content, take);
                (take, false)
            }
            State::Chunk(_) => (0, false),
        }
    }
}

fn count(content: &mut Option<u64>, octets: u64) {
    *content = content.map(|content| content.saturating_add(octets));
}

impl Chunk {
    fn advance(&mut self, octets: &[u8], content: &mut Option<u64>) -> Progress {
        let mut rest = octets;
        while let Some((&octet, after)) = rest.split_first() {
            match *self {
                Self::Data(left) => {
                    let take = (rest.len() as u64).min(left);
                    count(content, take);
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
