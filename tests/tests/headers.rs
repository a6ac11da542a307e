//! `--propagate headers`: traces over two hosts by fields that are put into the requests, and that nothing else of what
//! is sent changes. Where the kernel has the fault that keeps it off, the tests say `--unsafe`: none of their programs asks
//! how much there is to read.

use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::agent::{self, Agent, Builder};
use tests::chain::{self, Chain, agent, count, targets};
use tests::wire::{Pair, find};
use tests::{needs, wait};

const HEADERS: &[&str] = &["--propagate", "headers", "--unsafe"];
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Without `--unsafe` the agent starts where the kernel then tells programs what there is to read, and refuses with the
/// reason where it does not.
#[test]
fn a_kernel_that_would_mislead_programs_is_refused() -> Result<()> {
    needs!("root", "python");
    let (strict, own) = (&HEADERS[..2], ["--pid", &std::process::id().to_string()]);
    let readable = || -> Result<u64> {
        let mut pair = Pair::new()?;
        pair.sends_with_field("a request", GET)?;
        pair.sent.write_all(RESPONSE)?;
        pair.client.peek(&mut [0])?;
        Ok(rustix::io::ioctl_fionread(&pair.client)?)
    };
    if let Ok(_agent) = Builder::new()?.args(strict).args(&own).start() {
        ensure!(readable()? == RESPONSE.len() as u64, "it was not refused");
        return Ok(());
    }
    let mut command = agent::command();
    let (status, stderr) = agent::run(command.args(["run", "--listen", "127.0.0.1:0"]).args(strict).args(own))?;
    ensure!(!status.success() && stderr.lines().count() == 1, "{status}: {stderr}");
    ensure!(stderr.contains("--propagate headers is refused") && stderr.contains("FIONREAD"), "{stderr}");
    ensure!(stderr.contains("--unsafe"), "it does not say what to do: {stderr}");
    let _agent = Builder::new()?.args(HEADERS).args(&own).start()?;
    ensure!(readable()? == 0, "it was refused although nobody is misled");
    Ok(())
}

/// One after the other, each over new connections, and then all over connections that stay; then many at a time. Every
/// request that the second service found in a trace had a field, and no other had.
#[test]
fn requests_over_two_hosts_are_one_trace_each() -> Result<()> {
    needs!("root", "python", "ip", "curl");
    let outcome = chain::over_two_hosts(&Chain::start(&["--delay-ms", "5"], &[])?, HEADERS, "context", "header_sent")?;
    outcome.holds(100.0)?;
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    let traced = outcome.traced as f64;
    ensure!((outcome.sent - traced).abs() < 0.5, "{} fields for {traced} requests in one trace", outcome.sent);
    Ok(())
}

