//! Numbers that must not be taken for one another.

/// A thread-group id as the kernel counts it in the initial pid namespace: what people call a process id.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tgid(pub u32);

/// A thread id (`task_struct.pid`) in the initial pid namespace.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid(pub u32);

/// One socket of one connection during its life; two sockets that talk to each other on one host have two ids.
/// Given out by the kernel side, never used twice while the agent runs; 0 is never given out.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonoNanos(pub u64);

impl MonoNanos {
    /// The nanoseconds from `earlier` to `self`, 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Nanoseconds since the Unix epoch.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixNanos(pub u64);

/// A position in one direction of a TCP connection: the sequence number of an octet, modulo 2^32 (RFC 9293, section 3.4).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// How far `self` is ahead of `earlier`; negative when it is behind. Right while the two are less than 2 GiB apart.
    #[must_use]
    pub const fn ahead_of(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// The position `octets` further on.
    #[must_use]
    pub const fn plus(self, octets: u32) -> Self {
        Self(self.0.wrapping_add(octets))
    }
}

/// 16 octets, not all zero (W3C Trace Context, section 3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// 8 octets, not all zero (W3C Trace Context, section 3.2.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// Which way octets travel, seen from the process that made the system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Sent by the process.
    Egress,
    /// Received by the process.
    Ingress,
}

impl Direction {
    pub const EGRESS: u8 = 0;
    pub const INGRESS: u8 = 1;

    /// The direction a record's code stands for, `None` for a code that no kernel side writes.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            Self::EGRESS => Some(Self::Egress),
            Self::INGRESS => Some(Self::Ingress),
            _ => None,
        }
    }

    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Egress => Self::Ingress,
            Self::Ingress => Self::Egress,
        }
    }
}
