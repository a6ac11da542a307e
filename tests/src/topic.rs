//! The mesh's order topic: the order service puts a record into it for each order, before it answers, and a service that
//! reads it asks the stock service because of each:
//!
//! ```text
//! orders ─▶ topic ─▶ shipping ─▶ stock ─▶ rates
//! Node      Kafka    Python      Java     Go
//! ```

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::kafka::{Broker, Record, VERSIONS};
use crate::process::Process;
use crate::{env, fixture, truth, wait};

const NAME: &str = "orders";
/// What the truth of calls begins with that the service makes which reads the topic.
pub const SHIPPED: &str = "shipped-";
/// What a start may take on a loaded machine, and what the records that still wait may.
const DEADLINE: Duration = Duration::from_secs(60);

/// The broker, and the service that reads; ended on drop, that service first.
pub struct Topic {
    shipping: Option<Process>,
    pub broker: Broker,
    folder: TempDir,
}

impl Topic {
    /// Nothing, with the reason said, where what it needs is not there.
    pub fn if_possible() -> Result<Option<Self>> {
        if let Some(missing) = env::missing(&["topic"]) {
            eprintln!("no order topic: {missing}");
            return Ok(None);
        }
        Self::start().map(Some)
    }

    /// The broker alone, with the topic.
    pub fn start() -> Result<Self> {
        let broker = Broker::start(VERSIONS[0])?;
        broker.create(NAME, 2)?;
        Ok(Self { shipping: None, broker, folder: TempDir::new()? })
    }

    /// What the service that fills the topic is told, or the one that reads it.
    fn told(&self, log: &str) -> [(&'static str, String); 3] {
        let log = self.log(log).display().to_string();
        [("KAFKA", self.broker.bootstrap()), ("TOPIC", NAME.to_owned()), ("TRUTH_LOG", log)]
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the order service is told.
    pub(crate) fn environment(&self) -> [(&'static str, String); 3] {
        self.told("sent")
    }

    /// Starts the service that reads, and asks `stock`.
    pub(crate) fn read(&mut self, stock: u16) -> Result<()> {
        let mut command = fixture::python("shipping");
        command.envs(self.told("received")).env("STOCK_URL", format!("http://127.0.0.1:{stock}"));
        let process = Process::spawn(&mut command)?;
        process.announcement(DEADLINE).context("the service shipping")?;
        self.shipping = Some(process);
        Ok(())
    }

    /// Waits until all that was sent has been received and asked about; gives what was sent.
    pub fn settled(&self) -> Result<Vec<Record>> {
        wait::until(DEADLINE, "all records are received", || {
            let (sent, received) = (truth::logged(&self.log("sent")), truth::logged(&self.log("received")));
            Ok((received >= sent).then_some(()))
        })
        .with_context(|| self.shipping.as_ref().map(Process::stderr).unwrap_or_default())?;
        truth::lines(&self.log("sent"))
    }
}
