//! Contexts in the requests themselves: a `traceparent` field, and the `tracestate` of what caused the request, before
//! the empty line that ends its head.
//!
//! The kernel shows each message before it is put into packets, in the call that sends it. What is to be put into it was
//! decided at the entry of that call ([`super::sending`]), from the octets that the process gave; a message that is not
//! the one that was looked at is left alone. So is one that the kernel may send in part alone: then what was put into it
//! would be counted as the process' own octets (`tcp_bpf_send_verdict`, net/ipv4/tcp_bpf.c).

use agent_common::context::field;
use agent_common::counter::Counter;
use agent_common::limits::SCANNED;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_msg_pull_data;
use aya_ebpf::programs::SkMsgContext;

use super::client::Client;
use super::state;
use crate::judge;
use crate::maps::{CLIENTS, count, given};
use crate::socket::{self, kernel};

/// The message is sent on.
const PASS: u32 = 1;
const DROP: u32 = 0;

/// A message is about to be sent on a socket that may be written to.
#[inline(always)]
pub fn message(ctx: &SkMsgContext) -> u32 {
    let Some(sk) = kernel::<u64>(ctx.as_ptr() as u64, given!(LAYOUT.sk_msg_sk)) else { return PASS };
    let Some(client) = CLIENTS.get_ptr_mut(&sk) else { return PASS };
    // SAFETY: a value of the map.
    let client = unsafe { &mut *client };
    let Some(seq) = socket::sent(sk) else { return PASS };
    if !client.wants_fields(seq) {
        return PASS;
    }
    let acknowledged: Option<u32> = kernel(sk, given!(LAYOUT.tcp_snd_una));
    if acknowledged != Some(seq) || !is_head(ctx, client.head) {
        count(Counter::HeaderNotReady);
        return PASS;
    }
    // Before the empty line.
    let at = client.head - 2;
    match insert(ctx, at, field::PARENT as u32, |data, end| write_parent(data, end, client)) {
        Inserted::All => {}
        Inserted::Nothing => return PASS,
        Inserted::Stuck => return DROP,
    }
    count(Counter::HeaderSent);
    let mut octets = field::PARENT as u32;
    if client.cause.is_some()
        && let Some(state) = state::of(&client.cause)
    {
        // SAFETY: a value of the map; while the request is served nobody writes to it.
        let state = unsafe { &*state };
        let len = state.len;
        if len > 0 && len <= field::STATE as u32 {
            let line = len + field::STATE_NAME.len() as u32 + 2;
            match insert(ctx, at + octets, line, |data, end| write_state(data, end, &state.octets, len)) {
                Inserted::All => octets += line,
                Inserted::Nothing => {}
                Inserted::Stuck => return DROP,
            }
        }
    }
    client.grown(octets);
    PASS
}

/// Makes the octets from `start` to `end` of the message one piece that can be looked at.
#[inline(always)]
fn pull(ctx: &SkMsgContext, start: u32, end: u32) -> bool {
    // SAFETY: the context of this program; the helper checks the bounds.
    unsafe { bpf_msg_pull_data(ctx.msg, start, end, 0) == 0 }
}

/// Whether the message begins with a request and has the end of a head after `len` octets.
#[inline(always)]
fn is_head(ctx: &SkMsgContext, len: u32) -> bool {
    if !(16..=SCANNED).contains(&len) || !pull(ctx, 0, len) {
        return false;
    }
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + 4 > end {
        return false;
    }
    // SAFETY: within the bounds that were looked at.
    if !judge::is_request_line(unsafe { (data as *const [u8; 4]).read() }) {
        return false;
    }
    let last = data + ((len as usize - 4) & (2 * SCANNED as usize - 1));
    if last + 4 > end {
        return false;
    }
    // SAFETY: as above.
    unsafe { (last as *const [u8; 4]).read() == *b"\r\n\r\n" }
}

enum Inserted {
    All,
    /// The message is as it was.
    Nothing,
    /// The message has octets that nobody has written.
    Stuck,
}

/// Makes room for `len` octets at `at` and lets them be written, or takes the room back.
#[inline(always)]
fn insert(ctx: &SkMsgContext, at: u32, len: u32, write: impl FnOnce(usize, usize) -> bool) -> Inserted {
    if ctx.push_data(at, len, 0).is_err() {
        count(Counter::HeaderNoRoom);
        return Inserted::Nothing;
    }
    if pull(ctx, at, at + len) && write(ctx.data(), ctx.data_end()) {
        return Inserted::All;
    }
    count(Counter::HeaderNoRoom);
    if ctx.pop_data(at, len, 0).is_ok() {
        return Inserted::Nothing;
    }
    count(Counter::HeaderStuck);
    Inserted::Stuck
}

/// Writes the `traceparent` line; whether there was room.
#[inline(always)]
fn write_parent(data: usize, end: usize, client: &Client) -> bool {
    if data + field::PARENT > end {
        return false;
    }
    // SAFETY: the room was looked at.
    let line = unsafe { &mut *(data as *mut [u8; field::PARENT]) };
    for (i, octet) in field::PARENT_NAME.iter().enumerate() {
        line[i] = *octet;
    }
    line[13] = b'0';
    line[14] = b'0';
    line[15] = b'-';
    for i in 0..16 {
        hex(line, 16 + 2 * i, client.context.trace_id[i]);
    }
    line[48] = b'-';
    for i in 0..8 {
        hex(line, 49 + 2 * i, client.context.span_id[i]);
    }
    line[65] = b'-';
    hex(line, 66, client.trace.flags());
    line[68] = b'\r';
    line[69] = b'\n';
    true
}

/// Writes an octet as two lower-case digits.
#[inline(always)]
fn hex(line: &mut [u8; field::PARENT], at: usize, octet: u8) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' - 10 + value };
    line[at] = digit(octet >> 4);
    line[at + 1] = digit(octet & 15);
}

/// Writes the `tracestate` line with `len` octets of a list; whether there was room.
#[inline(always)]
fn write_state(data: usize, end: usize, list: &[u8; field::STATE], len: u32) -> bool {
    let mut to = data;
    let mut put = |octet: u8| {
        if to + 1 > end {
            return false;
        }
        // SAFETY: the room was looked at.
        unsafe { (to as *mut u8).write_volatile(octet) };
        to += 1;
        true
    };
    for octet in field::STATE_NAME {
        if !put(*octet) {
            return false;
        }
    }
    let mut i = 0;
    while i < field::STATE {
        if i as u32 >= len {
            break;
        }
        // SAFETY: `i` is below the list's length.
        if !put(unsafe { (&raw const list[i]).read_volatile() }) {
            return false;
        }
        i += 1;
    }
    put(b'\r') && put(b'\n')
}
