//! Kafka: every record is accounted for, by its producer's spans and by those of each group that reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::kafka::{
    Batch, Broker, Consume, Consumer, Kind, Offsets, Produce, Producer, Record, VERSIONS, exactly, of_topic, offsets,
    taken, wait_for_group,
};
use tests::metrics::Metrics;
use tests::names::{MESSAGES_CONSUMED, MESSAGES_SENT, MESSAGING_DURATION};
use tests::span::{CONSUMER, ERROR, PRODUCER, Span};
use tests::tls::Credentials;
use tests::{needs, wait};

/// A topic that one client fills and two groups of one client each read.
struct Case {
    plan: Produce,
    producer: (Kind, u32),
    consumers: [(Kind, u32); 2],
    /// Where the records are, by the clients' word.
    places: Offsets,
}

fn group(topic: &str, number: usize) -> String {
    format!("{topic}-{number}")
}

impl Case {
    /// The first group waits for the records, the other comes afterwards.
    fn run(broker: &Broker, sender: Kind, plan: Produce, receivers: [Kind; 2]) -> Result<Self> {
        broker.create(&plan.topic, i32::try_from(plan.partitions)?)?;
        let start = |number: usize| {
            Consumer::start(receivers[number], broker, &Consume::from(&plan.topic, &group(&plan.topic, number)))
        };
        let early = start(0)?;
        let producer = Producer::start(sender, broker, &plan)?;
        let pid = producer.pid();
        let sent = producer.finish()?;
        let late = start(1)?;
        let consumers = [(early.kind, early.pid()), (late.kind, late.pid())];
        early.receives(plan.count)?;
        late.receives(plan.count)?;
        let (early, late) = (offsets(&early.stop()?)?, offsets(&late.stop()?)?);
        ensure!(early == late && early.len() == plan.count, "{} and {} of {}", early.len(), late.len(), plan.count);
        if plan.acks != "0" && sender != Kind::Kcat {
            ensure!(offsets(&sent)? == early, "what was sent is not what was received");
        }
        Ok(Self { plan, producer: (sender, pid), consumers, places: early })
    }

    fn check(&self, spans: &[Span], metrics: &Metrics, broker: &Broker) -> Result<()> {
        let Self { plan, places, .. } = self;
        let sent = of_topic(spans, broker, PRODUCER, self.producer.1, &plan.topic)?;
        common(&sent, self.producer.0, "producer", plan).context("send")?;
        if plan.acks == "0" {
            ensure!(sent.iter().all(|batch| batch.offset.is_none()), "nobody has told the offset: {sent:?}");
            let mut counts: BTreeMap<i32, i64> = BTreeMap::new();
            sent.iter().for_each(|batch| *counts.entry(batch.partition).or_default() += batch.count);
            let mut expected: BTreeMap<i32, i64> = BTreeMap::new();
            places.iter().for_each(|(partition, _)| *expected.entry(*partition).or_default() += 1);
            ensure!(counts == expected, "by partition, {counts:?} were sent instead of {expected:?}");
        } else {
            exactly(&sent, places).context("send")?;
        }
        for (number, (kind, pid)) in self.consumers.iter().enumerate() {
            let group = group(&plan.topic, number);
            let labels = [("messaging_destination_name", &*plan.topic), ("messaging_consumer_group_name", &group)];
            let received = of_topic(spans, broker, CONSUMER, *pid, &plan.topic)?;
            common(&received, *kind, "consumer", plan).with_context(|| group.clone())?;
            exactly(&taken(&received, *kind), places).with_context(|| format!("{kind:?} in {group}"))?;
            counts(
                metrics,
                MESSAGES_CONSUMED,
                &labels,
                usize::try_from(received.iter().map(|batch| batch.count).sum::<i64>())?,
            )?;
            for Batch { span, .. } in received {
                ensure!(span.str("messaging.consumer.group.name") == Some(&group), "another group: {span:?}");
                let queued = span.double("remora.messaging.time_in_queue");
                // Which of those that were sent they are is not known when nobody was told their offsets.
                let right = queued.map_or(plan.acks == "0", |queued| (0.0..60.0).contains(&queued));
                ensure!(right, "{queued:?} s in the queue: {span:?}");
            }
        }
        counts(metrics, MESSAGES_SENT, &[("messaging_destination_name", &*plan.topic)], plan.count)?;
        let labels = [("messaging_destination_name", &*plan.topic), ("messaging_operation_name", "send")];
        counts(metrics, &format!("{MESSAGING_DURATION}_count"), &labels, requests(&sent))
    }
}

