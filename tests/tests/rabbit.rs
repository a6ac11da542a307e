//! RabbitMQ: every message has a span of its publish and one of each of its deliveries, which is below it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::Agent;
use tests::metrics::Metrics;
use tests::names::{CONNECTION_COUNTS, MESSAGES_CONSUMED, MESSAGES_SENT, MESSAGING_DURATION, TIME_IN_QUEUE, TLS_FILES};
use tests::rabbit::{
    Ack, Broker, Consume, Consumer, Kind, Message, Produce, Producer, Topology, delivered, destination, joined,
    published,
};
use tests::span::Span;
use tests::tls::Credentials;
use tests::{needs, wait};

/// What one process has sent or received.
struct Done {
    pid: u32,
    bare: bool,
    ack: Ack,
    messages: Vec<Message>,
}

impl Done {
    fn sent(kind: Kind, broker: &Broker, plan: &Produce) -> Result<Self> {
        let producer = Producer::start(kind, broker, plan)?;
        let pid = producer.pid();
        Ok(Self { pid, bare: plan.bare, ack: Ack::None, messages: producer.finish()? })
    }

    /// Waits until the consumer has had so many deliveries, and stops it.
    fn received(consumer: Consumer, count: usize, bare: bool, ack: Ack) -> Result<Self> {
        consumer.receives(count)?;
        let (kind, pid) = (consumer.kind, consumer.pid());
        let messages = consumer.stop()?;
        ensure!(messages.len() == count, "{kind:?} has had {} deliveries instead of {count}", messages.len());
        Ok(Self { pid, bare, ack, messages })
    }
}

/// What one process has published, and others have got of it.
struct Case {
    name: String,
    sent: Done,
    received: Vec<Done>,
}

impl Case {
    /// Fails unless all have spans that tell of all, and each delivery is below its message's publish.
    fn check(&self, spans: &[Span], broker: &Broker) -> Result<()> {
        let published = published(spans, broker, self.sent.pid, &self.sent.messages, self.sent.bare)?;
        for (message, span) in &published {
            // What the producer itself put into the headers is the parent.
            let parent = message.traceparent.as_deref().and_then(|context| context.split('-').nth(2));
            ensure!(parent.unwrap_or_default() == span.parent_span_id, "{message:?} is not below {parent:?}: {span:?}");
        }
        for Done { pid, bare, ack, messages } in &self.received {
            let what = || format!("{ack:?} of {:?}", messages.first().and_then(|message| message.queue.as_deref()));
            let delivered = delivered(spans, broker, *pid, messages, *bare, *ack).with_context(what)?;
            joined(&published, &delivered).with_context(what)?;
        }
        Ok(())
    }

    /// All messages count, by the places that the spans name.
    fn count(&self, metrics: &Metrics) -> Result<()> {
        counts(metrics, MESSAGES_SENT, "publish", &self.sent.messages)?;
        counts(metrics, &format!("{MESSAGING_DURATION}_count"), "publish", &self.sent.messages)?;
        for Done { ack, messages, .. } in &self.received {
            let operation = if matches!(ack, Ack::Get | Ack::GetNone) { "receive" } else { "process" };
            counts(metrics, MESSAGES_CONSUMED, operation, messages)?;
            let labels = [("messaging_destination_name", &*place(messages))];
            let queued = metrics.total(&format!("{TIME_IN_QUEUE}_count"), &labels)?;
            ensure!((queued - messages.len() as f64).abs() < 0.5, "{queued} times in the queue of {labels:?}");
        }
        Ok(())
    }

    fn spans(&self) -> usize {
        self.sent.messages.len() + self.received.iter().map(|done| done.messages.len()).sum::<usize>()
    }
}

/// All have the same.
fn place(messages: &[Message]) -> String {
    messages.first().map(destination).unwrap_or_default()
}

