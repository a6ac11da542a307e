//! Reads a message's head in the scratch space, as far as propagation has to know it: where it ends, whether it carries
//! a trace context, and how long the message is.
//!
//! Loops are `bpf_loop`s with their state in the scratch space: the verifier goes through each once.

use agent_common::context::field;
use agent_common::limits::{CAPTURE, SCANNED};
use aya_ebpf::helpers::generated::bpf_loop;

use super::client::Extent;
use crate::maps::{Scratch, scratch_of, slot};

/// What was found.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scan {
    /// Octets looked at.
    len: u32,
    /// Where the head ends; 0: not within those octets.
    pub end: u32,
    /// `traceparent` fields, valid or not, and where the value of the last begins.
    pub parents: u32,
    parent_at: u32,
    /// Not 0: there is a context in another format, or a `traceparent` that is read in user space alone.
    pub foreign: u32,
    /// Where the value of `content-length` begins; 0 for none.
    pub length_at: u32,
    /// Not 0: the content comes in chunks, or in another coding.
    pub coded: u32,
    /// Lines looked at.
    lines: u32,
    /// Not 0: the first line is one of HTTP/1.
    pub is_http: u32,
    /// Not 0: the connection may go on with another protocol.
    pub switches: u32,
    /// `tracestate` fields, and where the values of the first ones begin.
    pub states: u32,
    pub state_at: [u32; field::STATES],
    /// Not 0: a digit was none.
    bad: u32,
    /// Trace id, span id and flags of the `traceparent`, as octets.
    pub ids: [u8; 32],
}

/// Whether a head carries a trace context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    Nothing,
    /// A valid `traceparent`: [`Scan::ids`].
    Parent,
    /// Something that only user space can read.
    Foreign,
}

impl Scan {
    /// Where the value of a `tracestate` field begins; `number` counts them, round and round.
    #[inline(always)]
    pub fn state_at_mut(&mut self, number: u32) -> &mut u32 {
        // SAFETY: the index is below the array's length.
        unsafe { &mut *(&raw mut self.state_at).cast::<u32>().add(masked::<{ field::STATES as i32 - 1 }>(number)) }
    }
}

const NEWLINES: u64 = 0x0a0a_0a0a_0a0a_0a0a;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;
const LOWER_CASE: u64 = 0x2020_2020_2020_2020;

/// `version-trace_id-span_id-flags` (W3C Trace Context, section 3.2.2).
const PARENT_LEN: u32 = 55;

/// An index below a bound that the verifier sees. Where the compiler knows the bound from elsewhere it would leave a
/// plain mask out, and the verifier may not know what the compiler does ("unbounded memory access").
#[inline(always)]
pub fn masked<const MASK: i32>(at: u32) -> usize {
    let mut index = u64::from(at);
    // SAFETY: an operation on a register.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) index, const MASK) };
    index as usize
}

/// An octet of the payload.
#[inline(always)]
pub fn octet(scratch: *mut Scratch, at: u32) -> u8 {
    // SAFETY: `scratch` is a value of the map, and the index is below the payload's size.
    unsafe {
        (&raw const (*scratch).payload).cast::<u8>().add(masked::<{ 2 * CAPTURE as i32 - 1 }>(at)).read_volatile()
    }
}

/// Eight octets of the payload, the first in the lowest bits.
#[inline(always)]
pub fn eight(scratch: *mut Scratch, at: u32) -> u64 {
    // SAFETY: the payload has twice the capture size.
    let from = unsafe { (&raw const (*scratch).payload).cast::<u8>().add(masked::<{ CAPTURE as i32 - 1 }>(at)) };
    let mut value = 0_u64;
    for i in 0..8 {
        // SAFETY: as above.
        value |= u64::from(unsafe { from.add(i).read_volatile() }) << (8 * i);
    }
    value
}

/// Looks at the first `len` octets of the payload, from a start line on.
#[inline(never)]
pub fn scan(scratch: *mut Scratch, len: u32) {
    let len = if len < SCANNED { len } else { SCANNED };
    // SAFETY: a value of the map, this CPU's own.
    unsafe {
        (&raw mut (*scratch).scan).write(Scan {
            len,
            end: 0,
            parents: 0,
            parent_at: 0,
            foreign: 0,
            length_at: 0,
            coded: 0,
            lines: 0,
            is_http: 0,
            switches: 0,
            states: 0,
            state_at: [0; field::STATES],
            bad: 0,
            ids: [0; 32],
        });
        let mut slot = slot(scratch);
        // SAFETY: the callback has the signature that bpf_loop asks for, and its context lives longer than the call.
        bpf_loop(len.div_ceil(8), eight_more as *mut core::ffi::c_void, (&raw mut slot).cast(), 0);
    }
}

