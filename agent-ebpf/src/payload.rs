//! A call's payload where it lies in the memory of a process, and how it is copied from there.

use agent_common::counter::Counter;
use agent_common::limits::{CAPTURE, IOVECS, SCANNED, TAIL, TLS_KEPT};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};

use crate::call;
use crate::maps::{Scratch, count, scratch_of, slot};

/// Where a call's payload lies in user memory.
#[derive(Clone, Copy)]
pub enum Payload {
    /// One buffer.
    Flat { at: u64 },
    /// `count` of `struct iovec`.
    Vectors { at: u64, count: u64 },
    /// Not in user memory (`sendfile`, `splice`), or thrown away.
    Unseen,
}

/// Where a payload of `len` octets begins, and how many of them are there in one piece.
#[inline(always)]
pub fn first_part(payload: Payload, len: u64) -> Option<(u64, u64)> {
    match payload {
        Payload::Flat { at } => Some((at, len)),
        Payload::Vectors { at, .. } => {
            let [base, size] = call::user::<[u64; 2]>(at)?;
            Some((base, if size < len { size } else { len }))
        }
        Payload::Unseen => None,
    }
}

/// The first four octets that a call is to send; `len` is that of a single buffer.
#[inline(always)]
pub fn first_octets(payload: Payload, len: u64) -> Option<[u8; 4]> {
    let (at, available) = match payload {
        Payload::Flat { at } => (at, len),
        Payload::Vectors { at, .. } => {
            let [base, size] = call::user::<[u64; 2]>(at)?;
            (base, size)
        }
        Payload::Unseen => return None,
    };
    if available < 4 {
        return None;
    }
    call::user(at)
}

/// Copies the first octets that a call is to send into the scratch space, as many as are looked at; how many.
#[inline(always)]
pub fn peek(scratch: *mut Scratch, payload: Payload, len: u64) -> u32 {
    match payload {
        Payload::Flat { at } => {
            let n = if len < u64::from(SCANNED) { len } else { u64::from(SCANNED) };
            if copy(scratch, 0, at, n) { n as u32 } else { 0 }
        }
        Payload::Vectors { at, count } => gather(scratch, at, count, SCANNED, SCANNED) as u32 & 0x1_ffff,
        Payload::Unseen => 0,
    }
}

/// Copies up to `n` octets of a payload's first part to `to`, from `offset` there on, which has room for twice [`TLS_KEPT`]; how
/// many.
#[inline(always)]
pub fn copy_first(payload: Payload, to: *mut u8, offset: u32, n: u32) -> u32 {
    let Some((at, available)) = first_part(payload, n.into()) else { return 0 };
    let n = if available < u64::from(n) { available } else { u64::from(n) };
    let (Some(n), Some(offset)) = (bounded(n), bounded(offset.into())) else { return 0 };
    // SAFETY: both are at most `TLS_KEPT`, and the caller gives room for twice that; the helper checks the source.
    if unsafe { bpf_probe_read_user(to.add(offset as usize).cast(), n, at as *const core::ffi::c_void) } == 0 {
        n
    } else {
        0
    }
}

/// So many octets as are kept at most, or `None`. What the compiler knows of the number it would not check again, and the
/// verifier may have forgotten it.
#[inline(always)]
pub fn bounded(mut n: u64) -> Option<u32> {
    // SAFETY: nothing is done.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) n) };
    (n <= TLS_KEPT as u64).then_some(n as u32)
}

/// Copies `n` octets of user memory to `offset` in the scratch payload; whether that worked.
#[inline(always)]
fn copy(scratch: *mut Scratch, mut offset: u64, at: u64, mut n: u64) -> bool {
    // What the compiler knows of both it would not check again, and the verifier may have forgotten it.
    // SAFETY: nothing is done.
    unsafe { core::arch::asm!("{0} = {0}", "{1} = {1}", inout(reg) n, inout(reg) offset) };
    if n > CAPTURE as u64 || offset > CAPTURE as u64 {
        return false;
    }
    // SAFETY: `offset` and `n` are at most `CAPTURE` each, and the payload has twice that.
    unsafe {
        let to = (&raw mut (*scratch).payload).cast::<u8>().add(offset as usize);
        bpf_probe_read_user(to.cast(), n as u32, at as *const core::ffi::c_void) == 0
    }
}

