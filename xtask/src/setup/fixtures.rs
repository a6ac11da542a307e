//! What the tests start besides packaged programs: small servers and clients in Python, Node, Go and Java, with the
//! libraries they use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::doing;
use crate::{exec, workspace};

/// Pinned, so that a new release cannot fail an old commit.
const CARGO_FUZZ: &str = "0.13.2";

/// The Python environment `target/fixtures/venv`.
pub(super) fn python() -> Result<String> {
    let requirements = workspace::root().join("tests/fixtures/python/requirements.txt");
    if !requirements.exists() {
        return Ok(format!("skipped: there is no {}", requirements.display()));
    }
    let venv = workspace::fixtures().join("venv");
    let stamp = Stamp { file: venv.join("requirements.stamp"), content: read(&requirements)? };
    if stamp.holds() && venv.join("bin/python3").exists() {
        return Ok(format!("{} as required", venv.display()));
    }
    let version = exec::output(Command::new("python3").args(["-c", "import sys; print(sys.version_info >= (3, 10))"]))?;
    if version.trim() != "True" {
        bail!("python3 is older than 3.10: put a newer one first in PATH");
    }
    doing(&format!("python3 -m venv {}", venv.display()));
    exec::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut install = Command::new(venv.join("bin/python3"));
    install
        .args(["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--requirement"])
        .arg(&requirements);
    doing(&exec::show(&install));
    exec::run(&mut install)?;
    stamp.set()?;
    Ok(format!("{} made just now", venv.display()))
}

/// The packages of `tests/fixtures/node`, beside the programs: Node looks for them there.
pub(super) fn node() -> Result<String> {
    let folder = workspace::root().join("tests/fixtures/node");
    let lock = folder.join("package-lock.json");
    if !lock.exists() {
        return Ok(format!("skipped: there is no {}", lock.display()));
    }
    let stamp = Stamp { file: folder.join("node_modules/.stamp"), content: read(&lock)? };
    if stamp.holds() {
        return Ok("as in package-lock.json".to_owned());
    }
    doing("npm ci");
    exec::run(
        Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--no-update-notifier"]).current_dir(&folder),
    )?;
    stamp.set()?;
    Ok("installed just now".to_owned())
}

/// The programs of `tests/fixtures/go` and its modules for gRPC, Kafka and RabbitMQ, built into `target/fixtures/bin`.
pub(super) fn go() -> Result<String> {
    let folder = workspace::root().join("tests/fixtures/go");
    if !folder.join("go.mod").exists() {
        return Ok(format!("skipped: there is no {}", folder.join("go.mod").display()));
    }
    let bin = workspace::fixtures().join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    // Go itself knows what has changed. The revision is left out: git refuses a work tree that belongs to another user.
    let mut build = Command::new("go");
    build.args(["build", "-buildvcs=false", "-o"]).arg(format!("{}/", bin.display())).arg("./...").current_dir(&folder);
    exec::run(&mut build)?;
    // Modules of their own: what they depend on asks for a newer Go than the others are made for.
    for module in ["grpc", "kafka", "rabbit"] {
        let mut build = Command::new("go");
        build.args(["build", "-buildvcs=false", "-o"]).arg(format!("{}/", bin.display())).arg(".");
        exec::run(build.current_dir(folder.join(module)))?;
    }
    for name in ["fan", "server"] {
        let mut stripped = Command::new("go");
        stripped.args(["build", "-buildvcs=false", "-ldflags=-s -w", "-o"]).arg(bin.join(format!("{name}-stripped")));
        exec::run(stripped.arg(format!("./cmd/{name}")).current_dir(&folder))?;
    }
    Ok(format!("built into {}", bin.display()))
}

