//! `--propagate headers` over HTTP/2 and gRPC: every request has one `traceparent`, the spans of both hosts are one trace,
//! and nothing else of what is sent changes. `--unsafe` as in `headers.rs`.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
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
use tests::wire::{Pair, find};

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

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const DATA: u8 = 0;
const CONTINUATION: u8 = 9;
const WHOLE: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: a`.
const BLOCK: &[u8] = b"\x82\x86\x84\x41\x01a";
const BEFORE: &[u8] = b"\x10\x0btraceparent\x3700-";
/// Octets that are put in.
const LITERAL: usize = 69;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(1, WHOLE | flags, stream, payload)
}

fn preface() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// Sends `octets` in one call and receives them with as many contexts as `frames` says, each in a frame of header fields that
/// begins there and whose block ends so many octets before its end.
fn sends(pair: &mut Pair, what: &str, octets: &[u8], frames: &[(usize, usize)]) -> Result<()> {
    pair.client.write_all(octets)?;
    let mut received = vec![0; octets.len() + LITERAL * frames.len()];
    pair.received.read_exact(&mut received).with_context(|| what.to_owned())?;
    for (at, padding) in frames.iter().rev() {
        let length = |octets: &[u8]| usize::from(octets[at + 1]) << 8 | usize::from(octets[at + 2]);
        let before = length(octets);
        let place = at + 9 + before - padding;
        // Those of the frames before are there still.
        let earlier = LITERAL * frames.iter().filter(|(other, _)| other < at).count();
        let found = received.get(place + earlier..place + earlier + BEFORE.len());
        ensure!(found == Some(BEFORE), "{what}: no context at {place}: {}", String::from_utf8_lossy(&received));
        received.drain(place + earlier..place + earlier + LITERAL);
        let now = usize::from(received[at + earlier + 1]) << 8 | usize::from(received[at + earlier + 2]);
        ensure!(now == before + LITERAL, "{what}: a frame of {now} octets");
        received[at + earlier + 1..at + earlier + 3].copy_from_slice(&octets[at + 1..at + 3]);
    }
    ensure!(received == octets, "{what}: not the same: {}", String::from_utf8_lossy(&received));
    Ok(())
}

fn own() -> Result<Agent> {
    Builder::new()?.args(HEADERS).args(&["--pid", &std::process::id().to_string()]).start()
}

/// Frames made by hand: only a whole block of header fields of a new stream is written to.
#[test]
fn only_what_is_proven_is_written_to() -> Result<()> {
    needs!("root", "python");
    let agent = own()?;
    let mut pair = Pair::new()?;
    let first = [preface(), headers(1, 0, BLOCK)].concat();
    let at = first.len() - 9 - BLOCK.len();
    sends(&mut pair, "a request after the preface", &first, &[(at, 0)])?;
    sends(&mut pair, "trailers", &headers(1, 1, b"\x00\x01a\x01b"), &[])?;
    sends(&mut pair, "a request", &headers(3, 0, BLOCK), &[(0, 0)])?;
    let padded = [&[5][..], &[0, 0, 0, 0, 9], BLOCK, &[0; 5]].concat();
    sends(&mut pair, "with padding and a priority", &headers(5, PADDED | PRIORITY, &padded), &[(0, 5)])?;
    let request = headers(7, 1, BLOCK);
    let two = [&request[..], &headers(9, 0, BLOCK), &frame(DATA, 0, 9, &headers(11, 0, BLOCK))].concat();
    sends(&mut pair, "two, and content like a third", &two, &[(0, 0), (request.len(), 0)])?;
    let large = frame(DATA, 0, 9, &headers(11, 0, BLOCK).repeat(1000));
    for (number, part) in large.chunks(1500).enumerate() {
        sends(&mut pair, &format!("part {number} of content"), part, &[])?;
    }
    // A value of 16,315 octets: 127 and 126 * 128 and 60 (RFC 7541, section 5.1).
    let long = [BLOCK, b"\x00\x01a\x7f\xbc\x7e", &[b'x'; 16_315]].concat();
    sends(&mut pair, "no room in the frame", &headers(11, 0, &long), &[])?;
    let many: Vec<u8> = (0..20).flat_map(|i| headers(13 + 2 * i, 0, BLOCK)).collect();
    let places: Vec<(usize, usize)> = (0..16).map(|i| (i * (9 + BLOCK.len()), 0)).collect();
    sends(&mut pair, "twenty in one call", &many, &places)?;
    sends(&mut pair, "of a server's stream", &headers(54, 0, BLOCK), &[])?;
    sends(&mut pair, "an unknown frame", &frame(0x42, 0xff, 0, b"abc"), &[])?;
    sends(&mut pair, "after all that", &headers(101, 0, BLOCK), &[(0, 0)])?;
    ensure!(count(&agent, "header_not_ready")? == 4.0 && count(&agent, "header_no_room")? == 1.0, "counted otherwise");
    ensure!(count(&agent, "header_frames_lost")? == 0.0, "frames were lost");

    let request = headers(3, 0, BLOCK);
    let (half, rest) = request.split_at(12);
    let literal = |name: &[u8]| [BLOCK, &[0x40, u8::try_from(name.len()).unwrap_or(0)], name, b"\x01x"].concat();
    let cases: [(&str, Vec<Vec<u8>>); 7] = [
        ("a block in two calls", vec![half.to_vec(), rest.to_vec()]),
        ("a block in two frames", vec![[frame(1, 0, 3, BLOCK), frame(CONTINUATION, WHOLE, 3, b"\x84")].concat()]),
        ("no block", vec![headers(3, 0, b"\x82\x86\x84\x41\x09a")]),
        ("padding as long as the frame", vec![headers(3, PADDED, b"\x06\x82\x86\x84\x41\x01a")]),
        ("no frame", vec![b"\x00\x00\x02\x08\x00\x00\x00\x00\x00ab".to_vec()]),
        ("a head in two calls", vec![request[..5].to_vec(), request[5..].to_vec()]),
        ("another protocol", vec![b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()]),
    ];
    for (number, (what, calls)) in cases.iter().enumerate() {
        let mut pair = Pair::new()?;
        sends(&mut pair, what, &first, &[(at, 0)])?;
        for call in calls {
            sends(&mut pair, what, call, &[])?;
        }
        sends(&mut pair, &format!("what follows {what}"), &headers(5, 0, BLOCK), &[])?;
        ensure!(count(&agent, "header_frames_lost")? == number as f64 + 1.0, "{what}");
    }
    for name in [&b"traceparent"[..], b"tracestate", b"b3", b"x-b3-traceid"] {
        let mut pair = Pair::new()?;
        let what = String::from_utf8_lossy(name).into_owned();
        sends(&mut pair, &what, &first, &[(at, 0)])?;
        sends(&mut pair, &what, &headers(3, 0, &literal(name)), &[])?;
        sends(&mut pair, &format!("after {what}"), &headers(5, 0, &[BLOCK, b"\xbe"].concat()), &[])?;
    }
    for (what, begins) in [("no preface", &first[24..]), ("half a preface", &PREFACE[..12])] {
        let mut pair = Pair::new()?;
        sends(&mut pair, what, begins, &[])?;
        sends(&mut pair, what, &first, &[])?;
    }
    Ok(())
}

/// While the kernel's buffer is full it takes parts of what is sent: what arrives is the same octets.
#[test]
fn full_buffers_stay_whole() -> Result<()> {
    needs!("root", "python");
    let agent = own()?;
    let mut pair = Pair::new()?;
    rustix::net::sockopt::set_socket_send_buffer_size(&pair.client, 20_000)?;
    pair.client.set_nonblocking(true)?;
    // Longer than the buffer, so that the kernel takes a part.
    let content = vec![b'y'; 60_000];
    let step = |i: u32| [headers(1 + 2 * i, 0, BLOCK), frame(DATA, 1, 1 + 2 * i, &content)].concat();
    let calls: Vec<Vec<u8>> = std::iter::once(preface()).chain((0..60).map(step)).collect();
    let all = calls.concat();
    let Pair { client, received, .. } = &mut pair;
    let (parts, mut received) = std::thread::scope(|scope| -> Result<(u32, Vec<u8>)> {
        let reader = scope.spawn(|| -> Result<Vec<u8>> {
            let (mut all, mut piece) = (Vec::new(), [0; 2000]);
            loop {
                // Slower than the sender, so that its buffer is full.
                std::thread::sleep(Duration::from_micros(200));
                match received.read(&mut piece)? {
                    0 => return Ok(all),
                    octets => all.extend(&piece[..octets]),
                }
            }
        });
        let mut parts = 0;
        for call in &calls {
            let mut sent = 0;
            while sent < call.len() {
                match client.write(&call[sent..]) {
                    Ok(octets) => {
                        sent += octets;
                        parts += u32::from(sent < call.len());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                    Err(error) => bail!("after {sent} octets: {error}"),
                }
            }
        }
        client.shutdown(Shutdown::Write)?;
        Ok((parts, reader.join().ok().context("the reader panicked")??))
    })?;
    let mut fields = 0;
    while let Some(at) = find(&received, BEFORE) {
        received.drain(at..at + LITERAL);
        let length = at - BLOCK.len() - 9;
        received[length + 2] -= u8::try_from(LITERAL)?;
        fields += 1;
    }
    ensure!(received == all, "{} octets arrived of {}, {fields} fields", received.len(), all.len());
    let (left, lost) = (count(&agent, "header_not_ready")?, count(&agent, "header_frames_lost")?);
    println!("{fields} fields, {left} requests left alone, {parts} parts");
    ensure!(parts > 0 && fields > 0 && lost == 0.0, "{parts} parts, {fields} fields, {lost} connections lost");
    ensure!(f64::from(fields) + left == 60.0, "{fields} fields and {left} left alone");
    Ok(())
}
