//! The servers and clients of `tests/fixtures`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::netns::Host;
use crate::plan::{self, Step};
use crate::process::Process;
use crate::truth::{self, Exchange};
use crate::{env, wait};

/// What a start or a plan of a few hundred requests may take on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Python,
    Node,
    Go,
}

impl Language {
    fn command(self, role: &str) -> Command {
        match self {
            Self::Python => with(&env::python(), &env::fixture(&format!("python/{role}.py"))),
            Self::Node => with(&env::which("node").unwrap_or_default(), &env::fixture(&format!("node/{role}.js"))),
            Self::Go => Command::new(env::built(role)),
        }
    }
}

/// The program `name` of the Python fixtures.
#[must_use]
pub fn python(name: &str) -> Command {
    with(&env::python(), &env::fixture(&format!("python/{name}.py")))
}

/// The program `name` of the fixtures of `language`.
#[must_use]
pub fn program(language: Language, name: &str) -> Command {
    language.command(name)
}

fn with(interpreter: &Path, script: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(script).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A server that is listening.
pub struct Server {
    pub port: u16,
    /// The process that serves; not always the one that was started.
    pub pid: u32,
    process: Process,
    log: PathBuf,
    _folder: TempDir,
    _place: Option<TempDir>,
}

impl Server {
    /// Starts the server of `language` on 127.0.0.1.
    pub fn start(language: Language) -> Result<Self> {
        Self::start_with(language, &[])
    }

    pub fn start_with(language: Language, args: &[&str]) -> Result<Self> {
        let mut command = language.command("server");
        command.args(args);
        Self::run(&mut command)
    }

    /// Starts the server of `language` in a network namespace.
    pub fn start_at(host: &Host, language: Language, args: &[&str]) -> Result<Self> {
        let mut command = language.command("server");
        command.args(args);
        Self::run(&mut host.command(&command))
    }

    /// Starts the server of `language` with variables of its own in its environment.
    pub fn start_in(language: Language, environment: &[(&str, &str)]) -> Result<Self> {
        Self::run(language.command("server").envs(environment.iter().copied()))
    }

    /// The server of `language` in a folder and a file of other names, to see what it is called.
    pub fn renamed(language: Language, folder: &str, file: &str) -> Result<Self> {
        let place = TempDir::new()?;
        let folder = place.path().join(folder);
        std::fs::create_dir(&folder)?;
        let path = folder.join(file);
        let (mut command, original, beside) = match language {
            Language::Python => (with(&env::python(), &path), env::fixture("python/server.py"), "python/truth.py"),
            Language::Node => {
                (with(&env::which("node").unwrap_or_default(), &path), env::fixture("node/server.js"), "node/truth.js")
            }
            Language::Go => (Command::new(&path), env::built("server"), "go/go.mod"),
        };
        std::fs::copy(original, &path)?;
        let beside = env::fixture(beside);
        std::fs::copy(&beside, folder.join(beside.file_name().context("a fixture without a name")?))?;
        let server = Self::run(&mut command)?;
        Ok(Self { _place: Some(place), ..server })
    }

    /// Flask under gunicorn, or FastAPI under uvicorn.
    pub fn framework(name: &str) -> Result<Self> {
        Self::run(with(&env::python(), &env::fixture("python/framework.py")).arg(name))
    }

    /// A Python server whose sockets come to it in an unusual way, see `descriptors.py`.
    pub fn descriptors(case: &str) -> Result<Self> {
        Self::run(with(&env::python(), &env::fixture("python/descriptors.py")).arg(case))
    }

    /// A service of `chain.py` in a network namespace.
    pub fn chain_at(host: &Host, args: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = with(&env::python(), &env::fixture("python/chain.py"));
        command.args(args).envs(environment.iter().copied());
        Self::run(&mut host.command(&command))
    }

    /// By a command that takes `--log` and announces its port.
    pub fn run(command: &mut Command) -> Result<Self> {
        let folder = TempDir::new()?;
        let log = folder.path().join("server.log");
        let process = Process::spawn(command.arg("--log").arg(&log))?;
        let announced = process.announcement(DEADLINE)?;
        let number = |name: &str| announced.get(name).and_then(serde_json::Value::as_u64);
        let port = number("port").and_then(|port| u16::try_from(port).ok()).context("the server announces no port")?;
        let pid = number("server_pid").and_then(|pid| u32::try_from(pid).ok()).unwrap_or(process.pid());
        Ok(Self { port, pid, process, log, _folder: folder, _place: None })
    }

    #[must_use]
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it did: waits for `count` exchanges.
    pub fn truth(&self, count: usize) -> Result<Vec<Exchange>> {
        truth::wait_for(&self.log, count)
    }

    /// Waits until the Python server has read a request for `/slow` or `/hang`.
    pub fn begun(&self) -> Result<()> {
        self.process.announcement(DEADLINE).map(drop)
    }
}

/// A relay that records the octets of both directions.
pub struct Relay {
    pub port: u16,
    folder: TempDir,
    _process: Process,
}

impl Relay {
    pub fn start(to: u16) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut command = with(&env::python(), &env::fixture("python/relay.py"));
        command.arg("--to").arg(to.to_string()).arg("--record").arg(folder.path().join("octets"));
        let process = Process::spawn(&mut command)?;
        let announced = process.announcement(DEADLINE)?;
        let port = announced.get("port").and_then(serde_json::Value::as_u64).context("the relay announces no port")?;
        Ok(Self { port: u16::try_from(port)?, folder, _process: process })
    }

    /// Requests and responses of the connection with this number, as they crossed the relay.
    pub fn octets(&self, connection: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        let read = |direction: &str| {
            let path = self.folder.path().join(format!("octets.{connection}.{direction}"));
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok((read("request")?, read("response")?))
    }
}

/// A client that carries out a plan.
pub struct Client {
    process: Process,
    log: PathBuf,
    planned: usize,
    _folder: TempDir,
}

impl Client {
    /// Starts the client of `language` against `base`; `args` as the client takes them, such as `--mode close`.
    pub fn start(language: Language, base: &str, steps: &[Step], args: &[&str]) -> Result<Self> {
        Self::start_by(language, base, steps, args, |command| command)
    }

    fn start_by(
        language: Language,
        base: &str,
        steps: &[Step],
        args: &[&str],
        change: impl FnOnce(Command) -> Command,
    ) -> Result<Self> {
        let mut command = language.command("client");
        command.args(args);
        Self::by(command, base, steps, change)
    }

    /// By a command that takes `--base`, `--plan` and `--log`, and is changed when it has them.
    pub fn by(
        mut command: Command,
        base: &str,
        steps: &[Step],
        change: impl FnOnce(Command) -> Command,
    ) -> Result<Self> {
        let folder = TempDir::new()?;
        let log = folder.path().join("client.log");
        let plan = folder.path().join("plan");
        plan::write(&plan, steps)?;
        command.args(["--base", base, "--plan"]).arg(plan).arg("--log").arg(&log);
        Ok(Self { process: Process::spawn(&mut change(command))?, log, planned: steps.len(), _folder: folder })
    }

    /// Runs a client in a network namespace to its end; gives what it did.
    pub fn run_at(host: &Host, language: Language, base: &str, steps: &[Step]) -> Result<Vec<Exchange>> {
        Self::start_by(language, base, steps, &[], |command| host.command(&command))?.finish()
    }

    /// Runs a client to its end; gives what it did.
    pub fn run(language: Language, base: &str, steps: &[Step], args: &[&str]) -> Result<Vec<Exchange>> {
        Self::start(language, base, steps, args)?.finish()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until it stands at the request given by `--gate`.
    pub fn at_gate(&self) -> Result<()> {
        self.process.announcement(DEADLINE).map(drop)
    }

    /// Lets it go on.
    pub fn open_gate(&mut self) -> Result<()> {
        self.process.tell("go")
    }

    /// How many exchanges it has had until now.
    #[must_use]
    pub fn done(&self) -> usize {
        truth::logged(&self.log)
    }

    /// Waits until it has had `count` more.
    pub fn does_more(&self, count: usize) -> Result<()> {
        let goal = self.done() + count;
        wait::until(DEADLINE, &format!("the client has done {goal} requests"), || {
            Ok((self.done() >= goal).then_some(()))
        })
    }

    /// Waits for its end; gives what it did, all of the plan.
    pub fn finish(self) -> Result<Vec<Exchange>> {
        self.process.succeed(DEADLINE)?;
        let done = truth::read(&self.log)?;
        anyhow::ensure!(done.len() == self.planned, "the client did {} of {} requests", done.len(), self.planned);
        Ok(done)
    }

    /// Asks it to stop after the current request; gives what it did.
    pub fn stop(mut self) -> Result<Vec<Exchange>> {
        let (status, stderr) = self.process.terminate(DEADLINE)?;
        anyhow::ensure!(status.success(), "the client ended with {status}: {stderr}");
        truth::read(&self.log)
    }
}

/// A port that nothing listens on. Another process may take it at any time: for programs that cannot choose by themselves.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Waits until something accepts connections on `port`.
pub fn accepts(port: u16) -> Result<()> {
    wait::until(Duration::from_secs(20), &format!("port {port} accepts connections"), || {
        Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
    })
}
