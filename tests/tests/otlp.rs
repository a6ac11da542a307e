//! OTLP export to a real receiver that is well, dead, slow or talks nonsense.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::expect::{Side, expect_pairs, undisturbed};
use tests::fixture::{Client, Language, Server};
use tests::otlp::{Mode, Nonsense, Protocol, Receiver};
use tests::span::Span;
use tests::{names, needs, plan, wait};

/// Longer than the longest back-off between two tries.
const RECOVERY: Duration = Duration::from_secs(60);
/// The bar for resident memory, whatever the endpoint does.
const MEMORY: u64 = 64 << 20;

fn exporting(server: &Server, endpoint: &str, protocol: Protocol) -> Result<Builder> {
    Ok(Builder::new()?
        .port(server.port)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
        // The faults are to be of traces alone.
        .env("OTEL_METRICS_EXPORTER", "none"))
}

fn ids(spans: &[Span]) -> BTreeSet<(String, String)> {
    spans.iter().map(|span| (span.trace_id.clone(), span.span_id.clone())).collect()
}

#[test]
fn the_same_spans_as_in_the_file() -> Result<()> {
    needs!("root", "go");
    undisturbed(|| {
        for (protocol, compression) in
            [(Protocol::Grpc, "none"), (Protocol::Grpc, "gzip"), (Protocol::Http, "none"), (Protocol::Http, "gzip")]
        {
            let server = Server::start(Language::Go)?;
            let receiver = Receiver::start(protocol)?;
            let agent = exporting(&server, &receiver.endpoint(), protocol)?
                .env("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
                .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue%20sky,x-other=1")
                .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
                .start()?;
            let done = Client::run(Language::Go, &server.base(), &plan::mixed("e", 100), &[])?;
            let served = server.truth(100)?;
            agent.wait_for_spans(200)?;
            let written = agent.stop()?.spans;
            let received = receiver.spans();
            ensure!(receiver.faults().is_empty(), "{protocol:?} {compression}: {:?}", receiver.faults());
            expect_pairs(&[Side::client(&done, server.port), Side::server(&served, server.port)], &received)?;
            ensure!(ids(&received) == ids(&written), "{protocol:?} {compression}: not the spans of the file");
            for span in &received {
                let twin = written
                    .iter()
                    .find(|twin| twin.span_id == span.span_id)
                    .map(|twin| (&twin.attributes, &twin.resource));
                ensure!(
                    twin == Some((&span.attributes, &span.resource)),
                    "{protocol:?}: {span:?}\ndiffers from {twin:?}"
                );
                ensure!(span.resource_str("deployment.environment.name") == Some("test"), "{:?}", span.resource);
            }
            ensure!(receiver.header("x-tenant").as_deref() == Some("blue sky"), "{:?}", receiver.header("x-tenant"));
            let packed = receiver.header(if protocol == Protocol::Grpc { "grpc-encoding" } else { "content-encoding" });
            ensure!(packed.is_some_and(|how| how == "gzip") == (compression == "gzip"), "{protocol:?} {compression}");
        }
        Ok(())
    })
}

/// The metrics go the same way, every exchange counted though no trace is sampled.
#[test]
fn metrics_arrive() -> Result<()> {
    needs!("root", "go");
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = Server::start(Language::Go)?;
        let receiver = Receiver::start(protocol)?;
        let agent = Builder::new()?
            .port(server.port)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint())
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
            .env("OTEL_METRIC_EXPORT_INTERVAL", "1000")
            .env("OTEL_TRACES_SAMPLER", "always_off")
            .start()?;
        Client::run(Language::Go, &server.base(), &plan::mixed("metrics", 120), &[])?;
        for name in ["http.server.request.duration", "http.client.request.duration"] {
            let mut last = 0;
            let arrived = wait::until(Duration::from_secs(15), &format!("{name} of 120 exchanges arrives"), || {
                last = receiver.histogram_count(name);
                Ok((last >= 120).then_some(()))
            });
            arrived.with_context(|| format!("{protocol:?}: {last}; the agent says: {}", agent.stderr()))?;
        }
        agent.stop()?;
        ensure!(receiver.histogram_count("http.server.request.duration") == 120, "{protocol:?}: more than there were");
        ensure!(receiver.spans().is_empty() && receiver.faults().is_empty(), "{protocol:?}: {:?}", receiver.faults());
    }
    Ok(())
}

/// What a phase of a fault test may cost.
#[derive(PartialEq)]
enum Cost {
    /// Every span arrives in the end.
    Nothing,
    /// Spans are lost and counted.
    Spans,
}

