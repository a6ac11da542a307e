//! `cargo xtask bench`: the budgets, measured on this machine.

use anyhow::Result;

use crate::{
    build::{self, Profile},
    exec, setup,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Pairs of runs without and with the agent, per figure
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of each run in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// One part alone: throughput, moderate, endpoint, calls, redis or start
    #[arg(long)]
    only: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = setup::for_build()?;
    setup::for_run()?;
    setup::for_tests()?;
    let binary = build::agent(&toolchain, Profile::Release)?;
    let mut build = exec::cargo();
    exec::run(build.args(["build", "--release", "--package", "tests", "--bin", "bench"]))?;
    let bench = crate::workspace::target().join("release/bench");
    let mut bench = exec::as_root(&bench.to_string_lossy(), &["--preserve-env"])?;
    bench.env("REMORA_BIN", binary);
    bench.args(["--rounds", &args.rounds.to_string(), "--seconds", &args.seconds.to_string()]);
    if let Some(only) = &args.only {
        bench.args(["--only", only]);
    }
    exec::run(&mut bench)
}
