//! The newest request of a connection that a process of this host has made, and what is sent with it.

use agent_common::context::{Context, by};
use agent_common::counter::Counter;
use agent_common::record::role;
use aya_ebpf::programs::SockOpsContext;

use super::serving::{Run, Who};
use super::{Trace, frames, option, selected, span_id};
use crate::maps::{CLIENTS, FRAMES, SOCKETS, WRITABLE, count};
use crate::socket::{self, verdict};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Client {
    pub trace: Trace,
    pub context: Context,
    /// Where the request begins.
    pub seq: u32,
    /// One of [`state`].
    state: u8,
    /// Not 0: it is not known any more where requests begin.
    lost: u8,
    /// Not 0: the connection began as one of HTTP/2; 2: what was known of it had to make room.
    http2: u8,
    reserved: u8,
    /// Where the request ends, without what was put into it.
    until: u32,
    /// Octets that were put into it.
    inserted: u32,
    /// Octets of its head, without what was put into it.
    pub head: u32,
    /// Where it begins in the payload: another position than TCP's with TLS.
    pub position: u32,
    /// The server's request that caused it.
    pub cause: Who,
}

mod state {
    /// No request yet.
    pub const IDLE: u8 = 0;
    /// Nothing is sent with it.
    pub const LEFT: u8 = 1;
    /// It is sent with its context, user space has not been told yet.
    pub const BEGUN: u8 = 2;
    pub const TOLD: u8 = 3;
}

/// How far a request reaches.
#[derive(Clone, Copy)]
pub struct Extent {
    pub head: u32,
    /// Octets of head and content; `None` when that is not known.
    pub whole: Option<u32>,
    /// It is a request of HTTP/1 with its whole head.
    pub sound: bool,
}

impl Client {
    /// A connection that has sent nothing; its first octet is at `seq`.
    fn new(seq: u32, lost: bool) -> Self {
        Self {
            trace: Trace::UNDECIDED,
            context: Context {
                trace_id: [0; 16],
                span_id: [0; 8],
                cause_conn: 0,
                cause_seq: 0,
                by: by::ROOT,
                sampled: 0,
                reserved: [0; 2],
            },
            seq: 0,
            state: state::IDLE,
            lost: lost.into(),
            http2: 0,
            reserved: 0,
            until: seq,
            inserted: 0,
            head: 0,
            position: 0,
            cause: Who::NOBODY,
        }
    }

    /// Whether the newest request begins at `seq`.
    #[inline(always)]
    pub fn is_at(&self, seq: u32) -> bool {
        self.state != state::IDLE && self.seq == seq
    }

    /// How far `seq` is behind the end of the request before: below 0, it is in its content; at 0 a request must begin
    /// there; above, what was sent between them is not known.
    #[inline(always)]
    pub fn behind(&self, seq: u32) -> i32 {
        seq.wrapping_sub(self.until.wrapping_add(self.inserted)) as i32
    }

    /// Whether it is not known any more where requests begin.
    #[inline(always)]
    pub fn is_lost(&self) -> bool {
        self.lost != 0
    }

    /// Whether nothing was sent before `seq`.
    #[inline(always)]
    pub fn is_unused(&self, seq: u32) -> bool {
        self.state == state::IDLE && self.lost == 0 && self.until == seq
    }

    #[inline(always)]
    pub fn is_http2(&self) -> bool {
        self.http2 != 0
    }

    /// The connection begins as one of HTTP/2: [`frames`] has what is known of it.
    #[inline(always)]
    pub fn speaks_http2(&mut self) {
        self.http2 = 1;
    }

    /// What [`frames`] had was forgotten; whether that is new.
    #[inline(always)]
    pub fn forgets_frames(&mut self) -> bool {
        core::mem::replace(&mut self.http2, 2) == 1
    }

    /// A request begins that nothing is sent with.
    #[inline(always)]
    pub fn leave(&mut self, seq: u32, extent: Extent) {
        self.state = state::LEFT;
        self.reaches(seq, extent);
        self.seq = seq;
    }

