//! A script of segments, gaps and ends through the HTTP/1.x follower (`script`), which says the same whatever the segments
//! are cut into.
#![no_main]

// By path, not through the `agent` crate: the parsers depend on nothing of it, and so the fuzzer builds in seconds.
#[allow(dead_code, unused_imports, reason = "a target uses a part of the module")]
#[path = "../../agent/src/protocol/mod.rs"]
mod protocol;
#[path = "../script.rs"]
mod script;

use libfuzzer_sys::fuzz_target;

use self::protocol::Exchange;
use self::protocol::http::Loss;
use self::protocol::http1::Follower;

fn follower(fresh: bool) -> Follower {
    Follower::new(fresh, script::config())
}

fuzz_target!(|octets: &[u8]| {
    let (whole, plain) = script::run(octets, &[], false);
    for exchange in &whole.exchanges {
        assert!(exchange.response_start.is_none_or(|start| start >= exchange.start), "{exchange:?}");
        assert!(exchange.message.status.is_some() == exchange.response_start.is_some(), "{exchange:?}");
        assert!(exchange.message.status.is_some() || exchange.failure.is_some(), "{exchange:?}");
    }
    // After a loss the next message is searched at segments' starts, so cutting may change what is found.
    let searched = [Loss::Resynchronised, Loss::UnmatchedResponse, Loss::HeadTooLarge, Loss::Invalid];
    if plain && searched.iter().all(|&loss| whole.stats.lost(loss) == 0) {
        script::cut(octets, &[], &whole);
    }
});
