//! Calls of Go programs that the goroutine which makes them joins to their request, against the truth that the requests carry.
//! None may be wrong; and it is counted how many are found. What the goroutine does not tell is left to the model,
//! which must not be sure of what it cannot know.

use std::process::Command;

use anyhow::Result;
use tests::fan::Case;
use tests::{env, needs};

/// Calls that the model may join wrongly, in per cent.
const WRONG: f64 = 2.0;

/// Checks a case of a program that is asked for some routes in turns, each of which calls so often.
fn check(
    name: &str,
    (program, environment): (&str, &[(&str, &str)]),
    routes: &[(&str, usize)],
    (concurrency, found): (usize, f64),
    args: &[&str],
) -> Result<()> {
    let service = || {
        let mut command = Command::new(env::built(program));
        command.envs(environment.iter().copied());
        command
    };
    let gives_up = routes.iter().any(|(route, _)| *route == "hasty");
    let case = Case {
        name,
        service: &service,
        routes,
        requests: 1500,
        concurrency,
        gives_up,
        method: "coroutine",
        found,
        wrong: WRONG,
    };
    case.check(args)
}

const KEEPING: &[(&str, &str)] = &[("KEEP_ALIVE", "1")];

#[test]
fn calls_of_the_serving_goroutine_and_of_those_it_starts_are_found() -> Result<()> {
    needs!("root", "go");
    for program in ["fan", "fan-stripped"] {
        let check =
            |name, routes: &[_], concurrency, found| check(name, (program, &[]), routes, (concurrency, found), &[]);
        check("direct", &[("direct", 1)], 1, 99.0)?;
        check("direct", &[("direct", 1)], 50, 99.0)?;
        check("child", &[("child", 3)], 50, 50.0)?;
        check("client", &[("client", 2)], 50, 50.0)?;
        check("direct, child and client", &[("direct", 1), ("child", 3), ("client", 2)], 50, 50.0)?;
    }
    Ok(())
}

#[test]
fn calls_at_the_hooks_of_system_calls_are_found() -> Result<()> {
    needs!("root", "go");
    check("calls", ("fan", &[]), &[("direct", 1), ("client", 2)], (50, 60.0), &["--hooks", "calls"])
}

#[test]
fn what_a_goroutine_does_for_others_is_not_taken_for_its_own() -> Result<()> {
    needs!("root", "go");
    let check = |name, environment, routes: &[_]| check(name, ("fan", environment), routes, (50, 0.0), &[]);
    check("kept connections", KEEPING, &[("client", 2)])?;
    check("kept connections in parallel", KEEPING, &[("spread", 3)])?;
    check("in parallel", &[], &[("spread", 3)])?;
    check("left to a goroutine", &[], &[("left", 1), ("client", 2)])?;
    check("a pool of workers", &[], &[("pool", 1)])?;
    let all = [("pool", 1), ("left", 1), ("client", 2), ("spread", 3), ("child", 3), ("direct", 1)];
    check("all of it", KEEPING, &all)?;
    check("at most ten connections", &[("MAX_CONNS", "10")], &[("client", 2), ("spread", 3)])?;
    check("given up", &[("MAX_CONNS", "10")], &[("hasty", 2)])?;
    check("given up, kept", &[("KEEP_ALIVE", "1"), ("MAX_CONNS", "10")], &[("hasty", 2)])
}
