//! `cargo xtask bench`: the budgets, measured. Each figure that compares is the median of runs with and without the
//! agent in turn, so that a ratio stands on a noisy machine too. Prints a table in Markdown, the body of
//! `docs/BENCHMARKS.md`.

mod books;
mod calls;
mod http2;
mod kafka;
mod rabbitmq;
mod report;
mod start;
mod throughput;
mod tls;

use anyhow::Result;

use self::report::Report;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u32| -> Result<u32> {
        let value = arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
        Ok(value.map_or(Ok(default), |value| value.parse())?)
    };
    let rounds = number("--rounds", 5)?;
    let seconds = number("--seconds", 4)?;
    let only = arguments.iter().position(|argument| argument == "--only").and_then(|at| arguments.get(at + 1));
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let mut report = Report::default();
    if wanted("throughput") {
        throughput::saturated(&mut report, rounds, seconds)?;
    }
    if wanted("propagate") {
        throughput::propagating(&mut report, rounds, seconds)?;
    }
    if wanted("http2") {
        http2::saturated(&mut report, rounds, seconds)?;
    }
    if wanted("tls") {
        tls::saturated(&mut report, rounds, seconds)?;
    }
    if wanted("kafka") {
        kafka::through_one_broker(&mut report, rounds, seconds)?;
    }
    if wanted("rabbitmq") {
        rabbitmq::through_one_broker(&mut report, rounds, seconds)?;
    }
    if wanted("moderate") {
        throughput::moderate(&mut report, seconds)?;
    }
    if wanted("endpoint") {
        throughput::dead_endpoint(&mut report, seconds)?;
    }
    if wanted("calls") {
        calls::programs(&mut report, seconds)?;
        calls::others(&mut report, rounds)?;
    }
    if wanted("redis") {
        calls::redis(&mut report, rounds, seconds)?;
    }
    if wanted("start") {
        start::first_span(&mut report, rounds)?;
    }
    println!("{}", report.markdown());
    Ok(())
}
