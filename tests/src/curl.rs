//! curl as a client: several requests by one process, on one connection or not.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use tempfile::TempDir;

use crate::env;
use crate::plan::Step;
use crate::process::Process;
use crate::truth::Exchange;

/// What `--write-out '%{json}'` tells.
#[derive(Deserialize)]
struct Told {
    http_code: u16,
    size_upload: u64,
    size_download: u64,
}

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// Carries out `steps` by one curl; gives what it did. Times are those of its own trace, in microseconds.
pub fn run(base: &str, steps: &[Step], keep_alive: bool) -> Result<Vec<Exchange>> {
    run_with(base, steps, keep_alive, "")
}

/// The same with further lines of configuration for each request.
pub fn run_with(base: &str, steps: &[Step], keep_alive: bool, more: &str) -> Result<Vec<Exchange>> {
    let folder = TempDir::new()?;
    let config = folder.path().join("config");
    let trace = folder.path().join("trace");
    std::fs::write(&config, configuration(folder.path(), base, steps, keep_alive, more)?)?;
    let program = env::which("curl").context("curl is not installed")?;
    let mut command = Command::new(program);
    // --disable must come first: no configuration of the user's own.
    command.args(["--disable", "--silent", "--trace-time", "--trace-ascii"]).arg(&trace).arg("--config").arg(&config);
    let spawned = wall_clock()?;
    let process = Process::spawn(command.env("TZ", "UTC"))?;
    let pid = process.pid();
    let lines = process.succeed(Duration::from_secs(60))?;
    let times = times(&std::fs::read_to_string(&trace)?, spawned, fraction()?)?;
    ensure!(lines.len() == steps.len(), "curl tells of {} requests, not {}", lines.len(), steps.len());
    ensure!(times.len() == steps.len(), "curl's trace has {} requests, not {}", times.len(), steps.len());
    let exchange = |((step, line), (start, end)): ((&Step, String), (u64, u64))| -> Result<Exchange> {
        let told: Told = serde_json::from_str(&line).with_context(|| format!("curl wrote: {line}"))?;
        Ok(Exchange {
            method: step.method.clone(),
            target: step.target.clone(),
            status: (told.http_code != 0).then_some(told.http_code),
            request_body: told.size_upload,
            response_body: told.size_download,
            start,
            end,
            pid,
            error: None,
        })
    };
    steps.iter().zip(lines).zip(times).map(exchange).collect()
}

/// Carries out `steps` by HTTP/2 over TLS, so many at a time on one connection.
pub fn parallel(base: &str, steps: &[Step], authority: &Path, streams: usize) -> Result<()> {
    let folder = TempDir::new()?;
    let config = folder.path().join("config");
    let more = format!("cacert = \"{}\"\nhttp2\n", authority.display());
    std::fs::write(&config, configuration(folder.path(), base, steps, true, &more)?)?;
    let mut command = Command::new(env::which("curl").context("curl is not installed")?);
    command.args(["--disable", "--silent"]);
    if streams > 1 {
        command.args(["--parallel", "--parallel-max", &streams.to_string()]);
    }
    let lines = Process::spawn(command.arg("--config").arg(&config))?.succeed(Duration::from_secs(60))?;
    ensure!(lines.len() == steps.len(), "curl tells of {} requests, not {}", lines.len(), steps.len());
    Ok(())
}

fn configuration(folder: &Path, base: &str, steps: &[Step], keep_alive: bool, more: &str) -> Result<String> {
    let mut text = String::new();
    for (at, step) in steps.iter().enumerate() {
        if at > 0 {
            text.push_str("next\nsilent\n");
        }
        text.push_str(&format!(
            "url = \"{base}{}\"\noutput = \"/dev/null\"\nwrite-out = \"%{{json}}\\n\"\n",
            step.target
        ));
        text.push_str(more);
        match step.method.as_str() {
            "HEAD" => text.push_str("head\n"),
            method => text.push_str(&format!("request = \"{method}\"\n")),
        }
        if step.body > 0 {
            let body = folder.join(format!("body{}", step.body));
            std::fs::write(&body, vec![b'x'; usize::try_from(step.body)?])?;
            text.push_str(&format!("data-binary = \"@{}\"\n", body.display()));
        }
        if !keep_alive {
            text.push_str("header = \"Connection: close\"\n");
        }
        for (name, value) in &step.headers {
            text.push_str(&format!("header = \"{name}: {value}\"\n"));
        }
    }
    Ok(text)
}

/// Start and end of each exchange, from lines such as `22:13:56.123456 => Send header, 80 bytes (0x50)`.
///
/// curl counts on from a whole second of the wall clock by the monotonic clock, whose seconds begin at another moment:
/// `fraction` nanoseconds later, or as much earlier as is left of a second. Its first line cannot be older than `spawned`.
fn times(trace: &str, spawned: u64, fraction: u64) -> Result<Vec<(u64, u64)>> {
    let lines = trace.lines().filter_map(|line| Some((shown(line.split_once(' ')?.0)?, line.split_once(' ')?.1)));
    let mut times: Vec<(u64, u64)> = Vec::new();
    let mut correction = None;
    for (shown, what) in lines {
        let midnight = spawned - spawned % DAY;
        let correction = *correction.get_or_insert_with(|| {
            let candidates = [midnight, midnight + DAY].map(|day| [day + fraction - SECOND, day + fraction]);
            candidates.into_iter().flatten().find(|by| by + shown >= spawned).unwrap_or(midnight)
        });
        if what.starts_with("=> Send header") {
            times.push((correction + shown, correction + shown));
        } else if (what.starts_with("=> Send ") || what.starts_with("<= Recv "))
            // The records of TLS have lines of their own, those of the next connection's handshake too.
            && !what.contains("SSL data")
            && let Some(last) = times.last_mut()
        {
            last.1 = correction + shown;
        }
    }
    Ok(times)
}

/// Nanoseconds of `HH:MM:SS.uuuuuu`.
fn shown(clock: &str) -> Option<u64> {
    let (whole, micros) = clock.split_once('.')?;
    let mut seconds = 0;
    for part in whole.split(':') {
        seconds = seconds * 60 + part.parse::<u64>().ok()?;
    }
    Some(seconds * SECOND + micros.parse::<u64>().ok()? * 1000)
}

fn wall_clock() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos())?)
}

/// How much later than the wall clock's the monotonic clock's whole seconds begin.
fn fraction() -> Result<u64> {
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let monotonic = u64::try_from(monotonic.tv_sec())? * SECOND + u64::try_from(monotonic.tv_nsec())?;
    Ok(wall_clock()?.wrapping_sub(monotonic) % SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_is_moved_to_the_wall_clock() {
        let trace = "00:00:05.900000 == Info: Trying\n00:00:05.950000 => Send header, 80 bytes (0x50)\n\
            00:00:06.000001 <= Recv header, 17 bytes (0x11)\n00:00:06.100000 <= Recv data, 5 bytes (0x5)\n";
        let ms = 1_000_000;
        // The monotonic second begins 300 ms after the wall clock's: 5.9 shown was 6.2 or 5.2.
        for (spawned, expected) in [(5_100 * ms, 5_250 * ms), (6_100 * ms, 6_250 * ms)] {
            let day = 20_000 * DAY;
            let times = times(trace, day + spawned, 300 * ms).unwrap();
            assert_eq!(times, [(day + expected, day + expected + 150 * ms)]);
        }
    }
}
