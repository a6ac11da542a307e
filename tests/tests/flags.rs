//! What the command line chooses, and what it refuses.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::agent::{Agent, Builder, command, run};
use tests::expect::{Side, expect_pairs, undisturbed};
use tests::fixture::{Client, Language, Server};
use tests::span::Span;
use tests::truth::Exchange;
use tests::{env, needs, plan};

const N: usize = 20;

/// Two servers and a client of each, all at once: what an agent with these flags sees of it.
struct Pair {
    python: Server,
    go: Server,
    of_python: Vec<Exchange>,
    of_go: Vec<Exchange>,
    /// The client is written in Go, too.
    called_python: Vec<Exchange>,
    called_go: Vec<Exchange>,
    spans: Vec<Span>,
}

/// `spans` of these are waited for; both servers' ports are given by --port if `ports`.
fn with(ports: bool, spans: usize, args: impl FnOnce(&Server, &Server) -> Vec<String>) -> Result<Pair> {
    let (python, go) = (Server::start(Language::Python)?, Server::start(Language::Go)?);
    let args = args(&python, &go);
    let mut builder = Builder::new()?.args(&args.iter().map(String::as_str).collect::<Vec<_>>());
    if ports {
        builder = builder.port(python.port).port(go.port);
    }
    let agent = builder.start()?;
    let called_python = Client::run(Language::Python, &python.base(), &plan::items("python", N), &[])?;
    let called_go = Client::run(Language::Go, &go.base(), &plan::items("go", N), &[])?;
    let (of_python, of_go) = (python.truth(N)?, go.truth(N)?);
    let spans = agent.stop_after(spans)?;
    Ok(Pair { python, go, of_python, of_go, called_python, called_go, spans })
}

fn flag(name: &str, value: impl ToString) -> Vec<String> {
    vec![name.to_owned(), value.to_string()]
}

#[test]
fn port() -> Result<()> {
    needs!("root", "python", "go");
    undisturbed(|| {
        let pair = with(false, 2 * N, |_, go| flag("--port", go.port))?;
        expect_pairs(
            &[Side::client(&pair.called_go, pair.go.port), Side::server(&pair.of_go, pair.go.port)],
            &pair.spans,
        )
    })
}

#[test]
fn exclude_port() -> Result<()> {
    needs!("root", "python", "go");
    undisturbed(|| {
        let pair = with(true, 2 * N, |_, go| flag("--exclude-port", go.port))?;
        let port = pair.python.port;
        expect_pairs(&[Side::client(&pair.called_python, port), Side::server(&pair.of_python, port)], &pair.spans)
    })
}

#[test]
fn pid() -> Result<()> {
    needs!("root", "python", "go");
    undisturbed(|| {
        let pair = with(true, N, |python, _| flag("--pid", python.pid))?;
        expect_pairs(&[Side::server(&pair.of_python, pair.python.port)], &pair.spans)?;
        let pair = with(true, 2 * N, |python, go| [flag("--pid", python.pid), flag("--pid", go.pid)].concat())?;
        expect_pairs(
            &[Side::server(&pair.of_python, pair.python.port), Side::server(&pair.of_go, pair.go.port)],
            &pair.spans,
        )
    })
}

#[test]
fn exe() -> Result<()> {
    needs!("root", "python", "go");
    undisturbed(|| {
        let path = env::built("server").canonicalize()?;
        for glob in [path.display().to_string(), "server".to_owned(), "ser[v]er".to_owned()] {
            let pair = with(true, N, |_, _| flag("--exe", &glob))?;
            expect_pairs(&[Side::server(&pair.of_go, pair.go.port)], &pair.spans).context(glob)?;
        }
        // An interpreter's script counts as well: there may be many processes of the one interpreter.
        let pair = with(true, N, |_, _| flag("--exe", "server.py"))?;
        expect_pairs(&[Side::server(&pair.of_python, pair.python.port)], &pair.spans).context("server.py")?;
        let pair = with(true, 2 * N, |_, _| flag("--exe", "python*"))?;
        let port = pair.python.port;
        expect_pairs(&[Side::client(&pair.called_python, port), Side::server(&pair.of_python, port)], &pair.spans)
    })
}

