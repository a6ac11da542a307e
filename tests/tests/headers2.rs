//! `--propagate headers` over HTTP/2 and gRPC: every request has one `traceparent`, the spans of both hosts are one trace,
//! and nothing else of what is sent changes. `--unsafe` as in `headers.rs`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value as Json;
use tests::agent::{Agent, Builder};
use tests::chain::{count, targets};
use tests::fixture::{self, Language};
use tests::grpc::Stack;
use tests::needs;
use tests::netns::{Host, Hosts};
use tests::process::Process;
use tests::span::{CLIENT, SERVER, Span, of_kind};

const HEADERS: &[&str] = &["--propagate", "headers", "--unsafe"];
const DEADLINE: Duration = Duration::from_secs(60);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const TONIC: &str = env!("CARGO_BIN_EXE_grpc-calls");

/// `http2_fields.py` on a host.
struct Service {
    process: Process,
    url: String,
    port: u16,
}

/// A request as the server received it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    path: String,
    fields: Vec<(String, String)>,
    rest: String,
}

impl Service {
    fn start(host: &Host, args: &[&str]) -> Result<Self> {
        let mut command = fixture::program(Language::Python, "http2_fields");
        command.args([args[0], host.ipv4]).args(&args[1..]);
        let process = Process::spawn(&mut host.command(&command))?;
        let port = process.announcement(DEADLINE)?["port"].as_u64().context("no port")?;
        let port = u16::try_from(port)?;
        Ok(Self { process, url: format!("http://{}:{port}", host.ipv4), port })
    }

    /// An agent that sees this service alone.
    fn agent(&self) -> Result<Agent> {
        Builder::new()?.args(HEADERS).args(&["--pid", &self.process.pid().to_string()]).start()
    }

    /// The next `number` requests, in the order of their paths.
    fn requests(&self, number: usize) -> Result<Vec<Request>> {
        let mut requests = Vec::new();
        for _ in 0..number {
            requests.push(request(&serde_json::from_str(&self.process.line(DEADLINE)?)?)?);
        }
        requests.sort_unstable();
        Ok(requests)
    }
}

fn request(line: &Json) -> Result<Request> {
    let fields: Vec<(String, String)> = serde_json::from_value(line["fields"].clone())?;
    let path = fields.iter().find(|(name, _)| name == ":path").context("no path")?.1.clone();
    Ok(Request { path, fields, rest: format!("{} {} {}", line["trailers"], line["size"], line["hash"]) })
}

impl Request {
    fn parents(&self) -> Vec<&str> {
        self.fields.iter().filter(|(name, _)| name == "traceparent").map(|(_, value)| value.as_str()).collect()
    }

    /// Trace id and span id of its only `traceparent`, which is the last field.
    fn context(&self) -> Result<(&str, &str)> {
        let [parent] = self.parents()[..] else { bail!("not one traceparent: {self:?}") };
        ensure!(self.fields.last().is_some_and(|(name, _)| name == "traceparent"), "not the last field: {self:?}");
        ensure!(parent.len() == 55 && parent.starts_with("00-"), "{parent}");
        Ok((&parent[3..35], &parent[36..52]))
    }

    fn without(mut self) -> Self {
        self.fields.retain(|(name, _)| name != "traceparent");
        self
    }
}

/// A program of a fixture that makes `count` requests, `streams` at a time.
fn client(host: &Host, language: Language, url: &str, count: usize, streams: usize) -> Result<()> {
    let name = if language == Language::Python { "http2_client" } else { "h2" };
    let mut command = fixture::program(language, name);
    command.args(["client", url, &count.to_string(), &streams.to_string(), "0"]);
    Process::spawn(&mut host.command(&command))?.succeed(DEADLINE)?;
    Ok(())
}

