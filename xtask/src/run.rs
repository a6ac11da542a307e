//! `cargo xtask run`: builds as the caller, runs as root.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    exec, setup,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Flags for remora, after `--`
    #[arg(last = true)]
    flags: Vec<std::ffi::OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = setup::for_build()?;
    setup::for_run()?;
    let binary = build::agent(&toolchain, Profile::Release)?;
    // The variables of the caller (OTEL_…, REMORA_…) are settings of the agent: sudo has to keep them.
    let mut agent = exec::as_root(&binary.to_string_lossy(), &["--preserve-env"])?;
    agent.args(&args.flags);
    // In place of this process: signals and the exit status are the agent's own.
    let error = agent.exec();
    Err(error).with_context(|| exec::cannot_start(&agent))
}
