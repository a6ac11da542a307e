//! Calls of threads and processes that are started while a request is served, against the truth that the requests carry.
//! None that are joined by that may be wrong.

use std::process::Command;

use anyhow::Result;
use tests::fan::Case;
use tests::{env, needs};

/// Calls that the model may join wrongly, in per cent. As it is on an event loop, whose calls threads make: what is known of the loop's
/// order tells little of theirs. Elsewhere it is 1 at most.
const WRONG: f64 = 15.0;

fn python(argument: &str) -> Command {
    let mut command = Command::new(env::python());
    command.arg(env::fixture("python/births.py")).arg(argument).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn java() -> Command {
    let mut command = Command::new(env::which("java").unwrap_or_else(|| "java".into()));
    command.args(["-Xmx256m", "-Dsun.net.httpserver.nodelay=true", "-Dhttp.maxConnections=64", "-cp"]);
    command.arg(env::workspace().join("target/fixtures/java")).arg("Births");
    command
}

/// Checks a service that is asked for some routes in turns, 50 at a time; `found` is the share of calls, in per cent, that
/// must be joined by a birth.
fn check(
    name: &str,
    service: &dyn Fn() -> Command,
    routes: &[(&str, usize)],
    requests: usize,
    found: f64,
) -> Result<()> {
    let case = Case {
        name,
        service,
        routes,
        requests,
        concurrency: 50,
        gives_up: false,
        method: "born_in",
        found,
        wrong: WRONG,
    };
    case.check(&[])
}

#[test]
fn threads_started_for_a_request_call_for_it() -> Result<()> {
    needs!("root", "go", "venv", "java");
    check("a thread for each call", &|| python("--threads"), &[("thread", 3)], 900, 99.0)?;
    check("an executor for each request", &|| python("--threads"), &[("own", 2)], 900, 99.0)?;
    check("Java, a thread for each call", &java, &[("thread", 2)], 1500, 99.0)
}

#[test]
fn threads_that_may_call_for_others_are_not_believed() -> Result<()> {
    needs!("root", "go", "venv");
    let threads = || python("--threads");
    check("an executor for all", &threads, &[("pool", 2)], 900, 0.0)?;
    check("left to a thread", &threads, &[("left", 2)], 900, 0.0)?;
    check("all of it", &threads, &[("thread", 3), ("pool", 2), ("own", 2), ("left", 2)], 900, 0.0)?;
    check("an event loop", &|| python("--loop"), &[("own", 2)], 900, 0.0)
}

#[test]
fn processes_started_for_a_request_call_for_it() -> Result<()> {
    needs!("root", "go", "venv", "curl");
    check("a process for each call", &|| python("--threads"), &[("child", 1)], 300, 99.0)
}
