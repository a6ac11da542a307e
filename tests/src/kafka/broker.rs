//! The broker.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::wire;
use crate::process::Process;
use crate::{env, fixture, wait};

/// The versions that `cargo xtask setup --tests` brings; the first is what the Java client is of.
pub const VERSIONS: [&str; 2] = ["4.1.1", "3.9.1"];

/// What a start may take on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// The ports are chosen before the broker takes them: another process may come first.
const ATTEMPTS: usize = 3;
/// A UUID in Kafka's form of base64.
const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";

/// One node that is broker and controller (KRaft). Ended on drop, and its data removed.
pub struct Broker {
    pub port: u16,
    process: Process,
    _folder: TempDir,
}

impl Broker {
    /// Starts one of [`VERSIONS`] and waits until it answers.
    pub fn start(version: &str) -> Result<Self> {
        for _ in 1..ATTEMPTS {
            match Self::attempt(version) {
                Err(error) if format!("{error:#}").contains("Address already in use") => {}
                done => return done,
            }
        }
        Self::attempt(version)
    }

    fn attempt(version: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let (port, controller) = (fixture::free_port()?, fixture::free_port()?);
        let settings = folder.path().join("server.properties");
        std::fs::write(&settings, properties(port, controller, &folder.path().join("data")))?;
        let format =
            java(version).args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]).arg(&settings).output();
        let format = format.context("java cannot be run")?;
        if !format.status.success() {
            bail!("Kafka {version} cannot be set up: {}", String::from_utf8_lossy(&format.stderr));
        }
        let process = Process::spawn(java(version).arg("kafka.Kafka").arg(&settings))?;
        let mut broker = Self { port, process, _folder: folder };
        let ready = wait::until(DEADLINE, "the broker answers", || {
            if let Some(status) = broker.process.ended()? {
                let (_, stderr) = broker.process.wait(DEADLINE)?;
                bail!("it ended with {status}: {stderr}");
            }
            Ok(wire::api_versions(port).ok())
        });
        ready.with_context(|| format!("Kafka {version} says: {}", broker.process.stderr()))?;
        Ok(broker)
    }

    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has warned of until now.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Makes a topic, and waits until nobody who sends to it has to try again.
    pub fn create(&self, topic: &str, partitions: i32) -> Result<()> {
        wire::create_topic(self.port, topic, partitions).with_context(|| format!("cannot make the topic {topic}"))?;
        (0..partitions).try_for_each(|partition| {
            wait::until(DEADLINE, &format!("partition {partition} of {topic} is there"), || {
                Ok(wire::has_partition(self.port, topic, partition)?.then_some(()))
            })
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // To leave the cluster in order takes seconds, and nothing of it is kept.
        let _ = self.process.signal(Signal::SIGKILL);
    }
}

/// A Java program of this version of Kafka.
fn java(version: &str) -> Command {
    let mut command = Command::new(env::which("java").unwrap_or_default());
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
    command.arg("-classpath").arg(env::kafka(version).join("*"));
    command
}

fn properties(port: u16, controller: u16, data: &Path) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
num.partitions=2
auto.create.topics.enable=true
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=500
log.cleaner.enable=false
",
        data = data.display()
    )
}
