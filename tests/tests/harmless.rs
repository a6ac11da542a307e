//! Do no harm: the agent may be killed or stand still under load, and nobody notices.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::agent::{Agent, Builder};
use tests::fixture::{Client, Language, Relay, Server};
use tests::nginx::Nginx;
use tests::plan;
use tests::process::Process;
use tests::scenario::Peer;
use tests::secure::{self, Service};
use tests::tls::Credentials;
use tests::truth::Exchange;
use tests::{env, needs, wait};

/// Every exchange was answered as planned: `/item/` always by 200.
fn unharmed(done: &[Exchange]) -> Result<()> {
    let harmed: Vec<_> =
        done.iter().filter(|exchange| exchange.error.is_some() || exchange.status != Some(200)).collect();
    ensure!(harmed.is_empty(), "{} of {} requests failed: {:?}", harmed.len(), done.len(), harmed.first());
    Ok(())
}

#[test]
fn killed_under_load() -> Result<()> {
    needs!("root", "python", "node", "go", "nginx");
    for server in ["nginx", "python", "node", "go"] {
        let peer = Peer::start(server)?;
        let clients = [(Language::Go, "keepalive"), (Language::Go, "close"), (Language::Python, "keepalive")];
        let pace = ["--interval-us", "300", "--mode"];
        let started: Result<Vec<_>> = clients
            .iter()
            .map(|(language, mode)| {
                Client::start(*language, &peer.base(), &plan::items(mode, 200_000), &[&pace[..], &[mode]].concat())
            })
            .collect();
        let clients = started?;
        for _ in 0..3 {
            let agent = Agent::on(peer.port())?;
            agent.wait_for_spans(500)?;
            agent.kill()?;
            for client in &clients {
                client.does_more(20)?;
            }
        }
        for client in clients {
            unharmed(&client.stop()?)?;
        }
    }
    Ok(())
}

/// How many octets of the code that a process has mapped from files in `folder` are not those of the file: one or more for each
/// hook.
fn changed(pid: u32, folder: &Path) -> Result<usize> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let (mut code, mut changed) = (0, 0);
    let folder = folder.to_str().context("the folder's name")?;
    for line in maps.lines().filter(|line| line.contains(" r-xp ") && line.contains(folder)) {
        let mut fields = line.split_whitespace();
        let (range, offset) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        let (from, to) = range.split_once('-').context("a range of addresses")?;
        let [from, to, offset] = [from, to, offset].map(|number| u64::from_str_radix(number, 16));
        let (from, to) = (from?, to?);
        let file = File::open(fields.last().context("a file")?)?;
        let mut octets = [vec![0; (to - from) as usize], vec![0; (to - from) as usize]];
        let [mapped, filed] = &mut octets;
        memory.read_exact_at(mapped, from)?;
        // The last page may be longer than the file.
        let read = file.read_at(filed, offset?)?;
        code += read;
        changed += mapped.iter().zip(filed.iter()).take(read).filter(|(mapped, filed)| mapped != filed).count();
    }
    ensure!(code > 0, "the process runs no code from there");
    Ok(changed)
}

/// A client's command, with copies in `folder` of what is hooked for it: no other agent has hooks there.
fn with_copies(name: &str, folder: &Path) -> Result<Command> {
    let mut command = secure::program(name);
    if name == "go" {
        let copy = folder.join("client");
        std::fs::copy(command.get_program(), &copy)?;
        let mut copied = Command::new(copy);
        copied.args(command.get_args());
        return Ok(copied);
    }
    let find = "import ssl; print(*{line.split()[-1] for line in open('/proc/self/maps') if '/libssl' in line or '/libcrypto' in line})";
    let found = Command::new(env::python()).args(["-c", find]).output()?;
    let found = String::from_utf8(found.stdout)?;
    for library in found.split_whitespace().map(Path::new) {
        std::fs::copy(library, folder.join(library.file_name().context("a library's name")?))?;
    }
    command.env("LD_LIBRARY_PATH", folder);
    Ok(command)
}

