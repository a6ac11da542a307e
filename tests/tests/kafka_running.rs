//! Kafka while it runs: an agent that comes back, and what the metrics say of time in the queue and of lag.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::fixture::{Language, Server};
use tests::kafka::{Batch, Broker, Consume, Consumer, Kind, Produce, Producer, VERSIONS};
use tests::metrics::Metrics;
use tests::names::{CONSUMER_LAG, MESSAGES_CONSUMED, MESSAGES_SENT, MESSAGING_DURATION, TIME_IN_QUEUE};
use tests::span::{CONSUMER, PRODUCER, Span};
use tests::{needs, wait};

fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos())?)
}

/// A client that has been running since before the agent came back.
struct Old {
    kind: i32,
    pid: u32,
    topic: String,
}

impl Old {
    fn spans<'a>(&self, spans: &'a [Span], from: u64) -> Vec<&'a Span> {
        let ours = |span: &&Span| span.kind == self.kind && span.pid() == Some(self.pid.into()) && span.start >= from;
        spans.iter().filter(ours).collect()
    }
}

/// Spans resume within a second; a topic is called by its own name or not at all, and once that can be known, by its name.
#[test]
fn restarted_while_records_flow() -> Result<()> {
    needs!("root", "kafka");
    for version in VERSIONS {
        restarted(version).with_context(|| format!("Kafka {version}"))?;
    }
    Ok(())
}

fn restarted(version: &str) -> Result<()> {
    const KINDS: [Kind; 4] = [Kind::Librdkafka, Kind::Java, Kind::Kafkajs, Kind::Franz];
    let broker = Broker::start(version)?;
    let first = Agent::on(broker.port)?;
    let (mut producers, mut consumers, mut old) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, receiver) in KINDS.into_iter().zip(KINDS.into_iter().rev()) {
        let topic = format!("{kind:?}-topic");
        broker.create(&topic, 2)?;
        let producer = Producer::start(kind, &broker, &Produce::to(&topic).count(100_000).interval_ms(50))?;
        let consumer = Consumer::start(receiver, &broker, &Consume::from(&topic, &topic))?;
        old.push(Old { kind: PRODUCER, pid: producer.pid(), topic: topic.clone() });
        old.push(Old { kind: CONSUMER, pid: consumer.pid(), topic });
        producers.push(producer);
        consumers.push(consumer);
    }
    consumers.iter().try_for_each(|consumer| consumer.receives(50))?;
    first.wait_for_spans(old.len())?;
    first.stop()?;

    let agent = Agent::on(broker.port)?;
    let ready = now()?;
    producers.iter().try_for_each(|producer| producer.does_more(200))?;
    // New clients ask for the topics' ids, by which old ones may call them.
    for topic in old.iter().filter(|old| old.kind == PRODUCER).map(|old| &old.topic) {
        let reader = Consumer::start(Kind::Franz, &broker, &Consume::from(topic, &format!("{topic}-new")))?;
        reader.receives(1)?;
    }
    let known = now()?;
    producers.iter().try_for_each(|producer| producer.does_more(100))?;
    let stopped = now()?;
    producers.into_iter().try_for_each(|producer| producer.stop().map(drop))?;
    consumers.into_iter().try_for_each(|consumer| consumer.stop().map(drop))?;
    let spans = agent.stop()?.spans;
    for client in &old {
        let Old { kind, pid, topic } = client;
        let all = client.spans(&spans, 0);
        let begin = all.iter().map(|span| span.start).min().with_context(|| format!("{pid}: no span for {topic}"))?;
        let after = Duration::from_nanos(begin.saturating_sub(ready));
        ensure!(after < Duration::from_secs(1), "{topic}: the first span of kind {kind} comes {after:?} afterwards");
        for span in &all {
            let name = span.str("messaging.destination.name");
            ensure!(name.is_none_or(|name| name == topic), "the topic is {topic}: {span:?}");
        }
        let since = client.spans(&spans, known);
        let until = since.iter().map(|span| span.start).max().unwrap_or(0);
        ensure!(until + 1_000_000_000 > stopped, "{topic}: no span of kind {kind} in the last second");
        for span in since {
            Batch::of(span, &broker).context("although it could be known")?;
        }
    }
    Ok(())
}

/// The gauge by partition.
fn lag(metrics: &Metrics, group: &str) -> BTreeMap<String, f64> {
    let labels = [("messaging_consumer_group_name", group)];
    let partition = |labels: &BTreeMap<String, String>| labels.get("messaging_destination_partition_id").cloned();
    metrics.with(CONSUMER_LAG, &labels).map(|s| (partition(&s.labels).unwrap_or_default(), s.value)).collect()
}

/// What two groups that stop half way, and one that does not, have not received yet is what their broker says.
#[test]
fn the_lag_of_each_group_is_what_its_broker_says() -> Result<()> {
    needs!("root", "kafka");
    for version in VERSIONS {
        lag_as_told(version).with_context(|| format!("Kafka {version}"))?;
    }
    Ok(())
}

