//! Nothing is lost in silence: what was observed was exported or counted as dropped.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::agent::{Agent, Builder};
use tests::expect::{Clock, Side, expect_pairs, undisturbed};
use tests::fixture::{Client, Language, Server};
use tests::truth::Exchange;
use tests::{names, needs, plan, wait};

/// A pause after each request.
const PACE: [&str; 2] = ["--interval-us", "1000"];

#[test]
fn a_ring_too_small() -> Result<()> {
    needs!("root", "go");
    undisturbed(|| {
        let server = Server::start(Language::Go)?;
        let agent = Builder::new()?.port(server.port).args(&["--segment-ring", "65536"]).start()?;
        // While it stands still nothing is read: what does not fit into 64 KiB must be lost, whatever the machine's speed.
        agent.signal(Signal::SIGSTOP)?;
        let first = Client::run(Language::Go, &server.base(), &plan::mixed("lost", 2000), &[]);
        agent.signal(Signal::SIGCONT)?;
        let mut done = first?;
        let dropped = balance(&agent)?;
        ensure!(dropped > 0.0, "2000 requests fit into 64 KiB");
        // Afterwards it goes on as if nothing had been, at a pace for which even such a ring is enough.
        let after = Client::run(Language::Go, &server.base(), &plan::items("after", 200), &PACE)?;
        let served = server.truth(2200)?;
        let again = balance(&agent)?;
        ensure!((again - dropped).abs() < 0.5, "{} more records dropped after the loss", again - dropped);
        done.extend_from_slice(&after);
        let spans_of_after = wait::until(Duration::from_secs(10), "spans of the requests after the loss", || {
            let spans = agent.spans()?;
            let of_after: Vec<_> =
                spans.into_iter().filter(|s| s.str("url.query").is_some_and(|q| q.contains("after-"))).collect();
            Ok((of_after.len() >= 400).then_some(of_after))
        })?;
        let only_after = |all: &[Exchange]| -> Vec<_> {
            all.iter().filter(|exchange| exchange.target.contains("after-")).cloned().collect()
        };
        let served_after = only_after(&served);
        expect_pairs(&[Side::client(&after, server.port), Side::server(&served_after, server.port)], &spans_of_after)?;

        let stopped = agent.stop()?;
        ensure!(
            stopped.stderr.contains(names::SEGMENT_RING_FULL),
            "the loss is not told of on exit: {}",
            stopped.stderr
        );
        // Right or unknown, never wrong: what is left of the lossy part is a part of what happened.
        let none = Clock::NONE;
        expect_pairs(
            &[
                Side::client(&done, server.port).lossy().clocks(none, none),
                Side::server(&served, server.port).lossy().clocks(none, none),
            ],
            &stopped.spans,
        )
    })
}

/// A connection on which octets were lost is followed again. The exchange that shows the loss may be missing: that its
/// response is not among what was lost cannot be known.
#[test]
fn the_connection_goes_on_after_a_loss() -> Result<()> {
    undisturbed(|| {
        const BEFORE: usize = 1500;
        const AFTER: usize = 160;
        needs!("root", "python");
        let server = Server::start(Language::Python)?;
        let agent = Builder::new()?.port(server.port).args(&["--segment-ring", "65536"]).start()?;
        let mut steps = plan::items("lost", BEFORE);
        steps.extend(plan::items("after", AFTER));
        let gate = BEFORE.to_string();
        let args = [&PACE[..], &["--mode", "raw", "--gate", &gate]].concat();
        let mut client = Client::start(Language::Python, &server.base(), &steps, &args)?;
        agent.signal(Signal::SIGSTOP)?;
        let at_gate = client.at_gate();
        agent.signal(Signal::SIGCONT)?;
        at_gate?;
        let dropped = balance(&agent)?;
        ensure!(dropped > 0.0, "nothing was lost");
        client.open_gate()?;
        let done = client.finish()?;
        let served = server.truth(BEFORE + AFTER)?;
        let again = balance(&agent)?;
        ensure!((again - dropped).abs() < 0.5, "{} more records dropped after the loss", again - dropped);
        let _ = wait::until(Duration::from_secs(10), "the spans after the loss", || {
            let after = agent
                .spans()?
                .iter()
                .filter(|span| span.str("url.query").is_some_and(|q| q.contains("after-")))
                .count();
            Ok((after >= 2 * AFTER).then_some(()))
        });
        let spans = agent.stop()?.spans;
        let is_after = |query: Option<&str>| query.is_some_and(|query| query.contains("after-"));
        let (after, lost): (Vec<_>, Vec<_>) = spans.into_iter().partition(|span| is_after(span.str("url.query")));
        let split = |all: &[Exchange]| -> (Vec<Exchange>, Vec<Exchange>) {
            all.iter().cloned().partition(|exchange| is_after(Some(&exchange.target)))
        };
        let ((done_after, done_lost), (served_after, served_lost)) = (split(&done), split(&served));
        let port = server.port;
        let first = |query: Option<&str>| query.is_some_and(|query| query.ends_with("after-0"));
        let after: Vec<_> = after.into_iter().filter(|span| !first(span.str("url.query"))).collect();
        let rest = |all: &[Exchange]| -> Vec<Exchange> {
            all.iter().filter(|exchange| !first(Some(&exchange.target))).cloned().collect()
        };
        let (done_after, served_after) = (rest(&done_after), rest(&served_after));
        expect_pairs(&[Side::client(&done_after, port), Side::server(&served_after, port)], &after)
            .context("after the loss")?;
        let none = Clock::NONE;
        let sides = [Side::client(&done_lost, port), Side::server(&served_lost, port)];
        expect_pairs(&sides.map(|side| side.lossy().clocks(none, none)), &lost)
            .context("what is left of the lossy part")
    })
}

#[test]
fn nothing_dropped_nothing_missing() -> Result<()> {
    needs!("root", "go");
    let server = Server::start(Language::Go)?;
    let agent = Agent::on(server.port)?;
    Client::run(Language::Go, &server.base(), &plan::mixed("b", 1000), &[])?;
    agent.wait_for_spans(2000)?;
    ensure!(balance(&agent)?.abs() < 0.5, "an ordinary load must fit into the ring");
    let metrics = agent.metrics()?;
    ensure!((metrics.total(names::SPANS, &[])? - 2000.0).abs() < 0.5, "spans: {}", metrics.sum(names::SPANS, &[]));
    agent.stop().map(drop)
}

/// Waits until the books of the ring and of the exporters balance; gives how many segment records were dropped.
fn balance(agent: &Agent) -> Result<f64> {
    let mut last = String::new();
    let balanced = wait::until(Duration::from_secs(10), "the books balance", || {
        let metrics = agent.metrics()?;
        let observed = metrics.total(names::KERNEL_OPERATIONS, &[("operation", names::OPERATION_SEGMENTS)])?;
        let received = metrics.total(names::RECORDS, &[("ring", names::RING_SEGMENTS)])?;
        let dropped = metrics.sum(names::KERNEL_DROPS, &[("reason", names::SEGMENT_RING_FULL)]);
        let spans = metrics.total(names::SPANS, &[])?;
        let exported = metrics.total(names::SPANS_EXPORTED, &[])?;
        let lost = metrics.sum(names::SPANS_DROPPED, &[]);
        last = format!(
            "observed {observed} = received {received} + dropped {dropped}; spans {spans} = {exported} + {lost}"
        );
        let equal = |a: f64, b: f64| (a - b).abs() < 0.5;
        Ok((observed > 0.0 && equal(observed, received + dropped) && equal(spans, exported + lost)).then_some(dropped))
    });
    balanced.map_err(|error| error.context(last))
}
