//! HTTP/2 under TLS: every request has its span on both sides, whichever libraries do the TLS and the HTTP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::fixture::Language;
use tests::plan::Step;
use tests::secure::{Service, client};
use tests::span::{CLIENT, SERVER, Span, of_kind};
use tests::streams::{self, DEADLINE, Server, Told, told};
use tests::tls::Credentials;
use tests::{curl, needs, wait};

/// Requests of each run.
const COUNT: usize = 150;
/// What the targets of requests contain that do not count.
const WARM: &str = "warm";

/// A server of its own, which one client calls.
enum Pair {
    /// The fixtures for many streams.
    Streams(Language, Server),
    /// Others, which carry out a plan.
    Plan(&'static str, Service),
}

struct Run {
    name: String,
    /// At a time.
    streams: usize,
    pair: Pair,
}

impl Run {
    fn start(client: &'static str, server: &'static str, streams: usize, credentials: &Credentials) -> Result<Self> {
        let fixture = |name| match name {
            "node" => Some(Language::Node),
            "go" => Some(Language::Go),
            "python" => Some(Language::Python),
            _ => None,
        };
        let pair = match fixture(client).zip(fixture(server)) {
            Some((client, server)) => Pair::Streams(client, Server::of_with(server, Some(credentials))?),
            None => Pair::Plan(client, Service::start(server, credentials)?),
        };
        Ok(Self { name: format!("{client} to {server}, {streams} streams"), streams, pair })
    }

    fn port(&self) -> u16 {
        match &self.pair {
            Pair::Streams(_, server) => server.port,
            Pair::Plan(_, service) => service.port(),
        }
    }

    /// Sends `count` requests; what they have in their targets where the client takes a plan.
    fn call(&self, credentials: &Credentials, count: usize, tag: &str) -> Result<()> {
        let (client_name, service) = match &self.pair {
            Pair::Streams(client, server) => {
                return streams::call(*client, server, count, self.streams.min(count), 0)?.succeed(DEADLINE).map(drop);
            }
            Pair::Plan(client, service) => (*client, service),
        };
        let (base, steps) = (service.base(), plan(tag, count));
        if client_name == "curl" {
            return curl::parallel(&base, &steps, &credentials.file("ca.pem"), self.streams);
        }
        let streams = self.streams.to_string();
        let at_a_time = if client_name == "rust" { &["--streams", &streams][..] } else { &[] };
        let args = [&["--mode", "h2"], at_a_time].concat();
        let exchanges = client(client_name, credentials, &base, &steps, &args)?.finish()?;
        ensure!(exchanges.iter().all(|exchange| exchange.error.is_none()), "{exchanges:?}");
        Ok(())
    }

    /// Exactly the spans of its requests.
    fn check(&self, spans: &[Span]) -> Result<()> {
        match &self.pair {
            Pair::Streams(..) => {
                for kind in [CLIENT, SERVER] {
                    streams::same(spans, kind, (0..COUNT).map(told).collect())?;
                }
            }
            Pair::Plan(_, service) => {
                let served = service.truth(COUNT + 1)?.into_iter().filter(|exchange| !exchange.target.contains(WARM));
                let told = served.map(|e| -> Result<Told> {
                    let status = e.status.context("no status")?;
                    Ok((
                        e.method,
                        e.target,
                        status.into(),
                        i64::try_from(e.request_body)?,
                        i64::try_from(e.response_body)?,
                    ))
                });
                let told = told.collect::<Result<Vec<_>>>()?;
                for kind in [CLIENT, SERVER] {
                    as_told(spans, kind, &told)?;
                }
            }
        }
        streams::joined(spans)
    }

