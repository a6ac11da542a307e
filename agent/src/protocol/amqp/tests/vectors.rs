//! What real clients and a real broker have sent (`testdata/README.md`).

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

pub(super) type Script = Vec<(Direction, Vec<u8>)>;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/protocol/amqp/testdata")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// One capture: frames, messages as a whole, in an order in which they may have been sent.
pub(super) fn vector(name: &str) -> Script {
    let call = |line: &str| {
        let (mark, octets) = line.split_once(' ').unwrap();
        (if mark == ">" { Q } else { R }, STANDARD.decode(octets).unwrap())
    };
    text(name).lines().filter(|line| !line.starts_with('#')).map(call).collect()
}

pub(super) fn names() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.ends_with(".txt")).collect();
    names.sort_unstable();
    assert!(names.len() > 30);
    names
}

pub(super) fn run(script: &Script) -> Bench {
    let mut bench = Bench::new(true);
    script.iter().for_each(|(direction, octets)| _ = bench.feed(*direction, octets));
    bench.close();
    bench
}

/// What a client says of a message, in the words of the captures.
fn told(exchange: &Exchange) -> String {
    let message = &exchange.message;
    let publish = message.kind == Kind::Publish;
    let named = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("-").to_string();
    let result = match &message.settled {
        Settled::Unconfirmed | Settled::Confirmed => "ok",
        Settled::Nacked { requeue } if publish != *requeue => "nack",
        Settled::Returned { code: 312, text } => text,
        Settled::ChannelClosed => {
            let (code, text) = message.error.as_ref().unwrap();
            assert_eq!(*code, 404);
            text.split_once(' ').unwrap().0
        }
        Settled::Automatic => "none",
        Settled::Acknowledged => "ack",
        Settled::Rejected { requeue: false } => "reject",
        other => panic!("{other:?}"),
    };
    [
        if publish { "producer" } else { "consumer" },
        &named(message.properties.message_id.as_deref()),
        &named(message.exchange.as_deref()),
        &named(message.routing_key.as_deref()),
        &named(message.queue.as_deref()),
        &message.delivery_tag.filter(|_| !publish).map_or_else(|| "-".into(), |tag| tag.to_string()),
        result,
    ]
    .join(" ")
}

/// All that the clients themselves say is told, and nothing else.
#[test]
fn vectors_are_told_as_by_their_clients() {
    for name in names() {
        let bench = run(&vector(&name));
        let mut exchanges: Vec<&Exchange> = bench.out.iter().collect();
        exchanges.sort_by_key(|exchange| exchange.number);
        let bare = name.contains("bare") || name.contains("empty");
        let truth = text(&name);
        let said = truth.lines().filter_map(|line| line.strip_prefix("# "));
        // Which message it is, the captures know by its body.
        let mask = |line: &str| {
            let mut words: Vec<&str> = line.split(' ').collect();
            words[1] = if bare { "-" } else { words[1] };
            words.join(" ")
        };
        let said: Vec<String> = said.map(mask).collect();
        assert_eq!(exchanges.iter().map(|one| told(one)).collect::<Vec<_>>(), said, "{name}");
        for exchange in exchanges {
            let message = &exchange.message;
            assert!(!exchange.partial && exchange.failure.is_none(), "{name}");
            assert!(matches!(message.body_size, Some(100 | 307_200)) && message.content.is_some(), "{name}");
            assert_eq!(message.virtual_host.as_deref(), Some("/"), "{name}");
            assert_eq!(message.cluster.as_deref(), Some("remora-45672@vm"), "{name}");
            assert_eq!(message.context.is_some(), name.contains("traceparent") || message.queue.is_some(), "{name}");
            assert_eq!(message.delivery_tag.is_some(), !matches!(message.settled, Settled::Unconfirmed), "{name}");
        }
        assert_eq!(bench.begun().len(), bench.out.len(), "{name}");
        assert_eq!(bench.losses(), [], "{name}");
    }
}
