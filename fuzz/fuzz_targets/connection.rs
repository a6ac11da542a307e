//! A script of segments, gaps and ends through the follower that finds out which protocol it is (`script`), also when that
//! changes by `Upgrade: h2c`. It says the same whatever the segments are cut into.
#![no_main]

// By path, not through the `agent` crate: the parsers depend on nothing of it, and so the fuzzer builds in seconds.
#[allow(dead_code, unused_imports, reason = "a target uses a part of the module")]
#[path = "../../agent/src/protocol/mod.rs"]
mod protocol;
#[path = "../script.rs"]
mod script;

use std::sync::Arc;

use agent_common::ids::Direction;
use libfuzzer_sys::fuzz_target;

use self::protocol::http::Loss;
use self::protocol::{Config, Exchanged as Exchange, Follower, amqp, kafka};

/// A request that asks for HTTP/2.
const ASK: &script::First<'_> = &[(
    Direction::Egress,
    b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAACAA\r\n\r\n",
)];

fn follower(fresh: bool) -> Follower {
    let kafka = kafka::Config { limits: script::LIMITS, ..Default::default() };
    let amqp = amqp::Config { limits: script::LIMITS, ..Default::default() };
    let (kafka, amqp) = (Arc::new(kafka), Arc::new(amqp));
    Follower::new(fresh, Arc::new(Config { http: script::config(), kafka, amqp, ..Config::default() }))
}

fuzz_target!(|octets: &[u8]| {
    let (whole, plain) = script::run(octets, ASK, false);
    for exchange in &whole.exchanges {
        let course = exchange.course();
        assert!(course.response_start.is_none_or(|start| start >= course.start), "{exchange:?}");
    }
    // After a loss the next message is searched at segments' starts, so cutting may change what is found.
    let searched = [Loss::Resynchronised, Loss::UnmatchedResponse, Loss::HeadTooLarge, Loss::Invalid];
    // What begins otherwise is told by more than its first octet.
    let asked = octets.first().is_none_or(|flags| flags & 2 == 0);
    if plain && asked && searched.iter().all(|&loss| whole.stats.lost(loss) == 0) && !whole.over {
        script::cut(octets, ASK, &whole);
    }
});
