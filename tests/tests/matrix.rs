//! Completeness: N requests give exactly N client and N server spans, with the values that both sides logged.

use anyhow::Result;
use tests::agent::{Agent, Builder};
use tests::expect::{Clock, Side, expect_pairs, undisturbed};
use tests::fixture::{Language, Server};
use tests::needs;
use tests::nginx::Nginx;
use tests::plan::{self, Step};
use tests::scenario::{Peer, call};
use tests::truth::Exchange;

/// Requests of each run.
const N: usize = 200;

/// One client against one server, in each of `modes`.
fn matrix(client: &str, server: &str, modes: &[&str]) -> Result<()> {
    needs!("root", "python", "node", "go", "nginx", "curl");
    for mode in modes {
        run(client, server, mode, N).map_err(|error| error.context(format!("{client} to {server}, {mode}")))?;
    }
    Ok(())
}

fn run(client: &str, server: &str, mode: &str, count: usize) -> Result<()> {
    undisturbed(|| {
        let peer = Peer::start(server)?;
        let agent = Agent::on(peer.port())?;
        let done = call(client, mode, &peer.base(), &plan::mixed("m", count))?;
        let served = peer.truth(count)?;
        let spans = agent.stop_after(2 * count)?;
        let callers = match mode {
            // The log's start comes before the connection that fetch takes by itself.
            "fetch" => Side::client(&done, peer.port()).clocks(Clock::LOOSE, Clock::LOOSE),
            _ if client == "curl" => Side::client(&done, peer.port()).clocks(Clock::RECKONED, Clock::RECKONED),
            _ => Side::client(&done, peer.port()),
        };
        expect_pairs(&[callers, peer.side(&served, mode == "pipeline")], &spans)
    })
}

macro_rules! cells {
    ($($name:ident: $client:literal => $server:literal, $modes:expr;)*) => {
        $(#[test] fn $name() -> Result<()> { matrix($client, $server, &$modes) })*
    };
}

const BOTH: [&str; 2] = ["keepalive", "close"];

cells! {
    curl_to_nginx: "curl" => "nginx", BOTH;
    curl_to_python: "curl" => "python", BOTH;
    curl_to_node: "curl" => "node", BOTH;
    curl_to_go: "curl" => "go", BOTH;
    python_to_nginx: "python" => "nginx", ["keepalive", "close", "pipeline"];
    python_to_python: "python" => "python", ["keepalive", "close", "pipeline"];
    python_to_node: "python" => "node", ["keepalive", "close", "pipeline"];
    python_to_go: "python" => "go", ["keepalive", "close", "pipeline"];
    node_to_nginx: "node" => "nginx", BOTH;
    node_to_python: "node" => "python", BOTH;
    node_to_node: "node" => "node", ["keepalive", "close", "fetch"];
    node_to_go: "node" => "go", BOTH;
    go_to_nginx: "go" => "nginx", BOTH;
    go_to_python: "go" => "python", BOTH;
    go_to_node: "go" => "node", BOTH;
    go_to_go: "go" => "go", BOTH;
}

#[test]
fn frameworks() -> Result<()> {
    needs!("root", "venv");
    run("python", "flask", "keepalive", N)?;
    run("python", "fastapi", "keepalive", N)
}

/// Each octet of each request in a segment of its own.
#[test]
fn split_requests() -> Result<()> {
    needs!("root", "python", "node", "go", "nginx");
    for server in ["python", "node", "go", "nginx"] {
        run("python", server, "split", 24).map_err(|error| error.context(server))?;
    }
    Ok(())
}

/// A process that is server and client at once: four spans a request.
#[test]
fn nginx_as_a_proxy() -> Result<()> {
    needs!("root", "python", "curl", "nginx");
    undisturbed(|| {
        let behind = Server::start(Language::Python)?;
        let nginx = Nginx::start(Some(behind.port))?;
        let agent = Builder::new()?.port(nginx.port).port(behind.port).start()?;
        let through = |step: Step| Step { target: format!("/proxy{}", step.target), ..step };
        // nginx's log counts the framing of chunked bodies as content.
        let steps = plan::mixed("p", N).into_iter().filter(|step| !step.target.starts_with("/chunked"));
        let steps: Vec<_> = steps.map(through).collect();
        let count = steps.len();
        let done = call("curl", "keepalive", &nginx.base(), &steps)?;
        let in_front = nginx.truth(count)?;
        let served = behind.truth(count)?;
        // nginx logs nothing of its own requests: they are what the server behind it saw, sent by the worker.
        let worker = in_front.first().map_or(0, |exchange| exchange.pid);
        let passed_on: Vec<_> = served.iter().map(|exchange| Exchange { pid: worker, ..exchange.clone() }).collect();
        let spans = agent.stop_after(4 * count)?;
        expect_pairs(
            &[
                Side::client(&done, nginx.port).clocks(Clock::RECKONED, Clock::RECKONED),
                Side::server(&in_front, nginx.port).clocks(Clock::MILLISECONDS, Clock::MILLISECONDS),
                Side::client(&passed_on, behind.port).clocks(Clock::MILLISECONDS, Clock::MILLISECONDS),
                Side::server(&served, behind.port),
            ],
            &spans,
        )
    })
}
