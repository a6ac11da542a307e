//! What connections and calls begin with.

use agent_common::amqp;
pub(super) use agent_common::amqp::{LONGEST, METHOD};

use super::method::{self, Sender};
use super::properties::BASIC;

pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;
/// What every frame ends with.
pub(super) const FRAME_END: u8 = 0xce;
/// Octets of a frame's head: type, channel, size.
pub(super) const HEAD: usize = 7;
/// Octets of a protocol header: `AMQP` and the version.
pub(super) const GREETING: usize = 8;

const MARK: &[u8] = b"AMQP";

/// Whether a connection begins with the header of AMQP, of any version: [`super::Follower`] says which are not followed. `None` when
/// more octets are needed.
pub fn begins_connection(octets: &[u8]) -> Option<bool> {
    if octets.len() < GREETING {
        let here = octets.len().min(MARK.len());
        return if octets.get(..here) == MARK.get(..here) { None } else { Some(false) };
    }
    Some(octets.starts_with(MARK) && octets.get(MARK.len()).is_some_and(|&octet| octet < b' '))
}

/// The version that a protocol header asks for, unless it is 0-9-1.
pub(super) const fn other_version(greeting: [u8; GREETING]) -> Option<&'static str> {
    let [_, _, _, _, version @ ..] = greeting;
    match version {
        [0, 0, 9, 1] => None,
        // In the clear, and the layers of TLS and SASL below it.
        [0 | 2 | 3, 1, 0, 0] => Some("AMQP 1.0"),
        [1, 1, 0, 10] => Some("AMQP 0-10"),
        [1, 1, 0, 9] | [1, 1, 9, 1] => Some("AMQP 0-9"),
        [1, 1, 8, 0] => Some("AMQP 0-8"),
        _ => Some("AMQP of another version"),
    }
}

/// Whether a call may begin a frame, or be the connection's first.
pub fn may_begin(octets: &[u8]) -> bool {
    may_begin_frame(octets) || begins_connection(octets) == Some(true)
}

/// Whether a call in the middle of a connection may begin a frame: that of a method or of a content header, or a heartbeat alone. A
/// frame's head alone counts, as those who read that first take it.
pub fn may_begin_frame(octets: &[u8]) -> bool {
    begins_frame(octets).unwrap_or(octets.len() >= HEAD)
}

/// The same; `None` when more octets are needed.
pub(super) fn begins_frame(octets: &[u8]) -> Option<bool> {
    let (&kind, _) = octets.split_first()?;
    if !matches!(kind, METHOD | HEADER | HEARTBEAT) {
        return Some(false);
    }
    let (head, rest) = octets.split_first_chunk::<HEAD>()?;
    let &[_, a, b, c, d, e, f] = head;
    let (channel, size) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
    if channel > amqp::CHANNELS || size > LONGEST {
        return Some(false);
    }
    if kind == HEARTBEAT {
        return if channel != 0 || size != 0 { Some(false) } else { rest.first().map(|_| rest == [FRAME_END]) };
    }
    let least = if kind == METHOD { 4 } else { 14 };
    let end = usize::try_from(size).ok().and_then(|size| rest.get(size));
    if size < least || end.is_some_and(|&end| end != FRAME_END) {
        return Some(false);
    }
    let &[a, b, c, d, ref arguments @ ..] = rest else { return None };
    let (class, second) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if kind == METHOD {
        return Some(amqp::is_method(class, second) && (class == 10) == (channel == 0));
    }
    if class != BASIC || second != 0 || channel == 0 {
        return Some(false);
    }
    let (body_size, _) = arguments.split_first_chunk()?;
    let after = usize::try_from(size).ok().and_then(|size| rest.get(size + 1..)).unwrap_or_default();
    Some(u64::from_be_bytes(*body_size) == 0 || is_body(after, channel, u64::from_be_bytes(*body_size)))
}

/// Whether a frame of this channel's content may begin so.
fn is_body(octets: &[u8], channel: u16, most: u64) -> bool {
    let head = [&[BODY][..], &channel.to_be_bytes()].concat();
    let here = octets.len().min(head.len());
    let size = octets.get(head.len()..).and_then(<[u8]>::first_chunk).copied().map(u32::from_be_bytes);
    octets.get(..here) == head.get(..here) && size.is_none_or(|size| size > 0 && u64::from(size) <= most)
}

/// Who has sent the method that a frame's payload begins with.
pub(super) fn sender(payload: &[u8]) -> Option<Sender> {
    let (&[a, b, c, d], _) = payload.split_first_chunk()?;
    method::sender(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}
