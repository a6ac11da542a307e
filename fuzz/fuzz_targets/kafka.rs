//! A script of segments, gaps and ends through the follower of Kafka. It must not panic, stay inside its limits, account for
//! every request, and say the same whatever the segments are cut into.
#![no_main]

// By path, not through the `agent` crate: the parsers depend on nothing of it, and so the fuzzer builds in seconds.
#[allow(dead_code, unused_imports, reason = "a target uses a part of the module")]
#[path = "../../agent/src/protocol/mod.rs"]
mod protocol;

use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq};
use libfuzzer_sys::fuzz_target;

use self::protocol::http::{Limits, Loss, Stats};
use self::protocol::kafka::{Config, Exchange, Follower, Topics};
use self::protocol::{End, Segment, Thread, Verdict};

/// A connection that has begun, so that not every input has to find a request first: `Heartbeat` with its response.
const BEGUN: &[u8] = b"\0\0\0\x16\0\x0c\0\0\0\0\0\0\0\x02me\0\x01g\0\0\0\x01\0\x01m";
const ANSWERED: &[u8] = b"\0\0\0\x06\0\0\0\0\0\0";

struct Run {
    follower: Follower,
    stats: Stats,
    exchanges: Vec<Exchange>,
    /// Where the next octet of each direction belongs.
    positions: [Seq; 2],
    over: bool,
}

fn config() -> Config {
    let limits =
        Limits { outstanding: 16, outstanding_octets: 1 << 16, held_octets: 1 << 20, held_segments: 1 << 20, head: 0 };
    Config { limits, partitions: 8, contexts: 8, partition_contexts: 4, content: 4096, decompressed: 8192, key: 8 }
}

impl Run {
    fn segment(&mut self, direction: Direction, at: u64, octets: &[u8], missing: u64, tail: &[u8]) {
        let before = self.exchanges.len();
        let position = self.advance(direction, octets.len() as u64 + missing);
        let segment = Segment { at: MonoNanos(at), thread: Thread::default(), position, octets, missing, tail };
        let verdict = self.follower.segment(direction, segment, &mut |exchange| self.exchanges.push(exchange));
        assert!(!self.over || (before == self.exchanges.len() && verdict != Verdict::Follow), "over is over");
        self.over = verdict != Verdict::Follow;
    }

    fn advance(&mut self, direction: Direction, octets: u64) -> Seq {
        let [egress, ingress] = &mut self.positions;
        let position = if direction == Direction::Egress { egress } else { ingress };
        let before = *position;
        *position = before.plus(octets as u32);
        before
    }

    fn check(&mut self) {
        self.stats += self.follower.take_stats();
        self.follower.notices();
        let outstanding = self.follower.outstanding();
        assert!(outstanding <= 16);
        assert_eq!(self.stats.exchanges, self.exchanges.len() as u64);
        assert_eq!(self.stats.requests, self.stats.exchanges + outstanding as u64 + self.stats.lost_requests());
        for direction in [Direction::Egress, Direction::Ingress] {
            let _ = self.follower.want(direction);
        }
    }
}

/// Runs the script; `split`: octet by octet where nothing is missing. The second value is false when the script has more in
/// it than whole segments.
fn run(script: &[u8], split: bool) -> (Run, bool) {
    let (&flags, mut rest) = script.split_first().unwrap_or((&1, &[]));
    let mut plain = flags & 1 == 1;
    let mut run = Run {
        follower: Follower::new(plain, Arc::new(config()), Arc::new(Topics::new(4))),
        stats: Stats::default(),
        exchanges: Vec::new(),
        positions: [Seq(0); 2],
        over: false,
    };
    let mut at = 0;
    if flags & 2 == 0 {
        run.segment(Direction::Egress, at, BEGUN, 0, &[]);
        run.segment(Direction::Ingress, at, ANSWERED, 0, &[]);
    }
    while let Some(([step, high, low], after)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([high & 7, *low]));
        let (octets, after) = after.split_at_checked(len).unwrap_or((after, &[]));
        rest = after;
        // Bit 0: direction; bits 1 to 3: what; bits 4 to 7: time that goes by.
        let direction = if step & 1 == 0 { Direction::Egress } else { Direction::Ingress };
        at += 1_000_u64 << ((step >> 4) * 2);
        match step >> 1 & 7 {
            0..=3 if split => {
                octets.iter().for_each(|octet| run.segment(direction, at, std::slice::from_ref(octet), 0, &[]))
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
                let end = if low % 4 == 0 { End::Reset { errno: None } } else { End::Closed };
                run.follower.end(direction, MonoNanos(at), end, &mut |exchange| run.exchanges.push(exchange));
            }
        }
        run.check();
    }
    run.follower.close(MonoNanos(at), End::Closed, &mut |exchange| run.exchanges.push(exchange));
    run.check();
    (run, plain)
}

fuzz_target!(|octets: &[u8]| {
    let (whole, plain) = run(octets, false);
    for exchange in &whole.exchanges {
        assert!(exchange.response_start.is_none_or(|start| start >= exchange.start), "{exchange:?}");
        assert!(exchange.end >= exchange.start && exchange.kafka.facts.partitions.len() <= 8, "{exchange:?}");
    }
    // After a loss the next message is searched at segments' starts, and responses that wait for a request are given up by
    // time and number, so cutting may change what is found.
    let searched = [Loss::Resynchronised, Loss::UnmatchedResponse, Loss::Invalid];
    let asked = octets.first().is_none_or(|flags| flags & 2 == 0);
    if plain && asked && searched.iter().all(|&loss| whole.stats.lost(loss) == 0) && !whole.over {
        let (split, _) = run(octets, true);
        assert_eq!(format!("{:?}", whole.exchanges), format!("{:?}", split.exchanges));
        assert_eq!(whole.stats, split.stats);
    }
});
