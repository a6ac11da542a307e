//! The broker.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::Topology;
use crate::process::Process;
use crate::tls::{self, Credentials};
use crate::{env, fixture, wait};

/// What a start may take on a loaded machine: several seconds on an idle one.
const DEADLINE: Duration = Duration::from_secs(90);
/// The ports are chosen before the broker takes them: another process may come first.
const ATTEMPTS: usize = 3;

/// One node, with a port mapper (epmd) of its own; the user is `guest`. Ended on drop, and its data removed.
pub struct Broker {
    pub port: u16,
    /// Where it speaks TLS, if it does.
    pub tls_port: Option<u16>,
    server: Process,
    mapper: Process,
    _folder: TempDir,
}

impl Broker {
    /// Starts it and waits until it answers.
    pub fn start() -> Result<Self> {
        Self::start_with(None)
    }

    /// The same, which speaks TLS on a second port.
    pub fn start_tls(credentials: &Credentials) -> Result<Self> {
        Self::start_with(Some(credentials))
    }

    fn start_with(credentials: Option<&Credentials>) -> Result<Self> {
        for _ in 1..ATTEMPTS {
            match Self::attempt(credentials) {
                Err(error) if format!("{error:#}").contains("eaddrinuse") => {}
                done => return done,
            }
        }
        Self::attempt(credentials)
    }

    fn attempt(credentials: Option<&Credentials>) -> Result<Self> {
        let folder = TempDir::new()?;
        let (port, mapper_port, distribution) = (fixture::free_port()?, fixture::free_port()?, fixture::free_port()?);
        let tls_port = credentials.map(|_| fixture::free_port()).transpose()?;
        let secure = credentials.zip(tls_port);
        std::fs::write(folder.path().join("rabbitmq.conf"), settings(port, secure))?;
        std::fs::write(folder.path().join("plugins"), "[].")?;
        let mut mapper = Command::new(env::which("epmd").unwrap_or_default());
        let mapper = Process::spawn(mapper.args(["-address", "127.0.0.1", "-port", &mapper_port.to_string()]))?;
        fixture::accepts(mapper_port)?;
        let mut command = command(folder.path(), port);
        command.env("ERL_EPMD_PORT", mapper_port.to_string()).env("RABBITMQ_DIST_PORT", distribution.to_string());
        let server = Process::spawn(&mut command)?;
        let mut broker = Self { port, tls_port, server, mapper, _folder: folder };
        let ready = wait::until(DEADLINE, "the broker answers", || {
            if let Some(status) = broker.server.ended()? {
                bail!("it ended with {status}");
            }
            Ok(answers(port).ok())
        });
        ready.with_context(|| format!("RabbitMQ says: {}", broker.says()))?;
        Ok(broker)
    }

    /// Begins a connection with this header, and waits until the broker has answered.
    pub fn hello(&self, header: [u8; 8]) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&header)?;
        stream.read_exact(&mut [0; 8]).context("no answer")
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// All its processes: server, port mapper, and the server's helpers.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut processes = vec![self.server.pid(), self.mapper.pid()];
        processes.extend(descendants(self.server.pid()));
        processes
    }

    /// What it has printed and not been asked for until now.
    fn says(&self) -> String {
        let mut lines = vec![self.server.stderr()];
        while let Ok(line) = self.server.line(Duration::ZERO) {
            lines.push(line);
        }
        lines.join("\n")
    }

    /// Makes what is not there yet.
    pub fn declare(&self, topology: &Topology) -> Result<()> {
        let mut plan = serde_json::to_value(topology)?;
        let plan_of = plan.as_object_mut().context("a topology that is no object")?;
        plan_of.extend([
            ("port".to_owned(), json!(self.port)),
            ("client".to_owned(), json!("declares")),
            ("heartbeat".to_owned(), json!(0)),
        ]);
        let mut command = fixture::python("rabbit_clients");
        command.arg("declare").arg(plan.to_string());
        Process::spawn(command.env_remove(tls::VARIABLE))?.succeed(DEADLINE).map(drop)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // To end in order takes seconds, and nothing of it is kept. Its helpers end with the pipes to it, only later.
        let helpers = descendants(self.server.pid());
        let _ = self.server.signal(Signal::SIGKILL);
        for helper in helpers.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper), Signal::SIGKILL);
        }
    }
}

/// The processes that this one has started, and these in turn.
fn descendants(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let own: Vec<u32> =
        lists.flat_map(|list| list.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect();
    own.iter().flat_map(|child| descendants(*child)).chain(own.iter().copied()).collect()
}

/// The server as one process that keeps to `folder`: without the plugins and settings of the machine.
fn command(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(env::rabbitmq());
    command.env("HOME", folder).env("ERL_EPMD_ADDRESS", "127.0.0.1");
    for (name, place) in [
        ("CONFIG_FILE", "rabbitmq.conf"),
        ("ENABLED_PLUGINS_FILE", "plugins"),
        ("MNESIA_BASE", "data"),
        ("LOG_BASE", "log"),
        ("SCHEMA_DIR", "schema"),
        ("GENERATED_CONFIG_DIR", "generated"),
    ] {
        command.env(format!("RABBITMQ_{name}"), folder.join(place));
    }
    command.env("RABBITMQ_CONF_ENV_FILE", "/dev/null").env("RABBITMQ_NODENAME", format!("remora-{port}@localhost"));
    // Erlang in place of the shell script, which then leaves its input alone.
    command.env("RABBITMQ_ALLOW_INPUT", "1").env("RABBITMQ_SERVER_START_ARGS", "-noinput");
    command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
    command
}

fn settings(port: u16, secure: Option<(&Credentials, u16)>) -> String {
    let mut settings = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}
log.console = true
log.console.level = warning
log.file = false
disk_free_limit.absolute = 1MB
"
    );
    if let Some((credentials, port)) = secure {
        let files = [("cacertfile", "ca.pem"), ("certfile", "cert.pem"), ("keyfile", "key.pem")];
        settings += &format!("listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.verify = verify_none\n");
        for (name, file) in files {
            settings += &format!("ssl_options.{name} = {}\n", credentials.file(file).display());
        }
    }
    settings
}

/// Fails unless it answers the protocol's header with Connection.Start (AMQP 0-9-1, sections 2.2.4 and 1.4.2.1).
fn answers(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    let mut head = [0; 11];
    stream.read_exact(&mut head)?;
    ensure!(head[..3] == [1, 0, 0] && head[7..] == [0, 10, 0, 10], "another answer: {head:?}");
    Ok(())
}
