//! A script of segments, gaps and ends through the follower of AMQP (`script`), which says the same whatever the segments are
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

use self::protocol::amqp::{Config, Exchange, Follower};
use self::protocol::http::{Limits, Loss};

/// A connection with a channel that confirms, and a consumer, so that not every input has to find them first.
const BEGUN: &script::First<'_> = &[
    (Direction::Egress, b"AMQP\0\0\x09\x01"),
    (Direction::Egress, b"\x01\0\x01\0\0\0\x05\0\x14\0\x0a\0\xce"),
    (Direction::Ingress, b"\x01\0\x01\0\0\0\x08\0\x14\0\x0b\0\0\0\0\xce"),
    (Direction::Egress, b"\x01\0\x01\0\0\0\x05\0\x55\0\x0a\x01\xce"),
    (Direction::Egress, b"\x01\0\x01\0\0\0\x0f\0\x3c\0\x14\0\0\x01q\x01c\x08\0\0\0\0\xce"),
];

fn follower(fresh: bool) -> Follower {
    let limits = Limits { outstanding_octets: 1 << 12, ..script::LIMITS };
    let config = Config { limits, content: 16, frame: 512, channels: 4, consumers: 4 };
    Follower::new(fresh, Arc::new(config))
}

fuzz_target!(|octets: &[u8]| {
    let (whole, plain) = script::run(octets, BEGUN, false);
    for exchange in &whole.exchanges {
        assert!(exchange.response_start.is_none_or(|start| start >= exchange.start), "{exchange:?}");
        assert!(exchange.end >= exchange.request_end && exchange.request_end >= exchange.start, "{exchange:?}");
        let message = &exchange.message;
        assert!(message.content.is_none() || message.body_size.is_some() && !exchange.partial, "{exchange:?}");
    }
    // After a loss the next frame is searched at segments' starts, so cutting may change what is found.
    let searched = [Loss::Resynchronised, Loss::Invalid];
    let asked = octets.first().is_none_or(|flags| flags & 2 == 0);
    if plain && asked && searched.iter().all(|&loss| whole.stats.lost(loss) == 0) && !whole.over {
        script::cut(octets, BEGUN, &whole);
    }
});
