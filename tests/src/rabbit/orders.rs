//! A service that publishes what it is asked for.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{Broker, Message, Produce};
use crate::fixture::{self, Language};
use crate::process::Process;
use crate::{order, truth};

/// What a start may take on a loaded machine, and an order.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the service is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// The standard library's server, a thread for each connection, with pika.
    Python,
    /// Its own server, with amqplib.
    Node,
    /// net/http and amqp091-go.
    Go,
}

impl Taker {
    pub const ALL: [Self; 3] = [Self::Python, Self::Node, Self::Go];
}

/// Takes `POST /order?of=K`, and answers when the broker has confirmed the message.
pub struct Orders {
    pub port: u16,
    process: Process,
    plan: Produce,
    _folder: TempDir,
}

impl Orders {
    /// Messages are published by the plan's settings. With `traceparent` each has that of its request, or else one of the
    /// service's own. The port is given, so that an agent can be told before.
    pub fn start(taker: Taker, broker: &Broker, plan: &Produce, port: u16) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut plan = plan.clone();
        (plan.port, plan.log) = (broker.port, folder.path().join("orders.log"));
        plan.client = format!("{taker:?}-orders");
        let text = serde_json::to_string(&plan)?;
        let mut command = match taker {
            Taker::Python => fixture::python("rabbit_orders"),
            Taker::Node => fixture::program(Language::Node, "rabbit"),
            Taker::Go => fixture::program(Language::Go, "rabbit"),
        };
        if taker != Taker::Python {
            command.arg("orders");
        }
        let process = Process::spawn(command.arg(text).arg(port.to_string()))?;
        process.announcement(DEADLINE).context("it does not listen")?;
        Ok(Self { port, process, plan, _folder: folder })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Orders something, over a connection of its own, with this `traceparent`.
    pub fn take(&self, key: &str, traceparent: Option<&str>) -> Result<()> {
        let order = order::take(self.port, key, traceparent);
        order.with_context(|| format!("the service says: {}", self.process.stderr()))
    }

    /// All orders at once.
    pub fn take_at_once(&self, orders: &[(String, Option<String>)]) -> Result<()> {
        let all = order::take_at_once(self.port, orders);
        all.with_context(|| format!("the service says: {}", self.process.stderr()))
    }

    /// What it was told of the messages until now.
    pub fn sent(&self) -> Result<Vec<Message>> {
        truth::lines(&self.plan.log)
    }
}
