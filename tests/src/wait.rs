//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at. Short next to all deadlines, long next to what looking costs.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks `condition` until it gives a value, or fails, or `deadline` has passed; `what` names it in the error.
pub fn until<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > deadline {
            bail!("not within {deadline:?}: {what}");
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Watches `condition` for the whole of `duration`: fails as soon as it fails. For what must *not* happen.
pub fn throughout(duration: Duration, mut condition: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < duration {
        condition()?;
        std::thread::sleep(INTERVAL);
    }
    condition()
}
