//! `cargo xtask accuracy`: how right traces through services in different runtimes are, measured on this machine.

use anyhow::Result;

use crate::{build, exec};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Requests in all, at rising concurrency
    #[arg(long, default_value_t = 5000)]
    requests: usize,
    /// Let each service also call on its own, so often in milliseconds; 0: not at all
    #[arg(long, default_value_t = 0)]
    background: u64,
    /// Also list wrong parents, one a line
    #[arg(long)]
    wrong: bool,
    /// Also write all spans to this file, one a line
    #[arg(long)]
    dump: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut accuracy = build::beside_agent(&["accuracy", "quotes"])?;
    accuracy.args(["--requests", &args.requests.to_string()]);
    accuracy.args(["--background", &args.background.to_string()]);
    if args.wrong {
        accuracy.arg("--wrong");
    }
    if let Some(file) = &args.dump {
        accuracy.args(["--dump", file]);
    }
    exec::run(&mut accuracy)
}
