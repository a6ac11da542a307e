//! `tracestate` of the requests that are served, for the requests that they cause (W3C Trace Context, section 3.3).
//! Its fields are put together to one list. A list that breaks the grammar or is too long is dropped whole.

use agent_common::context::field::{STATE, STATE_MEMBERS, STATE_PART, STATES as FIELDS};
use aya_ebpf::helpers::generated::bpf_loop;

use super::head::{self, masked};
use super::serving::{Run, Who};
use crate::maps::{STATES, scratch_of, slot};

/// The list of one request.
#[repr(C)]
pub struct State {
    /// Where the request begins.
    seq: u32,
    pub len: u32,
    pub octets: [u8; STATE],
    reading: Reading,
}

/// How far the reading has come.
#[repr(C)]
#[derive(Clone, Copy)]
struct Reading {
    /// The field that is read, and the next octet of it.
    field: u32,
    at: u32,
    /// One of [`part`].
    part: u32,
    /// Octets of the key or of the value, and of the latter up to its last one that is no blank.
    len: u32,
    solid: u32,
    members: u32,
    /// Not 0: the list ended as it may.
    done: u32,
    reserved: u32,
}

mod part {
    /// Before a member.
    pub const NONE: u32 = 0;
    pub const KEY: u32 = 1;
    pub const VALUE: u32 = 2;
    /// After a tab, with which a value can only end.
    pub const BLANKS: u32 = 3;
}

/// Octets that are read at most: those of the list, blanks at the ends of fields, and each field's end.
const READ: u32 = STATE as u32 + 64;

/// Remembers the `tracestate` of the request that begins with these octets, which has a valid `traceparent`.
#[inline(never)]
pub fn keep(run: &Run) {
    let scratch = run.scratch;
    // SAFETY: values of the map, this CPU's own.
    let (fields, state) = unsafe { ((*scratch).scan.states, &mut (*scratch).state) };
    if fields == 0 || fields > FIELDS as u32 {
        return;
    }
    (state.seq, state.len) = (run.seq, 0);
    state.reading = Reading {
        field: 0,
        // SAFETY: as above.
        at: unsafe { (*scratch).scan.state_at[0] },
        part: part::NONE,
        len: 0,
        solid: 0,
        members: 0,
        done: 0,
        reserved: 0,
    };
    let mut slot = slot(scratch);
    // SAFETY: the callback has the signature that bpf_loop asks for, and its context lives longer than the call.
    unsafe { bpf_loop(READ, read_one as *mut core::ffi::c_void, (&raw mut slot).cast(), 0) };
    let members = state.reading.members;
    if state.reading.done != 0 && members > 0 && members <= STATE_MEMBERS {
        let _ = STATES.insert(&run.sk, &*state, 0);
    }
}

/// Reads an octet; 1 ends the loop.
#[inline(never)]
extern "C" fn read_one(_index: u32, context: *mut core::ffi::c_void) -> i64 {
    let Some(scratch) = scratch_of(context) else { return 1 };
    // SAFETY: a value of the map, this CPU's own.
    let (scan, state) = unsafe { (&mut (*scratch).scan, &mut (*scratch).state) };
    let reading = &mut state.reading;
    if reading.at >= scan.end {
        return 1;
    }
    let mut octet = head::octet(scratch, reading.at);
    reading.at += 1;
    if octet == b'\r' || octet == b'\n' {
        reading.field += 1;
        reading.done = u32::from(reading.field >= scan.states);
        // The list goes on in the next field.
        octet = b',';
        reading.at = *scan.state_at_mut(reading.field);
    }
    if !reading.takes(octet) {
        reading.done = 0;
        return 1;
    }
    if reading.done != 0 {
        return 1;
    }
    if reading.part == part::NONE {
        return 0;
    }
    let mut len = state.len;
    if len > 0 && reading.part == part::KEY && reading.len == 1 {
        state.put(len, b',');
        len += 1;
    }
    if len >= STATE as u32 {
        return 1;
    }
    state.put(len, octet);
    state.len = len + 1;
    0
}

impl State {
    #[inline(always)]
    fn put(&mut self, at: u32, octet: u8) {
        // SAFETY: the index is below the array's length.
        unsafe { (&raw mut self.octets).cast::<u8>().add(masked::<{ STATE as i32 - 1 }>(at)).write(octet) };
    }
}

impl Reading {
    /// Goes on by an octet; whether the grammar lets it stand there.
    #[inline(always)]
    fn takes(&mut self, octet: u8) -> bool {
        let blank = octet == b' ' || octet == b'\t';
        match self.part {
            part::NONE if octet == b',' || blank => true,
            part::NONE => {
                (self.part, self.len) = (part::KEY, 1);
                octet.is_ascii_lowercase() || octet.is_ascii_digit()
            }
            part::KEY if octet == b'=' => {
                (self.part, self.len, self.solid) = (part::VALUE, 0, 0);
                true
            }
            part::KEY => {
                self.len += 1;
                let allowed = octet.is_ascii_lowercase()
                    || octet.is_ascii_digit()
                    || matches!(octet, b'_' | b'-' | b'*' | b'/' | b'@');
                allowed && self.len <= STATE_PART
            }
            _ if octet == b',' => {
                self.part = part::NONE;
                self.members += 1;
                self.solid > 0 && self.solid <= STATE_PART
            }
            _ if octet == b'\t' => {
                self.part = part::BLANKS;
                true
            }
            part::BLANKS => blank,
            _ => {
                self.len += 1;
                if octet != b' ' {
                    self.solid = self.len;
                }
                (b' '..=b'~').contains(&octet) && octet != b'='
            }
        }
    }
}

/// The list of a request that is served.
#[inline(always)]
pub fn of(who: &Who) -> Option<*const State> {
    let state = STATES.get_ptr(&who.sk)?;
    // SAFETY: a value of the map.
    (unsafe { (*state).seq } == who.seq).then_some(state)
}

/// A connection is gone.
#[inline(always)]
pub fn closed(sk: u64) {
    let _ = STATES.remove(&sk);
}
