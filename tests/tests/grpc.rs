//! Calls of gRPC in the clear, of all pairs of implementations: all four kinds, ten at a time, with and without errors,
//! cancelled, and with deadlines that pass.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::fixture::{self, Language};
use tests::grpc::{self, Stack};
use tests::needs;
use tests::process::Process;
use tests::span::{CLIENT, SERVER, Span};

const TONIC: &str = env!("CARGO_BIN_EXE_grpc-calls");
/// Calls of each kind and of each end in a pair.
const COUNT: usize = 10;
/// Kinds and ends.
const KINDS: usize = 8;

/// What a call's span says: method, status, messages each way, error.
type Told = (String, String, i64, i64, Option<String>);

fn told(span: &Span) -> Result<Told> {
    let text = |key| span.str(key).map(str::to_owned);
    let told = || {
        let messages = (span.int("remora.rpc.request.messages")?, span.int("remora.rpc.response.messages")?);
        Some((text("rpc.method")?, text("rpc.response.status_code")?, messages.0, messages.1, text("error.type")))
    };
    let told = told().with_context(|| format!("something is not known: {span:?}"))?;
    ensure!(span.name == told.0 && span.str("rpc.system.name") == Some("grpc"), "{span:?}");
    ensure!(span.str("http.request.method").is_none() && !span.attributes.contains_key("remora.partial"), "{span:?}");
    Ok(told)
}

/// What the calls of a pair are, to their client or their server.
fn expected(kind: i32, server: Stack) -> BTreeMap<Told, usize> {
    let call = |name: &str, status: &str, requests, responses| {
        // To a server it is no error when its client asked for what is not there, or has cancelled.
        let error = status != "OK" && (kind == CLIENT || matches!(status, "INTERNAL" | "DEADLINE_EXCEEDED"));
        let error = error.then(|| status.to_owned());
        ((format!("test.v1.Echo/{name}"), status.to_owned(), requests, responses, error), COUNT)
    };
    let mut calls = BTreeMap::from([
        call("Unary", "OK", 1, 1),
        call("ClientStream", "OK", 3, 1),
        call("ServerStream", "OK", 1, 3),
        call("Bidirectional", "OK", 3, 3),
        call("Fail", "NOT_FOUND", 1, 0),
        call("Fail", "INTERNAL", 1, 0),
        call("Hang", "CANCELLED", 1, 0),
    ]);
    let (late, count) = call("Hang", "DEADLINE_EXCEEDED", 1, 0);
    // Tonic's server notices the deadline too, and calls it so.
    if server != Stack::Tonic {
        calls.insert(late, count);
    }
    calls
}

/// The calls of a pair as `spans` have them, those with a deadline as [`expected`] has them.
fn found<'a>(spans: impl Iterator<Item = &'a Span>, server: Stack) -> Result<BTreeMap<Told, usize>> {
    let mut found: BTreeMap<Told, usize> = BTreeMap::new();
    let mut deadlines = 0;
    for span in spans {
        let told = told(span)?;
        let deadline = span.attributes.contains_key("remora.rpc.timeout") && span.name.ends_with("Hang");
        if server == Stack::Tonic && deadline {
            ensure!(matches!(&*told.1, "CANCELLED" | "DEADLINE_EXCEEDED"), "{span:?}");
            deadlines += 1;
        } else {
            *found.entry(told).or_default() += 1;
        }
    }
    ensure!(server != Stack::Tonic || deadlines == COUNT, "{deadlines} calls with a deadline");
    Ok(found)
}

