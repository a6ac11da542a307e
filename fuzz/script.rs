//! A script of segments, gaps and ends through a protocol's follower, which the target names (`crate::Follower`, what it gives
//! out, and how to make one with [`LIMITS`]). It must not panic, stay inside its limits, and account for every request.

use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq};

use crate::protocol::http::{Config, Limits, Stats};
use crate::protocol::{Begun, End, Notice, Segment, Thread, Verdict};
use crate::{Exchange, Follower, follower};

pub const LIMITS: Limits =
    Limits { head: 4096, outstanding: 16, outstanding_octets: 8192, held_octets: 1 << 20, held_segments: 1 << 20 };

pub struct Run {
    follower: Follower,
    pub stats: Stats,
    pub exchanges: Vec<Exchange>,
    /// Where the next octet of each direction belongs.
    positions: [Seq; 2],
    pub over: bool,
}

/// For the followers of HTTP.
pub fn config() -> Arc<Config> {
    Arc::new(Config {
        request_headers: vec!["host".into()],
        response_headers: vec!["date".into()],
        request_id_headers: vec!["x-request-id".into()],
        limits: LIMITS,
    })
}

impl Run {
    fn new(fresh: bool) -> Self {
        Self {
            follower: follower(fresh),
            stats: Stats::default(),
            exchanges: Vec::new(),
            positions: [Seq(0); 2],
            over: false,
        }
    }

    fn segment(&mut self, direction: Direction, at: u64, octets: &[u8], missing: u64, tail: &[u8]) {
        let before = self.exchanges.len();
        let position = self.advance(direction, octets.len() as u64 + missing);
        let segment = Segment { at: MonoNanos(at), thread: Thread::default(), position, octets, missing, tail };
        let verdict = self.follower.segment(direction, segment, &mut |exchange| self.exchanges.push(exchange));
        assert!(!self.over || (before == self.exchanges.len() && verdict != Verdict::Follow), "over is over");
        self.over = verdict != Verdict::Follow;
    }

    /// Goes on by so many octets; gives where the direction stood before.
    fn advance(&mut self, direction: Direction, octets: u64) -> Seq {
        let [egress, ingress] = &mut self.positions;
        let position = if direction == Direction::Egress { egress } else { ingress };
        let before = *position;
        *position = before.plus(octets as u32);
        before
    }

    fn check(&mut self) {
        self.stats += self.follower.take_stats();
        for notice in self.follower.notices() {
            match notice {
                Notice::Begun(Begun { number, .. }) | Notice::Dropped { number } | Notice::Sent { number, .. } => {
                    assert!(u64::from(number) <= self.stats.requests, "a request that was not counted");
                }
                // A message that a broker has read is no request by itself.
                Notice::Taken { .. } => {}
            }
        }
        let outstanding = self.follower.outstanding();
        assert!(outstanding <= LIMITS.outstanding);
        assert_eq!(self.stats.exchanges, self.exchanges.len() as u64);
        assert_eq!(self.stats.requests, self.stats.exchanges + outstanding as u64 + self.stats.lost_requests());
        for direction in [Direction::Egress, Direction::Ingress] {
            let _ = self.follower.want(direction);
        }
    }
}

/// What a connection begins with.
pub type First<'a> = [(Direction, &'a [u8])];

/// Runs the script, after the connection's first octets in most; `split`: octet by octet where nothing is missing. The second
/// value is false when the script has more in it than whole segments.
pub fn run(script: &[u8], first: &First<'_>, split: bool) -> (Run, bool) {
    let (&flags, mut rest) = script.split_first().unwrap_or((&1, &[]));
    let mut run = Run::new(flags & 1 == 1);
    let mut plain = flags & 1 == 1;
    let mut at = 0;
    if flags & 2 == 0 {
        first.iter().for_each(|(direction, octets)| run.segment(*direction, at, octets, 0, &[]));
    }
    while let Some(([step, len], after)) = rest.split_first_chunk::<2>() {
        let (octets, after) = after.split_at_checked(usize::from(*len)).unwrap_or((after, &[]));
        rest = after;
        // Bit 0: direction; bits 1 to 3: what; bits 4 to 7: time that goes by.
        let direction = if step & 1 == 0 { Direction::Egress } else { Direction::Ingress };
        at += 1_000_u64 << ((step >> 4) * 2);
        match step >> 1 & 7 {
            0..=3 if split => {
                for octet in octets {
                    run.segment(direction, at, std::slice::from_ref(octet), 0, &[]);
                }
            }
            0..=3 => run.segment(direction, at, octets, 0, &[]),
            4 | 5 => {
                plain = false;
                let (octets, tail) = octets.split_at(octets.len() - octets.len().min(16));
                run.segment(direction, at, octets, tail.len() as u64 + u64::from(step & 2) * 50, tail);
            }
            6 => {
                plain = false;
                let lost = octets.first().map(|&lost| u64::from(lost));
                run.advance(direction, lost.unwrap_or(0));
                run.follower.gap(direction, lost, MonoNanos(at), &mut |exchange| run.exchanges.push(exchange));
            }
            _ => {
                plain = false;
                let end = match len % 4 {
                    0 => End::Reset { errno: None },
                    1 => End::TimedOut,
                    _ => End::Closed,
                };
                run.follower.end(direction, MonoNanos(at), end, &mut |exchange| run.exchanges.push(exchange));
            }
        }
        run.check();
    }
    run.follower.close(MonoNanos(at), End::Closed, &mut |exchange| run.exchanges.push(exchange));
    run.check();
    (run, plain)
}

/// The script says the same whatever its segments are cut into.
pub fn cut(script: &[u8], first: &First<'_>, whole: &Run) {
    let (split, _) = run(script, first, true);
    assert_eq!(format!("{:?}", whole.exchanges), format!("{:?}", split.exchanges));
    assert_eq!(whole.stats, split.stats);
}
