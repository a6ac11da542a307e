//! Connections of HTTP/2 that are older than the agent, and whose clients sent once what they refer to ever since: what it means is in
//! the memory of the processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::fixture::Language;
use tests::grpc::Stack;
use tests::needs;
use tests::process::Process;
use tests::span::{CLIENT, SERVER, Span, of_kind};
use tests::streams::{DEADLINE, Server, call_again, joined, told};
use tests::tls::Credentials;
use tests::wait;

/// Requests before the agent, and with it for each of those under way at the same time; how many different ones there are.
const BEFORE: usize = 24;
const AFTER: usize = 500;
const DISTINCT: usize = 12;
/// By then all has to be known, also on a loaded machine: at its start the agent hooks TLS libraries as well, some 0.1 s for each file.
const SOON: Duration = Duration::from_secs(4);

fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos())?)
}

/// What an agent tells of a connection whose client goes on by `go`.
struct Told {
    /// When that was.
    from: u64,
    spans: Vec<Span>,
    /// Tables that it has read.
    read: f64,
    /// Exchanges that it counts as lost while it did not know yet where frames begin.
    lost: usize,
}

/// Waits for so many spans at least. The hooks that were needed for a moment are gone by the end.
fn watch(agent: Agent, mut client: Process, count: usize) -> Result<Told> {
    let from = now()?;
    client.tell("go")?;
    client.succeed(DEADLINE)?;
    agent.wait_for_spans(count)?;
    wait::until(Duration::from_secs(5), "nothing is hooked any more", || {
        Ok((agent.metrics()?.total("remora_header_table_files", &[])? < 0.5).then_some(()))
    })?;
    let metrics = agent.metrics()?;
    let tables = |what| metrics.total("remora_connection_observations_total", &[("what", what)]);
    let (read, refused) = (tables("header_tables_read")?, tables("header_tables_refused")?);
    println!("{read} tables were read, {refused} were refused");
    let lost = metrics.total("remora_exchanges_lost_total", &[("reason", "resynchronised")])? as usize;
    Ok(Told { from, spans: agent.stop()?.spans, read, lost })
}

/// What is known of a span is as the truth has it. Whether its method and target are.
fn right(span: &Span) -> Result<bool> {
    let target = span.target();
    if let Some(target) = &target {
        let i: usize = target.rsplit('/').next().context("no number")?.parse()?;
        let truth = told(i);
        ensure!(i < DISTINCT && *target == truth.1, "{span:?}");
        ensure!(span.method().is_none_or(|method| method == truth.0), "{span:?}");
        ensure!(span.status_code().is_none_or(|status| status == truth.2), "{span:?}");
        ensure!(span.int("http.request.body.size").is_none_or(|size| size == truth.3), "{span:?}");
        ensure!(span.int("http.response.body.size").is_none_or(|size| size == truth.4), "{span:?}");
    }
    Ok(target.is_some() && span.method().is_some())
}

/// All requests that begin `SOON` after the gate are known in full on both sides, and before that nothing wrong is told.
fn requests(client: Language, language: Language, streams: usize, credentials: Option<&Credentials>) -> Result<()> {
    let after = AFTER * streams;
    let server = Server::of_with(language, credentials)?;
    let caller = call_again(client, &server, DISTINCT, BEFORE + after, streams, BEFORE)?;
    ensure!(caller.line(DEADLINE)? == "gate", "not at the gate");
    let agent = Builder::new()?.tls().port(server.port).start()?;
    // Under TLS a goroutine was in the library's function before that was hooked: what it reads first is not seen, and perhaps not all
    // of a frame that goes on in what it reads next.
    // In the clear one may be missing at both ends, as long as it is counted.
    let unseen = if credentials.is_some() { 4 * streams } else { 1 };
    let Told { from, spans, read, lost } = watch(agent, caller, 2 * (after - unseen))?;
    ensure!(read > 0.5, "no table was read");
    let missing = 2 * after - spans.len();
    ensure!(credentials.is_some() || missing <= lost, "{missing} are missing, {lost} are lost");
    let is_soon = |span: &Span| span.start < from + SOON.as_nanos() as u64;
    for kind in [CLIENT, SERVER] {
        let spans = of_kind(&spans, kind);
        ensure!((after - unseen..=after).contains(&spans.len()), "{} spans of kind {kind}", spans.len());
        let mut unknown = 0;
        for span in &spans {
            // Go's server encodes and sends in different goroutines, and under TLS its client's end tells it nothing.
            let named = right(span)?;
            let answers_unknown = kind == SERVER && credentials.is_some();
            let known = named && (answers_unknown || !span.attributes.contains_key("remora.partial"));
            unknown += usize::from(!known);
            ensure!(known || is_soon(span), "{span:?}");
        }
        println!("{client:?} to {language:?}, {streams} streams, kind {kind}: {unknown} of {after} in part");
    }
    // Of one that began just then the parent began before.
    let clients: Vec<_> = of_kind(&spans, CLIENT).into_iter().filter(|span| !is_soon(span)).collect();
    let ids: Vec<_> = clients.iter().map(|span| span.span_id.clone()).collect();
    let children = of_kind(&spans, SERVER).into_iter().filter(|span| ids.contains(&span.parent_span_id));
    joined(&children.chain(clients).collect::<Vec<_>>())
}