/// The programs of `tests/fixtures/java`, compiled into `target/fixtures/java`.
pub(super) fn java() -> Result<String> {
    let folder = workspace::root().join("tests/fixtures/java");
    let sources = ["Stock", "Births"].map(|name| folder.join(format!("{name}.java")));
    if let Some(missing) = sources.iter().find(|source| !source.exists()) {
        return Ok(format!("skipped: there is no {}", missing.display()));
    }
    let contents: Vec<_> = sources.iter().map(|source| read(source)).collect::<Result<_>>()?;
    let classes = workspace::fixtures().join("java");
    let stamp = Stamp { file: classes.join("source.stamp"), content: contents.concat() };
    if stamp.holds() && classes.join("Births.class").exists() {
        return Ok(format!("{} as in their sources", classes.display()));
    }
    fs::create_dir_all(&classes).with_context(|| format!("cannot make {}", classes.display()))?;
    let mut compile = Command::new("javac");
    compile.arg("-d").arg(&classes).args(&sources);
    doing(&exec::show(&compile));
    exec::run(&mut compile)?;
    stamp.set()?;
    Ok(format!("compiled into {}", classes.display()))
}

/// The program `name` of `tests/fixtures/java/FOLDER` and what its project needs, in `target/fixtures/java-FOLDER`.
pub(super) fn java_with_packages(folder: &str, name: &str) -> Result<String> {
    let source = workspace::root().join(format!("tests/fixtures/java/{folder}/{name}.java"));
    let project = source.with_file_name("pom.xml");
    if !source.exists() {
        return Ok(format!("skipped: there is no {}", source.display()));
    }
    let classes = workspace::fixtures().join(format!("java-{folder}"));
    let stamp = Stamp { file: classes.join("source.stamp"), content: [read(&project)?, read(&source)?].concat() };
    if stamp.holds() && classes.join(format!("{name}.class")).exists() {
        return Ok(format!("{} as in its source", classes.display()));
    }
    fs::create_dir_all(&classes).with_context(|| format!("cannot make {}", classes.display()))?;
    let mut fetch = Command::new("mvn");
    fetch.args(["--quiet", "--batch-mode", "dependency:copy-dependencies", "--file"]).arg(&project);
    fetch.arg(format!("-DoutputDirectory={}", classes.display()));
    doing(&exec::show(&fetch));
    exec::run(&mut fetch)?;
    let mut compile = Command::new("javac");
    compile.arg("-classpath").arg(classes.join("*")).arg("-d").arg(&classes).arg(&source);
    doing(&exec::show(&compile));
    exec::run(&mut compile)?;
    stamp.set()?;
    Ok(format!("compiled into {}", classes.display()))
}

/// Installs cargo-fuzz if there is something to fuzz. Not having it is no error: the tests then skip the fuzz run, with
/// this reason.
pub(super) fn cargo_fuzz() -> String {
    if !workspace::root().join("fuzz/Cargo.toml").exists() {
        return "skipped: there is no fuzz/Cargo.toml".to_owned();
    }
    if has_cargo_fuzz() {
        return CARGO_FUZZ.to_owned();
    }
    let mut install = exec::cargo();
    install.current_dir("/").env_remove("CARGO_TARGET_DIR");
    install.args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked", "--force"]);
    doing(&exec::show(&install));
    match exec::run(&mut install) {
        Ok(()) => format!("{CARGO_FUZZ} installed just now"),
        Err(error) => format!("skipped: {error:#}"),
    }
}

/// Whether the pinned cargo-fuzz is there.
pub(crate) fn has_cargo_fuzz() -> bool {
    let mut query = Command::new("cargo-fuzz");
    exec::with_cargo_bin(&mut query);
    exec::output(query.arg("--version")).is_ok_and(|text| text.split_whitespace().last() == Some(CARGO_FUZZ))
}

/// What was installed the last time, kept as the very text that asked for it; set only once it is complete.
pub(super) struct Stamp {
    pub(super) file: PathBuf,
    pub(super) content: String,
}

impl Stamp {
    pub(super) fn holds(&self) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|found| found == self.content)
    }

    pub(super) fn set(&self) -> Result<()> {
        fs::write(&self.file, &self.content).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

pub(super) fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
