//! What the rest of the agent tells the listener.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::signal::span::{Kind, SpanKind};

/// Where the listener gets everything but spans from. Each call answers from memory at once, without waiting for
/// anything but a short lock.
pub trait Source: Send + Sync + 'static {
    /// The metrics in a format that `accept` (the request's `Accept`) allows, with their content type. May take some
    /// milliseconds; never called twice at the same time.
    fn metrics(&self, accept: Option<&str>) -> (&'static str, String);

    /// Requests by service and kind. Called at most twice a second, whatever the number of viewers.
    fn services(&self) -> Services;

    /// The agent's own health. Called at most twice a second, whatever the number of viewers.
    fn stats(&self) -> Stats;

    /// `Ok` once capture is attached and exporting is set up; otherwise what is missing.
    fn ready(&self) -> Result<(), String>;
}

/// Requests by service and kind.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// The time before now that rates and quantiles are about.
    pub window: Duration,
    pub rows: Vec<ServiceRow>,
}

/// The requests that one service answered (server) or made (client).
#[derive(Clone, Debug, Serialize)]
pub struct ServiceRow {
    /// `service.name`.
    pub service: Box<str>,
    #[serde(serialize_with = "kind")]
    pub kind: Kind,
    /// Since the agent's start.
    pub requests: u64,
    /// Those of them whose span's status is an error.
    pub errors: u64,
    /// Requests per second.
    pub rate: f64,
    /// The part of the requests that were errors, 0 to 1; `None` without requests.
    pub error_rate: Option<f64>,
    /// Quantiles of the duration in milliseconds; `None` without requests.
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

fn kind<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(SpanKind::from(*kind).name())
}

/// The agent's own health. Counts are since its start and only grow.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    pub version: &'static str,
    pub uptime_seconds: f64,
    /// Records read from the kernel's rings.
    pub records: u64,
    /// Connections followed now.
    pub connections: u64,
    /// Requests with their response or failure.
    pub exchanges: u64,
    /// Spans given to the exporters.
    pub spans: u64,
    /// Spans left out by sampling.
    pub sampled_out: u64,
    /// Every loss, by place and reason; reasons that never came up may be left out.
    pub drops: Vec<Drops>,
    pub exporters: Vec<ExporterStats>,
    /// Processor time used, user and system.
    pub cpu_seconds: f64,
    pub resident_octets: u64,
}

/// Losses of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Drops {
    /// The part of the agent that lost something, such as `kernel`.
    pub stage: &'static str,
    pub reason: &'static str,
    pub count: u64,
}

/// One way out for spans.
#[derive(Clone, Debug, Serialize)]
pub struct ExporterStats {
    /// Such as `otlp` or `file`.
    pub name: &'static str,
    pub exported: u64,
    pub dropped: u64,
    /// Spans waiting.
    pub queue: u64,
    pub queue_capacity: u64,
    /// Why it does not work at the moment.
    pub problem: Option<String>,
}
