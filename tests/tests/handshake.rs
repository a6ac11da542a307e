//! What a TLS handshake says in the clear is in the spans of both its sides: version, server's name, protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::fixture::Client;
use tests::plan::Step;
use tests::secure::{Service, call, client};
use tests::span::{CLIENT, SERVER, Span};
use tests::tls::Credentials;
use tests::{needs, wait};

/// Each reads and writes the records of a handshake in its own way.
const SERVERS: [&str; 5] = ["nginx", "python", "node", "go", "rust"];

/// A client in one of its modes, and what it does at one server.
struct Run {
    client: &'static str,
    mode: &'static str,
    server: &'static str,
    /// nginx before 1.23.4 leaves 1.3 out unless told otherwise, so that either is right.
    versions: &'static [&'static str],
    /// What its spans may say; the first of it if they have to.
    protocols: &'static [&'static str],
    /// They have to.
    surely: bool,
}

impl Run {
    fn tag(&self) -> String {
        format!("{}-{}-{}", self.client, self.mode, self.server)
    }
}

fn runs() -> Vec<Run> {
    let run = |client, mode, server| Run {
        client,
        mode,
        server,
        versions: match (mode, server) {
            ("tls12", _) => &["1.2"],
            (_, "nginx") => &["1.2", "1.3"],
            _ => &["1.3"],
        },
        protocols: &["http/1.1"],
        surely: client == "curl",
    };
    let of_server = |server| [run("curl", "keepalive", server), run("curl", "tls12", server)];
    let mut runs: Vec<_> = SERVERS.into_iter().flat_map(of_server).collect();
    for run in &mut runs {
        // It chooses no protocol, so that nothing is agreed upon where the choice is seen.
        run.surely = (run.mode, run.server) != ("tls12", "python");
        if !run.surely {
            run.protocols = &[];
        }
    }
    runs.extend(
        ["python", "requests", "httpx", "aiohttp", "node", "go", "rust"].map(|client| run(client, "close", "nginx")),
    );
    runs.push(run("wget", "keepalive", "nginx"));
    for (client, server) in [("curl", "nginx"), ("curl", "rust"), ("rust", "nginx")] {
        runs.push(Run { protocols: &["h2"], surely: true, ..run(client, "h2", server) });
    }
    runs
}

/// The spans whose target has `tag`.
fn of<'a>(spans: &'a [Span], tag: &str) -> Vec<&'a Span> {
    let has = |span: &&Span| span.target().is_some_and(|target| target.contains(tag));
    spans.iter().filter(has).collect()
}

fn check(run: &Run, span: &Span, server_name: Option<&str>) -> Result<()> {
    ensure!(span.str("tls.protocol.name") == Some("tls"), "protocol");
    let version = span.str("tls.protocol.version");
    ensure!(version.is_some_and(|version| run.versions.contains(&version)), "version {version:?}");
    ensure!(span.str("tls.client.server_name") == server_name, "server's name");
    let protocol = span.str("tls.next_protocol");
    let fits = protocol.map_or(!run.surely, |protocol| run.protocols.contains(&protocol));
    ensure!(fits, "protocol {protocol:?}");
    ensure!(span.str("url.scheme") == Some("https"), "scheme");
    Ok(())
}

#[test]
fn spans_say_what_was_agreed_upon() -> Result<()> {
    needs!("root", "venv", "node", "go", "nginx", "curl", "wget");
    let credentials = Credentials::new()?;
    let services: BTreeMap<_, _> =
        SERVERS.into_iter().map(|name| Ok((name, Service::start(name, &credentials)?))).collect::<Result<_>>()?;
    let ports = services.values().map(Service::port);
    let agent = ports.fold(Builder::new().map(Builder::tls), |builder, port| Ok(builder?.port(port)))?.start()?;
    // What was not seen is asked for again: a program that has not run before is hooked a moment after it was started.
    let mut waiting = runs();
    for round in 0..4 {
        for run in &waiting {
            for (host, name) in [("localhost", "name"), ("127.0.0.1", "address")] {
                let base = format!("https://{host}:{}", services[run.server].port());
                let path = if run.client == "wget" { "/big/1" } else { "/hello" };
                let steps = [0, 1].map(|i| Step::get(format!("{path}?id={}-{round}-{name}-{i}", run.tag())));
                call(run.client, run.mode, &credentials, &base, &steps).with_context(|| run.tag())?;
            }
        }
        let mut unseen = Vec::new();
        let _ = wait::until(Duration::from_secs(3), "all are seen", || {
            let spans = agent.spans()?;
            let seen = |run: &Run| of(&spans, &format!("{}-{round}", run.tag())).len() == 8;
            unseen = waiting.iter().filter(|run| !seen(run)).map(Run::tag).collect();
            Ok(unseen.is_empty().then_some(()))
        });
        let spans = agent.spans()?;
        for run in waiting.iter().filter(|run| !unseen.contains(&run.tag())) {
            for (name, server_name) in [("name", Some("localhost")), ("address", None)] {
                for span in of(&spans, &format!("{}-{round}-{name}", run.tag())) {
                    check(run, span, server_name).with_context(|| format!("{}: {span:?}", run.tag()))?;
                }
            }
        }
        waiting.retain(|run| unseen.contains(&run.tag()));
        if waiting.is_empty() {
            agent.stop()?;
            return Ok(());
        }
    }
    anyhow::bail!("not seen in full: {:?}", waiting.iter().map(Run::tag).collect::<Vec<_>>());
}

/// A connection whose handshake was not seen says nothing of it.
#[test]
fn connections_older_than_the_agent_say_nothing() -> Result<()> {
    needs!("root", "node", "go");
    const BEFORE: usize = 4;
    let credentials = Credentials::new()?;
    let service = Service::start("node", &credentials)?;
    let steps: Vec<_> = (0..2 * BEFORE).map(|i| Step::get(format!("/item/{i}?id={i}"))).collect();
    let base = format!("https://localhost:{}", service.port());
    let mut process: Client = client("go", &credentials, &base, &steps, &["--gate", &BEFORE.to_string()])?;
    process.at_gate()?;
    let agent = Agent::with_tls_on(service.port())?;
    process.open_gate()?;
    process.finish()?;
    // What is sent right after the agent's start may go unseen.
    let spans = agent.wait_for_spans(BEFORE)?;
    agent.stop()?;
    for kind in [CLIENT, SERVER] {
        ensure!(spans.iter().any(|span| span.kind == kind), "no span of kind {kind}");
    }
    for span in &spans {
        ensure!(span.str("url.scheme") == Some("https"), "{span:?}");
        ensure!(span.attributes.keys().all(|key| !key.starts_with("tls.")), "{span:?}");
        ensure!(span.kind == SERVER || span.str("server.address") == Some("localhost"), "{span:?}");
    }
    Ok(())
}
