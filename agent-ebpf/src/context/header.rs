//! Contexts in the requests themselves: a `traceparent` field, and the `tracestate` of what caused the request, before
//! the empty line that ends its head.
//!
//! The kernel shows each message before it is put into packets, in the call that sends it. What is to be put into it was
//! decided at the entry of that call ([`super::sending`]), from the octets that the process gave; a message that is not
//! the one that was looked at is left alone. So is one that the kernel may send in part alone: then what was put into it
//! would be counted as the process' own octets (`tcp_bpf_send_verdict`, net/ipv4/tcp_bpf.c).

use agent_common::context::{Context, field};
use agent_common::counter::Counter;
use agent_common::limits::SCANNED;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_msg_pull_data;
use aya_ebpf::programs::SkMsgContext;

use super::client::Client;
use super::{frames, state};
use crate::judge;
use crate::maps::{CLIENTS, count, given};
use crate::socket::{self, kernel};
use crate::tls;

/// The message is sent on.
pub const PASS: u32 = 1;
pub const DROP: u32 = 0;

/// A message is about to be sent on a socket that may be written to.
#[inline(always)]
pub fn message(ctx: &SkMsgContext) -> u32 {
    let Some(sk) = kernel::<u64>(ctx.as_ptr() as u64, given!(LAYOUT.sk_msg_sk)) else { return PASS };
    let Some(client) = CLIENTS.get_ptr_mut(&sk) else { return PASS };
    // What the kernel is to encrypt is shown here as well.
    if tls::kernel::is_on(sk) {
        return PASS;
    }
    // SAFETY: a value of the map.
    let client = unsafe { &mut *client };
    let Some(seq) = socket::sent(sk) else { return PASS };
    if client.is_http2() {
        return frames::message(ctx, sk, seq);
    }
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
    let end = at + field::PARENT as u32;
    match insert(ctx, at, field::PARENT as u32, (at, end), |data, end| write_parent(data, end, client)) {
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
            match insert(ctx, end, line, (end, end + line), |data, limit| {
                write_list(data, limit, field::STATE_NAME, field::STATE_NAME.len() as u32, &state.octets, len)
                    && write_end(data, limit, line)
            }) {
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
pub fn pull(ctx: &SkMsgContext, start: u32, end: u32) -> bool {
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

pub enum Inserted {
    All,
    /// The message is as it was.
    Nothing,
    /// The message has octets that nobody has written.
    Stuck,
}

/// Makes room for `len` octets at `at` and lets them be written, with a look at the octets from `look.0` to `look.1`; or takes
/// the room back.
#[inline(always)]
pub fn insert(
    ctx: &SkMsgContext,
    at: u32,
    len: u32,
    look: (u32, u32),
    write: impl FnOnce(usize, usize) -> bool,
) -> Inserted {
    if ctx.push_data(at, len, 0).is_err() {
        count(Counter::HeaderNoRoom);
        return Inserted::Nothing;
    }
    if pull(ctx, look.0, look.1) && write(ctx.data(), ctx.data_end()) {
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
    write_value(line, field::PARENT_NAME.len(), &client.context, client.trace.flags());
    line[68] = b'\r';
    line[69] = b'\n';
    true
}

/// Writes the value of a `traceparent` from `at` on.
#[inline(always)]
pub fn write_value<const N: usize>(line: &mut [u8; N], at: usize, context: &Context, flags: u8) {
    line[at] = b'0';
    line[at + 1] = b'0';
    line[at + 2] = b'-';
    for i in 0..16 {
        hex(line, at + 3 + 2 * i, context.trace_id[i]);
    }
    line[at + 35] = b'-';
    for i in 0..8 {
        hex(line, at + 36 + 2 * i, context.span_id[i]);
    }
    line[at + 52] = b'-';
    hex(line, at + 53, flags);
}

/// Writes an octet as two lower-case digits.
#[inline(always)]
fn hex<const N: usize>(line: &mut [u8; N], at: usize, octet: u8) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' - 10 + value };
    line[at] = digit(octet >> 4);
    line[at + 1] = digit(octet & 15);
}

/// Writes the first `name_len` octets of a name, and `len` octets of a list; whether there was room.
#[inline(always)]
pub fn write_list<const N: usize>(
    data: usize,
    end: usize,
    name: &[u8; N],
    name_len: u32,
    list: &[u8; field::STATE],
    len: u32,
) -> bool {
    let mut to = data;
    let mut put = |octet: u8| {
        let Some(after) = within(&mut to, end) else { return false };
        // SAFETY: the room was looked at.
        unsafe { (to as *mut u8).write_volatile(octet) };
        to = after;
        true
    };
    for (i, octet) in name.iter().enumerate() {
        if (i as u32) < name_len && !put(*octet) {
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
    true
}

/// The address after the octet at `at`, when that is before `end`. The compiler would look whether `at` is below `end`, which
/// tells the verifier nothing, and use another sum than the one that it looked at ("invalid access to packet, r=0").
#[inline(always)]
pub fn within(at: &mut usize, end: usize) -> Option<usize> {
    // SAFETY: nothing is done.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) * at) };
    let mut after = *at + 1;
    // SAFETY: as above.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) after) };
    (after <= end).then_some(after)
}

/// Writes the end of a line of `len` octets; whether there was room.
#[inline(always)]
fn write_end(data: usize, end: usize, len: u32) -> bool {
    let at = data + ((len as usize).wrapping_sub(2) & (2 * field::STATE - 1));
    if at + 2 > end {
        return false;
    }
    // SAFETY: the room was looked at.
    unsafe { (at as *mut [u8; 2]).write_volatile(*b"\r\n") };
    true
}