/// The hooks in the processes' own code go with an agent that is killed, and no request fails by that.
#[test]
fn killed_under_load_with_tls() -> Result<()> {
    needs!("root", "venv", "go", "nginx");
    let credentials = Credentials::new()?;
    let service = Service::start("nginx", &credentials)?;
    let (folder, pace) = (tempfile::tempdir()?, ["--interval-us", "300", "--mode", "keepalive"]);
    let start = |name: &str| {
        let command = with_copies(name, folder.path())?;
        secure::client_by(command, &credentials, &service.base(), &plan::items(name, 400_000), &pace)
    };
    let clients = [start("python")?, start("go")?];
    for _ in 0..2 {
        let agent = Agent::with_tls_on(service.port())?;
        agent.wait_for_spans(500)?;
        for client in &clients {
            wait::until(Duration::from_secs(20), "the agent has hooked it", || {
                Ok((changed(client.pid(), folder.path())? > 0).then_some(()))
            })?;
            client.does_more(20)?;
        }
        agent.kill()?;
        for client in &clients {
            client.does_more(20)?;
            wait::until(Duration::from_secs(20), "the code is as in the file", || {
                Ok((changed(client.pid(), folder.path())? == 0).then_some(()))
            })?;
        }
    }
    for client in clients {
        unharmed(&client.stop()?)?;
    }
    Ok(())
}

#[test]
fn octets_are_the_same_with_and_without() -> Result<()> {
    needs!("root", "python");
    let server = Server::start(Language::Python)?;
    let relay = Relay::start(server.port)?;
    let base = format!("http://127.0.0.1:{}", relay.port);
    let steps = plan::mixed("o", 600);
    let run = || Client::run(Language::Python, &base, &steps, &["--interval-us", "1000"]);
    run()?;

    let agent = Builder::new()?.port(server.port).port(relay.port).start()?;
    run()?;
    agent.wait_for_spans(600)?;

    let client = Client::start(Language::Python, &base, &steps, &["--interval-us", "1000"])?;
    client.does_more(200)?;
    agent.kill()?;
    client.finish()?;

    let (without, with, killed) = (relay.octets(0)?, relay.octets(1)?, relay.octets(2)?);
    ensure!(without.0.len() > 50_000 && without.1.len() > 50_000, "hardly anything crossed the relay");
    ensure!(with == without, "octets differ with the agent");
    ensure!(killed == without, "octets differ when the agent is killed");
    Ok(())
}

/// At saturation, the agent on the same processors.
#[test]
fn killed_at_saturation() -> Result<()> {
    needs!("root", "nginx", "wrk");
    let nginx = Nginx::start(None)?;
    let mut wrk = Command::new(env::which("wrk").unwrap_or_default());
    let load = Process::spawn(wrk.args(["-t1", "-c16", "-d4s"]).arg(format!("{}/hello", nginx.base())))?;
    let agent = Agent::on(nginx.port)?;
    agent.wait_for_spans(1000)?;
    agent.kill()?;
    let said = load.succeed(Duration::from_secs(30))?.join("\n");
    let requests = said.lines().find(|line| line.contains("requests in")).unwrap_or("0 requests");
    let count: u64 = requests.split_whitespace().next().unwrap_or("0").parse()?;
    ensure!(count > 1000, "wrk did next to nothing: {said}");
    // wrk has these lines only when there is something to tell.
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    Ok(())
}

/// An agent that does not run, and whose rings therefore fill, holds nobody up.
#[test]
fn a_standing_agent_holds_nobody_up() -> Result<()> {
    needs!("root", "go");
    let server = Server::start(Language::Go)?;
    let agent = Builder::new()?.port(server.port).args(&["--segment-ring", "65536"]).start()?;
    agent.signal(Signal::SIGSTOP)?;
    let done = Client::run(Language::Go, &server.base(), &plan::items("s", 5000), &[]);
    agent.signal(Signal::SIGCONT)?;
    unharmed(&done?)?;
    agent.stop().map(drop)
}
