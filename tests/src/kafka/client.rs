//! Producers and consumers.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tempfile::TempDir;

use super::{Broker, Consume, Offsets, PASSWORD, Produce, Record, Sasl, USER, VERSIONS, offsets};
use crate::fixture::{self, Language};
use crate::process::Process;
use crate::{env, truth, wait};

/// What a start or a plan of a few hundred records may take on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The implementations of Kafka's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Of this year, in Python.
    Librdkafka,
    /// Debian's librdkafka.
    Kcat,
    /// Kafka's own.
    Java,
    /// Node's.
    Kafkajs,
    /// Go's.
    Franz,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Librdkafka, Self::Kcat, Self::Java, Self::Kafkajs, Self::Franz];

    /// Its program, which takes a role and a plan; kcat takes neither.
    fn command(self) -> Command {
        match self {
            Self::Librdkafka => fixture::python("kafka_clients"),
            Self::Kcat => Command::new(env::which("kcat").unwrap_or_default()),
            Self::Java => {
                let mut command = Command::new(env::which("java").unwrap_or_default());
                command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
                command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn").arg("-classpath");
                command.arg(format!("{}:{}/*", env::java_kafka().display(), env::kafka(VERSIONS[0]).display()));
                command.arg("Clients");
                command
            }
            Self::Kafkajs => fixture::program(Language::Node, "kafka"),
            Self::Franz => Command::new(env::built("kafka")),
        }
    }

    fn planned(self, role: &str, plan: &impl Serialize) -> Result<Command> {
        let mut command = self.command();
        command.arg(role).arg(serde_json::to_string(plan)?);
        Ok(command)
    }
}

/// A client that sends records.
pub struct Producer {
    kind: Kind,
    process: Process,
    plan: Produce,
    _folder: TempDir,
}

impl Producer {
    pub fn start(kind: Kind, broker: &Broker, plan: &Produce) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut plan = plan.clone();
        (plan.bootstrap, plan.log) = (broker.bootstrap(), folder.path().join("producer.log"));
        plan.authority = broker.tls.as_ref().map(|tls| tls.authority.clone());
        if plan.client.is_empty() {
            plan.client = format!("{kind:?}-producer");
        }
        let mut command = match kind {
            Kind::Kcat => kcat_produce(&plan, folder.path())?,
            _ => kind.planned("produce", &plan)?,
        };
        Ok(Self { kind, process: Process::spawn(&mut command)?, plan, _folder: folder })
    }

    /// Sends all of a plan; gives what it was told of each record. Kcat tells nothing.
    pub fn run(kind: Kind, broker: &Broker, plan: &Produce) -> Result<Vec<Record>> {
        Self::start(kind, broker, plan)?.finish()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How many records it has been told of until now.
    #[must_use]
    pub fn done(&self) -> usize {
        truth::logged(&self.plan.log)
    }

    /// Waits until it has been told of `count` more.
    pub fn does_more(&self, count: usize) -> Result<()> {
        let goal = self.done() + count;
        wait::until(DEADLINE, &format!("the producer has sent {goal} records"), || {
            Ok((self.done() >= goal).then_some(()))
        })
    }

    /// Waits for its end; gives what it was told of all of the plan.
    pub fn finish(self) -> Result<Vec<Record>> {
        let Self { kind, process, plan, _folder } = self;
        process.succeed(DEADLINE).with_context(|| format!("{kind:?} with {plan:?}"))?;
        let records = truth::lines(&plan.log)?;
        let told = if kind == Kind::Kcat { 0 } else { plan.count };
        ensure!(records.len() == told, "{kind:?} was told of {} of {} records", records.len(), plan.count);
        Ok(records)
    }

    /// Asks it to stop after the current batch; gives what it was told.
    pub fn stop(mut self) -> Result<Vec<Record>> {
        self.process.tell("stop")?;
        self.process.succeed(DEADLINE)?;
        truth::lines(&self.plan.log)
    }
}

/// A client that receives records.
pub struct Consumer {
    pub kind: Kind,
    process: Process,
    plan: Consume,
    _folder: TempDir,
}

impl Consumer {
    pub fn start(kind: Kind, broker: &Broker, plan: &Consume) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut plan = plan.clone();
        (plan.bootstrap, plan.log) = (broker.bootstrap(), folder.path().join("consumer.log"));
        plan.authority = broker.tls.as_ref().map(|tls| tls.authority.clone());
        if plan.client.is_empty() {
            plan.client = format!("{kind:?}-consumer");
        }
        let mut command = match kind {
            Kind::Kcat => kcat_consume(&plan)?,
            _ => kind.planned("consume", &plan)?,
        };
        Ok(Self { kind, process: Process::spawn(&mut command)?, plan, _folder: folder })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    #[must_use]
    pub fn group(&self) -> &str {
        &self.plan.group
    }

    /// What it has received until now.
    pub fn received(&self) -> Result<Vec<Record>> {
        truth::lines(&self.plan.log)
    }

    /// Waits until it has received `count` records.
    pub fn receives(&self, count: usize) -> Result<()> {
        wait_for_group(&[self], count).map(drop)
    }

