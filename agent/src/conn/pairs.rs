//! Connections of HTTP/2 of which something is not known, and their other ends on this host.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;

use agent_common::ids::ConnId;
use rustc_hash::FxHashMap;

use crate::protocol::http2::Kinship;
use crate::signal::span::{Endpoints, Tls};

/// A connection, whichever end names it: the lesser address first.
type Key = [SocketAddr; 2];

/// Both ends of one connection, as far as they were met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// That of the lesser address first.
    ends: [Option<ConnId>; 2],
    /// They are ends of the same connection indeed.
    pub(super) kinship: Kinship,
}

/// Those connections that could learn from their other end, and those ends. As long as all is known nobody is here.
#[derive(Debug, Default)]
pub(super) struct Pairs(FxHashMap<Key, Pair>);

impl Pairs {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One end has read on; gives both when the other one is known, that of the lesser address first. `lacking`: it could
    /// learn from its other end.
    pub(super) fn meet(
        &mut self,
        conn: ConnId,
        endpoints: &Endpoints,
        lacking: bool,
    ) -> Option<([ConnId; 2], &mut Pair)> {
        let (key, side) = key(endpoints)?;
        let pair = match self.0.entry(key) {
            Entry::Occupied(pair) => pair.into_mut(),
            Entry::Vacant(room) if lacking => room.insert(Pair { ends: [None; 2], kinship: Kinship::default() }),
            Entry::Vacant(_) => return None,
        };
        // The same addresses may be in use in another network namespace: who comes last stays, and has to prove itself.
        if pair.ends.get_mut(side)?.replace(conn) != Some(conn) {
            pair.kinship = Kinship::default();
        }
        match pair.ends {
            [Some(first), Some(second)] if first != second => Some(([first, second], pair)),
            _ => None,
        }
    }

    /// Nothing is to be learnt about a connection any more.
    pub(super) fn forget(&mut self, conn: ConnId, endpoints: &Endpoints) {
        if let Some((key, side)) = key(endpoints)
            && let Entry::Occupied(pair) = self.0.entry(key)
            && pair.get().ends.get(side) == Some(&Some(conn))
        {
            pair.remove();
        }
    }

    /// Keeps those whose ends are open.
    pub(super) fn retain(&mut self, is_open: impl Fn(ConnId) -> bool) {
        self.0.retain(|_, pair| pair.ends.iter().flatten().all(|conn| is_open(*conn)));
    }
}

/// What names a connection at both ends, and which of them this one is. Plaintext of TLS has no positions that both know.
fn key(endpoints: &Endpoints) -> Option<(Key, usize)> {
    let [local, peer] =
        [endpoints.local, endpoints.peer].map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()));
    match local.cmp(&peer) {
        _ if endpoints.tls != Tls::No => None,
        Ordering::Less => Some(([local, peer], 0)),
        Ordering::Greater => Some(([peer, local], 1)),
        Ordering::Equal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(local: &str, peer: &str) -> Endpoints {
        Endpoints { local: local.parse().unwrap(), peer: peer.parse().unwrap(), tls: Tls::No }
    }

    #[test]
    fn ends_meet_by_their_addresses() {
        let mut pairs = Pairs::default();
        let client = ends("127.0.0.1:40000", "127.0.0.1:80");
        // As a socket of IPv6 has it that takes IPv4.
        let server = ends("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:40000");
        assert!(pairs.meet(ConnId(1), &client, false).is_none() && pairs.is_empty(), "nothing to learn");
        assert!(pairs.meet(ConnId(1), &client, true).is_none());
        assert!(pairs.meet(ConnId(3), &ends("127.0.0.1:40000", "127.0.0.1:81"), false).is_none());
        let (met, _) = pairs.meet(ConnId(2), &server, false).unwrap();
        assert_eq!(met, [ConnId(2), ConnId(1)]);
        let (met, _) = pairs.meet(ConnId(4), &client, false).unwrap();
        assert_eq!(met, [ConnId(2), ConnId(4)]);
        pairs.forget(ConnId(1), &client);
        assert!(!pairs.is_empty(), "another one uses its addresses");
        pairs.forget(ConnId(2), &server);
        assert!(pairs.is_empty());
    }

    #[test]
    fn plaintext_has_positions_of_its_own() {
        let endpoints = Endpoints { tls: Tls::Whole, ..ends("127.0.0.1:40000", "127.0.0.1:443") };
        let mut pairs = Pairs::default();
        assert!(pairs.meet(ConnId(1), &endpoints, true).is_none() && pairs.is_empty());
    }
}
