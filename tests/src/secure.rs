//! Servers and clients that speak TLS, each by the library that its kind of program has.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::fixture::{self, Client, Language, Server};
use crate::nginx::Nginx;
use crate::plan::Step;
use crate::process::Process;
use crate::tls::{Credentials, VARIABLE};
use crate::truth::Exchange;
use crate::{curl, env};

/// A server that is listening.
pub enum Service {
    Fixture(Server),
    Nginx(Nginx),
}

impl Service {
    /// `nginx`, `python`, `gunicorn`, `uvicorn` (OpenSSL by a library, in its own kind each), `node` (OpenSSL in the
    /// executable), `go`, `go-stripped`, or `rust` (rustls).
    pub fn start(name: &str, credentials: &Credentials) -> Result<Self> {
        let mut command = match name {
            "nginx" => return Ok(Self::Nginx(Nginx::start_tls(credentials)?)),
            "python" => fixture::program(Language::Python, "server"),
            "node" => fixture::program(Language::Node, "server"),
            "go" => fixture::program(Language::Go, "server"),
            "go-stripped" => Command::new(env::built("server-stripped")),
            "gunicorn" => framework("flask"),
            "uvicorn" => framework("fastapi"),
            "rust" => rust("server"),
            other => anyhow::bail!("no server {other}"),
        };
        Ok(Self::Fixture(Server::run(command.env(VARIABLE, credentials.folder()))?))
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Fixture(server) => server.port,
            Self::Nginx(nginx) => nginx.port,
        }
    }

    #[must_use]
    pub fn base(&self) -> String {
        format!("https://127.0.0.1:{}", self.port())
    }

    /// What it did: waits for `count` exchanges.
    pub fn truth(&self, count: usize) -> Result<Vec<Exchange>> {
        match self {
            Self::Fixture(server) => server.truth(count),
            Self::Nginx(nginx) => nginx.truth(count),
        }
    }
}

fn framework(name: &str) -> Command {
    let mut command = fixture::python("framework");
    command.arg(name);
    command
}

/// hyper with rustls.
fn rust(role: &str) -> Command {
    let mut command = Command::new(env::beside("rustls"));
    command.arg(role);
    command
}

/// Starts the client `name`; `args` as it takes them.
pub fn client(name: &str, credentials: &Credentials, base: &str, steps: &[Step], args: &[&str]) -> Result<Client> {
    client_by(program(name), credentials, base, steps, args)
}

/// The client `name`: `python`, `requests`, `httpx`, `aiohttp`, `node`, `go` or `rust`.
#[must_use]
pub fn program(name: &str) -> Command {
    match name {
        "python" => fixture::program(Language::Python, "client"),
        "node" => fixture::program(Language::Node, "client"),
        "go" => fixture::program(Language::Go, "client"),
        "rust" => rust("client"),
        library => {
            let mut command = fixture::python("libraries");
            command.args(["--library", library]);
            command
        }
    }
}

/// Starts a client by its command.
pub fn client_by(
    mut command: Command,
    credentials: &Credentials,
    base: &str,
    steps: &[Step],
    args: &[&str],
) -> Result<Client> {
    command.args(args).env(VARIABLE, credentials.folder());
    Client::by(command, base, steps, |command| command)
}

/// Carries out `steps` by one of the clients above, by `curl` or by `wget` (GnuTLS on Debian), in one of its modes:
/// `keepalive`, `close`, `h2` of curl and rust, and `tls12` of curl.
pub fn call(name: &str, mode: &str, credentials: &Credentials, base: &str, steps: &[Step]) -> Result<Vec<Exchange>> {
    match name {
        "curl" => {
            let version = if mode == "h2" { "http2" } else { "http1.1" };
            let highest = if mode == "tls12" { "tls-max = \"1.2\"\n" } else { "" };
            let more = format!("cacert = \"{}\"\n{version}\n{highest}", credentials.file("ca.pem").display());
            curl::run_with(base, steps, mode != "close", &more)
        }
        "wget" => wget(&credentials.file("ca.pem"), base, steps, mode == "keepalive"),
        name => client(name, credentials, base, steps, &["--mode", mode])?.finish(),
    }
}

/// wget, which only asks for what succeeds: `/big/N`. It does not tell when; the times are those of its process.
fn wget(authority: &Path, base: &str, steps: &[Step], keep_alive: bool) -> Result<Vec<Exchange>> {
    let mut command = Command::new(env::which("wget").context("wget is not installed")?);
    command.args(["--no-config", "--quiet", "--no-hsts", "--no-proxy", "--output-document=/dev/null"]);
    command.arg(format!("--ca-certificate={}", authority.display()));
    if !keep_alive {
        command.arg("--no-http-keep-alive");
    }
    command.args(steps.iter().map(|step| format!("{base}{}", step.target)));
    let process = Process::spawn(&mut command)?;
    let pid = process.pid();
    process.succeed(Duration::from_secs(60))?;
    let exchange = |step: &Step| -> Result<Exchange> {
        let size = step.target.trim_start_matches("/big/").split('?').next().unwrap_or_default();
        Ok(Exchange {
            method: step.method.clone(),
            target: step.target.clone(),
            status: Some(200),
            request_body: 0,
            response_body: size.parse().with_context(|| format!("not for wget: {}", step.target))?,
            start: 0,
            end: 0,
            pid,
            error: None,
        })
    };
    steps.iter().map(exchange).collect()
}
