//! The agent about itself: what `/metrics`, the page and the last lines of a run tell.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent_common::ids::UnixNanos;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;

use crate::export::otlp::metrics::Points;
use crate::export::{Books, DropReason, ExportHandle};
use crate::listen::{Drops, ExporterStats, ServiceRow, Services, Source, Stats};
use crate::pipeline::{self, Engine, Shared};
use crate::probe;
use crate::protocol::http::Loss;
use crate::signal::metrics::own::{self, Dropped, Exchanges, Own, Program, Queue};
use crate::signal::metrics::{Connection, Exposition, Format};
use crate::trace;

/// The time that rates and quantiles on the page are about, in seconds.
const WINDOW: u64 = 60;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Values of the label `protocol`.
const HTTP1: &str = "http1";
const HTTP2: &str = "http2";
const KAFKA: &str = "kafka";
const AMQP: &str = "amqp";

/// Reads the agent's state when somebody asks.
pub struct Observer {
    shared: Shared,
    exporters: Vec<(&'static str, ExportHandle)>,
    map_octets: Vec<(&'static str, u64)>,
    points: OnceLock<Arc<Points>>,
    started: Instant,
    started_unix: f64,
    ready: AtomicBool,
}

impl Observer {
    #[must_use]
    pub fn new(
        shared: Shared,
        exporters: Vec<(&'static str, ExportHandle)>,
        map_octets: Vec<(&'static str, u64)>,
    ) -> Self {
        let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self {
            shared,
            exporters,
            map_octets,
            points: OnceLock::new(),
            started: Instant::now(),
            started_unix,
            ready: AtomicBool::new(false),
        }
    }

    /// All HTTP metrics for an export by OTLP.
    #[must_use]
    pub fn metrics_otlp(&self) -> Vec<ExportMetricsServiceRequest> {
        let mut engine = pipeline::lock(&self.shared);
        let now = engine.tracer.clock.unix(probe::sys::monotonic());
        set_connections(&mut engine, now);
        engine.registry.to_otlp(now)
    }

    /// Metrics are exported by OTLP, and counted here.
    pub fn set_points(&self, points: Arc<Points>) {
        // Set once, at start.
        let _ = self.points.set(points);
    }

    /// From now on the agent captures and exports.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    fn own(&self, engine: &Engine) -> Own {
        let process = ProcessUse::read();
        let counters = engine.probe.counters();
        let kept = |drop: bool| {
            counters
                .iter()
                .filter(move |(counter, _)| counter.is_drop() == drop)
                .map(|(counter, n)| (counter.as_str(), *n))
        };
        let tracer = &engine.tracer.stats;
        let traces = engine.traces.stats();
        let connections = engine.connections.stats();
        let libraries = engine.probe.libraries();
        let tables = engine.connections.tables();
        let books: Vec<(&'static str, Books)> =
            self.exporters.iter().map(|(name, handle)| (*name, handle.books())).collect();
        Own {
            version: VERSION,
            records: vec![
                ("segments", engine.stats.segments),
                ("lifecycle", engine.stats.lifecycle),
                ("malformed", engine.stats.malformed),
            ],
            kernel_drops: kept(true).collect(),
            kernel_counts: kept(false).collect(),
            connections: vec![
                (HTTP1, connections.open.saturating_sub(connections.http2 + connections.kafka + connections.amqp)),
                (HTTP2, connections.http2),
                (KAFKA, connections.kafka),
                (AMQP, connections.amqp),
            ],
            connection_counts: vec![
                ("gaps", connections.gaps),
                ("gap_octets", connections.gap_octets),
                ("stale_records", connections.stale),
                ("unannounced", connections.unannounced),
                ("not_http", connections.not_http),
                ("unsupported", connections.unsupported),
                ("upgraded", connections.upgraded),
                ("header_tables_read", tables.adopted),
                ("header_tables_refused", tables.refused),
                ("header_tables_not_found", tables.given_up),
                ("exchanges_not_selected", engine.stats.not_selected),
                ("processes_evicted", engine.processes.evicted()),
            ],
            connections_evicted: connections.evicted,
            exchanges: vec![
                Exchanges { protocol: HTTP1, kind: "server", count: tracer.http1.server },
                Exchanges { protocol: HTTP1, kind: "client", count: tracer.http1.client },
                Exchanges { protocol: HTTP2, kind: "server", count: tracer.http2.server },
                Exchanges { protocol: HTTP2, kind: "client", count: tracer.http2.client },
                Exchanges { protocol: KAFKA, kind: "server", count: tracer.kafka.server },
                Exchanges { protocol: KAFKA, kind: "client", count: tracer.kafka.client },
                Exchanges { protocol: AMQP, kind: "server", count: tracer.amqp.server },
                Exchanges { protocol: AMQP, kind: "client", count: tracer.amqp.client },
                Exchanges { protocol: "tcp", kind: "client", count: tracer.failed_connections },
            ],
            exchanges_lost: losses(engine),
            spans: tracer.spans + engine.tail.kept,
            links: links(&traces),
            trace_losses: vec![("untracked", traces.untracked), ("evicted", traces.evicted), ("late", traces.late)],
            traces_open: traces.open,
            spans_sampled_out: tracer.sampled_out - engine.tail.kept + tracer.rate_limited,
            spans_left_out: vec![("sdk", tracer.left_out)],
            sdk_processes: traces.sdks,
            tls_files: libraries.0,
            tls_hooks: libraries.1,
            table_files: engine.probe.tables_watched(),
            spans_exported: books.iter().map(|(name, books)| (*name, books.exported)).collect(),
            spans_dropped: books.iter().flat_map(|(name, books)| dropped(name, books)).collect(),
            metric_points: self.points.get().map(|points| {
                let (exported, dropped) = points.counts();
                own::Points { exported, dropped }
            }),
            queues: books
                .iter()
                .map(|(name, books)| Queue { name, length: books.pending, capacity: books.capacity })
                .collect(),
            slowest_overflow: engine.tail.slowest_overflows(),
            route_overflow: engine.tracer.routes().overflows(),
            registry: engine.registry.stats(),
            cpu_seconds: process.cpu_seconds,
            resident_bytes: process.resident_bytes,
            start_time_seconds: self.started_unix,
            open_fds: process.open_fds,
            map_bytes: self.map_octets.clone(),
            programs: engine
                .probe
                .costs()
                .into_iter()
                .filter(|(_, cost)| cost.runs > 0)
                .map(|(name, cost)| Program { name, runs: cost.runs, seconds: cost.nanos as f64 / 1e9 })
                .collect(),
        }
    }

    /// The last lines of a run: what was seen, what left the agent, and every loss.
    pub fn report(&self, books: &[(&'static str, Books)]) {
        let engine = pipeline::lock(&self.shared);
        let tracer = &engine.tracer.stats;
        let exchanges =
            [tracer.http1, tracer.http2, tracer.kafka, tracer.amqp].iter().map(|of| of.server + of.client).sum::<u64>()
                + tracer.failed_connections;
        eprintln!(
            "remora: {exchanges} exchanges seen, {} spans made, {} left out by sampling",
            tracer.spans + engine.tail.kept,
            tracer.sampled_out - engine.tail.kept + tracer.rate_limited
        );
        if tracer.left_out > 0 {
            eprintln!("remora: {} spans left out: their processes make their own (--sdk-spans)", tracer.left_out);
        }
        for (name, books) in books {
            eprintln!("remora: {name}: {} spans exported, {} dropped", books.exported, books.dropped_total());
            for reason in DropReason::ALL.into_iter().filter(|reason| books.dropped(*reason) > 0) {
                eprintln!("remora: {name}: dropped {} spans: {}", books.dropped(reason), reason.as_str());
            }
        }
        for (counter, count) in engine.probe.counters() {
            if counter.is_drop() && count > 0 {
                eprintln!("remora: kernel side: {count} lost: {}", counter.as_str());
            }
        }
        for (reason, count) in losses(&engine) {
            if count > 0 {
                eprintln!("remora: exchanges lost: {count}: {reason}");
            }
        }
    }
}

/// Tells the registry what is going on at the moment.
fn set_connections(engine: &mut Engine, now: UnixNanos) {
    let Engine { connections, processes, registry, .. } = engine;
    let open = connections.open_sides();
    let open: Vec<_> = open.into_iter().filter_map(|side| Some((processes.known(side.tgid)?, side))).collect();
    registry.set_connections(
        now,
        open.iter().map(|(resource, side)| Connection {
            kind: side.kind,
            resource,
            server: None,
            in_flight: side.in_flight,
            scheme: if side.tls { "https" } else { "http" },
        }),
    );
}

fn losses(engine: &Engine) -> Vec<(&'static str, u64)> {
    let followed = engine.connections.followed();
    let mut losses: Vec<(&'static str, u64)> =
        Loss::ALL.into_iter().map(|loss| (loss.as_str(), followed.lost(loss))).collect();
    losses.push(("unfinished_at_exit", engine.stats.unfinished));
    losses
}

fn dropped(exporter: &'static str, books: &Books) -> Vec<Dropped> {
    DropReason::ALL
        .into_iter()
        .map(|reason| Dropped { exporter, reason: reason.as_str(), count: books.dropped(reason) })
        .collect()
}

impl Source for Observer {
    fn metrics(&self, accept: Option<&str>) -> (&'static str, String) {
        let format = Format::negotiate(accept);
        let mut text = String::new();
        let mut engine = pipeline::lock(&self.shared);
        let engine = &mut *engine;
        let now = engine.tracer.clock.unix(probe::sys::monotonic());
        set_connections(engine, now);
        let own = self.own(engine);
        let mut exposition = Exposition::new(&mut text, format);
        // Writing to a string cannot fail.
        let _ = engine.registry.expose(&mut exposition);
        let _ = own.expose(&mut exposition);
        let _ = exposition.end();
        (format.content_type(), text)
    }

    fn services(&self) -> Services {
        let engine = pipeline::lock(&self.shared);
        let now = engine.tracer.clock.unix(probe::sys::monotonic());
        let millis = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e3);
        let rows = engine
            .registry
            .services(now, WINDOW)
            .into_iter()
            .map(|row| ServiceRow {
                service: row.service,
                kind: row.kind,
                requests: row.requests,
                errors: row.errors,
                rate: row.recent.rate,
                error_rate: row.recent.error_rate,
                p50_ms: millis(row.recent.p50),
                p90_ms: millis(row.recent.p90),
                p99_ms: millis(row.recent.p99),
            })
            .collect();
        Services { window: Duration::from_secs(WINDOW), rows }
    }

    fn stats(&self) -> Stats {
        let engine = pipeline::lock(&self.shared);
        let own = self.own(&engine);
        let mut drops: Vec<Drops> = Vec::new();
        let mut add = |stage, reason, count| {
            if count > 0 {
                drops.push(Drops { stage, reason, count });
            }
        };
        for (reason, count) in &own.kernel_drops {
            add("kernel", *reason, *count);
        }
        for (reason, count) in &own.exchanges_lost {
            add("exchanges", *reason, *count);
        }
        for entry in &own.spans_dropped {
            add(entry.exporter, entry.reason, entry.count);
        }
        let exporters = self.exporters.iter().map(|(name, handle)| {
            let books = handle.books();
            ExporterStats {
                name,
                exported: books.exported,
                dropped: books.dropped_total(),
                queue: books.pending,
                queue_capacity: books.capacity,
                problem: None,
            }
        });
        Stats {
            version: VERSION,
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            records: engine.stats.segments + engine.stats.lifecycle,
            connections: engine.connections.stats().open,
            exchanges: own.exchanges.iter().map(|entry| entry.count).sum(),
            spans: own.spans,
            sampled_out: own.spans_sampled_out,
            drops,
            exporters: exporters.collect(),
            cpu_seconds: own.cpu_seconds,
            resident_octets: own.resident_bytes,
        }
    }

    fn ready(&self) -> Result<(), String> {
        if self.ready.load(Ordering::Acquire) { Ok(()) } else { Err("capture is being attached".to_owned()) }
    }
}

/// What the agent itself uses.
#[derive(Default)]
struct ProcessUse {
    cpu_seconds: f64,
    resident_bytes: u64,
    open_fds: u64,
}

impl ProcessUse {
    /// What cannot be read is 0.
    fn read() -> Self {
        let Ok(process) = procfs::process::Process::myself() else { return Self::default() };
        let (mut cpu_seconds, mut resident_bytes) = (0.0, 0);
        if let Ok(stat) = process.stat() {
            cpu_seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
            resident_bytes = stat.rss * procfs::page_size();
        }
        Self { cpu_seconds, resident_bytes, open_fds: process.fd_count().map_or(0, |count| count as u64) }
    }
}

/// Exchanges by what named their parent.
fn links(traces: &trace::Stats) -> Vec<(&'static str, u64)> {
    let named = trace::Method::ALL.into_iter().map(trace::Method::name).zip(traces.links);
    named.chain([("none", traces.roots)]).collect()
}
