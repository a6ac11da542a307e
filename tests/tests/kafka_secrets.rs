//! Kafka: keys of messages are told when they are asked for, and what a client says to be let in never is.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::agent::{Agent, Builder};
use tests::kafka::{
    Batch, Broker, Consume, Consumer, Kind, PASSWORD, Produce, Producer, Record, USER, VERSIONS, exactly, of_topic,
    offsets, taken,
};
use tests::names::{MESSAGES_CONSUMED, MESSAGES_SENT, MESSAGING_DURATION};
use tests::span::{CONSUMER, PRODUCER, Span};
use tests::tls::Credentials;
use tests::{env, needs, wait};

const KEY: &str = "messaging.kafka.message.key";

/// Waits until the agent has counted so many messages on both sides.
fn counted(agent: &Agent, messages: usize) {
    // Too few are better told of by the comparison that follows than by a deadline.
    let _ = wait::until(Duration::from_secs(10), "all messages are counted", || {
        let metrics = agent.metrics()?;
        let counted = metrics.sum(MESSAGES_SENT, &[]) + metrics.sum(MESSAGES_CONSUMED, &[]);
        Ok((counted + 0.5 > messages as f64).then_some(()))
    });
}

/// Fails unless each span of one record has its key, and no other span has any; gives how many have one.
fn keyed(batches: &[Batch<'_>], records: &[Record]) -> Result<usize> {
    let keys: BTreeMap<_, _> = records.iter().map(|record| ((record.partition, record.offset), &*record.key)).collect();
    let mut single = 0;
    for Batch { span, partition, offset, count } in batches {
        let expected = (*count == 1).then(|| keys.get(&(*partition, *offset)).context("nobody has sent it"));
        let expected = expected.transpose().with_context(|| format!("{span:?}"))?.copied();
        ensure!(span.str(KEY) == expected, "the key is not {expected:?}: {span:?}");
        single += usize::from(expected.is_some());
    }
    Ok(single)
}

#[test]
fn keys_are_told_of_single_records_when_they_are_asked_for() -> Result<()> {
    needs!("root", "kafka");
    let broker = Broker::start(VERSIONS[0])?;
    let plans = [
        (Kind::Librdkafka, Produce::to("rdk-one").batch(1).count(20), Kind::Kcat),
        (Kind::Franz, Produce::to("go-one").batch(1).count(20).compression("zstd"), Kind::Librdkafka),
        (Kind::Kafkajs, Produce::to("node-one").batch(1).count(20).compression("gzip"), Kind::Java),
        (Kind::Java, Produce::to("java-many").count(40).interval_ms(50), Kind::Kafkajs),
    ];
    for wanted in [true, false] {
        let agent = Builder::new()?.port(broker.port);
        let agent = if wanted { agent.args(&["--capture-message-key"]) } else { agent }.start()?;
        let mut done = Vec::new();
        for (sender, plan, receiver) in &plans {
            let mut plan = plan.clone().interval_ms(30);
            plan.topic = format!("{}-{wanted}", plan.topic);
            broker.create(&plan.topic, 2)?;
            let consumer = Consumer::start(*receiver, &broker, &Consume::from(&plan.topic, &plan.topic))?;
            // To join a group takes longer than to send all.
            Producer::run(Kind::Franz, &broker, &Produce::to(&plan.topic).count(1).batch(1))?;
            consumer.receives(1)?;
            let producer = Producer::start(*sender, &broker, &plan)?;
            let pids = (producer.pid(), consumer.pid());
            let sent = producer.finish()?;
            consumer.receives(sent.len() + 1)?;
            done.push((sent, consumer.stop()?, pids, *receiver));
        }
        // What is null, no text, or too long.
        broker.create("odd", 1).or_else(|error| if wanted { Err(error) } else { Ok(()) })?;
        let odd = [&b"\xff\xfe"[..], &[b'k'; 257], b"", &[b'k'; 256]];
        let pids = odd.map(|key| kcat(&broker, key)).into_iter().collect::<Result<Vec<_>>>()?;
        let all: usize = done.iter().map(|(sent, received, ..)| sent.len() + 1 + received.len()).sum();
        counted(&agent, all + odd.len());
        let spans = agent.stop()?.spans;
        if !wanted {
            let told = spans.iter().find(|span| span.str(KEY).is_some());
            ensure!(told.is_none() && !spans.is_empty(), "nobody has asked for it: {told:?}");
            continue;
        }
        for (sent, received, (producer, consumer), receiver) in &done {
            let topic = &sent[0].topic;
            let single = keyed(&of_topic(&spans, &broker, PRODUCER, *producer, topic)?, sent)?;
            let fetched = of_topic(&spans, &broker, CONSUMER, *consumer, topic)?;
            let alone = keyed(&taken(&fetched, *receiver), received).context("receive")?;
            let all = if topic.contains("one") { 20 } else { 0 };
            ensure!(single == all, "{topic}: {single} of {all} were sent with their key");
            ensure!(alone >= all / 2, "{topic}: only {alone} of {all} have come with their key");
        }
        for (key, pid) in odd.iter().zip(pids) {
            let sent = of_topic(&spans, &broker, PRODUCER, pid, "odd")?;
            let told: Vec<_> = sent.iter().map(|batch| batch.span.str(KEY).map(str::as_bytes)).collect();
            let expected = (key.len() == 256).then_some(*key);
            ensure!(told == [expected], "{:?} was sent with {told:?}", String::from_utf8_lossy(key));
        }
    }
    Ok(())
}

/// Sends one record to the topic `odd`, of the key null where none is given.
fn kcat(broker: &Broker, key: &[u8]) -> Result<u32> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), [key, b":value\n"].concat())?;
    let mut command = Command::new(env::which("kcat").context("no kcat")?);
    command.args(["-P", "-q", "-b", &broker.bootstrap(), "-t", "odd", "-p", "0", "-K", ":", "-Z", "-l"]);
    let mut child = command.arg(file.path()).spawn()?;
    let pid = child.id();
    ensure!(child.wait()?.success(), "kcat cannot send");
    Ok(pid)
}

