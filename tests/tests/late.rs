//! The agent comes after the connections, or comes back.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use tests::agent::Agent;
use tests::expect::{Side, expect_pairs, undisturbed};
use tests::fixture::{Client, Language, Server};
use tests::needs;
use tests::plan::{self, Step};
use tests::scenario::{Peer, language};
use tests::span::{CLIENT, SERVER};
use tests::truth::Exchange;

fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos())?)
}

/// What began at `time` or later.
fn since(time: u64, exchanges: &[Exchange]) -> Vec<Exchange> {
    exchanges.iter().filter(|exchange| exchange.start >= time).cloned().collect()
}

/// Requests sent together by a client that pipelines.
const DEPTH: usize = 8;

/// 24 requests before the agent is there and 96 after it, over the same connections.
fn late(client: &str, server: &str, args: &[&str]) -> Result<()> {
    const BEFORE: usize = 24;
    const ALL: usize = 120;
    let peer = Peer::start(server)?;
    let gate = BEFORE.to_string();
    let args = [args, &["--gate", &gate]].concat();
    let mut caller = Client::start(language(client)?, &peer.base(), &plan::kept("l", ALL), &args)?;
    caller.at_gate()?;
    let agent = Agent::on(peer.port())?;
    let from = now()?;
    caller.open_gate()?;
    let done = since(from, &caller.finish()?);
    // nginx logs whole milliseconds: an exchange after the gate may seem to begin before it.
    let served = since(from - 2_000_000, &peer.truth(ALL)?);
    ensure!(done.len() == ALL - BEFORE && served.len() == ALL - BEFORE, "{} and {}", done.len(), served.len());
    let pipelined = args.contains(&"pipeline");
    if !pipelined {
        let spans = agent.stop_after(2 * done.len())?;
        return expect_pairs(&[Side::client(&done, peer.port()), peer.side(&served, false)], &spans);
    }
    // Which response belongs to which request is not certain where several may have been under way before the agent came:
    // four batches show that the client waits for all responses before it sends more. A server that reads a batch bit by
    // bit shows it earlier. What is said before is right.
    let (early, done) = done.split_at(4 * DEPTH);
    let is_early = |target: &str| early.iter().any(|exchange| exchange.target == target);
    let (served_early, served): (Vec<_>, Vec<_>) = served.into_iter().partition(|exchange| is_early(&exchange.target));
    let spans = agent.stop_after(2 * done.len())?;
    let (spans_early, spans): (Vec<_>, Vec<_>) =
        spans.into_iter().partition(|span| span.target().is_some_and(|target| is_early(&target)));
    expect_pairs(&[Side::client(early, peer.port()).lossy(), peer.side(&served_early, true).lossy()], &spans_early)?;
    expect_pairs(&[Side::client(done, peer.port()), peer.side(&served, true)], &spans)
}

#[test]
fn spans_from_the_next_request_on() -> Result<()> {
    needs!("root", "python", "node", "go", "nginx");
    let pairs = [("python", "python"), ("node", "node"), ("go", "go"), ("go", "nginx"), ("python", "go")];
    for (client, server) in pairs {
        late(client, server, &[]).map_err(|error| error.context(format!("{client} to {server}")))?;
    }
    Ok(())
}

/// All from the fifth batch on, and nothing wrong of those before.
#[test]
fn pipelined_spans_from_the_fifth_batch_on() -> Result<()> {
    needs!("root", "python", "node", "go", "nginx");
    for server in ["python", "node", "go", "nginx"] {
        late("python", server, &["--mode", "pipeline", "--depth", &DEPTH.to_string()]).context(server)?;
    }
    Ok(())
}

/// The agent attaches in the middle of an exchange: that one may be missing, the next ones not, and none is wrong.
#[test]
fn attached_in_the_middle_of_an_exchange() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        let server = Server::start(Language::Python)?;
        let mut steps = vec![Step::get("/slow/4000?id=slow")];
        steps.extend(plan::kept("after", 40));
        let caller = Client::start(Language::Python, &server.base(), &steps, &[])?;
        server.begun()?;
        let agent = Agent::on(server.port)?;
        ensure!(caller.done() == 0, "the agent took longer to start than the exchange lasts");
        let done = caller.finish()?;
        let served = server.truth(41)?;
        let spans = agent.stop_after(80)?;
        let (slow, rest): (Vec<_>, Vec<_>) =
            spans.into_iter().partition(|span| span.str("url.query") == Some("id=slow"));
        ensure!(slow.is_empty(), "the beginning of this exchange was not seen: {slow:?}");
        let after =
            |all: &[Exchange]| all.iter().filter(|e| !e.target.starts_with("/slow")).cloned().collect::<Vec<_>>();
        expect_pairs(&[Side::client(&after(&done), server.port), Side::server(&after(&served), server.port)], &rest)
    })
}

/// The agent is restarted while requests go on over kept connections.
#[test]
fn restarted_under_load() -> Result<()> {
    needs!("root", "python", "go");
    undisturbed(|| {
        let peer = Peer::start("go")?;
        let steps = plan::items("r", 50_000);
        let caller = Client::start(Language::Python, &peer.base(), &steps, &["--interval-us", "2000"])?;
        caller.does_more(50)?;
        let first = Agent::on(peer.port())?;
        first.wait_for_spans(200)?;
        first.stop()?;

        let started = now()?;
        let agent = Agent::on(peer.port())?;
        let ready = now()?;
        caller.does_more(200)?;
        let done = caller.stop()?;
        let served = peer.truth(done.len())?;
        let done = since(ready, &done);
        ensure!(done.len() >= 200, "only {} exchanges after the restart", done.len());
        let spans = agent.stop_after(2 * done.len())?;
        for kind in [CLIENT, SERVER] {
            let first = spans.iter().filter(|span| span.kind == kind).map(|span| span.start).min().unwrap_or(u64::MAX);
            let after = Duration::from_nanos(first.saturating_sub(started));
            ensure!(after < Duration::from_secs(1), "the first span of kind {kind} comes {after:?} after the start");
        }
        // What began between attaching and being ready may have spans as well. Both sides know an exchange by its target.
        let targets: std::collections::HashSet<_> = done.iter().map(|exchange| exchange.target.clone()).collect();
        let served: Vec<_> = served.into_iter().filter(|exchange| targets.contains(&exchange.target)).collect();
        let spans: Vec<_> =
            spans.into_iter().filter(|span| span.target().is_some_and(|t| targets.contains(&t))).collect();
        expect_pairs(&[Side::client(&done, peer.port()), peer.side(&served, false)], &spans)
    })
}
