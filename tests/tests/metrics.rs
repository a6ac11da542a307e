//! `/metrics`: every exchange counts whatever the sampling, and Prometheus' own tool has nothing to say against it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::fixture::{Client, Language, Server};
use tests::metrics::Metrics;
use tests::names::{CLIENT_DURATION, SERVER_DURATION};
use tests::truth::Exchange;
use tests::{env, http, needs, plan, wait};

const N: usize = 200;
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

/// The metrics once both sides count `N` exchanges; fails when they never do.
fn counted(agent: &Agent) -> Result<Metrics> {
    let mut last = (0.0, 0.0);
    let found = wait::until(Duration::from_secs(10), "all exchanges are counted", || {
        let metrics = agent.metrics()?;
        let count = |name: &str| metrics.sum(&format!("{name}_count"), &[]);
        last = (count(SERVER_DURATION), count(CLIENT_DURATION));
        #[expect(clippy::cast_precision_loss, reason = "N is small")]
        let all = last.0 >= N as f64 && last.1 >= N as f64;
        Ok(all.then_some(metrics))
    });
    found.with_context(|| format!("server and client count: {last:?}"))
}

#[test]
fn all_exchanges_count_when_none_is_sampled() -> Result<()> {
    needs!("root", "go");
    let server = Server::start(Language::Go)?;
    let agent = Builder::new()?.port(server.port).env("OTEL_TRACES_SAMPLER", "always_off").start()?;
    let done = Client::run(Language::Go, &server.base(), &plan::mixed("m", N), &[])?;
    let served = server.truth(N)?;
    let metrics = counted(&agent)?;
    for (name, truth) in [(SERVER_DURATION, &served), (CLIENT_DURATION, &done)] {
        compare(&metrics, name, truth)?;
    }
    let spans = agent.stop()?.spans;
    ensure!(spans.is_empty(), "{} spans with always_off", spans.len());
    Ok(())
}

/// Counts by status, method and size, and the sum of the durations.
fn compare(metrics: &Metrics, name: &str, truth: &[Exchange]) -> Result<()> {
    let near = |a: f64, b: f64| (a - b).abs() < 0.5;
    let mut groups: BTreeMap<(u16, &str), f64> = BTreeMap::new();
    for exchange in truth {
        *groups.entry((exchange.status.context("an exchange without a status")?, &exchange.method)).or_default() += 1.0;
    }
    let count = format!("{name}_count");
    for ((status, method), expected) in &groups {
        let status = status.to_string();
        let labels = [("http_response_status_code", status.as_str()), ("http_request_method", method)];
        let found = metrics.sum(&count, &labels);
        ensure!(near(found, *expected), "{count} {labels:?} is {found}, expected {expected}");
    }
    let total = metrics.total(&count, &[])?;
    ensure!(near(total, groups.values().sum()), "{count} is {total} in all");
    let infinite = metrics.sum(&format!("{name}_bucket"), &[("le", "+Inf")]);
    ensure!(near(infinite, total), "the last bucket has {infinite} of {total}");
    #[expect(clippy::cast_precision_loss, reason = "sums of a few seconds and megabytes")]
    {
        let expected = truth.iter().map(|exchange| (exchange.end - exchange.start) as f64 / 1e9).sum::<f64>();
        let found = metrics.total(&format!("{name}_sum"), &[])?;
        // 1 ms an exchange, as for spans.
        ensure!((found - expected).abs() < 0.001 * truth.len() as f64, "{name}_sum is {found}, the log's {expected}");
        let side = name.trim_end_matches("_request_duration_seconds");
        for (what, expected) in [
            ("request", truth.iter().map(|exchange| exchange.request_body).sum::<u64>()),
            ("response", truth.iter().map(|exchange| exchange.response_body).sum()),
        ] {
            let name = format!("{side}_{what}_body_size_bytes_sum");
            let found = metrics.total(&name, &[])?;
            ensure!(near(found, expected as f64), "{name} is {found}, expected {expected}");
        }
    }
    Ok(())
}

#[test]
fn promtool_finds_nothing() -> Result<()> {
    needs!("root", "go", "promtool");
    let server = Server::start(Language::Go)?;
    let agent = Agent::on(server.port)?;
    Client::run(Language::Go, &server.base(), &plan::mixed("p", N), &[])?;
    counted(&agent)?;
    let text = agent.get("/metrics")?;
    ensure!(text.head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{}", text.head);
    let mut promtool = Command::new(env::which("promtool").unwrap_or_default())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    promtool.stdin.take().context("no standard input")?.write_all(text.body.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success() && said.trim().is_empty(), "promtool: {} {said}", output.status);
    Ok(())
}

#[test]
fn exemplars_point_to_spans() -> Result<()> {
    needs!("root", "go");
    let server = Server::start(Language::Go)?;
    let agent = Agent::on(server.port)?;
    Client::run(Language::Go, &server.base(), &plan::mixed("x", N), &[])?;
    counted(&agent)?;
    agent.wait_for_spans(2 * N)?;
    let answer = http::get(agent.address, "/metrics", OPENMETRICS)?;
    ensure!(answer.head.to_lowercase().contains("content-type: application/openmetrics-text"), "{}", answer.head);
    ensure!(answer.body.ends_with("# EOF\n"), "no end");
    let metrics = Metrics::parse(&answer.body)?;
    let exemplars: Vec<_> = metrics.0.iter().filter_map(|sample| Some((sample, sample.exemplar.as_ref()?))).collect();
    ensure!(!exemplars.is_empty(), "no exemplars: {:.3000}", answer.body);
    let spans = agent.stop()?.spans;
    for (sample, exemplar) in exemplars {
        let (trace, span) = (exemplar.get("trace_id"), exemplar.get("span_id"));
        let known = spans.iter().any(|s| Some(&s.trace_id) == trace && Some(&s.span_id) == span);
        ensure!(known && sample.name.ends_with("_bucket"), "no span is called {exemplar:?} of {}", sample.name);
    }
    Ok(())
}

#[test]
fn the_listener_answers() -> Result<()> {
    needs!("root");
    // A port that nobody uses: nothing is to be captured.
    let agent = Agent::on(1)?;
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        ensure!(agent.get(path)?.status == 200, "{path}: {}", agent.get(path)?.status);
    }
    ensure!(agent.get("/no/such/path")?.status == 404);
    let metrics = agent.metrics()?;
    ensure!(metrics.total("remora_process_resident_memory_bytes", &[])? > 1e6);
    Ok(())
}
