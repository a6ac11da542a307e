//! The truth logs of the fixtures: what a client or a server itself did.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::wait;

/// One exchange as a client or a server logged it.
#[derive(Clone, Debug, Deserialize)]
pub struct Exchange {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `None` when no response came.
    pub status: Option<u16>,
    /// Octets of content.
    pub request_body: u64,
    pub response_body: u64,
    /// Nanoseconds since the epoch. A client's: before its first octet is sent; a server's: the first octet is read.
    pub start: u64,
    /// A client's: the last octet is read; a server's: the last octet is written.
    pub end: u64,
    pub pid: u32,
    /// Why it failed, in the fixture's own words.
    pub error: Option<String>,
}

/// All exchanges logged until now.
pub fn read(log: &Path) -> Result<Vec<Exchange>> {
    lines(log)
}

/// All that is logged until now, one JSON object a line; a line not yet complete is left out.
pub fn lines<T: DeserializeOwned>(log: &Path) -> Result<Vec<T>> {
    let text = match std::fs::read_to_string(log) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", log.display())),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).with_context(|| format!("in the log: {line}"))).collect()
}

/// Waits until `count` exchanges have been logged: servers write their line after the response.
pub fn wait_for(log: &Path, count: usize) -> Result<Vec<Exchange>> {
    let what = format!("{count} exchanges in {}", log.display());
    wait::until(Duration::from_secs(10), &what, || Ok((logged(log) >= count).then_some(())))?;
    read(log)
}

/// How many exchanges have been logged until now.
#[must_use]
pub fn logged(log: &Path) -> usize {
    // Counting lines is cheap enough to be done again and again under load.
    std::fs::read(log).map_or(0, |text| text.iter().filter(|octet| **octet == b'\n').count())
}
