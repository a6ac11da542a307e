//! nginx with a configuration of its own in a temporary folder.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tempfile::TempDir;

use crate::process::Process;
use crate::tls::Credentials;
use crate::truth::Exchange;
use crate::{env, fixture, plan, wait};

/// nginx in the foreground, one worker. `/item/` and `/echo` answer by `return`, `/status/404`, `/status/500` and
/// `/status/503` with that status, `/big/N` from a file by sendfile, `/proxy/` by an upstream if there is one.
pub struct Nginx {
    pub port: u16,
    scheme: &'static str,
    log: PathBuf,
    _process: Process,
    folder: TempDir,
}

#[derive(Deserialize)]
struct Line {
    method: String,
    target: String,
    status: u16,
    content_length: String,
    body_bytes_sent: u64,
    /// Seconds with three digits: when the line was written, and how long the exchange took.
    msec: String,
    request_time: String,
    pid: u32,
}

impl Nginx {
    /// `upstream` is the port of the server behind `/proxy/`, spoken to by HTTP/1.1 over kept connections.
    pub fn start(upstream: Option<u16>) -> Result<Self> {
        Self::start_with(upstream, "", None)
    }

    /// The same with HTTP/2 in the clear instead.
    pub fn start_http2() -> Result<Self> {
        Self::start_with(None, " http2", None)
    }

    /// By TLS, with HTTP/2 for clients that wish it.
    pub fn start_tls(credentials: &Credentials) -> Result<Self> {
        Self::start_with(None, " ssl http2", Some(credentials))
    }

    fn start_with(upstream: Option<u16>, protocol: &str, credentials: Option<&Credentials>) -> Result<Self> {
        let folder = TempDir::new()?;
        let root = folder.path();
        std::fs::create_dir_all(root.join("data/big"))?;
        for size in plan::BIG {
            std::fs::write(root.join(format!("data/big/{size}")), vec![b'b'; usize::try_from(size)?])?;
        }
        let port = fixture::free_port()?;
        let config = root.join("nginx.conf");
        std::fs::write(&config, configuration(root, port, protocol, upstream, credentials)?)?;
        let program = env::which("nginx").context("nginx is not installed")?;
        let process = Process::spawn(Command::new(program).arg("-c").arg(&config).arg("-p").arg(root))?;
        fixture::accepts(port).with_context(|| process.stderr())?;
        let scheme = if credentials.is_some() { "https" } else { "http" };
        Ok(Self { port, scheme, log: root.join("access.log"), _process: process, folder })
    }

    #[must_use]
    pub fn base(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Where its files lie.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it did: waits for `count` exchanges. Its times have milliseconds, of a clock read once per event loop round.
    pub fn truth(&self, count: usize) -> Result<Vec<Exchange>> {
        let what = format!("{count} exchanges in nginx's log");
        wait::until(Duration::from_secs(10), &what, || {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Result<Vec<_>> = text.lines().map(exchange).collect();
            Ok(lines.ok().filter(|lines| lines.len() >= count))
        })
    }
}

fn exchange(line: &str) -> Result<Exchange> {
    let line: Line = serde_json::from_str(line).with_context(|| format!("in nginx's log: {line}"))?;
    let nanos = |seconds: &str| -> Result<u64> { Ok(seconds.replace('.', "").parse::<u64>()? * 1_000_000) };
    let end = nanos(&line.msec)?;
    Ok(Exchange {
        method: line.method,
        target: line.target,
        status: Some(line.status),
        request_body: line.content_length.parse().unwrap_or(0),
        response_body: line.body_bytes_sent,
        start: end.saturating_sub(nanos(&line.request_time)?),
        end,
        pid: line.pid,
        error: None,
    })
}

/// `protocol` is what `listen` says besides the port.
fn configuration(
    root: &std::path::Path,
    port: u16,
    protocol: &str,
    upstream: Option<u16>,
    credentials: Option<&Credentials>,
) -> Result<String> {
    let root = root.display();
    // As root the workers would change to another user, who cannot read the temporary folder.
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let mut text = format!(
        r#"daemon off;
master_process on;
worker_processes 1;
{user}
pid {root}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  log_format truth escape=json '{{"method":"$request_method","target":"$request_uri","status":$status,'
    '"content_length":"$content_length","body_bytes_sent":$body_bytes_sent,"msec":"$msec","request_time":"$request_time","pid":$pid}}';
  access_log {root}/access.log truth;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  default_type text/plain;
"#
    );
    if let Some(upstream) = upstream {
        writeln!(text, "  upstream behind {{ server 127.0.0.1:{upstream}; keepalive 8; }}")?;
    }
    // `http2 on` came with 1.25.1, which only warns of the older way.
    writeln!(text, "  server {{\n    listen 127.0.0.1:{port}{protocol};\n    root {root}/data;")?;
    if let Some(credentials) = credentials {
        let folder = credentials.folder().display();
        writeln!(text, "    ssl_certificate {folder}/cert.pem;\n    ssl_certificate_key {folder}/key.pem;")?;
    }
    text.push_str(
        r#"    location /item/ { return 200 "item\n"; }
    location = /hello { return 200 "hello\n"; }
    location = /echo { return 200 "not an echo\n"; }
    location /status/404 { return 404; }
    location /status/500 { return 500; }
    location /status/503 { return 503; }
"#,
    );
    if upstream.is_some() {
        text.push_str(
            "    location /proxy/ { proxy_pass http://behind/; proxy_http_version 1.1; proxy_set_header Connection \"\"; }\n",
        );
    }
    text.push_str("  }\n}\n");
    Ok(text)
}