fn counts(metrics: &Metrics, name: &str, operation: &str, messages: &[Message]) -> Result<()> {
    let labels = [
        ("messaging_system", "rabbitmq"),
        ("messaging_operation_name", operation),
        ("messaging_destination_name", &*place(messages)),
    ];
    let found = metrics.total(name, &labels)?;
    let expected = messages.len();
    ensure!((found - expected as f64).abs() < 0.5, "{name} {labels:?} is {found}, expected {expected}");
    Ok(())
}

/// Fails with all that is wrong of the cases, or when anybody else has a span.
fn check(cases: &[Case], agent: Agent, broker: &Broker, counted: bool) -> Result<()> {
    let expected = cases.iter().map(Case::spans).sum();
    // Too few are better told of by the comparison that follows than by a deadline.
    let _ = agent.wait_for_spans(expected);
    let metrics = agent.metrics()?;
    let spans = agent.stop()?.spans;
    let mut wrong = Vec::new();
    for case in cases {
        let said = case.check(&spans, broker).and_then(|()| if counted { case.count(&metrics) } else { Ok(()) });
        wrong.extend(said.err().map(|error| format!("{}: {error:#}", case.name)));
    }
    ensure!(wrong.is_empty(), "{} of {} cases: {}", wrong.len(), cases.len(), wrong.join("\n"));
    let pids: Vec<_> = cases
        .iter()
        .flat_map(|case| case.received.iter().chain([&case.sent]))
        .map(|done| i64::from(done.pid))
        .collect();
    let other = spans.iter().find(|span| span.pid().is_none_or(|pid| !pids.contains(&pid)));
    ensure!(other.is_none() && spans.len() == expected, "{} spans of {expected}; another's: {other:?}", spans.len());
    Ok(())
}

/// By all kinds of clients to all others, with and without confirms and contexts.
#[test]
fn every_message_is_published_once_and_delivered_once() -> Result<()> {
    needs!("root", "rabbit");
    let broker = Broker::start()?;
    let agent = Agent::on(broker.port)?;
    let to = |key: &str| Produce::to("events", key);
    let plans = [
        (Kind::Pika, to("pika-each").traceparent(), Kind::Amqplib),
        (Kind::Pika, to("pika-many").batch(10), Kind::Amqp091),
        (Kind::Pika, to("pika-none").unconfirmed().bare(), Kind::Java),
        (Kind::Amqplib, to("node-each").size(300 << 10), Kind::Java),
        (Kind::Amqplib, to("node-many").batch(10).channels(3), Kind::Pika),
        (Kind::Amqplib, to("node-none").unconfirmed().batch(20).traceparent(), Kind::Amqp091),
        (Kind::Amqp091, to("go-each").traceparent().bare(), Kind::Pika),
        (Kind::Amqp091, to("go-many").batch(20), Kind::Java),
        (Kind::Amqp091, to("go-none").unconfirmed().size(300 << 10), Kind::Amqplib),
        (Kind::Java, to("java-each").channels(2), Kind::Amqp091),
        (Kind::Java, to("java-many").batch(20).traceparent(), Kind::Amqplib),
        (Kind::Java, to("java-none").unconfirmed(), Kind::Pika),
        // So much that hundreds are under way at any time.
        (Kind::Amqp091, to("go-flood").count(3000).batch(500), Kind::Java),
    ];
    let queue_of = |plan: &Produce| format!("{}-queue", plan.key);
    let topology = plans.iter().fold(Topology::new().exchange("events", "topic"), |topology, (_, plan, _)| {
        let queue = queue_of(plan);
        topology.queue(&queue).binding(&queue, "events", &plan.key)
    });
    broker.declare(&topology)?;
    let mut cases = Vec::new();
    for (number, (sender, mut plan, receiver)) in plans.into_iter().enumerate() {
        let queue = queue_of(&plan);
        if number % 2 == 1 {
            // By the default exchange, whose keys are the queues' names.
            (plan.exchange, plan.key) = (String::new(), queue.clone());
        }
        // Half of the consumers wait for the messages, the others come afterwards.
        let start = || Consumer::start(receiver, &broker, &Consume::from(&queue));
        let early = (number % 4 < 2).then(start).transpose()?;
        let sent = Done::sent(sender, &broker, &plan)?;
        let consumer = early.map_or_else(start, Ok)?;
        let received = vec![Done::received(consumer, plan.count, plan.bare, Ack::Each)?];
        cases.push(Case { name: format!("{queue} from {sender:?} to {receiver:?}"), sent, received });
    }
    check(&cases, agent, &broker, true)
}