#[test]
fn every_call_has_a_span_on_both_sides() -> Result<()> {
    needs!("root", "grpc");
    let tonic = Path::new(TONIC);
    let servers = Stack::ALL.iter().map(|stack| stack.serve(tonic)).collect::<Result<Vec<_>>>()?;
    let mut builder = Builder::new()?;
    for (_, port) in &servers {
        builder = builder.port(*port);
    }
    let agent: Agent = builder.start()?;
    let mut pairs = BTreeMap::new();
    for (server, (_, port)) in Stack::ALL.iter().zip(&servers) {
        for client in Stack::ALL {
            let pid = client.call(tonic, *port, COUNT).with_context(|| format!("{client:?} to {server:?}"))?;
            pairs.insert((i64::from(*port), i64::from(pid)), (client, *server));
        }
    }
    let all = pairs.len() * KINDS * COUNT;
    // Too few are better told of by the comparison below.
    let _ = agent.wait_for_spans(2 * all);
    let metrics = agent.metrics()?;
    let spans = agent.stop()?.spans;
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    let mut of_pair: BTreeMap<_, [Vec<&Span>; 2]> = BTreeMap::new();
    for span in &spans {
        let client = match span.kind {
            CLIENT => span,
            _ => by_id.get(span.parent_span_id.as_str()).with_context(|| format!("no parent: {span:?}"))?,
        };
        ensure!(client.kind == CLIENT && client.name == span.name, "{client:?} caused {span:?}");
        let pair = (client.int("server.port").context("no port")?, client.pid().context("no process")?);
        of_pair.entry(pair).or_default()[usize::from(span.kind == SERVER)].push(span);
    }
    for (pair, (client, server)) in &pairs {
        let spans = of_pair.get(pair).with_context(|| format!("{client:?} to {server:?}: no spans"))?;
        for (kind, spans) in [CLIENT, SERVER].into_iter().zip(spans) {
            let (found, expected) = (found(spans.iter().copied(), *server)?, expected(kind, *server));
            ensure!(found == expected, "{client:?} to {server:?}, kind {kind}: {found:?} instead of {expected:?}");
        }
    }
    ensure!(spans.len() == 2 * all, "{} spans for {all} calls", spans.len());
    for side in ["client", "server"] {
        let count = |labels: &[(&str, &str)]| metrics.sum(&format!("rpc_{side}_call_duration_seconds_count"), labels);
        let every = [("rpc_system_name", "grpc")];
        let not_found = [("rpc_method", "test.v1.Echo/Fail"), ("rpc_response_status_code", "NOT_FOUND")];
        for (labels, calls) in [(&every[..], all), (&not_found, all / KINDS)] {
            let counted = count(labels);
            ensure!((counted - calls as f64).abs() < 0.5, "{side}: {counted} of {calls} with {labels:?}");
        }
    }
    Ok(())
}

/// Over HTTP/1 and HTTP/2, binary and in base64.
#[test]
fn calls_of_grpc_web() -> Result<()> {
    needs!("root", "venv");
    let (_server, port) = Stack::Tonic.serve(Path::new(TONIC))?;
    let agent = Agent::on(port)?;
    let arguments = [port.to_string(), COUNT.to_string()];
    Process::spawn(fixture::program(Language::Python, "grpc_web").args(arguments))?.succeed(grpc::DEADLINE)?;
    // Four calls in three codings over two versions.
    let all = 4 * 3 * 2 * COUNT;
    let spans = agent.stop_after(2 * all)?;
    for kind in [CLIENT, SERVER] {
        let mut found: BTreeMap<_, usize> = BTreeMap::new();
        for span in spans.iter().filter(|span| span.kind == kind) {
            let version = span.str("network.protocol.version").context("no version")?.to_owned();
            *found.entry((version, told(span)?)).or_default() += 1;
        }
        let call = |version: &str, name: &str, status: &str, responses, times| {
            let error = (status != "OK" && kind == CLIENT).then(|| status.to_owned());
            (
                (version.to_owned(), (format!("test.v1.Echo/{name}"), status.to_owned(), 1, responses, error)),
                times * COUNT,
            )
        };
        let expected: BTreeMap<_, _> = ["1.1", "2"]
            .into_iter()
            .flat_map(|version| {
                [
                    call(version, "Unary", "OK", 1, 6),
                    call(version, "ServerStream", "OK", 3, 3),
                    call(version, "Fail", "NOT_FOUND", 0, 3),
                ]
            })
            .collect();
        ensure!(found == expected, "kind {kind}: {found:?}");
    }
    Ok(())
}
