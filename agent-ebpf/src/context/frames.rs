//! Where the frames of HTTP/2 begin that a client sends, as it sends them: a context is put into nothing else.
//!
//! The kernel shows each message before it is put into packets. From the preface on, which has to be the connection's first
//! octets, each frame's head tells where the next one begins; and each block of header fields is read, since a name that
//! is once in the table of header fields is not named again. Where one of them is not seen whole, the connection is left
//! alone from then on.

use agent_common::context::Context;
use agent_common::counter::Counter;
use agent_common::http2::{FrameHead, HEAD, PAYLOAD, PREFACE, flag, kind};
use agent_common::limits::{FRAMES as MOST, PUTS};
use aya_ebpf::bindings::sk_msg_md;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::programs::SkMsgContext;

use super::client::Client;
use super::header::{PASS, pull};
use super::serving::Run;
use super::stream;
use crate::maps::{FRAMES, count};
use crate::payload::{self, Payload};
use crate::socket;

/// Frames of a message whose beginnings are remembered.
const MARKS: usize = 16;

/// What a client has sent on a connection of HTTP/2. Positions are TCP's.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frames {
    /// One of [`state`].
    state: u32,
    /// Where the next frame begins.
    next: u32,
    /// Where the newest message begins, and after its last octet.
    begun: u32,
    seen: u32,
    /// After the last octet that was put into it.
    put_until: u32,
    /// How many frames of that message were looked at, and where the last of them begin, round and round.
    number: u32,
    marks: [u32; MARKS],
    /// The newest stream.
    pub newest: u32,
    /// Not 0: the application sends contexts of its own.
    pub own: u32,
    /// Where the call begins that the thread is in.
    pub call: u32,
    /// What was put into its requests: octets, and how many requests.
    octets: u32,
    puts: u32,
    reserved: u32,
    put: [Put; PUTS],
}

/// What was put into a request.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Put {
    pub context: Context,
    /// Where its frame begins.
    pub at: u32,
    /// Octets of the frame without what was put in, and of that.
    pub len: u32,
    pub octets: u32,
    /// Those of the `traceparent`.
    pub flags: u32,
}

mod state {
    /// The preface is to come.
    pub const BEGINS: u32 = 0;
    pub const GOES_ON: u32 = 1;
    /// It is not known where the next frame begins.
    pub const LOST: u32 = 2;
}

/// Frames of a message that are looked at one by one.
#[repr(C)]
pub struct Walk {
    pub msg: *mut sk_msg_md,
    pub sk: u64,
    /// Where the message begins.
    pub seq: u32,
    /// What becomes of it.
    pub verdict: u32,
}

impl Put {
    const NOTHING: Self = Self {
        context: Context {
            trace_id: [0; 16],
            span_id: [0; 8],
            cause_conn: 0,
            cause_seq: 0,
            by: 0,
            sampled: 0,
            reserved: [0; 2],
        },
        at: 0,
        len: 0,
        octets: 0,
        flags: 0,
    };
}

impl Frames {
    const NEW: Self = Self {
        state: state::BEGINS,
        next: 0,
        begun: 0,
        seen: 0,
        put_until: 0,
        number: 0,
        marks: [0; MARKS],
        newest: 0,
        own: 0,
        call: 0,
        octets: 0,
        puts: 0,
        reserved: 0,
        put: [Put::NOTHING; PUTS],
    };

    /// Whether the message at `seq` goes on where the frames are known.
    #[inline(always)]
    fn follows(&mut self, ctx: &SkMsgContext, seq: u32) -> bool {
        if self.state == state::BEGINS {
            self.state = state::GOES_ON;
            self.next = seq.wrapping_add(PREFACE.len() as u32);
            return seq == self.call && is_preface(ctx);
        }
        seq == self.seen || self.comes_again(seq)
    }

    /// The kernel has sent only a part of the newest message, up to `seq`. What is sent now goes on with the frame that was
    /// cut; what comes after that need not be what it was.
    #[inline(always)]
    fn comes_again(&mut self, seq: u32) -> bool {
        let back = |from: u32| seq.wrapping_sub(from) as i32;
        if back(self.begun) < 0 || back(self.seen) > 0 || back(self.put_until) < 0 {
            return false;
        }
        let mut known = self.number <= MARKS as u32;
        let mut next = self.next;
        for i in 0..MARKS {
            if (i as u32) < self.number {
                let mark = self.marks[i];
                if back(mark) > 0 {
                    known = true;
                } else if mark.wrapping_sub(next) as i32 <= 0 {
                    next = mark;
                }
            }
        }
        self.next = next;
        known
    }

    #[inline(always)]
    fn mark(&mut self) {
        self.marks[self.number as usize & (MARKS - 1)] = self.next;
        self.number += 1;
    }

    /// Nothing is put into requests on this connection any more.
    #[inline(always)]
    pub fn lose(&mut self) {
        if self.state != state::LOST {
            self.state = state::LOST;
            count(Counter::HeaderFramesLost);
        }
    }

    /// Whether something may be put into one more request of the message at `seq`.
    #[inline(always)]
    pub fn takes(&self, seq: u32) -> bool {
        self.call == seq && self.puts < PUTS as u32
    }

    /// What is to be put into the next request.
    #[inline(always)]
    pub fn next_put(&mut self) -> &mut Put {
        &mut self.put[self.puts as usize & (PUTS - 1)]
    }

