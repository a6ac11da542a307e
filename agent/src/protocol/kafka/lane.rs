//! Where one direction stands: between messages, in one, or lost.

use super::api::ApiKey;
use super::collect::Collector;
use super::message::Body;
use super::walk::{State as WalkState, Walk};
use super::wire::Reader;
use crate::protocol::piece::Start;

/// A message is no longer than this, without its size: brokers take 100 MiB by default.
pub(super) const LONGEST: u32 = 512 << 20;
/// The longest client id believed where it is not certain that this is Kafka.
const CLIENT_ID: usize = 255;
/// Octets before the client id: size, key, version, correlation id, length.
const CLIENT_ID_AT: usize = 14;

/// The head of a request (`RequestHeader.json`), without its tagged fields.
#[derive(Clone, Debug)]
pub(super) struct RequestHead {
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    pub(super) client_id: Option<Box<str>>,
}

/// What the beginning of a request tells.
#[derive(Debug)]
pub(super) enum Head {
    /// So many octets are needed in all.
    Needs(usize),
    Is(RequestHead),
    /// It is none.
    Invalid,
}

impl RequestHead {
    /// Reads `octets`, the beginning of a message of `size` octets. `strict`: only what Apache Kafka knows.
    pub(super) fn read(octets: &[u8], size: u32, strict: bool) -> Head {
        let mut reader = Reader(octets);
        let (Some(key), Some(version), Some(correlation_id)) = (reader.i16(), reader.i16(), reader.i32()) else {
            return Head::Needs(8);
        };
        let api = ApiKey(key);
        if key < 0 || version < 0 || (strict && api.newest().is_none_or(|newest| version > newest.saturating_add(2))) {
            return Head::Invalid;
        }
        let head = Self { api, version, correlation_id, client_id: None };
        if api.request_header(version) == 0 {
            return Head::Is(head);
        }
        let Some(length) = reader.i16() else { return Head::Needs(10) };
        if length == -1 {
            return Head::Is(head);
        }
        let Ok(length) = usize::try_from(length) else { return Head::Invalid };
        if 10 + length > size as usize || (strict && length > CLIENT_ID) {
            return Head::Invalid;
        }
        let Some(client_id) = reader.octets(length) else { return Head::Needs(10 + length) };
        let text = std::str::from_utf8(client_id).ok();
        if strict && text.is_none_or(|text| text.contains(char::is_control)) {
            return Head::Invalid;
        }
        Head::Is(Self { client_id: text.map(Into::into), ..head })
    }
}

/// Whether `octets` begin as a request does, its size first; `None` when more of them are needed.
pub fn begins_request(octets: &[u8]) -> Option<bool> {
    let (size, rest) = octets.split_first_chunk()?;
    let size = u32::from_be_bytes(*size);
    if !(8..=LONGEST).contains(&size) {
        return Some(false);
    }
    match RequestHead::read(rest, size, true) {
        Head::Needs(needs) if needs > size as usize => Some(false),
        Head::Needs(_) => None,
        Head::Is(_) => Some(true),
        Head::Invalid => Some(false),
    }
}

/// Whether a call in the middle of a connection may begin a request: it has a request's head, or its size alone, as those who
/// read that first take it.
pub fn may_begin_request(octets: &[u8]) -> bool {
    octets.len() >= size_of::<u32>() && begins_request(octets).unwrap_or(octets.first() == Some(&0))
}

/// As many octets tell whether a request begins.
pub(in crate::protocol) const BEGINNING: usize = CLIENT_ID_AT + CLIENT_ID;

/// The body of a message, as far as it is looked at.
#[derive(Debug)]
pub(super) enum Content {
    /// Not looked at.
    Passed(Body),
    Walked(Box<(Walk, Collector)>),
}

impl Content {
    /// How it was read, once the message is over.
    pub(super) fn finish(&mut self) -> Body {
        match self {
            Self::Passed(body) => *body,
            Self::Walked(both) => {
                let (walk, collector) = &mut **both;
                walk.feed(&[], collector);
                let body = match walk.state() {
                    WalkState::Exact => Body::Whole,
                    WalkState::Rest => Body::Unread,
                    WalkState::Torn => Body::Cut,
                    WalkState::Open | WalkState::Invalid => Body::Invalid,
                };
                collector.finish(matches!(body, Body::Whole | Body::Unread));
                body
            }
        }
    }
}

/// What is known of a message once its head was read.
#[derive(Debug)]
pub(super) enum Known {
    Nothing,
    Request(RequestHead),
    /// The response to the request of this number.
    Response(u32),
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) start: Start,
    /// Octets without those of the size.
    pub(super) size: u32,
    pub(super) left: u64,
    /// What was read of the head, until it is all there.
    pub(super) head: Vec<u8>,
    /// The head is being read, or was.
    pub(super) in_head: bool,
    pub(super) known: Known,
    pub(super) content: Content,
}

impl Message {
    pub(super) fn new(start: Start, size: u32) -> Self {
        Self {
            start,
            size,
            left: size.into(),
            head: Vec::new(),
            in_head: true,
            known: Known::Nothing,
            content: Content::Passed(Body::Unread),
        }
    }

    /// Passes over the rest of it.
    pub(super) fn skip(&mut self) {
        self.in_head = false;
        self.content = Content::Passed(Body::Unread);
    }
}

#[derive(Debug)]
pub(super) enum State {
    /// In the size of the next message, or before it.
    Size {
        octets: Vec<u8>,
        start: Option<Start>,
    },
    Message(Box<Message>),
    /// It is not known where the next message begins. What was read of a call that may begin one.
    Lost {
        octets: Vec<u8>,
        start: Option<Start>,
    },
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) state: State,
    /// Where messages begin is certain.
    pub(super) proven: bool,
    /// Responses found one behind the other while it is not.
    pub(super) matches: u32,
}

impl Lane {
    pub(super) fn new(fresh: bool) -> Self {
        Self { state: if fresh { boundary() } else { lost() }, proven: fresh, matches: 0 }
    }

    pub(super) fn lose(&mut self) {
        *self = Self::new(false);
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost { .. })
    }

    /// So many of the octets that follow need not be seen.
    pub(super) fn skippable(&self) -> u64 {
        match &self.state {
            State::Message(message) if !message.in_head => match &message.content {
                Content::Passed(_) => message.left,
                Content::Walked(both) => both.0.skippable(&both.1).min(message.left),
            },
            _ => 0,
        }
    }
}

pub(super) const fn boundary() -> State {
    State::Size { octets: Vec::new(), start: None }
}

pub(super) const fn lost() -> State {
    State::Lost { octets: Vec::new(), start: None }
}