/// How many requests these were: each is one operation on a topic, for however many of its partitions.
fn requests(batches: &[Batch<'_>]) -> usize {
    batches.iter().map(|batch| (batch.span.start, batch.span.end)).collect::<BTreeSet<_>>().len()
}

/// What all spans of a client have in common.
fn common(batches: &[Batch<'_>], kind: Kind, role: &str, plan: &Produce) -> Result<()> {
    for Batch { span, count, .. } in batches {
        ensure!(span.str("messaging.client.id") == Some(&format!("{kind:?}-{role}")), "another client: {span:?}");
        ensure!(span.status != ERROR, "an error: {span:?}");
        let size = span.int("messaging.message.body.size").unwrap_or(0);
        let values = count * i64::try_from(plan.size)?;
        // A few values that repeat a few letters are smaller when they are compressed, headers and all.
        let right = if plan.compression == "none" { size > values } else { *count < 5 || size < values };
        ensure!(right, "{size} octets for {values} of values: {span:?}");
    }
    Ok(())
}

fn counts(metrics: &Metrics, name: &str, labels: &[(&str, &str)], expected: usize) -> Result<()> {
    let labels = [labels, &[("messaging_system", "kafka")]].concat();
    let found = metrics.total(name, &labels)?;
    ensure!((found - expected as f64).abs() < 0.5, "{name} {labels:?} is {found}, expected {expected}");
    Ok(())
}

/// All kinds of clients on both sides, all codecs, all acks, idempotent and in a transaction, with and without contexts.
fn plans() -> Vec<(Kind, Produce, [Kind; 2])> {
    let to = Produce::to;
    vec![
        (Kind::Librdkafka, to("rdk-zstd").compression("zstd").traceparent(), [Kind::Franz, Kind::Kcat]),
        (Kind::Librdkafka, to("rdk-single").idempotent().batch(1), [Kind::Java, Kind::Librdkafka]),
        (Kind::Kcat, to("kcat-lz4").compression("lz4"), [Kind::Kafkajs, Kind::Librdkafka]),
        (Kind::Kcat, to("kcat-0").acks("0"), [Kind::Kcat, Kind::Java]),
        (Kind::Java, to("java-snappy").compression("snappy").transaction("java"), [Kind::Kafkajs, Kind::Franz]),
        (Kind::Java, to("java-1").acks("1").traceparent(), [Kind::Librdkafka, Kind::Kcat]),
        (Kind::Kafkajs, to("node-lz4").compression("lz4").traceparent(), [Kind::Java, Kind::Kafkajs]),
        (Kind::Kafkajs, to("node-0").acks("0").compression("gzip"), [Kind::Kcat, Kind::Franz]),
        (Kind::Franz, to("go-gzip").compression("gzip").transaction("go").traceparent(), [Kind::Kafkajs, Kind::Java]),
        (Kind::Franz, to("go-0").acks("0").batch(50), [Kind::Librdkafka, Kind::Kcat]),
        // So much that the group that comes late gets dozens of batches at once.
        (Kind::Franz, to("go-many").count(1000).traceparent(), [Kind::Kcat, Kind::Java]),
    ]
}

/// Fails with all that is wrong.
fn together(checks: impl Iterator<Item = Result<()>>) -> Result<()> {
    let wrong: Vec<_> = checks.filter_map(|check| Some(format!("{:#}", check.err()?))).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_record_is_sent_once_and_received_once_by_each_group() -> Result<()> {
    needs!("root", "kafka");
    // The older broker has half of them.
    for (version, every) in VERSIONS.into_iter().zip([1, 2]) {
        let broker = Broker::start(version)?;
        let agent = Agent::on(broker.port)?;
        let cases = plans()
            .into_iter()
            .step_by(every)
            .map(|(kind, plan, receivers)| Case::run(&broker, kind, plan, receivers))
            .collect::<Result<Vec<_>>>()?;
        let messages = cases.iter().map(|case| (1 + case.consumers.len()) * case.plan.count).sum();
        let (spans, metrics) = all(agent, messages)?;
        let check = |case: &Case| case.check(&spans, &metrics, &broker).with_context(|| case.plan.topic.clone());
        together(cases.iter().map(check)).with_context(|| format!("Kafka {version}"))?;
        // Neither the broker nor this process has any, and nobody has one without records.
        let ours =
            |span: &&Span| cases.iter().any(|case| span.str("messaging.destination.name") == Some(&case.plan.topic));
        let other = spans.iter().find(|span| !ours(span) || span.pid() == Some(broker.pid().into()));
        ensure!(other.is_none(), "{other:?}");
    }
    Ok(())
}

/// A producer that no agent sees: the context in its records joins alone.
#[test]
fn a_context_in_the_records_joins_producers_elsewhere() -> Result<()> {
    needs!("root", "kafka");
    let broker = Broker::start(VERSIONS[0])?;
    let agent = Builder::new()?.port(broker.port).args(&["--exclude-exe", "kcat"]).start()?;
    let plan = Produce::to("elsewhere").traceparent();
    broker.create(&plan.topic, i32::try_from(plan.partitions)?)?;
    let kinds = [Kind::Librdkafka, Kind::Java, Kind::Kafkajs, Kind::Franz];
    let start = |kind: Kind| Consumer::start(kind, &broker, &Consume::from(&plan.topic, &format!("{kind:?}")));
    let consumers = kinds.into_iter().map(start).collect::<Result<Vec<_>>>()?;
    Producer::run(Kind::Kcat, &broker, &plan)?;
    consumers.iter().try_for_each(|consumer| consumer.receives(plan.count))?;
    let spans = all(agent, consumers.len() * plan.count)?.0;
    ensure!(spans.iter().all(|span| span.kind == CONSUMER), "a producer has spans");
    for consumer in consumers {
        let (kind, pid) = (consumer.kind, consumer.pid());
        let received = of_topic(&spans, &broker, CONSUMER, pid, &plan.topic)?;
        exactly(&taken(&received, kind), &offsets(&consumer.stop()?)?).with_context(|| format!("{kind:?}"))?;
        for Batch { span, .. } in received {
            let parent = (&*span.trace_id, &*span.parent_span_id, span.str("remora.link.method"));
            let right = ("0000000000000000000000000000cafe", "000000000000cafe", Some("context"));
            ensure!(parent == right, "not where the records say: {span:?}");
        }
    }
    Ok(())
}

/// By TLS, where the library is one that is seen through.
#[test]
fn all_is_the_same_under_tls() -> Result<()> {
    needs!("root", "kafka");
    let credentials = Credentials::new()?;
    let broker = Broker::start_tls(VERSIONS[0], &credentials)?;
    let agent = Agent::with_tls_on(broker.clients_port())?;
    let kinds = [Kind::Kcat, Kind::Kafkajs, Kind::Franz];
    // A program that was never seen before is read while it runs. Members of a group send heartbeats.
    broker.create("nothing", 1)?;
    let idle = |kind: Kind| -> Result<Consumer> {
        let name = format!("nothing-{kind:?}");
        let consumer = Consumer::start(kind, &broker, &Consume::from("nothing", &name))?;
        wait::until(Duration::from_secs(20), &format!("calls of {kind:?} are seen"), || {
            let labels = [("messaging_consumer_group_name", &*name)];
            Ok((agent.metrics()?.sum(&format!("{MESSAGING_DURATION}_count"), &labels) > 0.0).then_some(()))
        })?;
        Ok(consumer)
    };
    let idle = kinds.into_iter().map(idle).collect::<Result<Vec<_>>>()?;
    let plans = [
        Produce::to("kcat-lz4").compression("lz4").traceparent(),
        Produce::to("node-gzip").compression("gzip"),
        Produce::to("go-zstd").compression("zstd").idempotent().traceparent(),
    ];
    let receivers = [[Kind::Kafkajs, Kind::Franz], [Kind::Franz, Kind::Kcat], [Kind::Kcat, Kind::Franz]];
    let cases = kinds
        .into_iter()
        .zip(plans)
        .zip(receivers)
        .map(|((kind, plan), receivers)| Case::run(&broker, kind, plan, receivers))
        .collect::<Result<Vec<_>>>()?;
    let messages = cases.iter().map(|case| 3 * case.plan.count).sum();
    let (spans, metrics) = all(agent, messages)?;
    let check = |case: &Case| case.check(&spans, &metrics, &broker).with_context(|| case.plan.topic.clone());
    together(cases.iter().map(check))?;
    idle.into_iter().try_for_each(|consumer| consumer.stop().map(drop))
}

/// All spans, and the metrics, when the agent has counted so many messages on all sides.
fn all(agent: Agent, messages: usize) -> Result<(Vec<Span>, Metrics)> {
    // Too few are better told of by the comparison that follows than by a deadline.
    let _ = wait::until(Duration::from_secs(10), "all messages are counted", || {
        let metrics = agent.metrics()?;
        let counted = metrics.sum(MESSAGES_SENT, &[]) + metrics.sum(MESSAGES_CONSUMED, &[]);
        Ok((counted + 0.5 > messages as f64).then_some(()))
    });
    let metrics = agent.metrics()?;
    Ok((agent.stop()?.spans, metrics))
}

/// A second member joins while records come: it and the first may both fetch a record that changes hands, none is missing.
#[test]
fn no_record_is_missed_when_a_group_is_rebalanced() -> Result<()> {
    needs!("root", "kafka");
    let broker = Broker::start(VERSIONS[0])?;
    let agent = Agent::on(broker.port)?;
    let cases = [
        (Kind::Librdkafka, false),
        (Kind::Kcat, false),
        (Kind::Java, false),
        (Kind::Java, true),
        (Kind::Kafkajs, false),
        (Kind::Franz, false),
    ];
    let mut done = Vec::new();
    for (kind, new_protocol) in cases {
        let topic = format!("{kind:?}-{new_protocol}");
        broker.create(&topic, 2)?;
        let producer = Producer::start(Kind::Franz, &broker, &Produce::to(&topic).count(100_000).interval_ms(20))?;
        let sender = producer.pid();
        let plan = Consume::from(&topic, &group(&topic, 0));
        let plan = if new_protocol { plan.new_protocol() } else { plan };
        let first = Consumer::start(kind, &broker, &plan)?;
        first.receives(100)?;
        let second = Consumer::start(kind, &broker, &plan)?;
        second.receives(100).with_context(|| format!("the second {kind:?}"))?;
        let sent = offsets(&producer.stop()?)?;
        ensure!(wait_for_group(&[&first, &second], sent.len())? == sent, "{topic}: not all is received");
        let members = [(first.pid(), first.stop()?), (second.pid(), second.stop()?)];
        done.push((topic, sender, sent, members));
    }
    let messages = done.iter().map(|(_, _, sent, members)| sent.len() + members[0].1.len() + members[1].1.len()).sum();
    let spans = all(agent, messages)?.0;
    together(done.into_iter().map(|(topic, sender, sent, members)| {
        let check = || -> Result<()> {
            exactly(&of_topic(&spans, &broker, PRODUCER, sender, &topic)?, &sent).context("send")?;
            for (pid, received) in members {
                shared(&of_topic(&spans, &broker, CONSUMER, pid, &topic)?, &received, &sent, &group(&topic, 0))?;
            }
            Ok(())
        };
        check().with_context(|| topic.clone())
    }))
}

/// Fails unless a member of `group` has a span of all that it has received, and of nothing that was not `sent`.
fn shared(batches: &[Batch<'_>], received: &[Record], sent: &Offsets, group: &str) -> Result<()> {
    let has = |(partition, offset)| batches.iter().any(|batch| batch.has(partition, offset));
    let all = offsets(received)?;
    let missing: Offsets = all.iter().copied().filter(|place| !has(*place)).collect();
    let edges = (missing.first(), missing.last());
    ensure!(missing.is_empty(), "{} of {} have no span, between {edges:?}", missing.len(), all.len());
    for Batch { span, partition, offset, count } in batches {
        let offset = offset.with_context(|| format!("no offset: {span:?}"))?;
        let ours = |offset| sent.contains(&(*partition, offset));
        ensure!((offset..offset + count).all(ours), "nobody has sent that: {span:?}");
        ensure!(span.str("messaging.consumer.group.name") == Some(group), "another group than {group}: {span:?}");
    }
    Ok(())
}

#[test]
fn errors_are_called_by_their_names() -> Result<()> {
    needs!("root", "kafka");
    let broker = Broker::start(VERSIONS[0])?;
    let agent = Agent::on(broker.port)?;
    let kinds = [Kind::Librdkafka, Kind::Java, Kind::Kafkajs, Kind::Franz];
    let mut pids = Vec::new();
    for kind in kinds {
        let topic = format!("large-{kind:?}");
        broker.create(&topic, 2)?;
        let producer = Producer::start(kind, &broker, &Produce::to(&topic).oversized(2_000_000))?;
        pids.push((kind, producer.pid(), topic));
        let told = producer.finish()?;
        ensure!(told.iter().all(|record| record.error.as_deref() == Some("MESSAGE_TOO_LARGE")), "{kind:?}: {told:?}");
    }
    let _ = agent.wait_for_spans(kinds.len());
    let (spans, metrics) = all(agent, 0)?;
    for (kind, pid, topic) in pids {
        let sent = of_topic(&spans, &broker, PRODUCER, pid, &topic)?;
        ensure!(!sent.is_empty(), "{kind:?} has no span");
        for Batch { span, offset, .. } in &sent {
            let error = span.str("error.type");
            ensure!(error == Some("MESSAGE_TOO_LARGE") && span.status == ERROR && offset.is_none(), "{span:?}");
        }
        let labels = [("messaging_destination_name", &*topic), ("error_type", "MESSAGE_TOO_LARGE")];
        counts(&metrics, &format!("{MESSAGING_DURATION}_count"), &labels, requests(&sent))?;
    }
    Ok(())
}
