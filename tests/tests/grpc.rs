//! Calls of gRPC in the clear: all four kinds, ten at a time, with and without errors.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::Agent;
use tests::fixture::{self, Language};
use tests::needs;
use tests::process::Process;
use tests::span::{CLIENT, SERVER, Span, of_kind};

const DEADLINE: Duration = Duration::from_secs(60);
/// Calls of each kind and of each status.
const COUNT: usize = 40;

/// What a call's spans say: name, method, status, error.
type Told = (String, Option<String>, Option<String>, Option<String>);

fn told(span: &Span) -> Told {
    let text = |key| span.str(key).map(str::to_owned);
    (span.name.clone(), text("rpc.method"), text("rpc.response.status_code"), text("error.type"))
}

#[test]
fn every_call_has_a_span_on_both_sides() -> Result<()> {
    needs!("root", "grpc");
    let server = Process::spawn(fixture::program(Language::Node, "grpc").arg("server"))?;
    let port = u16::try_from(server.announcement(DEADLINE)?["port"].as_u64().context("no port")?)?;
    let agent = Agent::on(port)?;
    let arguments = ["client", &port.to_string(), &COUNT.to_string()];
    Process::spawn(fixture::program(Language::Node, "grpc").args(arguments))?.succeed(DEADLINE)?;
    agent.wait_for_spans(12 * COUNT)?;
    let metrics = agent.metrics()?;
    let spans = agent.stop()?.spans;
    let expected = |kind: i32| {
        let call = |name: &str, status: &str, error: Option<&str>| {
            let method = format!("test.v1.Echo/{name}");
            ((method.clone(), Some(method), Some(status.to_owned()), error.map(str::to_owned)), COUNT)
        };
        BTreeMap::from([
            call("Unary", "OK", None),
            call("ClientStream", "OK", None),
            call("ServerStream", "OK", None),
            call("Bidirectional", "OK", None),
            // To a server this is no error.
            call("Fail", "NOT_FOUND", (kind == CLIENT).then_some("NOT_FOUND")),
            call("Fail", "INTERNAL", Some("INTERNAL")),
        ])
    };
    for (kind, side) in [(CLIENT, "client"), (SERVER, "server")] {
        let mut found: BTreeMap<Told, usize> = BTreeMap::new();
        for span in of_kind(&spans, kind) {
            ensure!(span.str("rpc.system.name") == Some("grpc"), "{span:?}");
            ensure!(span.str("http.request.method").is_none(), "{span:?}");
            *found.entry(told(&span)).or_default() += 1;
        }
        ensure!(found == expected(kind), "{side}: {found:?}");
        let count = |labels: &[(&str, &str)]| metrics.sum(&format!("rpc_{side}_call_duration_seconds_count"), labels);
        let all = [("rpc_system_name", "grpc")];
        let not_found = [("rpc_method", "test.v1.Echo/Fail"), ("rpc_response_status_code", "NOT_FOUND")];
        for (labels, calls) in [(&all[..], 6 * COUNT), (&not_found, COUNT)] {
            let counted = count(labels);
            ensure!((counted - calls as f64).abs() < 0.5, "{side}: {counted} of {calls} with {labels:?}");
        }
    }
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    for server in of_kind(&spans, SERVER) {
        let client = by_id.get(server.parent_span_id.as_str()).with_context(|| format!("no parent: {server:?}"))?;
        ensure!(client.kind == CLIENT && client.name == server.name, "{client:?} caused {server:?}");
    }
    Ok(())
}
