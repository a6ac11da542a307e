//! The way of a record through the agent: rings → connections → exchanges → measurement and span → exporters.
//!
//! One thread owns the rings and drives everything up to the exporters' queues. Its state stands behind one lock,
//! taken once per pass, so that a scrape can read it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_common::ids::{Direction, MonoNanos};

use crate::conn::{Connections, ExchangeId, Finished, Step};
use crate::export::ExportHandle;
use crate::listen::Store;
use crate::probe::Probe;
use crate::probe::sys::{self, ReaderFlag};
use crate::process::Processes;
use crate::process::programs::{Answer, Programs, STANDING};
use crate::protocol::Begun;
use crate::protocol::amqp::{Side, Transfer};
use crate::protocol::kafka::Call;
use crate::signal::http;
use crate::signal::metrics::Registry;
use crate::signal::span::{Batch, Endpoints, Kind, Span};
use crate::signal::tracer::Tracer;
use crate::source::{LifecycleRecord, LifecycleRing, Opened, Rings, Told};
use crate::trace::{Placed, Tail, Traces};

/// Records of one pass, at most: the state's lock is held for one pass.
const PASS: usize = 16 * 1024;
/// Between passes under load: long enough for a batch, short enough for a live view.
const PAUSE: Duration = Duration::from_millis(2);
/// Passes without a record until the reader waits to be woken up.
const IDLE_PASSES: u32 = 5;
/// The longest wait for a wake-up: what has to be done by time is done then.
const WAIT: Duration = Duration::from_millis(50);
/// Between looks at held records, and between looks at everything, in nanoseconds.
const SWEEP: u64 = 10_000_000;
const SWEEP_ALL: u64 = 5_000_000_000;

/// All state between the rings and the exporters.
pub struct Engine {
    pub connections: Connections,
    pub processes: Processes,
    pub programs: Programs,
    pub traces: Traces,
    pub tail: Tail,
    pub tracer: Tracer,
    pub registry: Registry,
    pub probe: Probe,
    pub stats: Stats,
    /// Contexts are propagated, so that the kernel side wants to know the habits of processes.
    pub propagates: bool,
    /// The TLS libraries that were there at the start are hooked.
    pub looked_around: bool,
    ports: Ports,
    exporters: Vec<ExportHandle>,
    store: Arc<Store>,
    steps: Vec<Step>,
    placed: Vec<Placed>,
    spans: Vec<Span>,
    /// The newest record.
    newest: MonoNanos,
    swept: MonoNanos,
    swept_all: MonoNanos,
}

/// What the pipeline itself counts. Monotonic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub segments: u64,
    pub lifecycle: u64,
    /// Records that no kernel side of this version writes.
    pub malformed: u64,
    /// Exchanges of processes or ports that are not selected.
    pub not_selected: u64,
    /// Requests that still waited for their response when the agent stopped.
    pub unfinished: u64,
}

/// Which server ports are wanted.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    /// Empty: all.
    pub keep: Vec<u16>,
    pub leave: Vec<u16>,
}

impl Ports {
    /// Whether exchanges with a server at this port are wanted; one of an unknown port only without a choice.
    fn admit(&self, port: Option<u16>) -> bool {
        match port {
            Some(port) => (self.keep.is_empty() || self.keep.contains(&port)) && !self.leave.contains(&port),
            None => self.keep.is_empty(),
        }
    }
}

/// The state, shared between the reader and those who look at it.
pub type Shared = Arc<Mutex<Engine>>;

