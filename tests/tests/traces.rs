//! Spans as traces: both ends of a request, sampling that keeps traces whole, traces that are exported after all.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::fixture::{Client, Language, Server};
use tests::needs;
use tests::netns::{Host, Hosts};
use tests::nginx::Nginx;
use tests::plan::{self, Step};
use tests::scenario::call;
use tests::span::{CLIENT, SERVER, Span};

/// Each server span is the child of the client span with the same target, in one trace, known by the socket.
fn joined(spans: &[Span], requests: usize) -> Result<()> {
    let of_kind = |kind| -> BTreeMap<_, _> {
        spans.iter().filter(|span| span.kind == kind).map(|span| (span.target(), span)).collect()
    };
    let (clients, servers) = (of_kind(CLIENT), of_kind(SERVER));
    ensure!(clients.len() == requests && servers.len() == requests, "{} and {}", clients.len(), servers.len());
    for (target, server) in &servers {
        let client = clients.get(target).with_context(|| format!("no client asked for {target:?}"))?;
        ensure!(
            server.parent_span_id == client.span_id,
            "{target:?}: {} is no child of {}",
            server.span_id,
            client.span_id
        );
        ensure!(server.trace_id == client.trace_id, "{target:?}: two traces");
        ensure!(server.str("remora.link.method") == Some("socket"), "{server:?}");
        ensure!(client.parent_span_id.is_empty(), "{client:?}");
    }
    Ok(())
}

#[test]
fn both_ends_are_one_trace() -> Result<()> {
    needs!("root", "python", "node", "go");
    for (client, mode) in [(Language::Python, "keepalive"), (Language::Python, "pipeline"), (Language::Go, "close")] {
        let server = Server::start(Language::Node)?;
        let agent = Agent::on(server.port)?;
        Client::run(client, &server.base(), &plan::mixed("j", 100), &["--mode", mode])?;
        joined(&agent.stop_after(200)?, 100).with_context(|| format!("{client:?} {mode}"))?;
    }
    Ok(())
}

/// Positions count from where a connection stands, not from where it began.
#[test]
fn both_ends_of_a_connection_older_than_the_agent() -> Result<()> {
    needs!("root", "python");
    let server = Server::start(Language::Python)?;
    let steps = plan::mixed("old", 60);
    let mut caller = Client::start(Language::Python, &server.base(), &steps, &["--gate", "20"])?;
    caller.at_gate()?;
    let agent = Agent::on(server.port)?;
    caller.open_gate()?;
    caller.finish()?;
    joined(&agent.stop_after(80)?, 40)
}

/// One agent, a server and a client in namespaces of their own, joined by a veth pair, by IPv4 and IPv6.
#[test]
fn both_ends_in_namespaces_of_their_own() -> Result<()> {
    needs!("root", "python", "ip");
    let hosts = Hosts::new()?;
    let Host { ipv4, ipv6, .. } = hosts.right;
    for (address, authority) in [(ipv4, ipv4.to_owned()), (ipv6, format!("[{ipv6}]"))] {
        let server = Server::start_at(&hosts.right, Language::Python, &["--host", address])?;
        let agent = Agent::on(server.port)?;
        let base = format!("http://{authority}:{}", server.port);
        Client::run_at(&hosts.left, Language::Python, &base, &plan::mixed("ns", 60))?;
        joined(&agent.stop_after(120)?, 60).context(authority)?;
    }
    Ok(())
}

/// nginx passes on to a Python server: four spans a request, one after the other.
fn proxied(builder: Builder, steps: &[Step]) -> Result<(Vec<Span>, f64)> {
    let behind = Server::start(Language::Python)?;
    let nginx = Nginx::start(Some(behind.port))?;
    let agent = builder.port(nginx.port).port(behind.port).start()?;
    let steps: Vec<_> =
        steps.iter().map(|step| Step { target: format!("/proxy{}", step.target), ..step.clone() }).collect();
    call("curl", "keepalive", &nginx.base(), &steps)?;
    let all = 4.0 * steps.len() as f64;
    let metrics = tests::wait::until(std::time::Duration::from_secs(10), "all exchanges are measured", || {
        let metrics = agent.metrics()?;
        Ok((metrics.sum("remora_exchanges_total", &[("protocol", "http1")]) >= all).then_some(metrics))
    })?;
    let measured =
        ["server", "client"].map(|kind| metrics.sum(&format!("http_{kind}_request_duration_seconds_count"), &[]));
    let stopped = agent.stop()?;
    Ok((stopped.spans, measured.iter().sum()))
}

