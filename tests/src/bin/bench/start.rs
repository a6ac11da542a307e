//! From the start of the agent to its first span, on connections that are older than it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tests::agent::Builder;

use crate::report::{Report, median};
use crate::throughput::Nginx;

/// A request each millisecond on one connection; how long after the agent's start the first span begins.
pub fn first_span(report: &mut Report, rounds: u32) -> Result<()> {
    let nginx = Nginx::start()?;
    let mut stream = TcpStream::connect(("127.0.0.1", nginx.port))?;
    stream.set_nodelay(true)?;
    let stop = Arc::new(AtomicBool::new(false));
    let client = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || -> std::io::Result<()> {
            let mut answer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                stream.write_all(b"GET /small.html HTTP/1.1\r\nHost: bench\r\n\r\n")?;
                let _ = stream.read(&mut answer)?;
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }
    });
    let mut waits = Vec::new();
    for _ in 0..rounds {
        let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as f64;
        let agent = Builder::new()?.port(nginx.port).start()?;
        let spans = agent.wait_for_spans(4)?;
        let first = spans.iter().map(|span| span.start).min().unwrap_or(0) as f64;
        waits.push((first - started) / 1e9);
        agent.kill()?;
    }
    stop.store(true, Ordering::Relaxed);
    let _ = client.join();
    let how = format!("median of {rounds} starts under a request a millisecond on a connection opened before");
    report.row("start to first span", format!("{:.2} s", median(&mut waits)), "1 s", "0.3 s", how);
    Ok(())
}