/// Copies one buffer: the first `wanted` of its `len` octets and, where these are not all, its tail. Gives both
/// lengths: captured in the low half, tail in the high one.
#[inline(always)]
pub fn flat(scratch: *mut Scratch, at: u64, len: u32, wanted: u32) -> u64 {
    let wanted = u64::from(wanted);
    if wanted == 0 || wanted > CAPTURE as u64 || !copy(scratch, 0, at, wanted) {
        count(Counter::PayloadFault);
        return 0;
    }
    if u64::from(len) < wanted + TAIL as u64 {
        return wanted;
    }
    if copy(scratch, wanted, at.wrapping_add(u64::from(len)) - TAIL as u64, TAIL as u64) {
        return wanted | (TAIL as u64) << 32;
    }
    wanted
}

/// How far the copying of a vector of buffers has come. It lives in the scratch space, since the verifier follows each
/// value on the stack through every turn of the loop, and does not come to an end then.
#[repr(C)]
pub struct Gather {
    at: u64,
    len: u64,
    wanted: u64,
    /// Octets of the buffers looked at so far.
    passed: u64,
    captured: u64,
    tail: u64,
}

/// The same for a vector of buffers.
#[inline(always)]
pub fn vectors(scratch: *mut Scratch, at: u64, number: u64, len: u32, wanted: u32) -> u64 {
    let packed = gather(scratch, at, number, len, wanted);
    // SAFETY: a value of the map, this CPU's own.
    let gather = unsafe { &(*scratch).gather };
    if gather.passed < gather.len {
        count(Counter::VectorsCut);
    }
    packed
}

/// The same, without counting what is not there.
#[inline(always)]
fn gather(scratch: *mut Scratch, at: u64, number: u64, len: u32, wanted: u32) -> u64 {
    // SAFETY: a value of the map, this CPU's own.
    let gather = unsafe { &mut (*scratch).gather };
    *gather = Gather { at, len: len.into(), wanted: wanted.into(), passed: 0, captured: 0, tail: 0 };
    let number = if number < u64::from(IOVECS) { number as u32 } else { IOVECS };
    // A loop that the verifier goes through once: unrolled, it has more states than it will look at.
    let mut slot = slot(scratch);
    // SAFETY: the callback has the signature that bpf_loop asks for, and its context lives longer than the call.
    unsafe { bpf_loop(number, gather_one as *mut core::ffi::c_void, (&raw mut slot).cast(), 0) };
    gather.captured | gather.tail << 32
}

/// One buffer of the vector; 1 ends the loop.
#[inline(never)]
extern "C" fn gather_one(index: u32, context: *mut core::ffi::c_void) -> i64 {
    let Some(scratch) = scratch_of(context) else { return 1 };
    // SAFETY: a value of the map, this CPU's own.
    let gather = unsafe { &mut (*scratch).gather };
    let Some([base, size]) = call::user::<[u64; 2]>(gather.at.wrapping_add(u64::from(index) * 16)) else {
        count(Counter::PayloadFault);
        return 1;
    };
    let left = gather.len - gather.passed;
    let size = if size < left { size } else { left };
    // Captured octets are always the first ones: nothing more is taken after a buffer that was cut.
    let captured = gather.captured;
    if captured == gather.passed && captured < gather.wanted {
        let room = gather.wanted - captured;
        let n = if size < room { size } else { room };
        if n > 0 && n <= CAPTURE as u64 && captured <= CAPTURE as u64 {
            if !copy(scratch, captured, base, n) {
                count(Counter::PayloadFault);
                return 1;
            }
            gather.captured = captured + n;
        }
    }
    gather.passed += size;
    if gather.passed < gather.len {
        return 0;
    }
    let captured = gather.captured;
    let missing = gather.len - captured;
    let enough = size >= TAIL as u64 && missing >= TAIL as u64 && captured <= CAPTURE as u64;
    if enough && copy(scratch, captured, base.wrapping_add(size) - TAIL as u64, TAIL as u64) {
        gather.tail = TAIL as u64;
    }
    1
}
