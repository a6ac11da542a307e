//! TLS handshakes on connections that nothing else is known of: whether HTTP is spoken under TLS is seen later, if at all.

use std::collections::VecDeque;

use agent_common::ids::ConnId;
use rustc_hash::FxHashMap;

use crate::protocol::tls::{Hello, Session};

/// Handshakes remembered; the oldest is forgotten first. A program that makes connections in advance may have some hundreds
/// without a request, and others speak TLS that nobody follows.
const MOST: usize = 4096;

#[derive(Default)]
pub(super) struct Hellos {
    known: FxHashMap<ConnId, Session>,
    /// In the order of their beginnings; some are taken.
    order: VecDeque<ConnId>,
}

impl Hellos {
    /// Remembers what a hello says.
    pub(super) fn learn(&mut self, conn: ConnId, hello: Hello) {
        if !self.known.contains_key(&conn) {
            if self.order.len() >= MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.order.push_back(conn);
        }
        self.known.entry(conn).or_default().learn(hello);
    }

    /// What was said on a connection, which is remembered elsewhere from now on.
    pub(super) fn take(&mut self, conn: ConnId) -> Option<Session> {
        self.known.remove(&conn)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agent_common::ids::{Direction, MonoNanos, Seq};

    use super::*;
    use crate::conn::{Connections, Step};
    use crate::protocol::{Coroutine, Thread};
    use crate::signal::span::{Endpoints, Tls};
    use crate::source::{Opened, Positions, Role, SegmentRecord, What};

    fn hello(name: &str) -> Hello {
        Hello::Client { server_name: Some(name.into()), offered: Vec::new() }
    }

    #[test]
    fn both_hellos_of_a_connection_come_together() {
        let mut hellos = Hellos::default();
        hellos.learn(ConnId(1), hello("a"));
        hellos.learn(ConnId(2), hello("b"));
        let choice = crate::protocol::tls::Choice::Protocol("h2".into());
        hellos.learn(ConnId(1), Hello::Server { version: None, choice });
        let session = hellos.take(ConnId(1)).unwrap();
        assert_eq!((session.server_name.as_deref(), session.next_protocol("h2")), (Some("a"), Some("h2")));
        assert_eq!(hellos.take(ConnId(1)), None, "once");
    }

    fn record(conn: ConnId, direction: Direction, seq: u32, what: What<'_>) -> SegmentRecord<'_> {
        SegmentRecord { at: MonoNanos(1), conn, thread: Thread::default(), direction, seq: Seq(seq), what }
    }

    #[test]
    fn hellos_are_with_their_exchanges_and_move_no_position() {
        let client =
            [&[1, 0, 0, 57, 3, 3][..], &[7; 32], b"\0\0\x02\x13\x01\x01\0\0\x0e\0\0\0\x0a\0\x08\0\0\x05a.b.c"].concat();
        let server = [&[2, 0, 0, 38, 3, 3][..], &[7; 32], b"\0\x13\x01\0"].concat();
        let endpoints = Endpoints {
            local: "127.0.0.1:40000".parse().unwrap(),
            peer: "127.0.0.1:443".parse().unwrap(),
            tls: Tls::Whole,
        };
        let opened = Opened {
            conn: ConnId(5),
            at: MonoNanos(1),
            thread: Thread::default(),
            role: Role::Connected,
            fresh: true,
            endpoints,
            positions: Positions { sent: Seq(0), received: Seq(0) },
            comm: [0; 16],
            dialler: Coroutine::default(),
            opened_at: None,
            established_at: None,
        };
        // The connection is announced after the hellos, as a rule; the rings are read one after the other.
        for early in [0, 1, 2] {
            let mut connections = Connections::new(Arc::default(), None);
            let mut steps = Vec::new();
            let hellos = [
                record(ConnId(5), Direction::Egress, 5, What::Hello { octets: &client, headless: true }),
                record(ConnId(5), Direction::Ingress, 5, What::Hello { octets: &server, headless: true }),
            ];
            for hello in &hellos[..early] {
                connections.segment(hello, &mut steps);
            }
            assert!(!connections.contains(ConnId(5)));
            connections.open(&opened);
            for hello in &hellos[early..] {
                connections.segment(hello, &mut steps);
            }
            let data = |octets: &'static [u8]| What::Data { len: octets.len() as u32, octets, tail: &[] };
            connections.segment(&record(ConnId(5), Direction::Egress, 0, data(b"GET / HTTP/1.1\r\n\r\n")), &mut steps);
            let answer = data(b"HTTP/1.1 204 No Content\r\n\r\n");
            connections.segment(&record(ConnId(5), Direction::Ingress, 0, answer), &mut steps);
            let finished = steps.into_iter().find_map(|step| match step {
                Step::Finished(finished) => Some(finished),
                _ => None,
            });
            let session = finished.unwrap().session.unwrap();
            assert_eq!(session.server_name.as_deref(), Some("a.b.c"), "{early}");
            assert_eq!(session.version, Some(crate::protocol::tls::Version::Tls12), "{early}");
            let stats = connections.stats();
            assert_eq!((stats.gaps, stats.stale, stats.unannounced), (0, 0, 0), "{early}");
        }
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut hellos = Hellos::default();
        for conn in 0..=MOST as u64 {
            hellos.learn(ConnId(conn), hello("a"));
        }
        assert_eq!(hellos.take(ConnId(0)), None);
        assert!(hellos.take(ConnId(1)).is_some());
        assert_eq!((hellos.known.len(), hellos.order.len()), (MOST - 1, MOST));
    }
}
