//! A connection whose octets a test chooses and sees.

use std::io::Read as _;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::fixture::{self, Language};

/// A connection of this process, which is the one that the agent looks at, to another, whose octets go through pipes.
pub struct Pair {
    pub client: TcpStream,
    peer: Child,
    pub received: ChildStdout,
    pub sent: ChildStdin,
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.peer.kill();
        let _ = self.peer.wait();
    }
}

impl Pair {
    pub fn new() -> Result<Self> {
        let mut command = fixture::program(Language::Python, "wire");
        let mut peer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (mut received, sent) =
            (peer.stdout.take().context("it has a pipe")?, peer.stdin.take().context("it has a pipe")?);
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut octet = [0];
            received.read_exact(&mut octet).context("the peer announces no port")?;
            line.extend(octet);
        }
        let announced: serde_json::Value = serde_json::from_slice(&line)?;
        let port = announced.get("port").and_then(serde_json::Value::as_u64).context("no port")?;
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, u16::try_from(port)?))?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { client, peer, received, sent })
    }

    /// Gives what `send` gives, and all octets that arrive until it has closed its direction, when they are read more slowly
    /// than they are sent, `piece` at a time, so that the kernel's buffers are full.
    pub fn crowded<T>(&mut self, piece: usize, send: impl FnOnce(&mut TcpStream) -> Result<T>) -> Result<(T, Vec<u8>)> {
        let Self { client, received, .. } = self;
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| -> Result<Vec<u8>> {
                let (mut all, mut piece) = (Vec::new(), vec![0; piece]);
                loop {
                    std::thread::sleep(Duration::from_micros(200));
                    match received.read(&mut piece)? {
                        0 => return Ok(all),
                        octets => all.extend(&piece[..octets]),
                    }
                }
            });
            let sent = send(client);
            client.shutdown(Shutdown::Write)?;
            Ok((sent?, reader.join().ok().context("the reader panicked")??))
        })
    }
}

#[must_use]
pub fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}
