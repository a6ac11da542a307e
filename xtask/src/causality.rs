//! `cargo xtask causality`: recorded traces, replayed through what finds parents within a process.

use std::ffi::OsString;

use anyhow::Result;

use crate::exec;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Sets of recorded traces (.jsonl, .jsonl.gz), and --errors or --sockets-only; '-- --help' tells of these
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "FILE")]
    files: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // Cargo runs it in the workspace's folder.
    let files = args.files.iter().map(|file| match file.to_string_lossy().starts_with('-') {
        true => Ok(file.clone()),
        false => Ok(std::path::absolute(file)?.into_os_string()),
    });
    let files: Vec<OsString> = files.collect::<Result<_>>()?;
    let mut replay = exec::cargo();
    replay.args(["run", "--quiet", "--release", "--package", "tests", "--bin", "causality", "--"]).args(&files);
    exec::run(&mut replay)
}
