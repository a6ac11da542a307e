//! Requests whose client and server are both on this host, found by where they are on the wire.
//!
//! Both ends count the octets of a connection alike, since positions are TCP's own. So the client's address and port
//! and the position of a request's first octet name that request at both ends, over loopback, bridges and veth pairs,
//! and also where the server's address is translated on the way. Plaintext of TLS has no such positions: there a stream of HTTP/2
//! names its request, and one that is alone on its connection needs no name.

use std::net::{IpAddr, SocketAddr};

use agent_common::ids::{MonoNanos, Seq};
use rustc_hash::FxHashMap;

use crate::conn::ExchangeId;
use crate::protocol::Begun;
use crate::signal::span::{Endpoints, Kind, Tls};

/// What names a request at both ends of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    client: IpAddr,
    port: u16,
    place: Place,
}

/// What names a request among those of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// Its position.
    Octet(Seq),
    /// Its stream of HTTP/2.
    Stream(u32),
    /// It is the only one under way, and asks for this target: the positions of plaintext are no one's but its session's, and
    /// each end counts from where it was seen first.
    Only(u64),
}

impl Key {
    /// `None` when nothing names it at both ends.
    pub(super) fn of(kind: Kind, request: &Begun, endpoints: Endpoints) -> Option<Self> {
        let client: SocketAddr = match kind {
            Kind::Server => endpoints.peer,
            Kind::Client => endpoints.local,
        };
        let place = match (endpoints.tls, request.stream) {
            (Tls::No, _) => Place::Octet(request.position),
            (_, Some(stream)) => Place::Stream(stream),
            (_, None) if !request.pipelined => Place::Only(request.target),
            (Tls::Whole, None) => Place::Octet(request.position),
            (Tls::Late, None) => return None,
        };
        Some(Self { client: client.ip().to_canonical(), port: client.port(), place })
    }
}

/// One end that was seen, and waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) id: ExchangeId,
    pub(super) kind: Kind,
    pub(super) at: MonoNanos,
}

/// The ends whose other one was not seen yet.
#[derive(Debug, Default)]
pub(super) struct Ends(FxHashMap<Key, End>);

/// A server cannot have read a request before its client wrote it; both clocks are this host's.
const TOLERANCE: u64 = 1_000_000;

impl Ends {
    /// Gives the other end of a request when it was seen, which then is forgotten here; else keeps this one.
    pub(super) fn meet(&mut self, key: Key, end: End) -> Option<End> {
        if let Some(other) = self.0.get(&key)
            && other.kind != end.kind
        {
            let (client, server) = if end.kind == Kind::Server { (other.at, end.at) } else { (end.at, other.at) };
            if client.since(server) <= TOLERANCE {
                return self.0.remove(&key);
            }
        }
        self.0.insert(key, end);
        None
    }

    /// Forgets an end that does not wait any more.
    pub(super) fn forget(&mut self, key: &Key, id: ExchangeId) {
        if self.0.get(key).is_some_and(|end| end.id == id) {
            self.0.remove(key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
