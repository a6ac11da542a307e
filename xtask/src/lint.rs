//! `cargo xtask lint`: formatting and clippy, warnings denied, for the user side and the kernel side apart (they build
//! for different targets, and their features must not unify).

use anyhow::{Context as _, Result, bail};

use crate::{
    exec,
    setup::{self, Toolchain},
    workspace,
};

/// The target of the kernel side.
const EBPF_TARGET: &str = "bpfel-unknown-none";

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<()> {
    let toolchain = setup::for_build()?;
    setup::for_lint(&toolchain)?;
    let parts: [Part; 3] =
        [("formatting", |_| formatting()), ("clippy, user side", user_side), ("clippy, kernel side", kernel_side)];
    // All of them, so that one run tells everything.
    let mut failures = Vec::new();
    for (what, check) in parts {
        eprintln!("lint: {what}");
        if let Err(error) = check(&toolchain) {
            failures.push(format!("{what}: {error:#}"));
        }
    }
    if !failures.is_empty() {
        bail!("lint found something\n  {}", failures.join("\n  "));
    }
    eprintln!("lint: nothing found");
    Ok(())
}

type Part = (&'static str, fn(&Toolchain) -> Result<()>);

fn formatting() -> Result<()> {
    const FIX: &str = "`cargo fmt --all` puts it right";
    exec::run(exec::cargo().args(["fmt", "--all", "--check"])).context(FIX)?;
    let fuzz = workspace::root().join("fuzz/Cargo.toml");
    if fuzz.exists() {
        // Outside the workspace, so `--all` passes it by.
        let mut check = exec::cargo();
        check.args(["fmt", "--manifest-path"]).arg(&fuzz);
        exec::run(check.arg("--check")).context("`cargo fmt --manifest-path fuzz/Cargo.toml` puts it right")?;
    }
    Ok(())
}

fn user_side(toolchain: &Toolchain) -> Result<()> {
    let mut clippy = exec::cargo();
    toolchain.name_to(&mut clippy).args(["clippy", "--workspace", "--exclude", "agent-ebpf", "--all-targets"]);
    exec::run(clippy.args(["--", "-D", "warnings"]))
}

/// Clippy for the eBPF target; the compiler's own warnings where its toolchain has no clippy and none could be had.
fn kernel_side(toolchain: &Toolchain) -> Result<()> {
    let mut cargo = toolchain.command("cargo");
    // What aya-build tells the compiler: which machine's registers a system call leaves its arguments in.
    let machine = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    cargo.env("RUSTFLAGS", format!("{machine} -Dwarnings"));
    cargo.arg(if setup::has_clippy(toolchain) { "clippy" } else { "check" });
    cargo.args(["--package", "agent-ebpf", "--release", "--target", EBPF_TARGET, "-Z", "build-std=core"]);
    // Apart from the target directory that cargo holds a lock on while it runs the build script.
    exec::run(cargo.arg("--target-dir").arg(workspace::target().join("lint-ebpf")))
}
