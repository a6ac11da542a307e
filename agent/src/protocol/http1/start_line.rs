//! Recognises a start line while its octets come in (RFC 9112, sections 3 and 4), so that what is no HTTP/1.x is known
//! as early as it is certain.

/// The longest method accepted: the registered ones have at most 17 octets (`UPDATEREDIRECTREF`).
pub(super) const METHOD: u8 = 32;
/// The longest PROXY protocol version 1 line, its CRLF included (section 2.1 of that protocol).
const PROXY_LINE: u8 = 107;
const VERSION: &[u8] = b"HTTP/1.";
/// What such a line begins with.
pub(super) const PROXY: &[u8] = b"PROXY";

/// Which kind of message a start line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Response,
}

/// What the octets fed so far can still become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The beginning of a start line; the kind when it can be only one.
    Maybe(Option<Kind>),
    /// A start line. A response's reason phrase may still be to come.
    Yes(Kind),
    /// A PROXY protocol line, which ended after this many of the octets last fed.
    Proxy(usize),
    /// No start line.
    No,
}

/// Reads a start line octet by octet, in pieces of any size.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartLine(State);

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many octets of `HTTP/1.` at the line's beginning.
    StatusVersion(u8),
    StatusMinor,
    StatusSpace,
    StatusDigits(u8),
    /// So many octets of a method; whether they are those of `PROXY`.
    Method(u8, bool),
    /// In the request target; whether it has an octet yet.
    Target(bool),
    RequestVersion(u8),
    RequestMinor,
    RequestEnd,
    ProxyLine(u8),
    Accepted(Kind),
    Refused,
}

impl StartLine {
    pub(super) const fn new() -> Self {
        Self(State::StatusVersion(0))
    }

    /// Reads on. Once `Yes` or `No` was said, it stays so whatever follows.
    pub(super) fn feed(&mut self, octets: &[u8]) -> Outcome {
        for (index, &octet) in octets.iter().enumerate() {
            match self.0 {
                State::Accepted(_) | State::Refused => break,
                State::ProxyLine(_) if octet == b'\n' => {
                    *self = Self::new();
                    return Outcome::Proxy(index + 1);
                }
                state => self.0 = state.next(octet),
            }
        }
        match self.0 {
            State::Accepted(kind) => Outcome::Yes(kind),
            State::Refused => Outcome::No,
            State::StatusVersion(matched) if matched < 5 => Outcome::Maybe(None),
            State::StatusVersion(_) | State::StatusMinor | State::StatusSpace | State::StatusDigits(_) => {
                Outcome::Maybe(Some(Kind::Response))
            }
            _ => Outcome::Maybe(Some(Kind::Request)),
        }
    }
}

impl State {
    fn next(self, octet: u8) -> Self {
        let matches = |matched: u8| VERSION.get(usize::from(matched)) == Some(&octet);
        match self {
            Self::StatusVersion(matched) if matches(matched) => {
                if usize::from(matched) + 1 == VERSION.len() {
                    Self::StatusMinor
                } else {
                    Self::StatusVersion(matched + 1)
                }
            }
            // `HTT`, `HTTPS`, … may be a method after all, until the slash.
            Self::StatusVersion(matched @ ..5) => Self::Method(matched, matched == 0).next(octet),
            Self::StatusMinor if matches!(octet, b'0' | b'1') => Self::StatusSpace,
            Self::StatusSpace if octet == b' ' => Self::StatusDigits(0),
            Self::StatusDigits(0) if matches!(octet, b'1'..=b'9') => Self::StatusDigits(1),
            Self::StatusDigits(digits @ 1..3) if octet.is_ascii_digit() => Self::StatusDigits(digits + 1),
            Self::StatusDigits(3) if matches!(octet, b' ' | b'\r' | b'\n') => Self::Accepted(Kind::Response),
            // `PROXY` and the space after it.
            Self::Method(5, true) if octet == b' ' => Self::ProxyLine(6),
            Self::Method(1.., _) if octet == b' ' => Self::Target(false),
            Self::Method(length @ ..METHOD, proxy) if is_token(octet) => {
                let proxy = proxy && PROXY.get(usize::from(length)) == Some(&octet);
                Self::Method(length + 1, proxy)
            }
            Self::Target(true) if octet == b' ' => Self::RequestVersion(0),
            Self::Target(_) if octet > b' ' && octet != 0x7f => Self::Target(true),
            Self::RequestVersion(matched) if matches(matched) => {
                if usize::from(matched) + 1 == VERSION.len() {
                    Self::RequestMinor
                } else {
                    Self::RequestVersion(matched + 1)
                }
            }
            Self::RequestMinor if matches!(octet, b'0' | b'1') => Self::RequestEnd,
            Self::RequestEnd if matches!(octet, b'\r' | b'\n') => Self::Accepted(Kind::Request),
            Self::ProxyLine(length @ ..PROXY_LINE) if octet >= b' ' || octet == b'\r' => Self::ProxyLine(length + 1),
            _ => Self::Refused,
        }
    }
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

/// Whether a message begins with these octets, beyond doubt.
pub(in crate::protocol) fn begins_message(octets: &[u8]) -> bool {
    matches!(StartLine::new().feed(octets), Outcome::Yes(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(octets: &[u8], expected: Outcome) {
        assert_eq!(StartLine::new().feed(octets), expected, "{:?}", octets.escape_ascii().to_string());
        let mut line = StartLine::new();
        let mut last = Outcome::Maybe(None);
        for octet in octets {
            last = line.feed(std::slice::from_ref(octet));
        }
        let expected = if let Outcome::Proxy(_) = expected { Outcome::Proxy(1) } else { expected };
        assert_eq!(last, expected, "octet by octet: {:?}", octets.escape_ascii().to_string());
    }

    #[test]
    fn start_lines() {
        use Kind::{Request, Response};
        check(b"GET / HTTP/1.1\r", Outcome::Yes(Request));
        check(b"GET / HTTP/1.0\n", Outcome::Yes(Request));
        check(b"M-SEARCH * HTTP/1.1\r\n", Outcome::Yes(Request));
        check(b"HTTPGET /x HTTP/1.1\r\n", Outcome::Yes(Request));
        check(b"HTTP/1.1 200 ", Outcome::Yes(Response));
        check(b"HTTP/1.0 404\r\n", Outcome::Yes(Response));
        check(b"HTT", Outcome::Maybe(None));
        check(b"HTTP/", Outcome::Maybe(Some(Response)));
        check(b"GET /a", Outcome::Maybe(Some(Request)));
        check(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 80\r\n", Outcome::Proxy(41));
        check(b"PROXYS / HTTP/1.1\r\n", Outcome::Yes(Request));
    }

    #[test]
    fn other_protocols() {
        for octets in [
            &b"\x16\x03\x01\x02\x00"[..],
            b"*1\r\n$4\r\nPING\r\n",
            b"get key\r\n",
            b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
            b"220 mail.example ESMTP\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"HTTP/2 200\r\n",
            b"HTTP/1.1 99 ",
            b"HTTP/1.1 2000 ",
            b"INVITE sip:a@b SIP/2.0\r\n",
            b"GET /only\r\n",
            b" GET / HTTP/1.1\r\n",
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ / HTTP/1.1\r\n",
        ] {
            check(octets, Outcome::No);
        }
    }
}
