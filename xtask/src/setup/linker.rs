//! bpf-linker. It reads the bitcode that rustc's LLVM writes, so its own LLVM has to be that one or a newer one: LLVM
//! reads the bitcode of older releases, not of newer ones.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Toolchain, debian, doing};
use crate::exec;

/// Pinned, so that every build of one commit links the same way.
const VERSION: &str = "0.13.0";
/// The LLVM releases that this version can be built with: its features `llvm-21` and so on.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// What is known about an installed bpf-linker.
#[derive(Debug, PartialEq)]
enum Installed {
    No,
    /// Of another version, or does not start (its libLLVM was removed).
    Unfit(String),
    /// Of the pinned version; the LLVM is unknown when it did not come by `cargo install` (a release tarball,
    /// cargo-binstall): those carry the newest LLVM inside.
    Fit {
        llvm: Option<u32>,
    },
}

/// Makes sure of a bpf-linker that can read what the toolchain writes; returns what it is.
pub(super) fn ensure(toolchain: &Toolchain) -> Result<String> {
    let installed = installed();
    match &installed {
        Installed::Fit { llvm: None } => {
            return Ok(format!(
                "{VERSION} (not from `cargo install`: taken to carry LLVM {} or newer)",
                toolchain.llvm
            ));
        }
        Installed::Fit { llvm: Some(llvm) } if *llvm >= toolchain.llvm => {
            return Ok(format!("{VERSION} with LLVM {llvm}"));
        }
        Installed::Fit { llvm: Some(llvm) } => {
            doing(&format!("its LLVM {llvm} cannot read what LLVM {} wrote", toolchain.llvm))
        }
        Installed::Unfit(why) => doing(&format!("cannot use the one that is there: {why}")),
        Installed::No => {}
    }
    let llvm = toolchain.llvm;
    let prefix = match llvm_prefix(llvm) {
        Some(prefix) => prefix,
        None if debian::is_here() => {
            debian::install(&[&format!("llvm-{llvm}-dev")])?;
            llvm_prefix(llvm)
                .with_context(|| format!("llvm-{llvm}-dev is installed, but LLVM {llvm} is not where it should be"))?
        }
        None => bail!("{}", advice(llvm)),
    };
    let feature = format!("llvm-{llvm}");
    let mut install = exec::cargo();
    // Its own target directory, not the workspace's; from outside the workspace, whose settings are not meant for it.
    install.current_dir("/").env_remove("CARGO_TARGET_DIR").env("LLVM_PREFIX", prefix);
    install.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"]);
    install.args(["--no-default-features", "--features", &feature]);
    doing(&format!("{} (about a minute)", exec::show(&install)));
    exec::run(&mut install)?;
    match self::installed() {
        Installed::Fit { .. } => Ok(format!("{VERSION} with LLVM {llvm}, installed just now")),
        other => bail!("bpf-linker was installed, but is not usable: {other:?}"),
    }
}

/// Whether a linker for this toolchain is there or can be had; else why not.
pub(super) fn can_follow(toolchain: &Toolchain) -> Result<(), String> {
    let llvm = toolchain.llvm;
    let fits = matches!(installed(), Installed::Fit { llvm: found } if found.is_none_or(|found| found >= llvm));
    let buildable = LLVM.contains(&llvm)
        && (llvm_prefix(llvm).is_some()
            || debian::is_here()
                && debian::refresh_empty_lists().is_ok()
                && debian::knows(&format!("llvm-{llvm}-dev")));
    if fits || buildable { Ok(()) } else { Err(advice(llvm)) }
}

fn advice(llvm: u32) -> String {
    format!(
        "bpf-linker {VERSION} for LLVM {llvm} is missing: `cargo binstall bpf-linker@{VERSION}`, or install the development files of \
         LLVM {llvm} and set LLVM_PREFIX to where they are"
    )
}

fn installed() -> Installed {
    let mut query = Command::new("bpf-linker");
    exec::with_cargo_bin(&mut query);
    match exec::output(query.arg("--version")) {
        Ok(text) => {
            let version = text.split_whitespace().last().unwrap_or_default();
            if version == VERSION {
                Installed::Fit { llvm: llvm_of_install(&cargo_record()) }
            } else {
                Installed::Unfit(format!("version {version} instead of {VERSION}"))
            }
        }
        Err(_) if !exec::cargo_home().join("bin/bpf-linker").exists() => Installed::No,
        Err(error) => Installed::Unfit(format!("{error:#}")),
    }
}

/// What `cargo install` noted about what it installed; its form is not promised, so what is not understood counts as
/// unknown.
fn cargo_record() -> Value {
    let root = env::var_os("CARGO_INSTALL_ROOT").map_or_else(exec::cargo_home, PathBuf::from);
    let text = fs::read_to_string(root.join(".crates2.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn llvm_of_install(record: &Value) -> Option<u32> {
    let wanted = format!("bpf-linker {VERSION} ");
    let installs = record.get("installs")?.as_object()?;
    let (_, install) = installs.iter().find(|(name, _)| name.starts_with(&wanted))?;
    let features = install.get("features")?.as_array()?.iter().filter_map(Value::as_str);
    features.filter_map(|feature| feature.strip_prefix("llvm-")?.parse().ok()).next()
}

/// Where the development files of this LLVM are: `LLVM_PREFIX` if set, else where the distributions put them.
fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        return Some(PathBuf::from(prefix));
    }
    [format!("/usr/lib/llvm-{llvm}"), format!("/usr/lib/llvm{llvm}"), format!("/usr/lib64/llvm{llvm}")]
        .into_iter()
        .map(PathBuf::from)
        .find(|prefix| has_shared_llvm(prefix, llvm))
}

fn has_shared_llvm(prefix: &Path, llvm: u32) -> bool {
    ["lib", "lib64"].iter().any(|lib| {
        prefix.join(lib).join(format!("libLLVM-{llvm}.so")).exists() || prefix.join(lib).join("libLLVM.so").exists()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_the_llvm_of_an_install() {
        let record = |name: &str, features: &[&str]| json!({ "installs": { name: { "features": features } } });
        let registry = "(registry+https://example)";
        assert_eq!(llvm_of_install(&record(&format!("bpf-linker {VERSION} {registry}"), &["llvm-22"])), Some(22));
        assert_eq!(llvm_of_install(&record(&format!("bpf-linker {VERSION} {registry}"), &[])), None);
        assert_eq!(llvm_of_install(&record(&format!("bpf-linker 0.9.0 {registry}"), &["llvm-22"])), None);
        assert_eq!(llvm_of_install(&Value::Null), None);
    }
}
