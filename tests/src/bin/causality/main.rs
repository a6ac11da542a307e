//! `cargo xtask causality FILE…`: how well the agent finds parents in recorded traces, one line of JSON a set.

// By path, not through the `agent` crate: the module depends on nothing of it, and so this builds in seconds.
#[allow(dead_code, reason = "a part of the module is used")]
#[path = "../../../../agent/src/causality/mod.rs"]
mod causality;
mod replay;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Replays recorded traces through the agent's causality module and prints one line of JSON a set.
#[derive(Parser)]
#[command(name = "cargo xtask causality", bin_name = "cargo xtask causality")]
struct Args {
    /// Sets: a trace a line, as JSON, compressed with gzip or not (.jsonl, .jsonl.gz)
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print every wrong link and how confidence and truth compare, to standard error
    #[arg(long)]
    errors: bool,
    /// Add figures by part: the first name in a trace's id before a '-'
    #[arg(long)]
    parts: bool,
    /// Give a request the times of its outermost local span, not of its innermost one
    #[arg(long)]
    sockets_only: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    for file in args.files {
        match replay::Set::read(&file, args.sockets_only) {
            Ok(set) => println!("{}", replay::measure(&set, args.errors, args.parts)),
            Err(error) => {
                eprintln!("error: {}: {error}", file.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
