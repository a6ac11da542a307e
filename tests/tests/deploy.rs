//! What is in `deploy` is what Kubernetes would take.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::process::Process;
use tests::{env, needs};

/// The oldest and newest Kubernetes whose schema is asked.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

#[test]
fn the_daemonset_is_valid() -> Result<()> {
    needs!("venv");
    let manifest = env::workspace().join("deploy/daemonset.yaml");
    ensure!(manifest.is_file(), "no {}", manifest.display());
    for version in VERSIONS {
        let mut validate = Command::new(env::venv("kubernetes-validate"));
        validate.args(["--strict", "--kubernetes-version", version]).arg(&manifest);
        Process::spawn(&mut validate)?.succeed(Duration::from_secs(60))?;
    }
    Ok(())
}

/// The validator is one that can say no.
#[test]
fn an_invalid_manifest_is_refused() -> Result<()> {
    needs!("venv");
    let folder = tempfile::tempdir()?;
    let manifest = folder.path().join("wrong.yaml");
    std::fs::write(&manifest, "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: a}\nspec: {template: 1}\n")?;
    let mut validate = Command::new(env::venv("kubernetes-validate"));
    validate.args(["--strict", "--kubernetes-version", VERSIONS[0]]).arg(&manifest);
    let (status, _) = Process::spawn(&mut validate)?.wait(Duration::from_secs(60))?;
    ensure!(!status.success(), "a DaemonSet without a selector is said to be valid");
    Ok(())
}
