//! What is asked of a service that takes orders: `POST /order?of=K`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// What an order may take on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Orders something, over a connection of its own, with this `traceparent`.
pub fn take(port: u16, key: &str, traceparent: Option<&str>) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let context = traceparent.map(|context| format!("traceparent: {context}\r\n")).unwrap_or_default();
    let head = format!("POST /order?of={key} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{context}Connection: close\r\n");
    stream.write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    ensure!(response.starts_with("HTTP/1.1 201 "), "{key}: {response}");
    Ok(())
}

/// All orders at once.
pub fn take_at_once(port: u16, orders: &[(String, Option<String>)]) -> Result<()> {
    std::thread::scope(|scope| {
        let start = |(key, context): &'_ (String, Option<String>)| {
            let (key, context) = (key.clone(), context.clone());
            scope.spawn(move || take(port, &key, context.as_deref()))
        };
        let orders: Vec<_> = orders.iter().map(start).collect();
        orders.into_iter().try_for_each(|order| order.join().ok().context("an order panicked")?)
    })
}
