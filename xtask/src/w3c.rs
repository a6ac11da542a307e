//! `cargo xtask w3c`: what W3C's validation harness for Trace Context says of `--propagate headers`.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::{build, exec};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder `test` of a clone of the repository w3c/trace-context; no package registry has it
    harness: PathBuf,
    /// Levels of the recommendation whose cases are run
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    level: u8,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let script = args.harness.join("test.py");
    ensure!(script.is_file(), "there is no {}: name the folder `test` of w3c/trace-context", script.display());
    let mut command = build::beside_agent(&["w3c"])?;
    command.arg(args.harness.canonicalize()?).arg(args.level.to_string());
    exec::run(&mut command)
}
