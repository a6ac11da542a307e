//! Plaintext that a program gave to a session before it was seen which socket that one uses: the first request of a client
//! that moves the records itself. It is kept until the thread writes to a socket, which as a rule it does next.

use agent_common::counter::Counter;
use agent_common::limits::TLS_KEPT;

use crate::judge;
use crate::maps::{TLS_KEPT as KEPT, claim_scratch, count, give_back};
use crate::payload::{self, Payload};
use crate::segment::{self, Plaintext};
use crate::socket::Socket;
use crate::tls::SessionId;

/// What a thread gave to a session. The first octets are kept, and the length of all.
#[repr(C)]
pub struct Kept {
    session: u64,
    at: u64,
    len: u32,
    captured: u32,
    /// Twice as much as is kept: the verifier bounds where a copy begins and how long it is each by itself.
    payload: [u8; 2 * TLS_KEPT],
}

/// Keeps what was given, when it looks like the beginning of a request.
#[inline(never)]
pub fn keep(id: &SessionId, plaintext: &Plaintext) {
    let &Plaintext { thread, at, buffer, slices, len, .. } = plaintext;
    let payload =
        if slices == 0 { Payload::Flat { at: buffer } } else { Payload::Vectors { at: buffer, count: slices } };
    if let Some(kept) = KEPT.get_ptr_mut(&thread) {
        // SAFETY: a value of the map; only this thread changes it.
        let kept = unsafe { &mut *kept };
        if kept.session == id.address && kept.len != 0 {
            if kept.captured == kept.len {
                let room = (TLS_KEPT as u32).saturating_sub(kept.captured);
                let n = if len < room { len } else { room };
                kept.captured += payload::copy_first(payload, (&raw mut kept.payload).cast(), kept.captured, n);
            }
            kept.len = kept.len.saturating_add(len);
            return;
        }
    }
    if !judge::begins_like_request(payload, len) {
        count(Counter::TlsUnattributed);
        return;
    }
    let Some(scratch) = claim_scratch() else { return };
    let n = if len < TLS_KEPT as u32 { len } else { TLS_KEPT as u32 };
    // SAFETY: the scratch space is claimed, and its payload is large enough and aligned for this.
    let kept = unsafe {
        let place = (&raw mut (*scratch).payload).cast::<Kept>();
        let captured = payload::copy_first(payload, (&raw mut (*place).payload).cast(), 0, n);
        (*place).session = id.address;
        (*place).at = at;
        (*place).len = len;
        (*place).captured = captured;
        KEPT.insert(&thread, &*place, 0).is_ok()
    };
    give_back(scratch);
    if !kept {
        count(Counter::TlsUnattributed);
    }
}

/// The thread has written to a socket, which is that of the session that it called.
#[inline(never)]
pub fn release(thread: u64, session: u64, sk: u64, socket: &mut Socket) {
    let Some(kept) = KEPT.get_ptr_mut(&thread) else { return };
    // SAFETY: a value of the map; only this thread changes it.
    let kept = unsafe { &mut *kept };
    if kept.len == 0 {
        return;
    }
    let id = SessionId { tgid: thread >> 32, address: session };
    let is_its = kept.session == session && crate::tls::session::socket(&id).is_some_and(|(known, _)| known == sk);
    if is_its {
        let payload = (&raw const kept.payload) as u64;
        segment::kept(sk, socket, thread, kept.at, payload, kept.captured, kept.len);
    } else {
        count(Counter::TlsUnattributed);
    }
    kept.len = 0;
}
