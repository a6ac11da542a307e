//! Puts the agent together, runs it, and takes it apart again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_common::ids::Tgid;
use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{self, Config, Listen, Propagate, SpansTo};
use crate::conn::Connections;
use crate::ending::Ending;
use crate::export::lines::{self, Format, LineExporter, Target};
use crate::export::otlp::config::{OtlpConfig, Signal};
use crate::export::otlp::{Exporter, metrics as otlp_metrics};
use crate::export::{Books, ExportHandle};
use crate::listen::{self, Limits as StoreLimits, State, Store};
use crate::observe::Observer;
use crate::pipeline::{self, Engine, Ports, Reader, Shared};
use crate::probe::{self, Carrier, Options};
use crate::process::Processes;
use crate::process::filter::Filter;
use crate::process::programs::Programs;
use crate::process::resource::Common;
use crate::protocol::{self, http, kafka};
use crate::sampling::RateLimiter;
use crate::signal::metrics::{self, Registry};
use crate::signal::route::{self, Routes};
use crate::signal::tracer::Tracer;
use crate::trace::{Tail, Traces};

/// What each step of the end may take; the whole stays under the usual grace period of 30 seconds.
const DRAIN: Duration = Duration::from_secs(5);
const EXPORT: Duration = Duration::from_secs(10);
const LINES: Duration = Duration::from_secs(5);
const LOOK_AROUND: Duration = Duration::from_secs(2);

/// The ways out for spans, with the names that metrics use.
struct Outputs {
    otlp: Option<Exporter>,
    lines: Option<LineExporter>,
    handles: Vec<(&'static str, ExportHandle)>,
}

/// Captures and exports until SIGINT or SIGTERM.
///
/// # Errors
/// When the agent cannot start, with what was tried and why it failed.
pub fn run(config: Config) -> anyhow::Result<()> {
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false))
        .with(config.log.clone())
        .init();
    // What can be refused without privileges comes first, so that each mistake gets its own line.
    let otlp = OtlpConfig::from_env(Signal::Traces, &config::variable).context("OTLP export of traces")?;
    let metrics = OtlpConfig::from_env(Signal::Metrics, &config::variable).context("OTLP export of metrics")?;
    let interval = otlp_metrics::interval(&config::variable).context("OTLP export of metrics")?;
    let metrics = metrics.map(|metrics| (metrics, interval));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("remora-io")
        .enable_all()
        .build()
        .context("cannot start the I/O threads")?;
    runtime.block_on(serve(config, otlp, metrics))
}

async fn serve(
    config: Config,
    otlp: Option<OtlpConfig>,
    metrics: Option<(OtlpConfig, Duration)>,
) -> anyhow::Result<()> {
    let ending = Ending::start()?;
    let listener = bind(&config.listen).await?;
    let address = listener.local_addr().context("cannot read the address listened on")?;

    let kernel = probe::btf::kernel()?;
    crate::check::privileges()?;
    let options = options(&config);
    // It has its work to do before there is anything to read.
    let programs = Programs::start(config.tls).context("cannot start a thread")?;
    let attached = tokio::task::block_in_place(|| probe::attach(&kernel, &options))?;
    for (hook, why) in &attached.probe.missing {
        tracing::warn!(hook = hook.tracepoint, why, "not attached: without it, less is seen");
    }
    let outputs = outputs(&config, otlp)?;
    ending.set_exporters(&outputs.handles);
    let store = Arc::new(Store::new(StoreLimits::default()));
    let probe::Attached { probe, rings, hints, waiting } = attached;
    let at_sockets = probe.at_sockets;
    let engine = engine(&config, probe, programs, hints, &outputs, &store)?;
    let shared: Shared = Arc::new(Mutex::new(engine));
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let reader = Reader::new(rings, waiting, Arc::clone(&shared));
        let stop = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("remora-reader".to_owned())
            .spawn(move || reader.run(&stop))
            .context("cannot start the reader")?
    };

    let names = outputs.handles.clone();
    let observer = Arc::new(Observer::new(Arc::clone(&shared), names, probe::map_octets(&options)));
    let state = Arc::new(State::new(observer.clone(), Arc::clone(&store), [config.listen.host.clone()]));
    let closing = CancellationToken::new();
    let server = tokio::spawn(listen::serve(listener, state, closing.clone()));
    let last_metrics = CancellationToken::new();
    let pusher = match metrics {
        Some((metrics, interval)) => {
            let source = Arc::clone(&observer);
            let (task, points) =
                otlp_metrics::start(metrics, interval, move || source.metrics_otlp(), last_metrics.clone())
                    .context("OTLP export of metrics")?;
            observer.set_points(points);
            Some(task)
        }
        None => None,
    };
    if config.tls {
        looked_around(&shared).await;
    }
    announce(address, &config, &outputs, at_sockets);
    crate::allocator::give_back();
    observer.set_ready();

    wait(&ending.asked, &reader).await?;
    // 1. no new records; 2. what the rings still hold; 3. each exporter's last batch; 4. the listener; 5. the books.
    stop.store(true, Ordering::Release);
    if join(reader).await {
        ending.set_drained();
    }
    last_metrics.cancel();
    let books = close(outputs).await;
    if let Some(pusher) = pusher {
        // What it could not deliver in that time is counted in what nobody reads any more.
        let _ = tokio::time::timeout(LINES, pusher).await;
    }
    closing.cancel();
    let _ = server.await;
    observer.report(&books);
    // Nothing reports any more; the process that is left behind lets the kernel detach the programs ([`ending::leave`]).
    std::mem::forget(shared);
    Ok(())
}

