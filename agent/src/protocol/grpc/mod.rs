//! Calls of gRPC ("gRPC over HTTP2", "gRPC Web", the protocols' descriptions): what a call tells besides its request and
//! response, and the messages in their content.

mod messages;
#[cfg(test)]
mod tests;

pub(super) use self::messages::Messages;

/// What a call tells besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grpc {
    pub coding: Coding,
    /// `grpc-status`: of the trailers, or of a response without any other part; else what the end of the call's stream
    /// stands for. `None` when there was neither.
    pub status: Option<u32>,
    /// How long the client waits, in nanoseconds.
    pub timeout: Option<u64>,
    /// Messages, when all were counted.
    pub requests: Option<u32>,
    pub responses: Option<u32>,
}

/// How messages stand in the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Plain,
    /// gRPC-Web: the trailers stand behind the messages.
    Web,
    /// The same in base64.
    WebText,
}

impl Coding {
    /// That of a `content-type`; the coding of the messages themselves may stand behind it.
    pub(super) fn of(content_type: &[u8]) -> Option<Self> {
        let rest = content_type.strip_prefix(b"application/grpc")?;
        let (coding, rest) = match (rest.strip_prefix(b"-web-text"), rest.strip_prefix(b"-web")) {
            (Some(rest), _) => (Self::WebText, rest),
            (None, Some(rest)) => (Self::Web, rest),
            (None, None) => (Self::Plain, rest),
        };
        rest.first().is_none_or(|next| matches!(next, b'+' | b';' | b' ')).then_some(coding)
    }
}

impl Grpc {
    /// A call of which nothing else is known.
    #[must_use]
    pub const fn new(coding: Coding) -> Self {
        Self { coding, status: None, timeout: None, requests: None, responses: None }
    }

    /// The status of a call that was cancelled after this many nanoseconds. Clients cancel it when their deadline passes.
    pub(super) fn cancelled(&self, after: u64) -> u32 {
        // What they send is rounded up to two digits, and was left some time before it was sent.
        let early = |timeout: u64| (timeout / 100).max((timeout / 10).min(EARLY));
        match self.timeout {
            Some(timeout) if after >= timeout - early(timeout) => DEADLINE_EXCEEDED,
            _ => CANCELLED,
        }
    }
}

/// So long a busy client may take to send the head of a call, in nanoseconds, unless its deadline is nearer.
const EARLY: u64 = 20_000_000;

pub(super) const CANCELLED: u32 = 1;
pub(super) const DEADLINE_EXCEEDED: u32 = 4;
pub(super) const PERMISSION_DENIED: u32 = 7;
pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
pub(super) const INTERNAL: u32 = 13;
pub(super) const UNAVAILABLE: u32 = 14;

/// The value of `grpc-status`.
pub(super) fn status(value: &[u8]) -> Option<u32> {
    decimal(value.trim_ascii())
}

/// The value of `grpc-timeout` in nanoseconds: at most eight digits and a unit.
pub(super) fn timeout(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    let unit: u64 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    let number = decimal(digits).filter(|_| digits.len() <= 8)?;
    Some(u64::from(number).saturating_mul(unit))
}

fn decimal(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|octet| octet.is_ascii_digit()))?.parse().ok()
}
