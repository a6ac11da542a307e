//! What crosses the rings. Host octet order; the layout is pinned below, and user space copies out of the ring
//! after checking the length, since no compiler checked what the kernel side wrote.

use crate::limits::{FILENAME, TAIL};

/// What a segment record stands for.
pub mod segment {
    /// Octets went through.
    pub const DATA: u8 = 0;
    /// The receiver was told of the end of the stream (`read` returned 0).
    pub const END: u8 = 1;
    /// The call failed with `errno`, which says that the connection is lost.
    pub const ERROR: u8 = 2;
    /// The trace context of the request that begins at `seq`; [`crate::context::Context`] follows. It comes before the
    /// request's octets. `len` octets were put into the request after the first `captured` of its own.
    pub const CONTEXT: u8 = 3;
    /// The beginning of a TLS handshake as it is on the wire: what a direction's first call moved, at most
    /// [`crate::limits::HELLO`] octets of it. Not part of the payload: its `seq` is 0, or [`super::TLS_HEAD`] where a call
    /// before has moved the record's head alone. It comes before the connection is announced.
    pub const HELLO: u8 = 4;
    /// A process is about to decode a block of header fields of HTTP/2: a [`super::HeaderTable`] follows, and the block's first octets,
    /// at most [`crate::limits::BLOCK`] of its `len`. Or to encode a single field, when the direction is the one of what it sends. It
    /// belongs to no connection: the coroutine or the thread tells which one.
    pub const TABLE: u8 = 5;
}

/// Octets of the head of a TLS record (RFC 8446, section 5.1), which some libraries read by a call of its own.
pub const TLS_HEAD: u32 = 5;

/// Which coroutine a thread runs: a goroutine by the low half of its number, or a task of an event loop. All 0 where that is not
/// known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coroutine {
    pub id: u32,
    /// The coroutine that started it; 0 also for Go before 1.21. [`Coroutine::TASK`] of a task of an event loop.
    pub parent: u32,
    /// The numbers that the next coroutines get that are started on the same processor, from `next` to before `end`: the rest
    /// of those that Go gave it at a time (`p.goidcache`, `p.goidcacheend`). Of a task the one that waits for it, and the one that
    /// waits for that; 0 where none is known.
    pub next: u32,
    pub end: u32,
}

impl Coroutine {
    /// In the place of the parent: it is a task of an event loop.
    pub const TASK: u32 = u32::MAX;

    /// A task by its name ([`crate::asyncio::name`]), with those of the ones that wait for it, 0 for none.
    #[must_use]
    pub const fn task([id, next, end]: [u32; 3]) -> Self {
        Self { id, parent: Self::TASK, next, end }
    }

    /// Its name and those of the ones that wait for it, if it is a task of an event loop.
    #[must_use]
    pub const fn as_task(self) -> Option<[u32; 3]> {
        if self.parent == Self::TASK { Some([self.id, self.next, self.end]) } else { None }
    }
}

/// The head of each record in the ring of segments. `captured` octets of payload follow, then `tail` octets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentHead {
    /// ns, `CLOCK_MONOTONIC`: entry of a sending call, return of a receiving one.
    pub at: u64,
    /// `ConnId`.
    pub conn: u64,
    pub tgid: u32,
    pub tid: u32,
    /// TCP sequence number of the first octet; with TLS, how many octets of plaintext came before.
    pub seq: u32,
    /// Octets the call transferred.
    pub len: u32,
    /// Octets of those that follow this head, from the first on.
    pub captured: u32,
    /// `Direction` code.
    pub direction: u8,
    /// Octets that follow the captured ones: the last of the call, when not all were captured.
    pub tail: u8,
    /// One of [`segment`].
    pub kind: u8,
    pub errno: u8,
    /// Who made the call; only with [`segment::DATA`].
    pub coroutine: Coroutine,
}

const _: () = assert!(size_of::<SegmentHead>() == 56);
const _: () = assert!(TAIL <= u8::MAX as usize);

/// A process's own table of header fields (RFC 7541, section 2.3.2) as it stands before a block is decoded by it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderTable {
    /// One of [`table`].
    pub kind: u64,
    /// Where in the process's memory it is.
    pub address: u64,
    /// Entries that were ever added to it.
    pub added: u64,
}

