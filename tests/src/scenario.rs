//! The servers and clients of the completeness matrix behind one face.

use anyhow::Result;

use crate::curl;
use crate::expect::{Clock, Side};
use crate::fixture::{Client, Language, Server};
use crate::nginx::Nginx;
use crate::plan::Step;
use crate::truth::Exchange;

/// A server of the matrix.
pub enum Peer {
    Fixture(Language, Server),
    Nginx(Nginx),
    Framework(Server),
}

impl Peer {
    /// `python`, `node`, `go`, `nginx`, `flask` or `fastapi`.
    pub fn start(name: &str) -> Result<Self> {
        Ok(match name {
            "nginx" => Self::Nginx(Nginx::start(None)?),
            "flask" | "fastapi" => Self::Framework(Server::framework(name)?),
            name => {
                let language = language(name)?;
                Self::Fixture(language, Server::start(language)?)
            }
        })
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Fixture(_, server) | Self::Framework(server) => server.port,
            Self::Nginx(nginx) => nginx.port,
        }
    }

    #[must_use]
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    pub fn truth(&self, count: usize) -> Result<Vec<Exchange>> {
        match self {
            Self::Fixture(_, server) | Self::Framework(server) => server.truth(count),
            Self::Nginx(nginx) => nginx.truth(count),
        }
    }

    /// The server's side of a comparison, by clocks as good as this server's log.
    #[must_use]
    pub fn side<'a>(&self, truth: &'a [Exchange], pipelined: bool) -> Side<'a> {
        let side = Side::server(truth, self.port());
        match self {
            // Only the Python server knows when the octets of a request came that it takes up later.
            Self::Fixture(Language::Python, _) => side,
            _ if pipelined => side.clocks(Clock::NONE, Clock::NONE),
            Self::Fixture(..) => side,
            Self::Nginx(_) => side.clocks(Clock::MILLISECONDS, Clock::MILLISECONDS),
            // The log is written inside the framework: its own work, and the worker's queue, lie between it and the socket.
            Self::Framework(_) => side.clocks(Clock::LOOSE, Clock::LOOSE),
        }
    }
}

/// The language fixture called `name`.
pub fn language(name: &str) -> Result<Language> {
    Ok(match name {
        "python" => Language::Python,
        "node" => Language::Node,
        "go" => Language::Go,
        other => anyhow::bail!("no fixture in {other}"),
    })
}

/// Carries out `steps` by the client `name`: `python`, `node`, `go` or `curl`, in one of its modes.
pub fn call(name: &str, mode: &str, base: &str, steps: &[Step]) -> Result<Vec<Exchange>> {
    match name {
        "curl" => curl::run(base, steps, mode == "keepalive"),
        name => Client::run(language(name)?, base, steps, &["--mode", mode]),
    }
}
