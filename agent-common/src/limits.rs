//! Sizes that both sides obey.

/// The most octets of one call that are captured; also the longest HTTP head that can be read from a single call.
pub const CAPTURE: usize = 64 * 1024;

/// What is captured of one call where user space asked for little ([`crate::hint::LEAN`]).
pub const LEAN_CAPTURE: usize = 2 * 1024;

/// The last octets of a call that was captured in part: enough to see the end of a chunked body.
pub const TAIL: usize = 16;

/// I/O vectors of one call that are looked at: as many as the kernel takes (`UIO_MAXIOV`).
pub const IOVECS: u32 = 1024;

/// Messages of one `recvmmsg`/`sendmmsg` call that are looked at.
pub const MESSAGES: u32 = 8;

/// Slots for the entry times of sending calls, indexed by thread id. A power of two.
pub const ENTERED: u32 = 64 * 1024;

/// Sockets followed at the same time; the least recently used one is forgotten first.
pub const SOCKETS: u32 = 32 * 1024;

/// Connections with what propagation knows of them, when it is on; by direction of their requests.
pub const PROPAGATED: u32 = 16 * 1024;

/// Requests being served whose `tracestate` is remembered, when it is carried on.
pub const STATES: u32 = 1024;

/// Connections of HTTP/2 into whose requests contexts are put; the least recently used one is left alone first.
pub const HTTP2: u32 = 2 * 1024;

/// Requests of one call on such a connection that a context is put into.
pub const PUTS: usize = 16;

/// Frames of one message that are looked at.
pub const FRAMES: u32 = 4 * 1024;

/// Octets of a head that the kernel side reads to find a context in it.
pub const SCANNED: u32 = 4096;

/// Processes with a decision about being traced.
pub const PROCESSES: u32 = 16 * 1024;

/// Go processes whose goroutines can be told apart.
pub const GO_PROCESSES: u32 = 1024;

/// Python processes whose tasks can be told apart.
pub const ASYNCIO_PROCESSES: u32 = 1024;

/// Calls into TLS libraries that are in progress at the same time: one for each connection on which a goroutine waits.
pub const TLS_CALLS: u32 = 16 * 1024;

/// TLS sessions whose socket is remembered; the least recently used one is forgotten first.
pub const TLS_SESSIONS: u32 = 16 * 1024;

/// Octets of a request that are kept while it is not known which socket its session uses.
pub const TLS_KEPT: usize = 4096;

/// Threads for which that is done at the same time.
pub const TLS_KEEPING: u32 = 128;

/// Threads whose last transfers of TLS records are remembered.
pub const TLS_THREADS: u32 = 4 * 1024;

/// Octets of each hello of a TLS handshake that are captured. With the keys of hybrid key exchange they have some 1,800.
pub const HELLO: usize = 2048;

/// Octets of a block of header fields by which it is known again.
pub const BLOCK: usize = 512;

/// Slots for hints of user space about connections, indexed by connection id. A power of two.
pub const HINTS: u32 = 16 * 1024;

/// Ports in the allow and deny list together.
pub const PORTS: u32 = 1024;

/// The path of an executed file, as far as a record carries it.
pub const FILENAME: usize = 128;

/// Default size of the ring that carries payload, in octets. A power of two.
pub const SEGMENT_RING: u32 = 8 * 1024 * 1024;

/// Size of the ring that carries the life of connections and processes, in octets.
pub const LIFECYCLE_RING: u32 = 512 * 1024;
