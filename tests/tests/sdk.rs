//! Services instrumented by OpenTelemetry's own SDKs beside unmodified ones: one trace, and one span of each end of a
//! request.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::fixture::Language::{self, Node, Python};
use tests::hop::Hop;
use tests::hop::Make::{self, Forwarding, Plain, Sdk};
use tests::names::{CLIENT_DURATION, SERVER_DURATION};
use tests::otlp::{Protocol, Receiver};
use tests::span::{CLIENT, SERVER, Span, Value};
use tests::{http, needs, wait};

const N: usize = 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// What both made of `N` requests to the first hop, `/hop/m0-` and so on.
struct Outcome {
    hops: Vec<Hop>,
    remora: Vec<Span>,
    sdks: Vec<Span>,
    /// The agent puts contexts into requests.
    fields: bool,
}

fn ask(hop: &Hop, name: &str) -> Result<()> {
    let answer = http::get(([127, 0, 0, 1], hop.port).into(), &format!("/hop/{name}"), "*/*")?;
    ensure!(answer.status == 200, "{} {}", answer.head, answer.body);
    Ok(())
}

/// A chain of hops, asked `N` times once all its SDKs are known to the agent.
fn run(kinds: &[(Language, Make)], builder: Builder) -> Result<Outcome> {
    let receiver = Receiver::start(Protocol::Http)?;
    let hops = Hop::chain(kinds, &receiver)?;
    let builder = hops.iter().fold(builder, |builder, hop| builder.port(hop.port));
    // Their exports are how the agent knows them.
    let agent = builder.port(receiver.address.port()).start()?;
    let instrumented = hops.iter().filter(|hop| hop.make == Sdk).count();
    ask(&hops[0], "warm-up")?;
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    wait::until(PATIENCE, "the SDKs are known", || {
        let known = agent.metrics()?.sum("remora_sdk_processes", &[]);
        Ok((known >= instrumented as f64).then_some(()))
    })?;
    for number in 0..N {
        ask(&hops[0], &format!("m{number}-"))?;
    }
    let spans = 2 * instrumented - usize::from(hops.last().is_some_and(|hop| hop.make == Sdk));
    wait::until(PATIENCE, "the SDKs have exported", || {
        let got = receiver.spans().iter().filter(|span| number_of(span).is_some()).count();
        Ok((got >= N * spans).then_some(()))
    })?;
    balanced(&agent, hops.len())?;
    let remora = agent.stop()?.spans;
    Ok(Outcome { hops, remora, sdks: receiver.spans(), fields: false })
}

/// Waits until every exchange is measured and accounted for: as a span, or left out.
fn balanced(agent: &Agent, hops: usize) -> Result<()> {
    let mut last = String::new();
    let done = wait::until(PATIENCE, "all is measured", || {
        let metrics = agent.metrics()?;
        let served = metrics.sum(&format!("{SERVER_DURATION}_count"), &[]);
        let called = metrics.sum(&format!("{CLIENT_DURATION}_count"), &[]);
        let exchanges = metrics.total("remora_exchanges_total", &[])?;
        let spans = metrics.total("remora_spans_total", &[])?;
        let left_out = metrics.total("remora_spans_left_out_total", &[("reason", "sdk")])?;
        last = format!("{served} served, {called} called, {exchanges} = {spans} + {left_out}");
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        let all = ((N + 1) * hops) as f64;
        Ok((served >= all && called >= all && (exchanges - spans - left_out).abs() < 0.5).then_some(()))
    });
    done.context(last)
}

/// The number of the request that a span is about.
fn number_of(span: &Span) -> Option<usize> {
    span.attributes.values().find_map(|value| match value {
        Value::Str(text) => text.split_once("/hop/m")?.1.split_once('-')?.0.parse().ok(),
        _ => None,
    })
}

/// The one span of this service, kind and request.
fn only<'a>(spans: &'a [Span], service: &str, kind: i32, number: usize) -> Result<&'a Span> {
    let is = |span: &&Span| {
        span.kind == kind && span.resource_str("service.name") == Some(service) && number_of(span) == Some(number)
    };
    let found: Vec<_> = spans.iter().filter(is).collect();
    ensure!(found.len() == 1, "{} spans of kind {kind} by {service} for request {number}", found.len());
    Ok(found[0])
}

fn child_of(child: &Span, parent: Option<&Span>) -> Result<()> {
    let expected = parent.map_or("", |parent| parent.span_id.as_str());
    ensure!(child.parent_span_id == expected, "the parent should be {parent:?}, not as in {child:?}");
    ensure!(parent.is_none_or(|parent| parent.trace_id == child.trace_id), "{child:?} is in another trace: {parent:?}");
    Ok(())
}

