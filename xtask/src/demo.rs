//! `cargo xtask demo`: services that call each other, a load on them, and the agent beside it, to look at.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    exec, setup,
};

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
    let toolchain = setup::for_build()?;
    setup::for_run()?;
    setup::for_tests()?;
    let binary = build::agent(&toolchain, Profile::Release)?;
    let mut build = exec::cargo();
    exec::run(build.args(["build", "--release", "--package", "tests", "--bin", "demo", "--bin", "quotes"]))?;
    let demo = crate::workspace::target().join("release/demo");
    let mut demo = exec::as_root(&demo.to_string_lossy(), &["--preserve-env"])?;
    demo.env("REMORA_BIN", binary).args(["--listen", &args.listen]);
    if let Some(seconds) = args.seconds {
        demo.args(["--seconds", &seconds.to_string()]);
    }
    // In place of this process: Ctrl-C reaches the one that cleans up.
    let error = demo.exec();
    Err(error).with_context(|| exec::cannot_start(&demo))
}
