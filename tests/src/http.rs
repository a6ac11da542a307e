//! The few requests that the tests themselves make, to the agent's listener.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A response, whole.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The head as received.
    pub head: String,
    pub body: String,
}

/// Asks by HTTP/1.0, so that the connection's end ends the body.
pub fn get(address: SocketAddr, path: &str, accept: &str) -> Result<Response> {
    request(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n"))
        .with_context(|| format!("GET http://{address}{path}"))
}

/// Sends `octets` as they are and reads what comes until the end of the connection.
pub fn request(address: SocketAddr, octets: &str) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(octets.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer without a status")?;
    Ok(Response { status, head: head.to_owned(), body: body.to_owned() })
}
