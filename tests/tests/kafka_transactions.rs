//! Kafka: of transactions that were aborted a consumer takes nothing, unless it wants to; markers are no messages.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::Agent;
use tests::kafka::{
    Batch, Broker, Consume, Consumer, Kind, Offsets, Produce, Producer, VERSIONS, exactly, of_topic, offsets, taken,
};
use tests::metrics::Metrics;
use tests::names::MESSAGES_CONSUMED;
use tests::span::{CONSUMER, PRODUCER, Span};
use tests::{needs, wait};

const TOPIC: &str = "accounts";
const COUNT: usize = 20;

/// What the libraries do by themselves: whether they leave out what was aborted.
const KINDS: [(Kind, bool); 5] =
    [(Kind::Librdkafka, true), (Kind::Kcat, true), (Kind::Kafkajs, true), (Kind::Java, false), (Kind::Franz, false)];

struct Reader {
    kind: Kind,
    pid: u32,
    group: String,
    places: Offsets,
}

/// Octets of the bodies of all.
fn size(batches: &[Batch<'_>]) -> i64 {
    batches.iter().filter_map(|batch| batch.span.int("messaging.message.body.size")).sum()
}

impl Reader {
    /// Fails unless its spans are of what it has taken, all of it and nothing else, with as many octets as `sent` of it, and as much is
    /// counted.
    fn check(&self, spans: &[Span], sent: &[Batch<'_>], metrics: &Metrics, broker: &Broker) -> Result<()> {
        let fetched = of_topic(spans, broker, CONSUMER, self.pid, TOPIC)?;
        let mut found = Offsets::new();
        let received = taken(&fetched, self.kind);
        let of_these = |batch: &&Batch<'_>| batch.offset.is_some_and(|first| self.places.contains(&(0, first)));
        let wanted: Vec<_> = sent.iter().filter(of_these).cloned().collect();
        ensure!(size(&received) == size(&wanted), "{} octets of {}", size(&received), size(&wanted));
        for batch in received {
            let first = batch.offset.with_context(|| format!("no offset: {:?}", batch.span))?;
            let last = batch.span.int("remora.messaging.kafka.last_offset").unwrap_or(first);
            // Markers, and what is left out, lie between them.
            let between: Vec<_> = self.places.range((0, first)..=(0, last)).copied().collect();
            let right = between.first() == Some(&(0, first)) && between.last() == Some(&(0, last));
            ensure!(
                right && between.len() == usize::try_from(batch.count)?,
                "{} were taken: {:?}",
                between.len(),
                batch.span
            );
            let again = between.iter().find(|place| found.contains(place));
            ensure!(again.is_none(), "{again:?} is told twice, as by {:?}", batch.span);
            found.extend(between);
        }
        ensure!(found == self.places, "{} of {} have a span", found.len(), self.places.len());
        let labels = [("messaging_destination_name", TOPIC), ("messaging_consumer_group_name", &*self.group)];
        let (counted, told) =
            (metrics.total(MESSAGES_CONSUMED, &labels)?, fetched.iter().map(|batch| batch.count).sum::<i64>());
        ensure!((counted - told as f64).abs() < 0.5, "{counted} of {told} are counted");
        Ok(())
    }
}

#[test]
fn what_was_aborted_is_sent_and_not_received() -> Result<()> {
    needs!("root", "kafka");
    let broker = Broker::start(VERSIONS[0])?;
    let agent = Agent::on(broker.port)?;
    broker.create(TOPIC, 1)?;
    let consumers = |when: &str| -> Result<Vec<(Consumer, bool)>> {
        let start = |(kind, leaves): (Kind, bool)| {
            let group = format!("{when}-{kind:?}");
            Ok((Consumer::start(kind, &broker, &Consume::from(TOPIC, &group))?, leaves))
        };
        KINDS.into_iter().map(start).collect()
    };
    // Some are there when the transactions are, the others come when all are over.
    let mut waiting = consumers("early")?;
    let mut producers = Vec::new();
    let (mut kept, mut all) = (Offsets::new(), Offsets::new());
    for (number, aborted) in [false, true, false, true, true, false].into_iter().enumerate() {
        let mut plan = Produce::to(TOPIC).count(COUNT).transaction(&format!("t-{}", number / 2));
        (plan.partitions, plan.abort) = (1, aborted);
        let producer = Producer::start(Kind::Librdkafka, &broker, &plan)?;
        let pid = producer.pid();
        let sent = offsets(&producer.finish()?)?;
        all.extend(&sent);
        if !aborted {
            kept.extend(&sent);
        }
        producers.push((pid, sent));
    }
    waiting.extend(consumers("late")?);
    let mut readers = Vec::new();
    for (consumer, leaves) in waiting {
        let expected = if leaves { &kept } else { &all };
        consumer.receives(expected.len())?;
        let (kind, pid, group) = (consumer.kind, consumer.pid(), consumer.group().to_owned());
        let places = offsets(&consumer.stop()?)?;
        ensure!(places == *expected, "{kind:?} has taken {} instead of {}", places.len(), expected.len());
        readers.push(Reader { kind, pid, group, places });
    }
    let total: usize = readers.iter().map(|reader| reader.places.len()).sum();
    // Too few are better told of by the comparison that follows than by a deadline.
    let _ = wait::until(Duration::from_secs(10), "all are counted", || {
        Ok((agent.metrics()?.sum(MESSAGES_CONSUMED, &[]) + 0.5 > total as f64).then_some(()))
    });
    let metrics = agent.metrics()?;
    let spans = agent.stop()?.spans;
    let mut batches = Vec::new();
    for (pid, sent) in &producers {
        let of_one = of_topic(&spans, &broker, PRODUCER, *pid, TOPIC)?;
        exactly(&of_one, sent).context("send")?;
        batches.extend(of_one);
    }
    let check = |reader: &Reader| {
        reader.check(&spans, &batches, &metrics, &broker).err().map(|error| format!("{}: {error:#}", reader.group))
    };
    let wrong: Vec<_> = readers.iter().filter_map(check).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
