//! Which trace a request belongs to, decided here since the packet leaves before user space could: only with
//! `--propagate`. Right or unknown: where the cause is not certain the request is sent as undecided, and what that
//! causes is undecided as well; then user space finds the parent by what it knows.
//!
//! - `head`: what the octets of a message's head tell;
//! - `serving`: which requests a thread and a process serve, `state`: with which `tracestate`;
//! - `client`: the request that a connection sends, and where it ends;
//! - `option`: how a context gets onto a packet and off it;
//! - `header`: how it gets into the request itself; `frames`: where those of HTTP/2 begin, `stream`: the same for one of them.

pub mod client;
pub mod frames;
pub mod head;
pub mod header;
pub mod option;
pub mod serving;
pub mod state;
pub mod stream;

use agent_common::context::{Context, by};
use agent_common::counter::Counter;
use agent_common::ids::Direction;
use agent_common::layout::{PROCESS_CALLS_UNASKED, PROCESS_IGNORE, PROCESS_THREADS_TELL, propagate};
use agent_common::record::{Coroutine, SegmentHead, role};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;

use self::client::{Client, Extent};
use self::head::Carries;
use self::serving::{Run, Who};
use crate::call;
use crate::judge;
use crate::maps::{
    CLIENTS, PROCESSES, Scratch, TOLD, claim_scratch, count, emit_context, give_back, given, has_stopped, scratch,
};
use crate::payload::{self, Payload};
use crate::socket::{self, Socket, verdict};
use crate::tls;

/// A trace, as it goes from request to request. Aligned, or it would be copied octet by octet, each through the stack.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Trace {
    pub id: [u8; 16],
    pub sampled: u8,
    /// 0: there is a trace, but it is not known.
    pub decided: u8,
    /// 1: the low 56 bits of the id are random (W3C Trace Context Level 2).
    pub random: u8,
    pub reserved: u8,
}

impl Trace {
    pub const UNDECIDED: Self = Self { id: [0; 16], sampled: 0, decided: 0, random: 0, reserved: 0 };

    /// A trace that begins here.
    #[inline(always)]
    pub fn new() -> Self {
        let (high, low) = (random(), random() | 1);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&high.to_le_bytes());
        id[8..].copy_from_slice(&low.to_be_bytes());
        Self { id, sampled: u8::from(samples(&id)), decided: 1, random: 1, reserved: 0 }
    }

    /// A trace that another process began.
    #[inline(always)]
    pub fn of_parent(id: [u8; 16], sampled: u8, random: u8) -> Self {
        let sampled = if given!(SETUP.parent_based) != 0 { sampled } else { u8::from(samples(&id)) };
        Self { id, sampled, decided: 1, random, reserved: 0 }
    }

    /// The flags of a `traceparent`.
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.sampled | self.random << 1
    }
}

/// The head sampler's decision: the low 56 bits of the id are compared with its threshold.
#[inline(always)]
fn samples(id: &[u8; 16]) -> bool {
    let mut low = [0; 8];
    low.copy_from_slice(&id[8..]);
    u64::from_be_bytes(low) & (u64::MAX >> 8)
        >= u64::from(given!(SETUP.sample_from_high)) << 32 | u64::from(given!(SETUP.sample_from_low))
}

#[inline(always)]
pub fn random() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { u64::from(bpf_get_prandom_u32() as u32) << 32 | u64::from(bpf_get_prandom_u32() as u32) }
}

/// A span id, not zero.
#[inline(always)]
pub fn span_id() -> [u8; 8] {
    (random() | 1).to_ne_bytes()
}

#[inline(always)]
pub fn is_on() -> bool {
    given!(SETUP.propagate) != 0
}

/// Whether contexts are put into the requests.
#[inline(always)]
pub fn puts_fields() -> bool {
    given!(SETUP.propagate) == propagate::HEADERS
}

/// A record of kind [`CONTEXT`](agent_common::record::segment::CONTEXT).
#[repr(C)]
pub struct Record {
    head: SegmentHead,
    context: Context,
}