    /// A request begins. The position comes first: no packet has it yet, so that none is sent with half of this.
    #[inline(always)]
    pub fn begin(&mut self, seq: u32, extent: Extent, trace: &Trace, context: &Context) {
        self.reaches(seq, extent);
        // SAFETY: a plain field of this value.
        unsafe { (&raw mut self.seq).write_volatile(seq) };
        self.trace = *trace;
        self.context = Context { trace_id: trace.id, span_id: span_id(), sampled: trace.sampled, ..*context };
        // SAFETY: as above.
        unsafe { (&raw mut self.state).write_volatile(state::BEGUN) };
    }

    #[inline(always)]
    fn reaches(&mut self, seq: u32, extent: Extent) {
        self.inserted = 0;
        self.head = extent.head;
        match extent.whole {
            Some(len) => self.until = seq.wrapping_add(len),
            None => self.lost = 1,
        }
    }

    #[inline(always)]
    pub fn sends(&self) -> bool {
        self.state >= state::BEGUN
    }

    /// Whether fields are to be put into the message that begins at `seq`.
    #[inline(always)]
    pub fn wants_fields(&self, seq: u32) -> bool {
        self.state == state::BEGUN && self.trace.decided != 0 && self.seq == seq
    }

    /// So many octets were put into the request.
    #[inline(always)]
    pub fn grown(&mut self, octets: u32) {
        self.inserted = octets;
    }
}

/// A connection is made; whether by a process that is traced, so that contexts are sent on it.
#[inline(always)]
pub fn connected(ctx: &SockOpsContext) -> bool {
    let Some(sk) = option::sock(ctx) else { return false };
    // SAFETY: a value of the map.
    let Some(socket) = (unsafe { SOCKETS.get(&sk) }) else { return false };
    if socket.role != role::CONNECTED || socket.verdict == verdict::REFUSED || selected(socket.tgid).is_none() {
        return false;
    }
    let Some(ends) = socket::ends(sk) else { return false };
    if !socket::ports_allow(&ends, role::CONNECTED) {
        return false;
    }
    let Some(seq) = socket::sent(sk) else { return false };
    // Octets that went with the connection's first packet (TCP Fast Open) were not seen.
    // SAFETY: a field of the context.
    let lost = unsafe { (*ctx.ops).data_segs_out } != 0;
    if CLIENTS.insert(&sk, &Client::new(seq, lost), 0).is_err() {
        count(Counter::ContextMapFull);
        return false;
    }
    if !super::puts_fields() {
        return true;
    }
    // SAFETY: the context of this program.
    if WRITABLE.update(sk, unsafe { &mut *ctx.ops }, 0).is_err() {
        count(Counter::HeaderRefused);
        let _ = CLIENTS.remove(&sk);
    }
    false
}

/// Octets that were put into requests in the call that ends.
#[derive(Clone, Copy)]
pub struct Put {
    /// Where the first of them, or the call, begins.
    at: u32,
    pub octets: u32,
}

impl Put {
    pub const NOTHING: Self = Self { at: 0, octets: 0 };

    #[inline(always)]
    pub fn into(sk: u64) -> Self {
        let Some(client) = CLIENTS.get_ptr(&sk) else { return Self::NOTHING };
        // SAFETY: a value of the map.
        let client = unsafe { &*client };
        if client.is_http2() {
            let Some(frames) = FRAMES.get_ptr(&sk) else { return Self::NOTHING };
            // SAFETY: as above.
            let (at, octets) = unsafe { (*frames).put() };
            return Self { at, octets };
        }
        if client.state == state::BEGUN { Self { at: client.seq, octets: client.inserted } } else { Self::NOTHING }
    }

    /// Where the octets of the call begin, when without what was put into them they would begin at `seq`.
    #[inline(always)]
    pub fn begin(self, seq: u32) -> u32 {
        if self.octets != 0 && self.at.wrapping_add(self.octets) == seq { self.at } else { seq }
    }
}

/// Octets were sent: tells user space of the request that begins with them, or of those in them.
#[inline(never)]
pub fn sent(run: &Run) {
    let Some(client) = CLIENTS.get_ptr_mut(&run.sk) else { return };
    // SAFETY: a value of the map.
    let client = unsafe { &mut *client };
    if client.is_http2() {
        return frames::sent(run);
    }
    if client.state != state::BEGUN || client.position.wrapping_sub(run.seq) >= run.len {
        return;
    }
    client.state = state::TOLD;
    if client.trace.decided != 0 {
        super::tell(run, client.position, (client.head, client.inserted), client.context);
    }
}