#[test]
fn exclude_exe() -> Result<()> {
    needs!("root", "python", "go");
    undisturbed(|| {
        let pair = with(true, 2 * N, |_, _| flag("--exclude-exe", "python*"))?;
        expect_pairs(
            &[Side::client(&pair.called_go, pair.go.port), Side::server(&pair.of_go, pair.go.port)],
            &pair.spans,
        )?;
        let pair = with(true, N, |_, _| {
            [
                flag("--exe", "*r*"),
                flag("--exclude-exe", "python*"),
                flag("--exe", "client"),
                flag("--exclude-exe", "server"),
            ]
            .concat()
        })?;
        expect_pairs(&[Side::client(&pair.called_go, pair.go.port)], &pair.spans)
    })
}

/// The same by variables and by file, and which of them wins.
#[test]
fn flags_win_over_variables_over_the_file() -> Result<()> {
    needs!("root", "python", "go");
    let (python, go) = (Server::start(Language::Python)?, Server::start(Language::Go)?);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("remora.yaml");
    std::fs::write(&file, format!("port: [{}]\n", go.port))?;
    let file = file.display().to_string();
    let calls = || -> Result<()> {
        Client::run(Language::Go, &python.base(), &plan::items("p", N), &[])?;
        Client::run(Language::Go, &go.base(), &plan::items("g", N), &[])?;
        Ok(())
    };
    let seen = |agent: Agent| -> Result<Vec<i64>> {
        calls()?;
        let spans = agent.stop_after(2 * N)?;
        ensure!(spans.len() == 2 * N, "{} spans", spans.len());
        let mut ports: Vec<_> = spans.iter().filter_map(|span| span.int("server.port")).collect();
        ports.sort_unstable();
        ports.dedup();
        Ok(ports)
    };
    let by_file = seen(Builder::new()?.args(&["--config", &file]).start()?)?;
    ensure!(by_file == [i64::from(go.port)], "by file: {by_file:?}");
    let variable = python.port.to_string();
    let by_variable = seen(Builder::new()?.args(&["--config", &file]).env("REMORA_PORT", &variable).start()?)?;
    ensure!(by_variable == [i64::from(python.port)], "by variable: {by_variable:?}");
    let by_flag = seen(Builder::new()?.env("REMORA_PORT", &variable).port(go.port).start()?)?;
    ensure!(by_flag == [i64::from(go.port)], "by flag: {by_flag:?}");
    Ok(())
}

/// Ends by itself with a status that is not 0 and one line that names `what`.
fn refused(command: &mut Command, what: &str) -> Result<()> {
    let (status, stderr) = run(command)?;
    ensure!(!status.success(), "{command:?} ends with {status}");
    ensure!(status.code().is_some_and(|code| code != 101), "{command:?} ends with {status}: {stderr}");
    let lines: Vec<_> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(lines.len() == 1, "{command:?} says {} lines: {stderr}", lines.len());
    ensure!(stderr.to_lowercase().contains(&what.to_lowercase()), "{command:?} does not say {what:?}: {stderr}");
    Ok(())
}

#[test]
fn refused_flags_and_values() -> Result<()> {
    ensure!(env::remora().is_file(), "no agent at {}", env::remora().display());
    let cases: [(&[&str], &str); 13] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["--port", "99999"], "--port"),
        (&["--port", "http"], "--port"),
        (&["--port", "0"], "--port"),
        (&["--pid", "-1"], "--pid"),
        (&["--exe", "[a"], "--exe"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--propagate", "everything"], "--propagate"),
        (&["--max-traces-per-second", "many"], "--max-traces-per-second"),
        (&["--segment-ring", "12345"], "--segment-ring"),
        (&["--config", "/no/such/file.yaml"], "/no/such/file.yaml"),
        (&["--keep-slowest", "99"], "--keep-slowest"),
    ];
    for (args, what) in cases {
        let as_command = if what.starts_with("no-such") { None } else { Some("run") };
        refused(command().args(as_command).args(args), what)?;
    }
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "no url at all"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("REMORA_PORT", "x"),
    ] {
        let mut command = command();
        command.args(["run", "--listen", "127.0.0.1:0"]).env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        refused(command.env(name, value), name)?;
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("remora.yaml");
    std::fs::write(&file, "prot: 80\n")?;
    refused(command().args(["run", "--config"]).arg(&file), "prot")?;
    for (rule, what) in [
        ("{service: shop, ratio: 2}", "from 0 to 1"),
        ("{service: shop, rate: 0.5}", "unknown key 'rate'"),
        ("{service: '', ratio: 0.5}", "expected a glob"),
    ] {
        std::fs::write(&file, format!("sampling: [{rule}]\n"))?;
        refused(command().args(["run", "--config"]).arg(&file), what)?;
    }
    Ok(())
}

