//! Publishers and consumers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde::Serialize;
use tempfile::TempDir;

use super::{Broker, Consume, Message, Produce};
use crate::fixture::{self, Language};
use crate::process::Process;
use crate::tls::{Credentials, VARIABLE};
use crate::{env, truth, wait};

/// What a start or a plan of a few hundred messages may take on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The clients' libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Python's.
    Pika,
    /// Node's.
    Amqplib,
    /// Go's.
    Amqp091,
    /// RabbitMQ's own.
    Java,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Pika, Self::Amqplib, Self::Amqp091, Self::Java];

    /// Its program, with a role and a plan.
    fn planned(self, role: &str, plan: &impl Serialize) -> Result<Command> {
        let mut command = match self {
            Self::Pika => fixture::python("rabbit_clients"),
            Self::Amqplib => fixture::program(Language::Node, "rabbit"),
            Self::Amqp091 => fixture::program(Language::Go, "rabbit"),
            Self::Java => {
                let mut command = Command::new(env::which("java").unwrap_or_default());
                command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
                command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn").arg("-classpath");
                let place = env::java_rabbit();
                command.arg(format!("{0}:{0}/*", place.display())).arg("Rabbit");
                command
            }
        };
        command.arg(role).arg(serde_json::to_string(plan)?);
        Ok(command)
    }

    /// The program by which `Pika` runs, as another one: an executable of this name in this folder.
    fn copied(command: &Command, copy: &Path) -> Result<Command> {
        let python = env::python();
        std::fs::copy(&python, copy)?;
        let packages = python.parent().and_then(Path::parent).context("no environment")?.join("lib");
        let version = std::fs::read_dir(&packages)?.next().context("no packages")??.path();
        let mut other = Command::new(copy);
        other.args(command.get_args()).env("PYTHONDONTWRITEBYTECODE", "1");
        other.env("PYTHONPATH", version.join("site-packages"));
        Ok(other)
    }

    /// The same by TLS, where there are credentials.
    fn start(self, role: &str, plan: &impl Serialize, credentials: Option<&Credentials>) -> Result<Process> {
        let mut command = self.planned(role, plan)?;
        if let Some(credentials) = credentials {
            command.env(VARIABLE, credentials.folder());
        }
        Process::spawn(&mut command)
    }
}

/// A client that publishes.
pub struct Producer {
    kind: Kind,
    process: Process,
    plan: Produce,
    _folder: TempDir,
}

impl Producer {
    pub fn start(kind: Kind, broker: &Broker, plan: &Produce) -> Result<Self> {
        Self::start_at(kind, broker.port, plan, None)
    }

    /// By TLS.
    pub fn start_tls(kind: Kind, broker: &Broker, plan: &Produce, credentials: &Credentials) -> Result<Self> {
        Self::start_at(kind, broker.tls_port.context("the broker does not speak TLS")?, plan, Some(credentials))
    }

    fn start_at(kind: Kind, port: u16, plan: &Produce, credentials: Option<&Credentials>) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut plan = plan.clone();
        (plan.port, plan.log) = (port, folder.path().join("producer.log"));
        if plan.client.is_empty() {
            plan.client = format!("{kind:?}-producer");
        }
        Ok(Self { kind, process: kind.start("produce", &plan, credentials)?, plan, _folder: folder })
    }

    /// Pika, run by an executable of another name.
    pub fn start_as(name: &str, broker: &Broker, plan: &Produce) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut plan = plan.clone();
        (plan.port, plan.log, plan.client) = (broker.port, folder.path().join("producer.log"), name.to_owned());
        let command = Kind::Pika.planned("produce", &plan)?;
        let process = Process::spawn(&mut Kind::copied(&command, &folder.path().join(name))?)?;
        Ok(Self { kind: Kind::Pika, process, plan, _folder: folder })
    }

    /// Publishes all of a plan; gives what it was told of each message.
    pub fn run(kind: Kind, broker: &Broker, plan: &Produce) -> Result<Vec<Message>> {
        Self::start(kind, broker, plan)?.finish()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How many messages it has been told of until now.
    #[must_use]
    pub fn done(&self) -> usize {
        truth::logged(&self.plan.log)
    }

    /// Waits until it has been told of `count` more.
    pub fn does_more(&self, count: usize) -> Result<()> {
        let goal = self.done() + count;
        wait::until(DEADLINE, &format!("the producer has sent {goal} messages"), || {
            Ok((self.done() >= goal).then_some(()))
        })
    }

    /// Waits for its end; gives what it was told of all of the plan.
    pub fn finish(self) -> Result<Vec<Message>> {
        let Self { kind, process, plan, _folder } = self;
        process.succeed(DEADLINE).with_context(|| format!("{kind:?} with {plan:?}"))?;
        let messages = truth::lines(&plan.log)?;
        ensure!(messages.len() == plan.count, "{kind:?} was told of {} of {} messages", messages.len(), plan.count);
        Ok(messages)
    }

    /// Asks it to stop after the current batch; gives what it was told.
    pub fn stop(mut self) -> Result<Vec<Message>> {
        self.process.tell("stop")?;
        self.process.succeed(DEADLINE)?;
        truth::lines(&self.plan.log)
    }
}

/// A client that receives messages. It is there for those that are sent when it has been started.
pub struct Consumer {
    pub kind: Kind,
    process: Process,
    plan: Consume,
    _folder: TempDir,
}

impl Consumer {
    pub fn start(kind: Kind, broker: &Broker, plan: &Consume) -> Result<Self> {
        Self::start_at(kind, broker.port, plan, None)
    }

    /// By TLS.
    pub fn start_tls(kind: Kind, broker: &Broker, plan: &Consume, credentials: &Credentials) -> Result<Self> {
        Self::start_at(kind, broker.tls_port.context("the broker does not speak TLS")?, plan, Some(credentials))
    }

    fn start_at(kind: Kind, port: u16, plan: &Consume, credentials: Option<&Credentials>) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut plan = plan.clone();
        (plan.port, plan.log) = (port, folder.path().join("consumer.log"));
        if plan.client.is_empty() {
            plan.client = format!("{kind:?}-consumer");
        }
        let process = kind.start("consume", &plan, credentials)?;
        process.announcement(DEADLINE).with_context(|| format!("{kind:?} with {plan:?}"))?;
        Ok(Self { kind, process, plan, _folder: folder })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How many deliveries it has had until now.
    #[must_use]
    pub fn done(&self) -> usize {
        truth::logged(&self.plan.log)
    }

    /// What it has received until now.
    pub fn received(&self) -> Result<Vec<Message>> {
        truth::lines(&self.plan.log)
    }

    /// Waits until it has had `count` deliveries.
    pub fn receives(&self, count: usize) -> Result<()> {
        let done = || Ok((self.done() >= count).then_some(()));
        let all = wait::until(DEADLINE, &format!("{count} messages are received"), done);
        all.with_context(|| format!("{} are; {:?} says: {}", self.done(), self.kind, self.process.stderr()))
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(DEADLINE).map(drop)
    }

    /// Asks it to end; gives what it has received.
    pub fn stop(mut self) -> Result<Vec<Message>> {
        self.process.tell("stop")?;
        self.process.succeed(DEADLINE).with_context(|| format!("{:?} with {:?}", self.kind, self.plan))?;
        truth::lines(&self.plan.log)
    }
}
