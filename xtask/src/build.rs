//! `cargo xtask build`.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    exec,
    setup::{self, Toolchain},
    workspace,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimised, into target/release (the default)
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Quicker to build, slower to run, into target/debug
    #[arg(long)]
    debug: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let profile = if args.debug { Profile::Debug } else { Profile::Release };
    let binary = agent(&setup::for_build()?, profile)?;
    eprintln!("built {}", binary.display());
    Ok(())
}

/// Cargo's profile of the user side; the kernel side is always optimised.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Release,
    Debug,
}

/// Builds the agent, eBPF programs inside; returns the binary's path.
pub(crate) fn agent(toolchain: &Toolchain, profile: Profile) -> Result<PathBuf> {
    let (flags, folder): (&[&str], _) = match profile {
        Profile::Release => (&["--release"], "release"),
        Profile::Debug => (&[], "debug"),
    };
    exec::run(toolchain.name_to(&mut exec::cargo()).args(["build", "--package", "agent"]).args(flags))?;
    Ok(workspace::target().join(folder).join("remora"))
}

/// Sets up, builds the agent and these programs of `tests`; gives the command that runs the first of them as root, with
/// that agent.
pub(crate) fn beside_agent(programs: &[&str]) -> Result<Command> {
    let toolchain = setup::for_build()?;
    setup::for_run()?;
    setup::for_tests()?;
    let binary = agent(&toolchain, Profile::Release)?;
    let mut build = exec::cargo();
    build.args(["build", "--release", "--package", "tests"]);
    build.args(programs.iter().flat_map(|program| ["--bin", program]));
    exec::run(&mut build)?;
    let program = workspace::target().join("release").join(programs.first().copied().unwrap_or_default());
    let mut command = exec::as_root(&program.to_string_lossy(), &["--preserve-env"])?;
    command.env("REMORA_BIN", binary);
    Ok(command)
}
