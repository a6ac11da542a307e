//! TLS that the kernel speaks (kTLS): once a socket was given the keys of a direction, calls on it take or give plaintext,
//! and control messages say which calls move something else (Documentation/networking/tls.rst).
//!
//! Where functions of a library show the same plaintext, they go on to be the ones that do, and the calls are left alone. Which of the
//! two shows a direction is decided by what first does once the kernel has its keys, until the end, so nothing is seen twice.

use agent_common::counter::Counter;
use agent_common::ids::Direction;

use crate::call::{self, Call};
use crate::maps::{count, given};
use crate::socket::{Socket, kernel, shown, verdict};

/// Bits of [`Socket::kernel_tls`], one for each direction, in the order of [`Socket::shown`].
const SENDS: u8 = 1;
const RECEIVES: u8 = 2;
const BOTH: u8 = SENDS | RECEIVES;
/// With one of these alone: that was counted.
const HALF_COUNTED: u8 = 4;

/// `TLS_1_2_VERSION` (include/uapi/linux/tls.h).
const TLS_1_2: u16 = 0x303;

/// What the kernel calls the protocol on top of TCP (`tcp_tls_ulp_ops`, net/tls/tls_main.c).
const NAME: [u8; 4] = *b"tls\0";

/// `user_msghdr`: `msg_control` and `msg_controllen` (include/linux/socket.h).
const MSGHDR_CONTROL: u64 = 32;
/// `struct cmsghdr`, of 16 octets before the data, and how it is aligned.
const CMSG_HEAD: u64 = 16;
const CMSG_ALIGN: u64 = 8;
/// So many control messages are looked at.
const CMSGS: u32 = 4;
/// The level of control messages about records, and the two that name a record's type (include/uapi/linux/tls.h).
const SOL_TLS: u32 = 282;
const SET_RECORD_TYPE: u32 = 1;
const GET_RECORD_TYPE: u32 = 2;
/// The type of the records that carry the application's data (RFC 8446, section 5.1).
const APPLICATION_DATA: u8 = 23;

#[inline(always)]
fn bit(direction: Direction) -> u8 {
    match direction {
        Direction::Egress => SENDS,
        Direction::Ingress => RECEIVES,
    }
}

#[inline(always)]
fn shows(socket: &Socket, direction: Direction) -> u8 {
    match direction {
        Direction::Egress => socket.shown[0],
        Direction::Ingress => socket.shown[1],
    }
}

/// Whether something is on top of TCP on a socket; it may be TLS.
#[inline(always)]
fn upper(sk: u64) -> Option<u64> {
    let at = given!(LAYOUT.icsk_ulp_ops);
    if at == 0 {
        return None;
    }
    kernel(sk, at).filter(|&ops: &u64| ops != 0)
}

/// The `tls_context` of a socket.
#[inline(always)]
fn context(sk: u64) -> Option<u64> {
    kernel(sk, given!(LAYOUT.icsk_ulp_data)).filter(|&context: &u64| context != 0)
}

/// Whether the kernel speaks TLS on a socket, in either direction.
#[inline(always)]
pub fn is_on(sk: u64) -> bool {
    upper(sk).is_some_and(|ops| directions(sk, ops) != 0)
}

/// The directions that the kernel encrypts: [`SENDS`], [`RECEIVES`].
#[inline(never)]
fn directions(sk: u64, ops: u64) -> u8 {
    if kernel(ops, given!(LAYOUT.ulp_name)) != Some(NAME) {
        return 0;
    }
    let Some(context) = context(sk) else { return 0 };
    let is_set = |offset| kernel::<u64>(context, offset).is_some_and(|keys| keys != 0);
    let sends = if is_set(given!(LAYOUT.tls_tx)) { SENDS } else { 0 };
    sends | if is_set(given!(LAYOUT.tls_rx)) { RECEIVES } else { 0 }
}

/// Whether the kernel encrypts or decrypts what calls move in a direction. What it was told once it does until the end.
#[inline(always)]
pub fn has_keys(sk: u64, socket: &mut Socket, direction: Direction) -> bool {
    if socket.kernel_tls & BOTH != BOTH
        && let Some(ops) = upper(sk)
    {
        socket.kernel_tls |= directions(sk, ops);
    }
    socket.kernel_tls & bit(direction) != 0
}

/// Whether the bits hold that of a direction, by its index.
#[inline(always)]
pub fn has_side(bits: u8, side: usize) -> bool {
    bits >> side & 1 != 0
}

