//! Load on the mesh: clients that each keep one connection, as a pool of workers in one process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::mesh::Route;

/// One level of load.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    pub concurrency: usize,
    pub requests: usize,
}

impl Level {
    /// What the truth of this level's requests begins with.
    #[must_use]
    pub fn tag(self) -> String {
        format!("c{}-", self.concurrency)
    }

    /// The truth of each request, and its route.
    #[must_use]
    pub fn requests(self) -> Vec<(String, Route)> {
        (0..self.requests).map(|i| (format!("{}{i}", self.tag()), Route::of_request(i))).collect()
    }
}

/// Sends `requests` to `port`, so many at a time. Fails at the first answer that is not as it should be.
pub fn run(port: u16, concurrency: usize, requests: &[(String, Route)]) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        let mut client = Client::connect(port)?;
        while let Some((truth, route)) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
            client.get(truth, *route)?;
        }
        Ok(())
    };
    workers(concurrency, worker)
}

/// Sends requests for paths, each with its truth, to `port`, so many at a time. Fails at the first answer that is no success.
pub fn ask(port: u16, concurrency: usize, requests: &[(String, String)]) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        let mut client = Client::connect(port)?;
        while let Some((truth, path)) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (status, body) = client.exchange(truth, path).with_context(|| format!("request {truth} for {path}"))?;
            ensure!(status == 200, "{truth}: {path} answered {status}: {body}");
        }
        Ok(())
    };
    workers(concurrency, worker)
}

/// Sends requests to `port` until told to stop, each client one every `pause`; they bear a truth as well.
pub fn until_stopped(port: u16, concurrency: usize, pause: Duration, stop: &AtomicBool) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        let mut client = Client::connect(port)?;
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            client.get(&format!("demo-{number}"), Route::of_request(number))?;
            std::thread::sleep(pause);
        }
        Ok(())
    };
    workers(concurrency, worker)
}

fn workers(count: usize, worker: impl Fn() -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(&worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}

struct Client {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { answers: BufReader::new(stream.try_clone()?), stream })
    }

    fn get(&mut self, truth: &str, route: Route) -> Result<()> {
        // The things that people ask for are many, the requests for them alike.
        let number = truth.bytes().fold(7, |sum: u32, octet| sum.wrapping_mul(31).wrapping_add(octet.into())) % 10_000;
        let path = format!("/{}/{number}", route.name());
        let (status, body) = self.exchange(truth, &path).with_context(|| format!("request {truth} for {route:?}"))?;
        ensure!(status == route.status(), "{truth}: {route:?} answered {status}: {body}");
        Ok(())
    }

    fn exchange(&mut self, truth: &str, path: &str) -> Result<(u16, String)> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: mesh\r\nx-truth: {truth}\r\n\r\n");
        self.stream.write_all(head.as_bytes())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status line")?;
        let mut length = None;
        loop {
            line.clear();
            ensure!(self.answers.read_line(&mut line)? > 0, "the connection ended in a head");
            let field = line.trim_end().to_ascii_lowercase();
            if field.is_empty() {
                break;
            }
            if let Some(value) = field.strip_prefix("content-length:") {
                length = Some(value.trim().parse()?);
            }
        }
        let mut body = vec![0; length.context("an answer without content-length")?];
        self.answers.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
