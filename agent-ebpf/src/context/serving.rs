//! Which requests threads and processes serve at the moment: from a request's first octet to its response's last.
//!
//! Where a response ends is read from its head. Where that cannot be told, or a request may have gone by unseen, the
//! connection counts as unclear until it closes, and then nothing is concluded from what its process and thread serve.
//!
//! Functions are not put into one another where that would add up their frames: a chain of calls has 512 octets of
//! stack, and kernels before 6.7 round each frame up to 32.

use agent_common::context::{Context, by};
use agent_common::counter::Counter;
use agent_common::ids::Direction;
use agent_common::limits::CAPTURE;
use agent_common::record::role;

use super::head::{self, Carries};
use super::{Trace, option, state as list};
use crate::judge;
use crate::maps::{LOADS, REQUESTS, Scratch, add, count};

/// Octets that a call moved.
pub struct Run {
    pub sk: u64,
    pub conn: u64,
    pub thread: u64,
    pub direction: Direction,
    pub seq: u32,
    pub len: u32,
    /// Octets of those at the beginning of the scratch space, and after them the last ones of the call.
    pub captured: u32,
    pub tail: u32,
    pub scratch: *mut Scratch,
    /// One of [`role`].
    pub role: u8,
    /// Not 0: the connection was seen from its first octet on.
    pub fresh: u8,
    /// Not 0: TLS, so that positions are not TCP's.
    pub tls: u32,
}

/// The newest request received on a connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Request {
    pub trace: Trace,
    pub seq: u32,
    pub conn: u64,
    /// The thread that read its first octet.
    thread: u64,
    /// Where its response ends, once that is known.
    end: u32,
    /// One of [`state`].
    state: u8,
    /// Not 0: it asked for a head alone.
    head_only: u8,
    reserved: [u8; 2],
}

mod state {
    /// Answered.
    pub const IDLE: u8 = 0;
    /// No octet of a final response was sent.
    pub const ASKED: u8 = 1;
    /// The response ends at `end`.
    pub const UNTIL: u8 = 2;
    /// It ends with its last chunk.
    pub const CHUNKED: u8 = 3;
    /// What is served here cannot be told any more.
    pub const UNCLEAR: u8 = 4;
}

/// How much a thread or a process serves.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Load {
    /// Connections with a request that is served, and those of which nothing can be told.
    serving: u64,
    unclear: u64,
    /// The newest request.
    newest: Who,
}

/// A request by its socket and position.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Who {
    pub sk: u64,
    pub seq: u32,
    reserved: u32,
}

impl Who {
    pub const NOBODY: Self = Self { sk: 0, seq: 0, reserved: 0 };

    #[inline(always)]
    pub fn is_some(&self) -> bool {
        self.sk != 0
    }
}

/// What a thread that calls may do so for.
pub enum Serves {
    Nothing,
    ByThread(Who),
    Only(Who),
    Unknown,
}

#[inline(always)]
fn process_of(thread: u64) -> u64 {
    thread & 0xffff_ffff_0000_0000
}

/// What a thread serves. `threads_tell`: threads of its process stay with what they serve.
#[inline(always)]
pub fn of(thread: u64, threads_tell: bool) -> Serves {
    // SAFETY: values of the map, changed by atomic operations and whole words.
    let process = unsafe { LOADS.get(&process_of(thread)) };
    let Some(process) = process else { return Serves::Nothing };
    // SAFETY: as above.
    let own = if threads_tell { unsafe { LOADS.get(&thread) } } else { None };
    if let Some(load) = own
        && load.serving == 1
        && load.unclear == 0
    {
        return Serves::ByThread(load.newest);
    }
    match (process.serving, process.unclear) {
        (0, 0) => Serves::Nothing,
        (1, 0) => Serves::Only(process.newest),
        _ => Serves::Unknown,
    }
}

/// A request that is still being served.
#[inline(always)]
pub fn request(who: Who) -> Option<*const Request> {
    let request = REQUESTS.get_ptr(&who.sk)?;
    // SAFETY: a value of the map.
    let (seq, state) = unsafe { ((*request).seq, (*request).state) };
    (seq == who.seq && matches!(state, state::ASKED | state::UNTIL | state::CHUNKED)).then_some(request)
}

/// Counts a request in, for its thread and its process.
#[inline(never)]
fn enter(thread: u64, who: &Who) {
    for key in [thread, process_of(thread)] {
        if let Some(load) = LOADS.get_ptr_mut(&key) {
            // SAFETY: a value of the map.
            unsafe {
                (*load).newest = *who;
                add(&raw mut (*load).serving, 1);
            }
        } else if LOADS.insert(&key, &Load { serving: 1, unclear: 0, newest: *who }, 1).is_err() {
            count(Counter::ContextMapFull);
        }
    }
}

