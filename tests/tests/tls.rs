//! HTTPS: N requests give exactly N client and N server spans, as in the clear, whichever library does the TLS.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use tests::agent::Agent;
use tests::expect::{Clock, Side, expect_pairs, undisturbed};
use tests::plan::{self, BIG, Step};
use tests::secure::{Service, call, client};
use tests::span::{CLIENT, SERVER, Span};
use tests::tls::Credentials;
use tests::truth::Exchange;
use tests::{env, needs};

/// Requests of each client.
const N: usize = 24;
/// Each of another library: OpenSSL as a library, in the executable, by way of memory; Go's; rustls.
const CLIENTS: [&str; 8] = ["curl", "python", "requests", "httpx", "aiohttp", "node", "go", "rust"];
const MODES: [&str; 2] = ["keepalive", "close"];

/// What one client does in one mode, by a tag that its targets have.
struct Run {
    client: &'static str,
    mode: &'static str,
    steps: Vec<Step>,
}

fn run(client: &'static str, mode: &'static str) -> Run {
    let tag = format!("{client}-{mode}");
    let big = |i: usize| Step::get(format!("/big/{}?id={tag}-{i}", BIG[i % BIG.len()]));
    let steps = if client == "wget" { (0..N).map(big).collect() } else { plan::mixed(&tag, N) };
    Run { client, mode, steps }
}

fn all_of(clients: &[&'static str]) -> Vec<Run> {
    clients.iter().flat_map(|&client| MODES.map(|mode| run(client, mode))).collect()
}

/// The clients one after the other against one server, with the agent looking on.
fn https(server: &str, runs: &[Run]) -> Result<()> {
    needs!("root", "venv", "node", "go", "nginx", "curl", "wget");
    let credentials = Credentials::new()?;
    let check = || {
        let service = Service::start(server, &credentials)?;
        let agent = Agent::on(service.port())?;
        let mut done = Vec::new();
        for Run { client, mode, steps } in runs {
            let told = call(client, mode, &credentials, &service.base(), steps);
            done.push(told.with_context(|| format!("{client} to {server}, {mode}"))?);
        }
        let count: usize = done.iter().map(Vec::len).sum();
        let served = service.truth(count)?;
        let spans = agent.stop_after(2 * count)?;
        let clock = |run: &Run| if run.client == "wget" { Clock::NONE } else { Clock::LOOSE };
        let mut sides: Vec<_> = runs
            .iter()
            .zip(&done)
            .map(|(run, done)| Side::client(done, service.port()).clocks(clock(run), clock(run)).over_tls())
            .collect();
        sides.push(side_of(&service, &served));
        expect_pairs(&sides, &spans)?;
        for span in &spans {
            let is_h2 = span.target().is_some_and(|target| target.contains("-h2-"));
            let version = if is_h2 { "2" } else { "1.1" };
            ensure!(span.str("network.protocol.version") == Some(version), "{span:?}");
        }
        joined(&spans)
    };
    undisturbed(check).with_context(|| format!("the server is {server}"))
}

fn side_of<'a>(service: &Service, served: &'a [Exchange]) -> Side<'a> {
    Side::server(served, service.port()).clocks(Clock::LOOSE, Clock::LOOSE).over_tls()
}

/// Each server span is the child of the client span of the same request.
fn joined(spans: &[Span]) -> Result<()> {
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    for server in spans.iter().filter(|span| span.kind == SERVER) {
        let client = by_id.get(server.parent_span_id.as_str()).with_context(|| format!("no parent: {server:?}"))?;
        ensure!(client.kind == CLIENT && client.target() == server.target(), "{client:?} caused {server:?}");
    }
    Ok(())
}

