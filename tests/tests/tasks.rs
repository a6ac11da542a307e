//! Calls of tasks of Python's event loop, against the truth that the requests carry. None that are joined by that may be wrong.

use std::process::Command;

use anyhow::Result;
use tests::fan::Case;
use tests::{env, needs};

/// Calls that tasks must join, in per cent. All are, but on a machine with so much to do that requests take longer than the hold-back
/// after a call: these calls are left to the model.
const FOUND: f64 = 95.0;
/// Calls that the model may join wrongly, in per cent.
const WRONG: f64 = 1.0;

fn service(client: &'static str) -> impl Fn() -> Command {
    move || {
        let mut command = Command::new(env::python());
        command.arg(env::fixture("python/tasks.py")).env("HTTP_CLIENT", client).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// `found`: the share of calls, in per cent, that must be joined by their task.
fn check(name: &str, client: &'static str, routes: &[(&str, usize)], found: f64) -> Result<()> {
    let service = service(client);
    let case = Case {
        name,
        service: &service,
        routes,
        requests: 900,
        concurrency: 50,
        gives_up: false,
        method: "coroutine",
        found,
        wrong: WRONG,
    };
    case.check(&[])
}

#[test]
fn a_task_calls_for_the_request_that_it_answers() -> Result<()> {
    needs!("root", "go", "venv");
    check("the task that serves, aiohttp", "aiohttp", &[("direct", 2)], FOUND)?;
    check("the task that serves, httpx", "httpx", &[("direct", 2)], FOUND)
}

#[test]
fn tasks_call_for_those_that_wait_for_them() -> Result<()> {
    needs!("root", "go", "venv");
    check("gather, aiohttp", "aiohttp", &[("gather", 3)], FOUND)?;
    check("gather, httpx", "httpx", &[("gather", 3)], FOUND)?;
    check("wait", "httpx", &[("wait", 2)], FOUND)?;
    check("tasks within tasks", "aiohttp", &[("nested", 2)], FOUND)
}

#[test]
fn tasks_that_tell_nothing_are_not_believed() -> Result<()> {
    needs!("root", "go", "venv");
    check("workers that all share", "aiohttp", &[("queue", 2)], 0.0)?;
    check("a call after the answer", "httpx", &[("late", 2)], 49.0)?;
    let all = [("direct", 2), ("gather", 3), ("nested", 2), ("tasks", 2), ("wait", 2), ("queue", 2), ("late", 2)];
    check("all of it", "aiohttp", &all, 65.0)
}