/// Looks for line ends in eight octets; 1 ends the loop.
#[inline(never)]
extern "C" fn eight_more(index: u32, context: *mut core::ffi::c_void) -> i64 {
    let Some(scratch) = scratch_of(context) else { return 1 };
    let base = masked::<{ CAPTURE as i32 - 8 }>(index.wrapping_mul(8)) as u32;
    // SAFETY: `base` is below the capture size and a multiple of 8, as is the payload's place in the scratch space.
    let word = unsafe {
        (&raw const (*scratch).payload)
            .cast::<u8>()
            .add(masked::<{ CAPTURE as i32 - 8 }>(base))
            .cast::<u64>()
            .read_volatile()
    };
    let differs = word ^ NEWLINES;
    if differs.wrapping_sub(ONES) & !differs & HIGHS == 0 {
        return 0;
    }
    for i in 0..8 {
        if word >> (8 * i) & 0xff == u64::from(b'\n') && line(scratch, base + i + 1) {
            return 1;
        }
    }
    0
}

/// Looks at how a line begins; whether it is the empty one that ends the head.
#[inline(never)]
fn line(scratch: *mut Scratch, at: u32) -> bool {
    // SAFETY: a value of the map, this CPU's own.
    let scan = unsafe { &mut (*scratch).scan };
    if at >= scan.len {
        return true;
    }
    let begins = eight(scratch, at);
    let feed = if begins & 0xff == u64::from(b'\n') { at + 1 } else { at + 2 };
    if begins & 0xff == u64::from(b'\n') || begins & 0xffff == u64::from(u16::from_le_bytes(*b"\r\n")) {
        if feed <= scan.len {
            scan.end = feed;
        }
        return true;
    }
    scan.lines += 1;
    if scan.lines == 1 {
        // ` HTTP/1.x` and the end of the line.
        let version = eight(scratch, at.wrapping_sub(10));
        scan.is_http = u32::from(at >= 16 && version << 8 == u64::from_le_bytes(*b"\0HTTP/1."));
    }
    let lower = begins | LOWER_CASE;
    if lower == u64::from_le_bytes(*b"tracepar") {
        if eight(scratch, at + 8) as u32 | LOWER_CASE as u32 == u32::from_le_bytes(*b"ent:") {
            scan.parents += 1;
            scan.parent_at = at + 12;
        }
    } else if lower == u64::from_le_bytes(*b"tracesta") {
        if eight(scratch, at + 8) & 0xff_ffff | LOWER_CASE >> 40 == u64::from_le_bytes(*b"te:\0\0\0\0\0") {
            *scan.state_at_mut(scan.states) = at + 11;
            scan.states += 1;
        }
    } else if lower == u64::from_le_bytes(*b"upgrade:") {
        scan.switches = 1;
    } else if lower == u64::from_le_bytes(*b"content-") {
        if eight(scratch, at + 8) & 0xff_ffff_ffff_ffff | LOWER_CASE >> 8 == u64::from_le_bytes(*b"length:\0") {
            // A second one is for a parser to judge.
            scan.coded |= u32::from(scan.length_at != 0);
            scan.length_at = at + 15;
        }
    } else if lower == u64::from_le_bytes(*b"transfer") {
        scan.coded = 1;
    } else if lower & 0xff_ffff == u64::from_le_bytes(*b"b3:\0\0\0\0\0")
        || lower & 0xff_ffff_ffff == u64::from_le_bytes(*b"x-b3-\0\0\0")
        || lower == u64::from_le_bytes(*b"uber-tra")
        || lower == u64::from_le_bytes(*b"x-datado")
        || lower == u64::from_le_bytes(*b"x-amzn-t")
    {
        scan.foreign = 1;
    }
    false
}

/// Whether the head that was looked at carries a trace context.
#[inline(never)]
pub fn carries(scratch: *mut Scratch) -> Carries {
    // SAFETY: a value of the map, this CPU's own.
    let scan = unsafe { &mut (*scratch).scan };
    let nothing = if scan.foreign == 0 { Carries::Nothing } else { Carries::Foreign };
    // An invalid one is as if it were not there (section 3.2.2), and so are several.
    if scan.parents != 1 {
        return nothing;
    }
    let at = skip_blanks(scratch, scan.parent_at);
    scan.parent_at = at;
    if at + PARENT_LEN >= scan.len {
        return Carries::Foreign;
    }
    let version = eight(scratch, at) as u32;
    let dashes =
        version >> 16 & 0xff == u32::from(b'-') && octet(scratch, at + 35) == b'-' && octet(scratch, at + 52) == b'-';
    let (high, low) = (digit(version as u8), digit((version >> 8) as u8));
    if !dashes || high > 15 || low > 15 || (high == 15 && low == 15) {
        return nothing;
    }
    // What follows the version known here may only be blanks; later versions may add to it after a dash.
    let after = octet(scratch, at + PARENT_LEN);
    if !(matches!(after, b'\r' | b'\n') || (high | low != 0 && after == b'-')) {
        // Blanks to the end of the line are for user space to judge, where it cannot be seen at once.
        let end = skip_blanks(scratch, at + PARENT_LEN);
        if end >= scan.len || !matches!(octet(scratch, end), b'\r' | b'\n') {
            return if matches!(after, b' ' | b'\t') { Carries::Foreign } else { nothing };
        }
    }
    let mut slot = slot(scratch);
    // SAFETY: the callback has the signature that bpf_loop asks for, and its context lives longer than the call.
    unsafe { bpf_loop(25, hex_one as *mut core::ffi::c_void, (&raw mut slot).cast(), 0) };
    let [a, b, c] = words(&scan.ids);
    if scan.bad != 0 || a | b == 0 || c == 0 { nothing } else { Carries::Parent }
}

