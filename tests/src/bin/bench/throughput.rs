//! nginx with a small file: throughput lost at saturation, spans per request and memory at a moderate load.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::agent::{Agent, Builder};
use tests::metrics::Metrics;
use tests::otlp::{Protocol, Receiver};
use tests::process::Process;
use tests::tls::Credentials;
use tests::{env, fixture};

use crate::report::{Report, median};

/// nginx with as many workers as CPUs and a file of 612 octets, without a log.
pub struct Nginx {
    pub port: u16,
    scheme: &'static str,
    _process: Process,
    _folder: TempDir,
}

impl Nginx {
    pub fn start() -> Result<Self> {
        Self::with(None)
    }

    /// With TLS if there are credentials.
    pub fn with(credentials: Option<&Credentials>) -> Result<Self> {
        let folder = TempDir::new()?;
        let root = folder.path().display().to_string();
        // The workers may run as another user.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        std::fs::write(folder.path().join("small.html"), "x".repeat(612))?;
        let port = fixture::free_port()?;
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {root}/{name};"))
            .concat();
        let tls = credentials.map_or_else(String::new, |credentials| {
            let [certificate, key] = ["cert.pem", "key.pem"].map(|name| credentials.file(name).display().to_string());
            format!(" ssl; ssl_certificate {certificate}; ssl_certificate_key {key}")
        });
        let config = format!(
            "worker_processes auto; daemon off; pid {root}/pid; error_log {root}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; keepalive_requests 100000000; {paths}\n\
             server {{ listen 127.0.0.1:{port}{tls}; root {root}; }} }}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config)?;
        let program = env::which("nginx").context("nginx is not installed: cargo xtask setup --tests")?;
        let mut command = Command::new(program);
        command.arg("-c").arg(folder.path().join("nginx.conf")).arg("-p").arg(folder.path());
        let process = Process::spawn(&mut command)?;
        fixture::accepts(port).with_context(|| process.stderr())?;
        let scheme = if credentials.is_some() { "https" } else { "http" };
        Ok(Self { port, scheme, _process: process, _folder: folder })
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}/small.html", self.scheme, self.port)
    }
}

/// Requests per second of wrk, and all requests.
pub fn wrk(url: &str, seconds: u32) -> Result<(f64, f64)> {
    let program = env::which("wrk").context("wrk is not installed: cargo xtask setup --tests")?;
    let output = Command::new(program).args(["-t1", "-c32", &format!("-d{seconds}"), url]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "wrk saw failures: {text}");
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).with_context(|| text.clone())?;
    let all = text.split_once(" requests in").and_then(|(before, _)| before.split_whitespace().last());
    Ok((line.trim().parse()?, all.context("wrk told no number of requests")?.parse()?))
}

/// An OTLP/HTTP receiver that reads requests and says yes without looking at them, so that what is measured is the agent.
pub struct Sink {
    port: u16,
}

impl Sink {
    pub fn start() -> Result<Self> {
        Self::on(0)
    }

    /// At a port; 0 for any free one.
    fn on(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || forget(stream));
            }
        });
        Ok(Self { port })
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Reads requests with a `content-length` until the connection ends.
fn forget(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
    }
}

/// Agents that do what users have them do: OTLP to a receiver that takes everything; metrics of all.
fn agent(receiver: &Receiver, port: u16) -> Result<Agent> {
    let builder = Builder::new()?
        .no_spans_file()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .port(port);
    builder.start()
}

/// Pairs of runs of a load, off and on in turn.
pub struct Pairs<'a> {
    pub what: &'a str,
    /// Gives the requests per second, and all requests.
    pub load: &'a dyn Fn() -> Result<(f64, f64)>,
    /// The label of the metrics.
    pub protocol: &'a str,
    pub rounds: u32,
    pub seconds: u32,
    pub bar: &'a str,
    pub goal: &'a str,
}

