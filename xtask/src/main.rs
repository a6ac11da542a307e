//! `cargo xtask …`: everything that is done with this repository, each as one command that anyone can run.
//!
//! One subcommand is one file with an `Args` and a `run(args)`. To add one: write the file, name it here and in
//! [`Task`].

mod accuracy;
mod bench;
mod build;
mod causality;
mod demo;
mod exec;
mod lint;
mod run;
mod setup;
mod test;
mod vm;
mod w3c;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set up, build, run and test Remora.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the build needs (with --tests also what the tests need); does nothing where all is there
    Setup(setup::Args),
    /// Set up, then build the agent with its eBPF programs
    Build(build::Args),
    /// Set up, build, then run the agent as root: cargo xtask run -- --exe 'nginx*'
    Run(run::Args),
    /// Set up, build, then run unit tests, a short fuzz run and the whole-system tests
    Test(test::Args),
    /// Set up, build, then measure the budgets: throughput, cost per call, memory, start; prints a table
    Bench(bench::Args),
    /// Set up, build, then run the agent on other kernels in a virtual machine: cargo xtask vm --kernel 6.1
    Vm(vm::Args),
    /// Replay recorded traces through what finds parents within a process; prints one line of JSON a set
    Causality(causality::Args),
    /// Set up, build, then measure how right traces are, per runtime and concurrency; prints tables
    Accuracy(accuracy::Args),
    /// Set up, build, then run services that call each other with the agent beside them, to look at
    Demo(demo::Args),
    /// Set up, build, then run W3C's harness for Trace Context against a service that knows nothing of it, with the agent
    W3c(w3c::Args),
    /// Check formatting and run clippy on both halves, with warnings denied
    Lint(lint::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup(args) => setup::run(&args),
        Task::Build(args) => build::run(&args),
        Task::Run(args) => run::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Causality(args) => causality::run(&args),
        Task::Accuracy(args) => accuracy::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::W3c(args) => w3c::run(&args),
        Task::Lint(args) => lint::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its causes on one line and no backtrace: what went wrong is another program's failure, not this one's.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
