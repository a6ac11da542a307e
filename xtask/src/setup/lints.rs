//! rustfmt and clippy, for the user side's toolchain and for that of the kernel side.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Toolchain, debian, doing};
use crate::exec;

/// rustfmt and clippy beside the cargo that runs this task.
pub(super) fn user_side() -> Result<String> {
    let answers = |subcommand| exec::output(exec::cargo().args([subcommand, "--version"])).is_ok();
    let missing: Vec<&str> = ["fmt", "clippy"].into_iter().filter(|&subcommand| !answers(subcommand)).collect();
    if missing.is_empty() {
        return Ok("rustfmt and clippy there".to_owned());
    }
    install(None, &["rustfmt", "clippy"], &["rustfmt-web", "rust-web-clippy"])
        .with_context(|| format!("this toolchain lacks: cargo {}", missing.join(", cargo ")))?;
    Ok("rustfmt and clippy installed just now".to_owned())
}

/// clippy in the kernel side's toolchain. Not having it is no error: its compiler's own warnings stand in.
pub(super) fn kernel_side(toolchain: &Toolchain) -> String {
    if has_clippy(toolchain) {
        return "clippy there".to_owned();
    }
    // rustup has components for the toolchains it brought, not for Debian's.
    let name = toolchain.rustup_name().filter(|name| name.starts_with("nightly"));
    let components: &[&str] = if name.is_some() { &["clippy"] } else { &[] };
    match install(name, components, &["rust-web-clippy"]) {
        Ok(()) => "clippy installed just now".to_owned(),
        Err(error) => format!("no clippy, the compiler's warnings only: {error:#}"),
    }
}

/// Whether the kernel side's toolchain has clippy.
pub(crate) fn has_clippy(toolchain: &Toolchain) -> bool {
    exec::output(toolchain.command("cargo").args(["clippy", "--version"])).is_ok()
}

/// Adds the components to a toolchain of rustup (`None`: the active one), or without rustup the packages of Debian.
fn install(toolchain: Option<&str>, components: &[&str], packages: &[&str]) -> Result<()> {
    if components.is_empty() || exec::find("rustup").is_none() {
        anyhow::ensure!(debian::is_here(), "install clippy and rustfmt for this Rust toolchain");
        return debian::install(packages);
    }
    let mut add = Command::new("rustup");
    add.args(["component", "add"]).args(components);
    if let Some(toolchain) = toolchain {
        add.args(["--toolchain", toolchain]);
    }
    doing(&exec::show(&add));
    exec::run(&mut add)
}
