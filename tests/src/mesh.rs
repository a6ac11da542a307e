//! A mesh of services in different runtimes, each an ordinary server that calls on over kept connections:
//!
//! ```text
//! load ─▶ gateway ─▶ users ─┬▶ quotes ─▶ rates                then orders
//!         nginx      Flask  │  tokio     Go
//!                           ├▶ orders ─┬▶ price ─▶ rates      both in parallel
//!                           │  Node    └▶ stock ─▶ rates
//!                           │             Go, Java
//!                           ├▶ profiles ─▶ price, stock, rates   two in parallel, then one
//!                           │  FastAPI, aiohttp
//!                           └▶ accounts ─▶ price, stock, rates   the same
//!                              FastAPI, httpx
//! ```
//!
//! The truth travels in the requests: a request with `x-truth: P` causes requests with `x-truth: P.n` and
//! `x-truth-parent: P`. The agent shows both as attributes and makes no use of them. Orders may go on over a topic as well
//! ([`crate::topic`]).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::agent::Builder;
use crate::process::Process;
use crate::topic::Topic;
use crate::{env, fixture};

/// What a start may take on a loaded machine.
const START: Duration = Duration::from_secs(60);
/// What the leaves of the mesh and those that call them are told of each other.
const URLS: [(&str, &str); 7] = [
    ("rates", "RATES_URL"),
    ("price", "PRICE_URL"),
    ("stock", "STOCK_URL"),
    ("orders", "ORDERS_URL"),
    ("profiles", "PROFILES_URL"),
    ("accounts", "ACCOUNTS_URL"),
    ("quotes", "QUOTES_URL"),
];

/// All services; ended on drop, those in front first.
pub struct Mesh {
    // It has a service that asks others.
    topic: Option<Topic>,
    services: Vec<Service>,
    folder: TempDir,
}

/// One service, listening.
pub struct Service {
    pub name: &'static str,
    pub runtime: &'static str,
    pub port: u16,
    _process: Process,
}

/// What a request may ask for, and what that causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// One call, then another that fans out.
    Order,
    /// Fan-out, then another call.
    Profile,
    /// The same by another client.
    Account,
    /// The leaf takes 20 to 200 ms.
    Slow,
    /// The leaf fails.
    Failing,
    /// Answered at once; the call is left to another thread.
    Queue,
}

impl Route {
    pub const ALL: [Self; 6] = [Self::Order, Self::Profile, Self::Account, Self::Slow, Self::Failing, Self::Queue];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Profile => "profile",
            Self::Account => "account",
            Self::Slow => "slow",
            Self::Failing => "failing",
            Self::Queue => "queue",
        }
    }

    /// What the gateway answers.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Failing => 502,
            Self::Queue => 202,
            _ => 200,
        }
    }

    /// Requests that one causes, itself included: each has a client and a server span.
    #[must_use]
    pub const fn hops(self) -> usize {
        match self {
            Self::Order => 9,
            Self::Profile | Self::Account => 8,
            Self::Failing => 7,
            Self::Slow => 4,
            Self::Queue => 3,
        }
    }

    /// The share of routes in the load: of ten requests four are orders, two profiles, two accounts.
    #[must_use]
    pub const fn of_request(number: usize) -> Self {
        match number % 10 {
            3 => Self::Slow,
            6 => Self::Failing,
            1 | 7 => Self::Profile,
            5 | 9 => Self::Account,
            _ => Self::Order,
        }
    }
}

impl Mesh {
    /// Starts all services. `background`: each of them also calls on its own that often.
    pub fn start(background: Option<Duration>) -> Result<Self> {
        Self::start_with(background, None)
    }

    /// The same, with a topic.
    pub fn start_with(background: Option<Duration>, topic: Option<Topic>) -> Result<Self> {
        let mut mesh = Self { topic, services: Vec::new(), folder: TempDir::new()? };
        for (name, runtime) in [
            ("rates", "Go"),
            ("price", "Go"),
            ("stock", "Java"),
            ("orders", "Node"),
            ("quotes", "tokio"),
            ("profiles", "FastAPI, aiohttp"),
            ("accounts", "FastAPI, httpx"),
            ("users", "Flask"),
        ] {
            mesh.add(name, runtime, background).with_context(|| format!("the service {name}"))?;
        }
        if let (Some(stock), Some(topic)) = (mesh.port("stock"), &mut mesh.topic) {
            topic.read(stock)?;
        }
        mesh.add_gateway().context("the gateway")?;
        // Those in front end first, so that none sees a call fail.
        mesh.services.reverse();
        Ok(mesh)
    }

    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    #[must_use]
    pub fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    /// Where requests go.
    #[must_use]
    pub fn gateway(&self) -> u16 {
        self.port("gateway").unwrap_or_default()
    }

