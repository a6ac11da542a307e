//! Two services that call one another, on two network namespaces that stand for two hosts, with an agent for each that
//! sees its own side alone.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::agent::{Agent, Builder};
use crate::fixture::Server;
use crate::netns::{Host, Hosts};
use crate::span::{CLIENT, SERVER, Span};
use crate::tls::{self, Credentials};
use crate::wait;

/// Service A on the left host, which asks service B on the right one.
pub struct Chain {
    pub front: Server,
    pub back: Server,
    pub hosts: Hosts,
    /// Where curl asks A.
    base: String,
}

/// How the two hosts reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    const fn of(self, host: &Host) -> &'static str {
        match self {
            Self::Ipv4 => host.ipv4,
            Self::Ipv6 => host.ipv6,
        }
    }

    fn url(self, scheme: &str, host: &Host, port: u16) -> String {
        match self {
            Self::Ipv4 => format!("{scheme}://{}:{port}", host.ipv4),
            Self::Ipv6 => format!("{scheme}://[{}]:{port}", host.ipv6),
        }
    }
}

impl Chain {
    pub fn start(front: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        Self::start_by(Family::Ipv4, front, environment)
    }

    pub fn start_by(family: Family, front: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let hosts = Hosts::new()?;
        let back = Server::chain_at(&hosts.right, &["--host", family.of(&hosts.right)], &[])?;
        Self::with(hosts, back, (family, "http"), front, environment)
    }

    /// The same with TLS between the two services.
    pub fn start_secure(front: &[&str]) -> Result<Self> {
        let hosts = Hosts::new()?;
        // The service reads them as it starts.
        let credentials = Credentials::new()?;
        let tls = [(tls::VARIABLE, credentials.folder().to_str().context("a path that is no text")?)];
        let back = Server::chain_at(&hosts.right, &["--host", hosts.right.ipv4], &tls)?;
        Self::with(hosts, back, (Family::Ipv4, "https"), front, &[])
    }

    fn with(
        hosts: Hosts,
        back: Server,
        (family, scheme): (Family, &str),
        front: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let next = family.url(scheme, &hosts.right, back.port);
        let args = [&["--host", family.of(&hosts.left), "--next", &next], front].concat();
        let front = Server::chain_at(&hosts.left, &args, environment)?;
        let base = family.url("http", &hosts.left, front.port);
        Ok(Self { front, back, hosts, base })
    }

