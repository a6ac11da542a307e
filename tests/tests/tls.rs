//! HTTPS: N requests give exactly N client and N server spans, as in the clear, whichever library does the TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::expect::{Apart, Clock, Side, expect_pairs, undisturbed};
use tests::plan::{self, BIG, Step};
use tests::secure::{Service, call, client};
use tests::span::{CLIENT, SERVER, Span};
use tests::tls::Credentials;
use tests::truth::Exchange;
use tests::{env, needs, wait};

/// Requests of each client.
const N: usize = 24;
/// Each of another library: OpenSSL as a library, in the executable, by way of memory; Go's; rustls.
const CLIENTS: [&str; 8] = ["curl", "python", "requests", "httpx", "aiohttp", "node", "go", "rust"];
const MODES: [&str; 2] = ["keepalive", "close"];
/// What the targets of requests contain that do not count.
const WARM: &str = "warm";

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

/// Servers that are listening, each with its name.
type Services = Vec<(&'static str, Service)>;

fn start(servers: &[&'static str], credentials: &Credentials) -> Result<Services> {
    let start = |name: &&'static str| Ok((*name, Service::start(name, credentials)?));
    servers.iter().map(start).collect()
}

/// An agent that looks at all of them.
fn agent(services: &Services) -> Result<Agent> {
    let ports = services
        .iter()
        .fold(Builder::new().map(Builder::tls), |builder, (_, service)| Ok(builder?.port(service.port())));
    ports?.start()
}

/// Lets the agent find the programs: one that has not run before is hooked a moment after it was started, and what it says
/// until then is not seen. Each client calls the first server, and each server is called, until both ends have a span. What
/// is never seen, the comparison tells.
fn introduce(agent: &Agent, services: &Services, credentials: &Credentials, clients: &[&str]) -> Result<()> {
    for round in 0..3 {
        let tag = format!("{WARM}-{round}");
        let to_first = clients.iter().map(|&client| (client, &services[0].1, client));
        let to_each = services.iter().map(|(name, service)| ("curl", service, *name));
        let calls: Vec<_> = to_first.chain(to_each).collect();
        for (at, (client, service, name)) in calls.iter().enumerate() {
            let path = if *client == "wget" { "/big/1" } else { "/hello" };
            let step = Step::get(format!("{path}?id={tag}-{name}-{at}"));
            call(client, "keepalive", credentials, &service.base(), &[step])?;
        }
        let seen = || -> Result<Option<()>> {
            let of_round = with(&agent.spans()?, |target| target.contains(&tag));
            Ok((of_round.len() == 2 * calls.len()).then_some(()))
        };
        if wait::until(Duration::from_secs(3), "both ends of all are seen", seen).is_ok() {
            break;
        }
    }
    Ok(())
}

/// The spans whose target is `wanted`.
fn with(spans: &[Span], wanted: impl Fn(&str) -> bool) -> Vec<Span> {
    spans.iter().filter(|span| span.target().is_some_and(|target| wanted(&target))).cloned().collect()
}

/// Waits for `count` spans besides those of [`introduce`], and gives them after the agent's end.
fn spans(agent: Agent, count: usize) -> Result<Vec<Span>> {
    let counted = |spans: &[Span]| with(spans, |target| !target.contains(WARM));
    let all = || Ok((counted(&agent.spans()?).len() >= count).then_some(()));
    // Too few are better told of by the comparison that follows than by a deadline.
    if wait::until(Duration::from_secs(15), "all spans are there", all).is_err() {
        let counted = ["drop", "loss", "lost", "tls", "exchanges", "connections", "operations"];
        for sample in agent.metrics()?.0.iter().filter(|sample| sample.value > 0.0) {
            if counted.iter().any(|part| sample.name.contains(part)) {
                println!("{} {:?} {}", sample.name, sample.labels, sample.value);
            }
        }
    }
    Ok(counted(&agent.stop()?.spans))
}

/// What clients did at one server, and whose clocks tell.
struct Done {
    client: &'static str,
    exchanges: Vec<Exchange>,
}

/// Exactly the spans of what was done at a server.
fn compare(name: &str, service: &Service, done: &[Done], served: &[Exchange], spans: &[Span]) -> Result<()> {
    let port = i64::from(service.port());
    let here = |span: &&Span| [span.int("network.local.port"), span.int("network.peer.port")].contains(&Some(port));
    let spans: Vec<_> = spans.iter().filter(here).cloned().collect();
    // On a busy machine single spans are missing, or lack a size: what there is has to be right, and nearly all there.
    let mut sides = Vec::new();
    let mut count = served.len();
    for Done { client, exchanges } in done {
        let clock = if *client == "wget" { Clock::NONE } else { Clock::LOOSE };
        sides.push(Side::client(exchanges, service.port()).clocks(clock, clock).over_tls().lossy());
        count += exchanges.len();
    }
    sides.push(Side::server(served, service.port()).clocks(Clock::LOOSE, Clock::LOOSE).over_tls().lossy());
    if spans.len() * 100 < count * 98 {
        let mut seen = BTreeMap::<_, usize>::new();
        for span in &spans {
            let tag = span.target().unwrap_or_default();
            let tag = tag.split_once("id=").map_or("", |(_, tag)| tag.rsplit_once('-').map_or(tag, |(tag, _)| tag));
            *seen.entry((span.kind, tag.to_owned())).or_default() += 1;
        }
        anyhow::bail!("{} spans of {count} at {name}, by kind and client: {seen:?}", spans.len());
    }
    expect_pairs(&sides, &spans)?;
    for span in &spans {
        let version = if span.target().is_some_and(|target| is_h2(&target)) { "2" } else { "1.1" };
        ensure!(span.str("network.protocol.version") == Some(version), "{span:?}");
    }
    joined(&spans)
}

/// Whether it was asked for by HTTP/2, as the tag in the target says.
fn is_h2(target: &str) -> bool {
    target.contains("-h2-")
}

/// Server spans are children of the client span of the same request: none of another one, and nearly all have it.
fn joined(spans: &[Span]) -> Result<()> {
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    let (mut servers, mut alone) = (0, 0);
    for server in spans.iter().filter(|span| span.kind == SERVER) {
        servers += 1;
        match by_id.get(server.parent_span_id.as_str()) {
            Some(client) => {
                ensure!(client.kind == CLIENT && client.target() == server.target(), "{client:?} caused {server:?}");
            }
            None => alone += 1,
        }
    }
    ensure!(alone * 100 <= servers * 3, "{alone} of {servers} server spans without their parent");
    Ok(())
}

/// All that is wrong, by server. Times that are apart stay what they are, if nothing else is wrong.
fn verdict(results: Vec<(&str, Result<()>)>) -> Result<()> {
    let failed = results.into_iter().filter_map(|(name, result)| Some((name, result.err()?))).collect::<Vec<_>>();
    let (apart, wrong): (Vec<_>, Vec<_>) = failed.into_iter().partition(|(_, error)| error.is::<Apart>());
    if wrong.is_empty() {
        return apart
            .into_iter()
            .next()
            .map_or(Ok(()), |(name, error)| Err(error.context(format!("the server is {name}"))));
    }
    let lines = wrong.iter().map(|(name, error)| format!("the server is {name}: {error:#}"));
    anyhow::bail!("{}", lines.collect::<Vec<_>>().join("\n"))
}

/// Each server with each of its clients, one after the other, with one agent looking on.
#[test]
fn every_server_and_client() -> Result<()> {
    needs!("root", "venv", "node", "go", "nginx", "curl", "wget");
    const SERVERS: [&str; 8] = ["nginx", "python", "node", "go", "go-stripped", "rust", "gunicorn", "uvicorn"];
    let credentials = Credentials::new()?;
    undisturbed(|| {
        let services = start(&SERVERS, &credentials)?;
        let agent = agent(&services)?;
        introduce(&agent, &services, &credentials, &[&CLIENTS[..], &["wget"]].concat())?;
        let (mut all, mut count) = (Vec::new(), 0);
        for (name, service) in &services {
            let runs = match *name {
                "nginx" | "rust" => {
                    let mut runs = all_of(&[&CLIENTS[..], &["wget"]].concat());
                    runs.extend([run("curl", "h2"), run("rust", "h2")]);
                    runs
                }
                "go-stripped" | "gunicorn" | "uvicorn" => all_of(&["curl", "python", "go"]),
                _ => all_of(&CLIENTS),
            };
            let mut done = Vec::new();
            for Run { client, mode, steps } in runs {
                let exchanges = call(client, mode, &credentials, &service.base(), &steps);
                let exchanges = exchanges.with_context(|| format!("{client} to {name}, {mode}"))?;
                count += exchanges.len();
                done.push(Done { client, exchanges });
            }
            all.push(done);
        }
        let served =
            services.iter().zip(&all).map(|((_, service), done)| served(service, done)).collect::<Result<Vec<_>>>()?;
        let spans = spans(agent, 2 * count)?;
        let results = services.iter().zip(&all).zip(&served);
        verdict(
            results
                .map(|(((name, service), done), served)| (*name, compare(name, service, done, served, &spans)))
                .collect(),
        )
    })
}

/// What the server says of what the clients did.
fn served(service: &Service, done: &[Done]) -> Result<Vec<Exchange>> {
    let targets: BTreeSet<_> = done.iter().flat_map(|done| &done.exchanges).map(|exchange| &exchange.target).collect();
    let what = format!("{} exchanges in the server's log", targets.len());
    wait::until(Duration::from_secs(10), &what, || {
        let mut served = service.truth(targets.len())?;
        served.retain(|exchange| targets.contains(&exchange.target));
        Ok((served.len() >= targets.len()).then_some(served))
    })
}

/// How many requests of a session that is older than the agent may go unseen: the first, which a server may receive by a call into
/// its library that it made before that was hooked; of a client of Go also the second, since the first one's response is
/// received so, and a gap stays where it was.
fn unseen(client: &str) -> usize {
    if client == "go" { 2 } else { 1 }
}

/// Sessions whose handshake the agent has not seen: all other requests from then on have their spans.
#[test]
fn sessions_older_than_the_agent() -> Result<()> {
    needs!("root", "venv", "node", "go", "nginx", "curl");
    const SERVERS: [&str; 5] = ["nginx", "python", "node", "go", "rust"];
    const BEFORE: usize = 8;
    let credentials = Credentials::new()?;
    undisturbed(|| {
        let services = start(&SERVERS, &credentials)?;
        let gate = ["--gate", &BEFORE.to_string()];
        // Each client with two servers, each server with two or more clients.
        let mut clients = Vec::new();
        for (at, &name) in CLIENTS[1..].iter().enumerate() {
            for server in [at % SERVERS.len(), (at + 2) % SERVERS.len()] {
                let mut steps = plan::kept(&format!("{name}-old-{server}"), N);
                for at in 0..unseen(name) {
                    steps[BEFORE + at] = Step::get(format!("/hello?{WARM}-{name}-{server}-{at}"));
                }
                let base = services[server].1.base();
                clients.push((name, server, client(name, &credentials, &base, &steps, &gate)?));
            }
        }
        for (_, _, client) in &clients {
            client.at_gate()?;
        }
        let agent = agent(&services)?;
        introduce(&agent, &services, &credentials, &CLIENTS)?;
        let mut all: Vec<Vec<Done>> = services.iter().map(|_| Vec::new()).collect();
        let mut count = 0;
        for (client, server, mut process) in clients {
            process.open_gate()?;
            let exchanges = process.finish()?.split_off(BEFORE + unseen(client));
            count += exchanges.len();
            all[server].push(Done { client, exchanges });
        }
        let served =
            services.iter().zip(&all).map(|((_, service), done)| served(service, done)).collect::<Result<Vec<_>>>()?;
        let spans = spans(agent, 2 * count)?;
        let results = services.iter().zip(&all).zip(&served);
        verdict(
            results
                .map(|(((name, service), done), served)| (*name, compare(name, service, done, served, &spans)))
                .collect(),
        )
    })
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