impl Pairs<'_> {
    /// Reports the throughput that is lost while an agent runs.
    pub fn run(&self, report: &mut Report, start: impl Fn() -> Result<Agent>) -> Result<()> {
        let &Self { what, load, protocol, rounds, seconds, bar, goal } = self;
        let (mut ratios, mut offs, mut covered, mut dropped) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
        for _ in 0..rounds {
            let (off, _) = load()?;
            let agent = start()?;
            let (on, requests) = load()?;
            std::thread::sleep(Duration::from_millis(300));
            let metrics = agent.metrics()?;
            let exchanges = metrics.sum("remora_exchanges_total", &[("protocol", protocol)]);
            dropped += metrics.sum("remora_kernel_drops_total", &[]);
            dropped += metrics.sum("remora_spans_dropped_total", &[]);
            agent.kill()?;
            covered.push(exchanges / (2.0 * requests));
            ratios.push(1.0 - on / off);
            offs.push(off);
        }
        let how = format!(
            "median of {rounds} pairs of {seconds} s, {:.0} k request/s without; measured exchanges / requests, both sides: {:.4}; records and spans dropped: {dropped:.0}",
            median(&mut offs) / 1000.0,
            median(&mut covered),
        );
        report.row(what, format!("{:.1} %", median(&mut ratios) * 100.0), bar, goal, how);
        Ok(())
    }
}

/// Throughput at saturation, all spans and 1 %.
pub fn saturated(report: &mut Report, rounds: u32, seconds: u32) -> Result<()> {
    let (nginx, sink) = (Nginx::start()?, Sink::start()?);
    let url = nginx.url();
    let load = || wrk(&url, seconds);
    wrk(&url, 1)?;
    for (what, sampler, bar, goal) in [
        ("nginx throughput lost at saturation, a client and a server span each", None, "30 %", "15 %"),
        ("the same at 1 % head sampling, metrics of all", Some("0.01"), "15 %", "5 %"),
    ] {
        let pairs = Pairs { what, load: &load, protocol: "http1", rounds, seconds, bar, goal };
        pairs.run(report, || exporting(&sink, nginx.port, sampler))?;
    }
    Ok(())
}

/// The same with propagation: each request of the client's gets a context of its own.
pub fn propagating(report: &mut Report, rounds: u32, seconds: u32) -> Result<()> {
    let (nginx, sink) = (Nginx::start()?, Sink::start()?);
    let url = nginx.url();
    let load = || wrk(&url, seconds);
    wrk(&url, 1)?;
    for (what, arguments) in [
        ("nginx throughput lost at saturation with `--hooks calls`", &["--hooks", "calls"][..]),
        ("the same with `--propagate tcp`", &["--propagate", "tcp"]),
        ("the same with `--propagate headers`", &["--propagate", "headers", "--unsafe"]),
    ] {
        let pairs = Pairs { what, load: &load, protocol: "http1", rounds, seconds, bar: "–", goal: "–" };
        pairs.run(report, || {
            let builder = Builder::new()?.no_spans_file().args(arguments).port(nginx.port);
            builder.env("OTEL_EXPORTER_OTLP_ENDPOINT", &sink.endpoint()).start()
        })?;
    }
    Ok(())
}

/// All spans are made and sent over OTLP, to a receiver that reads and forgets.
pub fn exporting(sink: &Sink, port: u16, sampler: Option<&str>) -> Result<Agent> {
    let builder = Builder::new()?.no_spans_file().port(port).env("OTEL_EXPORTER_OTLP_ENDPOINT", &sink.endpoint());
    match sampler {
        Some(ratio) => builder.env("OTEL_TRACES_SAMPLER", "traceidratio").env("OTEL_TRACES_SAMPLER_ARG", ratio),
        None => builder,
    }
    .start()
}

/// The same, which sees what is under TLS.
pub fn exporting_tls(sink: &Sink, port: u16) -> Result<Agent> {
    Builder::new()?.tls().no_spans_file().port(port).env("OTEL_EXPORTER_OTLP_ENDPOINT", &sink.endpoint()).start()
}

/// h2load with keep-alive connections, each at a steady rate.
fn paced(url: &str, clients: u32, rate: u32, seconds: u32) -> Result<Child> {
    let program = env::which("h2load").context("h2load is not installed: cargo xtask setup --tests")?;
    let total = clients * rate * seconds;
    let arguments = ["--h1", "-c", &clients.to_string(), "--rps", &rate.to_string(), "-n", &total.to_string(), url];
    Ok(Command::new(program).args(arguments).stdout(Stdio::null()).spawn()?)
}

