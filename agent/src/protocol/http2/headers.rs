//! Blocks of header fields to what an exchange keeps of them (RFC 9113, section 8).

use std::sync::Arc;

use super::hpack::{Decoder, Field};
use crate::protocol::grpc::{self, Coding};
use crate::protocol::http::{Capture, CapturedHeader, Config, HttpMessage, Method, RequestFields, Version, text};

/// Fields of a block that are looked at, and their octets.
const FIELDS: usize = 256;
const OCTETS: usize = 64 << 10;

/// A block of header fields, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Headers {
    octets: Vec<u8>,
    /// Where names and values end in `octets`, each beginning where the one before it ends.
    ends: Vec<(usize, usize)>,
    /// Some names or values are not known.
    pub(super) partial: bool,
}

/// What a block begins, by its pseudo-header fields (sections 8.3.1 and 8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Response,
    /// It has none that is known: trailers, or fields that are not known.
    Neither,
    /// No HTTP/2 has such a block.
    Improper,
}

/// What a response's block says.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: Option<u16>,
    pub(super) headers: Vec<CapturedHeader>,
    /// It answers a call of gRPC, perhaps with its end.
    pub(super) coding: Option<Coding>,
    pub(super) grpc_status: Option<u32>,
}

impl Headers {
    /// Nothing is known of the block.
    pub(super) fn unknown() -> Self {
        Self { partial: true, ..Self::default() }
    }

    /// Reads a whole block; `None` when it is none, and then the decoder has lost what it knew.
    pub(super) fn read(block: &[u8], decoder: &mut Decoder) -> Option<Self> {
        let mut headers = Self::default();
        decoder.decode(block, |field| headers.add(field)).ok()?;
        Some(headers)
    }

    fn add(&mut self, field: Field<'_>) {
        let Field { name: Some(name), value: Some(value) } = field else {
            self.partial = true;
            return;
        };
        if self.ends.len() >= FIELDS || self.octets.len() + name.len() + value.len() > OCTETS {
            self.partial = true;
            return;
        }
        self.octets.extend_from_slice(name);
        let end = self.octets.len();
        self.octets.extend_from_slice(value);
        self.ends.push((end, self.octets.len()));
    }

    /// Names and values in order; names that are no text are left out.
    fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut from = 0;
        self.ends.iter().filter_map(move |&(middle, to)| {
            let name = self.octets.get(from..middle)?;
            let value = self.octets.get(middle..to)?;
            from = to;
            Some((std::str::from_utf8(name).ok()?, value))
        })
    }

    /// What the block begins, and how many pseudo-header fields say so.
    pub(super) fn kind(&self) -> (Kind, u32) {
        let (mut kind, mut seen, mut pseudo) = (Kind::Neither, 0_u32, true);
        for (name, value) in self.fields() {
            let Some(name) = name.strip_prefix(':') else {
                pseudo = false;
                if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_graphic() && !octet.is_ascii_uppercase())
                {
                    return (Kind::Improper, 0);
                }
                continue;
            };
            let bad = value.is_empty() || value.iter().any(|octet| *octet <= b' ');
            let (of, bit) = match name {
                "method" => (Kind::Request, 1),
                "scheme" => (Kind::Request, 2),
                "path" => (Kind::Request, 4),
                "authority" => (Kind::Request, 8),
                "protocol" => (Kind::Request, 16),
                "status" if status(value).is_some() => (Kind::Response, 32),
                _ => return (Kind::Improper, 0),
            };
            if bad || !pseudo || seen & bit != 0 || (kind != Kind::Neither && kind != of) {
                return (Kind::Improper, 0);
            }
            kind = of;
            seen |= bit;
        }
        (kind, seen.count_ones())
    }

    /// The request that this block begins.
    pub(super) fn request(&self, config: &Config) -> HttpMessage {
        let mut fields = RequestFields::new(config);
        let (mut method, mut path, mut authority, mut https) = (None, None, None, false);
        for (name, value) in self.fields() {
            match name {
                ":method" => method = method.or(Some(text(value))),
                ":path" => path = path.or(Some(value)),
                ":authority" => {
                    authority = authority.or(Some(value));
                    fields.add("host", value);
                }
                ":scheme" => https = value == b"https",
                _ if name.starts_with(':') => {}
                _ => fields.add(name, value),
            }
        }
        let known = method.as_deref().map_or(Method::Unknown, Method::from_token);
        let target = match path {
            None if known == Method::Connect => authority,
            path => path,
        };
        let target: Arc<str> = target.map(text).unwrap_or_default().into();
        let mut message = fields.finish(known, target, Version::Http2);
        message.https = https;
        message.method_original = method.filter(|_| known == Method::Other);
        message
    }

    /// The response that this block begins.
    pub(super) fn response(&self, config: &Config) -> ResponseHead {
        let mut capture = Capture::new(&config.response_headers);
        let mut head = ResponseHead { status: None, headers: Vec::new(), coding: None, grpc_status: None };
        for (name, value) in self.fields() {
            match name {
                ":status" => head.status = status(value),
                "content-type" => head.coding = Coding::of(value),
                "grpc-status" => head.grpc_status = grpc::status(value),
                _ => {}
            }
            if !name.starts_with(':') {
                capture.add(name, value);
            }
        }
        head.headers = capture.values;
        head
    }
}

fn status(value: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(value).ok().filter(|value| value.len() == 3)?;
    digits.parse().ok().filter(|status| (100..=999).contains(status))
}