/// The spans of each trace.
fn traces(spans: &[Span]) -> BTreeMap<&str, Vec<&Span>> {
    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    traces
}

#[test]
fn a_chain_through_a_proxy_is_one_trace() -> Result<()> {
    needs!("root", "python", "nginx", "curl");
    let steps: Vec<_> = (0..100).map(|i| Step::get(format!("/item/{i}?id=chain"))).collect();
    let (spans, _) = proxied(Builder::new()?, &steps)?;
    let traces = traces(&spans);
    ensure!(traces.len() == 100 && spans.len() == 400, "{} traces of {} spans", traces.len(), spans.len());
    for (id, spans) in traces {
        let roots = spans.iter().filter(|span| span.parent_span_id.is_empty()).count();
        ensure!(spans.len() == 4 && roots == 1, "trace {id} has {} spans, {roots} roots", spans.len());
        for span in &spans {
            let parent = spans.iter().find(|parent| parent.span_id == span.parent_span_id);
            ensure!(parent.is_some() || span.parent_span_id.is_empty(), "its parent is elsewhere: {span:?}");
            ensure!(
                parent.is_none_or(|parent| parent.start <= span.start && span.end <= parent.end + 300_000),
                "{span:?}"
            );
        }
    }
    Ok(())
}

/// Every span of a sampled trace, none of another, the probability in `tracestate`, and metrics of all.
#[test]
fn sampling_keeps_traces_whole() -> Result<()> {
    needs!("root", "python", "nginx", "curl");
    let builder =
        Builder::new()?.env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio").env("OTEL_TRACES_SAMPLER_ARG", "0.25");
    let steps: Vec<_> = (0..400).map(|i| Step::get(format!("/item/{i}?id=sampled"))).collect();
    let (spans, measured) = proxied(builder, &steps)?;
    let traces = traces(&spans);
    // Six standard deviations of a binomial distribution.
    ensure!((48..=152).contains(&traces.len()), "{} of 400 traces at 25 %", traces.len());
    for (id, spans) in &traces {
        ensure!(spans.len() == 4, "trace {id} has {} spans", spans.len());
        ensure!(spans.iter().all(|span| span.trace_state == "ot=th:c"), "trace {id}: {:?}", spans[0].trace_state);
    }
    ensure!((measured - 1600.0).abs() < 0.5, "{measured} exchanges measured");
    Ok(())
}

/// Rates by service and route under a sampler that keeps nothing: the root's rule holds for its whole trace, also where
/// another service of it has a rule against it. Metrics count everything.
#[test]
fn services_and_routes_have_rates_of_their_own() -> Result<()> {
    needs!("root", "python", "nginx", "curl");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("remora.yaml");
    let rules = "sampling:\n\
        - {service: nginx, ratio: 0}\n\
        - {service: 'cur?', route: '/proxy/status/*', ratio: 1}\n\
        - {service: curl, route: '/proxy/item/**', ratio: 0.25}\n";
    std::fs::write(&file, rules)?;
    let builder = Builder::new()?.env("OTEL_TRACES_SAMPLER", "always_off");
    let builder = builder.args(&["--config", &file.to_string_lossy()]);
    let step = |n: usize| {
        let route = ["item", "item", "status", "slow"][n % 4];
        let argument = if route == "status" { 204 } else { n % 50 };
        Step::get(format!("/{route}/{argument}?id={n}-"))
    };
    let steps: Vec<_> = (0..400).map(step).collect();
    let (spans, measured) = proxied(builder, &steps)?;
    let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, spans) in traces(&spans) {
        let target = spans[0].target().unwrap_or_default();
        ensure!(spans.len() == 4, "trace {id} of {target} has {} spans", spans.len());
        let (route, state) = if target.contains("/item/") { ("item", "ot=th:c") } else { ("status", "") };
        ensure!(target.contains(&format!("/{route}/")), "{target} is of no rule that keeps any");
        ensure!(spans.iter().all(|span| span.trace_state == state), "{target}: {:?}", spans[0].trace_state);
        *kept.entry(route).or_default() += 1;
    }
    let of = |route| kept.get(route).copied().unwrap_or_default();
    // Six standard deviations of a binomial distribution.
    ensure!(of("status") == 100 && (14..=86).contains(&of("item")), "of 100 and 200 at 25 %: {kept:?}");
    ensure!((measured - 1600.0).abs() < 0.5, "{measured} exchanges measured");
    Ok(())
}

