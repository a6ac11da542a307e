//! A request of HTTP/2 that a client sends: whether a context may be put into its block of header fields, and how.
//!
//! It goes in at the block's end as a literal that is never indexed, so that the tables of header fields stay what they
//! are at both ends, and the frame's length is the only octets that change.

use agent_common::context::field;
use agent_common::counter::Counter;
use agent_common::hpack;
use agent_common::http2::{FrameHead, HEAD, PAYLOAD, flag};
use agent_common::layout::PROCESS_THREADS_TELL;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use aya_ebpf::programs::SkMsgContext;

use super::frames::Walk;
use super::header::{DROP, Inserted, insert, pull, within, write_list, write_value};
use super::serving::Who;
use super::state::State;
use super::{Cause, find_cause, head, selected, span_id, state};
use crate::call;
use crate::maps::{FRAMES, Scratch, claim_scratch, count, give_back, given, scratch_of, slot};
use crate::socket::kernel;

/// A block of header fields in the scratch space, as far as it was read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    /// Where the next field begins, and where the block ends.
    at: u32,
    end: u32,
    /// Not 0: a field has the name of a trace context.
    own: u32,
    reserved: u32,
}

/// The frame at `at` of the message has a whole block of header fields.
#[inline(never)]
pub fn headers(walk: &mut Walk, frame: &FrameHead, at: u32) {
    let Some(frames) = FRAMES.get_ptr_mut(&walk.sk) else { return };
    // SAFETY: a value of the map; the socket is locked.
    let frames = unsafe { &mut *frames };
    let Some(block) = read(walk, frame, at) else { return frames.lose() };
    frames.own |= block.own;
    // What is not on a new stream are trailers.
    if frame.stream & 1 == 0 || frame.stream <= frames.newest {
        return;
    }
    frames.newest = frame.stream;
    if frames.own != 0 {
        return count(Counter::ContextOwn);
    }
    let thread = call::thread();
    let Some(habits) = selected((thread >> 32) as u32) else { return };
    let mut cause = Cause::UNKNOWN;
    // The thread that writes frames may do so for others: it tells nothing.
    find_cause(&mut cause, thread, habits & !PROCESS_THREADS_TELL);
    count(cause.reason);
    if cause.trace.decided == 0 {
        return;
    }
    let end = at + HEAD as u32 + block.end;
    let octets = size(listed(&cause.who).1);
    if !frames.takes(walk.seq) || !has_room(walk.sk, walk.seq, end + octets) {
        return count(Counter::HeaderNotReady);
    }
    if frame.length + octets > PAYLOAD {
        return count(Counter::HeaderNoRoom);
    }
    let put = frames.next_put();
    (put.at, put.len, put.octets) = (walk.seq.wrapping_add(at), HEAD as u32 + frame.length, octets);
    put.flags = cause.trace.flags().into();
    put.context.trace_id = cause.trace.id;
    put.context.sampled = cause.trace.sampled;
    put.context.span_id = span_id();
    (put.context.cause_conn, put.context.cause_seq, put.context.by) = (cause.conn, cause.who.seq, cause.by);
    insert_into(walk, &cause.who, at, end);
}

/// Reads the block of a frame; `None` when its fields do not end where it does.
#[inline(never)]
fn read(walk: &Walk, frame: &FrameHead, at: u32) -> Option<Block> {
    let ctx = SkMsgContext::new(walk.msg);
    let mut len = u64::from(frame.length);
    let from = at + HEAD as u32;
    if !pull(&ctx, from, from + frame.length) {
        return None;
    }
    let data = ctx.data();
    let scratch = claim_scratch()?;
    // What the compiler knows of it the verifier may have forgotten.
    // SAFETY: nothing is done.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) len) };
    let mut block = None;
    if len <= u64::from(PAYLOAD)
        // SAFETY: the payload has room for more than the longest frame; the helper checks the source.
        && unsafe { bpf_probe_read_kernel((&raw mut (*scratch).payload).cast(), len as u32, data as *const _) } == 0
    {
        block = fields(scratch, frame);
    }
    give_back(scratch);
    block
}

#[inline(always)]
fn fields(scratch: *mut Scratch, frame: &FrameHead) -> Option<Block> {
    let (mut begin, mut padding) = (0, 0);
    if frame.flags & flag::PADDED != 0 {
        (begin, padding) = (1, u32::from(head::octet(scratch, 0)));
    }
    if frame.flags & flag::PRIORITY != 0 {
        begin += 5;
    }
    if begin + padding >= frame.length {
        return None;
    }
    let end = frame.length - padding;
    let mut slot = slot(scratch);
    // SAFETY: a value of the map, this program's own; the callback has the signature that bpf_loop asks for, and its context
    // lives longer than the call.
    let block = unsafe {
        (*scratch).block = Block { at: begin, end, own: 0, reserved: 0 };
        bpf_loop(end, field_one as *mut core::ffi::c_void, (&raw mut slot).cast(), 0);
        (*scratch).block
    };
    (block.at == end).then_some(block)
}

/// Reads a field; 1 ends the loop.
#[inline(never)]
extern "C" fn field_one(_index: u32, context: *mut core::ffi::c_void) -> i64 {
    let Some(scratch) = scratch_of(context) else { return 1 };
    // SAFETY: a value of the map, this program's own.
    let block = unsafe { &mut (*scratch).block };
    if block.at >= block.end {
        return 1;
    }
    let Some(field) = hpack::field(|at| head::octet(scratch, at), block.at) else { return 1 };
    if field.name != 0 {
        let name = head::eight(scratch, field.name).swap_bytes();
        block.own |= u32::from(hpack::is_context(field.huffman != 0, field.name_len, name));
    }
    block.at = field.next;
    0
}

