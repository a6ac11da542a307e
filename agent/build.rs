//! Builds the kernel side and puts its object where `agent` includes it from.

use std::path::Path;
use std::process::Command;

use aya_build::{Package, Toolchain, build_ebpf};

/// The toolchain that builds for `bpfel-unknown-none`, as rustup calls it; `cargo xtask setup` provides one.
const TOOLCHAIN: &str = "REMORA_EBPF_TOOLCHAIN";

/// In the order of preference: the usual one, and a distribution's compiler made known to rustup.
const KNOWN: [&str; 2] = ["nightly", "debian"];

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    println!("cargo:rerun-if-changed=../agent-common/src");
    let chosen = std::env::var(TOOLCHAIN).ok();
    let toolchain = chosen.as_deref().or_else(|| KNOWN.into_iter().find(|name| has_library_source(name)));
    let toolchain = toolchain.unwrap_or("nightly");
    if !toolchain.starts_with("nightly") {
        // The kernel side builds `core` itself, which a stable compiler only does when told to.
        // SAFETY: nothing else runs in this process yet.
        unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    let package = Package { name: "agent-ebpf", root_dir: "../agent-ebpf", no_default_features: false, features: &[] };
    build_ebpf([package], Toolchain::Custom(toolchain))
}

/// Whether a toolchain is there with the source of `core`.
fn has_library_source(toolchain: &str) -> bool {
    let output = Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]).output();
    output.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").exists()
    })
}