/// Counts a request out; `unclear` when its connection is from now on.
#[inline(never)]
fn leave(thread: u64, served: u64, unclear: u64) {
    for key in [thread, process_of(thread)] {
        if let Some(load) = LOADS.get_ptr_mut(&key) {
            // SAFETY: a value of the map.
            unsafe {
                add(&raw mut (*load).serving, served.wrapping_neg());
                add(&raw mut (*load).unclear, unclear);
            }
        }
    }
}

/// Nothing can be told of this connection any more.
#[inline(always)]
fn give_up(request: &mut Request) {
    match request.state {
        state::UNCLEAR => {}
        state::IDLE => leave(request.thread, 0, 1),
        _ => leave(request.thread, 1, 1),
    }
    request.state = state::UNCLEAR;
}

/// A connection is gone.
#[inline(always)]
pub fn closed(sk: u64) {
    let Some(request) = REQUESTS.get_ptr(&sk) else { return };
    // SAFETY: a value of the map.
    let (state, thread) = unsafe { ((*request).state, (*request).thread) };
    match state {
        state::IDLE => {}
        state::UNCLEAR => leave(thread, 0, u64::MAX),
        _ => leave(thread, 1, 0),
    }
    let _ = REQUESTS.remove(&sk);
}

/// A thread has ended, and with its first thread its process.
#[inline(always)]
pub fn exited(thread: u64) {
    let _ = LOADS.remove(&thread);
    if (thread >> 32) as u32 == thread as u32 {
        let _ = LOADS.remove(&process_of(thread));
    }
}

/// A process has received octets.
#[inline(never)]
pub fn received(run: &Run) {
    if run.role == role::CONNECTED {
        return;
    }
    let mut told = Trace::UNDECIDED;
    let begins = run.captured >= 4 && judge::is_request_line(head::four(run.scratch, 0));
    let is_told = match run.tls {
        0 => option::received(run, &mut told),
        _ => begins && option::received_by_tls(run, &mut told),
    };
    match REQUESTS.get_ptr_mut(&run.sk) {
        Some(request) => {
            // SAFETY: a value of the map.
            let request = unsafe { &mut *request };
            match request.state {
                state::IDLE if begins => {}
                state::UNCLEAR => return,
                // The rest of what is served.
                state::ASKED | state::UNTIL | state::CHUNKED if !begins => return,
                _ => return give_up(request),
            }
        }
        None if begins => {}
        None if run.role == role::ACCEPTED => return unclear(run.sk, run.conn, run.thread),
        None => return,
    }
    // Here and not in `begin`, whose frame is the largest.
    head::scan(run.scratch, run.captured);
    match begin(run, is_told.then_some(&told)) {
        Origin::Here => tell_root(run),
        Origin::Parent if super::puts_fields() => list::keep(run),
        _ => {}
    }
}

/// Where a request's trace is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Here,
    /// A `traceparent`.
    Parent,
    Other,
}

/// A request that does not begin like one, or with less than four octets: it is not seen here.
#[inline(never)]
fn unclear(sk: u64, conn: u64, thread: u64) {
    let (seq, state) = (0, state::UNCLEAR);
    let request = Request { trace: Trace::UNDECIDED, seq, conn, thread, end: 0, state, head_only: 0, reserved: [0; 2] };
    enter(thread, &Who { sk, seq, reserved: 0 });
    leave(thread, 1, 1);
    let _ = REQUESTS.insert(&sk, &request, 0);
}

/// A call moved several messages. They are not looked at: a callback for each has no stack left for that.
#[inline(never)]
pub fn batched(sk: u64, conn: u64, thread: u64, role: u8) {
    match REQUESTS.get_ptr_mut(&sk) {
        // SAFETY: a value of the map.
        Some(request) => give_up(unsafe { &mut *request }),
        None if role == role::ACCEPTED => unclear(sk, conn, thread),
        None => {}
    }
}