fn faults(protocol: Protocol) -> Result<()> {
    const EACH: usize = 50;
    let server = Server::start(Language::Go)?;
    let receiver = Receiver::start(protocol)?;
    let agent = exporting(&server, &receiver.endpoint(), protocol)?.start()?;
    let mut made = 0;
    let load = |name: &str, made: &mut usize| -> Result<()> {
        Client::run(Language::Go, &server.base(), &plan::items(name, EACH), &[])?;
        *made += 2 * EACH;
        // Capture goes on: the file has every span, whatever OTLP does.
        agent.wait_for_spans(*made).map(drop)
    };
    load("well", &mut made)?;
    delivered(&receiver, made)?;
    let modes = [
        (Mode::Unavailable, Cost::Nothing),
        (Mode::Slow(Duration::from_millis(600)), Cost::Nothing),
        (Mode::Hang, Cost::Nothing),
        (Mode::Refuse, Cost::Spans),
        (Mode::Broken, Cost::Spans),
        (Mode::Garbage, Cost::Spans),
        (Mode::Partial(7), Cost::Spans),
    ];
    let mut lost = 0;
    for (mode, cost) in modes {
        let requests = receiver.requests();
        receiver.set(mode);
        load("fault", &mut made)?;
        wait::until(RECOVERY, "the receiver is asked", || Ok((receiver.requests() > requests).then_some(())))?;
        if cost == Cost::Spans {
            let before = lost;
            lost = wait::until(RECOVERY, &format!("{mode:?} is counted"), || {
                let dropped = dropped(&agent)?;
                Ok((dropped > before).then_some(dropped))
            })?;
        }
        receiver.set(Mode::Normal);
        load("again", &mut made)?;
        settled(&agent, &receiver, made, &format!("{mode:?}"))?;
        let now = dropped(&agent)?;
        ensure!(
            cost == Cost::Spans || now == lost,
            "{mode:?}: {} spans lost that could have been sent again",
            now - lost
        );
        lost = now;
        ensure!(agent.resident()? < MEMORY, "{mode:?}: {} octets resident", agent.resident()?);
    }
    agent.stop().map(drop)
}

fn delivered(receiver: &Receiver, count: usize) -> Result<()> {
    wait::until(RECOVERY, &format!("{count} spans arrive"), || Ok((receiver.spans().len() >= count).then_some(())))
}

fn dropped(agent: &Agent) -> Result<u64> {
    let metrics = agent.metrics()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of spans")]
    Ok(metrics.sum(names::SPANS_DROPPED, &[("exporter", names::OTLP)]) as u64)
}

/// Waits until each span made is either with the receiver or counted as dropped.
fn settled(agent: &Agent, receiver: &Receiver, made: usize, what: &str) -> Result<()> {
    let mut last = String::new();
    let settled = wait::until(RECOVERY, &format!("after {what} all spans arrive or are counted"), || {
        let metrics = agent.metrics()?;
        let exported = metrics.total(names::SPANS_EXPORTED, &[("exporter", names::OTLP)])?;
        let dropped = metrics.sum(names::SPANS_DROPPED, &[("exporter", names::OTLP)]);
        let received = ids(&receiver.spans()).len();
        last = format!("{made} made, {exported} exported, {dropped} dropped, {received} received");
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let equal = (exported + dropped - made as f64).abs() < 0.5 && (exported - received as f64).abs() < 0.5;
        Ok(equal.then_some(()))
    });
    settled.map_err(|error| error.context(last))
}

#[test]
fn grpc_receiver_misbehaves() -> Result<()> {
    needs!("root", "go");
    faults(Protocol::Grpc)
}

#[test]
fn http_receiver_misbehaves() -> Result<()> {
    needs!("root", "go");
    faults(Protocol::Http)
}

/// The receiver is dead when the agent starts, comes, dies and comes back.
#[test]
fn dead_and_alive() -> Result<()> {
    needs!("root", "go");
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = Server::start(Language::Go)?;
        let port = tests::fixture::free_port()?;
        let agent = exporting(&server, &format!("http://127.0.0.1:{port}"), protocol)?.start()?;
        let run = |name: &str| Client::run(Language::Go, &server.base(), &plan::items(name, 50), &[]);
        run("dead")?;
        agent.wait_for_spans(100)?;
        let receiver = Receiver::start_on(protocol, port)?;
        delivered(&receiver, 100)?;
        drop(receiver);
        run("again")?;
        agent.wait_for_spans(200)?;
        let receiver = Receiver::start_on(protocol, port)?;
        delivered(&receiver, 100)?;
        let stopped = agent.stop()?;
        ensure!(stopped.spans.len() == 200 && receiver.spans().len() == 100, "{protocol:?}");
    }
    Ok(())
}

/// Something else listens at the endpoint.
#[test]
fn an_endpoint_that_is_no_receiver() -> Result<()> {
    needs!("root", "go");
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = Server::start(Language::Go)?;
        let nonsense = Nonsense::start()?;
        let agent = exporting(&server, &format!("http://{}", nonsense.address), protocol)?.start()?;
        Client::run(Language::Go, &server.base(), &plan::items("n", 100), &[])?;
        agent.wait_for_spans(200)?;
        wait::throughout(Duration::from_secs(3), || {
            ensure!(agent.get("/readyz")?.status == 200, "{protocol:?}: not ready");
            ensure!(agent.resident()? < MEMORY, "{protocol:?}: {} octets resident", agent.resident()?);
            Ok(())
        })?;
        ensure!(agent.stop()?.spans.len() == 200, "{protocol:?}");
    }
    Ok(())
}