/// Tells user space of the context of a request at `seq`, before the octets of that request, and of what was put into it:
/// after how many of its octets, and how many. The record is put together in the scratch space: the frames of a chain of calls share 512 octets of stack.
#[inline(always)]
pub fn tell(run: &Run, seq: u32, (after, inserted): (u32, u32), context: Context) {
    let head = SegmentHead {
        at: call::now(),
        conn: run.conn,
        tgid: (run.thread >> 32) as u32,
        tid: run.thread as u32,
        seq,
        len: inserted,
        captured: after,
        direction: match run.direction {
            Direction::Egress => Direction::EGRESS,
            Direction::Ingress => Direction::INGRESS,
        },
        tail: 0,
        kind: agent_common::record::segment::CONTEXT,
        errno: 0,
        coroutine: Coroutine::default(),
    };
    // SAFETY: a value of the map, this CPU's own.
    unsafe {
        let record = &raw mut (*run.scratch).context;
        record.write(Record { head, context });
        emit_context(&*record);
    }
}

/// What a call that is to begin a request was caused by.
#[derive(Clone, Copy)]
struct Cause {
    trace: Trace,
    conn: u64,
    who: Who,
    by: u8,
    reason: Counter,
}

/// A thread enters a call that sends. When its octets begin a request, the request's context is decided now.
#[inline(always)]
pub fn sending(fd: u64, payload: Payload, len: u64) {
    let thread = call::thread();
    let Some(habits) = selected((thread >> 32) as u32) else { return };
    let Some((sk, socket)) = socket::of(fd) else { return };
    // SAFETY: `of` gives a value of the map, which stays readable while the program runs.
    let socket = unsafe { &*socket };
    // Under TLS a function of the library says what is sent ([`sending_plaintext`]); what the kernel encrypts is left alone.
    if socket.verdict == verdict::REFUSED || socket.tls != 0 || tls::kernel::is_on(sk) {
        return;
    }
    if puts_fields()
        && let Some(client) = CLIENTS.get_ptr_mut(&sk)
        // SAFETY: a value of the map, which stays writable while the program runs.
        && frames::entered(sk, unsafe { &mut *client }, payload, len)
    {
        return;
    }
    let Some(client) = asked(sk, socket, payload, len) else { return };
    if socket.verdict == verdict::UNDECIDED {
        let Some(ends) = socket::ends(sk) else { return };
        if !socket::ports_allow(&ends, socket.role) {
            return;
        }
    }
    let Some(seq) = socket::sent(sk) else { return };
    if client.is_at(seq) {
        // A call that could not send before tries again.
        return;
    }
    let Some(scratch) = scratch() else { return };
    decide(client, &Beginning { payload, len, thread, seq, position: seq, habits, scratch });
}

/// What is known of a connection on which octets are to be sent that begin like a request.
#[inline(always)]
fn asked(sk: u64, socket: &Socket, payload: Payload, len: u64) -> Option<&'static mut Client> {
    if !judge::is_request_line(payload::first_octets(payload, len)?) {
        return None;
    }
    let client = CLIENTS.get_ptr_mut(&sk);
    if client.is_none() && socket.role != role::ACCEPTED {
        count(Counter::ContextOldConnection);
    }
    // SAFETY: a value of the map, which stays writable while the program runs.
    client.map(|client| unsafe { &mut *client })
}

/// A thread is about to give plaintext to a TLS session, whose records go out from the next position of the socket on. When
/// it begins a request, the request's context is decided now; only an option of TCP can carry it.
#[inline(always)]
pub fn sending_plaintext(sk: u64, socket: &Socket, thread: u64, payload: Payload, len: u64) {
    if puts_fields() || socket.verdict == verdict::REFUSED {
        return;
    }
    let Some(habits) = selected((thread >> 32) as u32) else { return };
    let Some((at, len)) = payload::first_part(payload, len) else { return };
    let payload = Payload::Flat { at };
    let Some(client) = asked(sk, socket, payload, len) else { return };
    let Some(seq) = socket::sent(sk) else { return };
    if !client.is_at(seq) {
        let position = socket.plain[0];
        let Some(scratch) = claim_scratch() else { return };
        decide(client, &Beginning { payload, len, thread, seq, position, habits, scratch });
        give_back(scratch);
    }
}