/// A request begins, whose head was looked at. It is put together in the scratch space: at the functions of TLS libraries the
/// chain of calls that leads here has no stack left for it.
#[inline(never)]
fn begin(run: &Run, told: Option<&Trace>) -> Origin {
    let carries = head::carries(run.scratch);
    // SAFETY: values of the map, this CPU's own or claimed.
    let (scan, request) = unsafe { (&(*run.scratch).scan, &mut (*run.scratch).request) };
    let mut origin = Origin::Other;
    request.trace = match (carries, told) {
        (Carries::Parent, _) => {
            origin = Origin::Parent;
            let mut id = [0; 16];
            id.copy_from_slice(&scan.ids[..16]);
            Trace::of_parent(id, scan.ids[24] & 1, scan.ids[24] >> 1 & 1)
        }
        (Carries::Nothing, Some(trace)) if trace.decided != 0 => {
            Trace::of_parent(trace.id, trace.sampled, trace.random)
        }
        // The head's rest may carry a context. An old connection's client may be on this host, and could not tell.
        (Carries::Nothing, None) if scan.end != 0 && run.fresh != 0 => {
            origin = Origin::Here;
            Trace::new()
        }
        _ => Trace::UNDECIDED,
    };
    (request.seq, request.conn, request.thread) = (run.seq, run.conn, run.thread);
    (request.end, request.state) = (0, state::ASKED);
    request.head_only = u8::from(head::octet(run.scratch, 0) == b'H');
    let who = Who { sk: run.sk, seq: run.seq, reserved: 0 };
    if REQUESTS.insert(&run.sk, &*request, 0).is_err() {
        count(Counter::ContextMapFull);
        enter(run.thread, &who);
        // Never taken back: nothing is concluded for this process any more.
        leave(run.thread, 1, 1);
        return Origin::Other;
    }
    enter(run.thread, &who);
    // Another request in the same octets: it is not seen here.
    let after = scan.end;
    if after != 0 && after < run.captured {
        let next = head::four(run.scratch, after);
        if next[0].is_ascii_uppercase()
            && let Some(request) = REQUESTS.get_ptr_mut(&run.sk)
        {
            // SAFETY: a value of the map.
            give_up(unsafe { &mut *request });
        }
    }
    origin
}

/// Tells user space of the new trace of the request that has just begun.
#[inline(never)]
fn tell_root(run: &Run) {
    let Some(request) = REQUESTS.get_ptr(&run.sk) else { return };
    // SAFETY: a value of the map.
    let Trace { id, sampled, .. } = unsafe { (*request).trace };
    super::tell(run, run.seq, (0, 0), Context { trace_id: id, by: by::ROOT, sampled, ..Context::default() });
}

/// A process has sent octets.
#[inline(never)]
pub fn answered(run: &Run) {
    let Some(request) = REQUESTS.get_ptr_mut(&run.sk) else { return };
    // SAFETY: a value of the map.
    let request = unsafe { &mut *request };
    if request.state == state::ASKED {
        response(run, request);
    }
    let end = run.seq.wrapping_add(run.len);
    let over = match request.state {
        state::UNTIL => end.wrapping_sub(request.end) as i32 >= 0,
        state::CHUNKED => ends_chunks(run),
        _ => false,
    };
    if over {
        request.state = state::IDLE;
        leave(request.thread, 1, 0);
    }
}

/// The first octets of a response.
#[inline(always)]
fn response(run: &Run, request: &mut Request) {
    let status = head::status(run.scratch, run.captured);
    head::scan(run.scratch, run.captured);
    // SAFETY: a value of the map, this CPU's own.
    let (end, coded, has_length) = unsafe {
        let scan = &(*run.scratch).scan;
        (scan.end, scan.coded, scan.length_at != 0)
    };
    if end == 0 {
        return give_up(request);
    }
    if matches!(status, 100 | 102 | 103) && end == run.len {
        return;
    }
    let at = run.seq.wrapping_add(end);
    match status {
        204 | 304 => (request.state, request.end) = (state::UNTIL, at),
        200..=599 if request.head_only != 0 => (request.state, request.end) = (state::UNTIL, at),
        200..=599 if coded != 0 && !has_length => request.state = state::CHUNKED,
        200..=599 if coded == 0 && has_length => match head::content_length(run.scratch) {
            Some(length) => (request.state, request.end) = (state::UNTIL, at.wrapping_add(length)),
            None => give_up(request),
        },
        _ => give_up(request),
    }
}

/// Whether the octets end with a last chunk.
#[inline(always)]
fn ends_chunks(run: &Run) -> bool {
    let kept = run.captured + run.tail;
    if run.len < 5 || kept < 5 || kept > 2 * CAPTURE as u32 || (run.tail == 0 && run.captured != run.len) {
        return false;
    }
    let at = kept - 5;
    *b"0\r\n\r" == head::four(run.scratch, at) && head::octet(run.scratch, at + 4) == b'\n'
}
