//! `cargo xtask bench`: the budgets, measured on this machine.

use anyhow::Result;

use crate::{build, exec};

const PARTS: [&str; 11] =
    ["throughput", "propagate", "http2", "tls", "kafka", "rabbitmq", "moderate", "endpoint", "calls", "redis", "start"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Pairs of runs without and with the agent, per figure
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of each run in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// One part alone
    #[arg(long, value_parser = PARTS)]
    only: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut bench = build::beside_agent(&["bench"])?;
    bench.args(["--rounds", &args.rounds.to_string(), "--seconds", &args.seconds.to_string()]);
    if let Some(only) = &args.only {
        bench.args(["--only", only]);
    }
    exec::run(&mut bench)
}
