//! The broker.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::wire;
use crate::process::Process;
use crate::tls::Credentials;
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
    /// In the clear, where the harness itself asks.
    pub port: u16,
    pub(super) tls: Option<Tls>,
    /// Where clients reach it by SASL, in the clear.
    sasl: Option<u16>,
    process: Process,
    _folder: TempDir,
}

/// Who may use a broker of [`Broker::start_sasl`], and by which password.
pub const USER: &str = "alice";
pub const PASSWORD: &str = "alice-Pa55phrase";

/// How clients reach it by TLS.
pub(super) struct Tls {
    port: u16,
    /// The file with the certificate of who vouches for it.
    pub(super) authority: PathBuf,
}

impl Broker {
    /// Starts one of [`VERSIONS`] and waits until it answers.
    pub fn start(version: &str) -> Result<Self> {
        Self::start_with(version, None, false)
    }

    /// The same, whose clients have to say who they are: [`USER`], by `PLAIN` or `SCRAM-SHA-256`.
    pub fn start_sasl(version: &str) -> Result<Self> {
        Self::start_with(version, None, true)
    }

    /// The same, whose clients do both.
    pub fn start_sasl_tls(version: &str, credentials: &Credentials) -> Result<Self> {
        Self::start_with(version, Some(credentials), true)
    }

    /// The same, whose clients speak TLS.
    pub fn start_tls(version: &str, credentials: &Credentials) -> Result<Self> {
        Self::start_with(version, Some(credentials), false)
    }

    fn start_with(version: &str, credentials: Option<&Credentials>, sasl: bool) -> Result<Self> {
        for _ in 1..ATTEMPTS {
            match Self::attempt(version, credentials, sasl) {
                Err(error) if format!("{error:#}").contains("Address already in use") => {}
                done => return done,
            }
        }
        Self::attempt(version, credentials, sasl)
    }

    fn attempt(version: &str, credentials: Option<&Credentials>, sasl: bool) -> Result<Self> {
        let folder = TempDir::new()?;
        let (port, controller) = (fixture::free_port()?, fixture::free_port()?);
        let settings = folder.path().join("server.properties");
        let mut text = properties(port, controller, &folder.path().join("data"));
        let mut tls = None;
        if let Some(credentials) = credentials {
            let port = fixture::free_port()?;
            let protocol = if sasl { "SASL_SSL" } else { "SSL" };
            text = listening(&text, protocol, port)? + &speaking_tls(credentials)?;
            tls = Some(Tls { port, authority: credentials.file("ca.pem") });
        }
        let mut format = java(version);
        format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]).arg(&settings);
        let mut clear = None;
        if sasl {
            if tls.is_none() {
                let port = fixture::free_port()?;
                text = listening(&text, "SASL_PLAINTEXT", port)?;
                clear = Some(port);
            }
            text += &asking_who(if tls.is_some() { "sasl_ssl" } else { "sasl_plaintext" });
            format.args(["-S", &format!("SCRAM-SHA-256=[name={USER},password={PASSWORD}]")]);
        }
        std::fs::write(&settings, text)?;
        let format = format.output().context("java cannot be run")?;
        if !format.status.success() {
            bail!("Kafka {version} cannot be set up: {}", String::from_utf8_lossy(&format.stderr));
        }
        let process = Process::spawn(java(version).arg("kafka.Kafka").arg(&settings))?;
        let mut broker = Self { port, tls, sasl: clear, process, _folder: folder };
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

    /// Where its clients reach it.
    #[must_use]
    pub fn clients_port(&self) -> u16 {
        self.tls.as_ref().map(|tls| tls.port).or(self.sasl).unwrap_or(self.port)
    }

    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.clients_port())
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

    /// How many records of a partition are behind what a group has committed.
    pub fn lag(&self, group: &str, topic: &str, partition: i32) -> Result<i64> {
        wire::lag(self.port, group, topic, partition)
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

/// The same settings with one more listener, by this protocol.
fn listening(settings: &str, protocol: &str, port: u16) -> Result<String> {
    let listener = format!(",{protocol}://127.0.0.1:{port}");
    let map = format!(",{protocol}:{protocol}");
    let mut text = String::new();
    for line in settings.lines() {
        let more = match line.split_once('=') {
            Some(("listeners" | "advertised.listeners", _)) => &*listener,
            Some(("listener.security.protocol.map", _)) => &*map,
            _ => "",
        };
        writeln!(text, "{line}{more}")?;
    }
    Ok(text)
}

fn speaking_tls(credentials: &Credentials) -> Result<String> {
    let store = credentials.file("store.pem");
    let read = |name| std::fs::read_to_string(credentials.file(name));
    std::fs::write(&store, read("key.pem")? + &read("cert.pem")?)?;
    Ok(format!("ssl.keystore.type=PEM\nssl.keystore.location={}\n", store.display()))
}

fn asking_who(listener: &str) -> String {
    let modules = "org.apache.kafka.common.security";
    format!(
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.{listener}.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";
listener.name.{listener}.scram-sha-256.sasl.jaas.config={modules}.scram.ScramLoginModule required;
"
    )
}