/// Waits until the TLS libraries that are there are hooked, or for a while: a large host takes its time.
async fn looked_around(shared: &Shared) {
    let until = Instant::now() + LOOK_AROUND;
    while !pipeline::lock(shared).looked_around && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn bind(listen: &Listen) -> anyhow::Result<TcpListener> {
    TcpListener::bind((&*listen.host, listen.port))
        .await
        .with_context(|| format!("cannot listen on {listen}: is another agent running? choose another with --listen"))
}

fn options(config: &Config) -> Options {
    let selection = &config.selection;
    let carrier = match config.propagate {
        Propagate::Off => None,
        Propagate::Tcp => Some(Carrier::TcpOption),
        Propagate::Headers => Some(Carrier::Fields { allow_unsafe: config.allow_unsafe }),
    };
    Options {
        segment_ring: config.segment_ring,
        hooks: config.hooks,
        tls: config.tls,
        choose_processes: !(selection.exe.is_empty() && selection.pids.is_empty() && selection.exclude_exe.is_empty()),
        keep_ports: selection.ports.clone(),
        leave_ports: selection.exclude_ports.clone(),
        propagate: carrier.map(|carrier| {
            let (sample_from, parent_based) = config.sampler.rule();
            probe::Propagation { carrier, parent_based, sample_from }
        }),
    }
}

fn outputs(config: &Config, otlp: Option<OtlpConfig>) -> anyhow::Result<Outputs> {
    let mut outputs = Outputs { otlp: None, lines: None, handles: Vec::new() };
    if let Some(otlp) = otlp {
        let (exporter, handle) = Exporter::start(otlp).context("OTLP export")?;
        outputs.otlp = Some(exporter);
        outputs.handles.push(("otlp", handle));
    }
    let terminal = || if config.quiet { None } else { lines::terminal_format(config::variable("NO_COLOR").as_deref()) };
    let (target, format, name) = match &config.spans {
        Some(SpansTo::StandardOutput) => (Target::StandardOutput, Format::OtlpJson, "stdout"),
        Some(SpansTo::File(path)) => (Target::File(path.clone()), Format::OtlpJson, "file"),
        None => match terminal() {
            Some(format) => (Target::StandardOutput, format, "terminal"),
            None => return Ok(outputs),
        },
    };
    let (exporter, handle) =
        LineExporter::start(&target, format).with_context(|| format!("cannot write spans to {target:?}"))?;
    outputs.lines = Some(exporter);
    outputs.handles.push((name, handle));
    Ok(outputs)
}

fn engine(
    config: &Config,
    probe: probe::Probe,
    programs: Programs,
    hints: probe::sys::Hints,
    outputs: &Outputs,
    store: &Arc<Store>,
) -> anyhow::Result<Engine> {
    let boxed = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
    let http = http::Config {
        request_headers: boxed(&config.capture_request_headers),
        response_headers: boxed(&config.capture_response_headers),
        request_id_headers: boxed(&config.request_id_headers),
        limits: http::Limits::default(),
    };
    let kafka =
        kafka::Config { key: if config.capture_message_key { kafka::KEY } else { 0 }, ..kafka::Config::default() };
    let protocol = protocol::Config { http: Arc::new(http), kafka: Arc::new(kafka), ..protocol::Config::default() };
    let selection = &config.selection;
    let filter = Filter::new(&selection.exe, &selection.pids, &selection.exclude_exe)?;
    let limiter = config.max_traces_per_second.map(RateLimiter::new);
    let traces = Traces::new(config.sampler.clone(), limiter, config.causality, config.sdk_spans);
    let tracer = Tracer::new(Routes::new(route::Limits::default()));
    let registry = Registry::new(metrics::Limits::default(), tracer.clock.unix(probe::sys::monotonic()));
    let common = Common::detect(config::variable("OTEL_RESOURCE_ATTRIBUTES").as_deref());
    let mut processes = Processes::new(filter, common, Tgid(std::process::id()));
    processes.scan(probe::sys::monotonic());
    let mut engine = Engine::new(
        Connections::new(Arc::new(protocol), Some(hints)),
        processes,
        programs,
        traces,
        Tail::new(config.keep),
        tracer,
        registry,
        probe,
        Ports { keep: selection.ports.clone(), leave: selection.exclude_ports.clone() },
        outputs.handles.iter().map(|(_, handle)| handle.clone()).collect(),
        Arc::clone(store),
    );
    if config.propagate != Propagate::Off {
        engine.propagates = true;
        engine.traces.propagate();
    }
    Ok(engine)
}

fn announce(address: SocketAddr, config: &Config, outputs: &Outputs, at_sockets: bool) {
    let to: Vec<&str> = outputs.handles.iter().map(|(name, _)| *name).collect();
    let to = if to.is_empty() { "none (set OTEL_EXPORTER_OTLP_ENDPOINT or --spans)".to_owned() } else { to.join(", ") };
    tracing::debug!(?config, "configuration");
    let place = if at_sockets { "sockets" } else { "system calls" };
    eprintln!("remora {}: capturing HTTP, Kafka and AMQP at the {place}; spans to {to}", env!("CARGO_PKG_VERSION"));
    eprintln!("remora: listening on http://{address} (page /, metrics /metrics)");
}

/// Until a signal comes, or the reader ends by itself, which it must not.
async fn wait(asked: &CancellationToken, reader: &std::thread::JoinHandle<()>) -> anyhow::Result<()> {
    let mut check = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            () = asked.cancelled() => return Ok(()),
            _ = check.tick() => anyhow::ensure!(!reader.is_finished(), "the reader of the rings ended; this is a bug"),
        }
    }
}

/// Whether the rings are empty.
async fn join(reader: std::thread::JoinHandle<()>) -> bool {
    let joined = tokio::task::spawn_blocking(move || reader.join());
    match tokio::time::timeout(DRAIN, joined).await {
        Ok(Ok(Ok(()))) => return true,
        Ok(_) => tracing::error!("the reader of the rings failed; what it had not handed on is lost"),
        Err(_) => tracing::error!("the rings could not be drained in time; what they still hold is lost"),
    }
    false
}

/// Ends the exporters; their last books.
async fn close(outputs: Outputs) -> Vec<(&'static str, Books)> {
    let Outputs { otlp, lines, handles } = outputs;
    let lines = tokio::task::spawn_blocking(move || {
        if let Some(lines) = lines {
            let _ = lines.shutdown(LINES);
        }
    });
    if let Some(otlp) = otlp {
        otlp.shutdown(EXPORT).await;
    }
    let _ = lines.await;
    handles.into_iter().map(|(name, handle)| (name, handle.books())).collect()
}
