//! Kafka: brokers of the versions that are tested, and the Java program that is their client.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use super::{
    doing,
    fixtures::{Stamp, read},
};
use crate::{exec, workspace};

/// The newest of each generation: with 4.0 the oldest versions of all requests went, with 4.1 topic ids came to Produce.
const VERSIONS: [&str; 2] = ["4.1.1", "3.9.1"];

/// The libraries of each version, in `target/fixtures/kafka-VERSION/libs`.
pub(super) fn brokers() -> Result<String> {
    let project = workspace::root().join("tests/fixtures/java/kafka/pom.xml");
    if !project.exists() {
        return Ok(format!("skipped: there is no {}", project.display()));
    }
    let mut fetched = 0;
    for version in VERSIONS {
        let folder = workspace::fixtures().join(format!("kafka-{version}"));
        let stamp = Stamp { file: folder.join("pom.stamp"), content: read(&project)? };
        if stamp.holds() {
            continue;
        }
        let libraries = folder.join("libs");
        // Another project's libraries must not stay beside this one's.
        if libraries.exists() {
            fs::remove_dir_all(&libraries).with_context(|| format!("cannot clear {}", libraries.display()))?;
        }
        let mut fetch = Command::new("mvn");
        fetch.args(["--quiet", "--batch-mode", "dependency:copy-dependencies", "--file"]).arg(&project);
        fetch.arg(format!("-Dkafka.version={version}")).arg(format!("-DoutputDirectory={}", libraries.display()));
        doing(&exec::show(&fetch));
        exec::run(&mut fetch)?;
        stamp.set()?;
        fetched += 1;
    }
    Ok(format!("{}; {fetched} fetched just now", VERSIONS.join(" and ")))
}

/// The program of `tests/fixtures/java/kafka`, compiled into `target/fixtures/java-kafka` with the client of the first
/// version.
pub(super) fn clients() -> Result<String> {
    let source = workspace::root().join("tests/fixtures/java/kafka/Clients.java");
    if !source.exists() {
        return Ok(format!("skipped: there is no {}", source.display()));
    }
    let [version, ..] = VERSIONS;
    let classes = workspace::fixtures().join("java-kafka");
    let stamp = Stamp { file: classes.join("source.stamp"), content: format!("{version}\n{}", read(&source)?) };
    if stamp.holds() && classes.join("Clients.class").exists() {
        return Ok(format!("{} as in its source", classes.display()));
    }
    fs::create_dir_all(&classes).with_context(|| format!("cannot make {}", classes.display()))?;
    let libraries = workspace::fixtures().join(format!("kafka-{version}/libs/*"));
    let mut compile = Command::new("javac");
    compile.arg("-classpath").arg(libraries).arg("-d").arg(&classes).arg(&source);
    doing(&exec::show(&compile));
    exec::run(&mut compile)?;
    stamp.set()?;
    Ok(format!("compiled into {}", classes.display()))
}
