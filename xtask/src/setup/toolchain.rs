//! The Rust toolchain that compiles the kernel side: it needs the library's source (`core` is built for the eBPF
//! target) and unstable flags of cargo, so a nightly, or any other with `RUSTC_BOOTSTRAP=1`.

use std::{env, fmt, path::Path, process::Command};

use anyhow::{Result, anyhow, bail};

use super::{debian, doing, linker};
use crate::exec;

/// Names the toolchain to the build script of `agent`; set by a user, it overrides the choice.
const VARIABLE: &str = "REMORA_EBPF_TOOLCHAIN";
/// What the Debian packages below are called once rustup knows them.
const DEBIAN: &str = "debian";
/// Debian's Rust for its browsers: the only one there that keeps up with upstream in a stable release.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// The oldest that will do, the workspace's `rust-version`.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// A toolchain that is there and has its source.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    origin: Origin,
    release: String,
    /// Major version of the LLVM that it writes bitcode with: bpf-linker must read it.
    pub(super) llvm: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum Origin {
    /// A toolchain of rustup, by name.
    Rustup(String),
    /// There is no rustup: the `rustc` and `cargo` in `PATH`.
    Path,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.origin {
            Origin::Rustup(name) => name,
            Origin::Path => "rustc in PATH (there is no rustup)",
        };
        write!(f, "{name}: rustc {}, LLVM {}", self.release, self.llvm)
    }
}

impl Toolchain {
    /// `rustc` or `cargo` of this toolchain.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.origin.command(program);
        if !self.is_nightly() {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        exec::with_cargo_bin(&mut command);
        command.current_dir(crate::workspace::root());
        command
    }

    /// Tells a cargo command which toolchain the build script of `agent` is to use.
    ///
    /// `RUSTC_BOOTSTRAP` is left to that build script: set here it would reach every crate of the user side as well, and
    /// have them all rebuilt each time that this task and plain cargo take turns.
    pub(crate) fn name_to<'a>(&self, cargo: &'a mut Command) -> &'a mut Command {
        cargo.env(VARIABLE, self.rustup_name().unwrap_or("path"))
    }

    /// rustup's name for it, if rustup knows it.
    pub(super) fn rustup_name(&self) -> Option<&str> {
        match &self.origin {
            Origin::Rustup(name) => Some(name),
            Origin::Path => None,
        }
    }

    fn is_nightly(&self) -> bool {
        self.release.contains("-nightly") || self.release.contains("-dev")
    }
}

impl Origin {
    fn command(&self, program: &str) -> Command {
        match self {
            Self::Rustup(name) => {
                let mut command = Command::new("rustup");
                // Without it, asking for a toolchain that is not there would fetch one.
                command.env("RUSTUP_AUTO_INSTALL", "0").args(["run", name, program]);
                command
            }
            Self::Path => Command::new(program),
        }
    }

    /// The toolchain if it is there, new enough and has its source; else what it lacks.
    fn probe(self) -> Result<Toolchain, String> {
        let version = exec::output(self.command("rustc").arg("-vV")).map_err(|_| "not installed".to_owned())?;
        let (release, llvm) = parse_version(&version).ok_or("its `rustc -vV` names no release and LLVM version")?;
        if !at_least(&release, OLDEST) {
            return Err(format!("rustc {release} is older than {OLDEST}"));
        }
        let sysroot =
            exec::output(self.command("rustc").args(["--print", "sysroot"])).map_err(|error| error.to_string())?;
        if !has_source(Path::new(sysroot.trim())) {
            return Err("has no library source (rust-src)".to_owned());
        }
        Ok(Toolchain { origin: self, release, llvm })
    }
}