    /// What curl, on the left host, is told for these targets, by `parallel` connections.
    pub fn ask(&self, targets: &[String], parallel: usize, args: &[&str]) -> Result<String> {
        let mut command = Command::new("curl");
        command.args(["-s", "-S", "--fail", "--globoff", "--no-progress-meter", "--http1.1"]).args(args);
        if parallel > 1 {
            command.args(["--parallel", "--parallel-immediate", "--parallel-max", &parallel.to_string()]);
        }
        let url = |target| format!("{}{target}", self.base);
        let output = self.hosts.left.command(command.args(targets.iter().map(url))).output();
        let output = output.context("curl cannot be run")?;
        ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// An agent of the server's host: it sees that server alone.
pub fn agent(server: &Server, propagate: &[&str]) -> Result<Agent> {
    Builder::new()?.tls().args(propagate).args(&["--pid", &server.pid.to_string()]).start()
}

#[must_use]
pub fn targets(name: &str, number: usize) -> Vec<String> {
    (0..number).map(|i| format!("/{name}/{i}")).collect()
}

/// A number that the agent's kernel side has counted.
pub fn count(agent: &Agent, operation: &str) -> Result<f64> {
    agent.metrics()?.total("remora_kernel_operations_total", &[("operation", operation)])
}

/// Spans of `kind` by target, each with one.
pub fn by_target(spans: &[Span], kind: i32) -> Result<BTreeMap<String, &Span>> {
    let mut found = BTreeMap::new();
    for span in spans.iter().filter(|span| span.kind == kind) {
        let target = span.target().context("a span without a target")?;
        ensure!(found.insert(target, span).is_none(), "two spans of one request: {span:?}");
    }
    Ok(found)
}

/// How many of these requests, which went through both services, are one trace of three spans, each below the one
/// before. Fails when a request lacks a span or any span has a parent that is not its own: no parent is allowed.
///
/// `method` is how B may have been told.
pub fn whole(left: &[Span], right: &[Span], targets: &[String], method: &str) -> Result<usize> {
    let (fronts, calls, backs) = (by_target(left, SERVER)?, by_target(left, CLIENT)?, by_target(right, SERVER)?);
    let mut whole = 0;
    for target in targets {
        let of = |spans: &BTreeMap<String, &Span>, what: &str| -> Result<Span> {
            spans.get(target).map(|&span| span.clone()).with_context(|| format!("no span of {what} for {target}"))
        };
        let (front, call, back) = (of(&fronts, "A")?, of(&calls, "A's call")?, of(&backs, "B")?);
        let mut joined = 0;
        for (parent, child) in [(&front, &call), (&call, &back)] {
            if child.parent_span_id == parent.span_id {
                ensure!(parent.trace_id == child.trace_id, "two traces: {child:?} below {parent:?}");
                joined += 1;
            } else {
                ensure!(child.parent_span_id.is_empty(), "a wrong parent: {child:?}, not {parent:?}");
            }
        }
        ensure!(front.parent_span_id.is_empty(), "a parent that nobody has: {front:?}");
        let told = back.parent_span_id == call.span_id;
        ensure!(!told || back.str("remora.link.method") == Some(method), "told by something else: {back:?}");
        whole += usize::from(joined == 2);
    }
    Ok(whole)
}

/// What came of requests over two hosts.
pub struct Outcome {
    /// How many of them are one trace.
    pub traced: usize,
    /// How often the client's agent has sent a context.
    pub sent: f64,
    /// Requests with a certain cause, and how many of them are one trace; the others have a parent missing, none a wrong one.
    certain: usize,
    good: usize,
}

impl Outcome {
    /// Fails unless this share, in percent, of the requests with a certain cause is one trace each.
    pub fn holds(&self, percent: f64) -> Result<()> {
        let &Self { certain, good, .. } = self;
        ensure!(100.0 * good as f64 >= percent * certain as f64, "{good} of {certain} requests are one trace");
        Ok(())
    }
}

/// Asks a chain with an agent on each host in all ways: one request after the other, each over new connections, then all
/// over connections that stay; then many at a time.
///
/// `chain` has been started with a delay, `propagate` is how the agents propagate, `method` how the second service is told, `operation` counts what is sent.
pub fn over_two_hosts(chain: &Chain, propagate: &[&str], method: &str, operation: &str) -> Result<Outcome> {
    let (left, right) = (agent(&chain.front, propagate)?, agent(&chain.back, propagate)?);
    let mut certain = targets("fresh", 20);
    for target in &certain {
        chain.ask(std::slice::from_ref(target), 1, &[])?;
    }
    let kept = targets("kept", 50);
    chain.ask(&kept, 1, &[])?;
    certain.extend(kept);
    // Whether threads stay with their requests is learnt here; until then calls beside others go out as undecided.
    let learning = targets("learning", 100);
    chain.ask(&learning, 10, &[])?;
    let uncertain = wait::until(Duration::from_secs(5), "calls are counted", || {
        count(&left, "context_uncertain").map(|uncertain| (uncertain > 0.0).then_some(uncertain))
    })?;
    let beside = targets("beside", 300);
    chain.ask(&beside, 10, &[])?;
    certain.extend(beside);
    ensure!(count(&left, "context_uncertain")? <= uncertain, "undecided calls after the habits were known");
    let sent = count(&left, operation)?;

    let all = certain.len() + learning.len();
    let (left, right) = (left.stop_after(2 * all)?, right.stop_after(all)?);
    ensure!((left.len(), right.len()) == (2 * all, all), "{} and {} spans", left.len(), right.len());
    let (good, learnt) = (whole(&left, &right, &certain, method)?, whole(&left, &right, &learning, method)?);
    ensure!(learnt > 0, "none of {} requests is one trace while this is learnt", learning.len());
    Ok(Outcome { traced: good + learnt, certain: certain.len(), good, sent })
}
