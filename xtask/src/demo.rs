//! `cargo xtask demo`: services that call each other, a load on them, and the agent beside it, to look at.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::{build, exec};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// End by itself after so many seconds [default: at Ctrl-C]
    #[arg(long)]
    seconds: Option<u64>,
    /// Address of the agent's page and metrics; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9464")]
    listen: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut demo = build::beside_agent(&["demo", "quotes"])?;
    demo.args(["--listen", &args.listen]);
    if let Some(seconds) = args.seconds {
        demo.args(["--seconds", &seconds.to_string()]);
    }
    // In place of this process: Ctrl-C reaches the one that cleans up.
    let error = demo.exec();
    Err(error).with_context(|| exec::cannot_start(&demo))
}
