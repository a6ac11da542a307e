//! A script of segments, gaps and ends through the HTTP/2 follower (`script`), which says the same whatever the segments
//! are cut into.
#![no_main]

// By path, not through the `agent` crate: the parsers depend on nothing of it, and so the fuzzer builds in seconds.
#[allow(dead_code, unused_imports, reason = "a target uses a part of the module")]
#[path = "../../agent/src/protocol/mod.rs"]
mod protocol;
#[path = "../script.rs"]
mod script;

use agent_common::ids::Direction;
use libfuzzer_sys::fuzz_target;

use self::protocol::Exchange;
use self::protocol::http::Loss;
use self::protocol::http2::Follower;

/// A connection that has begun, so that not every input has to find the preface first.
const BEGUN: &script::First<'_> = &[(Direction::Egress, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")];

fn follower(fresh: bool) -> Follower {
    Follower::new(fresh, script::config())
}

fuzz_target!(|octets: &[u8]| {
    let (whole, plain) = script::run(octets, BEGUN, false);
    for exchange in &whole.exchanges {
        assert!(exchange.response_start.is_none_or(|start| start >= exchange.start), "{exchange:?}");
        assert!(exchange.end >= exchange.start, "{exchange:?}");
    }
    // After a loss the next frame is searched at segments' starts, so cutting may change what is found.
    if plain && [Loss::Resynchronised, Loss::Invalid].iter().all(|&loss| whole.stats.lost(loss) == 0) && !whole.over {
        script::cut(octets, BEGUN, &whole);
    }
});
