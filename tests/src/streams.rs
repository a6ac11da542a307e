//! HTTP/2: servers and clients with many streams on a connection, and what their spans have to say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::env;
use crate::fixture::{self, Language};
use crate::process::Process;
use crate::span::{CLIENT, SERVER, Span, of_kind};
use crate::tls::{self, Credentials};

/// What anything may take.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Octets of nghttpd's largest file.
pub const HUGE: usize = 1 << 20;

/// A server that is listening.
pub struct Server {
    pub port: u16,
    /// The folder with those for TLS.
    credentials: Option<PathBuf>,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Server {
    /// That of a fixture.
    pub fn of(language: Language) -> Result<Self> {
        Self::of_with(language, None)
    }

    pub fn of_with(language: Language, credentials: Option<&Credentials>) -> Result<Self> {
        let mut command = fixture::program(language, "h2");
        command.envs(credentials.iter().map(|credentials| (tls::VARIABLE, credentials.folder())));
        let credentials = credentials.map(|credentials| credentials.folder().to_owned());
        let process = Process::spawn(command.arg("server"))?;
        let port = process.announcement(DEADLINE)?["port"].as_u64().context("no port")?;
        Ok(Self { port: u16::try_from(port)?, credentials, _process: process, _folder: tempfile::tempdir()? })
    }

    /// nghttpd with files of 10, of 100,000 and of 1 Mi octets, and padding.
    pub fn nghttpd() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, size) in [("small", 10), ("large", 100_000), ("huge", HUGE)] {
            std::fs::write(folder.path().join(name), vec![b'x'; size])?;
        }
        let port = fixture::free_port()?;
        let mut command = Command::new(env::which("nghttpd").context("nghttpd is not installed")?);
        command.args(["--no-tls", "--padding=5", "--address=127.0.0.1", "--htdocs"]).arg(folder.path());
        let process = Process::spawn(command.arg(port.to_string()))?;
        fixture::accepts(port).with_context(|| process.stderr())?;
        Ok(Self { port, credentials: None, _process: process, _folder: folder })
    }

    /// nghttpx before it, which takes HTTP/1 with `Upgrade: h2c` too.
    pub fn proxy(&self) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = fixture::free_port()?;
        let mut command = Command::new(env::which("nghttpx").context("nghttpx is not installed")?);
        command.args(["--conf=/dev/null", "--workers=1", "--single-process"]);
        command.arg(format!("--frontend=127.0.0.1,{port};no-tls"));
        command.arg(format!("--backend=127.0.0.1,{};/;proto=h2", self.port));
        let process = Process::spawn(&mut command)?;
        fixture::accepts(port).with_context(|| process.stderr())?;
        Ok(Self { port, credentials: None, _process: process, _folder: folder })
    }

    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.credentials.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }
}

/// What a request and its response say: method, target, status, octets sent and received.
pub type Told = (String, String, i64, i64, i64);

/// Request `i` of the fixtures' clients.
#[must_use]
pub fn told(i: usize) -> Told {
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
pub fn same(spans: &[Span], kind: i32, mut expected: Vec<Told>) -> Result<()> {
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
pub fn joined(spans: &[Span]) -> Result<()> {
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
pub fn call(client: Language, server: &Server, count: usize, streams: usize, gate: usize) -> Result<Process> {
    Process::spawn(&mut caller(client, server, count, streams, gate))
}

/// The same, but only the first `distinct` of these requests again and again, slowly.
pub fn call_again(
    client: Language,
    server: &Server,
    distinct: usize,
    count: usize,
    streams: usize,
    gate: usize,
) -> Result<Process> {
    Process::spawn(caller(client, server, count, streams, gate).env("FIXTURE_DISTINCT", distinct.to_string()))
}

fn caller(client: Language, server: &Server, count: usize, streams: usize, gate: usize) -> Command {
    let numbers = [count, streams, gate].map(|number| number.to_string());
    // Python's own directory is where it looks for the package `h2`.
    let name = if client == Language::Python { "http2_client" } else { "h2" };
    let mut command = fixture::program(client, name);
    command.envs(server.credentials.iter().map(|folder| (tls::VARIABLE, folder)));
    command.args(["client", &server.url("")]).args(numbers);
    command
}