/// What the second service received is what it receives without an agent, but for one line.
#[test]
fn nothing_but_the_field_is_added() -> Result<()> {
    needs!("root", "python", "ip", "curl");
    let chain = Chain::start(&[], &[])?;
    let body = tempfile::NamedTempFile::new()?;
    std::fs::write(&body, (0..300_000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>())?;
    let upload = format!("@{}", body.path().display());
    let ask = || -> Result<String> {
        let small = chain.ask(&targets("small", 20), 1, &[])?;
        let large = chain.ask(&targets("large", 5), 1, &["--data-binary", &upload])?;
        Ok(small + &large)
    };
    let alone = ask()?;
    ensure!(alone.matches("body 300000 ").count() == 2 * 5, "both services get the bodies: {alone}");
    let left = agent(&chain.front, HEADERS)?;
    let with = ask()?;
    let (fields, rest): (Vec<&str>, Vec<&str>) =
        with.lines().partition(|line| line.starts_with("> traceparent: 00-") && line.len() == 2 + 13 + 55);
    ensure!(rest.join("\n") == alone.trim_end(), "more than the field was changed: {with}");
    ensure!(fields.len() == 25, "{} fields in 25 requests", fields.len());
    let spans: BTreeSet<&str> = fields.iter().map(|field| &field[2 + 13 + 3 + 32 + 1..][..16]).collect();
    ensure!(spans.len() == 25, "span ids repeat: {fields:?}");
    left.stop()?;
    ensure!(ask()? == alone, "an agent that has ended changes octets");
    Ok(())
}

/// The trace context that an application sends itself stays the only one.
#[test]
fn an_application_s_own_context_wins() -> Result<()> {
    needs!("root", "python", "ip", "curl");
    let own = format!("00-{TRACE}-{PARENT}-01");
    let chain = Chain::start(&[], &[("TRACEPARENT", &own)])?;
    let left = agent(&chain.front, HEADERS)?;
    let said = chain.ask(&targets("own", 10), 1, &[])?;
    let fields: Vec<_> = said.lines().filter(|line| line.to_ascii_lowercase().contains("traceparent")).collect();
    let expected = format!("> traceparent: {own}");
    ensure!(fields.len() == 10 && fields.iter().all(|field| *field == expected), "{fields:?}");
    ensure!(count(&left, "context_own")? == 10.0 && count(&left, "header_sent")? == 0.0, "requests were written to");
    Ok(())
}

/// What goes on of the context that a request brings (W3C Trace Context): the trace id with a new span id, the flags, and
/// the list of `tracestate`; or a new trace, where the context is invalid.
#[test]
fn a_context_goes_on_as_the_recommendation_says() -> Result<()> {
    needs!("root", "python", "ip", "curl");
    let chain = Chain::start(&[], &[])?;
    let _left = Builder::new()?
        .args(HEADERS)
        .args(&["--pid", &chain.front.pid.to_string()])
        .env("OTEL_TRACES_SAMPLER", "parentbased_always_on")
        .start()?;
    let parent = |flags: &str| format!("traceparent: 00-{TRACE}-{PARENT}-{flags}");
    let key = "k".repeat(256);
    let members = |count: u32| (0..count).map(|i| format!("m{i}={i}")).collect::<Vec<_>>().join(",");
    let state = |list: &str| vec![parent("01"), format!("tracestate: {list}")];
    // What is sent; whether the trace goes on, its flags, and the list that goes with it.
    let cases: Vec<(Vec<String>, Option<&str>, Option<String>)> = vec![
        (vec![parent("01")], Some("01"), None),
        (vec![parent("00")], Some("00"), None),
        (vec![parent("03")], Some("03"), None),
        (
            vec![
                parent("01")
                    .to_uppercase()
                    .replace(&TRACE.to_uppercase(), TRACE)
                    .replace(&PARENT.to_uppercase(), PARENT),
            ],
            Some("01"),
            None,
        ),
        (vec![format!("traceparent: \t 00-{TRACE}-{PARENT}-01 \t")], Some("01"), None),
        (vec![format!("traceparent: cc-{TRACE}-{PARENT}-01-more")], Some("01"), None),
        (vec![format!("traceparent: cc-{TRACE}-{PARENT}-01.more")], None, None),
        (vec![format!("traceparent: ff-{TRACE}-{PARENT}-01")], None, None),
        (vec![format!("traceparent: 00-{TRACE}-{PARENT}-01-more")], None, None),
        (vec![format!("traceparent: 00-{TRACE}-{PARENT}-0g")], None, None),
        (vec![format!("traceparent: 00-{}-{PARENT}-01", "0".repeat(32))], None, None),
        (vec![format!("traceparent: 00-{TRACE}-{}-01", "0".repeat(16))], None, None),
        (vec![parent("01"), parent("01")], None, None),
        (vec!["tracestate: a=1".to_owned()], None, None),
        (state("a=1,b@c=2"), Some("01"), Some("a=1,b@c=2".to_owned())),
        (
            [state("a=1"), state("b=2").split_off(1), state("c=3").split_off(1)].concat(),
            Some("01"),
            Some("a=1,b=2,c=3".to_owned()),
        ),
        (state(&format!("{key}=v")), Some("01"), Some(format!("{key}=v"))),
        (state(&format!("k{key}=v")), Some("01"), None),
        (state(&members(32)), Some("01"), Some(members(32))),
        (state(&members(33)), Some("01"), None),
        (state("A=1"), Some("01"), None),
        (state("a=1=2"), Some("01"), None),
        (state("a=,b=1"), Some("01"), None),
        (state(&format!("a={}", "x".repeat(300))), Some("01"), None),
        (
            state(&format!("a={},b={},c=1", "x".repeat(250), "y".repeat(250))),
            Some("01"),
            Some(format!("a={},b={},c=1", "x".repeat(250), "y".repeat(250))),
        ),
        (state(&format!("a={},b={},c=12345", "x".repeat(250), "y".repeat(256))), Some("01"), None),
    ];
    for (number, (fields, flags, list)) in cases.iter().enumerate() {
        let args: Vec<&str> = fields.iter().flat_map(|field| ["-H", field.as_str()]).collect();
        let said = chain.ask(&targets(&format!("case{number}"), 1), 1, &args)?;
        // The answer begins with what the second service received.
        let second = said.split("body ").next().unwrap_or_default();
        let values = |name: &str| -> Vec<&str> { second.lines().filter_map(|line| line.strip_prefix(name)).collect() };
        let case = || format!("case {number}, {fields:?}: {second}");
        let [sent] = values("> traceparent: ")[..] else { bail!(case()) };
        ensure!(sent.len() == 55 && sent.starts_with("00-") && !sent.contains(PARENT), case());
        match flags {
            Some(flags) => ensure!(sent[3..35] == *TRACE && sent.ends_with(flags), case()),
            None => ensure!(sent[3..35] != *TRACE && sent[3..35] != "0".repeat(32), case()),
        }
        ensure!(values("> tracestate: ") == list.iter().map(String::as_str).collect::<Vec<_>>(), case());
    }
    Ok(())
}

/// Octets of the field and its line's end.
const FIELD: usize = 70;
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Requests over a connection.
trait Requests {
    fn send(&mut self, octets: &[u8]) -> Result<bool>;
    fn receive(&mut self, octets: &[u8]) -> Result<bool>;
    fn answer(&mut self) -> Result<()>;
    fn sends_untouched(&mut self, what: &str, octets: &[u8]) -> Result<()>;
    fn sends_with_field(&mut self, what: &str, octets: &[u8]) -> Result<()>;
}

impl Requests for Pair {
    /// Sends `octets` in one call; whether the server receives them with a field.
    fn send(&mut self, octets: &[u8]) -> Result<bool> {
        self.client.write_all(octets)?;
        self.receive(octets)
    }

    /// Receives `octets`, as they are or with a field; whether there is one.
    fn receive(&mut self, octets: &[u8]) -> Result<bool> {
        let mut received = vec![0; octets.len()];
        self.received.read_exact(&mut received)?;
        if received == octets {
            return Ok(false);
        }
        let mut rest = [0; FIELD];
        self.received.read_exact(&mut rest)?;
        received.extend(rest);
        let at = find(&received, b"\r\ntraceparent: 00-").context("other octets, but no field")?;
        received.drain(at + 2..at + 2 + FIELD);
        ensure!(received == octets, "not the same: {:?}", String::from_utf8_lossy(&received));
        Ok(true)
    }

    fn answer(&mut self) -> Result<()> {
        self.sent.write_all(RESPONSE)?;
        let mut response = [0; RESPONSE.len()];
        self.client.read_exact(&mut response)?;
        ensure!(response == RESPONSE, "the response changed");
        Ok(())
    }

    /// Sends what is unchanged when it arrives.
    fn sends_untouched(&mut self, what: &str, octets: &[u8]) -> Result<()> {
        let added = self.send(octets).with_context(|| what.to_owned())?;
        ensure!(!added, "{what}: a field");
        Ok(())
    }

    /// Sends a request that gets a field and is the same otherwise.
    fn sends_with_field(&mut self, what: &str, octets: &[u8]) -> Result<()> {
        let added = self.send(octets).with_context(|| what.to_owned())?;
        ensure!(added, "{what}: no field");
        Ok(())
    }
}

const GET: &[u8] = b"GET /one HTTP/1.1\r\nHost: here\r\n\r\n";
/// Looks like a request, but is content or another protocol.
const FALSE: &[u8] = b"GET /inner HTTP/1.1\r\nHost: inner\r\n\r\n";

fn own() -> Result<Agent> {
    Builder::new()?.args(HEADERS).args(&["--pid", &std::process::id().to_string()]).start()
}

/// Only what is certain to be the beginning of a request is written to.
#[test]
fn only_what_is_proven_is_written_to() -> Result<()> {
    needs!("root", "python");
    let agent = own()?;
    let mut pair = Pair::new()?;
    for turn in 0..3 {
        pair.sends_with_field(&format!("request {turn} of a connection that stays"), GET)?;
        pair.answer()?;
    }
    pair.sends_with_field("a head whose content follows", b"POST / HTTP/1.1\r\nContent-Length: 36\r\nHost: a\r\n\r\n")?;
    pair.sends_untouched("content like a request", FALSE)?;
    pair.answer()?;
    pair.sends_with_field("a request after content", GET)?;
    pair.answer()?;
    pair.sends_with_field("HTTP/1.0", b"GET /one HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")?;
    pair.answer()?;
    let large = [b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n".to_vec(), vec![b'x'; 1_000_000]].concat();
    let mut client = pair.client.try_clone()?;
    let sender = std::thread::spawn({
        let large = large.clone();
        move || client.write_all(&large)
    });
    let added = pair.receive(&large)?;
    sender.join().ok().context("the sender panicked")??;
    ensure!(added, "a megabyte in one call");
    pair.answer()?;
    let pieces = [&b"POST /vec HTTP/1.1\r\nContent-Length: 4\r\n"[..], b"\r\n", b"ping"];
    let written = pair.client.write_vectored(&pieces.map(IoSlice::new))?;
    ensure!(written == pieces.concat().len(), "{written} octets of three pieces");
    ensure!(pair.receive(&pieces.concat())?, "pieces in one call");
    pair.answer()?;

    let (half, rest) = GET.split_at(10);
    pair.sends_untouched("the first half of a head", half)?;
    pair.sends_untouched("the second half", rest)?;
    pair.answer()?;
    pair.sends_untouched("after what was not followed", GET)?;

    for (what, request) in [
        ("chunks", &b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"[..]),
        ("another protocol", b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ] {
        let mut pair = Pair::new()?;
        pair.sends_with_field(what, request)?;
        pair.sends_untouched(&format!("what follows {what}"), FALSE)?;
        pair.answer()?;
        pair.sends_untouched(&format!("what comes after {what}"), GET)?;
    }
    let long = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 5000], b"\r\n\r\n".to_vec()].concat();
    for (what, request) in [
        ("a tunnel", &b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"[..]),
        ("chunks of a length", b"POST / HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("two lengths", b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        ("no number", b"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n"),
        ("no version", b"GET /one\r\nHost: here\r\n\r\n"),
        ("bare line ends", b"GET / HTTP/1.1\nHost: here\n\n"),
        ("another method", b"BREW / HTTP/1.1\r\nHost: here\r\n\r\n"),
        ("other octets", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("a head of 5,000 octets", &long),
    ] {
        let mut pair = Pair::new()?;
        pair.sends_untouched(what, request)?;
        pair.sends_untouched(&format!("what follows {what}"), FALSE)?;
    }
    for own in [
        format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n"),
        format!("traceparent: 00-{TRACE}-{PARENT}-0g\r\n"),
        format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n"),
        "Traceparent:\r\n".to_owned(),
        "tracestate: a=1\r\n".to_owned(),
        format!("b3: {TRACE}-{PARENT}-1\r\n"),
    ] {
        let mut pair = Pair::new()?;
        pair.sends_untouched(&own, format!("GET / HTTP/1.1\r\n{own}\r\n").as_bytes())?;
        pair.answer()?;
        pair.sends_with_field("after a context of its own", GET)?;
    }
    let unproven = count(&agent, "header_unproven")?;
    ensure!(unproven >= 9.0, "only {unproven} are counted");
    Ok(())
}

/// Requests that are sent before the ones before them are answered arrive as they were sent.
#[test]
fn pipelines_and_full_buffers_stay_whole() -> Result<()> {
    needs!("root", "python");
    let _agent = own()?;
    let mut pair = Pair::new()?;
    rustix::net::sockopt::set_socket_send_buffer_size(&pair.client, 4096)?;
    pair.client.set_nonblocking(true)?;
    let body = vec![b'y'; 3000];
    let request = [format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    let all = request.repeat(200);
    let (refused, mut received) = pair.crowded(1000, |client| send_all(client, &all, request.len()))?;
    let mut fields = 0;
    while let Some(at) = find(&received, b"traceparent: 00-") {
        received.drain(at..at + FIELD);
        fields += 1;
    }
    ensure!(received == all, "{} octets arrived of {}, {fields} fields", received.len(), all.len());
    ensure!(refused > 0 && fields > 0, "{refused} calls were refused, {fields} fields were put in");
    Ok(())
}

/// Sends all, `step` octets at most in a call, so that calls begin with a request; how often the kernel took none.
fn send_all(client: &mut TcpStream, all: &[u8], step: usize) -> Result<u32> {
    let (mut sent, mut refused) = (0, 0);
    while sent < all.len() {
        let end = (sent / step + 1) * step;
        match client.write(&all[sent..end]) {
            Ok(octets) => {
                ensure!(octets > 0 && octets <= end - sent, "the kernel says {octets} of {}", end - sent);
                sent += octets;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                std::thread::sleep(Duration::from_micros(100));
            }
            Err(error) => bail!("after {sent} octets: {error}"),
        }
    }
    Ok(refused)
}

/// The agent is killed, and comes again, while a connection is in use.
#[test]
fn killed_under_load() -> Result<()> {
    needs!("root", "python");
    let mut with = 0;
    let mut pairs = Vec::new();
    for _ in 0..4 {
        let agent = own()?;
        pairs.push(Pair::new()?);
        let (stop, done) = std::sync::mpsc::sync_channel(1);
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let runner = std::thread::spawn(move || -> Result<(Vec<Pair>, u32)> {
            let mut with = 0;
            while done.try_recv().is_err() {
                for pair in &mut pairs {
                    with += u32::from(pair.send(GET)?);
                    pair.answer()?;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok((pairs, with))
        });
        let more = |number| {
            let enough = asked.load(Ordering::Relaxed) + number;
            wait::until(Duration::from_secs(20), "more requests are answered", || {
                // An error of the client's is better told of than a deadline.
                Ok((asked.load(Ordering::Relaxed) >= enough || runner.is_finished()).then_some(()))
            })
        };
        more(100)?;
        agent.kill()?;
        more(100)?;
        // It may have ended by an error, which comes next.
        let _ = stop.send(());
        let (back, fields) = runner.join().ok().context("the client panicked")??;
        pairs = back;
        with += fields;
    }
    ensure!(with > 100, "only {with} requests had a field");
    Ok(())
}