fn run(host: &Host, program: &str, args: &[&str]) -> Result<String> {
    let output = host.command(Command::new(program).args(args)).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Each request's field, client span and server span are about the same.
fn joined(requests: &[Request], left: &[Span], right: &[Span]) -> Result<()> {
    let of = |spans: &[Span], kind| -> BTreeMap<String, Span> {
        of_kind(spans, kind).into_iter().map(|span| (span.span_id.clone(), span.clone())).collect()
    };
    let (calls, served) = (of(left, CLIENT), of(right, SERVER));
    ensure!((calls.len(), served.len()) == (requests.len(), requests.len()), "{} and {}", calls.len(), served.len());
    let mut by_parent = BTreeMap::new();
    for span in served.values() {
        ensure!(span.str("remora.link.method") == Some("context"), "{span:?}");
        ensure!(by_parent.insert(span.parent_span_id.as_str(), span).is_none(), "two of one parent: {span:?}");
    }
    for request in requests {
        let (trace, parent) = request.context()?;
        let call = calls.get(parent).with_context(|| format!("no client span: {request:?}"))?;
        let server = by_parent.get(parent).with_context(|| format!("no server span: {request:?}"))?;
        ensure!(call.trace_id == trace && server.trace_id == trace, "{call:?} {server:?}");
        let path = Some(request.path.clone());
        ensure!(call.target() == path && server.target() == path, "{path:?}: {call:?} {server:?}");
        ensure!(call.parent_span_id.is_empty(), "{call:?}");
    }
    Ok(())
}

#[test]
fn streams_over_two_hosts_are_one_trace_each() -> Result<()> {
    needs!("root", "ip", "venv", "node", "go");
    const COUNT: usize = 200;
    let hosts = Hosts::new()?;
    let server = Service::start(&hosts.right, &["server"])?;
    let (left, right) = (Builder::new()?.args(HEADERS).port(server.port).start()?, server.agent()?);
    let mut requests = Vec::new();
    for language in [Language::Go, Language::Node, Language::Python] {
        for streams in [1, 10] {
            let check = || -> Result<Vec<Request>> {
                client(&hosts.left, language, &server.url, COUNT, streams)?;
                server.requests(COUNT)
            };
            requests.extend(check().with_context(|| format!("{language:?}, {streams} streams"))?);
        }
    }
    let (all, sent) = (requests.len(), count(&left, "header_sent")?);
    let (left, right) = (left.stop_after(2 * all)?, right.stop_after(all)?);
    joined(&requests, &left, &right)?;
    ensure!(sent == all as f64, "{sent} fields in {all} requests");
    Ok(())
}

/// A service that is asked by HTTP/1 asks the next one by HTTP/2, with the list that came with the context.
#[test]
fn what_a_request_caused_goes_on_in_its_trace() -> Result<()> {
    needs!("root", "ip", "venv", "curl");
    let hosts = Hosts::new()?;
    let back = Service::start(&hosts.right, &["server"])?;
    let front = Service::start(&hosts.left, &["front", &back.url])?;
    let (left, right) = (front.agent()?, back.agent()?);
    let all = targets("one", 30);
    let urls: Vec<String> = all.iter().map(|target| format!("{}{target}", front.url)).collect();
    for url in &urls {
        run(&hosts.left, "curl", &["-sS", "--fail", url])?;
    }
    let (sent, requests) = (count(&left, "header_sent")?, back.requests(all.len())?);
    ensure!((sent - 30.0).abs() < 0.5 && count(&left, "context_only")? == sent, "{sent} fields");
    for (flags, list) in [("01", "a=1,b=2".to_owned()), ("00", format!("c={},d=4", "x".repeat(250)))] {
        let fields = [format!("traceparent: 00-{TRACE}-{PARENT}-{flags}"), format!("tracestate: {list}")];
        let said = run(&hosts.left, "curl", &["-sS", "--fail", "-H", &fields[0], "-H", &fields[1], &urls[0]])?;
        let request = request(&serde_json::from_str(&said)?)?;
        let [parent] = request.parents()[..] else { bail!("{request:?}") };
        ensure!(parent[3..35] == *TRACE && parent[36..52] != *PARENT, "{request:?}");
        ensure!(request.fields.last() == Some(&("tracestate".to_owned(), list)), "{request:?}");
    }
    let (left, right) = (left.stop()?.spans, right.stop()?.spans);
    let (fronts, calls) = (of_kind(&left, SERVER), of_kind(&left, CLIENT));
    for request in &requests {
        let (trace, parent) = request.context()?;
        let call = calls.iter().find(|span| span.span_id == parent).context("no client span")?;
        let front = fronts.iter().find(|span| span.span_id == call.parent_span_id).context("no cause")?;
        ensure!(front.target() == call.target() && call.trace_id == trace && front.trace_id == trace, "{request:?}");
        let back = right.iter().find(|span| span.parent_span_id == parent).context("no server span")?;
        ensure!(back.trace_id == trace && back.target() == call.target(), "{back:?} {call:?}");
    }
    Ok(())
}

/// What the server received is what it receives without an agent, but for one field: with padding, priorities, trailers, large
/// content, and several requests in one call.
#[test]
fn nothing_but_the_field_is_added() -> Result<()> {
    needs!("root", "ip", "venv", "node", "go", "curl", "nghttp");
    let hosts = Hosts::new()?;
    let server = Service::start(&hosts.right, &["server"])?;
    let content = tempfile::NamedTempFile::new()?;
    std::fs::write(&content, (0..3_000_000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>())?;
    let file = content.path().to_str().context("a path that is no text")?;
    let url = |path: &str| format!("{}{path}", server.url);
    let several: Vec<String> = (0..8).map(|i| url(&format!("/several/{i}"))).collect();
    let ask = || -> Result<Vec<Request>> {
        client(&hosts.left, Language::Go, &server.url, 60, 10)?;
        client(&hosts.left, Language::Node, &server.url, 60, 10)?;
        let mut all = server.requests(120)?;
        let several: Vec<&str> = several.iter().map(String::as_str).collect();
        run(&hosts.left, "nghttp", &several)?;
        run(&hosts.left, "nghttp", &[&["--padding=20"], &several[..]].concat())?;
        run(&hosts.left, "nghttp", &["-d", file, "--trailer", "sum: 5", &url("/trailers")])?;
        run(&hosts.left, "nghttp", &["-m", "3", "-d", file, &url("/large/0")])?;
        let data = format!("@{file}");
        let next = url("/large/by-curl");
        let (path, again) = (url("/c/0"), url("/c/1"));
        run(&hosts.left, "curl", &["-sS", "--http2-prior-knowledge", "--data-binary", &data, &next])?;
        // It has a fault where it uses a connection again.
        run(&hosts.left, "curl", &["-sS", "--http2-prior-knowledge", &path])?;
        run(&hosts.left, "curl", &["-sS", "--http2-prior-knowledge", &again])?;
        all.extend(server.requests(8 + 8 + 1 + 3 + 3)?);
        all.sort_unstable();
        Ok(all)
    };
    let alone = ask()?;
    let left = Builder::new()?.args(HEADERS).port(server.port).start()?;
    let with = ask()?;
    for request in &with {
        request.context()?;
    }
    let mut ids: Vec<&str> = with.iter().map(|request| request.parents()[0]).collect();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == with.len(), "contexts repeat");
    let mut with: Vec<Request> = with.into_iter().map(Request::without).collect();
    with.sort_unstable();
    for (with, alone) in with.iter().zip(&alone) {
        ensure!(with == alone, "{with:?}, without an agent {alone:?}");
    }
    ensure!(with.len() == alone.len(), "{} and {}", with.len(), alone.len());
    ensure!(count(&left, "header_frames_lost")? == 0.0, "frames were lost");
    left.stop()?;
    ensure!(ask()? == alone, "an agent that has ended changes fields");
    Ok(())
}

/// From the first context of the application's own on, nothing is put into requests of a connection: it may be named by its
/// place in the table of header fields alone.
#[test]
fn an_application_s_own_context_wins() -> Result<()> {
    needs!("root", "ip", "venv", "curl", "nghttp");
    let hosts = Hosts::new()?;
    let server = Service::start(&hosts.right, &["server"])?;
    let left = Builder::new()?.args(HEADERS).port(server.port).start()?;
    let field = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let urls: Vec<String> = (0..5).map(|i| format!("{}/own/{i}", server.url)).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let h2 = ["-sS", "--http2-prior-knowledge"];
    for url in &urls {
        run(&hosts.left, "curl", &[&h2[..], &["-H", &field, url]].concat())?;
    }
    run(&hosts.left, "nghttp", &[&["-H", &field], &urls[..]].concat())?;
    for request in server.requests(10)? {
        ensure!(request.parents() == [&field[13..]], "{request:?}");
    }
    ensure!(count(&left, "context_own")? == 10.0 && count(&left, "header_sent")? == 0.0, "requests were written to");
    for other in ["b3: 0", "tracestate: a=1", "x-datadog-trace-id: 1"] {
        run(&hosts.left, "curl", &[&h2[..], &["-H", other, urls[0]]].concat())?;
        ensure!(server.requests(1)?[0].parents().is_empty(), "beside {other}");
    }
    Ok(())
}

/// Calls of all kinds by five implementations: each server's span is below the client's by the field that it was sent.
#[test]
fn calls_of_grpc_are_joined_by_the_field() -> Result<()> {
    const KINDS: usize = 8;
    const CALLS: usize = 5;
    needs!("root", "grpc");
    let tonic = Path::new(TONIC);
    for client in Stack::ALL {
        let server = if client == Stack::GrpcGo { Stack::Grpcio } else { Stack::GrpcGo };
        let check = || -> Result<()> {
            let (_server, port) = server.serve(tonic)?;
            let agent = Builder::new()?.args(HEADERS).port(port).start()?;
            client.call(tonic, port, CALLS)?;
            let all = KINDS * CALLS;
            agent.wait_for_spans(2 * all)?;
            let (sent, lost) = (count(&agent, "header_sent")?, count(&agent, "header_frames_lost")?);
            let spans = agent.stop()?.spans;
            let calls: BTreeMap<&str, &Span> =
                spans.iter().filter(|span| span.kind == CLIENT).map(|span| (span.span_id.as_str(), span)).collect();
            let served = of_kind(&spans, SERVER);
            ensure!((calls.len(), served.len()) == (all, all), "{} and {} spans", calls.len(), served.len());
            let by_field = served.iter().filter(|span| span.str("remora.link.method") == Some("context")).count();
            for span in &served {
                let call = calls.get(span.parent_span_id.as_str()).with_context(|| format!("no parent: {span:?}"))?;
                ensure!(call.name == span.name && call.trace_id == span.trace_id, "{call:?} {span:?}");
            }
            ensure!(by_field == all && lost == 0.0, "{by_field} of {all} by {sent} fields, {lost} connections lost");
            Ok(())
        };
        check().with_context(|| format!("{client:?} to {server:?}"))?;
    }
    Ok(())
}