/// Locks the state; a panic elsewhere does not make it unreadable.
pub fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Engine> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "the parts, put together once")]
    pub fn new(
        connections: Connections,
        processes: Processes,
        programs: Programs,
        traces: Traces,
        tail: Tail,
        mut tracer: Tracer,
        registry: Registry,
        probe: Probe,
        ports: Ports,
        exporters: Vec<ExportHandle>,
        store: Arc<Store>,
    ) -> Self {
        tracer.all = tail.is_on();
        Self {
            connections,
            processes,
            programs,
            traces,
            tail,
            tracer,
            registry,
            probe,
            stats: Stats::default(),
            propagates: false,
            looked_around: false,
            ports,
            exporters,
            store,
            steps: Vec::new(),
            placed: Vec::new(),
            spans: Vec::new(),
            newest: MonoNanos(0),
            swept: MonoNanos(0),
            swept_all: MonoNanos(0),
        }
    }

    /// The exporters, in the order given.
    #[must_use]
    pub fn exporters(&self) -> &[ExportHandle] {
        &self.exporters
    }

    fn lifecycle(&mut self, record: LifecycleRecord, closings: &mut Vec<LifecycleRecord>) {
        self.stats.lifecycle += 1;
        match record {
            LifecycleRecord::Open(opened) => {
                // Read the process now: a short-lived one is gone in a moment.
                self.processes.seen(opened.thread.tgid, &opened.comm, opened.at);
                self.connections.open(&opened);
            }
            LifecycleRecord::ConnectFailed { connection, errno } => self.connect_failed(connection, errno),
            LifecycleRecord::SentAll(_) | LifecycleRecord::Closed(_) => closings.push(record),
            LifecycleRecord::Exec { tgid, comm, filename, .. } => {
                self.processes.executed(tgid, &comm, &filename);
                self.programs.forget(tgid);
                self.probe.forget(tgid);
                self.programs.look_at_files(tgid);
                self.traces.executed(tgid);
            }
            LifecycleRecord::Exit { tgid, at } => {
                self.processes.exited(tgid, at);
                self.programs.forget(tgid);
                self.probe.forget(tgid);
                self.traces.exited(tgid, &mut self.placed);
            }
            LifecycleRecord::SpeaksTls { tgid, at } => {
                if self.processes.seen(tgid, &[], at).is_some() {
                    self.programs.speaks_tls(tgid);
                }
            }
            LifecycleRecord::Born(born) => self.traces.born(&born),
        }
    }

    fn connect_failed(&mut self, connection: Opened, errno: u32) {
        let resource = self.processes.seen(connection.thread.tgid, &connection.comm, connection.at);
        let resource = resource.filter(|_| self.ports.admit(Some(connection.endpoints.peer.port())));
        match resource {
            Some(resource) => self.traces.connect_failed(connection, errno, &resource, &mut self.placed),
            None => self.stats.not_selected += 1,
        }
    }

    fn closing(&mut self, record: &LifecycleRecord) {
        match record {
            LifecycleRecord::SentAll(closed) => self.connections.sent_all(closed, &mut self.steps),
            LifecycleRecord::Closed(closed) => self.connections.closed(closed, &mut self.steps),
            _ => {}
        }
    }

    /// Finds the traces that what was seen belongs to; measures what has its place there, and makes spans of it.
    fn trace(&mut self) {
        let mut steps = std::mem::take(&mut self.steps);
        for step in steps.drain(..) {
            match step {
                Step::Begun { id, request, endpoints, told } => self.begun(id, &request, endpoints, told),
                Step::Dropped(id) => self.traces.dropped(id, self.newest, &mut self.placed),
                Step::Finished(finished) => self.finished(finished),
                Step::Called(finished) => self.called(finished),
                Step::Sent { id, name, channel, at } => self.traces.sent(id, name, channel, at),
                Step::Taken { name, at } => self.traces.taken(name, at),
                Step::Moved(finished) => self.moved(finished),
                Step::Located(located) => {
                    if !self.programs.read_table(located) {
                        self.connections.adopt(&located, None);
                    }
                }
            }
        }
        self.steps = steps;
        for placed in self.placed.drain(..) {
            if let Some(span) = self.tracer.span(placed, &mut self.registry) {
                self.tail.take(span, self.newest, &mut self.spans);
            }
        }
    }

    fn begun(&mut self, id: ExchangeId, request: &Begun, endpoints: Option<Endpoints>, told: Option<Told>) {
        let resource = self.processes.of(request.thread.tgid, request.at);
        // Whom a broker gives messages is a client.
        let direction = if request.brokered.is_some() { Direction::Egress } else { request.direction };
        if let Some(resource) = resource.filter(|_| self.admits(direction, endpoints)) {
            self.traces.begin(id, request, endpoints, told, &resource, &mut self.placed);
        }
    }

    fn finished(&mut self, finished: Finished) {
        let exchange = &finished.exchange;
        let resource = self.processes.of(exchange.request_thread.tgid, exchange.start);
        match resource.filter(|_| self.admits(exchange.request_direction, finished.endpoints)) {
            Some(resource) => self.traces.finish(finished, resource, &mut self.placed),
            None => self.stats.not_selected += 1,
        }
    }

    fn called(&mut self, finished: Finished<Call>) {
        let exchange = &finished.exchange;
        let resource = self.processes.of(exchange.request_thread.tgid, exchange.start);
        match resource.filter(|_| self.admits(exchange.request_direction, finished.endpoints)) {
            Some(resource) => {
                self.tracer.called(&finished, &resource, &mut self.registry);
                self.traces.called(finished, &resource, &mut self.placed);
            }
            None => self.stats.not_selected += 1,
        }
    }

    fn moved(&mut self, finished: Finished<Transfer>) {
        let exchange = &finished.exchange;
        let resource = self.processes.of(exchange.request_thread.tgid, exchange.start);
        let requests = match exchange.message.side {
            Side::Client => Direction::Egress,
            Side::Broker => Direction::Ingress,
        };
        match resource.filter(|_| self.admits(requests, finished.endpoints)) {
            Some(resource) => {
                self.tracer.transferred(&finished, &resource, &mut self.registry);
                self.traces.moved(finished, &resource, &mut self.placed);
            }
            None => self.stats.not_selected += 1,
        }
    }

    /// Whether the server's port is wanted.
    fn admits(&self, request_direction: Direction, endpoints: Option<Endpoints>) -> bool {
        let kind = match request_direction {
            Direction::Ingress => Kind::Server,
            Direction::Egress => Kind::Client,
        };
        self.ports.admit(endpoints.map(|endpoints| http::ends(kind, endpoints).0.port()))
    }

    /// Hands the spans made so far to every exporter.
    fn flush(&mut self) {
        if self.spans.is_empty() {
            return;
        }
        let batch: Batch = Arc::new(std::mem::take(&mut self.spans));
        for exporter in &self.exporters {
            exporter.push(Arc::clone(&batch));
        }
        self.store.push(&batch);
    }

    /// What has to be done by time. `seen`: everything up to now is known, nothing waits in a ring.
    fn tick(&mut self, seen: bool) {
        let now = sys::monotonic();
        self.traces.poll(if seen { now } else { self.newest }, &mut self.placed);
        self.tracer.clock.refresh(now);
        if now.since(self.swept) > SWEEP {
            self.swept = now;
            self.connections.sweep(now, &mut self.steps);
        }
        if now.since(self.swept_all) > SWEEP_ALL {
            self.swept_all = now;
            self.connections.sweep_all(now);
            self.processes.sweep(now);
            self.probe.sweep();
            self.registry.sweep(self.tracer.clock.unix(now));
        }
        for tgid in self.connections.tables_newly_wanted() {
            // At the start it may take a while until all processes were looked at.
            self.programs.look_at_files(tgid);
        }
        self.probe.watch_tables(&self.connections.tables_wanted());
        self.probe.follow_rare_calls();
        for (tgid, trace) in self.processes.newly_decided() {
            if trace {
                self.programs.look_into(tgid);
            }
            self.probe.decide(tgid.0, trace, self.traces.habits_of(tgid) | self.programs.bits(tgid));
        }
        while let Some(answer) = self.programs.answer() {
            self.looked_into(answer, now);
        }
        if self.propagates {
            for (tgid, habits) in self.traces.changed_habits() {
                self.probe.decide(tgid.0, true, habits | self.programs.bits(tgid));
            }
        }
    }

    /// What was found in the files of a process.
    fn looked_into(&mut self, answer: Answer, now: MonoNanos) {
        let tgid = match answer {
            Answer::Process { tgid, coroutines, librdkafka, .. } => {
                if let Some(layout) = coroutines {
                    self.probe.read_coroutines(tgid.0, layout);
                }
                self.traces.takes_in_order(tgid, librdkafka);
                tgid
            }
            Answer::Table { located, own } => {
                self.connections.adopt(&located, own.as_ref());
                return;
            }
            Answer::LookedAround => {
                self.looked_around = true;
                return;
            }
            Answer::Libraries { tgid, files, speaks } => {
                if !files.is_empty() && (tgid == STANDING || self.processes.seen(tgid, &[], now).is_some()) {
                    self.probe.hook_libraries(tgid, files);
                }
                if !speaks {
                    return;
                }
                tgid
            }
        };
        self.probe.decide(tgid.0, true, self.traces.habits_of(tgid) | self.programs.bits(tgid));
    }
}

