//! What a TLS handshake says in the clear: the first octets that each direction of a connection moves, where its
//! beginning was seen. They are copied once and read by user space; nothing else depends on them.

use agent_common::ids::Direction;
use agent_common::limits::HELLO;
use agent_common::record::{SegmentHead, TLS_HEAD, segment as kind};

use crate::call;
use crate::maps::{emit_segment, scratch};
use crate::payload::{Payload, bounded, first_part, flat};
use crate::segment::{HEAD, Transfer, write_head};
use crate::socket::{Socket, hello};

/// The type of the records of a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// A call has moved `len` octets on the socket of a TLS connection. Once the handshake has begun in both directions this is
/// one comparison.
#[inline(always)]
pub fn look(socket: &mut Socket, thread: u64, direction: Direction, payload: Payload, len: u32) {
    if socket.hello == [hello::NOTHING; 2] {
        return;
    }
    match first_part(payload, len.into()) {
        Some((at, available)) => report(socket, thread, direction, at, available),
        None => socket.hello = [hello::NOTHING; 2],
    }
}

/// Reports `available` octets at `at`, if a handshake begins there. A function of its own, as `judge` is.
#[inline(never)]
fn report(socket: &mut Socket, thread: u64, direction: Direction, at: u64, available: u64) {
    let state = match direction {
        Direction::Egress => &mut socket.hello[0],
        Direction::Ingress => &mut socket.hello[1],
    };
    let before = match *state {
        hello::FIRST => {
            let is_handshake = call::user::<u8>(at) == Some(HANDSHAKE);
            *state = if is_handshake && available == TLS_HEAD.into() { hello::BODY } else { hello::NOTHING };
            if !is_handshake || available <= TLS_HEAD.into() {
                return;
            }
            0
        }
        hello::BODY => {
            *state = hello::NOTHING;
            TLS_HEAD
        }
        _ => return,
    };
    let Some(scratch) = scratch() else { return };
    let len = if available < HELLO as u64 { available as u32 } else { HELLO as u32 };
    let Some(captured) = bounded(flat(scratch, at, len, len)) else { return };
    let transfer = Transfer { sk: 0, conn: socket.conn, thread, direction, batched: false };
    let head = SegmentHead { seq: before, len, captured, kind: kind::HELLO, ..SegmentHead::default() };
    write_head(scratch, &transfer, call::now(), head);
    emit_segment(scratch, HEAD as u64 + u64::from(captured));
}