/// All that the agent tells to anybody, but for its spans.
fn told(agent: &Agent) -> Result<String> {
    let mut all = agent.stderr();
    for path in ["/metrics", "/api/traces", "/api/services"] {
        all += &agent.get(path)?.body;
    }
    Ok(all)
}

/// The password, and how messages of PLAIN and SCRAM with what stands for it begin, as they are and as Rust's debug output has it.
fn secrets() -> [String; 5] {
    [PASSWORD.to_owned(), format!("{USER}\0"), format!("{USER}\\0"), format!("n={USER},r="), "c=biws,r=".to_owned()]
}

/// A topic, who sends to it and who receives from it, how these say who they are, and which version they take the broker for.
type Plan = (&'static str, Kind, Kind, &'static str, Option<&'static str>);

/// Fails unless all have the spans that they have without saying who they are, and no secret is told.
fn let_in(broker: &Broker, agent: Agent, plans: &[Plan]) -> Result<()> {
    let mut done = Vec::new();
    for &(topic, sender, receiver, mechanism, taken_for) in plans {
        broker.create(topic, 2)?;
        let mut produce = Produce::to(topic).sasl(mechanism);
        let mut consume = Consume::from(topic, topic).sasl(mechanism);
        (produce.taken_for, consume.taken_for) = (taken_for, taken_for);
        let what = || format!("{topic}; the broker says {}", broker.stderr());
        let consumer = Consumer::start(receiver, broker, &consume)?;
        let producer = Producer::start(sender, broker, &produce)?;
        let pids = (producer.pid(), consumer.pid());
        producer.finish().with_context(what)?;
        consumer.receives(produce.count).with_context(what)?;
        done.push((topic, pids, receiver, consumer.stop()?));
    }
    counted(&agent, 2 * done.iter().map(|(_, _, _, received)| received.len()).sum::<usize>());
    let metrics = agent.metrics()?;
    let told = told(&agent)?;
    let stopped = agent.stop()?;
    let spans: &[Span] = &stopped.spans;
    for (topic, (producer, consumer), receiver, received) in &done {
        let places = offsets(received)?;
        exactly(&of_topic(spans, broker, PRODUCER, *producer, topic)?, &places)
            .with_context(|| format!("to {topic}"))?;
        let fetched = of_topic(spans, broker, CONSUMER, *consumer, topic)?;
        exactly(&taken(&fetched, *receiver), &places).with_context(|| format!("from {topic}"))?;
    }
    let calls =
        |operation| metrics.sum(&format!("{MESSAGING_DURATION}_count"), &[("messaging_operation_name", operation)]);
    println!("{} SaslHandshake, {} SaslAuthenticate", calls("SaslHandshake"), calls("SaslAuthenticate"));
    let with_heads = plans.iter().filter(|(.., taken_for)| taken_for.is_none()).count();
    ensure!(calls("SaslHandshake") >= 2.0 * plans.len() as f64, "{} SaslHandshake", calls("SaslHandshake"));
    ensure!(calls("SaslAuthenticate") >= 2.0 * with_heads as f64, "{} SaslAuthenticate", calls("SaslAuthenticate"));
    let all = [told, stopped.stderr, format!("{spans:?}")].concat();
    let looked_through = plans.iter().all(|(topic, ..)| all.contains(topic));
    ensure!(all.contains("SaslHandshake") && looked_through, "not all was looked through");
    for secret in secrets() {
        if let Some(at) = all.find(&secret) {
            let from = all.floor_char_boundary(at.saturating_sub(200));
            bail!("{secret:?} is told: {}", &all[from..all.ceil_char_boundary(at + 50)]);
        }
    }
    Ok(())
}

/// An agent that would tell much.
fn talkative(broker: &Broker) -> Result<Builder> {
    Ok(Builder::new()?.port(broker.clients_port()).args(&["--capture-message-key", "--log", "trace"]))
}

#[test]
fn clients_that_say_who_they_are_have_the_same_spans_and_no_secret_is_told() -> Result<()> {
    needs!("root", "kafka");
    // The newest broker knows no client that does not ask for its versions.
    let broker = Broker::start_sasl(VERSIONS[1])?;
    let agent = talkative(&broker)?.start()?;
    let plans = [
        ("rdk-plain", Kind::Librdkafka, Kind::Kcat, "PLAIN", None),
        ("rdk-scram", Kind::Kcat, Kind::Librdkafka, "SCRAM-SHA-256", None),
        ("node-plain", Kind::Kafkajs, Kind::Kafkajs, "PLAIN", None),
        ("node-scram", Kind::Kafkajs, Kind::Kcat, "SCRAM-SHA-256", None),
        ("java-plain", Kind::Java, Kind::Franz, "PLAIN", None),
        ("java-scram", Kind::Java, Kind::Java, "SCRAM-SHA-256", None),
        ("go-plain", Kind::Franz, Kind::Java, "PLAIN", None),
        ("go-scram", Kind::Franz, Kind::Franz, "SCRAM-SHA-256", None),
        // Tokens without a head (KIP-43).
        ("old-plain", Kind::Kcat, Kind::Kcat, "PLAIN", Some("0.10.0.0")),
        ("old-scram", Kind::Kcat, Kind::Kcat, "SCRAM-SHA-256", Some("0.10.2.0")),
    ];
    let_in(&broker, agent, &plans)
}

/// By TLS, where the library is one that is seen through, its clear text has the same secrets.
#[test]
fn clients_that_say_so_by_tls_have_the_same_spans_and_no_secret_is_told() -> Result<()> {
    needs!("root", "kafka");
    let credentials = Credentials::new()?;
    let broker = Broker::start_sasl_tls(VERSIONS[1], &credentials)?;
    let agent = talkative(&broker)?.tls().start()?;
    // A program that was never seen before is read while it runs. Members of a group send heartbeats.
    broker.create("nothing", 1)?;
    let mut idle = Vec::new();
    for kind in [Kind::Kcat, Kind::Kafkajs, Kind::Franz] {
        let name = format!("nothing-{kind:?}");
        idle.push(Consumer::start(kind, &broker, &Consume::from("nothing", &name).sasl("PLAIN"))?);
        wait::until(Duration::from_secs(20), &format!("calls of {kind:?} are seen"), || {
            let labels = [("messaging_consumer_group_name", &*name)];
            Ok((agent.metrics()?.sum(&format!("{MESSAGING_DURATION}_count"), &labels) > 0.0).then_some(()))
        })?;
    }
    let plans = [
        ("kcat-plain", Kind::Kcat, Kind::Kafkajs, "PLAIN", None),
        ("node-scram", Kind::Kafkajs, Kind::Franz, "SCRAM-SHA-256", None),
        ("go-scram", Kind::Franz, Kind::Kcat, "SCRAM-SHA-256", None),
    ];
    let_in(&broker, agent, &plans)?;
    idle.into_iter().try_for_each(|consumer| consumer.stop().map(drop))
}
