//! hyper with rustls, as server or client: what the fixtures of other languages are, for Rust.
//!
//! `rustls server --log FILE` serves HTTP/1.1 and HTTP/2, as the client wishes; `rustls client --base URL --plan FILE --log
//! FILE --mode keepalive|close|h2 [--gate N] [--streams N]` carries out a plan, see the Python client. The folder `FIXTURE_TLS` has the
//! authority's certificate, and the server's with its key.

mod client;
mod server;
mod truth;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// server or client
    role: String,
    #[arg(long)]
    log: PathBuf,
    #[arg(long, default_value = "")]
    base: String,
    #[arg(long)]
    plan: Option<PathBuf>,
    #[arg(long, default_value = "keepalive")]
    mode: String,
    /// Before this request announce it and wait for a line on standard input
    #[arg(long)]
    gate: Option<usize>,
    /// Requests at a time
    #[arg(long, default_value_t = 1)]
    streams: usize,
}

/// A file of `FIXTURE_TLS`.
fn credential(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("FIXTURE_TLS").context("FIXTURE_TLS is not set")?;
    Ok(PathBuf::from(folder).join(name))
}

// Two threads: a connection moves from one to another.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let args = Args::parse();
    let log = truth::Log::open(&args.log)?;
    match args.role.as_str() {
        "server" => server::run(log).await,
        "client" => client::run(args, log).await,
        role => bail!("{role} is neither server nor client"),
    }
}
