//! What real clients and brokers have sent (`testdata/README.md`).

use std::fmt::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

pub(super) type Script = Vec<(Direction, Vec<u8>)>;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/protocol/kafka/testdata")
}

/// One capture: messages in the order in which they were sent.
pub(super) fn vector(name: &str) -> Script {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let message = |line: &str| {
        let (mark, octets) = line.split_once(' ').unwrap();
        (if mark == ">" { Q } else { R }, STANDARD.decode(octets).unwrap())
    };
    text.lines().filter(|line| !line.starts_with('#')).map(message).collect()
}

pub(super) fn names() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.ends_with(".txt") && name != "expected.txt").collect();
    names.sort_unstable();
    names
}

/// The names of topics, as `java-all-none-1.txt` has told them.
pub(super) fn topics() -> Arc<Topics> {
    let mut bench = Bench::new(true);
    for (direction, octets) in vector("java-all-none-1.txt") {
        bench.feed(direction, octets);
    }
    assert_eq!(bench.topics.len(), 1);
    Arc::clone(&bench.topics)
}

fn run(name: &str, topics: &Arc<Topics>) -> Bench {
    let mut bench = Bench::with(true, config(), Arc::clone(topics));
    for (direction, octets) in vector(name) {
        bench.feed(direction, octets);
    }
    bench.close();
    bench
}

/// One line for a call, and one for each partition.
fn summary(exchange: &Exchange) -> String {
    let Call { api, version, client_id, request_body, response_body, facts, .. } = &exchange.message;
    let mut line = format!("{} v{version} {}", api.name().unwrap(), client_id.as_deref().unwrap_or("-"));
    write!(line, " {request_body:?}/{response_body:?}").unwrap();
    let error = facts.error.map(|error| error.name().unwrap());
    for (name, value) in [
        ("failure", exchange.failure.map(|failure| format!("{failure:?}"))),
        ("error", error.map(String::from)),
        ("acks", facts.acks.map(|acks| acks.to_string())),
        ("transaction", facts.transactional_id.as_ref().map(ToString::to_string)),
        ("producer", facts.producer_id.map(|id| format!("{id}/{}", facts.producer_epoch.unwrap_or(-1)))),
        ("group", facts.group.as_ref().map(ToString::to_string)),
        ("generation", facts.generation.map(|generation| generation.to_string())),
        ("mechanism", facts.mechanism.as_ref().map(ToString::to_string)),
        ("empty", exchange.message.is_empty_poll().filter(|_| *api == ApiKey::FETCH).map(|empty| empty.to_string())),
    ] {
        if let Some(value) = value {
            write!(line, " {name}={value}").unwrap();
        }
    }
    for partition in &facts.partitions {
        let topic = partition.topic.name.as_deref().unwrap_or("?");
        write!(line, "\n  {topic}[{}]", partition.index.unwrap()).unwrap();
        for (name, value) in [
            ("error", partition.error.map(|error| i64::from(error.0))),
            ("offset", partition.offset),
            ("high", partition.high_watermark),
        ] {
            if let Some(value) = value {
                write!(line, " {name}={value}").unwrap();
            }
        }
        let Some(records) = &partition.records else { continue };
        write!(line, " {} B", records.body_size().unwrap()).unwrap();
        if let Some(count) = records.count {
            write!(line, " count={count} batches={}", records.batches).unwrap();
        }
        if let (Some(first), Some(last)) = (records.first_offset, records.last_offset) {
            write!(line, " offsets={first}..={last}").unwrap();
        }
        if let Some(compression) = records.compression {
            write!(line, " {}", compression.as_str()).unwrap();
        }
        if let Some(Producer { id, epoch, base_sequence }) = records.producer {
            write!(line, " producer={id}/{epoch}/{base_sequence}").unwrap();
        }
        if let Some(key) = &records.first_key {
            write!(line, " key={}", String::from_utf8_lossy(key)).unwrap();
        }
        write!(line, " read={}", records.read).unwrap();
        for RecordContext { offset, context } in &records.contexts {
            write!(line, " {offset}:{}", context.trace_id.0[15]).unwrap();
        }
    }
    line
}

