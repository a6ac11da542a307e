//! What one incoming request has done so far, in one reading of the events.

/// A track forgets its calls but keeps sums over them, so that it can be copied cheaply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Track {
    pub(super) operation: u32,
    pub(super) calls: u16,
    pub(super) outstanding: u16,
    /// Sum over the operations called, in whatever order.
    made: u64,
    /// The same over the calls that have not returned.
    waiting: u64,
    /// Sum over the calls themselves: tells which they are.
    pub(super) set: u64,
    /// How far the share of this set among the readings is believed ([`super::cluster::trust`]).
    pub(super) trust: f32,
    pub(super) arrived: u64,
    /// The operation that returned last; [`ARRIVAL`] before any did.
    done: u32,
    pub(super) done_at: u64,
    /// The operation that was called last; [`ARRIVAL`] before any was.
    called: u32,
    called_at: u64,
    /// The last event, whatever it was.
    last: u64,
}

/// Stands for the arrival of the request itself where a call's operation is expected.
const ARRIVAL: u32 = u32::MAX;
/// Stands for all operations of requests together.
const ANY: u32 = u32::MAX;

impl Track {
    pub(super) fn new(operation: u32, at: u64) -> Self {
        Self {
            operation,
            calls: 0,
            outstanding: 0,
            made: 0,
            waiting: 0,
            set: 0,
            trust: 1.0,
            arrived: at,
            done: ARRIVAL,
            done_at: at,
            called: ARRIVAL,
            called_at: at,
            last: 0,
        }
    }

    pub(super) fn call(&mut self, operation: u32, call: u64, at: u64) {
        self.calls = self.calls.saturating_add(1);
        self.outstanding = self.outstanding.saturating_add(1);
        self.made = self.made.wrapping_add(mix(u64::from(operation)));
        self.waiting = self.waiting.wrapping_add(mix(u64::from(operation)));
        self.set = self.set.wrapping_add(mix(call));
        self.called = operation;
        self.called_at = at;
        self.last = 1 + 2 * u64::from(operation);
    }

    pub(super) fn returned(&mut self, operation: u32, at: u64) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.waiting = self.waiting.wrapping_sub(mix(u64::from(operation)));
        self.done = operation;
        self.done_at = at;
        self.last = 2 + 2 * u64::from(operation);
    }

    /// All that is known of the progress: what was called, what is waited for, what came back last.
    pub(super) fn state(&self) -> u64 {
        let calls = mix(self.made ^ mix(self.waiting));
        mix(calls ^ (u64::from(self.operation) << 32 | u64::from(self.done)))
    }

    /// Less of the progress, to fall back on: the last event, and whether something is waited for.
    pub(super) fn rough_state(&self) -> u64 {
        self.rough_state_of(self.operation)
    }

    /// The same, whatever the operation of the request.
    pub(super) fn rough_state_of_any(&self) -> u64 {
        self.rough_state_of(ANY)
    }

    fn rough_state_of(&self, operation: u32) -> u64 {
        mix(self.last ^ (u64::from(operation) << 34) ^ (u64::from(self.outstanding.min(2)) << 62))
    }

    /// Events from which a delay may be counted, each with its kinds and time: what came back last, the last call, the
    /// arrival. Those that are the same event as one before them are left out.
    pub(super) fn origins(&self) -> [Option<(Kinds, u64)>; ORIGINS] {
        let kinds = |operation: u32| {
            let own = u64::from(operation) << 32;
            let progress = u64::from(self.calls.min(7)) << 8 | u64::from(self.outstanding > 0);
            let done = mix(own | u64::from(self.done)) ^ progress;
            let called = mix(!(own | u64::from(self.called)) ^ mix(u64::from(self.done)));
            let arrival = mix(mix(own | u64::from(self.calls.min(3))));
            [done, called, arrival]
        };
        let (own, any) = (kinds(self.operation), kinds(ANY));
        let times = [self.done_at, self.called_at, self.arrived];
        let apart = [true, self.called != ARRIVAL, self.done != ARRIVAL];
        std::array::from_fn(|place| apart[place].then_some(([own[place], any[place]], times[place])))
    }

    /// Names the situation for which one of [`Track::origins`] foretells best.
    pub(super) fn situation(&self) -> u64 {
        mix(mix(u64::from(self.done) << 32 | u64::from(self.called)) ^ u64::from(self.operation))
    }
}

/// Names the kind of an origin for the operation of the request, and for requests of any operation.
pub(super) type Kinds = [u64; 2];

/// Number of [`Track::origins`].
pub(super) const ORIGINS: usize = 3;

/// Spreads the bits of a number (the finaliser of SplitMix64).
pub(super) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
