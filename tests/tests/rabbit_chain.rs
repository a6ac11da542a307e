//! A request, the order that its service publishes, and what the service that gets the message asks for because of it, are
//! one trace.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::fixture::{Language, Server, free_port};
use tests::otlp::{Protocol, Receiver};
use tests::rabbit::{
    Ack, Broker, Consume, Consumer, Kind, Message, Orders, Produce, Taker, Topology, delivered, join, method, published,
};
use tests::span::{CLIENT, SERVER, Span};
use tests::{needs, wait};

const ONE_BY_ONE: usize = 10;
const AT_ONCE: usize = 5;

/// What is in the messages' headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    None,
    /// Of a trace that the service that takes the orders begins.
    Own,
    /// What the request brought.
    Forwarded,
}

/// A path through all services.
struct Chain {
    name: String,
    context: Context,
    ack: Ack,
    orders: Orders,
    consumer: Consumer,
}

/// The queue and the key of a chain.
fn name(taker: Taker, kind: Kind, ack: Ack, context: Context) -> String {
    format!("orders-{taker:?}-{kind:?}-{ack:?}-{context:?}")
}

/// The trace that a request brings.
fn trace(number: usize) -> String {
    format!("5eed{number:028x}")
}

impl Chain {
    fn start(
        broker: &Broker,
        stock: &Server,
        (taker, port): (Taker, u16),
        (kind, ack): (Kind, Ack),
        context: Context,
    ) -> Result<Self> {
        let name = name(taker, kind, ack, context);
        let mut plan = Produce::to("orders", &name);
        plan.traceparent = context != Context::None;
        let orders = Orders::start(taker, broker, &plan, port)?;
        let consumer = Consumer::start(kind, broker, &Consume::from(&name).ack(ack).next(&stock.base()))?;
        Ok(Self { name, context, ack, orders, consumer })
    }

    fn key(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    fn order(&self, number: usize) -> (String, Option<String>) {
        let context = (self.context == Context::Forwarded)
            .then(|| format!("00-{}-{:016x}-01", trace(number), 0xcafe_0000 + number));
        (self.key(number), context)
    }

    /// Takes orders; none but the last few is taken before the one before it has come to its end.
    fn run(&self) -> Result<()> {
        for number in 0..ONE_BY_ONE {
            let (key, context) = self.order(number);
            self.orders.take(&key, context.as_deref())?;
            self.consumer.receives(number + 1)?;
        }
        let rest: Vec<_> = (ONE_BY_ONE..ONE_BY_ONE + AT_ONCE).map(|number| self.order(number)).collect();
        self.orders.take_at_once(&rest)?;
        self.consumer.receives(ONE_BY_ONE + AT_ONCE)
    }

    /// Fails unless each order is one trace of five spans besides its client's, each below the one before. Of those that came at once, counts
    /// what is not known of what happened within a process, and gives what is said wrongly of that.
    fn check(&self, spans: &[Span], broker: &Broker, stock: &Server, unknown: &mut usize) -> Result<Vec<String>> {
        let (sent, received) = (self.orders.sent()?, self.consumer.received()?);
        let published = published(spans, broker, self.orders.pid(), &sent, false)?;
        let delivered = delivered(spans, broker, self.consumer.pid(), &received, false, self.ack)?;
        let (mut wrong, mut failed) = (Vec::new(), Vec::new());
        for number in 0..ONE_BY_ONE + AT_ONCE {
            let key = self.key(number);
            let (_, publish) = published.iter().find(has(&key)).context("an order that was not sent")?;
            let (_, delivery) = delivered.iter().find(has(&key)).context("an order that was not received")?;
            let request = http(spans, SERVER, self.orders.port, &format!("/order?of={key}"))?;
            let call = http(spans, CLIENT, stock.port, &format!("/stock/{key}"))?;
            let answer = http(spans, SERVER, stock.port, &format!("/stock/{key}"))?;
            ensure!(call.pid() == Some(self.consumer.pid().into()), "another process asks: {call:?}");
            child(call, answer)?;
            join(publish, delivery).with_context(|| format!("{delivery:?}"))?;
            let mut inside = vec![(*delivery, call)];
            if self.context == Context::Own {
                // Like a request with a context that its process was not given: that names the parent itself.
                let own = publish.trace_id != request.trace_id && method(publish) == Some("context");
                ensure!(own, "not in the message's own trace: {publish:?}");
            } else {
                inside.push((request, *publish));
            }
            if self.context == Context::Forwarded {
                ensure!(request.trace_id == trace(number), "not in the request's own trace: {request:?}");
            }
            for (parent, span) in inside {
                match child(parent, span) {
                    Ok(()) => {}
                    Err(error) if number < ONE_BY_ONE => failed.push(format!("{number}: {error:#}")),
                    Err(_) if span.parent_span_id.is_empty() => *unknown += 1,
                    Err(error) => wrong.push(format!("{number} of {}: {error:#}", self.name)),
                }
            }
        }
        ensure!(failed.is_empty(), "of those that came one by one: {}", failed.join("; "));
        Ok(wrong)
    }
}

fn has<'a>(name: &'a str) -> impl Fn(&&(&Message, &Span)) -> bool + 'a {
    move |(message, _)| message.message == name
}