    /// Asks it to leave its group and end; gives what it has received.
    pub fn stop(mut self) -> Result<Vec<Record>> {
        if self.kind == Kind::Kcat {
            let (status, stderr) = self.process.terminate(DEADLINE)?;
            ensure!(status.success(), "kcat ended with {status}: {stderr}");
        } else {
            self.process.tell("stop")?;
            self.process.succeed(DEADLINE).with_context(|| format!("{:?} with {:?}", self.kind, self.plan))?;
        }
        truth::lines(&self.plan.log)
    }
}

/// Waits until the members of a group have together received `count` records; gives where these are. Two members may
/// receive the same record, before and after it changed hands.
pub fn wait_for_group(members: &[&Consumer], count: usize) -> Result<Offsets> {
    let mut last = 0;
    let all = wait::until(DEADLINE, &format!("{count} records are received"), || {
        let mut found = Offsets::new();
        for member in members {
            found.extend(offsets(&member.received()?)?);
        }
        last = found.len();
        Ok((last >= count).then_some(found))
    });
    all.with_context(|| {
        let say = |member: &&Consumer| format!("{:?} says: {}", member.kind, member.process.stderr());
        format!("{last} are; {}", members.iter().map(say).collect::<Vec<_>>().join("; "))
    })
}

/// What both roles of kcat are told.
fn kcat_common(mode: &str, bootstrap: &str, client: &str, reach: &Reach<'_>) -> Vec<String> {
    let mut settings = vec![("client.id", client.to_owned())];
    let protocol = match (reach.authority, reach.sasl) {
        (Some(_), Some(_)) => "sasl_ssl",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (None, None) => "plaintext",
    };
    settings.push(("security.protocol", protocol.to_owned()));
    if let Some(authority) = reach.authority {
        settings.push(("ssl.ca.location", authority.display().to_string()));
    }
    if let Some(sasl) = reach.sasl {
        settings.push(("sasl.mechanism", sasl.mechanism.to_owned()));
        settings.push(("sasl.username", USER.to_owned()));
        settings.push(("sasl.password", PASSWORD.to_owned()));
    }
    if let Some(version) = reach.taken_for {
        settings.push(("api.version.request", "false".to_owned()));
        settings.push(("broker.version.fallback", version.to_owned()));
    }
    let mut arguments = [mode, "-q", "-b", bootstrap].map(str::to_owned).to_vec();
    arguments.extend(settings.into_iter().flat_map(|(name, value)| ["-X".to_owned(), format!("{name}={value}")]));
    arguments
}

/// How a broker is reached.
struct Reach<'a> {
    authority: Option<&'a Path>,
    sasl: Option<Sasl>,
    taken_for: Option<&'static str>,
}

/// Kcat takes records from a file, and sends them as fast as it can.
fn kcat_produce(plan: &Produce, folder: &Path) -> Result<Command> {
    ensure!(plan.interval_ms == 0 && plan.batch > 1, "kcat sends all at once: {plan:?}");
    let mut lines = String::new();
    for number in 0..plan.count {
        writeln!(lines, "{}-{number}:{}", plan.key, "x".repeat(plan.size))?;
    }
    let file = folder.join("records");
    std::fs::write(&file, lines)?;
    let mut command = Kind::Kcat.command();
    let reach = Reach { authority: plan.authority.as_deref(), sasl: plan.sasl, taken_for: plan.taken_for };
    command.args(kcat_common("-P", &plan.bootstrap, &plan.client, &reach));
    command.args(["-t", &plan.topic, "-z", plan.compression, "-K", ":"]).arg("-l").arg(file);
    let mut setting = |name: &str, value: &str| {
        command.args(["-X", &format!("{name}={value}")]);
    };
    setting("acks", plan.acks);
    setting("linger.ms", "20");
    setting("batch.num.messages", &plan.batch.to_string());
    setting("enable.idempotence", if plan.idempotent { "true" } else { "false" });
    if let Some(limit) = plan.max_size {
        setting("message.max.bytes", &limit.to_string());
    }
    if let Some(id) = &plan.transaction {
        setting("transactional.id", id);
    }
    if plan.traceparent {
        command.args(["-H", "traceparent=00-0000000000000000000000000000cafe-000000000000cafe-01"]);
    }
    Ok(command)
}

/// Kcat's own format makes the truth log.
fn kcat_consume(plan: &Consume) -> Result<Command> {
    ensure!(!plan.manual && plan.next.is_none() && !plan.new_protocol, "kcat only prints: {plan:?}");
    let line = format!(
        r#"{{"role":"consumer","group":"{}","topic":"%t","partition":%p,"offset":%o,"key":"%k"}}\n"#,
        plan.group
    );
    // It writes to its standard output alone.
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$@" >"$0""#]).arg(&plan.log).arg(Kind::Kcat.command().get_program());
    let reach = Reach { authority: plan.authority.as_deref(), sasl: plan.sasl, taken_for: plan.taken_for };
    command.args(kcat_common("-u", &plan.bootstrap, &plan.client, &reach)).args(["-f", &line]);
    for setting in ["auto.offset.reset=earliest", "fetch.wait.max.ms=200", "heartbeat.interval.ms=500"] {
        command.args(["-X", setting]);
    }
    command.args(["-G", &plan.group, &plan.topic]);
    Ok(command)
}
