//! Do no harm: the agent may be killed or stand still under load, and nobody notices.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::agent::{Agent, Builder};
use tests::fixture::{Client, Language, Relay, Server};
use tests::nginx::Nginx;
use tests::plan;
use tests::process::Process;
use tests::scenario::Peer;
use tests::truth::Exchange;
use tests::{env, needs};

/// Every exchange was answered as planned: `/item/` always by 200.
fn unharmed(done: &[Exchange]) -> Result<()> {
    let harmed: Vec<_> =
        done.iter().filter(|exchange| exchange.error.is_some() || exchange.status != Some(200)).collect();
    ensure!(harmed.is_empty(), "{} of {} requests failed: {:?}", harmed.len(), done.len(), harmed.first());
    Ok(())
}

#[test]
fn killed_under_load() -> Result<()> {
    needs!("root", "python", "node", "go", "nginx");
    for server in ["nginx", "python", "node", "go"] {
        let peer = Peer::start(server)?;
        let clients = [(Language::Go, "keepalive"), (Language::Go, "close"), (Language::Python, "keepalive")];
        let pace = ["--interval-us", "300", "--mode"];
        let started: Result<Vec<_>> = clients
            .iter()
            .map(|(language, mode)| {
                Client::start(*language, &peer.base(), &plan::items(mode, 200_000), &[&pace[..], &[mode]].concat())
            })
            .collect();
        let clients = started?;
        for _ in 0..3 {
            let agent = Agent::on(peer.port())?;
            agent.wait_for_spans(500)?;
            agent.kill()?;
            for client in &clients {
                client.does_more(20)?;
            }
        }
        for client in clients {
            unharmed(&client.stop()?)?;
        }
    }
    Ok(())
}

#[test]
fn octets_are_the_same_with_and_without() -> Result<()> {
    needs!("root", "python");
    let server = Server::start(Language::Python)?;
    let relay = Relay::start(server.port)?;
    let base = format!("http://127.0.0.1:{}", relay.port);
    let steps = plan::mixed("o", 600);
    let run = || Client::run(Language::Python, &base, &steps, &["--interval-us", "1000"]);
    run()?;

    let agent = Builder::new()?.port(server.port).port(relay.port).start()?;
    run()?;
    agent.wait_for_spans(600)?;

    let client = Client::start(Language::Python, &base, &steps, &["--interval-us", "1000"])?;
    client.does_more(200)?;
    agent.kill()?;
    client.finish()?;

    let (without, with, killed) = (relay.octets(0)?, relay.octets(1)?, relay.octets(2)?);
    ensure!(without.0.len() > 50_000 && without.1.len() > 50_000, "hardly anything crossed the relay");
    ensure!(with == without, "octets differ with the agent");
    ensure!(killed == without, "octets differ when the agent is killed");
    Ok(())
}

/// At saturation, the agent on the same processors.
#[test]
fn killed_at_saturation() -> Result<()> {
    needs!("root", "nginx", "wrk");
    let nginx = Nginx::start(None)?;
    let mut wrk = Command::new(env::which("wrk").unwrap_or_default());
    let load = Process::spawn(wrk.args(["-t1", "-c16", "-d4s"]).arg(format!("{}/hello", nginx.base())))?;
    let agent = Agent::on(nginx.port)?;
    agent.wait_for_spans(1000)?;
    agent.kill()?;
    let said = load.succeed(Duration::from_secs(30))?.join("\n");
    let requests = said.lines().find(|line| line.contains("requests in")).unwrap_or("0 requests");
    let count: u64 = requests.split_whitespace().next().unwrap_or("0").parse()?;
    ensure!(count > 1000, "wrk did next to nothing: {said}");
    // wrk has these lines only when there is something to tell.
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    Ok(())
}

/// An agent that does not run, and whose rings therefore fill, holds nobody up.
#[test]
fn a_standing_agent_holds_nobody_up() -> Result<()> {
    needs!("root", "go");
    let server = Server::start(Language::Go)?;
    let agent = Builder::new()?.port(server.port).args(&["--segment-ring", "65536"]).start()?;
    agent.signal(Signal::SIGSTOP)?;
    let done = Client::run(Language::Go, &server.base(), &plan::items("s", 5000), &[]);
    agent.signal(Signal::SIGCONT)?;
    unharmed(&done?)?;
    agent.stop().map(drop)
}
