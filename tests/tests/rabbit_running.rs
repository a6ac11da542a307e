//! RabbitMQ while it runs: an agent that comes back to connections that are there already.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::metrics::Metrics;
use tests::names::{EXCHANGES_LOST, MESSAGES_CONSUMED, MESSAGES_SENT, MESSAGING_DURATION};
use tests::rabbit::{
    Ack, Broker, Consume, Consumer, Kind, Message, Produce, Producer, Topology, delivery, join, publish,
};
use tests::span::{CONSUMER, PRODUCER, Span};
use tests::{needs, wait};

/// What the agent may take to see again what it has come back to.
const RESUMED: Duration = Duration::from_secs(1);

fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos())?)
}

/// The spans of `kind` of a process that begin between the two times.
fn of(spans: &[Span], kind: i32, pid: u32, (from, to): (u64, u64)) -> Vec<&Span> {
    let ours = |span: &&Span| span.kind == kind && span.pid() == Some(pid.into()) && (from..to).contains(&span.start);
    spans.iter().filter(ours).collect()
}

/// The span of a message by its id.
fn span_of<'a>(spans: &[&'a Span], message: &Message) -> Result<Option<&'a Span>> {
    let mut found = spans.iter().filter(|span| span.str("messaging.message.id") == Some(&message.message));
    let first = found.next();
    ensure!(found.next().is_none(), "two spans have {message:?}");
    Ok(first.copied())
}

/// A producer and a consumer that have been running since before the agent came back.
struct Old {
    name: String,
    producer: (u32, Vec<Message>),
    consumer: (u32, Vec<Message>),
    ack: Ack,
}

impl Old {
    /// All between the two times must have its span, and what is said before and afterwards must be right too.
    fn check(&self, spans: &[Span], broker: &Broker, ready: u64, between: (u64, u64)) -> Result<()> {
        let always = (0, u64::MAX);
        let sent = of(spans, PRODUCER, self.producer.0, always);
        let received = of(spans, CONSUMER, self.consumer.0, always);
        for (what, spans) in [("publish", &sent), ("delivery", &received)] {
            let begin = spans.iter().map(|span| span.start).min().with_context(|| format!("no span of any {what}"))?;
            let after = Duration::from_nanos(begin.saturating_sub(ready));
            ensure!(after < RESUMED, "the first {what} comes after {after:?}");
        }
        for span in &sent {
            let id = span.str("messaging.message.id").with_context(|| format!("no id: {span:?}"))?;
            let message = self.producer.1.iter().find(|message| message.message == id).context("nobody's")?;
            publish(span, broker, message, false).with_context(|| format!("{message:?} has {span:?}"))?;
        }
        for span in &received {
            let id = span.str("messaging.message.id").with_context(|| format!("no id: {span:?}"))?;
            let message = self.consumer.1.iter().find(|message| message.message == id).context("nobody's")?;
            // Which queue a consumer gets its messages from was said only once, before.
            let unknown = Message { queue: None, ..message.clone() };
            delivery(span, broker, message, false, self.ack)
                .or_else(|_| delivery(span, broker, &unknown, false, self.ack))
                .with_context(|| format!("{message:?} has {span:?}"))?;
            let origin = sent.iter().find(|span| span.str("messaging.message.id") == Some(id));
            let right = origin.map_or(span.parent_span_id.is_empty(), |origin| {
                span.parent_span_id.is_empty() || span.parent_span_id == origin.span_id
            });
            ensure!(right, "{span:?} is below another than {origin:?}");
        }
        let (mut count, mut missing) = (0, Vec::new());
        for message in self.consumer.1.iter().filter(|message| (between.0..between.1).contains(&message.at)) {
            count += 1;
            match (span_of(&sent, message)?, span_of(&received, message)?) {
                (Some(publish), Some(delivery)) => {
                    join(publish, delivery).with_context(|| format!("{message:?} has {delivery:?}"))?;
                }
                (publish, delivery) => missing.push((message.number()?, publish.is_some(), delivery.is_some())),
            }
        }
        ensure!(missing.is_empty(), "of {count} messages lack a publish or a delivery: {missing:?}");
        ensure!(count > 10, "only {count} messages have been received meanwhile");
        Ok(())
    }
}

