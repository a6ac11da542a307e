//! HTTP/2 in the clear and by TLS: many streams on one connection, of several clients and servers.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::Agent;
use tests::fixture::{self, Language};
use tests::process::Process;
use tests::span::{CLIENT, SERVER, Span, of_kind};
use tests::tls::{self, Credentials};
use tests::{env, needs};

const DEADLINE: Duration = Duration::from_secs(60);

/// A server that is listening.
struct Server {
    port: u16,
    /// For TLS.
    credentials: Option<Credentials>,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Server {
    /// That of a fixture.
    fn of(language: Language) -> Result<Self> {
        Self::of_with(language, None)
    }

    fn of_with(language: Language, credentials: Option<Credentials>) -> Result<Self> {
        let mut command = fixture::program(language, "h2");
        command.envs(credentials.iter().map(|credentials| (tls::VARIABLE, credentials.folder())));
        let process = Process::spawn(command.arg("server"))?;
        let port = process.announcement(DEADLINE)?["port"].as_u64().context("no port")?;
        Ok(Self { port: u16::try_from(port)?, credentials, _process: process, _folder: tempfile::tempdir()? })
    }

    /// nghttpd with files of 10 and of 100,000 octets, and padding.
    fn nghttpd() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, size) in [("small", 10), ("large", 100_000)] {
            std::fs::write(folder.path().join(name), vec![b'x'; size])?;
        }
        let port = fixture::free_port()?;
        let mut command = Command::new(env::which("nghttpd").context("nghttpd is not installed")?);
        command.args(["--no-tls", "--padding=5", "--address=127.0.0.1", "--htdocs"]).arg(folder.path());
        let process = Process::spawn(command.arg(port.to_string()))?;
        fixture::accepts(port).with_context(|| process.stderr())?;
        Ok(Self { port, credentials: None, _process: process, _folder: folder })
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.credentials.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }
}

/// What a request and its response say: method, target, status, octets sent and received.
type Told = (String, String, i64, i64, i64);

/// Request `i` of the fixtures' clients.
fn told(i: usize) -> Told {
    let method = ["GET", "POST", "PUT"][i % 3];
    let status = [200, 404, 503, 201][i % 4];
    let (sent, received) = (if method == "GET" { 0 } else { i % 50 }, i % 7 * 100);
    (method.to_owned(), format!("/{status}/{received}/{i}"), status, sent as i64, received as i64)
}

fn told_by(span: &Span) -> Result<Told> {
    let told = || {
        let sizes = (span.int("http.request.body.size")?, span.int("http.response.body.size")?);
        Some((span.method()?.to_owned(), span.target()?, span.status_code()?, sizes.0, sizes.1))
    };
    told().with_context(|| format!("something is not known: {span:?}"))
}

/// Exactly the requests `expected` have a span of `kind`, which says the same.
fn same(spans: &[Span], kind: i32, mut expected: Vec<Told>) -> Result<()> {
    let spans = of_kind(spans, kind);
    ensure!(spans.len() == expected.len(), "{} spans of kind {kind} for {} requests", spans.len(), expected.len());
    for span in &spans {
        ensure!(span.str("network.protocol.version") == Some("2"), "{span:?}");
        ensure!(!span.attributes.contains_key("remora.partial"), "{span:?}");
    }
    let mut found = spans.iter().map(told_by).collect::<Result<Vec<_>>>()?;
    found.sort_unstable();
    expected.sort_unstable();
    for (found, expected) in found.iter().zip(&expected) {
        ensure!(found == expected, "kind {kind}: {found:?} instead of {expected:?}");
    }
    Ok(())
}

/// Each server span is the child of the client span of the same request.
fn joined(spans: &[Span]) -> Result<()> {
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    for server in spans.iter().filter(|span| span.kind == SERVER) {
        let client = by_id.get(server.parent_span_id.as_str()).with_context(|| format!("no parent: {server:?}"))?;
        ensure!(client.kind == CLIENT && client.target() == server.target(), "{client:?} caused {server:?}");
        ensure!(server.str("remora.link.method") == Some("socket"), "{server:?}");
        ensure!(client.start <= server.start && server.end <= client.end + 1_000_000, "{client:?} {server:?}");
    }
    Ok(())
}

/// `count` requests by a fixture's client, `streams` at a time.
fn call(client: Language, server: &Server, count: usize, streams: usize, gate: usize) -> Result<Process> {
    let numbers = [count, streams, gate].map(|number| number.to_string());
    let mut command = fixture::program(client, "h2");
    command.envs(server.credentials.iter().map(|credentials| (tls::VARIABLE, credentials.folder())));
    Process::spawn(command.args(["client", &server.url("")]).args(numbers))
}

#[test]
fn every_stream_has_a_span_on_both_sides() -> Result<()> {
    needs!("root", "node", "go");
    for (client, language) in [
        (Language::Node, Language::Node),
        (Language::Go, Language::Go),
        (Language::Node, Language::Go),
        (Language::Go, Language::Node),
    ] {
        for streams in [1, 10, 100] {
            let server = Server::of(language)?;
            let agent = Agent::on(server.port)?;
            call(client, &server, 300, streams, 0)?.succeed(DEADLINE)?;
            let spans = agent.stop_after(600)?;
            let check = || -> Result<()> {
                same(&spans, CLIENT, (0..300).map(told).collect())?;
                same(&spans, SERVER, (0..300).map(told).collect())?;
                joined(&spans)
            };
            check().with_context(|| format!("{client:?} to {language:?}, {streams} streams"))?;
        }
    }
    Ok(())
}

