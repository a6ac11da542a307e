//! `cargo xtask vm`: boots other kernels under software emulation, with the agent, a server and clients inside, and
//! compares the spans with the requests. The host's kernel is not touched, and nothing of this needs root.

mod image;
mod kernel;
mod ktls;
mod machine;
mod report;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail, ensure};

use crate::{
    build::{self, Profile},
    setup, workspace,
};
use kernel::{KERNELS, Vmlinuz};
use report::Report;

/// From power on to power off. With propagation a run takes about a quarter of this on an idle machine: under emulation the verifier
/// needs half a minute for the programs of each of three agents.
const DEADLINE: Duration = Duration::from_secs(600);
/// How much of the console is shown of a run that failed.
const TAIL: usize = 60;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel to boot, of Debian's packages for virtual machines
    #[arg(long, value_parser = names(), default_value = ALL)]
    kernel: String,
    /// An agent that was built before, instead of building it now
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Flags for `remora run` in the virtual machine, after `--`
    #[arg(last = true)]
    flags: Vec<OsString>,
}

/// The value of `--kernel` that means every one.
const ALL: &str = "all";

fn names() -> Vec<&'static str> {
    KERNELS.iter().map(|kernel| kernel.name).chain([ALL]).collect()
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "the virtual machine is an x86-64 one, and so must the agent's build be"
    );
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build::agent(&setup::for_build()?, Profile::Release)?,
    };
    setup::for_vm()?;
    let fields = args.flags.iter().any(|flag| flag == "headers");
    let chosen = KERNELS.iter().filter(|kernel| args.kernel == ALL || args.kernel == kernel.name);
    let kernels = chosen.map(kernel::ensure).collect::<Result<Vec<_>>>()?;
    let image = image::make(&binary, &args.flags, &kernels)?;
    let mut results = Vec::new();
    let mut failed = 0;
    for kernel in &kernels {
        let result = boot(kernel, &image, fields)?;
        failed += usize::from(!result.passed);
        results.push(result.line);
    }
    println!();
    for line in &results {
        println!("{line}");
    }
    if failed > 0 {
        bail!("failed on {failed} of {} kernels", results.len());
    }
    Ok(())
}

struct Verdict {
    passed: bool,
    line: String,
}

/// Boots one kernel and judges what came of it.
fn boot(vmlinuz: &Vmlinuz, image: &Path, fields: bool) -> Result<Verdict> {
    eprintln!("\n== {} (at most {} s)", vmlinuz.release, DEADLINE.as_secs());
    let folder = folder().join("runs").join(&vmlinuz.release);
    let run = machine::run(&vmlinuz.file, image, &folder, DEADLINE)?;
    let report = Report::parse(&run.results);
    let mut faults = report.faults(fields);
    if run.timed_out {
        faults.insert(0, format!("not done within {} s", DEADLINE.as_secs()));
    }
    let seconds = run.took.as_secs();
    let outcome = if faults.is_empty() { "passed" } else { "FAILED" };
    let line = format!("{}: {outcome}: {}; {seconds} s", vmlinuz.release, report.summary());
    if !faults.is_empty() {
        for fault in &faults {
            eprintln!("   {fault}");
        }
        let logs = report.logs().map(|lines| ("the agent", lines));
        for (what, lines) in logs.chain([("the check", &*report.check_log)]) {
            if !lines.is_empty() {
                eprintln!("-- {what} says:\n{}", lines.join("\n"));
            }
        }
        let tail = run.console.get(run.console.len().saturating_sub(TAIL)..).unwrap_or_default();
        eprintln!(
            "-- the end of the console (all of it, and the results, are in {}):\n{}",
            folder.display(),
            tail.join("\n")
        );
    }
    Ok(Verdict { passed: faults.is_empty(), line })
}

/// Where all of this is kept.
fn folder() -> PathBuf {
    workspace::target().join("vm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_named_by_their_series() {
        assert_eq!(names(), ["6.1", "6.12", "newest", "all"]);
    }
}
