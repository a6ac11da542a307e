//! A script of segments, gaps and ends through the HTTP/2 follower. It must not panic, stay inside its limits, account
//! for every request, and say the same whatever the segments are cut into.
#![no_main]

// By path, not through the `agent` crate: the parsers depend on nothing of it, and so the fuzzer builds in seconds.
#[allow(dead_code, unused_imports, reason = "a target uses a part of the module")]
#[path = "../../agent/src/protocol/mod.rs"]
mod protocol;

use std::sync::Arc;

use self::protocol::http::{Config, Limits, Loss, Stats};
use self::protocol::http2::Follower;
use self::protocol::{Begun, End, Exchange, Notice, Segment, Thread, Verdict};
use agent_common::ids::{Direction, MonoNanos, Seq};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits =
    Limits { head: 4096, outstanding: 16, outstanding_octets: 8192, held_octets: 1 << 20, held_segments: 1 << 20 };

struct Run {
    follower: Follower,
    stats: Stats,
    exchanges: Vec<Exchange>,
    /// Where the next octet of each direction belongs.
    positions: [Seq; 2],
    over: bool,
}

impl Run {
    fn new(fresh: bool) -> Self {
        let config = Config {
            request_headers: vec!["host".into()],
            response_headers: vec!["date".into()],
            request_id_headers: vec!["x-request-id".into()],
            limits: LIMITS,
        };
        Self {
            follower: Follower::new(fresh, Arc::new(config)),
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
            let (Notice::Begun(Begun { number, .. }) | Notice::Dropped { number }) = notice;
            assert!(u64::from(number) <= self.stats.requests, "a request that was not counted");
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

/// Runs the script; `split`: octet by octet where nothing is missing. The second value is false when the script has
/// more in it than whole segments.
fn run(script: &[u8], split: bool) -> (Run, bool) {
    let (&flags, mut rest) = script.split_first().unwrap_or((&1, &[]));
    let mut run = Run::new(flags & 1 == 1);
    let mut plain = flags & 1 == 1;
    let mut at = 0;
    if flags & 2 == 0 {
        run.segment(Direction::Egress, at, BEGUN, 0, &[]);
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

/// A connection that has begun, so that not every input has to find the preface first.
const BEGUN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fuzz_target!(|script: &[u8]| {
    let (whole, plain) = run(script, false);
    for exchange in &whole.exchanges {
        assert!(exchange.response_start.is_none_or(|start| start >= exchange.start), "{exchange:?}");
        assert!(exchange.end >= exchange.start, "{exchange:?}");
    }
    // After a loss the next frame is searched at segments' starts, so cutting may change what is found.
    if plain && [Loss::Resynchronised, Loss::Invalid].iter().all(|&loss| whole.stats.lost(loss) == 0) && !whole.over {
        let (split, _) = run(script, true);
        assert_eq!(format!("{:?}", whole.exchanges), format!("{:?}", split.exchanges));
        assert_eq!(whole.stats, split.stats);
    }
});