/// All of it as it was looked through by hand once. `REMORA_BLESS=1` writes it anew.
#[test]
fn every_vector_is_told_as_expected() {
    let topics = topics();
    let mut told = String::new();
    for name in names() {
        let bench = run(&name, &topics);
        writeln!(told, "# {name}").unwrap();
        for exchange in &bench.out {
            writeln!(told, "{}", summary(exchange)).unwrap();
        }
        assert_eq!(bench.losses(), [], "{name}");
        assert_eq!(bench.verdict, Verdict::Follow, "{name}");
    }
    let path = folder().join("expected.txt");
    if std::env::var_os("REMORA_BLESS").is_some() {
        std::fs::write(&path, &told).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    for (told, expected) in told.lines().zip(expected.lines()) {
        assert_eq!(told, expected);
    }
    assert_eq!(told.len(), expected.len());
}

/// What the producers' programs did: records 1 to 3, of odd number to partition 1, each with a context of its number.
#[test]
fn producers_are_told_as_they_were_programmed() {
    let topics = topics();
    let (mut seen, mut codecs) = (0, Vec::new());
    for name in names().iter().filter(|name| !name.starts_with("sarama") && !name.contains("consume")) {
        let bench = run(name, &topics);
        let calls: Vec<_> = bench.out.iter().filter(|exchange| exchange.message.api == ApiKey::PRODUCE).collect();
        let Some(first) = calls.first() else { continue };
        seen += 1;
        let facts = &first.message.facts;
        if name.contains("acks0") {
            assert!(facts.acks == Some(0) && first.response_start.is_none() && facts.error.is_none(), "{name}");
        } else {
            let acks = if name.contains("acks1") { 1 } else { -1 };
            assert!(facts.acks == Some(acks) && facts.error == Some(ErrorCode::NONE), "{name}");
        }
        assert_eq!(facts.transactional_id.is_some(), name.contains("txn"), "{name}");
        let partitions: Vec<_> = calls.iter().flat_map(|exchange| &exchange.message.facts.partitions).collect();
        let mut contexts = Vec::new();
        for partition in &partitions {
            let records = partition.records.as_ref().unwrap();
            assert_eq!(partition.topic.name.as_deref(), Some("orders"), "{name}");
            assert_eq!(records.count, Some(records.read), "{name}");
            assert_eq!(records.contexts.len() as u64, records.read, "{name}");
            assert!(facts.acks == Some(0) || partition.offset.is_some(), "{name}");
            codecs.extend(records.compression);
            for (place, context) in records.contexts.iter().enumerate() {
                assert_eq!(context.offset, place as i64, "{name}");
                contexts.push((partition.index.unwrap(), context.context.trace_id.0[15]));
            }
        }
        contexts.sort_unstable();
        let expected: &[(i32, u8)] = if name.starts_with("kjs-txn") { &[(0, 7)] } else { &[(0, 2), (1, 1), (1, 3)] };
        assert_eq!(contexts, expected, "{name}");
    }
    assert_eq!(seen, 30);
    for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        assert!(codecs.contains(&codec), "{codec:?}");
    }
}

/// A topic that goes by its id has no name before some connection has told it.
#[test]
fn ids_without_a_name_stay_unknown() {
    let bench = run("java-all-none-2.txt", &Arc::new(Topics::new(16)));
    let partition = &bench.out.last().unwrap().message.facts.partitions[0];
    assert!(partition.topic.name.is_none() && partition.topic.id.is_some());
    assert_eq!(topics().name(partition.topic.id.unwrap()).as_deref(), Some("orders"));
}

#[test]
fn a_vector_is_read_alike_on_the_side_of_the_broker() {
    for name in names() {
        let client = run(&name, &topics());
        let mut broker = Bench::with(true, config(), topics());
        for (direction, octets) in vector(&name) {
            broker.feed(direction.opposite(), octets);
        }
        broker.close();
        // What records say is of use for their clients' spans alone.
        let told = |bench: &Bench| {
            let told = |exchange: &Exchange| {
                let mut call = exchange.message.clone();
                for records in call.facts.partitions.iter_mut().filter_map(|partition| partition.records.as_mut()) {
                    (records.read, records.first_key) = (0, None);
                    records.contexts.clear();
                }
                format!("{call:?}")
            };
            bench.out.iter().map(told).collect::<Vec<_>>()
        };
        assert_eq!(told(&client), told(&broker), "{name}");
        assert_eq!(broker.follower.request_direction(), Some(R), "{name}");
    }
}