/// 10 k request/s while nothing listens at the endpoint, then something does: memory, books, and whether export recovers.
pub fn dead_endpoint(report: &mut Report, seconds: u32) -> Result<()> {
    let nginx = Nginx::start()?;
    let port = fixture::free_port()?;
    let dead = Sink { port };
    let agent = exporting(&dead, nginx.port, None)?;
    let (clients, rate) = (10, 1000);
    let dead_for = seconds.max(5) * 30;
    let mut load = paced(&nginx.url(), clients, rate, dead_for + 40)?;
    let (mut most, mut first_half) = (0, 0);
    for second in 0..dead_for {
        std::thread::sleep(Duration::from_secs(1));
        most = most.max(agent.resident()?);
        if second == dead_for / 2 {
            first_half = most;
        }
    }
    let before = agent.metrics()?;
    let counts = |metrics: &Metrics| {
        let sum = |name| metrics.sum(name, &[("exporter", "otlp")]);
        (metrics.sum("remora_spans_total", &[]), sum("remora_spans_exported_total"), sum("remora_spans_dropped_total"))
    };
    let (made, exported, dropped) = counts(&before);
    ensure!(exported < 1.0, "{exported} spans went nowhere");
    let _alive = Sink::on(port)?;
    let recovered = tests::wait::until(Duration::from_secs(35), "export recovers", || {
        let metrics = agent.metrics()?;
        Ok((metrics.sum("remora_spans_exported_total", &[("exporter", "otlp")]) > 0.0).then_some(()))
    });
    let after = agent.metrics()?;
    ensure!(load.wait()?.success(), "h2load did not succeed");
    let how = format!(
        "{} request/s; nothing listened for {dead_for} s: {made:.0} spans made, {dropped:.0} counted as dropped, the rest waited; \
         most in the first half {:.0} MiB; then a receiver: {}, {:.0} spans exported within seconds",
        clients * rate,
        first_half as f64 / f64::from(1 << 20),
        if recovered.is_ok() { "export went on by itself" } else { "export did NOT recover" },
        counts(&after).1,
    );
    report.row(
        "resident memory at most, with a dead OTLP endpoint",
        format!("{:.0} MiB", most as f64 / f64::from(1 << 20)),
        "64 MiB",
        "32 MiB",
        how,
    );
    Ok(())
}

/// 10 k request/s, paced: spans per request, delivered over OTLP, and memory.
pub fn moderate(report: &mut Report, seconds: u32) -> Result<()> {
    let nginx = Nginx::start()?;
    let receiver = Receiver::start(Protocol::Grpc)?;
    let agent = agent(&receiver, nginx.port)?;
    let seconds = seconds.max(5) * 2;
    let (clients, rate) = (10, 1000);
    let total = clients * rate * seconds;
    let mut load = paced(&nginx.url(), clients, rate, seconds)?;
    ensure!(load.wait()?.success(), "h2load did not succeed");
    let metrics = tests::wait::until(Duration::from_secs(15), "all spans are exported", || {
        let metrics = agent.metrics()?;
        let exported = metrics.sum("remora_spans_exported_total", &[("exporter", "otlp")]);
        Ok((exported >= 2.0 * f64::from(total)).then_some(metrics))
    });
    let metrics = metrics.or_else(|_| agent.metrics())?;
    let exported = metrics.sum("remora_spans_exported_total", &[("exporter", "otlp")]);
    let ratio = exported / (2.0 * f64::from(total));
    let how = format!("{} request/s for {seconds} s over OTLP/gRPC to a receiver", clients * rate);
    report.row(
        "spans ÷ requests at a moderate load, both sides",
        format!("{:.3} %", ratio * 100.0),
        "99.9 %",
        "100 %",
        how.clone(),
    );
    let resident = agent.resident()? as f64 / f64::from(1 << 20);
    report.row("resident memory", format!("{resident:.0} MiB"), "64 MiB", "32 MiB", how);
    let maps = metrics.sum("remora_map_bytes", &[]) / f64::from(1 << 20);
    report.row(
        "eBPF maps, preallocated",
        format!("{maps:.1} MiB"),
        "32 MiB",
        "16 MiB",
        "`remora_map_bytes`".to_owned(),
    );
    let cpu = metrics.sum("remora_process_cpu_seconds_total", &[]);
    report.row(
        "CPU of the agent at that load",
        format!("{:.1} % of a core", cpu / f64::from(seconds) * 100.0),
        "–",
        "–",
        "`remora_process_cpu_seconds_total`, start included".to_owned(),
    );
    Ok(())
}
