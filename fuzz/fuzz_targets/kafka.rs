//! A script of segments, gaps and ends through the follower of Kafka (`script`), which says the same whatever the segments are
//! cut into.
#![no_main]

// By path, not through the `agent` crate: the parsers depend on nothing of it, and so the fuzzer builds in seconds.
#[allow(dead_code, unused_imports, reason = "a target uses a part of the module")]
#[path = "../../agent/src/protocol/mod.rs"]
mod protocol;
#[allow(dead_code, reason = "it has what followers of HTTP are made with")]
#[path = "../script.rs"]
mod script;

use std::sync::Arc;

use agent_common::ids::Direction;
use libfuzzer_sys::fuzz_target;

use self::protocol::http::{Limits, Loss};
use self::protocol::kafka::{Config, Exchange, Follower, Topics};

/// A connection that has begun, so that not every input has to find a request first: `Heartbeat` with its response.
const BEGUN: &script::First<'_> = &[
    (Direction::Egress, b"\0\0\0\x16\0\x0c\0\0\0\0\0\0\0\x02me\0\x01g\0\0\0\x01\0\x01m"),
    (Direction::Ingress, b"\0\0\0\x06\0\0\0\0\0\0"),
];

fn follower(fresh: bool) -> Follower {
    let limits = Limits { outstanding_octets: 1 << 16, ..script::LIMITS };
    let config =
        Config { limits, partitions: 8, contexts: 8, partition_contexts: 4, content: 4096, decompressed: 8192, key: 8 };
    Follower::new(fresh, Arc::new(config), Arc::new(Topics::new(4)))
}

fuzz_target!(|octets: &[u8]| {
    let (whole, plain) = script::run(octets, BEGUN, false);
    for exchange in &whole.exchanges {
        assert!(exchange.response_start.is_none_or(|start| start >= exchange.start), "{exchange:?}");
        assert!(exchange.end >= exchange.start && exchange.message.facts.partitions.len() <= 8, "{exchange:?}");
    }
    // After a loss the next message is searched at segments' starts, and responses that wait for a request are given up by
    // time and number, so cutting may change what is found.
    let searched = [Loss::Resynchronised, Loss::UnmatchedResponse, Loss::Invalid];
    let asked = octets.first().is_none_or(|flags| flags & 2 == 0);
    if plain && asked && searched.iter().all(|&loss| whole.stats.lost(loss) == 0) && !whole.over {
        script::cut(octets, BEGUN, &whole);
    }
});