macro_rules! servers {
    ($($name:ident: $server:literal, $runs:expr;)*) => {
        $(#[test] fn $name() -> Result<()> { https($server, &$runs) })*
    };
}

servers! {
    nginx: "nginx", all_of(&[&CLIENTS[..], &["wget"]].concat());
    python: "python", all_of(&CLIENTS);
    node: "node", all_of(&CLIENTS);
    go: "go", all_of(&CLIENTS);
    go_stripped: "go-stripped", all_of(&["curl", "go"]);
    rust: "rust", all_of(&[&CLIENTS[..], &["wget"]].concat());
    gunicorn: "gunicorn", all_of(&["curl", "python", "go"]);
    uvicorn: "uvicorn", all_of(&["curl", "python", "go"]);
    http2_of_nginx: "nginx", [run("curl", "h2"), run("rust", "h2")];
    http2_of_rust: "rust", [run("curl", "h2"), run("rust", "h2")];
}

/// Sessions whose handshake the agent has not seen: all requests from then on have their spans.
#[test]
fn sessions_older_than_the_agent() -> Result<()> {
    needs!("root", "venv", "node", "go", "nginx");
    const BEFORE: usize = 8;
    let credentials = Credentials::new()?;
    for server in ["nginx", "python", "node", "go", "rust"] {
        let check = || {
            let service = Service::start(server, &credentials)?;
            let gate = ["--gate", &BEFORE.to_string()];
            let start = |name: &&str| {
                client(name, &credentials, &service.base(), &plan::kept(&format!("{name}-old"), N), &gate)
            };
            let mut clients = CLIENTS[1..].iter().map(start).collect::<Result<Vec<_>>>()?;
            for client in &clients {
                client.at_gate()?;
            }
            let before = clients.len() * BEFORE;
            service.truth(before)?;
            let agent = Agent::on(service.port())?;
            let mut done = Vec::new();
            for mut client in clients.drain(..) {
                client.open_gate()?;
                done.push(client.finish()?.split_off(BEFORE));
            }
            let count: usize = done.iter().map(Vec::len).sum();
            let served = service.truth(before + count)?.split_off(before);
            let spans = agent.stop_after(2 * count)?;
            let loose = |done| Side::client(done, service.port()).clocks(Clock::LOOSE, Clock::LOOSE).over_tls();
            let mut sides: Vec<_> = done.iter().map(|done| loose(done)).collect();
            sides.push(side_of(&service, &served));
            expect_pairs(&sides, &spans)?;
            joined(&spans)
        };
        undisturbed(check).with_context(|| format!("the server is {server}"))?;
    }
    Ok(())
}

/// The servers and clients among each other, without the agent: what one says it did, the other says too.
#[test]
fn servers_and_clients_agree() -> Result<()> {
    needs!("venv", "node", "go", "nginx", "curl", "wget");
    ensure!(env::beside("rustls").is_file(), "the fixture in Rust is a program of this package");
    let credentials = Credentials::new()?;
    for server in ["nginx", "python", "node", "go", "go-stripped", "rust", "gunicorn", "uvicorn"] {
        // All clients with one of them.
        let mut runs = if server == "go" { all_of(&CLIENTS) } else { all_of(&["curl"]) };
        if matches!(server, "nginx" | "rust") {
            runs.extend([run("wget", "keepalive"), run("curl", "h2"), run("rust", "h2")]);
        }
        let service = Service::start(server, &credentials)?;
        let mut done = Vec::new();
        for Run { client, mode, steps } in &runs {
            let told = call(client, mode, &credentials, &service.base(), steps);
            done.extend(told.with_context(|| format!("{client} to {server}, {mode}"))?);
        }
        let (done, served) = (facts(&done), facts(&service.truth(done.len())?));
        for (client, server) in done.iter().zip(&served) {
            ensure!(client == server, "client {client:?}\nserver {server:?}");
        }
        ensure!(done.len() == served.len(), "{} and {} exchanges with {server}", done.len(), served.len());
    }
    Ok(())
}

/// Target, method, status, octets sent and received of each, in order.
fn facts(exchanges: &[Exchange]) -> Vec<(String, String, Option<u16>, u64, u64)> {
    let fact = |e: &Exchange| (e.target.clone(), e.method.clone(), e.status, e.request_body, e.response_body);
    let mut facts: Vec<_> = exchanges.iter().map(fact).collect();
    facts.sort_unstable();
    facts
}