/// Reads the rings until told to stop.
pub struct Reader {
    rings: Rings,
    waiting: ReaderFlag,
    shared: Shared,
    /// Ends of connections whose last segments may still be in the other ring.
    closings: Vec<LifecycleRecord>,
}

impl Reader {
    #[must_use]
    pub const fn new(rings: Rings, waiting: ReaderFlag, shared: Shared) -> Self {
        Self { rings, waiting, shared, closings: Vec::new() }
    }

    /// Runs until `stop` is set and nothing is left in the rings. It has the kernel side stop writing by itself.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut idle = 0;
        let mut stopping = false;
        loop {
            // Before the pass: what was written until then is in the rings already.
            if !stopping && stop.load(Ordering::Acquire) {
                stopping = true;
                self.waiting.stop();
            }
            let records = self.pass();
            if records > 0 {
                idle = 0;
                if records >= PASS {
                    continue;
                }
            } else if stopping {
                break;
            } else {
                idle += 1;
            }
            if idle < IDLE_PASSES {
                std::thread::sleep(PAUSE);
                continue;
            }
            self.waiting.set(true);
            if self.pass() == 0 {
                self.rings.wait(WAIT);
            }
            self.waiting.set(false);
        }
        let mut engine = lock(&self.shared);
        // What the followers of open connections have counted since the last look belongs into the last books.
        let Engine { connections, steps, .. } = &mut *engine;
        connections.finish(steps);
        engine.trace();
        engine.connections.sweep_all(sys::monotonic());
        engine.stats.unfinished = engine.connections.outstanding() as u64;
        let now = sys::monotonic();
        let Engine { traces, placed, .. } = &mut *engine;
        traces.finish_all(now, placed);
        engine.trace();
        engine.flush();
    }

    /// Takes what is in the rings, at most [`PASS`] segments; how many records there were.
    fn pass(&mut self) -> usize {
        let Self { rings, shared, closings, .. } = self;
        let mut engine = lock(shared);
        let engine = &mut *engine;
        let mut records = 0;
        lifecycle(engine, &mut rings.lifecycle, closings, &mut records);
        // Whatever these connections moved before they ended is in the ring of segments by now.
        let ended = closings.len();
        let mut emptied = false;
        for _ in 0..PASS {
            let more = rings.segments.take(|record| {
                records += 1;
                engine.stats.segments += 1;
                let Ok(record) = record else {
                    engine.stats.malformed += 1;
                    return;
                };
                engine.newest = engine.newest.max(record.at);
                if !engine.connections.contains(record.conn) {
                    // The kernel side announced it before its first segment.
                    lifecycle(engine, &mut rings.lifecycle, closings, &mut 0);
                }
                engine.connections.segment(&record, &mut engine.steps);
            });
            if !more {
                emptied = true;
                break;
            }
            if engine.steps.len() >= 1024 {
                engine.trace();
            }
        }
        if emptied {
            for record in closings.drain(..ended) {
                engine.closing(&record);
            }
        }
        engine.trace();
        engine.tick(emptied);
        engine.trace();
        engine.flush();
        records
    }
}

fn lifecycle(engine: &mut Engine, ring: &mut LifecycleRing, closings: &mut Vec<LifecycleRecord>, records: &mut usize) {
    while let Some(record) = ring.take() {
        *records += 1;
        match record {
            Ok(record) => engine.lifecycle(record, closings),
            Err(_) => engine.stats.malformed += 1,
        }
    }
}
