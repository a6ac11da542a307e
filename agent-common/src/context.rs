//! Trace context that the kernel side decides, sends and receives when propagation is on.

/// How the kernel side came to a context.
pub mod by {
    /// A new trace begins here.
    pub const ROOT: u8 = 0;
    /// A TCP option brought it.
    pub const OPTION: u8 = 1;
    /// The thread that sends serves the request named as the cause.
    pub const THREAD: u8 = 2;
    /// The process serves the request named as the cause, and no other.
    pub const ONLY: u8 = 3;
}

/// The body of a record of kind [`crate::record::segment::CONTEXT`], after its head, which names connection, direction
/// and position of the request.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    pub trace_id: [u8; 16],
    /// The client's span: the sender's own, or the one that a server was told of. Zeros for a server's new trace.
    pub span_id: [u8; 8],
    /// The server's request that caused a client's: `ConnId` and position; 0 for none.
    pub cause_conn: u64,
    pub cause_seq: u32,
    /// One of [`by`].
    pub by: u8,
    /// 1 when the trace is sampled.
    pub sampled: u8,
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Context>() == 40);

/// The fields that carry a context in a request (W3C Trace Context).
pub mod field {
    /// Octets of a `traceparent`: `00-{trace id}-{span id}-{flags}`.
    pub const VALUE: usize = 55;
    /// `traceparent: 00-{trace id}-{span id}-{flags}` and the end of the line.
    pub const PARENT: usize = 13 + VALUE + 2;
    pub const PARENT_NAME: &[u8; 13] = b"traceparent: ";
    pub const STATE_NAME: &[u8; 12] = b"tracestate: ";
    /// The same in HTTP/2 (RFC 7541, section 6.2.3): a literal that is never indexed, so that no table of header fields
    /// changes; with a new name, both as plain octets.
    pub const LITERAL_NAME: &[u8; 14] = b"\x10\x0btraceparent\x37";
    pub const LITERAL: usize = LITERAL_NAME.len() + VALUE;
    pub const LITERAL_STATE_NAME: &[u8; 12] = b"\x10\x0atracestate";
    /// The longest `tracestate` that is carried on: what is longer may be dropped (section 3.3.1.5).
    pub const STATE: usize = 512;
    /// Fields of that name that are put together to one list.
    pub const STATES: usize = 8;
    /// Members of a list, and octets of a member's key or value (sections 3.3.1.1 and 3.3.1.3).
    pub const STATE_MEMBERS: u32 = 32;
    pub const STATE_PART: u32 = 256;
}

/// The TCP option that carries a context from agent to agent.
///
/// ```text
/// 0     1     2            18          26
/// │ 25  │ 28  │ trace id   │ span id   │ vvds pppp pppp pppp │
/// ```
/// `vv` is the version, 1; `d` says that the sender has decided, else the trace id is 0 and the receiver knows only that
/// there is a trace that it does not know; `s` is the sampled flag; `p` are the low 12 bits of the position of the
/// request's first octet. A packet that the network card cuts into segments has the option on each of them, and one may
/// hold the beginnings of several requests, so the receiver needs the position.
pub mod option {
    pub const KIND: u8 = 25;
    pub const LEN: usize = 28;
    pub const TRACE_ID: usize = 2;
    pub const SPAN_ID: usize = 18;
    pub const TAIL: usize = 26;
    pub const VERSION_MASK: u16 = 0xc000;
    pub const VERSION: u16 = 0x4000;
    pub const DECIDED: u16 = 0x2000;
    pub const SAMPLED: u16 = 0x1000;
    pub const POSITION: u16 = 0x0fff;

    /// The first position from `seq` on that ends in the 12 bits of `tail`.
    #[must_use]
    pub const fn position(seq: u32, tail: u16) -> u32 {
        let low = (tail & POSITION) as u32;
        seq.wrapping_add(low.wrapping_sub(seq) & POSITION as u32)
    }
}
