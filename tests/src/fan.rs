//! A service that is asked by many clients at a time and calls on for each of them, against the truth that the requests
//! carry: how many of its calls one method joins to their requests, and whether any of those is wrong.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::accuracy::{self, Report, Tally};
use crate::agent::Builder;
use crate::process::Process;
use crate::{env, load};

const START: Duration = Duration::from_secs(60);
/// So many requests go out at a time, since the file that spans are written to does not take a second of this load at once; and
/// births are believed a second after they were seen.
const BURST: usize = 300;
const PAUSE: Duration = Duration::from_millis(1200);

/// A service that is asked for some routes in turns, each of which calls so often.
pub struct Case<'a> {
    pub name: &'a str,
    /// Starts the service. It finds the one to call in `RATES_URL`.
    pub service: &'a dyn Fn() -> Command,
    pub routes: &'a [(&'a str, usize)],
    pub requests: usize,
    /// At a time.
    pub concurrency: usize,
    /// Some calls are given up before they are answered, so the number of spans is not known.
    pub gives_up: bool,
    /// The value of `remora.link.method` that is looked at, and the share of the calls in per cent that must have it at
    /// least.
    pub method: &'a str,
    pub found: f64,
    /// Calls that other methods may join wrongly, in per cent of all.
    pub wrong: f64,
}

impl Case<'_> {
    /// Runs the case and fails unless it holds. What the agent finds while it learns the service's habits counts as wrong or
    /// right, but not as missing.
    pub fn check(&self, args: &[&str]) -> Result<()> {
        let (report, all) = self.run(args)?;
        let Self { name, concurrency, method, .. } = self;
        let calls: usize = (0..self.requests).map(|number| self.route(number).1).sum();
        let found = report.methods.get(*method).copied().unwrap_or_default();
        let share = 100.0 * found.right as f64 / calls as f64;
        let others = 100.0 * (report.all.wrong - found.wrong) as f64 / calls as f64;
        println!(
            "{name} at {concurrency} at a time: {share:.1} % of {calls} calls by {method}, {} of all {} wrong; {others:.1} % wrong by \
             others; all methods: {:?}",
            all.wrong, all.spans, report.methods
        );
        ensure!(all.wrong == 0, "{name}: {} of {} are wrong: {:?}", all.wrong, all.spans, report.wrong.first());
        ensure!(share >= self.found, "{name}: only {share:.1} % of {calls} calls were found: {:?}", report.methods);
        ensure!(others <= self.wrong, "{name}: {others:.1} % of {calls} calls are wrong: {:?}", report.methods);
        Ok(())
    }

    fn route(&self, number: usize) -> (&str, usize) {
        self.routes[number % self.routes.len()]
    }

    fn run(&self, args: &[&str]) -> Result<(Report, Tally)> {
        let (_rates, rates) = start(&mut Command::new(env::built("rates")))?;
        let url = format!("http://127.0.0.1:{rates}");
        let (_service, port) = start((self.service)().env("RATES_URL", url))?;
        let headers = ["--capture-request-header", "x-truth", "--capture-request-header", "x-truth-parent"];
        let agent = Builder::new()?.args(&headers).args(args).port(rates).port(port).start()?;
        let ask = |tag: &str, count: usize| -> Result<Vec<(String, usize)>> {
            let truth = |number: usize| format!("{tag}{number}");
            let requests: Vec<_> = (0..count).map(|n| (truth(n), format!("/{}/{n}", self.route(n).0))).collect();
            for burst in requests.chunks(BURST) {
                load::ask(port, self.concurrency, burst)?;
                std::thread::sleep(PAUSE);
            }
            Ok((0..count).map(|n| (truth(n), 2 + 2 * self.route(n).1)).collect())
        };
        let warm = ask("w", BURST)?;
        let requests = ask("r", self.requests)?;
        let expected = warm.iter().chain(&requests).map(|(_, spans)| spans).sum();
        let spans = if self.gives_up { agent.stop()?.spans } else { agent.stop_after(expected)? };
        let services = HashMap::from([(rates, "rates"), (port, "fan")]);
        let all = accuracy::evaluate(&spans, &services, &[], |_| true);
        let report = accuracy::evaluate(&spans, &services, &requests, |truth| truth.starts_with('r'));
        Ok((report, all.methods.get(self.method).copied().unwrap_or_default()))
    }
}

fn start(command: &mut Command) -> Result<(Process, u16)> {
    let process = Process::spawn(command)?;
    let announced = process.announcement(START)?;
    let port = announced.get("port").and_then(serde_json::Value::as_u64).context("it announces no port")?;
    Ok((process, u16::try_from(port)?))
}
