//! SIGINT and SIGTERM: the first asks for the orderly end, the second ends the agent at once.
//!
//! They have a thread of their own, since the end is slow where something is busy or stuck: an exporter whose receiver
//! does not answer, the rings, the kernel as it detaches programs.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio_util::sync::CancellationToken;

use crate::export::ExportHandle;
use crate::probe::sys;

/// The status of an end by the second signal.
const STATUS: i32 = 130;
/// What writing the last line may take: nobody may be reading standard error.
const LAST_LINE: Duration = Duration::from_millis(100);

/// What ends the agent, and what it has to know for its last words.
pub struct Ending {
    /// Cancelled by the first signal.
    pub asked: CancellationToken,
    exporters: OnceLock<Vec<(&'static str, ExportHandle)>>,
    drained: AtomicBool,
}

impl Ending {
    /// Waits for signals from now on.
    ///
    /// # Errors
    /// When the kernel refuses handlers or a thread.
    pub fn start() -> anyhow::Result<Arc<Self>> {
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle SIGINT and SIGTERM")?;
        let ending = Arc::new(Self {
            asked: CancellationToken::new(),
            exporters: OnceLock::new(),
            drained: AtomicBool::new(false),
        });
        let shared = Arc::clone(&ending);
        std::thread::Builder::new()
            .name("remora-signals".to_owned())
            .spawn(move || {
                for _ in &mut signals {
                    if shared.asked.is_cancelled() {
                        shared.at_once();
                    }
                    shared.asked.cancel();
                }
            })
            .context("cannot start the thread for signals")?;
        Ok(ending)
    }

    /// Spans go there from now on.
    pub fn set_exporters(&self, exporters: &[(&'static str, ExportHandle)]) {
        // Set once, at start.
        let _ = self.exporters.set(exporters.to_vec());
    }

    /// Nothing waits in the rings any more.
    pub fn set_drained(&self) {
        self.drained.store(true, Ordering::Release);
    }

    fn at_once(&self) -> ! {
        let exporters = self.exporters.get().map(Vec::as_slice).unwrap_or_default();
        let pending: Vec<_> = exporters.iter().map(|(name, handle)| (*name, handle.books().pending)).collect();
        let line = last_line(&pending, self.drained.load(Ordering::Acquire));
        let (said, heard) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            eprintln!("{line}");
            let _ = said.send(());
        });
        let _ = heard.recv_timeout(LAST_LINE);
        leave(STATUS)
    }
}

/// Ends the process now. The kernel takes its time to let go of programs, 0.1 s for each function of a library: that is left to
/// a child, which holds nothing else. They report nothing any more.
pub fn leave(status: i32) -> ! {
    sys::leave(status, &not_programs())
}

/// What is lost, as far as it can be counted.
fn last_line(pending: &[(&'static str, u64)], drained: bool) -> String {
    let lost: Vec<_> = pending.iter().map(|(name, spans)| format!("{spans} spans not exported to {name}")).collect();
    let lost = if lost.is_empty() { String::new() } else { format!("; lost: {}", lost.join(", ")) };
    let rings = if drained { "" } else { "; what the rings still held was not read" };
    format!("remora: second signal, exiting at once{lost}{rings}")
}

/// The agent's descriptors but for those that keep programs attached.
fn not_programs() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let entries = entries.flatten().filter(|entry| {
        let what = std::fs::read_link(entry.path()).unwrap_or_default();
        let what = what.as_os_str().as_encoded_bytes();
        ![&b"anon_inode:[perf_event]"[..], b"anon_inode:bpf"].iter().any(|kind| what.starts_with(kind))
    });
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_what_is_lost() {
        assert_eq!(last_line(&[], true), "remora: second signal, exiting at once");
        assert_eq!(
            last_line(&[("otlp", 40), ("file", 0)], false),
            "remora: second signal, exiting at once; lost: 40 spans not exported to otlp, 0 spans not exported to file; \
             what the rings still held was not read"
        );
    }

    #[test]
    fn ordinary_descriptors_keep_no_program() {
        assert!(not_programs().contains(&2), "{:?}", not_programs());
    }
}
