//! What was seen but became no exchange, by reason.

/// Why something that was seen did not become an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Loss {
    /// A request whose response went by unseen.
    UnansweredRequest,
    /// A request seen while it was not certain which response belongs to which request.
    UncertainRequest,
    /// A request dropped because too many were outstanding.
    PipelineLimit,
    /// A response to a request that was not seen.
    UnmatchedResponse,
    /// A head whose start line was not seen to its end.
    IncompleteHead,
    /// A head longer than the limit; what was read of it still counts.
    HeadTooLarge,
    /// Octets that break the protocol.
    Invalid,
    /// Octets were lost where they mattered, so that the next message had to be searched.
    Resynchronised,
    /// A message of AMQP given out before it was known what became of it, since too many waited.
    Unsettled,
}

impl Loss {
    pub const ALL: [Self; 9] = [
        Self::UnansweredRequest,
        Self::UncertainRequest,
        Self::PipelineLimit,
        Self::UnmatchedResponse,
        Self::IncompleteHead,
        Self::HeadTooLarge,
        Self::Invalid,
        Self::Resynchronised,
        Self::Unsettled,
    ];

    /// The reason as a metric attribute's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnansweredRequest => "unanswered_request",
            Self::UncertainRequest => "uncertain_request",
            Self::PipelineLimit => "pipeline_limit",
            Self::UnmatchedResponse => "unmatched_response",
            Self::IncompleteHead => "incomplete_head",
            Self::HeadTooLarge => "head_too_large",
            Self::Invalid => "invalid",
            Self::Resynchronised => "resynchronised",
            Self::Unsettled => "unsettled",
        }
    }

    /// Whether one of these stands for one request that was counted in [`Stats::requests`].
    #[must_use]
    pub const fn is_request(self) -> bool {
        matches!(self, Self::UnansweredRequest | Self::UncertainRequest | Self::PipelineLimit)
    }
}

/// Counts of one connection since they were last taken. Over a connection's whole life
/// `requests = exchanges + outstanding + losses of requests`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests whose request line was seen.
    pub requests: u64,
    /// Exchanges handed out.
    pub exchanges: u64,
    losses: [u64; Loss::ALL.len()],
}

impl Stats {
    pub(in crate::protocol) fn lose(&mut self, loss: Loss) {
        if let Some(count) = self.losses.get_mut(loss as usize) {
            *count += 1;
        }
    }

    /// How often `loss` happened.
    #[must_use]
    pub fn lost(&self, loss: Loss) -> u64 {
        self.losses.get(loss as usize).copied().unwrap_or_default()
    }

    /// Requests seen that became no exchange, for whatever reason.
    #[must_use]
    pub fn lost_requests(&self) -> u64 {
        Loss::ALL.iter().filter(|loss| loss.is_request()).map(|&loss| self.lost(loss)).sum()
    }
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.exchanges += other.exchanges;
        for (count, more) in self.losses.iter_mut().zip(other.losses) {
            *count += more;
        }
    }
}
