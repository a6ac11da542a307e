//! The clients of Kafka among each other, without the agent: what was sent must be what is received, or nothing can be
//! compared with it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use tests::fixture::{Language, Server, free_port};
use tests::kafka::{
    Broker, Consume, Consumer, Kind, Orders, Produce, Producer, Record, Taker, VERSIONS, offsets, wait_for_group,
};
use tests::needs;

/// Sends by `plan`, reads the topic by two groups; both get all, and each record is where its producer was told it is.
fn agree(broker: &Broker, sender: Kind, plan: &Produce, receivers: [Kind; 2]) -> Result<()> {
    broker.create(&plan.topic, i32::try_from(plan.partitions)?)?;
    let sent = Producer::run(sender, broker, plan)?;
    ensure!(sent.iter().all(|record| record.role == "producer" && record.error.is_none()), "{sent:?}");
    let told = sender != Kind::Kcat && plan.acks != "0";
    ensure!(!told || offsets(&sent)?.len() == plan.count, "{sent:?}");
    let contexts: BTreeSet<_> = sent.iter().filter_map(|record| record.traceparent.as_deref()).collect();
    ensure!(contexts.len() == if plan.traceparent { plan.count } else { 0 }, "{} contexts", contexts.len());
    for (number, kind) in receivers.into_iter().enumerate() {
        let plan = Consume::from(&plan.topic, &format!("{}-{number}", plan.topic));
        let consumer =
            Consumer::start(kind, broker, &if number == 0 || kind == Kind::Kcat { plan } else { plan.manual() })?;
        consumer.receives(100).with_context(|| format!("{sender:?} to {kind:?}"))?;
        let received = consumer.stop()?;
        let place = |record: &Record| (record.partition, record.offset, record.key.clone());
        let places: BTreeSet<_> = received.iter().map(place).collect();
        ensure!(received.len() == 100 && places.len() == 100, "{kind:?} has received {} records", received.len());
        ensure!(!told || places == sent.iter().map(place).collect(), "{sender:?} and {kind:?}: {places:?}, {sent:?}");
    }
    Ok(())
}

#[test]
fn what_is_sent_is_received() -> Result<()> {
    needs!("kafka");
    // The older broker has half of them.
    for (version, every) in VERSIONS.into_iter().zip([1, 2]) {
        let broker = Broker::start(version)?;
        let to = Produce::to;
        let plans = [
            (Kind::Librdkafka, to("rdk-zstd").compression("zstd").traceparent(), [Kind::Franz, Kind::Kcat]),
            (Kind::Librdkafka, to("rdk-idempotent").idempotent().batch(1), [Kind::Java, Kind::Librdkafka]),
            (Kind::Kcat, to("kcat-lz4").compression("lz4"), [Kind::Kafkajs, Kind::Librdkafka]),
            (Kind::Kcat, to("kcat-0").acks("0"), [Kind::Kcat, Kind::Java]),
            (Kind::Java, to("java-snappy").compression("snappy").transaction("java"), [Kind::Kafkajs, Kind::Franz]),
            (Kind::Java, to("java-1").acks("1").traceparent(), [Kind::Librdkafka, Kind::Kcat]),
            (Kind::Kafkajs, to("node-lz4").compression("lz4").traceparent(), [Kind::Java, Kind::Kafkajs]),
            (Kind::Kafkajs, to("node-0").acks("0").compression("gzip"), [Kind::Kcat, Kind::Franz]),
            (
                Kind::Franz,
                to("go-gzip").compression("gzip").transaction("go").traceparent(),
                [Kind::Kafkajs, Kind::Java],
            ),
            (Kind::Franz, to("go-0").acks("0").compression("zstd"), [Kind::Librdkafka, Kind::Kcat]),
        ];
        for (kind, plan, receivers) in plans.into_iter().step_by(every) {
            agree(&broker, kind, &plan, receivers).with_context(|| format!("{kind:?} to Kafka {version}: {plan:?}"))?;
        }
    }
    Ok(())
}

