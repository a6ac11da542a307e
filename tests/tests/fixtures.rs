//! The fixtures among each other, without the agent: their logs must agree, or nothing can be compared with them.

use anyhow::{Result, ensure};
use tests::fixture::{Client, Language, Relay, Server};
use tests::plan::{self, Step};
use tests::scenario::{Peer, call};
use tests::truth::Exchange;
use tests::{needs, nginx};

/// Method, target, status and sizes must be the same on both sides, and the server's time lie in the client's.
fn agree(client: &[Exchange], server: &[Exchange], slack_ns: u64) -> Result<()> {
    ensure!(client.len() == server.len(), "{} and {} exchanges", client.len(), server.len());
    let sorted = |exchanges: &[Exchange]| {
        let mut exchanges = exchanges.to_vec();
        exchanges.sort_by(|a, b| (&a.target, a.start).cmp(&(&b.target, b.start)));
        exchanges
    };
    for (client, server) in sorted(client).iter().zip(&sorted(server)) {
        let facts = |e: &Exchange| (e.method.clone(), e.target.clone(), e.status, e.request_body, e.response_body);
        ensure!(facts(client) == facts(server), "client {client:?}\nserver {server:?}");
        ensure!(client.start <= server.start + slack_ns, "starts before it was sent: {client:?}\n{server:?}");
        ensure!(server.start <= client.end + slack_ns, "starts after it was answered: {client:?}\n{server:?}");
        ensure!(client.start < client.end && server.start <= server.end, "{client:?}\n{server:?}");
    }
    Ok(())
}

fn pair(client: &str, mode: &str, server: &str) -> Result<()> {
    let peer = Peer::start(server)?;
    let done = call(client, mode, &peer.base(), &plan::mixed("f", 32))?;
    let failed = done.iter().find(|exchange| exchange.error.is_some() || exchange.status.is_none());
    ensure!(failed.is_none(), "{failed:?}");
    let slack = match (client, server) {
        // nginx's clock has milliseconds and stands still within one round of its event loop.
        (_, "nginx") => 20_000_000,
        // curl writes down that it sent after it did: the server may have run first.
        ("curl", _) => 10_000_000,
        _ => 200_000,
    };
    agree(&done, &peer.truth(32)?, slack)
}

#[test]
fn languages_agree() -> Result<()> {
    needs!("python", "node", "go", "nginx", "curl");
    for server in ["python", "node", "go", "nginx"] {
        for client in ["python", "node", "go", "curl"] {
            for mode in ["keepalive", "close"] {
                pair(client, mode, server).map_err(|error| error.context(format!("{client} {mode} to {server}")))?;
            }
        }
        for mode in ["raw", "pipeline", "split"] {
            pair("python", mode, server).map_err(|error| error.context(format!("python {mode} to {server}")))?;
        }
        pair("node", "fetch", server)?;
    }
    Ok(())
}

#[test]
fn frameworks_agree() -> Result<()> {
    needs!("venv");
    for server in ["flask", "fastapi"] {
        pair("python", "keepalive", server)?;
        pair("python", "close", server)?;
    }
    Ok(())
}

#[test]
fn descriptors_arrive() -> Result<()> {
    needs!("python");
    for case in ["dup", "inherited", "accepted", "passed"] {
        let server = Server::descriptors(case)?;
        let done = Client::run(Language::Python, &server.base(), &plan::items(case, 8), &[])?;
        agree(&done, &server.truth(8)?, 200_000).map_err(|error| error.context(case))?;
    }
    Ok(())
}

#[test]
fn relay_records_what_passes() -> Result<()> {
    needs!("python");
    let server = Server::start(Language::Python)?;
    let relay = Relay::start(server.port)?;
    for _ in 0..2 {
        Client::run(Language::Python, &format!("http://127.0.0.1:{}", relay.port), &plan::mixed("r", 16), &[])?;
    }
    let (first, second) = (relay.octets(0)?, relay.octets(1)?);
    ensure!(first.0.starts_with(b"GET /item/0?id=r-0 HTTP/1.1\r\n") && first.1.starts_with(b"HTTP/1.1 200 OK\r\n"));
    ensure!(first == second, "two runs differ by themselves");
    Ok(())
}

#[test]
fn nginx_serves_behind_itself() -> Result<()> {
    needs!("python", "nginx", "curl");
    let server = Server::start(Language::Python)?;
    let nginx = nginx::Nginx::start(Some(server.port))?;
    let steps: Vec<Step> = (0..4).map(|i| Step::get(format!("/proxy/item/{i}?id={i}"))).collect();
    let done = call("curl", "keepalive", &nginx.base(), &steps)?;
    agree(&done, &nginx.truth(4)?, 20_000_000)?;
    ensure!(server.truth(4)?.iter().all(|exchange| exchange.target.starts_with("/item/")));
    Ok(())
}
