//! RabbitMQ: messages that nothing tells apart are below the right publish where the queue's order makes that certain, else below none.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::names::EXCHANGES_LOST;
use tests::needs;
use tests::rabbit::{Ack, Broker, Consume, Consumer, Kind, Message, Produce, Producer, Topology, delivered, published};
use tests::span::Span;

/// What was published of one kind, by which processes, and what consumers have got of it. The end of each body, which the agent does not
/// look at, tells the messages apart.
struct Case {
    name: &'static str,
    sent: Vec<(u32, Vec<Message>)>,
    received: Vec<(u32, Vec<Message>)>,
}

impl Case {
    /// How many deliveries are below the publish of their message. Fails when one is below another span.
    fn right(&self, spans: &[Span], broker: &Broker) -> Result<usize> {
        let mut origins = BTreeMap::new();
        for (pid, messages) in &self.sent {
            for (message, span) in published(spans, broker, *pid, messages, true).context("published")? {
                ensure!(origins.insert(&*message.message, span).is_none(), "twice: {message:?}");
            }
        }
        let mut right = 0;
        for (pid, messages) in &self.received {
            for (message, span) in delivered(spans, broker, *pid, messages, true, Ack::Each).context("delivered")? {
                if span.parent_span_id.is_empty() {
                    continue;
                }
                let origin =
                    origins.get(&*message.message).with_context(|| format!("{message:?} has a parent: {span:?}"))?;
                let below = span.parent_span_id == origin.span_id && span.trace_id == origin.trace_id;
                ensure!(below, "{message:?} is below another than {origin:?}: {span:?}");
                right += 1;
            }
        }
        Ok(right)
    }

    fn spans(&self) -> usize {
        self.sent.iter().chain(&self.received).map(|(_, messages)| messages.len()).sum()
    }
}

fn plan(queue: &str, name: &str) -> Produce {
    Produce::to("", queue).named(name).alike()
}

fn produced(broker: &Broker, plan: &Produce) -> Result<(u32, Vec<Message>)> {
    ended(Producer::start(Kind::Pika, broker, plan)?)
}

fn ended(producer: Producer) -> Result<(u32, Vec<Message>)> {
    Ok((producer.pid(), producer.finish()?))
}

/// Stops consumers when they have had so many deliveries together.
fn stopped(consumers: Vec<Consumer>, count: usize) -> Result<Vec<(u32, Vec<Message>)>> {
    tests::wait::until(std::time::Duration::from_secs(60), "all is received", || {
        Ok((consumers.iter().map(Consumer::done).sum::<usize>() >= count).then_some(()))
    })?;
    consumers.into_iter().map(|consumer| Ok((consumer.pid(), consumer.stop()?))).collect()
}

fn from(broker: &Broker, plan: &Consume) -> Result<Vec<Consumer>> {
    Ok(vec![Consumer::start(Kind::Pika, broker, plan)?])
}

/// Fails when one is wrong; gives how many are right of each case.
fn check(cases: &[Case], agent: Agent, broker: &Broker) -> Result<Vec<usize>> {
    let _ = agent.wait_for_spans(cases.iter().map(Case::spans).sum());
    let lost = agent.metrics()?.sum(EXCHANGES_LOST, &[("reason", "resynchronised")]);
    ensure!(lost < 0.5, "octets of {lost} calls were not seen, on which all order depends");
    let spans = agent.stop()?.spans;
    let right: Vec<_> =
        cases.iter().map(|case| case.right(&spans, broker).context(case.name)).collect::<Result<_>>()?;
    for (case, right) in cases.iter().zip(&right) {
        let all: usize = case.received.iter().map(|(_, messages)| messages.len()).sum();
        println!("{}: {right} of {all} have a parent, the right one", case.name);
    }
    Ok(right)
}

const COUNT: usize = 20;
const HEAVY: usize = 3 * COUNT;

