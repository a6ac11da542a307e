//! The truth log, as the other fixtures write it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::json;

pub(crate) struct Log(File);

/// One exchange. Times are wall-clock nanoseconds.
pub(crate) struct Record<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) status: Option<u16>,
    pub(crate) request_body: u64,
    pub(crate) response_body: u64,
    pub(crate) start: u64,
    pub(crate) error: Option<String>,
}

impl Log {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::options().append(true).create(true).open(path);
        Ok(Self(file.with_context(|| format!("cannot open {}", path.display()))?))
    }

    /// An exchange that has ended now; the line is written by one call.
    pub(crate) fn write(&self, record: &Record<'_>) -> Result<()> {
        let line = json!({
            "method": record.method,
            "target": record.target,
            "status": record.status,
            "request_body": record.request_body,
            "response_body": record.response_body,
            "start": record.start,
            "end": now(),
            "pid": std::process::id(),
            "error": record.error,
        });
        Ok((&self.0).write_all(format!("{line}\n").as_bytes())?)
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// One line of JSON on standard output: the harness waits for it.
pub(crate) fn announce(name: &str, value: u64) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({"pid": std::process::id(), name: value}))?;
    Ok(out.flush()?)
}
