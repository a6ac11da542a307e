//! A request, the order that its service puts into a topic, and what the service that reads the topic asks for because of
//! it, are one trace.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::Builder;
use tests::fixture::{Language, Server, free_port};
use tests::kafka::{Batch, Broker, Consume, Consumer, Kind, Orders, Produce, Record, Taker, VERSIONS, of_topic, taken};
use tests::needs;
use tests::span::{CLIENT, CONSUMER, PRODUCER, SERVER, Span};
use tests::wait;

const ONE_BY_ONE: usize = 20;
const AT_ONCE: usize = 5;

/// What is in the records' headers.
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
    orders: Orders,
    consumer: Consumer,
}

/// The trace that a request brings.
fn trace(number: usize) -> String {
    format!("5eed{number:028x}")
}

impl Chain {
    fn start(broker: &Broker, stock: &Server, taker: Taker, port: u16, kind: Kind, context: Context) -> Result<Self> {
        let name = format!("orders-{taker:?}-{kind:?}-{context:?}");
        broker.create(&name, 2)?;
        let mut plan = Produce::to(&name);
        plan.traceparent = context != Context::None;
        let orders = Orders::start(taker, broker, &plan, port)?;
        let consumer = Consumer::start(kind, broker, &Consume::from(&name, &name).next(&stock.base()))?;
        Ok(Self { name, context, orders, consumer })
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
    fn run(&self, stock: &Server) -> Result<()> {
        for number in 0..ONE_BY_ONE {
            let (key, context) = self.order(number);
            self.orders.take(&key, context.as_deref())?;
            let target = format!("/stock/{key}");
            wait::until(Duration::from_secs(30), &target, || {
                Ok(stock.truth(0)?.iter().any(|call| call.target == target).then_some(()))
            })?;
            // The call is logged before its answer has come.
            std::thread::sleep(Duration::from_millis(20));
        }
        let rest: Vec<_> = (ONE_BY_ONE..ONE_BY_ONE + AT_ONCE).map(|number| self.order(number)).collect();
        self.orders.take_at_once(&rest)?;
        self.consumer.receives(ONE_BY_ONE + AT_ONCE)
    }

    /// Fails unless each order is one trace of five spans, each below the one before. Of those that came at once, gives what
    /// is said wrongly of what happened within a process.
    fn check(&self, spans: &[Span], broker: &Broker, stock: &Server, sent: &[Record]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let produced = of_topic(spans, broker, PRODUCER, self.orders.pid(), &self.name)?;
        let consumed = of_topic(spans, broker, CONSUMER, self.consumer.pid(), &self.name)?;
        let consumed = taken(&consumed, self.consumer.kind);
        for number in 0..ONE_BY_ONE + AT_ONCE {
            let key = self.key(number);
            let record = sent.iter().find(|record| record.key == key).context("an order that was not sent")?;
            let (send, receive) = (holding(&produced, record)?, holding(&consumed, record)?);
            let request = http(spans, SERVER, self.orders.port, &format!("/order?of={key}"))?;
            let call = http(spans, CLIENT, stock.port, &format!("/stock/{key}"))?;
            let answer = http(spans, SERVER, stock.port, &format!("/stock/{key}"))?;
            child(call, answer)?;
            ensure!(call.pid() == Some(self.consumer.pid().into()), "another process asks: {call:?}");
            let at_once = number >= ONE_BY_ONE;
            ensure!(at_once || send.count == 1, "orders that came one by one are sent together: {send:?}");
            match self.context {
                // Like a request with a context that its process was not given: that names the parent itself.
                Context::Own if send.count == 1 => {
                    let own = send.span.trace_id != request.trace_id && method(send.span) == Some("context");
                    ensure!(own, "not in the record's own trace: {send:?}");
                }
                Context::Forwarded if send.count == 1 => child(request, send.span)?,
                _ if !at_once => child(request, send.span)?,
                _ => wrong.extend(misplaced(request, send.span)),
            }
            // Of several records' traces, none can be that of a span; then it has links to them.
            ensure!(at_once || receive.count == 1, "orders that came one by one are together: {receive:?}");
            let below = receive.span.parent_span_id == send.span.span_id && receive.span.trace_id == send.span.trace_id;
            let linked = receive.span.links.contains(&(send.span.trace_id.clone(), send.span.span_id.clone()));
            ensure!(below || (receive.count > 1 && linked), "{receive:?} is not joined to {send:?}");
            ensure!(!below || method(receive.span) == Some("offset"), "not by its offset: {receive:?}");
            if at_once {
                wrong.extend(misplaced(receive.span, call));
            } else {
                child(receive.span, call)?;
            }
            if self.context == Context::Forwarded {
                ensure!(request.trace_id == trace(number), "not in the request's own trace: {request:?}");
            }
        }
        Ok(wrong)
    }
}

fn method(span: &Span) -> Option<&str> {
    span.str("remora.link.method")
}

/// Tells of a span that is below another one than its parent; that it is below none is no error.
fn misplaced(parent: &Span, span: &Span) -> Option<String> {
    let right = span.parent_span_id.is_empty() || span.parent_span_id == parent.span_id;
    (!right).then(|| format!("{span:?} is not below {parent:?}"))
}

/// The one of `batches` that has this record.
fn holding<'a, 'b>(batches: &'a [Batch<'b>], record: &Record) -> Result<&'a Batch<'b>> {
    let offset = record.offset.context("an order without an offset")?;
    let mut found = batches.iter().filter(|batch| batch.has(record.partition, offset));
    let first = found.next().with_context(|| format!("no span has {record:?}"))?;
    ensure!(found.next().is_none(), "two spans have {record:?}");
    Ok(first)
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
    let method = span.str("remora.link.method").unwrap_or("nothing");
    format!("{} ({} of trace {}, below {:?} by {method})", span.name, span.span_id, span.trace_id, span.parent_span_id)
}

