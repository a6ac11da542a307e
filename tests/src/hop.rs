//! Services that call one after the other, some of them instrumented by OpenTelemetry's own SDKs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::fixture::{self, Language};
use crate::otlp::Receiver;
use crate::process::Process;

/// What a start may take on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// How a hop is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Plain,
    /// Not instrumented, but it passes trace context on as it came.
    Forwarding,
    Sdk,
}

/// A service that is listening.
pub struct Hop {
    /// `service.name` of its spans.
    pub name: String,
    pub port: u16,
    pub pid: u32,
    pub make: Make,
    _process: Process,
}

impl Hop {
    /// Starts `hop` of Python or Node; `next` is whom it calls. SDKs export to `receiver`.
    fn start(name: String, language: Language, make: Make, next: Option<&Self>, receiver: &Receiver) -> Result<Self> {
        let mut command = fixture::program(language, "hop");
        command.env("OTEL_SERVICE_NAME", &name);
        if let Some(next) = next {
            command.args(["--next", &format!("http://127.0.0.1:{}", next.port)]);
        }
        match make {
            Make::Plain => {}
            Make::Forwarding => drop(command.arg("--forward")),
            Make::Sdk => instrument(&mut command, receiver),
        }
        let process = Process::spawn(&mut command)?;
        let announced = process.announcement(DEADLINE)?;
        let port = announced.get("port").and_then(serde_json::Value::as_u64).context("the hop announces no port")?;
        Ok(Self { name, port: u16::try_from(port)?, pid: process.pid(), make, _process: process })
    }

    /// Starts hops that call one another in this order; the first is the one to ask.
    pub fn chain(hops: &[(Language, Make)], receiver: &Receiver) -> Result<Vec<Self>> {
        let mut chain: Vec<Self> = Vec::new();
        for (number, (language, make)) in hops.iter().enumerate().rev() {
            let hop = Self::start(format!("hop{number}"), *language, *make, chain.last(), receiver)?;
            chain.push(hop);
        }
        chain.reverse();
        Ok(chain)
    }
}

fn instrument(command: &mut Command, receiver: &Receiver) {
    command.arg("--sdk").envs([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint().as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_NODE_RESOURCE_DETECTORS", "env"),
        // Milliseconds.
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ]);
}
