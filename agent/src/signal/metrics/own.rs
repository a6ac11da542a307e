//! The agent's own metrics: all instruments in one place, each with its name, unit and meaning.
//!
//! Every stage tells what came in, what went out and what it dropped by reason; every queue its length and its capacity.

use std::fmt;

use super::RegistryStats;
use super::exposition::{Exposition, Family, MetricKind, Number};

/// Counts since the agent's start and values of the moment, gathered by the caller when somebody asks.
///
/// The text in a pair is a label's value, unique in its list and one of a few; a list without entries is left out.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// The agent's version.
    pub version: &'static str,
    /// Records read, by ring.
    pub records: Vec<(&'static str, u64)>,
    /// What the kernel side could not report, by reason.
    pub kernel_drops: Vec<(&'static str, u64)>,
    /// What the kernel side did that is no loss, by what.
    pub kernel_counts: Vec<(&'static str, u64)>,
    /// Connections followed now, by protocol.
    pub connections: Vec<(&'static str, u64)>,
    /// What was found odd about connections or left out on request, by what.
    pub connection_counts: Vec<(&'static str, u64)>,
    /// Connections forgotten to make room.
    pub connections_evicted: u64,
    /// Finished exchanges, by protocol and kind.
    pub exchanges: Vec<Exchanges>,
    /// Exchanges seen in part that gave no span and no metric, by reason.
    pub exchanges_lost: Vec<(&'static str, u64)>,
    /// Spans made, those that sampling left out not among them.
    pub spans: u64,
    /// Spans by what named their parent, `none` for those without one.
    pub links: Vec<(&'static str, u64)>,
    /// What went wrong in putting traces together.
    pub trace_losses: Vec<(&'static str, u64)>,
    /// Exchanges remembered since others may depend on them.
    pub traces_open: u64,
    pub spans_sampled_out: u64,
    /// Spans left out on purpose and not by sampling, by reason.
    pub spans_left_out: Vec<(&'static str, u64)>,
    /// Processes known to make spans of their own.
    pub sdk_processes: u64,
    /// Files with functions of TLS libraries that are hooked, and the places that is at.
    pub tls_files: u64,
    pub tls_hooks: u64,
    pub table_files: u64,
    /// Spans delivered, by exporter.
    pub spans_exported: Vec<(&'static str, u64)>,
    /// Spans not delivered, by exporter and reason.
    pub spans_dropped: Vec<Dropped>,
    /// Data points of metrics delivered and not delivered by OTLP; `None` without such an export.
    pub metric_points: Option<Points>,
    pub queues: Vec<Queue>,
    /// [`crate::trace::Tail::slowest_overflows`].
    pub slowest_overflow: u64,
    /// [`crate::signal::route::Routes::overflows`].
    pub route_overflow: u64,
    pub registry: RegistryStats,
    /// Processor time used by the agent, user and system, in seconds.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    /// When the agent's process started, in seconds since the Unix epoch.
    pub start_time_seconds: f64,
    pub open_fds: u64,
    /// Memory that the maps and rings of the kernel side take.
    pub map_bytes: Vec<(&'static str, u64)>,
    /// Runs of the kernel side's programs; empty unless the kernel counts them (`kernel.bpf_stats_enabled`).
    pub programs: Vec<Program>,
}

#[derive(Clone, Copy, Debug)]
pub struct Exchanges {
    pub protocol: &'static str,
    /// `server` or `client`.
    pub kind: &'static str,
    pub count: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Dropped {
    pub exporter: &'static str,
    pub reason: &'static str,
    pub count: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Points {
    pub exported: u64,
    pub dropped: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Queue {
    pub name: &'static str,
    pub length: u64,
    pub capacity: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Program {
    pub name: &'static str,
    pub runs: u64,
    pub seconds: f64,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricKind::Counter, unit: None }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricKind::Gauge, unit: None }
}

const fn with_unit(family: Family, unit: &'static str) -> Family {
    Family { unit: Some(unit), ..family }
}

const BUILD: Family =
    Family { name: "remora_build", help: "Version of the agent; always 1.", kind: MetricKind::Info, unit: None };
const RECORDS: Family = counter("remora_records", "Records read from the kernel, by ring.");
const KERNEL_DROPS: Family = counter("remora_kernel_drops", "What the kernel side could not report, by reason.");
const KERNEL_COUNTS: Family = counter("remora_kernel_operations", "What the kernel side did, by operation.");
const CONNECTIONS: Family = gauge("remora_connections", "Connections followed at the moment.");
const CONNECTION_COUNTS: Family =
    counter("remora_connection_observations", "What was found out about connections, gaps in their octets above all.");
const CONNECTIONS_EVICTED: Family =
    counter("remora_connections_evicted", "Connections forgotten to make room for newer ones.");
const EXCHANGES: Family = counter("remora_exchanges", "Finished exchanges, failed ones included.");
const EXCHANGES_LOST: Family =
    counter("remora_exchanges_lost", "Exchanges that were seen only in part and gave no span, by reason.");
const SPANS: Family = counter("remora_spans", "Spans given to the exporters.");
const LINKS: Family = counter("remora_links", "Exchanges by what named their parent; none: they begin a trace.");
const TRACE_LOSSES: Family =
    counter("remora_trace_losses", "Exchanges that may have been left without their parent, by reason.");
const TRACES_OPEN: Family = gauge("remora_traces_open", "Exchanges remembered since others may depend on them.");
const SPANS_SAMPLED_OUT: Family = counter("remora_spans_sampled_out", "Spans left out by sampling.");
const SPANS_LEFT_OUT: Family =
    counter("remora_spans_left_out", "Spans not made, by reason; sdk: the process makes its own of the same requests.");
const SDK_PROCESSES: Family =
    gauge("remora_sdk_processes", "Processes known to make spans of their own, with an SDK of OpenTelemetry.");
const TLS_FILES: Family = gauge("remora_tls_files", "Executables and libraries whose TLS functions are hooked.");
const TABLE_FILES: Family =
    gauge("remora_header_table_files", "Executables that are hooked for a moment where they decode header fields.");
const TLS_HOOKS: Family = gauge("remora_tls_hooks", "Places at which they are.");
const SPANS_EXPORTED: Family = counter("remora_spans_exported", "Spans that an exporter delivered.");
const SPANS_DROPPED: Family = counter("remora_spans_dropped", "Spans that an exporter could not deliver, by reason.");
const POINTS_EXPORTED: Family = counter("remora_metric_points_exported", "Metric data points delivered over OTLP.");
const POINTS_DROPPED: Family =
    counter("remora_metric_points_dropped", "Metric data points that could not be delivered over OTLP.");
const QUEUE_LENGTH: Family = gauge("remora_queue_length", "Entries waiting in a queue.");
const QUEUE_CAPACITY: Family = gauge("remora_queue_capacity", "Entries that a queue can hold.");
const ROUTE_OVERFLOW: Family =
    counter("remora_route_overflow", "Requests without a route since their service has too many.");
const SLOWEST_OVERFLOW: Family = counter(
    "remora_slowest_overflow",
    "Requests that could not be among the slowest of their route since there are too many routes.",
);
const SERIES: Family = gauge("remora_series", "Sets of attributes that metrics are kept for.");
const SERIES_OVERFLOW: Family = counter(
    "remora_series_overflow",
    "Exchanges, calls and batches of messages counted without their attributes since there are too many series.",
);
const LAG_OVERFLOW: Family =
    counter("remora_lag_overflow", "Lags of partitions that were left out since there are too many series.");
const SERVER_OVERFLOW: Family = counter(
    "remora_server_overflow",
    "Exchanges, calls, batches of messages and connections counted without their server since there are too many.",
);
const SERVICES: Family = gauge("remora_services", "Services that metrics are kept for.");
const CPU: Family =
    with_unit(counter("remora_process_cpu_seconds", "Processor time used by the agent, user and system."), "seconds");
const RESIDENT: Family =
    with_unit(gauge("remora_process_resident_memory_bytes", "Resident memory of the agent."), "bytes");
const START: Family =
    with_unit(gauge("remora_process_start_time_seconds", "Start of the agent since the Unix epoch."), "seconds");
const OPEN_FDS: Family = gauge("remora_process_open_fds", "Open file descriptors of the agent.");
const MAP_BYTES: Family = with_unit(gauge("remora_map_bytes", "Memory of the kernel side's maps and rings."), "bytes");
const PROGRAM_RUNS: Family = counter("remora_program_runs", "Runs of the kernel side's programs.");
const PROGRAM_SECONDS: Family =
    with_unit(counter("remora_program_seconds", "Time spent in the kernel side's programs."), "seconds");

impl Own {
    /// Writes all of it.
    ///
    /// # Errors
    /// Only those of the exposition's output.
    pub fn expose<W: fmt::Write>(&self, exposition: &mut Exposition<'_, W>) -> fmt::Result {
        let to = &mut Writer(exposition);
        to.list(&BUILD, [([("version", self.version)], 1u64)])?;
        to.by(&RECORDS, "ring", &self.records)?;
        to.by(&KERNEL_DROPS, "reason", &self.kernel_drops)?;
        to.by(&KERNEL_COUNTS, "operation", &self.kernel_counts)?;
        to.by(&CONNECTIONS, "protocol", &self.connections)?;
        to.by(&CONNECTION_COUNTS, "what", &self.connection_counts)?;
        to.one(&CONNECTIONS_EVICTED, self.connections_evicted)?;
        to.list(
            &EXCHANGES,
            self.exchanges.iter().map(|entry| ([("protocol", entry.protocol), ("kind", entry.kind)], entry.count)),
        )?;
        to.by(&EXCHANGES_LOST, "reason", &self.exchanges_lost)?;
        to.one(&SPANS, self.spans)?;
        to.by(&LINKS, "method", &self.links)?;
        to.by(&TRACE_LOSSES, "reason", &self.trace_losses)?;
        to.one(&TRACES_OPEN, self.traces_open)?;
        to.one(&SPANS_SAMPLED_OUT, self.spans_sampled_out)?;
        to.by(&SPANS_LEFT_OUT, "reason", &self.spans_left_out)?;
        to.one(&SDK_PROCESSES, self.sdk_processes)?;
        to.one(&TLS_FILES, self.tls_files)?;
        to.one(&TLS_HOOKS, self.tls_hooks)?;
        to.one(&TABLE_FILES, self.table_files)?;
        to.by(&SPANS_EXPORTED, "exporter", &self.spans_exported)?;
        to.list(
            &SPANS_DROPPED,
            self.spans_dropped
                .iter()
                .map(|entry| ([("exporter", entry.exporter), ("reason", entry.reason)], entry.count)),
        )?;
        if let Some(points) = self.metric_points {
            to.one(&POINTS_EXPORTED, points.exported)?;
            to.one(&POINTS_DROPPED, points.dropped)?;
        }
        to.list(&QUEUE_LENGTH, self.queues.iter().map(|queue| ([("queue", queue.name)], queue.length)))?;
        to.list(&QUEUE_CAPACITY, self.queues.iter().map(|queue| ([("queue", queue.name)], queue.capacity)))?;
        to.one(&ROUTE_OVERFLOW, self.route_overflow)?;
        to.one(&SLOWEST_OVERFLOW, self.slowest_overflow)?;
        to.one(&SERIES, self.registry.series)?;
        to.one(&SERIES_OVERFLOW, self.registry.series_overflow)?;
        to.one(&LAG_OVERFLOW, self.registry.lag_overflow)?;
        to.one(&SERVER_OVERFLOW, self.registry.server_overflow)?;
        to.one(&SERVICES, self.registry.services)?;
        to.one(&CPU, self.cpu_seconds)?;
        to.one(&RESIDENT, self.resident_bytes)?;
        to.one(&START, self.start_time_seconds)?;
        to.one(&OPEN_FDS, self.open_fds)?;
        to.by(&MAP_BYTES, "map", &self.map_bytes)?;
        to.list(&PROGRAM_RUNS, self.programs.iter().map(|program| ([("program", program.name)], program.runs)))?;
        to.list(&PROGRAM_SECONDS, self.programs.iter().map(|program| ([("program", program.name)], program.seconds)))
    }
}

/// Whole families at a time.
struct Writer<'a, 'w, W>(&'a mut Exposition<'w, W>);

impl<W: fmt::Write> Writer<'_, '_, W> {
    fn one(&mut self, family: &Family, value: impl Into<Number>) -> fmt::Result {
        self.list(family, [([], value)])
    }

    fn by(&mut self, family: &Family, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        self.list(family, values.iter().map(|(text, value)| ([(label, *text)], *value)))
    }

    fn list<'v, const N: usize, V: Into<Number>>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = ([(&'v str, &'v str); N], V)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.0.family(family)?;
        }
        for (labels, value) in samples {
            self.0.sample(&labels, value)?;
        }
        Ok(())
    }
}