    /// It was put in.
    #[inline(always)]
    pub fn note(&mut self) {
        let &mut Put { at, len, octets, .. } = self.next_put();
        self.puts += 1;
        self.octets += octets;
        self.next = self.next.wrapping_add(octets);
        self.put_until = at.wrapping_add(len).wrapping_add(octets);
    }

    /// Where the call begins, and how many octets were put into what it sends.
    #[inline(always)]
    pub fn put(&self) -> (u32, u32) {
        (self.call, self.octets)
    }
}

/// A thread enters a call that sends on a connection that another may not have sent on yet. Whether it speaks HTTP/2.
#[inline(always)]
pub fn entered(sk: u64, client: &mut Client, payload: Payload, len: u64) -> bool {
    let Some(seq) = socket::sent(sk) else { return client.is_http2() };
    if !client.is_http2() {
        if !client.is_unused(seq) || payload::first_octets(payload, len) != Some(*b"PRI ") {
            return false;
        }
        client.speaks_http2();
        if FRAMES.insert(&sk, &Frames::NEW, 0).is_err() {
            count(Counter::ContextMapFull);
        }
    }
    if let Some(frames) = FRAMES.get_ptr_mut(&sk) {
        // SAFETY: a value of the map.
        let frames = unsafe { &mut *frames };
        (frames.call, frames.octets, frames.puts) = (seq, 0, 0);
    } else if client.forgets_frames() {
        count(Counter::HeaderFramesLost);
    }
    true
}

/// A message is about to be sent on a connection that began as one of HTTP/2.
#[inline(never)]
pub fn message(ctx: &SkMsgContext, sk: u64, seq: u32) -> u32 {
    let Some(frames) = FRAMES.get_ptr_mut(&sk) else { return PASS };
    // SAFETY: a value of the map; the socket is locked.
    let frames = unsafe { &mut *frames };
    if frames.state == state::LOST {
        return PASS;
    }
    if !frames.follows(ctx, seq) {
        frames.lose();
        return PASS;
    }
    (frames.begun, frames.put_until, frames.number) = (seq, seq, 0);
    let mut walk = Walk { msg: ctx.msg, sk, seq, verdict: PASS };
    // SAFETY: the callback has the signature that bpf_loop asks for, and its context lives longer than the call.
    unsafe { bpf_loop(MOST, frame_one as *mut core::ffi::c_void, (&raw mut walk).cast(), 0) };
    frames.seen = seq.wrapping_add(ctx.size());
    if (frames.next.wrapping_sub(frames.seen) as i32) < 0 {
        frames.lose();
    }
    walk.verdict
}

#[inline(always)]
fn is_preface(ctx: &SkMsgContext) -> bool {
    let Some(octets) = read::<{ PREFACE.len() }>(ctx, 0) else { return false };
    let mut differs = 0;
    for i in 0..PREFACE.len() {
        differs |= octets[i] ^ PREFACE[i];
    }
    differs == 0
}

/// Octets of the message.
#[inline(always)]
fn read<const N: usize>(ctx: &SkMsgContext, at: u32) -> Option<[u8; N]> {
    if !pull(ctx, at, at + N as u32) {
        return None;
    }
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + N > end {
        return None;
    }
    // SAFETY: within the bounds that were looked at.
    Some(unsafe { (data as *const [u8; N]).read() })
}

/// Looks at a frame; 1 ends the loop.
#[inline(never)]
extern "C" fn frame_one(_index: u32, walk: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `message` gives its own, and does not use it meanwhile.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    let Some(frames) = FRAMES.get_ptr_mut(&walk.sk) else { return 1 };
    // SAFETY: a value of the map; the socket is locked.
    let frames = unsafe { &mut *frames };
    let ctx = SkMsgContext::new(walk.msg);
    let (at, size) = (frames.next.wrapping_sub(walk.seq), ctx.size());
    if at >= size || frames.state == state::LOST {
        return 1;
    }
    let Some(head) = read::<HEAD>(&ctx, at).map(FrameHead::parse) else {
        frames.lose();
        return 1;
    };
    frames.mark();
    frames.next = frames.next.wrapping_add(HEAD as u32 + head.length);
    let is_whole =
        head.flags & flag::END_HEADERS != 0 && head.length <= PAYLOAD && head.length + HEAD as u32 <= size - at;
    match head.kind {
        _ if head.reserved || !head.is_regular() => frames.lose(),
        // Content may be longer, where the server has said so; of an unknown frame that is not believed.
        10.. if head.length > PAYLOAD => frames.lose(),
        kind::HEADERS if is_whole => stream::headers(walk, &head, at),
        kind::HEADERS | kind::CONTINUATION | kind::PUSH_PROMISE => frames.lose(),
        _ => {}
    }
    0
}

/// Octets were sent: tells user space of the requests in them that something was put into.
#[inline(always)]
pub fn sent(run: &Run) {
    let Some(frames) = FRAMES.get_ptr_mut(&run.sk) else { return };
    // SAFETY: a value of the map.
    let frames = unsafe { &mut *frames };
    for i in 0..PUTS {
        if (i as u32) < frames.puts {
            let put = &frames.put[i];
            if put.at.wrapping_sub(run.seq) < run.len.wrapping_add(frames.octets) {
                super::tell(run, put.at, (put.len, put.octets), put.context);
            }
        }
    }
    (frames.octets, frames.puts) = (0, 0);
}

/// A connection is gone.
#[inline(always)]
pub fn closed(sk: u64) {
    let _ = FRAMES.remove(&sk);
}
