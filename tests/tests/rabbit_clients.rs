//! The clients of RabbitMQ among each other, without the agent: what was sent must be what is received, or nothing can be
//! compared with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::fixture::{Language, Server, free_port};
use tests::rabbit::{
    Ack, Broker, Consume, Consumer, Kind, Message, Orders, Produce, Producer, Taker, Topology, wait_for_all,
};
use tests::tls::Credentials;
use tests::{needs, wait};

/// How often each message was received; fails unless it is just as it was sent.
fn times<'a>(received: &'a [Message], sent: &[Message]) -> Result<BTreeMap<&'a str, usize>> {
    let sent: BTreeMap<_, _> = sent.iter().map(|message| (&*message.message, message)).collect();
    let mut times = BTreeMap::new();
    for message in received {
        let original = sent.get(&*message.message).with_context(|| format!("nobody has sent {message:?}"))?;
        let place = |message: &Message| (message.exchange.clone(), message.routing_key.clone(), message.size);
        ensure!(place(message) == place(original), "{message:?} was {original:?}");
        *times.entry(&*message.message).or_default() += 1;
    }
    Ok(times)
}

fn with_result(messages: &[Message], result: &str) -> usize {
    messages.iter().filter(|message| message.result == result).count()
}

#[test]
fn what_is_sent_is_received() -> Result<()> {
    needs!("rabbit");
    let broker = Broker::start()?;
    let to = |queue: &str| Produce::to("", queue);
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
    ];
    for (sender, plan, receiver) in plans {
        broker.declare(&Topology::new().queue(&plan.key))?;
        let sent = Producer::run(sender, &broker, &plan)?;
        ensure!(with_result(&sent, "ok") == plan.count, "{sent:?}");
        let contexts: BTreeSet<_> = sent.iter().filter_map(|message| message.traceparent.as_deref()).collect();
        ensure!(contexts.len() == if plan.traceparent { plan.count } else { 0 }, "{} contexts", contexts.len());
        let consumer = Consumer::start(receiver, &broker, &Consume::from(&plan.key))?;
        consumer.receives(plan.count)?;
        let received = consumer.stop()?;
        let context = || format!("{sender:?} to {receiver:?}: {plan:?}");
        let times = times(&received, &sent).with_context(context)?;
        ensure!(times.len() == plan.count && received.len() == plan.count, "{}: {received:?}", context());
        let tags: BTreeSet<_> = received.iter().filter_map(|message| message.tag).collect();
        ensure!(tags == (1..=i64::try_from(plan.count)?).collect(), "{}: {received:?}", context());
    }
    Ok(())
}

/// Each client in each way.
#[test]
fn messages_are_acknowledged_in_all_ways() -> Result<()> {
    needs!("rabbit");
    const COUNT: usize = 20;
    let broker = Broker::start()?;
    for kind in Kind::ALL {
        let from = |way: &str| Consume::from(&format!("{kind:?}-{way}"));
        let plans = [
            (from("multiple").every(5), COUNT, 0, 0),
            (from("requeue").requeue(4), COUNT + 5, 5, 0),
            (from("reject").reject(5), COUNT, 0, 4),
            (from("none").ack(Ack::None), COUNT, 0, 0),
            (from("get").ack(Ack::Get), COUNT, 0, 0),
            (from("get-none").ack(Ack::GetNone), COUNT, 0, 0),
        ];
        for (plan, deliveries, nacked, rejected) in plans {
            broker.declare(&Topology::new().queue(&plan.queue))?;
            let sent = Producer::run(Kind::Amqp091, &broker, &Produce::to("", &plan.queue).count(COUNT).batch(COUNT))?;
            let consumer = Consumer::start(kind, &broker, &plan)?;
            consumer.receives(deliveries)?;
            let received = consumer.stop()?;
            let context = || format!("{}: {received:?}", plan.queue);
            ensure!(times(&received, &sent)?.len() == COUNT && received.len() == deliveries, "{}", context());
            let again = received.iter().filter(|message| message.redelivered == Some(true)).count();
            let results = (with_result(&received, "nack"), with_result(&received, "reject"), again);
            ensure!(results == (nacked, rejected, nacked), "{results:?} in {}", context());
            let none = if matches!(plan.ack, Ack::None | Ack::GetNone) { COUNT } else { 0 };
            ensure!(with_result(&received, "none") == none, "{}", context());
            // Nothing is left that another consumer could get.
            let other = Consumer::start(Kind::Amqp091, &broker, &Consume::from(&plan.queue))?;
            wait::throughout(Duration::from_millis(300), || {
                ensure!(other.done() == 0, "something is left of {}", context());
                Ok(())
            })?;
            other.stop()?;
        }
    }
    Ok(())
}