/// Looks whether the kernel speaks TLS on a socket of which nothing is known yet: the connection is then older than the agent,
/// or its keys were agreed upon elsewhere.
#[inline(always)]
pub fn look(sk: u64, socket: &mut Socket) {
    if is_on(sk) {
        socket.begins_tls();
    }
}

/// A call has moved `len` octets in a direction that the kernel has the keys of, `nested`: within a function of a library. Whether
/// they are to be reported as plaintext; then they are counted. A function of its own, so that its frame adds to no chain of calls.
#[inline(never)]
pub fn moved(sk: u64, socket: &mut Socket, direction: Direction, len: u32, nested: bool) -> bool {
    match shows(socket, direction) {
        shown::BY_FUNCTIONS => return false,
        // The function will show it when it returns.
        shown::BY_NOBODY if nested => return false,
        _ => {}
    }
    if !is_data() {
        return false;
    }
    let (other, shown) = match direction {
        Direction::Egress => (Direction::Ingress, socket.plain[1]),
        Direction::Ingress => (Direction::Egress, socket.plain[0]),
    };
    if socket.kernel_tls & bit(other) == 0 && shown == 0 {
        // Requests without responses, or the other way round.
        if socket.kernel_tls & HALF_COUNTED == 0 {
            socket.kernel_tls |= HALF_COUNTED;
            count(Counter::KernelTlsHalf);
        }
        socket.whole = 0;
        return false;
    }
    if socket.whole != 0 && socket.verdict == verdict::UNDECIDED && socket.plain == [0; 2] {
        socket.fresh = is_first(sk, direction).into();
    }
    socket.whole = 0;
    match direction {
        Direction::Egress => {
            socket.shown[0] = shown::BY_CALLS;
            socket.plain[0] = socket.plain[0].wrapping_add(len);
        }
        Direction::Ingress => {
            socket.shown[1] = shown::BY_CALLS;
            socket.plain[1] = socket.plain[1].wrapping_add(len);
        }
    }
    true
}

/// Whether the first plaintext that is seen to be moved is the first that there was. A library may have read records of data
/// together with the last ones of the handshake, before it gave the keys to the kernel: then it decrypts those itself, and the kernel
/// begins with a higher number. Before data comes `Finished` with TLS 1.2, nothing for a server with TLS 1.3.
fn is_first(sk: u64, direction: Direction) -> bool {
    let Some(context) = context(sk) else { return false };
    let at = given!(LAYOUT.tls_rx_number);
    let number = match given!(LAYOUT.tls_number_is_far) {
        0 => kernel::<u64>(context, at),
        _ => kernel(context, at).and_then(|at| kernel(at, 0)),
    };
    let (Some(number), Some(version)) = (number, kernel::<u16>(context, given!(LAYOUT.tls_version))) else {
        return false;
    };
    u64::from_be(number) <= u64::from(version == TLS_1_2) + u64::from(direction == Direction::Ingress)
}

/// Whether what the call in progress moves is the application's data, and not an alert or a message of a handshake. Those come
/// and go with a control message that tells their type; without one, only data does.
#[inline(always)]
fn is_data() -> bool {
    let call = Call::current();
    if !call.is_message() {
        return true;
    }
    let Some([mut at, size]) = call::user::<[u64; 2]>(call.arg1().wrapping_add(MSGHDR_CONTROL)) else {
        count(Counter::PayloadFault);
        return true;
    };
    let mut left = size;
    for _ in 0..CMSGS {
        if left <= CMSG_HEAD {
            return true;
        }
        let Some([len, what]) = call::user::<[u64; 2]>(at) else { return true };
        let (level, kind) = (what as u32, (what >> 32) as u32);
        if level == SOL_TLS && matches!(kind, SET_RECORD_TYPE | GET_RECORD_TYPE) {
            return call::user::<u8>(at.wrapping_add(CMSG_HEAD)) == Some(APPLICATION_DATA);
        }
        let len = len.wrapping_add(CMSG_ALIGN - 1) & !(CMSG_ALIGN - 1);
        if len < CMSG_HEAD || len > left {
            return true;
        }
        (at, left) = (at.wrapping_add(len), left - len);
    }
    true
}

/// Calls have moved `len` octets of several messages, which are not looked at with TLS: what is plaintext among them leaves a gap.
#[inline(never)]
pub fn passed(sk: u64, socket: &mut Socket, direction: Direction, len: u32) {
    if has_keys(sk, socket, direction) && shows(socket, direction) != shown::BY_FUNCTIONS {
        match direction {
            Direction::Egress => socket.plain[0] = socket.plain[0].wrapping_add(len),
            Direction::Ingress => socket.plain[1] = socket.plain[1].wrapping_add(len),
        }
    }
}