/// The habits of a process that is selected, as far as is known, while there is an agent.
#[inline(always)]
fn selected(tgid: u32) -> Option<u8> {
    if tgid == given!(SETUP.agent) || has_stopped() {
        return None;
    }
    // SAFETY: values are single octets.
    match unsafe { PROCESSES.get(&tgid) }.copied() {
        Some(habits) if habits & PROCESS_IGNORE == 0 => Some(habits),
        None if given!(SETUP.choose_processes) == 0 => Some(0),
        _ => None,
    }
}

/// A request that is about to be sent.
struct Beginning {
    payload: Payload,
    /// Octets of a single buffer.
    len: u64,
    thread: u64,
    /// TCP's position, and that of the payload: another one with TLS.
    seq: u32,
    position: u32,
    habits: u8,
    scratch: *mut Scratch,
}

impl Cause {
    const UNKNOWN: Self =
        Self { trace: Trace::UNDECIDED, conn: 0, who: Who::NOBODY, by: by::ROOT, reason: Counter::ContextHeadUnseen };
}

#[inline(never)]
fn decide(client: &mut Client, request: &Beginning) {
    let &Beginning { payload, len, thread, seq, position, habits, scratch } = request;
    let len = payload::peek(scratch, payload, len);
    head::scan(scratch, len);
    let extent = head::extent(scratch);
    if puts_fields() {
        let behind = client.behind(seq);
        if behind < 0 && !client.is_lost() {
            return;
        }
        if behind != 0 || client.is_lost() || !extent.sound {
            count(Counter::HeaderUnproven);
            client.leave(seq, Extent { whole: None, ..extent });
            return;
        }
    }
    // SAFETY: a value of the map, this CPU's own.
    let (parents, states) = unsafe { ((*scratch).scan.parents, (*scratch).scan.states) };
    // What the application sends stays the only one, also where it is invalid; and a `tracestate` must not get a parent
    // that it does not belong to.
    if parents | states != 0 || head::carries(scratch) != Carries::Nothing {
        count(Counter::ContextOwn);
        client.leave(seq, extent);
        return;
    }
    let mut cause = Cause::UNKNOWN;
    if extent.head != 0 {
        find_cause(&mut cause, thread, habits);
    }
    count(cause.reason);
    client.cause = cause.who;
    client.position = position;
    client.begin(
        seq,
        extent,
        &cause.trace,
        &Context { cause_conn: cause.conn, cause_seq: cause.who.seq, by: cause.by, ..Context::default() },
    );
}

#[inline(never)]
fn find_cause(cause: &mut Cause, thread: u64, habits: u8) {
    let (who, by) = match serving::of(thread, habits & PROCESS_THREADS_TELL != 0) {
        serving::Serves::Nothing => {
            cause.trace = Trace::new();
            cause.reason = Counter::ContextRoot;
            return;
        }
        serving::Serves::ByThread(who) => (who, by::THREAD),
        serving::Serves::Only(who) if habits & PROCESS_CALLS_UNASKED == 0 => (who, by::ONLY),
        _ => {
            cause.reason = Counter::ContextUncertain;
            return;
        }
    };
    let Some(request) = serving::request(who) else {
        cause.reason = Counter::ContextUncertain;
        return;
    };
    // SAFETY: a value of the map.
    let request = unsafe { &*request };
    if request.trace.decided == 0 {
        cause.reason = Counter::ContextForeign;
        return;
    }
    cause.trace = request.trace;
    (cause.conn, cause.who, cause.by) = (request.conn, who, by);
    cause.reason = if by == by::THREAD { Counter::ContextThread } else { Counter::ContextOnly };
}

/// Octets went through a socket that is followed; the first `captured` of them are in the scratch space. Their record
/// comes next.
#[inline(always)]
pub fn moved(run: &Run) {
    match run.direction {
        Direction::Ingress => serving::received(run),
        Direction::Egress => {
            client::sent(run);
            serving::answered(run);
        }
    }
}

/// A connection is gone.
#[inline(always)]
pub fn closed(sk: u64) {
    serving::closed(sk);
    state::closed(sk);
    frames::closed(sk);
    let _ = CLIENTS.remove(&sk);
    let _ = TOLD.remove(&sk);
}
