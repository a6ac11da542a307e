//! The agent under test.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::http::{self, Response};
use crate::metrics::Metrics;
use crate::process::Process;
use crate::span::{self, Span};
use crate::{env, wait};

/// What a start may take on a loaded machine; the budget is measured elsewhere.
const START: Duration = Duration::from_secs(30);
/// What draining and flushing may take.
const STOP: Duration = Duration::from_secs(20);
/// What a span may take to reach the file, which is flushed each second.
const SPANS: Duration = Duration::from_secs(15);

/// The setting of that name.
const TLS: &str = "REMORA_TLS";

/// How an agent is to be started.
pub struct Builder {
    command: Command,
    folder: TempDir,
    listen: String,
    spans_file: bool,
}

/// An agent that is attached. Ended on drop.
pub struct Agent {
    pub address: SocketAddr,
    process: Process,
    spans: RefCell<span::Log>,
    _folder: TempDir,
}

/// What an agent left behind.
pub struct Stopped {
    pub status: ExitStatus,
    pub stderr: String,
    pub spans: Vec<Span>,
}

/// The command `remora`, without any of its settings in the environment.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(env::remora());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("OTEL_") || name.starts_with("REMORA_") || name == "RUST_LOG" {
            command.env_remove(&*name);
        }
    }
    command
}

impl Builder {
    /// `remora run` with a spans file and a port chosen by the kernel.
    pub fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        let mut command = command();
        command.arg("run");
        // The kernel takes some 0.1 s for each hook of a library when it is let go of, and the next agent waits for that.
        command.env(TLS, "false");
        Ok(Self { command, folder, listen: "127.0.0.1:0".to_owned(), spans_file: true })
    }

    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// Another address than one with a port chosen by the kernel.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// Writes no file: for measuring.
    #[must_use]
    pub fn no_spans_file(mut self) -> Self {
        self.spans_file = false;
        self
    }

    /// Keeps to exchanges whose server has this port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.args(&["--port", &port.to_string()])
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// It sees what is under TLS, as it does by default.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.command.env_remove(TLS);
        self
    }

    /// Starts it and waits until it is attached.
    pub fn start(mut self) -> Result<Agent> {
        ensure!(env::remora().is_file(), "no agent at {}: cargo xtask build", env::remora().display());
        if self.spans_file {
            self.command.arg("--spans").arg(self.folder.path().join("spans.jsonl"));
        }
        let mut process = Process::spawn(self.command.args(["--listen", &self.listen]))?;
        let address = wait::until(START, "the agent listens", || {
            if process.ended()?.is_some() {
                let (status, stderr) = process.wait(STOP)?;
                bail!("the agent ended with {status}: {stderr}");
            }
            Ok(listening(&process.stderr()))
        })
        .with_context(|| format!("the agent says: {}", process.stderr()))?;
        let agent = Agent {
            address,
            process,
            spans: RefCell::new(span::Log::new(self.folder.path().join("spans.jsonl"))),
            _folder: self.folder,
        };
        wait::until(START, "the agent is ready", || {
            Ok(agent.get("/readyz").ok().filter(|answer| answer.status == 200))
        })
        .with_context(|| format!("the agent says: {}", agent.stderr()))?;
        Ok(agent)
    }
}

/// The address in `listening on http://127.0.0.1:PORT`.
fn listening(stderr: &str) -> Option<SocketAddr> {
    let (_, rest) = stderr.split_once("listening on http://")?;
    let end = rest.find(|letter: char| !letter.is_ascii_hexdigit() && !".:[]".contains(letter))?;
    rest.get(..end)?.parse().ok()
}

impl Agent {
    /// An agent that looks at one server port.
    pub fn on(port: u16) -> Result<Self> {
        Builder::new()?.port(port).start()
    }

    /// The same, which sees what is under TLS as well.
    pub fn with_tls_on(port: u16) -> Result<Self> {
        Builder::new()?.tls().port(port).start()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    pub fn get(&self, path: &str) -> Result<Response> {
        http::get(self.address, path, "*/*")
    }

    /// `/metrics` in the Prometheus text format.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.get("/metrics")?.body)
    }

    /// All spans written until now.
    pub fn spans(&self) -> Result<Vec<Span>> {
        Ok(self.spans.borrow_mut().read()?.to_vec())
    }

    /// Waits until at least `count` spans are written.
    pub fn wait_for_spans(&self, count: usize) -> Result<Vec<Span>> {
        let mut last = 0;
        let found = wait::until(SPANS, &format!("{count} spans are written"), || {
            let mut spans = self.spans.borrow_mut();
            let spans = spans.read()?;
            last = spans.len();
            Ok((last >= count).then(|| spans.to_vec()))
        });
        found.with_context(|| format!("{last} spans; the agent says: {}", self.stderr()))
    }

    /// Resident memory in octets.
    pub fn resident(&self) -> Result<u64> {
        self.memory("VmRSS")
    }

    /// The most that it has been since the start, or since [`Agent::forget_peak`].
    pub fn peak(&self) -> Result<u64> {
        self.memory("VmHWM")
    }

    /// From now on the peak is that of what follows (5 in `clear_refs`, proc_pid_clear_refs(5)).
    pub fn forget_peak(&self) -> Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").context("the agent is gone")
    }

    fn memory(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).context("the agent is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// SIGTERM; what it left behind. Fails unless it ends with 0 in time.
    pub fn stop(mut self) -> Result<Stopped> {
        let (status, stderr) =
            self.process.terminate(STOP).with_context(|| format!("the agent says: {}", self.stderr()))?;
        ensure!(status.success(), "the agent ended with {status}: {stderr}");
        Ok(Stopped { status, stderr, spans: self.spans()? })
    }

    /// Waits for `count` spans, then stops the agent: what is there then is all there will ever be, so that one span too
    /// many is seen as well as one too few.
    pub fn stop_after(self, count: usize) -> Result<Vec<Span>> {
        // Too few are better told of by the comparison that follows than by a deadline.
        let _ = self.wait_for_spans(count);
        Ok(self.stop()?.spans)
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(STOP).map(drop)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> Result<(ExitStatus, String)> {
        self.process.wait(STOP)
    }
}

/// Runs `remora` with `args` to its end, which must come by itself; gives exit status and standard error.
pub fn run(command: &mut Command) -> Result<(ExitStatus, String)> {
    Process::spawn(command)?.wait(START)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_log_line() {
        let line = "INFO remora: listening on http://127.0.0.1:43211 (page, /metrics)\n";
        assert_eq!(listening(line), Some("127.0.0.1:43211".parse().unwrap()));
        assert_eq!(listening("listening on http://[::1]:9464\n"), Some("[::1]:9464".parse().unwrap()));
        assert_eq!(listening("listening on http://127.0.0.1:432"), None, "the line is not complete");
        assert_eq!(listening("starting\n"), None);
    }
}
