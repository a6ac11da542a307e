//! What a system call costs more while the agent runs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::agent::Builder;
use tests::process::Process;
use tests::{env, fixture};

use crate::report::{Report, median};
use crate::throughput::Nginx;

pub const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel's own count of what its programs take, under nginx and wrk.
pub fn programs(report: &mut Report, seconds: u32) -> Result<()> {
    let nginx = Nginx::start()?;
    let agent = Builder::new()?.no_spans_file().start()?;
    let before = std::fs::read_to_string(STATISTICS)?;
    std::fs::write(STATISTICS, "1")?;
    let program = env::which("wrk").context("wrk is not installed: cargo xtask setup --tests")?;
    let url = format!("http://127.0.0.1:{}/small.html", nginx.port);
    let load = Command::new(program).args(["-t1", "-c32", &format!("-d{seconds}"), &url]).output();
    let metrics = agent.metrics();
    std::fs::write(STATISTICS, before.trim())?;
    load?;
    let metrics = metrics?;
    for (program, what) in [
        ("sock_recv_length", "a captured read or recvfrom, at the socket"),
        ("sock_send_length", "a captured write, writev or sendfile, at the socket"),
        ("tcp_sendmsg_locked", "the beginning of any of these, at the socket"),
        ("exit_read", "a captured read, return"),
        ("exit_recvfrom", "a captured recvfrom, return"),
        ("exit_write", "a captured write, return"),
        ("exit_writev", "a captured writev, return"),
        ("exit_sendfile64", "a captured sendfile, return"),
        ("enter_writev", "any writev, entry"),
    ] {
        let of = |name| metrics.sum(name, &[("program", program)]);
        let (runs, seconds) = (of("remora_program_runs_total"), of("remora_program_seconds_total"));
        if runs > 1000.0 {
            let nanos = seconds / runs * 1e9;
            let how = format!("{runs:.0} runs of `{program}`, kernel's program statistics (whose own clock is in it)");
            report.row(what, format!("{nanos:.0} ns"), "600 ns", "300 ns", how);
        }
    }
    Ok(())
}

/// Nanoseconds per call of `calls` calls.
fn nanos(calls: u32, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..calls {
        call()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(calls))
}

/// Descriptors that are no sockets, and calls that nobody hooks.
pub fn others(report: &mut Report, rounds: u32) -> Result<()> {
    let mut null = std::fs::File::create("/dev/null")?;
    let mut refused = || {
        nanos(1_000_000, || {
            null.write_all(b"x")?;
            Ok(())
        })
    };
    let mut unhooked = || {
        nanos(1_000_000, || {
            std::hint::black_box(nix::unistd::getppid());
            Ok(())
        })
    };
    for (what, measure, bar, goal) in [
        ("a write to a file while the agent runs", &mut refused as &mut dyn FnMut() -> Result<f64>, "150 ns", "80 ns"),
        ("a call that nobody hooks (getppid)", &mut unhooked, "30 ns", "10 ns"),
    ] {
        let mut added = Vec::new();
        for _ in 0..rounds {
            let off = measure()?;
            let agent = Builder::new()?.no_spans_file().start()?;
            let on = measure()?;
            agent.kill()?;
            added.push(on - off);
        }
        let how = format!("median of {rounds} pairs of 1,000,000 calls, on less off");
        report.row(what, format!("{:.0} ns", median(&mut added)), bar, goal, how);
    }
    Ok(())
}

/// Processor time in seconds that a process has used.
fn cpu(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanos: f64 = stat.split_whitespace().next().context("an empty schedstat")?.parse()?;
    Ok(nanos / 1e9)
}

/// Redis is no HTTP: what its connections cost when they are looked at and refused.
pub fn redis(report: &mut Report, rounds: u32, seconds: u32) -> Result<()> {
    let program = env::which("redis-server").context("redis-server is not installed: cargo xtask setup --tests")?;
    let port = fixture::free_port()?;
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]);
    let redis = Process::spawn(&mut command)?;
    fixture::accepts(port)?;
    let mut ratios = Vec::new();
    let mut offs = Vec::new();
    for _ in 0..rounds {
        let off = paced(redis.pid(), port, seconds)?;
        let agent = Builder::new()?.no_spans_file().start()?;
        let on = paced(redis.pid(), port, seconds)?;
        let service = [("service_name", "redis-server")];
        let spans = agent.metrics()?.sum("http_server_request_duration_seconds_count", &service);
        agent.kill()?;
        ensure!(spans == 0.0, "{spans} exchanges of redis, which is no HTTP");
        ratios.push(on / off - 1.0);
        offs.push(off);
    }
    let how = format!(
        "median of {rounds} pairs of {seconds} s at 10 k op/s, {:.1} % of a core without; no span",
        median(&mut offs) * 100.0
    );
    report.row("added CPU of redis, ignored", format!("{:.1} %", median(&mut ratios) * 100.0), "15 %", "5 %", how);
    Ok(())
}

/// 10,000 commands a second over 10 connections; the part of a core that redis takes.
fn paced(pid: u32, port: u16, seconds: u32) -> Result<f64> {
    let listener = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut connections: Vec<TcpStream> = (0..10)
        .map(|_| {
            let stream = TcpStream::connect(listener)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
        .collect::<std::io::Result<_>>()?;
    let begin = (Instant::now(), cpu(pid)?);
    let mut answer = [0; 64];
    for round in 0..seconds * 1000 {
        for stream in &mut connections {
            stream.write_all(b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n")?;
        }
        for stream in &mut connections {
            let length = stream.read(&mut answer)?;
            ensure!(length > 0, "redis closed a connection");
        }
        let due = begin.0 + Duration::from_millis(u64::from(round) + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok((cpu(pid)? - begin.1) / begin.0.elapsed().as_secs_f64())
}
