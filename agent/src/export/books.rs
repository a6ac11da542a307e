//! What became of the spans offered to an exporter.

use super::queue::Limits;

/// Why a span was not exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The queue was full: the destination is slower than the traffic, or dead.
    QueueFull,
    /// The receiver took the request but not these spans (`partial_success.rejected_spans`).
    Rejected,
    /// The receiver refused the request in a way that a retry would not change.
    Unretryable,
    /// The receiver said success, but its answer was no OTLP answer: nothing says that spans arrived.
    BadAnswer,
    /// Retried for as long as is allowed.
    GaveUp,
    /// The file or standard output could not be written.
    WriteFailed,
    /// Still queued or in flight when the agent ended.
    Shutdown,
}

impl DropReason {
    pub const COUNT: usize = Self::ALL.len();
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::Rejected,
        Self::Unretryable,
        Self::BadAnswer,
        Self::GaveUp,
        Self::WriteFailed,
        Self::Shutdown,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Rejected => "rejected",
            Self::Unretryable => "unretryable",
            Self::BadAnswer => "bad_answer",
            Self::GaveUp => "gave_up",
            Self::WriteFailed => "write_failed",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What became of the spans offered to one exporter: `accepted = exported + dropped + pending`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// All spans offered.
    pub accepted: u64,
    /// Spans the destination has taken.
    pub exported: u64,
    dropped: [u64; DropReason::COUNT],
    /// Spans queued or in flight.
    pub pending: u64,
    /// Octets of memory held by them, estimated.
    pub pending_bytes: u64,
    /// The bound of `pending`.
    pub capacity: u64,
    /// The bound of `pending_bytes`.
    pub capacity_bytes: u64,
    /// Requests that were sent again.
    pub retries: u64,
}

impl Books {
    /// Empty books of a queue with these bounds.
    pub(super) fn new(limits: &Limits) -> Self {
        Self { capacity: limits.spans as u64, capacity_bytes: limits.bytes as u64, ..Self::default() }
    }

    /// Spans dropped for one reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or(0)
    }

    /// Spans dropped for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(super) fn drop(&mut self, reason: DropReason, spans: u64) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += spans;
        }
    }
}
