//! Message heads: start line and header fields to what an exchange keeps of them (RFC 9112, sections 2 to 6).
//!
//! `httparse` reads what is well formed, straight from the captured octets. What it refuses or has no room for goes
//! through a slower reader: folded lines, very many fields, heads of which only the beginning was captured.

use std::mem::MaybeUninit;
use std::sync::Arc;

use super::body::Framing;
use super::start_line::{self, Kind, Outcome, StartLine};
use crate::protocol::grpc::{self, Coding};
use crate::protocol::http::{self, Capture, CapturedHeader, Config, HttpMessage, Method, Version, text};

/// Fields looked at in one head; those after them count for the framing alone.
const FIELDS: usize = 256;
/// Fields most heads stay below; more are left to the slower reader.
const FEW_FIELDS: usize = 64;

/// More octets of `HTTP2-Settings` than clients send, whose settings are six or seven of eight octets each in base64.
const SETTINGS: usize = 256;

/// What a request's head says.
pub(super) struct RequestHead {
    /// Sizes are 0, and what belongs to the response is empty.
    pub(super) message: HttpMessage,
    pub(super) framing: Framing,
    /// The client may go on in another protocol once it is answered: CONNECT, or `Upgrade`.
    pub(super) may_switch: bool,
    /// `HTTP2-Settings` (RFC 7540, section 3.2.1).
    pub(super) settings: Option<Box<[u8]>>,
}

/// What a response's head says.
pub(super) struct ResponseHead {
    pub(super) status: u16,
    /// Taken from the fields alone: the status and the request's method may overrule it.
    pub(super) framing: Framing,
    pub(super) headers: Vec<CapturedHeader>,
    /// With 101: the connection goes on with HTTP/2.
    pub(super) to_http2: bool,
    /// The answer to a call of gRPC-Web, perhaps with its end.
    pub(super) coding: Option<Coding>,
    pub(super) grpc_status: Option<u32>,
}