    /// Those of `spans` that have its port and begin at or after `from`.
    fn spans(&self, spans: &[Span], from: u128) -> Vec<Span> {
        let port = Some(i64::from(self.port()));
        let is_its = |span: &&Span| {
            [span.int("network.local.port"), span.int("network.peer.port")].contains(&port)
                && u128::from(span.start) >= from
        };
        spans.iter().filter(is_its).cloned().collect()
    }
}

/// Requests that differ in method, status and size.
fn plan(tag: &str, count: usize) -> Vec<Step> {
    let step = |i: usize| match i % 5 {
        0 | 4 => Step::get(format!("/item/{i}?{tag}-{i}")),
        1 => Step::post(format!("/echo?{tag}-{i}"), i as u64 % 50 + 1),
        2 => Step::get(format!("/status/404?{tag}-{i}")),
        _ => Step::get(format!("/status/503?{tag}-{i}")),
    };
    (0..count).map(step).collect()
}

/// Exactly the requests `told` have a span of `kind`, which says nothing else. A size may be unknown: what rustls writes
/// before its socket is known is not kept whole.
fn as_told(spans: &[Span], kind: i32, told: &[Told]) -> Result<()> {
    let spans = of_kind(spans, kind);
    ensure!(spans.len() == told.len(), "{} spans of kind {kind} for {} requests", spans.len(), told.len());
    for (method, target, status, sent, received) in told {
        let its: Vec<_> = spans.iter().filter(|span| span.target().as_deref() == Some(target)).collect();
        let [span] = its.as_slice() else { anyhow::bail!("{} spans of {target}", its.len()) };
        ensure!(span.str("network.protocol.version") == Some("2"), "{span:?}");
        ensure!(span.method() == Some(method) && span.status_code() == Some(*status), "{method} {status}: {span:?}");
        ensure!(span.int("http.request.body.size").is_none_or(|size| size == *sent), "{sent}: {span:?}");
        ensure!(span.int("http.response.body.size").is_none_or(|size| size == *received), "{received}: {span:?}");
    }
    Ok(())
}

/// Lets the agent find the programs: one that has not run before is hooked a moment after it was started. Whether each was
/// seen on both sides, the comparison tells.
fn introduce(agent: &Agent, runs: &[Run], credentials: &Credentials) -> Result<()> {
    for round in 0..4 {
        let before = agent.spans()?;
        let unseen = runs.iter().filter(|run| run.spans(&before, 0).len() % 2 != 0 || run.spans(&before, 0).is_empty());
        let unseen: Vec<_> = unseen.collect();
        if unseen.is_empty() {
            break;
        }
        let from = now()?;
        for run in &unseen {
            run.call(credentials, 1, &format!("{WARM}-{round}"))?;
        }
        let seen = || {
            let spans = agent.spans()?;
            Ok(unseen.iter().all(|run| run.spans(&spans, from).len() == 2).then_some(()))
        };
        if wait::until(Duration::from_secs(3), "both ends of all are seen", seen).is_ok() {
            break;
        }
    }
    Ok(())
}

fn now() -> Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())
}

#[test]
fn every_pair_of_client_and_server() -> Result<()> {
    needs!("root", "node", "go", "venv", "nginx", "curl");
    let pairs = [
        ("go", "node"),
        ("go", "go"),
        ("node", "node"),
        ("python", "node"),
        ("curl", "nginx"),
        ("httpx", "nginx"),
        ("rust", "nginx"),
        ("rust", "rust"),
        ("curl", "rust"),
    ];
    let credentials = Credentials::new()?;
    let mut runs = Vec::new();
    for (client, server) in pairs {
        // That of httpx which does one after the other is not the one for several at a time, which python is.
        let streams = if client == "httpx" { &[1][..] } else { &[1, 20] };
        for &streams in streams {
            runs.push(Run::start(client, server, streams, &credentials)?);
        }
    }
    let ports = runs.iter().map(Run::port);
    let agent = ports.fold(Builder::new().map(Builder::tls), |builder, port| Ok(builder?.port(port)))?.start()?;
    introduce(&agent, &runs, &credentials)?;
    let from = now()?;
    for run in &runs {
        run.call(&credentials, COUNT, "counted").with_context(|| run.name.clone())?;
    }
    let counted = |spans: &[Span]| runs.iter().map(|run| run.spans(spans, from).len()).sum::<usize>();
    let all = || Ok((counted(&agent.spans()?) >= 2 * COUNT * runs.len()).then_some(()));
    // Too few are better told of by the comparison that follows than by a deadline.
    let _ = wait::until(Duration::from_secs(15), "all spans are there", all);
    let spans = agent.stop()?.spans;
    let failed = runs.iter().filter_map(|run| {
        let error = run.check(&run.spans(&spans, from)).err()?;
        Some(format!("{}: {error:#}", run.name))
    });
    let failed: Vec<_> = failed.collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}