    /// An agent that looks at these services and shows the truth.
    pub fn agent(&self) -> Result<Builder> {
        let builder = Builder::new()?.args(&[
            "--capture-request-header",
            "x-truth",
            "--capture-request-header",
            "x-truth-parent",
        ]);
        let ports = self.services.iter().map(|service| service.port);
        let ports = ports.chain(self.topic.as_ref().map(|topic| topic.broker.port));
        Ok(ports.fold(builder, Builder::port))
    }

    fn port(&self, name: &str) -> Option<u16> {
        self.services.iter().find(|service| service.name == name).map(|service| service.port)
    }

    fn add(&mut self, name: &'static str, runtime: &'static str, background: Option<Duration>) -> Result<()> {
        let mut command = command(name);
        for (peer, variable) in URLS {
            if let Some(port) = self.port(peer) {
                command.env(variable, format!("http://127.0.0.1:{port}"));
            }
        }
        command.env("NAME", name);
        if let Some(topic) = self.topic.as_ref().filter(|_| name == "orders") {
            command.envs(topic.environment());
        }
        if let Some(interval) = background {
            command.env("BACKGROUND_MS", interval.as_millis().to_string());
        }
        let process = Process::spawn(&mut command)?;
        let announced = process.announcement(START).with_context(|| process.stderr())?;
        let port = announced.get("port").and_then(serde_json::Value::as_u64).context("it announces no port")?;
        let port = u16::try_from(port)?;
        fixture::accepts(port)?;
        self.services.push(Service { name, runtime, port, _process: process });
        Ok(())
    }

    fn add_gateway(&mut self) -> Result<()> {
        let port = fixture::free_port()?;
        let users = self.port("users").context("there is no user service")?;
        let root = self.folder.path();
        let config = root.join("nginx.conf");
        std::fs::write(&config, gateway(root, port, users))?;
        let program = env::which("nginx").context("nginx is not installed: cargo xtask setup --tests")?;
        let process = Process::spawn(Command::new(program).arg("-c").arg(&config).arg("-p").arg(root))?;
        fixture::accepts(port).with_context(|| process.stderr())?;
        self.services.push(Service { name: "gateway", runtime: "nginx", port, _process: process });
        Ok(())
    }
}

fn command(name: &str) -> Command {
    let mut command = match name {
        "rates" | "price" => Command::new(env::built(name)),
        "stock" => {
            let mut java = Command::new(env::which("java").unwrap_or_else(|| "java".into()));
            // Small answers in two writes would otherwise wait for each other's acknowledgement.
            java.args(["-Xmx256m", "-Dsun.net.httpserver.nodelay=true", "-Dhttp.maxConnections=64", "-cp"]);
            java.arg(env::workspace().join("target/fixtures/java")).arg("Stock");
            java
        }
        "quotes" => Command::new(env::beside("quotes")),
        "orders" => {
            let mut node = Command::new(env::which("node").unwrap_or_else(|| "node".into()));
            node.arg(env::fixture("node/orders.js"));
            node
        }
        python => {
            let mut command = Command::new(env::python());
            command.arg(env::fixture("python/framework.py")).arg(python).env("PYTHONDONTWRITEBYTECODE", "1");
            command.env("HTTP_CLIENT", if python == "accounts" { "httpx" } else { "aiohttp" });
            command
        }
    };
    // A proxy of the developer's own is no part of the mesh.
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(variable);
    }
    command
}

fn gateway(root: &Path, port: u16, users: u16) -> String {
    let root = root.display();
    // As root the workers would change to another user, who cannot read the temporary folder.
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {root}/{name}; "))
        .concat();
    format!(
        r#"daemon off;
worker_processes 2;
{user}
pid {root}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  {paths}
  keepalive_requests 100000000;
  upstream users {{ server 127.0.0.1:{users}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://users;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header x-truth $http_x_truth.1;
      proxy_set_header x-truth-parent $http_x_truth;
    }}
  }}
}}
"#
    )
}