impl Outcome {
    /// Each hop has one server span, and one client span if it calls, made by whoever should; each in its place.
    fn is_right(&self) -> Result<()> {
        let Self { hops, remora, sdks, .. } = self;
        for number in 0..N {
            // The client of the hop before where Remora saw it, and the span whose context the request carries.
            let (mut client, mut carried): (Option<&Span>, Option<&Span>) = (None, None);
            let mut expected = 0;
            for (index, hop) in hops.iter().enumerate() {
                let made = if hop.make == Sdk { sdks } else { remora };
                let server = only(made, &hop.name, SERVER, number)?;
                expected += usize::from(hop.make != Sdk);
                match (hop.make, client, index) {
                    (Sdk, ..) => child_of(server, carried)?,
                    // The test itself has called, and it has no service name that is known.
                    (_, None, 0) => ensure!(!server.parent_span_id.is_empty(), "{server:?}"),
                    (_, client, _) => child_of(server, client.or(carried))?,
                }
                if index + 1 == hops.len() {
                    break;
                }
                let calls = only(made, &hop.name, CLIENT, number)?;
                child_of(calls, Some(server))?;
                expected += usize::from(hop.make != Sdk);
                (client, carried) = match hop.make {
                    Plain => (Some(calls), self.fields.then_some(calls)),
                    Forwarding => (Some(calls), carried),
                    Sdk => (None, Some(calls)),
                };
            }
            let about = |span: &&Span| number_of(span) == Some(number);
            let names: Vec<_> = remora.iter().filter(about).map(|span| (&span.name, span.pid(), span.kind)).collect();
            // And the span of the test's own call.
            ensure!(names.len() == expected + 1, "{expected} spans and one were expected for {number}: {names:?}");
            let of_hops = 2 * hops.len() - 1 - expected;
            let made = sdks.iter().filter(about).count();
            ensure!(made == of_hops, "{made} spans of SDKs for {number}, {of_hops} were expected");
        }
        Ok(())
    }

    /// How many traces the spans of one request are in.
    fn traces(&self, number: usize) -> usize {
        let all = self.remora.iter().chain(&self.sdks).filter(|span| number_of(span) == Some(number));
        all.map(|span| &span.trace_id).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Every span of a request is in one trace, but that of the test's own call, which no SDK could know of.
    fn one_trace_and_the_callers(&self) -> Result<()> {
        self.is_right()?;
        let traces: Vec<_> = (0..N).map(|number| self.traces(number)).collect();
        ensure!(traces == [2; N], "{traces:?}");
        Ok(())
    }
}

/// The server span of the unmodified service is the child of the SDK's client span, and the rest follows.
#[test]
fn from_an_sdk_to_unmodified_services() -> Result<()> {
    needs!("root", "sdk");
    for chain in [[(Python, Sdk), (Node, Plain), (Python, Plain)], [(Node, Sdk), (Python, Plain), (Node, Plain)]] {
        run(&chain, Builder::new()?)?.one_trace_and_the_callers().with_context(|| format!("{chain:?}"))?;
    }
    Ok(())
}

/// SDKs at both ends, and a service between them that passes their context on: all of it is one trace.
#[test]
fn between_two_sdks() -> Result<()> {
    needs!("root", "sdk");
    for chain in [
        &[(Python, Sdk), (Node, Forwarding), (Node, Sdk)][..],
        &[(Node, Sdk), (Python, Forwarding), (Python, Sdk)],
        &[(Python, Sdk), (Node, Forwarding), (Python, Plain), (Node, Plain)],
    ] {
        run(chain, Builder::new()?)?.one_trace_and_the_callers().with_context(|| format!("{chain:?}"))?;
    }
    Ok(())
}

/// Without a context on the wire an SDK begins a trace of its own: two traces, and still nothing twice.
#[test]
fn from_unmodified_services_to_an_sdk() -> Result<()> {
    needs!("root", "sdk");
    let chain = [(Python, Plain), (Node, Sdk), (Python, Plain)];
    let outcome = run(&chain, Builder::new()?)?;
    outcome.is_right()?;
    ensure!((0..N).all(|number| outcome.traces(number) == 2), "that of the caller and the SDK's own");
    Ok(())
}

/// With a field in the request the SDK goes on with the trace of the unmodified service: all of it is one trace, from the
/// test's own call on.
#[test]
fn from_unmodified_services_to_an_sdk_by_headers() -> Result<()> {
    needs!("root", "sdk");
    for chain in [[(Python, Plain), (Node, Sdk), (Python, Plain)], [(Node, Plain), (Python, Sdk), (Node, Plain)]] {
        let builder = Builder::new()?.args(&["--propagate", "headers", "--unsafe"]);
        let outcome = Outcome { fields: true, ..run(&chain, builder)? };
        outcome.is_right().with_context(|| format!("{chain:?}"))?;
        let traces: Vec<_> = (0..N).map(|number| outcome.traces(number)).collect();
        ensure!(traces == [1; N], "{chain:?}: {traces:?}");
    }
    Ok(())
}

/// What was left out comes when it is asked for.
#[test]
fn spans_of_sdks_can_be_kept() -> Result<()> {
    needs!("root", "sdk");
    let outcome = run(&[(Python, Sdk), (Node, Plain)], Builder::new()?.args(&["--sdk-spans", "keep"]))?;
    let Outcome { hops, remora, sdks, .. } = &outcome;
    for number in 0..N {
        let own = only(sdks, &hops[0].name, CLIENT, number)?;
        child_of(only(remora, &hops[0].name, CLIENT, number)?, Some(own))?;
        only(remora, &hops[0].name, SERVER, number)?;
        child_of(only(remora, &hops[1].name, SERVER, number)?, Some(own))?;
    }
    Ok(())
}