#[test]
fn every_stream_over_tls() -> Result<()> {
    needs!("root", "node", "go");
    const COUNT: usize = 200;
    for (client, language) in [(Language::Node, Language::Go), (Language::Go, Language::Node)] {
        for streams in [1, 20] {
            let server = Server::of_with(language, Some(Credentials::new()?))?;
            let agent = Agent::on(server.port)?;
            call(client, &server, COUNT, streams, 0)?.succeed(DEADLINE)?;
            let spans = agent.stop_after(2 * COUNT)?;
            let check = || -> Result<()> {
                same(&spans, CLIENT, (0..COUNT).map(told).collect())?;
                same(&spans, SERVER, (0..COUNT).map(told).collect())?;
                joined(&spans)
            };
            check().with_context(|| format!("{client:?} to {language:?}, {streams} streams"))?;
        }
    }
    Ok(())
}

#[test]
fn load_on_many_streams() -> Result<()> {
    needs!("root", "nghttpd", "h2load");
    const REQUESTS: usize = 4000;
    for streams in ["1", "10", "100"] {
        let server = Server::nghttpd()?;
        let agent = Agent::on(server.port)?;
        let mut command = Command::new(env::which("h2load").context("h2load is not installed")?);
        command.args(["-c", "4", "--rps", "500", "-n", &REQUESTS.to_string(), "-m", streams]);
        Process::spawn(command.args([server.url("/small"), server.url("/missing")]))?.succeed(DEADLINE)?;
        let spans = agent.stop_after(2 * REQUESTS)?;
        for kind in [CLIENT, SERVER] {
            let mut found: BTreeMap<_, usize> = BTreeMap::new();
            for span in of_kind(&spans, kind) {
                *found.entry((span.method().map(str::to_owned), span.target(), span.status_code())).or_default() += 1;
            }
            let is = |target: &str, status| (Some("GET".to_owned()), Some(target.to_owned()), Some(status));
            let expected = BTreeMap::from([(is("/small", 200), REQUESTS / 2), (is("/missing", 404), REQUESTS / 2)]);
            ensure!(found == expected, "{streams} streams, kind {kind}: {found:?}");
        }
        joined(&spans).with_context(|| format!("{streams} streams"))?;
    }
    Ok(())
}

#[test]
fn curl_with_prior_knowledge() -> Result<()> {
    needs!("root", "curl", "nghttpd");
    let server = Server::nghttpd()?;
    let agent = Agent::on(server.port)?;
    let mut command = Command::new(env::which("curl").context("curl is not installed")?);
    command.args(["--disable", "--silent", "--http2-prior-knowledge", "--parallel", "--parallel-immediate"]);
    for path in ["/small", "/large", "/missing"] {
        command.args(["--output", "/dev/null", &server.url(path)]);
    }
    Process::spawn(&mut command)?.succeed(DEADLINE)?;
    let spans = agent.stop_after(6)?;
    joined(&spans)?;
    for kind in [CLIENT, SERVER] {
        let mut sizes: Vec<_> = of_kind(&spans, kind)
            .iter()
            .map(|span| (span.target(), span.status_code(), span.int("http.response.body.size")))
            .collect();
        sizes.sort_unstable();
        ensure!(sizes.len() == 3, "kind {kind}: {sizes:?}");
        ensure!(sizes[0] == (Some("/large".to_owned()), Some(200), Some(100_000)), "kind {kind}: {sizes:?}");
        ensure!(sizes[1].1 == Some(404) && sizes[2].2 == Some(10), "kind {kind}: {sizes:?}");
    }
    Ok(())
}

/// The agent comes while a connection is in use: from the next request on each has its spans, what they say is right, and
/// only what was sent before, and since then by reference alone, is not known.
#[test]
fn a_connection_older_than_the_agent() -> Result<()> {
    needs!("root", "node", "go");
    const BEFORE: usize = 60;
    const ALL: usize = 360;
    for (client, language) in [(Language::Node, Language::Go), (Language::Go, Language::Node)] {
        for streams in [1, 10] {
            let server = Server::of(language)?;
            let mut caller = call(client, &server, ALL, streams, BEFORE)?;
            ensure!(caller.line(DEADLINE)? == "gate", "not at the gate");
            let agent = Agent::on(server.port)?;
            caller.tell("go")?;
            caller.succeed(DEADLINE)?;
            let spans = agent.stop_after(2 * (ALL - BEFORE))?;
            let what = format!("{client:?} to {language:?}, {streams} streams");
            for kind in [CLIENT, SERVER] {
                let mut truth: BTreeMap<String, Told> = (BEFORE..ALL).map(|i| (told(i).1, told(i))).collect();
                let spans = of_kind(&spans, kind);
                ensure!(spans.len() == truth.len(), "{what}: {} spans of kind {kind}", spans.len());
                for span in &spans {
                    let target = span.target().with_context(|| format!("{what}: paths are sent in full: {span:?}"))?;
                    let truth = truth.remove(&target).with_context(|| format!("{what}: one too many: {span:?}"))?;
                    ensure!(span.method().is_none_or(|method| method == truth.0), "{what}: {span:?}");
                    ensure!(span.status_code().is_none_or(|status| status == truth.2), "{what}: {span:?}");
                    ensure!(span.int("http.request.body.size").is_none_or(|size| size == truth.3), "{what}: {span:?}");
                    ensure!(span.int("http.response.body.size").is_none_or(|size| size == truth.4), "{what}: {span:?}");
                    ensure!(
                        span.str("error.type").is_none_or(|error| truth.2.to_string() == error),
                        "{what}: {span:?}"
                    );
                }
            }
            joined(&spans).context(what)?;
        }
    }
    Ok(())
}
