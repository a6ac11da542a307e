//! `--propagate tcp`: traces over two network namespaces that stand for two hosts, an agent for each that sees its own
//! side alone.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use tests::chain::{self, Chain, Family, agent, by_target, count, targets};
use tests::needs;
use tests::span::{CLIENT, SERVER, Span};

const OFF: &[&str] = &["--propagate", "off"];
const TCP: &[&str] = &["--propagate", "tcp"];

/// One after the other, each over new connections, and then all over connections that stay; then many at a time.
#[test]
fn requests_over_two_hosts_are_one_trace_each() -> Result<()> {
    needs!("root", "python", "ip", "curl");
    chain::over_two_hosts(&Chain::start(&["--delay-ms", "5"], &[])?, TCP, "tcp", "option_sent")?.holds(100.0)
}

/// The same over IPv6.
#[test]
fn also_over_ipv6() -> Result<()> {
    needs!("root", "python", "ip", "curl");
    let chain = Chain::start_by(Family::Ipv6, &["--delay-ms", "5"], &[])?;
    chain::over_two_hosts(&chain, TCP, "tcp", "option_sent")?.holds(100.0)
}

/// A packet that is lost is sent again with what it carried; 369 of 370 were told in a run.
#[test]
fn also_when_packets_are_lost() -> Result<()> {
    needs!("root", "python", "ip", "curl", "nft");
    let chain = Chain::start(&["--delay-ms", "5"], &[])?;
    // One in twenty of those that come in, each way.
    for host in [&chain.hosts.left, &chain.hosts.right] {
        host.drop_packets(20)?;
    }
    chain::over_two_hosts(&chain, TCP, "tcp", "option_sent")?.holds(98.0)
}

/// The option is beside the payload, whatever that is.
#[test]
fn also_when_the_payload_is_tls() -> Result<()> {
    needs!("root", "python", "ip", "curl");
    chain::over_two_hosts(&Chain::start_secure(&["--delay-ms", "5"])?, TCP, "tcp", "option_sent")?.holds(100.0)
}

/// An event loop serves requests in turns on one thread, so that a call's cause is rarely certain when it is sent.
/// Then it goes out as undecided; what is told is right.
#[test]
fn an_event_loop_tells_nothing_wrong() -> Result<()> {
    needs!("root", "python", "ip", "curl");
    let chain = Chain::start(&["--loop", "--delay-ms", "5"], &[])?;
    let (left, right) = (agent(&chain.front, TCP)?, agent(&chain.back, TCP)?);
    let mut all = targets("alone", 20);
    chain.ask(&all, 1, &[])?;
    let beside = targets("beside", 300);
    chain.ask(&beside, 10, &[])?;
    all.extend(beside);
    right.wait_for_spans(all.len())?;
    ensure!(count(&left, "context_uncertain")? > 0.0, "every cause was certain");
    let (left, right) = (left.stop_after(2 * all.len())?, right.stop()?.spans);
    let (fronts, calls, backs) = (by_target(&left, SERVER)?, by_target(&left, CLIENT)?, by_target(&right, SERVER)?);
    let mut told = 0;
    for target in &all {
        let of =
            |spans: &BTreeMap<String, &Span>| spans.get(target).map(|&span| span.clone()).context("a span is missing");
        let (front, call, back) = (of(&fronts)?, of(&calls)?, of(&backs)?);
        if !back.parent_span_id.is_empty() {
            ensure!(back.parent_span_id == call.span_id, "a wrong parent: {back:?}, not {call:?}");
            ensure!(back.trace_id == front.trace_id, "a wrong trace: {back:?}, not {front:?}");
            told += 1;
        }
    }
    ensure!(told >= 20, "requests with nothing beside them are certain, but {told} were told");
    Ok(())
}

/// The trace context that an application sends itself stays the only one.
#[test]
fn an_application_s_own_context_wins() -> Result<()> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    needs!("root", "python", "ip", "curl");
    let chain = Chain::start(&[], &[("TRACEPARENT", &format!("00-{TRACE}-{PARENT}-01"))])?;
    let (left, right) = (agent(&chain.front, TCP)?, agent(&chain.back, TCP)?);
    let targets = targets("own", 10);
    chain.ask(&targets, 1, &[])?;
    right.wait_for_spans(targets.len())?;
    ensure!(count(&left, "context_own")? == 10.0, "requests with a context of their own");
    for (agent, operation) in [(&left, "option_sent"), (&right, "option_received")] {
        ensure!(count(agent, operation)? == 0.0, "{operation} beside a context of the application's");
    }
    let backs = right.stop()?.spans;
    for span in &backs {
        ensure!(span.trace_id == TRACE && span.parent_span_id == PARENT, "{span:?}");
        ensure!(span.str("remora.link.method") == Some("context"), "{span:?}");
    }
    ensure!(backs.len() == targets.len(), "{} spans", backs.len());
    Ok(())
}

/// What both services receive is the same octets without any agent, with one on the client's side alone, and with one
/// that propagates nothing; and only the one that is told to sends the option.
#[test]
fn the_payload_is_the_same_whoever_listens() -> Result<()> {
    needs!("root", "python", "ip", "curl");
    let chain = Chain::start(&[], &[])?;
    // Far more than one packet holds, so that the option is on one of many.
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

    let left = agent(&chain.front, TCP)?;
    let unheard = ask()?;
    let sent = count(&left, "option_sent")?;
    left.stop()?;
    ensure!(unheard == alone, "an agent on one side alone changed the octets: {unheard}");
    ensure!(sent >= 25.0, "only {sent} options were sent");

    let (left, right) = (agent(&chain.front, OFF)?, agent(&chain.back, TCP)?);
    let off = ask()?;
    right.wait_for_spans(25)?;
    ensure!(off == alone, "an agent that propagates nothing changed the octets: {off}");
    ensure!(count(&right, "option_received")? == 0.0, "an agent sent options without being told to");
    let spans = left.stop()?.spans;
    ensure!(spans.len() == 2 * 25, "{} spans", spans.len());
    Ok(())
}
