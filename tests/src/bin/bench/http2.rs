//! nghttpd with a small file and many streams on each connection: throughput lost at saturation.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::process::Process;
use tests::{env, fixture};

use crate::report::Report;
use crate::throughput::{Pairs, Sink, exporting};

/// Throughput at saturation with 1, 10 and 100 streams at a time on each of 8 connections.
pub fn saturated(report: &mut Report, rounds: u32, seconds: u32) -> Result<()> {
    let folder = TempDir::new()?;
    std::fs::write(folder.path().join("small.html"), "x".repeat(612))?;
    let port = fixture::free_port()?;
    let mut command =
        Command::new(env::which("nghttpd").context("nghttpd is not installed: cargo xtask setup --tests")?);
    command.args(["--no-tls", "--address=127.0.0.1", "--htdocs"]).arg(folder.path());
    let server = Process::spawn(command.arg(port.to_string()))?;
    fixture::accepts(port).with_context(|| server.stderr())?;
    let url = format!("http://127.0.0.1:{port}/small.html");
    let sink = Sink::start()?;
    for streams in ["1", "10", "100"] {
        let what = format!("nghttpd throughput lost at saturation, {streams} streams, a client and a server span each");
        let load = || load(&url, streams, seconds);
        let pairs = Pairs { what: &what, load: &load, protocol: "http2", rounds, seconds, bar: "–", goal: "–" };
        pairs.run(report, || exporting(&sink, port, None))?;
    }
    Ok(())
}

/// Requests per second of h2load, and all requests.
fn load(url: &str, streams: &str, seconds: u32) -> Result<(f64, f64)> {
    let program = env::which("h2load").context("h2load is not installed: cargo xtask setup --tests")?;
    let output = Command::new(program).args(["-t1", "-c8", "-m", streams, "-D", &seconds.to_string(), url]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |before: &str, after: &str| -> Result<f64> {
        let found = text.split_once(after).and_then(|(found, _)| found.rsplit(before).next());
        found.and_then(|number| number.trim().parse().ok()).with_context(|| text.clone())
    };
    ensure!(text.contains(" 0 failed, 0 errored, 0 timeout"), "h2load saw failures: {text}");
    Ok((number(",", " req/s")?, number(",", " done")?))
}
