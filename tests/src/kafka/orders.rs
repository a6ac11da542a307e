//! A service that puts what it is asked for into a topic.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{Broker, Produce, Record};
use crate::fixture::{self, Language};
use crate::process::Process;
use crate::{order, truth};

/// What a start may take on a loaded machine, and an order.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the service is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// The standard library's server, a thread for each connection, with librdkafka.
    Python,
    /// net/http and franz-go.
    Go,
}

/// Takes `POST /order?of=K`, and answers when the broker has acknowledged the record.
pub struct Orders {
    pub port: u16,
    process: Process,
    plan: Produce,
    _folder: TempDir,
}

impl Orders {
    /// Records go to the plan's topic, by its settings. With `traceparent` each has that of its request, or else one of
    /// the service's own. The port is given, so that an agent can be told before.
    pub fn start(taker: Taker, broker: &Broker, plan: &Produce, port: u16) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut plan = plan.clone().batch(1);
        (plan.bootstrap, plan.log) = (broker.bootstrap(), folder.path().join("orders.log"));
        plan.client = format!("{taker:?}-orders");
        let text = serde_json::to_string(&plan)?;
        let mut command = match taker {
            Taker::Python => fixture::python("kafka_orders"),
            Taker::Go => fixture::program(Language::Go, "kafka"),
        };
        if taker == Taker::Go {
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

    /// What it was told of the records until now.
    pub fn sent(&self) -> Result<Vec<Record>> {
        truth::lines(&self.plan.log)
    }
}