#[test]
fn a_busy_port() -> Result<()> {
    needs!("root");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = taken.local_addr()?.to_string();
    refused(command().args(["run", "--listen", &address]), &address)
}

#[test]
fn a_spans_file_that_cannot_be_written() -> Result<()> {
    needs!("root");
    refused(command().args(["run", "--listen", "127.0.0.1:0", "--spans", "/no/such/folder/spans"]), "/no/such/folder")
}

#[test]
fn without_root() -> Result<()> {
    needs!("root", "setpriv");
    // The build may lie where only root may look.
    let folder = tempfile::tempdir_in("/tmp")?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let copy = folder.path().join("remora");
    std::fs::copy(env::remora(), &copy).context("no agent to copy")?;
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))?;
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(&copy).args(args);
        command
    };
    refused(&mut as_nobody(&["run", "--listen", "127.0.0.1:0"]), "CAP_BPF")?;
    let (status, _) = run(&mut as_nobody(&["check"]))?;
    ensure!(!status.success(), "check says that capture can work without any privilege");
    let (status, stderr) = run(&mut as_nobody(&["--help"]))?;
    ensure!(status.success(), "--help needs no privilege: {stderr}");
    Ok(())
}

#[test]
fn check_says_what_can_be_done() -> Result<()> {
    needs!("root");
    let mut process = tests::process::Process::spawn(command().arg("check"))?;
    let (status, stderr) = process.wait(Duration::from_secs(30))?;
    ensure!(status.success(), "{stderr}");
    let lines =
        tests::process::Process::spawn(command().args(["check", "--json"]))?.succeed(Duration::from_secs(30))?;
    let report: serde_json::Value = serde_json::from_str(&lines.join("\n"))?;
    ensure!(report.is_object(), "{report}");
    Ok(())
}

/// SIGINT as SIGTERM: drain, flush, report, exit 0.
#[test]
fn signals() -> Result<()> {
    needs!("root", "go");
    let server = Server::start(Language::Go)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut agent = Agent::on(server.port)?;
        // What has not been flushed yet is flushed on the way out.
        Client::run(Language::Go, &server.base(), &plan::items("s", N), &[])?;
        agent.signal(signal)?;
        let (status, stderr) = agent.wait()?;
        ensure!(status.code() == Some(0), "{signal}: {status}: {stderr}");
        ensure!(agent.spans()?.len() == 2 * N, "{signal}: {} spans", agent.spans()?.len());
    }
    Ok(())
}

/// A second signal ends the agent at once, whatever the first one waits for: a receiver that never answers, the kernel
/// as it detaches programs.
#[test]
fn a_second_signal() -> Result<()> {
    needs!("root", "go");
    let server = Server::start(Language::Go)?;
    let receiver = tests::otlp::Receiver::start(tests::otlp::Protocol::Http)?;
    receiver.set(tests::otlp::Mode::Hang);
    for hooks in ["auto", "calls"] {
        // Once while the programs may still be being detached, once when only the receiver is waited for.
        for between in [Duration::from_millis(1), Duration::from_millis(2500)] {
            let agent = Builder::new()?.port(server.port).args(&["--hooks", hooks]);
            let agent = agent.env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint());
            let agent = agent.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf").env("OTEL_METRICS_EXPORTER", "none");
            let mut agent = agent.start()?;
            Client::run(Language::Go, &server.base(), &plan::items("h", N), &[])?;
            agent.wait_for_spans(2 * N)?;
            agent.signal(Signal::SIGTERM)?;
            let still_there = tests::wait::throughout(between, || {
                ensure!(std::path::Path::new(&format!("/proc/{}/fd/0", agent.pid())).exists(), "it has ended");
                Ok(())
            });
            still_there.context("the first signal leaves time to flush")?;
            let second = Instant::now();
            agent.signal(Signal::SIGTERM)?;
            let (status, stderr) = agent.wait()?;
            let took = second.elapsed();
            ensure!(took < Duration::from_millis(500), "--hooks {hooks}: {took:?} after the second signal");
            ensure!(status.code() == Some(130), "{status}: {stderr}");
            let lost = format!("second signal, exiting at once; lost: {} spans not exported to otlp", 2 * N);
            ensure!(stderr.contains(&lost), "{stderr}");
        }
    }
    Ok(())
}