/// What is published once and goes to many queues, from each of which it is taken in another way.
#[test]
fn deliveries_end_as_they_were_settled() -> Result<()> {
    needs!("root", "rabbit");
    const COUNT: usize = 20;
    let broker = Broker::start()?;
    let agent = Agent::on(broker.port)?;
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        let exchange = format!("{kind:?}-all");
        let from = |way: &str| Consume::from(&format!("{kind:?}-{way}"));
        let plans = [
            (from("multiple").every(5), COUNT),
            (from("requeue").requeue(4), COUNT + 5),
            (from("reject").reject(5), COUNT),
            (from("none").ack(Ack::None), COUNT),
            (from("get").ack(Ack::Get), COUNT),
            (from("get-none").ack(Ack::GetNone), COUNT),
        ];
        let mut topology = Topology::new().exchange(&exchange, "fanout");
        for (plan, _) in &plans {
            topology = topology.queue(&plan.queue).binding(&plan.queue, &exchange, "");
        }
        broker.declare(&topology)?;
        let sent = Done::sent(Kind::Amqp091, &broker, &Produce::to(&exchange, "").count(COUNT).batch(5))?;
        let consumers: Vec<_> =
            plans.iter().map(|(plan, _)| Consumer::start(kind, &broker, plan)).collect::<Result<_>>()?;
        let received = consumers.into_iter().zip(&plans);
        let received = received.map(|(consumer, (plan, count))| Done::received(consumer, *count, false, plan.ack));
        cases.push(Case { name: format!("{kind:?}"), sent, received: received.collect::<Result<_>>()? });
    }
    check(&cases, agent, &broker, true)
}

#[test]
fn what_goes_wrong_is_called_by_its_name() -> Result<()> {
    needs!("root", "rabbit");
    let broker = Broker::start()?;
    let full = |kind: Kind| format!("{kind:?}-full");
    let topology = Topology::new().exchange("orders", "topic");
    broker.declare(
        &Kind::ALL.into_iter().fold(topology, |topology, kind| topology.limited(&full(kind), 1, "reject-publish")),
    )?;
    let agent = Agent::on(broker.port)?;
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        let nobody = format!("{kind:?}-nobody");
        let to = |exchange, key: &str, name| Produce::to(exchange, key).named(name).count(10);
        let plans = [
            (to("orders", &nobody, "returned").mandatory(), "NO_ROUTE", 10),
            (to("orders", &nobody, "returned-many").mandatory().batch(10), "NO_ROUTE", 10),
            // Nobody is told.
            (to("orders", &nobody, "dropped"), "ok", 10),
            (to("missing", &nobody, "missing"), "NOT_FOUND", 10),
            (to("", &full(kind), "full"), "nack", 9),
        ];
        for (plan, result, count) in plans {
            let name = format!("{} of {kind:?}", plan.name);
            let sent = Done::sent(kind, &broker, &plan)?;
            let told = sent.messages.iter().filter(|message| message.result == result).count();
            ensure!(told == count, "{name}: {:?}", sent.messages);
            cases.push(Case { name, sent, received: Vec::new() });
        }
    }
    // AMQP 1.0 is another protocol of the same name, by itself, by TLS and by SASL.
    [0, 2, 3].into_iter().try_for_each(|id| broker.hello([b'A', b'M', b'Q', b'P', id, 1, 0, 0]))?;
    wait::until(Duration::from_secs(5), "it is counted as not supported", || {
        Ok((agent.metrics()?.sum(CONNECTION_COUNTS, &[("what", "unsupported")]) >= 3.0).then_some(()))
    })?;
    check(&cases, agent, &broker, false)
}

