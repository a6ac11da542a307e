//! What is not HTTP makes no spans, and the agent does not trace itself.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::expect::{Clock, Side, expect_pairs, undisturbed};
use tests::fixture::{self, Client, Language, Server};
use tests::otlp::{Protocol, Receiver};
use tests::process::Process;
use tests::{env, needs, plan};

#[test]
fn redis_makes_no_spans() -> Result<()> {
    needs!("root", "redis-server", "redis-benchmark", "go");
    undisturbed(|| {
        let port = fixture::free_port()?;
        let folder = tempfile::tempdir()?;
        let redis = env::which("redis-server").unwrap_or_default();
        let _redis = Process::spawn(
            Command::new(redis)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
                .arg(folder.path()),
        )?;
        fixture::accepts(port)?;
        let server = Server::start(Language::Go)?;
        let agent = Builder::new()?.port(port).port(server.port).start()?;
        let benchmark = env::which("redis-benchmark").unwrap_or_default();
        let load = Process::spawn(Command::new(benchmark).args([
            "-p",
            &port.to_string(),
            "-n",
            "20000",
            "-c",
            "10",
            "-q",
            "-t",
            "set,get,lrange",
            "-d",
            "300",
        ]))?;
        // The HTTP neighbour is traced all the same.
        let done = Client::run(Language::Go, &server.base(), &plan::mixed("n", 200), &[])?;
        load.succeed(Duration::from_secs(60))?;
        let served = server.truth(200)?;
        let spans = agent.stop_after(400)?;
        expect_pairs(&[Side::client(&done, server.port), Side::server(&served, server.port)], &spans)
    })
}

/// Neither its listener nor its exports, even when told to look at their ports.
#[test]
fn the_agent_does_not_trace_itself() -> Result<()> {
    needs!("root");
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let receiver = Receiver::start(protocol)?;
        let port = fixture::free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let agent = Builder::new()?
            .listen(&listen)
            .port(port)
            .port(receiver.address.port())
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint())
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
            .env("OTEL_METRICS_EXPORTER", "none")
            .start();
        let agent = agent.context("with a listener of its own")?;
        let own = i64::from(agent.pid());
        for _ in 0..50 {
            agent.metrics()?;
        }
        // This process asked, so its client spans are right; they also make the agent export.
        agent.wait_for_spans(50)?;
        let spans = agent.stop()?.spans;
        let traced: Vec<_> = spans.iter().filter(|span| span.pid() == Some(own)).collect();
        ensure!(traced.is_empty(), "{protocol:?}: {} spans of the agent itself: {:?}", traced.len(), traced.first());
        ensure!(receiver.requests() > 0, "{protocol:?}: nothing was exported");
    }
    Ok(())
}

/// Content that looks like requests and responses, at the start of a segment, too.
#[test]
fn content_that_looks_like_a_message_is_none() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        let fakes = [
            "GET /fake HTTP/1.1\r\nHost: fake\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "\r\n0\r\n\r\n",
        ];
        for mode in ["keepalive", "raw", "pipeline"] {
            let server = Server::start(Language::Python)?;
            let agent = Agent::on(server.port)?;
            let step = |i: usize| {
                let size = [100, 3000, 70_000, 400_000][i / 6 % 4];
                let step = plan::Step::post(format!("/echo?id={i}"), size).fill(fakes[i % 3]);
                if i % 6 < 3 { step } else { step.chunked() }
            };
            let steps: Vec<_> = (0..48).map(step).collect();
            // Less than the sockets hold at once, or a client that sends all before it reads would wait for ever.
            let done = Client::run(Language::Python, &server.base(), &steps, &["--mode", mode, "--depth", "2"])?;
            let served = server.truth(steps.len())?;
            let spans = agent.stop_after(2 * steps.len())?;
            // Sending so much may block: its last call begins long before its end. And where a call moves more than is
            // captured, the framing of chunks is lost with it.
            let sides = [Side::client(&done, server.port), Side::server(&served, server.port)]
                .map(|side| side.unsized_bodies().clocks(Clock::LOOSE, Clock::LOOSE));
            // With requests behind such an upload it is not certain where they begin: some may be missing, none is invented.
            let sides = if mode == "pipeline" { sides.map(Side::lossy) } else { sides };
            ensure!(spans.len() >= steps.len(), "{mode}: {} spans of {}", spans.len(), 2 * steps.len());
            expect_pairs(&sides, &spans).context(mode)?;
        }
        Ok(())
    })
}