/// How many octets a context has, with a `tracestate` of so many; 0 for none.
#[inline(always)]
fn size(state: u32) -> u32 {
    let list = if state > 0 { field::LITERAL_STATE_NAME.len() as u32 + prefix(state).1 + state } else { 0 };
    field::LITERAL as u32 + list
}

/// Puts its context into the request whose frame is at `at` and whose block ends at `end` of the message.
#[inline(never)]
fn insert_into(walk: &mut Walk, cause: &Who, at: u32, end: u32) {
    let Some(frames) = FRAMES.get_ptr_mut(&walk.sk) else { return };
    // SAFETY: a value of the map; the socket is locked.
    let frames = unsafe { &mut *frames };
    let put = frames.next_put();
    let (octets, length) = (put.octets, put.len + put.octets - HEAD as u32);
    let ctx = SkMsgContext::new(walk.msg);
    // Before the block's last octet, which then is moved: kernels before 6.13 put nothing after a message's last one.
    let last = end - 1;
    let inserted = insert(&ctx, last, octets, (at, end + octets), |data, limit| {
        let (list, state) = listed(cause);
        if size(state) != octets {
            // The request that caused this one has ended meanwhile.
            return false;
        }
        let place = data + head::masked::<{ 2 * PAYLOAD as i32 - 1 }>(last.wrapping_sub(at));
        if data + HEAD > limit || place + 1 + field::LITERAL > limit {
            return false;
        }
        let mut moved = place + head::masked::<{ 2 * field::STATE as i32 - 1 }>(octets);
        if within(&mut moved, limit).is_none() {
            return false;
        }
        // SAFETY: within the bounds that were looked at.
        let (begin, line, octet) = unsafe {
            let octet = (moved as *const u8).read_volatile();
            (&mut *(data as *mut [u8; 3]), &mut *((place + 1) as *mut [u8; field::LITERAL]), octet)
        };
        for (i, octet) in field::LITERAL_NAME.iter().enumerate() {
            line[i] = *octet;
        }
        write_value(line, field::LITERAL_NAME.len(), &put.context, put.flags as u8);
        let mut written = true;
        if let Some(list) = list {
            let (value, size) = prefix(state);
            let mut name = [0; field::LITERAL_STATE_NAME.len() + 3];
            name[..12].copy_from_slice(field::LITERAL_STATE_NAME);
            name[12..].copy_from_slice(&value);
            // SAFETY: as above, a value of the map.
            let octets = unsafe { &(*list).octets };
            written = write_list(place + 1 + field::LITERAL, limit, &name, 12 + size, octets, state);
        }
        // SAFETY: within the bounds that were looked at.
        unsafe {
            if !written {
                (moved as *mut u8).write_volatile(octet);
                return false;
            }
            (place as *mut u8).write_volatile(octet);
        }
        *begin = [(length >> 16) as u8, (length >> 8) as u8, length as u8];
        true
    });
    match inserted {
        Inserted::All => {
            count(Counter::HeaderSent);
            frames.note();
        }
        Inserted::Nothing => {}
        Inserted::Stuck => walk.verdict = DROP,
    }
}

/// The `tracestate` of what caused a request, and how long it is.
#[inline(always)]
fn listed(who: &Who) -> (Option<*const State>, u32) {
    let Some(list) = state::of(who).filter(|_| who.is_some()) else { return (None, 0) };
    // SAFETY: a value of the map.
    let len = unsafe { (&raw const (*list).len).read_volatile() };
    if len > 0 && len <= field::STATE as u32 { (Some(list), len) } else { (None, 0) }
}

/// The length of a string of so many octets, and how many octets that has (RFC 7541, section 5.1).
#[inline(always)]
fn prefix(len: u32) -> ([u8; 3], u32) {
    match len {
        0..127 => ([len as u8, 0, 0], 1),
        127..255 => ([127, (len - 127) as u8, 0], 2),
        _ => ([127, (len - 127) as u8 | 128, ((len - 127) >> 7) as u8], 3),
    }
}

/// No smaller packets are expected, but for the last one.
const SEGMENT: u32 = 536;

/// Whether the kernel takes the next `octets` of the message at `seq` in one piece, and does not tell the process that it
/// has sent a part of them: it stops before a packet when too much memory is in use or too much was not sent yet
/// (`sk_stream_memory_free`, include/net/sock.h, and `tcp_stream_memory_free`). An octet takes less than four, since a packet
/// needs some 1,300 beside its own.
#[inline(never)]
fn has_room(sk: u64, seq: u32, octets: u32) -> bool {
    let (Some(queued), Some(limit), Some(segment), Some(sent)) = (
        kernel::<i32>(sk, given!(LAYOUT.sk_wmem_queued)),
        kernel::<i32>(sk, given!(LAYOUT.sk_sndbuf)),
        kernel::<u32>(sk, given!(LAYOUT.tcp_mss_cache)),
        kernel::<u32>(sk, given!(LAYOUT.tcp_snd_nxt)),
    ) else {
        return false;
    };
    let (Some(own), Some(net)) =
        (kernel::<u32>(sk, given!(LAYOUT.tcp_notsent_lowat)), kernel::<u64>(sk, given!(LAYOUT.skc_net)))
    else {
        return false;
    };
    let most = if own != 0 { Some(own) } else { kernel::<u32>(net, given!(LAYOUT.net_notsent_lowat)) };
    let unsent = seq.wrapping_sub(sent).wrapping_add(octets);
    segment >= SEGMENT
        && i64::from(queued) + 4 * i64::from(octets) + 4096 <= i64::from(limit)
        && most.is_some_and(|most| unsent < most)
}