/// Finds a toolchain, the first of: the one named by the user, rustup's nightly, Debian's; where there is none,
/// installs one.
pub(super) fn ensure() -> Result<Toolchain> {
    let rustup = exec::find("rustup").is_some();
    if let Some(name) = env::var(VARIABLE).ok().filter(|name| rustup && !name.is_empty()) {
        return Origin::Rustup(name.clone()).probe().map_err(|lack| anyhow!("{VARIABLE}={name}: {lack}"));
    }
    let mut lacks = Vec::new();
    if let Some(found) = first_usable(rustup, &mut lacks) {
        return Ok(found);
    }
    if debian::is_here() {
        debian::refresh_empty_lists()?;
        if DEBIAN_PACKAGES.into_iter().all(debian::knows) {
            debian::install(&DEBIAN_PACKAGES)?;
            if let Some(found) = first_usable(rustup, &mut lacks) {
                return Ok(found);
            }
        }
    }
    if rustup {
        doing("rustup toolchain install nightly --profile minimal --component rust-src");
        let mut install = Command::new("rustup");
        install.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
        if let Err(error) = exec::run(&mut install) {
            lacks.push(format!("nightly: {error:#}"));
        } else if let Some(found) = first_usable(rustup, &mut lacks) {
            return Ok(found);
        }
    }
    lacks.dedup();
    bail!(
        "no toolchain can compile the kernel side:\n  {}\n\
         Install one of these, then repeat:\n  \
         rustup toolchain install nightly --component rust-src    (rustup: https://rustup.rs)\n  \
         apt-get install {}    (Debian 12 with its security updates)",
        lacks.join("\n  "),
        DEBIAN_PACKAGES.join(" ")
    )
}

fn first_usable(rustup: bool, lacks: &mut Vec<String>) -> Option<Toolchain> {
    type Probe = fn() -> Result<Toolchain, String>;
    let candidates: &[(&str, Probe)] = if rustup {
        &[("nightly", || Origin::Rustup("nightly".to_owned()).probe()), ("Debian's", linked_debian)]
    } else {
        &[("rustc in PATH", || Origin::Path.probe())]
    };
    for (name, probe) in candidates {
        match probe().and_then(|found| linker::can_follow(&found).map(|()| found)) {
            Ok(found) => return Some(found),
            Err(lack) => lacks.push(format!("{name}: {lack}")),
        }
    }
    None
}

/// Debian's toolchain under the name that rustup has for it, given to it here if it has none.
fn linked_debian() -> Result<Toolchain, String> {
    let debian = Origin::Rustup(DEBIAN.to_owned());
    if !has_source(Path::new("/usr")) || !Path::new("/usr/bin/rustc").exists() || !Path::new("/usr/bin/cargo").exists()
    {
        return Err(format!("not installed ({})", DEBIAN_PACKAGES.join(" ")));
    }
    if exec::output(debian.command("rustc").arg("-vV")).is_err() {
        doing("rustup toolchain link debian /usr");
        exec::run(Command::new("rustup").args(["toolchain", "link", DEBIAN, "/usr"]))
            .map_err(|error| format!("{error:#}"))?;
    }
    debian.probe()
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}

/// Release and major version of LLVM out of `rustc -vV`.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((field("release: ")?.to_owned(), llvm))
}

fn at_least(release: &str, oldest: &str) -> bool {
    let numbers = |version: &str| {
        let mut parts = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    numbers(release) >= numbers(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_release_and_llvm() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_version(text), Some(("1.96.0".to_owned(), 22)));
        assert_eq!(parse_version("rustc 1.96.0\nrelease: 1.96.0\n"), None);
    }

    #[test]
    fn compares_releases_by_number() {
        for (release, expected) in [
            ("1.95.0", true),
            ("1.97.0-nightly", true),
            ("1.100.0", true),
            ("1.85.0", false),
            ("2.0.0", true),
            ("?", false),
        ] {
            assert_eq!(at_least(release, "1.95"), expected, "{release}");
        }
    }

    #[test]
    fn only_a_nightly_needs_no_bootstrap() {
        let toolchain = |release: &str| Toolchain { origin: Origin::Path, release: release.to_owned(), llvm: 22 };
        let has_bootstrap =
            |release| toolchain(release).command("cargo").get_envs().any(|(name, _)| name == "RUSTC_BOOTSTRAP");
        assert!(has_bootstrap("1.96.0"));
        assert!(!has_bootstrap("1.97.0-nightly"));
    }
}