/// A second member joins while records come; nothing is missed.
#[test]
fn a_group_shares_a_topic() -> Result<()> {
    needs!("kafka");
    let broker = Broker::start(VERSIONS[0])?;
    let cases = [
        (Kind::Librdkafka, true),
        (Kind::Librdkafka, false),
        (Kind::Kcat, false),
        (Kind::Java, true),
        (Kind::Java, false),
        (Kind::Kafkajs, false),
        (Kind::Franz, false),
    ];
    for (kind, new_protocol) in cases {
        let topic = format!("{kind:?}-{new_protocol}");
        broker.create(&topic, 2)?;
        let producer = Producer::start(Kind::Franz, &broker, &Produce::to(&topic).count(100_000).interval_ms(20))?;
        let plan = Consume::from(&topic, &topic);
        let plan = if new_protocol { plan.new_protocol() } else { plan };
        let first = Consumer::start(kind, &broker, &plan)?;
        first.receives(100)?;
        let second = Consumer::start(kind, &broker, &plan)?;
        second.receives(100).with_context(|| format!("the second {kind:?}"))?;
        let sent = offsets(&producer.stop()?)?;
        let received = wait_for_group(&[&first, &second], sent.len())?;
        ensure!(received == sent, "{kind:?} has received other records than were sent");
        first.stop()?;
        second.stop()?;
    }
    Ok(())
}

#[test]
fn a_message_that_is_too_large_is_refused() -> Result<()> {
    needs!("kafka");
    let broker = Broker::start(VERSIONS[0])?;
    broker.create("large", 2)?;
    for kind in [Kind::Librdkafka, Kind::Java, Kind::Kafkajs, Kind::Franz] {
        let told = Producer::run(kind, &broker, &Produce::to("large").oversized(2_000_000))?;
        let error = told.first().and_then(|record| record.error.as_deref());
        ensure!(error == Some("MESSAGE_TOO_LARGE"), "{kind:?}: {told:?}");
    }
    Ok(())
}

/// Each order leads to one call.
#[test]
fn orders_go_on_as_calls() -> Result<()> {
    needs!("kafka", "go");
    let broker = Broker::start(VERSIONS[0])?;
    let stock = Server::start(Language::Go)?;
    for taker in [Taker::Python, Taker::Go] {
        for kind in [Kind::Librdkafka, Kind::Java, Kind::Kafkajs, Kind::Franz] {
            let topic = format!("orders-{taker:?}-{kind:?}");
            broker.create(&topic, 2)?;
            let orders = Orders::start(taker, &broker, &Produce::to(&topic).traceparent(), free_port()?)?;
            let consumer = Consumer::start(kind, &broker, &Consume::from(&topic, &topic).next(&stock.base()))?;
            let keys: Vec<String> = (0..10).map(|i| format!("{topic}-{i}")).collect();
            keys[..5].iter().try_for_each(|key| orders.take(key, None))?;
            let context = "00-5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174-01";
            let others: Vec<_> = keys[5..].iter().map(|key| (key.clone(), Some(context.to_owned()))).collect();
            orders.take_at_once(&others)?;
            consumer.receives(10).with_context(|| topic.clone())?;
            let (sent, received) = (orders.sent()?, consumer.stop()?);
            ensure!(offsets(&received)? == offsets(&sent)?, "{topic}: {received:?}");
            let forwarded = sent.iter().filter(|record| record.traceparent.as_deref() == Some(context));
            ensure!(forwarded.count() == 5 && sent.iter().all(|record| record.traceparent.is_some()), "{sent:?}");
        }
    }
    let calls = stock.truth(80)?;
    ensure!(calls.iter().all(|call| call.status == Some(200)), "{calls:?}");
    let targets: BTreeSet<_> = calls.iter().map(|call| call.target.as_str()).collect();
    ensure!(targets.len() == 80 && targets.iter().all(|target| target.starts_with("/stock/orders-")), "{targets:?}");
    Ok(())
}