/// Spans resume within a second, on connections of which no beginning was seen, and are joined as ever.
#[test]
fn restarted_while_messages_flow() -> Result<()> {
    needs!("root", "rabbit");
    let broker = Broker::start()?;
    let first = Agent::on(broker.port)?;
    let topology = Topology::new().exchange("events", "topic");
    broker.declare(&Kind::ALL.into_iter().fold(topology, |topology, kind| {
        let queue = format!("{kind:?}-queue");
        topology.queue(&queue).binding(&queue, "events", &format!("{kind:?}"))
    }))?;
    let acks = [Ack::Each, Ack::None, Ack::GetNone, Ack::Each];
    let (mut producers, mut consumers) = (Vec::new(), Vec::new());
    for ((kind, receiver), ack) in Kind::ALL.into_iter().zip(Kind::ALL.into_iter().rev()).zip(acks) {
        let queue = format!("{kind:?}-queue");
        let plan = Produce::to("events", &format!("{kind:?}")).count(100_000).interval_ms(20).heartbeat(1);
        let plan = if kind == Kind::Pika { plan.unconfirmed() } else { plan };
        consumers.push((Consumer::start(receiver, &broker, &Consume::from(&queue).ack(ack))?, ack));
        producers.push(Producer::start(kind, &broker, &plan)?);
    }
    consumers.iter().try_for_each(|(consumer, _)| consumer.receives(20))?;
    first.wait_for_spans(2 * consumers.len())?;
    first.stop()?;

    let agent = Agent::on(broker.port)?;
    let ready = now()?;
    std::thread::sleep(RESUMED);
    let from = now()?;
    let clients = producers.iter().map(|producer| (PRODUCER, producer.pid()));
    let clients: Vec<_> = clients.chain(consumers.iter().map(|(consumer, _)| (CONSUMER, consumer.pid()))).collect();
    // The file is written each second.
    let resumed = wait::until(Duration::from_secs(3), "all have spans again", || {
        let spans = agent.spans()?;
        let resumed = |(kind, pid): &(i32, u32)| !of(&spans, *kind, *pid, (0, u64::MAX)).is_empty();
        Ok(clients.iter().all(resumed).then_some(()))
    });
    producers.iter().try_for_each(|producer| producer.does_more(50))?;
    let to = now()?;
    producers.iter().try_for_each(|producer| producer.does_more(10))?;
    let pids: Vec<_> = producers.iter().map(Producer::pid).collect();
    let sent: Vec<_> = producers.into_iter().map(Producer::stop).collect::<Result<_>>()?;
    let mut old = Vec::new();
    for ((pid, sent), (consumer, ack)) in pids.into_iter().zip(sent).zip(consumers) {
        consumer.receives(sent.len())?;
        let (name, receiver) = (format!("{pid} to {:?}", consumer.kind), consumer.pid());
        old.push(Old { name, producer: (pid, sent), consumer: (receiver, consumer.stop()?), ack });
    }
    let metrics = wait::until(Duration::from_secs(5), "as many messages are counted as have spans", || {
        let (metrics, spans) = (agent.metrics()?, agent.spans()?);
        let counted = [MESSAGES_SENT, MESSAGES_CONSUMED].map(|name| metrics.sum(name, &[]).round());
        let have = [PRODUCER, CONSUMER].map(|kind| spans.iter().filter(|span| span.kind == kind).count() as f64);
        Ok((counted == have).then_some(metrics))
    })?;
    let spans = agent.stop()?.spans;
    let check = |old: &Old| old.check(&spans, &broker, ready, (from, to)).err();
    let wrong: Vec<_> =
        old.iter().filter_map(|old| check(old).map(|error| format!("{}: {error:#}", old.name))).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Of the confirms of three producers it is not known which publishes they are of, but these have spans: nothing of them is lost. Only
    // what was delivered before the agent came is acknowledged unseen, ten messages of each consumer at most.
    let unmatched = metrics.sum(EXCHANGES_LOST, &[("reason", "unmatched_response")]);
    ensure!(unmatched <= 40.0, "{unmatched} answers are counted as lost");
    // How long a publish took that was not seen to be confirmed is not known. No confirm comes within a few microseconds.
    for kind in Kind::ALL {
        let labels =
            [("messaging_operation_name", "publish"), ("messaging_destination_name", &*format!("events:{kind:?}"))];
        let [count, sum] = ["count", "sum"].map(|what| metrics.sum(&format!("{MESSAGING_DURATION}_{what}"), &labels));
        ensure!(kind == Kind::Pika || sum >= 20e-6 * count, "{count} publishes of {kind:?} took {sum} s");
    }
    resumed
}

fn counted(metrics: &Metrics, name: &str, queue: &str) -> f64 {
    metrics.sum(name, &[("messaging_system", "rabbitmq"), ("messaging_destination_name", queue)])
}

/// All messages count whatever the sampling.
#[test]
fn messages_are_counted_without_spans() -> Result<()> {
    needs!("root", "rabbit");
    const COUNT: usize = 2000;
    let broker = Broker::start()?;
    broker.declare(&Topology::new().queue("many"))?;
    let agent = Builder::new()?.port(broker.port).env("OTEL_TRACES_SAMPLER", "always_off").start()?;
    let consumer = Consumer::start(Kind::Java, &broker, &Consume::from("many").every(10).prefetch(100))?;
    Producer::run(Kind::Amqp091, &broker, &Produce::to("", "many").count(COUNT).batch(100))?;
    consumer.receives(COUNT)?;
    consumer.stop()?;
    let all = wait::until(Duration::from_secs(5), "all messages are counted", || {
        let metrics = agent.metrics()?;
        let all = (counted(&metrics, MESSAGES_SENT, "many"), counted(&metrics, MESSAGES_CONSUMED, "many"));
        Ok((all.0 + all.1 + 0.5 > 2.0 * COUNT as f64).then_some(all))
    });
    let metrics = agent.metrics()?;
    let found = (counted(&metrics, MESSAGES_SENT, "many"), counted(&metrics, MESSAGES_CONSUMED, "many"));
    ensure!(all.is_ok() && found == (COUNT as f64, COUNT as f64), "{found:?} instead of {COUNT} on both sides");
    let spans = agent.stop()?.spans;
    ensure!(spans.is_empty(), "{} spans with always_off", spans.len());
    Ok(())
}
