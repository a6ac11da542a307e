//! `cargo xtask w3c`: W3C's harness for Trace Context against a service that knows nothing of it, while the agent puts
//! contexts into its requests.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::Builder;
use tests::fixture::{self, Language};
use tests::http;
use tests::process::Process;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let harness = arguments.next().context("the folder of the harness is missing")?;
    let level = arguments.next().context("the level is missing")?;
    let service = Process::spawn(&mut fixture::program(Language::Python, "callback"))?;
    let announced = service.announcement(Duration::from_secs(30))?;
    let port = announced.get("port").and_then(serde_json::Value::as_u64).context("the service announces no port")?;
    // None of these programs asks how much there is to read.
    let agent = Builder::new()?
        .args(&["--propagate", "headers", "--unsafe", "--pid", &service.pid().to_string()])
        .no_spans_file()
        .start()?;
    let status = Command::new(tests::env::python())
        .arg("test.py")
        .arg(format!("http://127.0.0.1:{port}/test"))
        .current_dir(&harness)
        .envs([
            ("STRICT_LEVEL", "2".as_ref()),
            ("SPEC_LEVEL", level.as_os_str()),
            ("PYTHONDONTWRITEBYTECODE", "1".as_ref()),
        ])
        .status()
        .context("the harness cannot be run")?;
    let metrics = http::get(agent.address, "/metrics", "*/*")?.body;
    for line in metrics.lines().filter(|line| line.contains("operation=\"header_")) {
        eprintln!("{line}");
    }
    ensure!(status.success(), "the harness ended with {status}");
    Ok(())
}
