//! Child processes that end with their guard.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::wait;

/// What a process may take to end by itself after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Lines of standard output that wait to be read; later ones are dropped.
const LINES: usize = 65_536;
/// Standard error that is kept of one process, in octets; later ones are dropped.
const STDERR_LIMIT: usize = 4 << 20;

/// A child process: its lines of standard output one by one, its standard error as text. Ended on drop.
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with pipes on all three standard streams.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let (sender, lines) = sync_channel(LINES);
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // Nobody reads a talkative process's output: it must not block for that.
                    if let Err(TrySendError::Disconnected(_)) = sender.try_send(line) {
                        break;
                    }
                }
            }));
        }
        if let Some(mut pipe) = child.stderr.take() {
            let kept = Arc::clone(&stderr);
            readers.push(std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    if kept.len() < STDERR_LIMIT {
                        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    }
                }
            }));
        }
        Ok(Self { name, child, lines, stderr, readers })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output.
    pub fn line(&self, deadline: Duration) -> Result<String> {
        self.lines.recv_timeout(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("{} prints no line within {deadline:?}: {}", self.name, self.stderr()),
            RecvTimeoutError::Disconnected => anyhow!("{} ended: {}", self.name, self.stderr()),
        })
    }

    /// The next line of standard output, as JSON.
    pub fn announcement(&self, deadline: Duration) -> Result<Value> {
        let line = self.line(deadline)?;
        serde_json::from_str(&line).with_context(|| format!("{} printed: {line}", self.name))
    }

    /// What it wrote to standard error until now.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin: &mut ChildStdin = self.child.stdin.as_mut().context("no standard input")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).with_context(|| format!("cannot write to {}", self.name))
    }

    /// Its standard input ends.
    pub fn tell_no_more(&mut self) {
        self.child.stdin = None;
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Waits until it has ended by itself; gives exit status and standard error.
    pub fn wait(&mut self, deadline: Duration) -> Result<(ExitStatus, String)> {
        let name = self.name.clone();
        let status = wait::until(deadline, &format!("{name} ends"), || self.ended())?;
        // The pipes may stay open in a grandchild: only what has been read by then counts.
        for reader in self.readers.drain(..) {
            let _ = wait::until(Duration::from_secs(1), "the pipes close", || Ok(reader.is_finished().then_some(())));
        }
        Ok((status, self.stderr()))
    }

    /// Waits until it has ended and fails unless it succeeded; gives all remaining lines of its standard output.
    pub fn succeed(mut self, deadline: Duration) -> Result<Vec<String>> {
        let (status, stderr) = self.wait(deadline)?;
        if !status.success() {
            let lines: Vec<_> = self.lines.try_iter().collect();
            bail!("{} ended with {status}: {stderr}{}", self.name, lines.join("\n"));
        }
        Ok(self.lines.try_iter().collect())
    }

    /// SIGTERM, then the exit status.
    pub fn terminate(&mut self, deadline: Duration) -> Result<(ExitStatus, String)> {
        self.signal(Signal::SIGTERM)?;
        self.wait(deadline)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = self.signal(Signal::SIGTERM);
        if wait::until(GRACE, "it ends", || self.ended()).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
