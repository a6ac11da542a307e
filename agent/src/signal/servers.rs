//! The servers that clients named, each once: a measurement is told by reference which one it was.

use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};

use super::metrics::Server;

#[derive(Default)]
pub(super) struct Servers {
    /// By a hash of what the request said; another request with the same hash takes the place.
    known: FxHashMap<u64, Named>,
}

struct Named {
    authority: Box<str>,
    port: u16,
    server: Arc<Server>,
}

impl Servers {
    /// Names remembered; beyond, all are forgotten, which costs a little time and nothing else.
    const MOST: usize = 4096;

    /// The server at `peer` that was asked for by `authority`, if by any; `name` says what to call it, by address and port.
    pub(super) fn get<A: Into<Box<str>>>(
        &mut self,
        authority: &str,
        peer: SocketAddr,
        name: impl FnOnce() -> (Option<A>, Option<u16>),
    ) -> Option<&Arc<Server>> {
        let mut hasher = FxHasher::default();
        (authority, peer).hash(&mut hasher);
        let key = hasher.finish();
        let known =
            self.known.get(&key).is_some_and(|named| *named.authority == *authority && named.port == peer.port());
        if !known {
            let (address, port) = name();
            let server = Arc::new(Server { address: address?.into(), port });
            if self.known.len() >= Self::MOST {
                self.known.clear();
            }
            self.known.insert(key, Named { authority: authority.into(), port: peer.port(), server });
        }
        self.known.get(&key).map(|named| &named.server)
    }
}