#[test]
fn what_goes_wrong_is_told() -> Result<()> {
    needs!("rabbit");
    let broker = Broker::start()?;
    broker.declare(&Topology::new().exchange("orders", "topic"))?;
    for kind in Kind::ALL {
        let full = format!("{kind:?}-full");
        broker.declare(&Topology::new().limited(&full, 1))?;
        let plans = [
            (Produce::to("orders", "nobody").mandatory().batch(1), "NO_ROUTE", 10),
            (Produce::to("orders", "nobody").mandatory().batch(10), "NO_ROUTE", 10),
            (Produce::to("missing", "nobody"), "NOT_FOUND", 10),
            (Produce::to("", &full), "nack", 9),
        ];
        for (plan, result, count) in plans {
            let told = Producer::run(kind, &broker, &plan.count(10))?;
            ensure!(with_result(&told, result) == count, "{kind:?}: not {count} of {result}: {told:?}");
        }
    }
    Ok(())
}

#[test]
fn exchanges_copy_and_consumers_share() -> Result<()> {
    needs!("rabbit");
    let broker = Broker::start()?;
    let topology = Topology::new().exchange("news", "fanout").queue("left").queue("right");
    broker.declare(&topology.binding("left", "news", "").binding("right", "news", ""))?;
    let start = |kind, queue: &str| Consumer::start(kind, &broker, &Consume::from(queue).prefetch(1));
    let (left, right) = (start(Kind::Java, "left")?, [start(Kind::Pika, "right")?, start(Kind::Amqplib, "right")?]);
    let sent = Producer::run(Kind::Amqp091, &broker, &Produce::to("news", "").count(100))?;
    left.receives(100)?;
    wait_for_all(&right.each_ref(), 100)?;
    let left = left.stop()?;
    ensure!(times(&left, &sent)?.len() == 100 && left.len() == 100, "{left:?}");
    let [first, second] = right.map(Consumer::stop);
    let right = [first?, second?];
    ensure!(right.iter().all(|received| !received.is_empty()), "one has got all");
    let right = right.concat();
    ensure!(times(&right, &sent)?.len() == 100 && right.len() == 100, "{right:?}");
    Ok(())
}

#[test]
fn all_speak_tls() -> Result<()> {
    needs!("rabbit");
    let credentials = Credentials::new()?;
    let broker = Broker::start_tls(&credentials)?;
    for (sender, receiver) in Kind::ALL.into_iter().zip(Kind::ALL.into_iter().rev()) {
        let plan = Produce::to("", &format!("{sender:?}-secure"));
        broker.declare(&Topology::new().queue(&plan.key))?;
        let sent = Producer::start_tls(sender, &broker, &plan, &credentials)?.finish()?;
        let consumer = Consumer::start_tls(receiver, &broker, &Consume::from(&plan.key), &credentials)?;
        consumer.receives(plan.count)?;
        let received = consumer.stop()?;
        ensure!(times(&received, &sent)?.len() == plan.count, "{sender:?} to {receiver:?}: {received:?}");
    }
    Ok(())
}

/// Each order leads to one call.
#[test]
fn orders_go_on_as_calls() -> Result<()> {
    needs!("rabbit", "go");
    let broker = Broker::start()?;
    let stock = Server::start(Language::Go)?;
    for taker in Taker::ALL {
        for kind in Kind::ALL {
            let queue = format!("orders-{taker:?}-{kind:?}");
            broker.declare(&Topology::new().queue(&queue))?;
            let orders = Orders::start(taker, &broker, &Produce::to("", &queue).traceparent(), free_port()?)?;
            let consumer = Consumer::start(kind, &broker, &Consume::from(&queue).next(&stock.base()))?;
            let keys: Vec<String> = (0..10).map(|i| format!("{queue}-{i}")).collect();
            keys[..5].iter().try_for_each(|key| orders.take(key, None))?;
            let context = "00-5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174-01";
            let others: Vec<_> = keys[5..].iter().map(|key| (key.clone(), Some(context.to_owned()))).collect();
            orders.take_at_once(&others)?;
            consumer.receives(10).with_context(|| queue.clone())?;
            let (sent, received) = (orders.sent()?, consumer.stop()?);
            ensure!(times(&received, &sent)?.len() == 10 && received.len() == 10, "{queue}: {received:?}");
            let forwarded = sent.iter().filter(|message| message.traceparent.as_deref() == Some(context));
            ensure!(forwarded.count() == 5 && sent.iter().all(|message| message.traceparent.is_some()), "{sent:?}");
        }
    }
    let calls = stock.truth(120)?;
    ensure!(calls.iter().all(|call| call.status == Some(200)), "{calls:?}");
    let targets: BTreeSet<_> = calls.iter().map(|call| call.target.as_str()).collect();
    ensure!(targets.len() == 120 && targets.iter().all(|target| target.starts_with("/stock/orders-")), "{targets:?}");
    Ok(())
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
