//! Trace context that requests carry: the spans join that trace.

use anyhow::{Result, ensure};
use tests::agent::{Agent, Builder};
use tests::fixture::{Client, Language, Server};
use tests::needs;
use tests::plan::{self, Step};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn step(name: &str, headers: &[(&str, &str)]) -> Step {
    headers.iter().fold(Step::get(format!("/item/1?id={name}")), |step, (key, value)| step.header(key, value))
}

#[test]
fn spans_join_the_trace_they_are_told_of() -> Result<()> {
    needs!("root", "python");
    let server = Server::start(Language::Python)?;
    let agent = Agent::on(server.port)?;
    let w3c = format!("00-{TRACE}-{PARENT}-01");
    let joined = [
        step("w3c", &[("traceparent", &w3c), ("tracestate", "a=1,b=2")]),
        step("future", &[("traceparent", &format!("cc-{TRACE}-{PARENT}-01-more"))]),
        step("b3", &[("b3", &format!("{TRACE}-{PARENT}-1"))]),
        step("b3-multi", &[("X-B3-TraceId", TRACE), ("X-B3-SpanId", PARENT), ("X-B3-Sampled", "1")]),
        step("jaeger", &[("uber-trace-id", &format!("{TRACE}:{PARENT}:0:1"))]),
        step(
            "datadog",
            &[
                ("x-datadog-trace-id", &u64::from_str_radix(&TRACE[16..], 16)?.to_string()),
                ("x-datadog-parent-id", &u64::from_str_radix(PARENT, 16)?.to_string()),
                ("x-datadog-sampling-priority", "1"),
                ("x-datadog-tags", &format!("_dd.p.tid={}", &TRACE[..16])),
            ],
        ),
        step(
            "x-ray",
            &[("X-Amzn-Trace-Id", &format!("Root=1-{}-{};Parent={PARENT};Sampled=1", &TRACE[..8], &TRACE[8..]))],
        ),
        step("w3c-first", &[("traceparent", &w3c), ("b3", &format!("{}-{PARENT}-1", "a".repeat(32)))]),
    ];
    let ignored = [
        step("none", &[]),
        step("version-ff", &[("traceparent", &format!("ff-{TRACE}-{PARENT}-01"))]),
        step("zero", &[("traceparent", &format!("00-{}-{PARENT}-01", "0".repeat(32)))]),
        step("upper", &[("traceparent", &format!("00-{}-{PARENT}-01", TRACE.to_uppercase()))]),
        step("short", &[("traceparent", "00-4bf92f35-00f067aa-01")]),
    ];
    let steps: Vec<_> = joined.iter().chain(&ignored).cloned().collect();
    Client::run(Language::Python, &server.base(), &steps, &["--mode", "raw"])?;
    let spans = agent.stop_after(2 * steps.len())?;
    ensure!(spans.len() == 2 * steps.len(), "{} spans", spans.len());
    for span in &spans {
        let name = span.str("url.query").unwrap_or("").trim_start_matches("id=").to_owned();
        let is = |steps: &[Step]| steps.iter().any(|step| step.target.ends_with(&format!("={name}")));
        if is(&joined) {
            ensure!(span.trace_id == TRACE && span.parent_span_id == PARENT, "{name}: {span:?}");
        } else {
            ensure!(span.trace_id != TRACE && span.parent_span_id != PARENT && is(&ignored), "{name}: {span:?}");
        }
        let state = if name == "w3c" { "a=1,b=2" } else { "" };
        ensure!(span.trace_state == state, "{name}: tracestate {:?}", span.trace_state);
    }
    Ok(())
}

/// `parentbased_*`: what the caller decided holds.
#[test]
fn the_callers_decision_holds() -> Result<()> {
    needs!("root", "python");
    let server = Server::start(Language::Python)?;
    let agent = Builder::new()?.port(server.port).env("OTEL_TRACES_SAMPLER", "parentbased_always_off").start()?;
    let sampled = step("sampled", &[("traceparent", &format!("00-{TRACE}-{PARENT}-01"))]);
    let not = step("not", &[("traceparent", &format!("00-{TRACE}-{PARENT}-00"))]);
    let steps = [sampled, not, step("root", &[])];
    Client::run(Language::Python, &server.base(), &steps, &["--mode", "raw"])?;
    let spans = agent.stop_after(2)?;
    let queries: Vec<_> = spans.iter().filter_map(|span| span.str("url.query")).collect();
    ensure!(queries == ["id=sampled", "id=sampled"], "{queries:?}");
    Ok(())
}

#[test]
fn a_ratio_of_traces() -> Result<()> {
    needs!("root", "go");
    let server = Server::start(Language::Go)?;
    let sampler = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
    let builder = sampler.iter().fold(Builder::new()?.port(server.port), |b, (name, value)| b.env(name, value));
    let agent = builder.start()?;
    Client::run(Language::Go, &server.base(), &plan::items("ratio", 2000), &[])?;
    server.truth(2000)?;
    let spans = agent.stop()?.spans.len();
    // 4000 independent or 2000 paired draws at 0.25: five standard deviations are under 250.
    ensure!((750..1250).contains(&spans), "{spans} of 4000 spans at a ratio of 0.25");
    Ok(())
}
