//! RabbitMQ: what a queue hands out again, since all was given back at once, or with a count of that in its headers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use tests::agent::Agent;
use tests::needs;
use tests::rabbit::{
    Ack, Broker, Consume, Consumer, Kind, Message, Produce, Producer, Topology, delivered, joined, published,
};
use tests::span::Span;

const COUNT: usize = 20;
/// So many of them are given back.
const AGAIN: usize = 5;

struct Case {
    name: String,
    sent: (u32, Vec<Message>),
    received: (u32, Vec<Message>),
}

impl Case {
    /// Fails unless each delivery has a span of its own below its message's publish, and the first one of a message has ended before it
    /// comes again.
    fn check(&self, spans: &[Span], broker: &Broker) -> Result<()> {
        let published = published(spans, broker, self.sent.0, &self.sent.1, false)?;
        let delivered = delivered(spans, broker, self.received.0, &self.received.1, false, Ack::Each)?;
        joined(&published, &delivered)?;
        let again: Vec<_> = delivered.iter().filter(|(message, _)| message.redelivered == Some(true)).collect();
        ensure!(again.len() == AGAIN, "{} come again", again.len());
        let firsts = delivered.iter().filter(|(message, _)| message.redelivered == Some(false));
        let firsts: BTreeMap<_, _> = firsts.map(|told| (&*told.0.message, told)).collect();
        for (message, span) in again {
            let (first, before) =
                firsts.get(&*message.message).with_context(|| format!("never before: {message:?}"))?;
            ensure!(["recover", "nack"].contains(&&*first.result), "it was not given back: {first:?}");
            ensure!(before.end < span.start, "{before:?} goes on while the message comes again: {span:?}");
        }
        Ok(())
    }
}

#[test]
fn what_is_given_back_comes_again_below_its_own_publish() -> Result<()> {
    needs!("root", "rabbit");
    let broker = Broker::start()?;
    let (mut topology, mut plans) = (Topology::new(), Vec::new());
    for kind in Kind::ALL {
        let queue = |way: &str| format!("{kind:?}-{way}");
        topology = topology.queue(&queue("recover")).quorum(&queue("quorum")).quorum(&queue("quorum-recover"));
        plans.push((kind, Produce::to("", &queue("recover")), Consume::from(&queue("recover")).recover(5)));
        let counted = Produce::to("", &queue("quorum")).batch(5).traceparent();
        plans.push((kind, counted, Consume::from(&queue("quorum")).requeue(4)));
        plans.push((
            kind,
            Produce::to("", &queue("quorum-recover")),
            Consume::from(&queue("quorum-recover")).recover(5),
        ));
    }
    broker.declare(&topology)?;
    let agent = Agent::on(broker.port)?;
    let mut started = Vec::new();
    for (kind, produce, consume) in &plans {
        let consumer = Consumer::start(*kind, &broker, consume)?;
        started.push((consumer, Producer::start(*kind, &broker, produce)?, &consume.queue));
    }
    let mut cases = Vec::new();
    for (consumer, producer, queue) in started {
        let sent = (producer.pid(), producer.finish()?);
        consumer.receives(COUNT + AGAIN)?;
        let received = (consumer.pid(), consumer.stop()?);
        cases.push(Case { name: queue.clone(), sent, received });
    }
    let all = plans.len() * (2 * COUNT + AGAIN);
    let _ = agent.wait_for_spans(all);
    let spans = agent.stop()?.spans;
    let wrong = |case: &Case| case.check(&spans, &broker).err().map(|error| format!("{}: {error:#}", case.name));
    let wrong: Vec<_> = cases.iter().filter_map(wrong).collect();
    ensure!(wrong.is_empty(), "{} of {} cases: {}", wrong.len(), cases.len(), wrong.join("\n"));
    ensure!(spans.len() == all, "{} spans of {all}", spans.len());
    Ok(())
}