/// The slowest of a route are kept once enough of its requests were seen, their whole traces; the rest is measured.
#[test]
fn the_slowest_of_a_route_are_kept() -> Result<()> {
    needs!("root", "python", "nginx", "curl");
    const ENOUGH: usize = 500;
    let builder = Builder::new()?.env("OTEL_TRACES_SAMPLER", "always_off").args(&["--keep-slowest", "p99"]);
    // The path tells how long to sleep, and is an id to the route.
    let step =
        |n: usize| Step::get(format!("/slow/{}?id=n{n}-", if n >= 600 && n.is_multiple_of(10) { 500 } else { 1 }));
    let steps: Vec<_> = (0..650).map(step).collect();
    let (spans, measured) = proxied(builder, &steps)?;
    let traces = traces(&spans);
    let number = |span: &Span| -> Result<usize> {
        let target = span.target().context("no target")?;
        let number = target.split("id=n").nth(1).and_then(|rest| rest.strip_suffix('-')).context(target.clone())?;
        number.parse().context(target.clone())
    };
    let mut slow = 0;
    for (id, spans) in &traces {
        let number = number(spans[0])?;
        ensure!(number >= ENOUGH, "{number} was kept when too little was known");
        let is_slow = number >= 600 && number.is_multiple_of(10);
        // A span that came out before the slow one of its trace was done waits for it.
        ensure!(spans.len() == 4, "trace {id} of request {number} has {} spans", spans.len());
        slow += usize::from(is_slow);
    }
    // Of the others 1 % are beyond the percentile in each server, if nothing disturbs them.
    ensure!(slow == 5 && traces.len() <= 5 + 75, "{slow} of 5 slow requests, {} in all", traces.len());
    ensure!((measured - 2600.0).abs() < 0.5, "{measured} exchanges measured");
    Ok(())
}

/// The head says no to everything; errors and slow requests come all the same, their whole traces and no other.
#[test]
fn errors_and_slow_traces_are_kept() -> Result<()> {
    needs!("root", "python", "nginx", "curl");
    let mut steps: Vec<_> = (0..100).map(|i| Step::get(format!("/item/{i}?id=fine"))).collect();
    for i in 0..5 {
        steps.insert(17 * i, Step::get(format!("/status/503?id=broken{i}")));
        steps.insert(13 * i, Step::get(format!("/slow/400?id=slow{i}")));
    }
    let head = || -> Result<Builder> { Ok(Builder::new()?.env("OTEL_TRACES_SAMPLER", "always_off")) };
    for (flag, wanted) in [("--keep-errors", "broken"), ("--keep-slower-than=300ms", "slow")] {
        let (spans, measured) = proxied(head()?.args(&[flag]), &steps)?;
        let traces = traces(&spans);
        let of = |span: &&Span| span.target().is_some_and(|target| target.contains(wanted));
        ensure!(spans.iter().all(|span| of(&span)), "{flag}: others as well");
        ensure!(traces.len() == 5 && traces.values().all(|spans| spans.len() == 4), "{flag}: {} spans", spans.len());
        ensure!(measured >= 440.0, "{measured} exchanges measured");
    }
    Ok(())
}