#[test]
fn an_order_is_one_trace() -> Result<()> {
    needs!("root", "kafka", "go");
    let broker = Broker::start(VERSIONS[0])?;
    let stock = Server::start(Language::Go)?;
    let kinds = [Kind::Librdkafka, Kind::Java, Kind::Kafkajs, Kind::Franz];
    let mut plans = Vec::new();
    for (number, kind) in kinds.into_iter().enumerate() {
        for (context, taker) in [Context::None, Context::Own, Context::Forwarded].into_iter().zip(0..) {
            // Each kind has both, and so has each context.
            let taker = if (taker + number) % 2 == 0 { Taker::Python } else { Taker::Go };
            plans.push((taker, free_port()?, kind, context));
        }
    }
    let mut builder = Builder::new()?.port(broker.port).port(stock.port);
    for (_, port, ..) in &plans {
        builder = builder.port(*port);
    }
    let agent = builder.start()?;
    let mut chains = Vec::new();
    for (taker, port, kind, context) in plans {
        let chain = Chain::start(&broker, &stock, taker, port, kind, context)?;
        chain.run(&stock).with_context(|| chain.name.clone())?;
        // Both services stay until the end, so that what they do on their own is beside the others' orders.
        chains.push(chain);
    }
    let each = ONE_BY_ONE + AT_ONCE;
    stock.truth(chains.len() * each)?;
    let _ = agent.wait_for_spans(chains.len() * each * 5);
    let spans = agent.stop()?.spans;
    let (mut wrong, mut misplaced) = (Vec::new(), Vec::new());
    for chain in &chains {
        match chain.check(&spans, &broker, &stock, &chain.orders.sent()?) {
            Ok(some) => misplaced.extend(some),
            Err(error) => wrong.push(format!("{}: {error:#}", chain.name)),
        }
    }
    let links = 2 * AT_ONCE * chains.len();
    println!("of {links} links within processes that served several orders {} are wrong", misplaced.len());
    ensure!(misplaced.len() * 50 <= links, "{} of {links} are wrong: {}", misplaced.len(), misplaced.join("\n"));
    ensure!(wrong.is_empty(), "{} of {} chains: {}", wrong.len(), chains.len(), wrong.join("\n"));
    Ok(())
}