/// The span of an exchange over HTTP.
fn http<'a>(spans: &'a [Span], kind: i32, port: u16, target: &str) -> Result<&'a Span> {
    let end = if kind == CLIENT { "network.peer.port" } else { "network.local.port" };
    let is = |span: &&Span| {
        span.kind == kind && span.int(end) == Some(port.into()) && span.target().as_deref() == Some(target)
    };
    let mut found = spans.iter().filter(is);
    let first = found.next().with_context(|| format!("no span of kind {kind} has {target}"))?;
    ensure!(found.next().is_none(), "two spans of kind {kind} have {target}");
    Ok(first)
}

fn child(parent: &Span, child: &Span) -> Result<()> {
    let right = child.trace_id == parent.trace_id && child.parent_span_id == parent.span_id;
    ensure!(right, "{} is not below {}", short(child), short(parent));
    Ok(())
}

fn short(span: &Span) -> String {
    let (method, confidence) = (method(span).unwrap_or("nothing"), span.double("remora.link.confidence"));
    let Span { name, span_id, trace_id, parent_span_id, .. } = span;
    format!("{name} ({span_id} of trace {trace_id}, below {parent_span_id:?} by {method}, {confidence:?})")
}

#[test]
fn an_order_is_one_trace() -> Result<()> {
    needs!("root", "rabbit", "go");
    let broker = Broker::start()?;
    let stock = Server::start(Language::Go)?;
    let mut plans = Vec::new();
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        for (context, turn) in [Context::None, Context::Own, Context::Forwarded].into_iter().zip(0..) {
            // Each kind has all, and so has each context.
            let taker = Taker::ALL[(turn + number) % Taker::ALL.len()];
            plans.push(((taker, free_port()?), (kind, Ack::Each), context));
        }
        // What is acknowledged by being sent, or asked for.
        let taker = Taker::ALL[number % Taker::ALL.len()];
        let ack = [Ack::None, Ack::Get, Ack::GetNone][number % 3];
        plans.push(((taker, free_port()?), (kind, ack), Context::None));
    }
    let receiver = Receiver::start(Protocol::Http)?;
    let mut builder = Builder::new()?.port(broker.port).port(stock.port);
    for (name, value) in [("ENDPOINT", &*receiver.endpoint()), ("PROTOCOL", Protocol::Http.name())] {
        builder = builder.env(&format!("OTEL_EXPORTER_OTLP_{name}"), value);
    }
    let mut topology = Topology::new().exchange("orders", "topic");
    for ((taker, port), (kind, ack), context) in &plans {
        builder = builder.port(*port);
        let name = name(*taker, *kind, *ack, *context);
        topology = topology.queue(&name).binding(&name, "orders", &name);
    }
    broker.declare(&topology)?;
    let agent = builder.start()?;
    let mut chains = Vec::new();
    for (taker, consumer, context) in plans {
        let chain = Chain::start(&broker, &stock, taker, consumer, context)?;
        chain.run().with_context(|| chain.name.clone())?;
        // Both services stay until the end, so that what they do on their own is beside the others' orders.
        chains.push(chain);
    }
    let each = ONE_BY_ONE + AT_ONCE;
    wait::until(Duration::from_secs(10), "all calls are answered", || {
        Ok((stock.truth(0)?.len() >= chains.len() * each).then_some(()))
    })?;
    let written = agent.wait_for_spans(chains.len() * each * 6);
    let shown = written.and_then(|spans| shown(&agent, &chains, &spans));
    let spans = agent.stop()?.spans;
    let (mut wrong, mut misplaced, mut unknown) = (Vec::new(), Vec::new(), 0);
    for chain in &chains {
        match chain.check(&spans, &broker, &stock, &mut unknown) {
            Ok(some) => misplaced.extend(some),
            Err(error) => wrong.push(format!("{}: {error:#}", chain.name)),
        }
    }
    let links = chains.iter().map(|chain| if chain.context == Context::Own { 1 } else { 2 }).sum::<usize>() * AT_ONCE;
    let few = misplaced.len();
    println!("of {links} links within processes that served several orders {few} are wrong, {unknown} unknown");
    ensure!(wrong.is_empty(), "{} of {} chains: {}", wrong.len(), chains.len(), wrong.join("\n"));
    ensure!(unknown * 2 < links, "of {links} links {unknown} are unknown");
    ensure!(misplaced.is_empty(), "{} of {links} are wrong: {}", misplaced.len(), misplaced.join("\n"));
    shown.context("on the page")?;
    let places = |spans: &[Span]| -> BTreeSet<[String; 3]> {
        spans.iter().map(|span| [&span.trace_id, &span.span_id, &span.parent_span_id].map(Clone::clone)).collect()
    };
    ensure!(receiver.faults().is_empty() && places(&receiver.spans()) == places(&spans), "others came by OTLP");
    Ok(())
}

/// Fails unless the page has the whole of an order's trace.
fn shown(agent: &Agent, chains: &[Chain], spans: &[Span]) -> Result<()> {
    let chain = chains.iter().rfind(|chain| chain.context == Context::None).context("no chain")?;
    let order = http(spans, SERVER, chain.orders.port, &format!("/order?of={}", chain.key(ONE_BY_ONE - 1)))?;
    let page: serde_json::Value = serde_json::from_str(&agent.get(&format!("/api/traces/{}", order.trace_id))?.body)?;
    let names = page["spans"].as_array().context("no spans")?.iter().map(|span| span["name"].as_str());
    let names: Vec<_> = names.map(Option::unwrap_or_default).collect();
    let [_, _, publish, process, _, _] = names[..] else { anyhow::bail!("there are {names:?}") };
    let right =
        publish.starts_with("publish ") && ["process ", "receive "].iter().any(|name| process.starts_with(name));
    ensure!(right, "there are {names:?}");
    Ok(())
}