/// Messages that do not differ in anything are below the right publish, or below none.
fn alike(broker: &Broker) -> Result<()> {
    let agent = Agent::on(broker.port)?;
    let send = |queue: &str| Done::sent(Kind::Amqp091, broker, &Produce::to("", queue));
    // All twice in the queue, one after the other.
    let twice = [send("alike")?, send("alike")?];
    let both = Done::received(Consumer::start(Kind::Pika, broker, &Consume::from("alike"))?, 40, false, Ack::Each)?;
    // The same names again, but only when the ones before are gone.
    let consumer = Consumer::start(Kind::Amqplib, broker, &Consume::from("again"))?;
    let first = send("again")?;
    consumer.receives(20)?;
    let second = send("again")?;
    let again = Done::received(consumer, 40, false, Ack::Each)?;
    let _ = agent.wait_for_spans(160);
    let spans = agent.stop()?.spans;
    let parents = |name: &'static str, sent: [&Done; 2], received: &Done| -> Result<usize> {
        let published = sent.map(|done| published(&spans, broker, done.pid, &done.messages, false).context(name));
        let [first, second] = published;
        let published = [first?, second?];
        let delivered = delivered(&spans, broker, received.pid, &received.messages, false, Ack::Each).context(name)?;
        let mut parents = 0;
        for (number, (message, span)) in delivered.iter().enumerate() {
            let origins = &published[number / 20];
            let (_, origin) = origins.iter().find(|(other, _)| other.message == message.message).context("not sent")?;
            let below = span.parent_span_id == origin.span_id && span.trace_id == origin.trace_id;
            ensure!(below || span.parent_span_id.is_empty(), "{name}: {span:?} is not below {origin:?}");
            parents += usize::from(below);
        }
        Ok(parents)
    };
    let [first_ones, second_ones] = &twice;
    let doubtful = parents("alike", [first_ones, second_ones], &both)?;
    println!("of 40 deliveries of which others are alike {doubtful} have a parent");
    let certain = parents("again", [&first, &second], &again)?;
    ensure!(certain == 40, "{certain} of 40 have a parent, although only one message of a kind was ever in the queue");
    Ok(())
}

/// A consumer that is gone without an acknowledgement gives its messages back; another one gets them, below the same publish.
fn lost(broker: &Broker) -> Result<()> {
    let agent = Agent::on(broker.port)?;
    let sent = Done::sent(Kind::Java, broker, &Produce::to("", "lost"))?;
    // It would acknowledge 100 at once.
    let lost = Consumer::start(Kind::Pika, broker, &Consume::from("lost").every(100).prefetch(5))?;
    lost.receives(5)?;
    let pid = lost.pid();
    lost.kill()?;
    let other = Consumer::start(Kind::Amqp091, broker, &Consume::from("lost"))?;
    let received = Done::received(other, 20, false, Ack::Each)?;
    let again = received.messages.iter().filter(|message| message.redelivered == Some(true)).count();
    ensure!(again == 5, "{again} messages come again");
    let _ = agent.wait_for_spans(45);
    let spans = agent.stop()?.spans;
    let (open, rest): (Vec<_>, Vec<_>) = spans.into_iter().partition(|span| span.pid() == Some(i64::from(pid)));
    ensure!(open.len() == 5, "{} spans of what was not acknowledged", open.len());
    let failed = |span: &&Span| span.str("error.type").is_some() && span.name == "process lost";
    ensure!(open.iter().filter(failed).count() == 5, "the connection was lost: {open:?}");
    Case { name: "lost".to_owned(), sent, received: vec![received] }.check(&rest, broker)
}

