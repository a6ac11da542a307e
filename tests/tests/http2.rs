//! HTTP/2 in the clear and by TLS: many streams on one connection, of several clients and servers.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tests::agent::Agent;
use tests::fixture::{self, Language};
use tests::nginx::Nginx;
use tests::process::Process;
use tests::span::{CLIENT, SERVER, Span, of_kind};
use tests::tls::{self, Credentials};
use tests::{env, needs, wait};

const DEADLINE: Duration = Duration::from_secs(60);
/// Octets of the largest file.
const HUGE: usize = 1 << 20;

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

    /// nghttpd with files of 10, of 100,000 and of 1 Mi octets, and padding.
    fn nghttpd() -> Result<Self> {
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
    fn proxy(&self) -> Result<Self> {
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
    // Python's own directory is where it looks for the package `h2`.
    let name = if client == Language::Python { "http2_client" } else { "h2" };
    let mut command = fixture::program(client, name);
    command.envs(server.credentials.iter().map(|credentials| (tls::VARIABLE, credentials.folder())));
    Process::spawn(command.args(["client", &server.url("")]).args(numbers))
}

#[test]
fn every_stream_has_a_span_on_both_sides() -> Result<()> {
    needs!("root", "node", "go", "venv");
    for (client, language) in [
        (Language::Python, Language::Node),
        (Language::Python, Language::Go),
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
    let (client, language) = (Language::Go, Language::Node);
    for streams in [1, 20] {
        let server = Server::of_with(language, Some(Credentials::new()?))?;
        let agent = Agent::with_tls_on(server.port)?;
        // Its executable is hooked when it has run once.
        call(client, &server, 1, 1, 0)?.succeed(DEADLINE)?;
        wait::until(DEADLINE, "both executables are hooked", || {
            Ok((agent.metrics()?.sum("remora_tls_files", &[]) >= 2.0).then_some(()))
        })?;
        let from = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        call(client, &server, COUNT, streams, 0)?.succeed(DEADLINE)?;
        let counted = |spans: Vec<Span>| -> Vec<Span> {
            spans.into_iter().filter(|span| u128::from(span.start) >= from).collect()
        };
        let all = || Ok((counted(agent.spans()?).len() >= 2 * COUNT).then_some(()));
        // Too few are better told of by the comparison that follows than by a deadline.
        let _ = wait::until(Duration::from_secs(15), "all spans are there", all);
        let spans = counted(agent.stop()?.spans);
        let check = || -> Result<()> {
            same(&spans, CLIENT, (0..COUNT).map(told).collect())?;
            same(&spans, SERVER, (0..COUNT).map(told).collect())?;
            joined(&spans)
        };
        check().with_context(|| format!("{client:?} to {language:?}, {streams} streams"))?;
    }
    Ok(())
}

#[test]
fn load_on_many_streams() -> Result<()> {
    needs!("root", "nghttpd", "h2load");
    for streams in ["1", "10", "100"] {
        let server = Server::nghttpd()?;
        let urls = ["/small", "/missing"].map(|path| server.url(path));
        let arguments = ["-c", "4", "--rps", "500", "-n", "4000", "-m", streams, &urls[0], &urls[1]];
        load(server.port, &arguments, &[("/small", 200, 2000), ("/missing", 404, 2000)])
            .with_context(|| format!("{streams} streams"))?;
    }
    Ok(())
}

/// Runs h2load with `arguments`; then there are so many spans of each target and status on either side, each known in full.
fn load(server: u16, arguments: &[&str], expected: &[(&str, i64, usize)]) -> Result<Vec<Span>> {
    let agent = Agent::on(server)?;
    Process::spawn(Command::new(env::which("h2load").context("h2load is not installed")?).args(arguments))?
        .succeed(DEADLINE)?;
    let spans = agent.stop_after(2 * expected.iter().map(|(.., count)| count).sum::<usize>())?;
    for kind in [CLIENT, SERVER] {
        let mut found: BTreeMap<_, usize> = BTreeMap::new();
        for span in of_kind(&spans, kind) {
            ensure!(!span.attributes.contains_key("remora.partial"), "{span:?}");
            *found.entry((span.method().map(str::to_owned), span.target(), span.status_code())).or_default() += 1;
        }
        let expected: BTreeMap<_, usize> = expected
            .iter()
            .map(|(target, status, count)| {
                ((Some("GET".to_owned()), Some((*target).to_owned()), Some(*status)), *count)
            })
            .collect();
        ensure!(found == expected, "kind {kind}: {found:?}");
    }
    joined(&spans)?;
    Ok(spans)
}

#[test]
fn large_responses_beside_small_ones() -> Result<()> {
    needs!("root", "nghttpd", "h2load");
    let server = Server::nghttpd()?;
    let urls = ["/huge", "/small", "/missing", "/large"].map(|path| server.url(path));
    let arguments = ["-c", "2", "-m", "4", "-n", "400", "--rps", "50", &urls[0], &urls[1], &urls[2], &urls[3]];
    let expected = [("/huge", 200, 100), ("/small", 200, 100), ("/missing", 404, 100), ("/large", 200, 100)];
    for span in load(server.port, &arguments, &expected)? {
        let size = match span.target().as_deref() {
            Some("/huge") => HUGE as i64,
            Some("/large") => 100_000,
            Some("/small") => 10,
            _ => continue,
        };
        ensure!(span.int("http.response.body.size") == Some(size), "{span:?}");
    }
    Ok(())
}

/// Node writes much more than 64 KiB by one call, of which not all is captured, so that frames go by unseen. Every request
/// has its spans nevertheless, and what they say is right; h2load, which reads less at a time, is known in full, and of it
/// the server's end learns what it has lost: only the responses whose octets were not seen are known in part.
#[test]
fn frames_that_are_not_captured() -> Result<()> {
    needs!("root", "node", "h2load");
    const TIMES: usize = 10;
    let server = Server::of(Language::Node)?;
    let truth: Vec<Told> = [(200, 1_000_000), (404, 10), (201, 300), (503, 2_000_000)]
        .map(|(status, size)| ("GET".to_owned(), format!("/{status}/{size}/-"), status, 0, size))
        .to_vec();
    let agent = Agent::on(server.port)?;
    let mut command = Command::new(env::which("h2load").context("h2load is not installed")?);
    command.args(["-c", "1", "-m", "1", "--rps", "20", "-n", &(TIMES * truth.len()).to_string()]);
    Process::spawn(command.args(truth.iter().map(|told| server.url(&told.1))))?.succeed(DEADLINE)?;
    let spans = agent.stop_after(2 * TIMES * truth.len())?;
    same(&spans, CLIENT, truth.iter().cycle().take(TIMES * truth.len()).cloned().collect())?;
    joined(&spans)?;
    let served = of_kind(&spans, SERVER);
    for told in &truth {
        let spans: Vec<_> = served.iter().filter(|span| span.target().as_deref() == Some(&*told.1)).collect();
        ensure!(spans.len() == TIMES, "{} spans of {}", spans.len(), told.1);
        for span in spans {
            ensure!(span.status_code() == Some(told.2), "{span:?}");
            let (size, partial) = (span.int("http.response.body.size"), span.attributes.contains_key("remora.partial"));
            let seen = if told.4 < 100_000 { size.is_some() && !partial } else { partial };
            ensure!(seen && size.is_none_or(|size| size == told.4), "{span:?}");
            ensure!(span.str("error.type").is_none_or(|error| error == "503" && told.2 == 503), "{span:?}");
        }
    }
    Ok(())
}

#[test]
fn nginx_answers_by_http2() -> Result<()> {
    needs!("root", "nginx", "h2load", "curl");
    let server = Nginx::start_http2()?;
    let urls = ["/item/7", "/status/503"].map(|path| format!("{}{path}", server.base()));
    for streams in ["1", "10", "100"] {
        let arguments = ["-c", "2", "-m", streams, "-n", "1000", &urls[0], &urls[1]];
        load(server.port, &arguments, &[("/item/7", 200, 500), ("/status/503", 503, 500)])
            .with_context(|| format!("{streams} streams"))?;
    }
    let agent = Agent::on(server.port)?;
    let mut command = Command::new(env::which("curl").context("curl is not installed")?);
    command.args(["--disable", "--silent", "--http2-prior-knowledge", &urls[0]]);
    Process::spawn(&mut command)?.succeed(DEADLINE)?;
    let spans = agent.stop_after(2)?;
    for kind in [CLIENT, SERVER] {
        same(&spans, kind, vec![("GET".to_owned(), "/item/7".to_owned(), 200, 0, 5)])?;
    }
    joined(&spans)
}

/// The first request comes by HTTP/1 and is answered by HTTP/2, those after it are HTTP/2 altogether.
#[test]
fn connections_that_begin_with_http1() -> Result<()> {
    needs!("root", "curl", "nghttp", "nghttpx", "nghttpd");
    let files = Server::nghttpd()?;
    let server = files.proxy()?;
    let agent = Agent::on(server.port)?;
    let urls = ["/small", "/large", "/missing"].map(|path| server.url(path));
    let mut nghttp = Command::new(env::which("nghttp").context("nghttp is not installed")?);
    Process::spawn(nghttp.args(["--null-out", "--upgrade"]).args(&urls))?.succeed(DEADLINE)?;
    let mut curl = Command::new(env::which("curl").context("curl is not installed")?);
    curl.args(["--disable", "--silent", "--http2"]);
    for url in &urls {
        curl.args(["--output", "/dev/null", url]);
    }
    Process::spawn(&mut curl)?.succeed(DEADLINE)?;
    let spans = agent.stop_after(12)?;
    joined(&spans)?;
    for kind in [CLIENT, SERVER] {
        let spans = of_kind(&spans, kind);
        let mut found: Vec<_> = spans.iter().map(|span| (span.target(), span.status_code())).collect();
        found.sort_unstable();
        let told = |path: &str, status| (Some(path.to_owned()), Some(status));
        let (large, missing, small) = (told("/large", 200), told("/missing", 404), told("/small", 200));
        let expected = [large.clone(), large, missing.clone(), missing, small.clone(), small];
        ensure!(found == expected, "kind {kind}: {found:?}");
        for span in &spans {
            ensure!(span.str("network.protocol.version") == Some("2"), "{span:?}");
            ensure!(!span.attributes.contains_key("remora.partial"), "{span:?}");
            let large = span.target().as_deref() == Some("/large");
            ensure!(!large || span.int("http.response.body.size") == Some(100_000), "{span:?}");
        }
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
