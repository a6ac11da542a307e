//! Calls of Go programs that the goroutine which makes them joins to their request, against the truth that the requests carry.
//! None may be wrong; and it is counted how many are found.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::accuracy::{self, Report, Tally};
use tests::agent::Builder;
use tests::process::Process;
use tests::{env, load, needs};

const START: Duration = Duration::from_secs(60);
const REQUESTS: usize = 1500;
/// So many requests go out at a time, since the file that spans are written to does not take a second of this load at once; and
/// births are believed a second after they were seen.
const BURST: usize = 300;
const PAUSE: Duration = Duration::from_millis(1200);

fn start(program: &str, environment: &[(&str, &str)]) -> Result<(Process, u16)> {
    let mut command = std::process::Command::new(env::built(program));
    let process = Process::spawn(command.envs(environment.iter().copied()))?;
    let announced = process.announcement(START)?;
    let port = announced.get("port").and_then(serde_json::Value::as_u64).context("it announces no port")?;
    Ok((process, u16::try_from(port)?))
}

/// One service that is asked for some routes in turns, each of which calls so often.
struct Case<'a> {
    name: &'a str,
    program: &'a str,
    environment: &'a [(&'a str, &'a str)],
    routes: &'a [(&'a str, usize)],
    /// Per cent of the calls that the goroutine has to tell, at least.
    found: f64,
}

/// Runs a case with so many requests at a time; what the agent finds while it learns the service's habits counts as wrong or
/// right, but not as missing.
fn run(case: &Case<'_>, concurrency: usize, args: &[&str]) -> Result<(Report, Tally)> {
    let (_rates, rates) = start("rates", &[])?;
    let url = format!("http://127.0.0.1:{rates}");
    let environment = [case.environment, &[("RATES_URL", url.as_str())]].concat();
    let (_service, port) = start(case.program, &environment)?;
    let headers = ["--capture-request-header", "x-truth", "--capture-request-header", "x-truth-parent"];
    let agent = Builder::new()?.args(&headers).args(args).port(rates).port(port).start()?;
    let route = |number: usize| case.routes[number % case.routes.len()];
    let ask = |tag: &str, count: usize| -> Result<Vec<(String, usize)>> {
        let truth = |number: usize| format!("{tag}{number}");
        let requests: Vec<_> = (0..count).map(|n| (truth(n), format!("/{}/{n}", route(n).0))).collect();
        for burst in requests.chunks(BURST) {
            load::ask(port, concurrency, burst)?;
            std::thread::sleep(PAUSE);
        }
        Ok((0..count).map(|n| (truth(n), 2 + 2 * route(n).1)).collect())
    };
    let warm = ask("w", BURST)?;
    let requests = ask("r", REQUESTS)?;
    let expected = warm.iter().chain(&requests).map(|(_, spans)| spans).sum();
    let spans = if case.routes.iter().any(|(route, _)| *route == "hasty") {
        agent.stop()?.spans
    } else {
        agent.stop_after(expected)?
    };
    let services = HashMap::from([(rates, "rates"), (port, "fan")]);
    let all = accuracy::evaluate(&spans, &services, &[], |_| true);
    let report = accuracy::evaluate(&spans, &services, &requests, |truth| truth.starts_with('r'));
    let tally = all.methods.get("coroutine").copied().unwrap_or_default();
    Ok((report, tally))
}

fn check(case: &Case<'_>, concurrency: usize, args: &[&str]) -> Result<()> {
    let (report, all) = run(case, concurrency, args)?;
    let calls: usize = (0..REQUESTS).map(|number| case.routes[number % case.routes.len()].1).sum();
    let found = report.methods.get("coroutine").copied().unwrap_or_default();
    let share = 100.0 * found.right as f64 / calls as f64;
    println!(
        "{} at {concurrency} at a time: {share:.1} % of {calls} calls by their goroutine, {} of all {} wrong; all methods: {:?}",
        case.name, all.wrong, all.spans, report.methods
    );
    ensure!(all.wrong == 0, "{}: {} of {} are wrong: {:?}", case.name, all.wrong, all.spans, report.wrong.first());
    ensure!(share >= case.found, "{}: only {share:.1} % of {calls} calls were found: {:?}", case.name, report.methods);
    Ok(())
}

const KEEPING: &[(&str, &str)] = &[("KEEP_ALIVE", "1")];

#[test]
fn calls_of_the_serving_goroutine_and_of_those_it_starts_are_found() -> Result<()> {
    needs!("root", "go");
    for program in ["fan", "fan-stripped"] {
        let case = |name, routes, found| Case { name, program, environment: &[], routes, found };
        for (case, concurrency) in [
            (case("direct", &[("direct", 1)], 99.0), 1),
            (case("direct", &[("direct", 1)], 99.0), 50),
            (case("child", &[("child", 3)], 50.0), 50),
            (case("client", &[("client", 2)], 50.0), 50),
            (case("direct, child and client", &[("direct", 1), ("child", 3), ("client", 2)], 50.0), 50),
        ] {
            check(&case, concurrency, &[])?;
        }
    }
    Ok(())
}

#[test]
fn calls_at_the_hooks_of_system_calls_are_found() -> Result<()> {
    needs!("root", "go");
    let case =
        Case { name: "calls", program: "fan", environment: &[], routes: &[("direct", 1), ("client", 2)], found: 60.0 };
    check(&case, 50, &["--hooks", "calls"])
}

#[test]
fn what_a_goroutine_does_for_others_is_not_taken_for_its_own() -> Result<()> {
    needs!("root", "go");
    let case = |name, environment, routes| Case { name, program: "fan", environment, routes, found: 0.0 };
    for case in [
        case("kept connections", KEEPING, &[("client", 2)]),
        case("kept connections in parallel", KEEPING, &[("spread", 3)]),
        case("in parallel", &[], &[("spread", 3)]),
        case("left to a goroutine", &[], &[("left", 1), ("client", 2)]),
        case("a pool of workers", &[], &[("pool", 1)]),
        case(
            "all of it",
            KEEPING,
            &[("pool", 1), ("left", 1), ("client", 2), ("spread", 3), ("child", 3), ("direct", 1)],
        ),
        case("at most ten connections", &[("MAX_CONNS", "10")], &[("client", 2), ("spread", 3)]),
        case("given up", &[("MAX_CONNS", "10")], &[("hasty", 2)]),
        case("given up, kept", &[("KEEP_ALIVE", "1"), ("MAX_CONNS", "10")], &[("hasty", 2)]),
    ] {
        check(&case, 50, &[])?;
    }
    Ok(())
}