/// Reads a complete head, from the method to the empty line. `None` when it is no HTTP/1.x request.
pub(super) fn request(head: &[u8], config: &Config) -> Option<RequestHead> {
    let mut space = [const { MaybeUninit::uninit() }; FEW_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    if let Ok(httparse::Status::Complete(used)) = parsed.parse_with_uninit_headers(head, &mut space)
        && used == head.len()
    {
        let (method, target, minor) = (parsed.method?, parsed.path?, parsed.version?);
        // As `StartLine` has it: `PROXY` begins a line of the PROXY protocol, never a request.
        if method.len() > usize::from(start_line::METHOD) || method.as_bytes() == start_line::PROXY {
            return None;
        }
        let mut fields = RequestFields::new(config);
        for field in parsed.headers.iter() {
            fields.add(field.name, field.value);
        }
        return Some(fields.finish(method, target.into(), minor));
    }
    request_by_lines(head, config)
}

/// Reads the beginning of a head as far as its lines are complete; `None` when the request line is not. The framing is
/// unknown: the fields that decide it may be among those not seen.
pub(super) fn request_beginning(head: &[u8], config: &Config) -> Option<RequestHead> {
    let mut read = request_by_lines(complete_lines(head)?, config)?;
    read.framing = Framing::Unknown;
    Some(read)
}

fn request_by_lines(head: &[u8], config: &Config) -> Option<RequestHead> {
    let (line, block) = split_line(head)?;
    if StartLine::new().feed(line) != Outcome::Yes(Kind::Request) {
        return None;
    }
    let line = line.trim_ascii_end();
    let space = memchr::memchr(b' ', line)?;
    let (method, rest) = line.split_at_checked(space)?;
    let space = memchr::memrchr(b' ', rest)?;
    let (target, version) = rest.split_at_checked(space)?;
    let minor = match version {
        b" HTTP/1.0" => 0,
        b" HTTP/1.1" => 1,
        _ => return None,
    };
    let block = unfold(block);
    let mut fields = RequestFields::new(config);
    for_each_field(&block, |name, value| fields.add(name, value));
    Some(fields.finish(std::str::from_utf8(method).ok()?, text(target.trim_ascii()).into(), minor))
}

/// Reads a complete head, from the version to the empty line. `None` when it is no HTTP/1.x response.
pub(super) fn response(head: &[u8], config: &Config) -> Option<ResponseHead> {
    let mut space = [const { MaybeUninit::uninit() }; FEW_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    if let Ok(httparse::Status::Complete(used)) =
        parser.parse_response_with_uninit_headers(&mut parsed, head, &mut space)
        && used == head.len()
    {
        let status = parsed.code.filter(|status| (100..=999).contains(status))?;
        let mut fields = ResponseFields::new(config);
        for field in parsed.headers.iter() {
            fields.add(field.name, field.value);
        }
        return Some(fields.finish(status));
    }
    response_by_lines(head, config)
}

/// As [`request_beginning`], for responses.
pub(super) fn response_beginning(head: &[u8], config: &Config) -> Option<ResponseHead> {
    let mut read = response_by_lines(complete_lines(head)?, config)?;
    read.framing = Framing::Unknown;
    Some(read)
}

fn response_by_lines(head: &[u8], config: &Config) -> Option<ResponseHead> {
    let (line, block) = split_line(head)?;
    if StartLine::new().feed(line) != Outcome::Yes(Kind::Response) {
        return None;
    }
    // `HTTP/1.x NNN`, as the check above has found.
    let status = std::str::from_utf8(line.get(9..12)?).ok()?.parse().ok()?;
    let block = unfold(block);
    let mut fields = ResponseFields::new(config);
    for_each_field(&block, |name, value| fields.add(name, value));
    Some(fields.finish(status))
}

/// An interim response, which the final one follows (RFC 9110, section 15.2); 101 is final for HTTP/1.x.
pub(super) fn is_interim(status: u16) -> bool {
    matches!(status, 100..=199) && status != 101
}

fn complete_lines(head: &[u8]) -> Option<&[u8]> {
    head.get(..=memchr::memrchr(b'\n', head)?)
}

/// The first line with its line end, and what follows.
fn split_line(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    octets.split_at_checked(memchr::memchr(b'\n', octets)? + 1)
}

/// Puts spaces in place of the line ends of folded lines (RFC 9112, section 5.2).
fn unfold(block: &[u8]) -> Vec<u8> {
    let mut block = block.to_vec();
    for end in 0..block.len() {
        let folded = matches!(block.get(end..end + 2), Some([b'\n', b' ' | b'\t']));
        // A fold right after the start line belongs to no field; it stays and is passed over.
        if folded && end > 0 {
            if let Some(octet) = block.get_mut(end) {
                *octet = b' ';
            }
            if let Some(octet @ b'\r') = block.get_mut(end - 1) {
                *octet = b' ';
            }
        }
    }
    block
}

/// Hands each field line to `field`, at most [`FIELDS`] that are no matter of framing. Lines that are no field are
/// passed over.
fn for_each_field<'a>(block: &'a [u8], mut field: impl FnMut(&str, &'a [u8])) {
    let mut rest = block;
    let mut count = 0;
    while let Some((line, after)) = split_line(rest) {
        rest = after;
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let Some((name, value)) = line.split_at_checked(colon) else { continue };
        let Ok(name) = std::str::from_utf8(name.trim_ascii_end()) else { continue };
        count += 1;
        if count <= FIELDS || FramingFields::concerns(name) {
            field(name, value.get(1..).unwrap_or_default().trim_ascii());
        }
    }
}

/// The fields that say where the content ends.
#[derive(Default)]
struct FramingFields {
    length: Option<u64>,
    /// Two lengths that differ, or one that is no number.
    contradiction: bool,
    /// Whether the last transfer coding is `chunked`; `None` without any.
    chunked: Option<bool>,
}

impl FramingFields {
    fn concerns(name: &str) -> bool {
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
    }

    /// One `Content-Length`: a number, or the same number several times (RFC 9112, section 6.3, item 5).
    fn add_length(&mut self, value: &[u8]) {
        for part in value.split(|&octet| octet == b',') {
            let part = part.trim_ascii();
            let number = std::str::from_utf8(part).ok().filter(|part| part.bytes().all(|octet| octet.is_ascii_digit()));
            // The largest number is kept to mean "unknown"; no message is that long.
            match number.and_then(|number| number.parse::<u64>().ok()).filter(|&number| number < super::UNKNOWN) {
                Some(number) if self.length.is_none_or(|length| length == number) => self.length = Some(number),
                _ => self.contradiction = true,
            }
        }
    }

    fn add_coding(&mut self, value: &[u8]) {
        for coding in value.split(|&octet| octet == b',').map(<[u8]>::trim_ascii) {
            // `identity` was a coding until RFC 7230 and means none.
            if !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity") {
                self.chunked = Some(coding.eq_ignore_ascii_case(b"chunked"));
            }
        }
    }

    /// RFC 9112, section 6.3: a transfer coding overrides a length.
    fn finish(&self, kind: Kind) -> Framing {
        match (self.chunked, self.length, kind) {
            (Some(true), ..) => Framing::Chunked,
            (Some(false), _, Kind::Response) => Framing::UntilClose,
            (Some(false), _, Kind::Request) => Framing::Unknown,
            _ if self.contradiction => Framing::Unknown,
            (None, Some(length), _) => Framing::Length(length),
            (None, None, Kind::Request) => Framing::Length(0),
            (None, None, Kind::Response) => Framing::UntilClose,
        }
    }
}

struct RequestFields<'a, 'c> {
    framing: FramingFields,
    upgrade: bool,
    settings: Option<&'a [u8]>,
    common: http::RequestFields<'a, 'c>,
}

impl<'a, 'c> RequestFields<'a, 'c> {
    fn new(config: &'c Config) -> Self {
        Self {
            framing: FramingFields::default(),
            upgrade: false,
            settings: None,
            common: http::RequestFields::new(config),
        }
    }

    fn add(&mut self, name: &str, value: &'a [u8]) {
        match name.len() {
            7 if name.eq_ignore_ascii_case("upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case("content-length") => self.framing.add_length(value),
            14 if name.eq_ignore_ascii_case("http2-settings") => self.settings = Some(value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => self.framing.add_coding(value),
            _ => {}
        }
        self.common.add(name, value);
    }

    fn finish(self, method: &str, target: Arc<str>, minor: u8) -> RequestHead {
        let known = Method::from_token(method);
        let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        let mut message = self.common.finish(known, target, version);
        message.method_original = (known == Method::Other).then(|| method.into());
        RequestHead {
            framing: self.framing.finish(Kind::Request),
            may_switch: self.upgrade || known == Method::Connect,
            settings: self.settings.filter(|value| self.upgrade && value.len() <= SETTINGS).map(Box::from),
            message,
        }
    }
}

struct ResponseFields<'c> {
    framing: FramingFields,
    to_http2: bool,
    coding: Option<Coding>,
    grpc_status: Option<u32>,
    capture: Capture<'c>,
}

impl<'c> ResponseFields<'c> {
    fn new(config: &'c Config) -> Self {
        Self {
            framing: FramingFields::default(),
            to_http2: false,
            coding: None,
            grpc_status: None,
            capture: Capture::new(&config.response_headers),
        }
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        match name.len() {
            7 if name.eq_ignore_ascii_case("upgrade") => self.to_http2 = value.eq_ignore_ascii_case(b"h2c"),
            11 if name.eq_ignore_ascii_case("grpc-status") => self.grpc_status = grpc::status(value),
            12 if name.eq_ignore_ascii_case("content-type") => self.coding = Coding::of(value),
            14 if name.eq_ignore_ascii_case("content-length") => self.framing.add_length(value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => self.framing.add_coding(value),
            _ => {}
        }
        self.capture.add(name, value);
    }

    fn finish(self, status: u16) -> ResponseHead {
        ResponseHead {
            status,
            framing: self.framing.finish(Kind::Response),
            headers: self.capture.values,
            to_http2: self.to_http2 && status == 101,
            coding: self.coding,
            grpc_status: self.grpc_status,
        }
    }
}