const _: () = assert!(size_of::<HeaderTable>() == 24);

/// Whose table of header fields it is: which decides how it lies in memory, and who works on it.
pub mod table {
    /// That of Go's `hpack`: a goroutine's.
    pub const GO: u64 = 1;
    /// That of nghttp2: a thread's.
    pub const NGHTTP2: u64 = 2;
}

/// The first octet of each record in the ring of lifecycles.
pub mod lifecycle {
    pub const OPEN: u8 = 1;
    pub const SENT_ALL: u8 = 2;
    pub const CLOSE: u8 = 3;
    pub const CONNECT_FAILED: u8 = 4;
    pub const EXEC: u8 = 5;
    pub const EXIT: u8 = 6;
    pub const SPEAKS_TLS: u8 = 7;
    pub const BIRTH: u8 = 8;
}

/// Who made a connection, as far as it was seen.
pub mod role {
    pub const UNKNOWN: u8 = 0;
    pub const CONNECTED: u8 = 1;
    pub const ACCEPTED: u8 = 2;
}

/// A socket is followed from now on ([`lifecycle::OPEN`]), or could not be connected
/// ([`lifecycle::CONNECT_FAILED`], with `errno`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    pub kind: u8,
    /// One of [`role`].
    pub role: u8,
    /// Not 0: the socket was seen from its first octet on.
    pub fresh: u8,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    pub errno: u32,
    pub conn: u64,
    pub at: u64,
    /// When `connect` was called or the connection was accepted by the kernel; 0 when not seen.
    pub opened_at: u64,
    /// When the handshake was complete; 0 when not seen.
    pub established_at: u64,
    pub tgid: u32,
    pub tid: u32,
    /// An IPv4 address takes the first four octets; network octet order.
    pub local: [u8; 16],
    pub peer: [u8; 16],
    pub local_port: u16,
    pub peer_port: u16,
    /// TCP positions before the first octets that are reported, by direction.
    pub sent: u32,
    pub received: u32,
    /// The coroutine that called `connect` and the one that started it; 0 when not known.
    pub dialler: u32,
    pub dialler_parent: u32,
    /// Not 0: TLS. What is reported is the plaintext, and its positions count from 0.
    pub tls: u32,
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Connection>() == 120);

/// Nothing more will be sent ([`lifecycle::SENT_ALL`]), or the connection is gone ([`lifecycle::CLOSE`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    pub kind: u8,
    /// Not 0: the peer had closed its direction before.
    pub peer_first: u8,
    /// `sk_err` when the connection went away; 0 for none.
    pub errno: u16,
    /// Position after the last octet sent, and after the last that the process received.
    pub sent: u32,
    pub received: u32,
    pub reserved: u32,
    pub conn: u64,
    pub at: u64,
}

const _: () = assert!(size_of::<Closing>() == 32);

/// A process speaks TLS, and user space has not looked for the library that it does it by ([`lifecycle::SPEAKS_TLS`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeaksTls {
    pub kind: u8,
    pub reserved: [u8; 3],
    pub tgid: u32,
    pub at: u64,
}

const _: () = assert!(size_of::<SpeaksTls>() == 16);

/// A process runs another file ([`lifecycle::EXEC`]) or has ended ([`lifecycle::EXIT`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub kind: u8,
    pub reserved: [u8; 3],
    pub tgid: u32,
    pub at: u64,
    pub comm: [u8; 16],
    /// The executed path, ended by 0 unless cut.
    pub filename: [u8; FILENAME],
}

const _: () = assert!(size_of::<Process>() == 160);

/// A thread of a traced process has started another one, or a process ([`lifecycle::BIRTH`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    pub kind: u8,
    /// Not 0: what was started is a thread of the same process.
    pub thread: u8,
    pub reserved: [u8; 2],
    /// Who started it: process and thread.
    pub tgid: u32,
    pub tid: u32,
    /// The new thread's id; a new process has the same.
    pub child: u32,
    pub at: u64,
}

const _: () = assert!(size_of::<Birth>() == 24);