fn lag_as_told(version: &str) -> Result<()> {
    let broker = Broker::start(version)?;
    broker.create("read", 2)?;
    let agent = Builder::new()?.port(broker.port).env("OTEL_TRACES_SAMPLER", "always_off").start()?;
    // Batches of 5 in each partition.
    Producer::run(Kind::Franz, &broker, &Produce::to("read"))?;
    let groups = [
        (Kind::Kafkajs, Consume::from("read", "halves").sip(100).most(20), 60, [30, 10]),
        (Kind::Kafkajs, Consume::from("read", "sippers").sip(100).most(5), 15, [45, 40]),
        (Kind::Librdkafka, Consume::from("read", "readers").manual(), 100, [0, 0]),
    ];
    let start = |(kind, plan, ..): &(Kind, Consume, usize, [i64; 2])| Consumer::start(*kind, &broker, plan);
    let consumers: Vec<_> = groups.iter().map(start).collect::<Result<_>>()?;
    for (consumer, (_, plan, count, lags)) in consumers.iter().zip(&groups) {
        consumer.receives(*count)?;
        // It commits a moment later.
        let truth = |partition| broker.lag(&plan.group, "read", partition);
        wait::until(
            Duration::from_secs(5),
            "all is committed",
            || Ok(([truth(0)?, truth(1)?] == *lags).then_some(())),
        )?;
    }
    for (_, plan, _, lags) in &groups {
        let mut told = BTreeMap::new();
        let expected =
            (0..).zip(lags).map(|(partition, lag): (usize, _)| (partition.to_string(), *lag as f64)).collect();
        wait::until(Duration::from_secs(5), "the agent says the same", || {
            told = lag(&agent.metrics()?, &plan.group);
            Ok((told == expected).then_some(()))
        })
        .with_context(|| format!("{}: {told:?} instead of {expected:?}", plan.group))?;
    }
    consumers.into_iter().try_for_each(|consumer| consumer.stop().map(drop))
}

/// All messages count whatever the sampling. A group that is slow lags behind, until it has read everything.
#[test]
fn messages_are_counted_and_so_is_what_waits() -> Result<()> {
    needs!("root", "kafka", "python");
    const COUNT: usize = 100;
    let broker = Broker::start(VERSIONS[0])?;
    broker.create("slow", 2)?;
    let server = Server::start(Language::Python)?;
    let agent = Builder::new()?.port(broker.port).env("OTEL_TRACES_SAMPLER", "always_off").start()?;
    // Each record takes 20 ms, and is committed before the next one; a batch is fetched when the one before is done.
    let next = format!("{}/slow/20?of=", server.base());
    let plan = Consume::from("slow", "snails").manual().next(&next).sip(100);
    let consumer = Consumer::start(Kind::Librdkafka, &broker, &plan)?;
    Producer::run(Kind::Java, &broker, &Produce::to("slow").count(COUNT))?;
    consumer.receives(5)?;
    let mut most = 0.0;
    let behind = wait::until(Duration::from_secs(2), "the group lags behind", || {
        let waits = lag(&agent.metrics()?, "snails").values().sum::<f64>();
        most = waits.max(most);
        Ok((waits >= 50.0).then_some(()))
    });
    behind.with_context(|| format!("at most {most} messages were waiting"))?;
    consumer.receives(COUNT)?;
    wait::until(Duration::from_secs(10), "the group has caught up", || {
        let lag = lag(&agent.metrics()?, "snails");
        Ok(lag.values().eq([0.0, 0.0].iter()).then_some(()))
    })?;
    consumer.stop()?;
    let metrics = agent.metrics()?;
    let port = broker.port.to_string();
    let of = |operation: &'static str| {
        [
            ("messaging_system", "kafka"),
            ("messaging_operation_name", operation),
            ("messaging_destination_name", "slow"),
            ("server_address", "127.0.0.1"),
            ("server_port", &*port),
        ]
    };
    let queue = [("messaging_destination_name", "slow"), ("messaging_consumer_group_name", "snails")];
    let received = [&of("receive")[..], &queue[1..]].concat();
    let (sent, consumed) = (metrics.total(MESSAGES_SENT, &of("send"))?, metrics.total(MESSAGES_CONSUMED, &received)?);
    ensure!((sent, consumed) == (COUNT as f64, COUNT as f64), "{sent} sent, {consumed} consumed");
    for labels in [&of("send")[..], &received] {
        let times = metrics.total(&format!("{MESSAGING_DURATION}_count"), labels)?;
        ensure!((1.0..=sent).contains(&times), "{times} operations with {labels:?}");
    }
    let queued = metrics.total(&format!("{TIME_IN_QUEUE}_count"), &queue)?;
    let seconds = metrics.total(&format!("{TIME_IN_QUEUE}_sum"), &queue)?;
    ensure!(queued > 0.0 && queued <= sent && seconds > 0.0 && seconds < 60.0 * queued, "{queued} in {seconds} s");
    let spans = agent.stop()?.spans;
    ensure!(spans.is_empty(), "{} spans with always_off", spans.len());
    Ok(())
}