#[test]
fn what_comes_twice_is_below_its_own_publish() -> Result<()> {
    needs!("root", "rabbit");
    let broker = Broker::start()?;
    broker.declare(&Topology::new().queue("alike").queue("again").queue("lost"))?;
    alike(&broker)?;
    lost(&broker)
}

/// Queues that come and go under names of the broker's: spans have the names, metrics all under one.
#[test]
fn queues_without_a_name_are_counted_together() -> Result<()> {
    needs!("root", "rabbit");
    let broker = Broker::start()?;
    broker.declare(&Topology::new().exchange("news", "fanout"))?;
    let agent = Agent::on(broker.port)?;
    let start = |_| Consumer::start(Kind::Pika, &broker, &Consume::copies("news"));
    let consumers: Vec<_> = (0..3).map(start).collect::<Result<_>>()?;
    let sent = Done::sent(Kind::Amqplib, &broker, &Produce::to("news", ""))?;
    let received = consumers.into_iter().map(|consumer| Done::received(consumer, 20, false, Ack::Each));
    let cases = [Case { name: "news".to_owned(), sent, received: received.collect::<Result<_>>()? }];
    let labels = [("messaging_operation_name", "process"), ("messaging_destination_name", "news:amq.gen")];
    let counted = wait::until(Duration::from_secs(10), "all are counted under one name", || {
        Ok((agent.metrics()?.sum(MESSAGES_CONSUMED, &labels) >= 59.5).then_some(()))
    });
    check(&cases, agent, &broker, false).and(counted)
}

/// By TLS, where the library is one that is seen through.
#[test]
fn all_is_the_same_under_tls() -> Result<()> {
    needs!("root", "rabbit");
    let credentials = Credentials::new()?;
    let broker = Broker::start_tls(&credentials)?;
    let agent = Agent::with_tls_on(broker.tls_port.context("it does not speak TLS")?)?;
    let kinds = [Kind::Pika, Kind::Amqplib, Kind::Amqp091];
    let queue = |kind: Kind| format!("{kind:?}-secure");
    let topology = Topology::new().queue("nothing");
    broker.declare(&kinds.into_iter().fold(topology, |topology, kind| topology.queue(&queue(kind))))?;
    // A program that was never seen before is read while it runs, and one in Go needs some milliseconds for all it has to do.
    let before = agent.metrics()?.total(TLS_FILES, &[])?;
    let idle = Consumer::start_tls(Kind::Amqp091, &broker, &Consume::from("nothing"), &credentials)?;
    wait::until(Duration::from_secs(10), "its functions are hooked", || {
        Ok((agent.metrics()?.total(TLS_FILES, &[])? > before).then_some(()))
    })?;
    let mut cases = Vec::new();
    for (sender, receiver) in kinds.into_iter().zip(kinds.into_iter().rev()) {
        let plan = Produce::to("", &queue(sender));
        let producer = Producer::start_tls(sender, &broker, &plan, &credentials)?;
        let pid = producer.pid();
        let sent = Done { pid, bare: false, ack: Ack::None, messages: producer.finish()? };
        let consumer = Consumer::start_tls(receiver, &broker, &Consume::from(&plan.key), &credentials)?;
        let received = vec![Done::received(consumer, plan.count, false, Ack::Each)?];
        cases.push(Case { name: format!("{sender:?} to {receiver:?}"), sent, received });
    }
    check(&cases, agent, &broker, false)?;
    idle.stop().map(drop)
}

/// No process of a broker outlives it, not even Erlang's helpers.
#[test]
fn a_broker_ends_as_a_whole() -> Result<()> {
    needs!("rabbit");
    let broker = Broker::start()?;
    let processes = broker.processes();
    ensure!(processes.len() > 2, "only {processes:?} are known");
    drop(broker);
    wait::until(Duration::from_secs(5), "they are gone", || {
        // What nobody has waited for yet has no command line any more.
        let lives = |pid: &u32| {
            let command = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
            command.is_ok_and(|text| !text.is_empty())
        };
        Ok((!processes.iter().any(lives)).then_some(()))
    })
}