#[test]
fn nothing_stays_unknown_in_go() -> Result<()> {
    needs!("root", "go");
    for streams in [1, 4] {
        requests(Language::Go, Language::Go, streams, None).with_context(|| format!("{streams} streams"))?;
    }
    Ok(())
}

#[test]
fn nothing_stays_unknown_in_node() -> Result<()> {
    needs!("root", "go", "node");
    for (client, server) in
        [(Language::Go, Language::Node), (Language::Node, Language::Go), (Language::Node, Language::Node)]
    {
        requests(client, server, 2, None).with_context(|| format!("{client:?} to {server:?}"))?;
    }
    Ok(())
}

#[test]
fn nothing_stays_unknown_under_tls() -> Result<()> {
    needs!("root", "go", "openssl");
    requests(Language::Go, Language::Go, 2, Some(&Credentials::new()?))
}

/// Without hooks in processes all is as it was: some of it is not known, and nothing is wrong.
#[test]
fn no_function_is_hooked_where_none_may_be() -> Result<()> {
    needs!("root", "go");
    let server = Server::of(Language::Go)?;
    let caller = call_again(Language::Go, &server, DISTINCT, BEFORE + AFTER, 1, BEFORE)?;
    ensure!(caller.line(DEADLINE)? == "gate", "not at the gate");
    let Told { spans, read, .. } = watch(Builder::new()?.port(server.port).start()?, caller, 2 * AFTER)?;
    ensure!(read < 0.5, "{read} tables were read");
    for span in &spans {
        ensure!(right(span)? || span.attributes.contains_key("remora.partial"), "{span:?}");
    }
    ensure!(spans.iter().all(|span| span.target().is_none()), "Go sends a path once");
    Ok(())
}

/// Each call of grpc-go has a deadline of its own, so that its table changes with each, and puts out what is old.
#[test]
fn calls_of_grpc_are_named() -> Result<()> {
    needs!("root", "go");
    const COUNT: usize = 250;
    let (_server, port) = Stack::GrpcGo.serve(Path::new("none"))?;
    let client = Stack::wait_at_gate(port, COUNT)?;
    let agent = Builder::new()?.tls().port(port).start()?;
    let Told { from, spans, read, .. } = watch(agent, client, 4 * COUNT - 2)?;
    ensure!(read > 0.5, "no table was read");
    for kind in [CLIENT, SERVER] {
        let mut found: BTreeMap<_, usize> = BTreeMap::new();
        for span in of_kind(&spans, kind) {
            let method = span.str("rpc.method").map(str::to_owned);
            let known = method.is_some() && !span.attributes.contains_key("remora.partial");
            ensure!(known || span.start < from + SOON.as_nanos() as u64, "{span:?}");
            let status = span.str("rpc.response.status_code").map(str::to_owned);
            let expected = match method.as_deref() {
                Some("test.v1.Echo/Unary") => "OK",
                Some("test.v1.Echo/Fail") => "NOT_FOUND",
                None => continue,
                Some(other) => anyhow::bail!("{other}: {span:?}"),
            };
            ensure!(status.as_deref().is_none_or(|status| status == expected), "{span:?}");
            *found.entry(method).or_default() += 1;
        }
        println!("kind {kind}: {found:?}");
        ensure!(found.values().all(|calls| *calls > COUNT / 8), "kind {kind}: {found:?}");
    }
    Ok(())
}
