//! The virtual machine: one run of qemu, whose two serial ports are all that comes out of it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::kernel::fresh_folder;
use crate::exec;

const QEMU: &str = "qemu-system-x86_64";
/// More than one, so that what is kept per CPU is told apart.
const CPUS: &str = "2";
const MEMORY_MIB: &str = "1024";
/// The console carries lines of text. A longer one is cut: the guest does not decide how much this holds.
const LINE_LIMIT: u64 = 64 * 1024;

/// What came out of a run.
pub(super) struct Run {
    /// The lines of the first serial port.
    pub(super) console: Vec<String>,
    /// All of the second one.
    pub(super) results: String,
    pub(super) timed_out: bool,
    pub(super) took: Duration,
}

/// Boots the kernel with the initramfs and waits until the machine is off. The console and the results are left in
/// `folder`; what the script in the machine says of its progress is shown as it comes.
pub(super) fn run(kernel: &Path, initramfs: &Path, folder: &Path, limit: Duration) -> Result<Run> {
    fresh_folder(folder)?;
    let results = folder.join("results");
    let mut qemu = Command::new(QEMU);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    // Emulation, not the host's virtualisation: it works everywhere, and everywhere alike.
    qemu.args(["-machine", "pc", "-accel", "tcg,thread=multi", "-smp", CPUS, "-m", MEMORY_MIB]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    // `panic=-1` reboots at once, which ends qemu.
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet"]);
    qemu.args(["-serial", "stdio", "-serial"]).arg(format!("file:{}", results.display()));
    qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    let begin = Instant::now();
    let mut machine = Machine(qemu.spawn().with_context(|| exec::cannot_start(&qemu))?);
    let output = machine.0.stdout.take().context("qemu has no standard output")?;
    let (console, timed_out) = follow(output, begin + limit, begin);
    if !timed_out {
        let status = machine.0.wait().context("cannot wait for qemu")?;
        if !status.success() {
            bail!("{status} from: {}", exec::show(&qemu));
        }
    }
    drop(machine);
    fs::write(folder.join("console"), console.join("\n")).context("cannot keep the console")?;
    let results = fs::read(&results).with_context(|| format!("qemu has not made {}", results.display()))?;
    Ok(Run { console, results: String::from_utf8_lossy(&results).into_owned(), timed_out, took: begin.elapsed() })
}

/// Collects the console's lines until qemu ends or the time is over.
fn follow(output: ChildStdout, deadline: Instant, begin: Instant) -> (Vec<String>, bool) {
    let (sender, receiver) = mpsc::sync_channel(64);
    // Ends with qemu, which ends at the latest when `Machine` is dropped.
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while let Ok(1..) = output.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let mut lines = Vec::new();
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(said) = line.strip_prefix("vm: ") {
                    eprintln!("   {:>4} s  {said}", begin.elapsed().as_secs());
                }
                lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => return (lines, false),
            Err(RecvTimeoutError::Timeout) => return (lines, true),
        }
    }
}

/// A running qemu; ended on drop.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Already ended, unless the time was over.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
