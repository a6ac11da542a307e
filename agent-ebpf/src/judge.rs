//! Whether a socket is followed: what its first octets say.

use agent_common::amqp;
use agent_common::counter::Counter;
use agent_common::http2::{self, FrameHead};
use agent_common::ids::Direction;
use agent_common::kafka;

use crate::call;
use crate::lifecycle;
use crate::maps::{count, given};
use crate::payload::{Payload, first_part};
use crate::socket::{Socket, hello, verdict};

const HEAD_OF_FRAME: u64 = http2::HEAD as u64;
const HEAD_OF_REQUEST: u64 = kafka::HEAD as u64;
const SIZE_OF_REQUEST: u64 = kafka::SIZE as u64;

/// The transfer that made a socket interesting.
#[derive(Clone, Copy)]
pub struct First {
    pub direction: Direction,
    /// Octets that the call moved, from this transfer on; also those that were put into them.
    pub len: u32,
}

/// Looks at a socket's first octets. Whether it is taken; a refusal is remembered.
#[inline(always)]
pub fn decide(sk: u64, socket: &mut Socket, payload: Payload, len: u32, first: &First) -> bool {
    let Some((at, available)) = first_part(payload, len.into()) else { return false };
    judge(socket, at, available) && lifecycle::take(sk, socket, first)
}

/// The same for the first octets of a transfer where they lie, of which there are `available`; whether it is to be taken. A function of
/// its own: the compiler would leave arguments undefined for a payload that is not in user memory, which the verifier refuses. It does not
/// take the socket itself, which would be one frame too many behind `tls_return`.
#[inline(never)]
fn judge(socket: &mut Socket, at: u64, available: u64) -> bool {
    let mut octets = [0_u8; 4];
    let read = match available {
        0 => return false,
        1 => call::user::<[u8; 1]>(at).map(|[a]| octets[0] = a),
        2 => call::user::<[u8; 2]>(at).map(|[a, b]| octets = [a, b, 0, 0]),
        3 => call::user::<[u8; 3]>(at).map(|[a, b, c]| octets = [a, b, c, 0]),
        _ => call::user::<[u8; 4]>(at).map(|four| octets = four),
    };
    if read.is_none() {
        return false;
    }
    let hooked = given!(SETUP.tls) != 0;
    // Without hooks the kernel may still be given the keys.
    let follows = hooked || given!(LAYOUT.icsk_ulp_ops) != 0;
    if follows && socket.tls == 0 && is_tls_record(octets) && available >= 3 {
        // What the handshake says in the clear stands at the beginning, if anywhere.
        socket.hello = [if hooked && socket.fresh != 0 { hello::FIRST } else { hello::NOTHING }; 2];
        // Whether its plaintext is seen from its beginning on is known when a library's handshake is seen, or the kernel has the keys.
        socket.begins_tls();
        return false;
    }
    let message = octets[0] <= amqp::METHOD && begins_like_message(at, available, socket.fresh != 0);
    if socket.fresh != 0 {
        // A server of HTTP/2 may write before its client does.
        if message || begins_like_http(octets) {
            return true;
        }
        socket.verdict = verdict::REFUSED;
        count(Counter::SocketsRefused);
        return false;
    }
    // In the middle of a connection only the beginning of a message says anything, and it may come at any time.
    available >= 4 && (message || is_start_line(octets))
}

/// Whether a payload may begin a request, or a connection of HTTP/2.
#[inline(always)]
pub fn begins_like_request(payload: Payload, len: u32) -> bool {
    let Some((at, available)) = first_part(payload, len.into()) else { return false };
    if available < 4 {
        return false;
    }
    let Some(octets) = call::user::<[u8; 4]>(at) else { return false };
    (octets[0] <= amqp::METHOD && begins_like_message(at, available, false)) || begins_like_http(octets)
}

/// Whether the octets at `at`, of which the first is 0 or 1, begin a message of HTTP/2 or Kafka, of which neither has one of 16 MiB, or a
/// method of AMQP, which as a rule is no shorter than the head of a request. A function of its own, so that its frame adds to no chain
/// of calls.
#[inline(never)]
fn begins_like_message(at: u64, available: u64, connection: bool) -> bool {
    if available == SIZE_OF_REQUEST {
        return call::user(at).is_some_and(kafka::is_size);
    }
    let Some(octets) = (available >= HEAD_OF_FRAME).then(|| call::user(at)).flatten() else { return false };
    let frame = FrameHead::parse(octets);
    if connection && frame.begins_connection() || !connection && frame.begins_call() {
        return true;
    }
    let Some(octets) = (available >= HEAD_OF_REQUEST).then(|| call::user(at)).flatten() else { return false };
    let [head @ .., _, _, _]: [u8; kafka::HEAD] = octets;
    kafka::begins_request(octets) || amqp::begins_method(head)
}

/// Whether these are the first octets of a TLS record of a type and a version in use (RFC 8446, section 5.1).
#[inline(always)]
fn is_tls_record(octets: [u8; 4]) -> bool {
    matches!(octets[0], 20..=23) && octets[1] == 3 && octets[2] <= 4
}

/// Whether a connection may begin so: upper-case letters, as all methods in use, `PROXY`, HTTP/2's `PRI` and `AMQP` do, or the
/// empty line that RFC 9112, section 2.2, lets a client send before. User space has the last word.
#[inline(always)]
fn begins_like_http(octets: [u8; 4]) -> bool {
    let letter = |octet: u8| octet.is_ascii_uppercase() || octet == b'-' || octet == 0;
    match octets[0] {
        b'\r' | b'\n' => true,
        first => first.is_ascii_uppercase() && letter(octets[1]) && letter(octets[2]),
    }
}

/// Whether these are the first octets of a start line with a method that is in use (IANA's registry), or of a response.
#[inline(always)]
fn is_start_line(octets: [u8; 4]) -> bool {
    matches!(
        &octets,
        b"GET "
            | b"POST"
            | b"HTTP"
            | b"PUT "
            | b"HEAD"
            | b"DELE"
            | b"OPTI"
            | b"PATC"
            | b"CONN"
            | b"TRAC"
            | b"QUER"
            | b"PROP"
            | b"MKCO"
            | b"MKCA"
            | b"COPY"
            | b"MOVE"
            | b"LOCK"
            | b"UNLO"
            | b"REPO"
            | b"SEAR"
            | b"NOTI"
            | b"SUBS"
    )
}

/// Whether these are the first octets of a request.
#[inline(always)]
pub fn is_request_line(octets: [u8; 4]) -> bool {
    octets != *b"HTTP" && is_start_line(octets)
}