/// Trace id and span id as numbers.
#[inline(always)]
fn words(ids: &[u8; 32]) -> [u64; 3] {
    let word = |at: usize| {
        let mut value = 0_u64;
        for i in 0..8 {
            value = value << 8 | u64::from(ids[at + i]);
        }
        value
    };
    [word(0), word(8), word(16)]
}

/// Reads two digits of a `traceparent`; 1 ends the loop.
#[inline(never)]
extern "C" fn hex_one(index: u32, context: *mut core::ffi::c_void) -> i64 {
    let Some(scratch) = scratch_of(context) else { return 1 };
    // SAFETY: a value of the map, this CPU's own.
    let scan = unsafe { &mut (*scratch).scan };
    let dashes = u32::from(index >= 16) + u32::from(index >= 24);
    let at = scan.parent_at + 3 + 2 * index + dashes;
    let (high, low) = (digit(octet(scratch, at)), digit(octet(scratch, at + 1)));
    if high > 15 || low > 15 {
        scan.bad = 1;
        return 1;
    }
    scan.ids[masked::<31>(index) & 31] = high << 4 | low;
    0
}

/// The value of a lower-case hexadecimal digit; 16 for another octet.
#[inline(always)]
fn digit(octet: u8) -> u8 {
    match octet {
        b'0'..=b'9' => octet - b'0',
        b'a'..=b'f' => octet - b'a' + 10,
        _ => 16,
    }
}

/// Where a field's value begins; after many blanks nothing is found there.
#[inline(always)]
fn skip_blanks(scratch: *mut Scratch, mut at: u32) -> u32 {
    for _ in 0..4 {
        if matches!(octet(scratch, at), b' ' | b'\t') {
            at += 1;
        }
    }
    at
}

/// The number in `content-length`; `None` when it is none, or has more than nine digits.
#[inline(never)]
pub fn content_length(scratch: *mut Scratch) -> Option<u32> {
    // SAFETY: a value of the map, this CPU's own.
    let at = skip_blanks(scratch, unsafe { (*scratch).scan.length_at });
    let mut value = 0_u32;
    for i in 0..10 {
        let octet = octet(scratch, at + i);
        if !octet.is_ascii_digit() {
            return (i > 0 && matches!(octet, b'\r' | b'\n')).then_some(value);
        }
        value = value.wrapping_mul(10).wrapping_add(u32::from(octet - b'0'));
    }
    None
}

/// How far the request reaches whose head was looked at.
#[inline(always)]
pub fn extent(scratch: *mut Scratch) -> Extent {
    // SAFETY: a value of the map, this CPU's own.
    let scan = unsafe { &(*scratch).scan };
    let (head, has_length) = (scan.end, scan.length_at != 0);
    // What is both chunked and of a given length, or of two, is left alone.
    if head == 0 || scan.is_http == 0 || (scan.coded != 0 && has_length) || four(scratch, 0) == *b"CONN" {
        return Extent { head, whole: None, sound: false };
    }
    if scan.coded != 0 || scan.switches != 0 {
        return Extent { head, whole: None, sound: true };
    }
    let content = if has_length { content_length(scratch) } else { Some(0) };
    Extent { head, whole: content.map(|content| head + content), sound: content.is_some() }
}

/// Four octets of the payload.
#[inline(always)]
pub fn four(scratch: *mut Scratch, at: u32) -> [u8; 4] {
    [octet(scratch, at), octet(scratch, at + 1), octet(scratch, at + 2), octet(scratch, at + 3)]
}

/// The status in a status line; 0 when there is none in the `captured` octets.
#[inline(always)]
pub fn status(scratch: *mut Scratch, captured: u32) -> u32 {
    if captured < 12 || four(scratch, 0) != *b"HTTP" {
        return 0;
    }
    let mut status = 0;
    for i in 9..12 {
        let octet = octet(scratch, i);
        if !octet.is_ascii_digit() {
            return 0;
        }
        status = status * 10 + u32::from(octet - b'0');
    }
    status
}
