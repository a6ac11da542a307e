//! `cargo xtask setup`: from a fresh Debian to one that builds, runs and tests Remora. Every step first looks, and does
//! nothing where all is there; only what needs root asks for `sudo`.

mod debian;
mod fixtures;
mod kafka;
mod linker;
mod lints;
mod packages;
mod toolchain;

use std::fmt::Display;

use anyhow::{Context as _, Result, bail};

use crate::exec;
pub(crate) use fixtures::has_cargo_fuzz;
pub(crate) use lints::has_clippy;
pub(crate) use toolchain::Toolchain;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also what the tests need: servers, clients, fixtures, checkers
    #[arg(long)]
    tests: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    for_build()?;
    for_run()?;
    if args.tests {
        for_tests()?;
    }
    Ok(())
}

/// What the build needs; returns the toolchain of the kernel side.
pub(crate) fn for_build() -> Result<Toolchain> {
    let toolchain = step("eBPF toolchain, to compile the kernel side", toolchain::ensure)?;
    step("bpf-linker, to link the kernel side", || linker::ensure(&toolchain))?;
    Ok(toolchain)
}

/// What the running agent needs of the host.
pub(crate) fn for_run() -> Result<()> {
    step("tracefs, to attach to tracepoints", tracefs)?;
    Ok(())
}

/// What the lints need, on top of build.
pub(crate) fn for_lint(toolchain: &Toolchain) -> Result<()> {
    step("rustfmt and clippy, for the user side", lints::user_side)?;
    step("clippy, for the kernel side", || Ok(lints::kernel_side(toolchain)))?;
    Ok(())
}

/// What unit tests and fuzz run need, on top of build: nothing that asks for root.
pub(crate) fn for_unit_tests() -> Result<()> {
    step("cargo-fuzz, for the short fuzz run", || Ok(fixtures::cargo_fuzz()))?;
    Ok(())
}

/// What all tests need, on top of build and run.
pub(crate) fn for_tests() -> Result<()> {
    step("Packages, for real servers and clients to test against", packages::for_tests)?;
    step("Python environment, for fixtures and for checking the manifest", fixtures::python)?;
    step("Node packages, for fixtures", fixtures::node)?;
    step("Go programs, for fixtures", fixtures::go)?;
    step("Java program, for fixtures", fixtures::java)?;
    step("Java program with gRPC, for fixtures", || fixtures::java_with_packages("grpc", "Calls"))?;
    step("Kafka, a broker to test against", kafka::brokers)?;
    step("Java program with Kafka's client, for fixtures", kafka::clients)?;
    step("Java program with RabbitMQ's client, for fixtures", || fixtures::java_with_packages("rabbit", "Rabbit"))?;
    for_unit_tests()
}

/// What the virtual machine with another kernel needs, on top of build.
pub(crate) fn for_vm() -> Result<()> {
    step("Packages, for a virtual machine and what runs in it", packages::for_vm)?;
    Ok(())
}

/// Runs one step: says what it is for, then what came out of it.
fn step<T: Display>(purpose: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("setup: {purpose}");
    let value = action().with_context(|| format!("set-up stopped at: {purpose}"))?;
    eprintln!("       {value}");
    Ok(value)
}

/// Says what a step is about to change.
fn doing(what: &str) {
    eprintln!("     > {what}");
}

fn tracefs() -> Result<&'static str> {
    const PATH: &str = "/sys/kernel/tracing";
    // Not by looking inside: tracefs is closed to everybody but root.
    let is_mounted = || {
        std::fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
            mounts.lines().any(|line| {
                let mut fields = line.split(' ').skip(1);
                fields.next() == Some(PATH) && fields.next() == Some("tracefs")
            })
        })
    };
    if is_mounted() {
        return Ok("mounted at /sys/kernel/tracing");
    }
    if !std::path::Path::new(PATH).exists() {
        bail!("this kernel has no {PATH}: it needs CONFIG_TRACING and CONFIG_FTRACE_SYSCALLS");
    }
    doing("mounting tracefs at /sys/kernel/tracing");
    exec::run(exec::as_root("mount", &[])?.args(["-t", "tracefs", "tracefs", PATH])).context(
        "without tracefs no tracepoint can be found; in a container, mount the host's /sys/kernel/tracing into it",
    )?;
    Ok("mounted at /sys/kernel/tracing just now")
}