#[test]
fn messages_alike_are_below_the_right_publish_where_their_order_is_certain() -> Result<()> {
    needs!("root", "rabbit");
    let broker = Broker::start()?;
    let queues = ["waiting", "heavy", "burst", "turns"];
    broker.declare(&queues.into_iter().fold(Topology::new(), |topology, queue| topology.queue(queue)))?;
    let agent = Agent::on(broker.port)?;
    let all = |queue: &str| Consume::from(queue).prefetch(100);
    // All are in the queue when the consumer comes, from one channel.
    let sent = vec![produced(&broker, &plan("waiting", "w").batch(COUNT))?];
    let waiting = Case { name: "waiting", sent, received: stopped(from(&broker, &all("waiting"))?, COUNT)? };
    // So many at once that the broker reads more of them in one call than is captured of most.
    let sent = vec![produced(&broker, &plan("heavy", "h").count(HEAVY).batch(HEAVY))?];
    let heavy = Case { name: "heavy", sent, received: stopped(from(&broker, &all("heavy"))?, HEAVY)? };
    // The consumer is there, and several come at once.
    let consumers = from(&broker, &all("burst"))?;
    let sent = vec![produced(&broker, &plan("burst", "b").batch(5).interval_ms(150))?];
    let burst = Case { name: "burst", sent, received: stopped(consumers, COUNT)? };
    // Three publishers, each of which begins when the one before has ended.
    let sent = ["t", "u", "v"].map(|name| produced(&broker, &plan("turns", name)));
    let sent = sent.into_iter().collect::<Result<_>>()?;
    let turns = Case { name: "turns", sent, received: stopped(from(&broker, &all("turns"))?, 3 * COUNT)? };
    let right = check(&[waiting, heavy, burst, turns], agent, &broker)?;
    // A consumer that is slow, as on a loaded machine, gets what waits one by one.
    ensure!(right.iter().sum::<usize>() >= 5 * COUNT / 2 + HEAVY / 2, "only {right:?} have a parent");
    Ok(())
}

#[test]
fn messages_alike_are_below_none_where_anything_is_doubtful() -> Result<()> {
    needs!("root", "rabbit");
    let broker = Broker::start()?;
    let queues = ["at-once", "again", "shared", "stranger", "early"];
    let topology = queues.into_iter().fold(Topology::new(), |topology, queue| topology.queue(queue));
    broker.declare(&topology.limited("dropping", 3, "drop-head"))?;
    // What is in a queue when the agent comes was sent by nobody that it saw.
    let before = produced(&broker, &plan("early", "x").count(3))?;
    let agent = Builder::new()?.port(broker.port).args(&["--exclude-exe", "stranger"]).start()?;
    let all = |queue: &str| Consume::from(queue).prefetch(100);

    // Two publishers at once.
    let start = |name| Producer::start(Kind::Pika, &broker, &plan("at-once", name).count(30).batch(5).interval_ms(100));
    let two = ["a", "b"].map(start);
    let sent: Vec<_> = two.into_iter().map(|producer| ended(producer?)).collect::<Result<_>>()?;
    let times = |(_, messages): &(u32, Vec<Message>)| messages.first().zip(messages.last()).map(|(a, b)| (a.at, b.at));
    let [Some(a), Some(b)] = [times(&sent[0]), times(&sent[1])] else { anyhow::bail!("nothing was sent") };
    ensure!(a.0 < b.1 && b.0 < a.1, "they did not publish at once");
    let at_once = Case { name: "at once", sent, received: stopped(from(&broker, &all("at-once"))?, 60)? };
    // Some go back to the queue, and come again.
    let sent = vec![produced(&broker, &plan("again", "r").batch(COUNT))?];
    let again = Case { name: "again", sent, received: stopped(from(&broker, &all("again").requeue(4))?, COUNT + 5)? };
    // Two consumers of one queue.
    let mut consumers = from(&broker, &Consume::from("shared"))?;
    consumers.extend(from(&broker, &Consume::from("shared"))?);
    let sent = vec![produced(&broker, &plan("shared", "s").batch(5))?];
    let shared = Case { name: "shared", sent, received: stopped(consumers, COUNT)? };
    // A publisher that is not traced, before and while another one is.
    let unseen = Producer::start_as("stranger", &broker, &plan("stranger", "n"))?.finish()?;
    let later = Producer::start_as("stranger", &broker, &plan("stranger", "o").interval_ms(5))?;
    let sent = vec![produced(&broker, &plan("stranger", "p").interval_ms(5))?];
    ensure!(unseen.len() + later.finish()?.len() == 2 * COUNT, "not all are sent");
    let stranger = Case { name: "stranger", sent, received: stopped(from(&broker, &all("stranger"))?, 3 * COUNT)? };
    // A queue that throws the oldest away.
    let sent = vec![produced(&broker, &plan("dropping", "d"))?];
    let dropping = Case { name: "dropping", sent, received: stopped(from(&broker, &all("dropping"))?, 3)? };
    let sent = vec![produced(&broker, &plan("early", "y").count(3))?];
    let early = Case { name: "early", sent, received: stopped(from(&broker, &all("early"))?, 3 + before.1.len())? };
    let right = check(&[at_once, again, shared, stranger, dropping, early], agent, &broker)?;
    ensure!(right[3..] == [0, 0, 0], "nothing is certain of these: {right:?}");
    Ok(())
}
