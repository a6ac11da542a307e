//! What is in the process's own table.

use super::*;
use crate::protocol::http2::hpack::OwnTable;

const ADDRESS: u64 = 0xc000_1234;

/// A client that was there before anyone looked, its process's table as Go counts it, and the follower of its server.
struct Old {
    bench: Bench,
    client: Peer,
    stream: u32,
}

impl Old {
    fn new(paths: &[&str]) -> Self {
        let mut client = Peer::default();
        paths.iter().for_each(|path| drop(client.get(1, path)));
        let mut old = Self { bench: Bench::new(false), client, stream: 3 };
        old.bench.feed(Q, wire::window_update(0));
        old.bench.follower.seek_table(R, true);
        old
    }

    /// The block of a request that the process was just given. It has not decoded it yet: how much it had added then.
    fn get(&mut self, path: &str) -> (u64, Vec<u8>) {
        let added = self.client.added();
        let octets = self.client.get(self.stream, path);
        self.stream += 2;
        self.bench.feed(R, &octets);
        (added, octets[9..].to_vec())
    }

    fn locate(&mut self, (added, block): &(u64, Vec<u8>)) -> Option<super::super::Anchor> {
        self.bench.follower.locate(ADDRESS, *added, block, block.len())
    }

    fn own(&self) -> OwnTable {
        let entries = self.client.entries().iter().rev();
        let entries = entries.map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()));
        OwnTable { added: self.client.added(), limit: 4096, entries: entries.collect() }
    }

    /// The targets of the newest requests.
    fn targets(&mut self, count: usize) -> Vec<String> {
        let mut server = Peer::default();
        for stream in (3..self.stream).step_by(2) {
            self.bench.feed(Q, server.status(stream, "200", true));
        }
        let out = &self.bench.out;
        out[out.len() - count..].iter().map(|exchange| exchange.message.target.to_string()).collect()
    }
}

#[test]
fn a_path_sent_before_is_known() {
    let mut old = Old::new(&["/a", "/b"]);
    let first = old.get("/a");
    assert!(old.bench.follower.is_short(R) && !old.bench.follower.is_short(Q));
    let anchor = old.locate(&first).unwrap();
    let own = old.own();
    assert!(old.bench.follower.adopt(R, anchor, &own));
    assert!(old.bench.follower.is_complete(R) && !old.bench.follower.is_short(R));
    for path in ["/b", "/c", "/a"] {
        old.get(path);
    }
    assert_eq!(old.targets(4), ["", "/b", "/c", "/a"]);
    assert!(old.bench.out[1..].iter().all(|exchange| !exchange.partial));
}

/// The table is read before or after the follower has come to where the process is.
#[test]
fn it_may_be_read_at_another_time() {
    for (before, after) in [(2, 0), (0, 2), (1, 1), (0, 0)] {
        let mut old = Old::new(&["/a", "/b"]);
        let first = old.get("/first");
        let anchor = old.locate(&first).unwrap();
        (0..before).for_each(|number| drop(old.get(&format!("/before{number}"))));
        let own = old.own();
        let mut ahead = own.clone();
        (0..after).for_each(|number| drop(old.get(&format!("/after{number}"))));
        assert!(old.bench.follower.adopt(R, anchor, &own), "{before} {after}");
        assert!(old.bench.follower.is_complete(R));
        old.get("/b");
        assert_eq!(old.targets(1), ["/b"], "{before} {after}");
        // The process has gone on, of which nothing was seen here yet.
        let mut old = Old::new(&["/a", "/b"]);
        let first = old.get("/first");
        let anchor = old.locate(&first).unwrap();
        for number in 0..after {
            ahead.added += 1;
            ahead.entries.insert(0, (b":path"[..].into(), format!("/later{number}").into_bytes().into()));
        }
        ahead.added -= before;
        ahead.entries.drain(after..after + before as usize);
        assert!(old.bench.follower.adopt(R, anchor, &ahead), "{before} {after}");
        assert_eq!(old.bench.follower.is_complete(R), after == 0, "what was put out meanwhile is not known");
        old.get("/b");
        assert_eq!(old.targets(1), ["/b"], "{before} {after}");
    }
}

/// The same octets may come again with another meaning of their place.
#[test]
fn what_is_not_certain_waits_for_more() {
    let mut old = Old::new(&["/a"]);
    // A value that is never found again is added each time by the same octets.
    let block = [0x82, 0x86, 0xbf, 0xbe, 0x40, 1, b'n', 1, b'v'];
    let feed = |old: &mut Old| {
        old.bench.feed(R, wire::frame(agent_common::http2::kind::HEADERS, 5, old.stream, &block));
        old.stream += 2;
    };
    feed(&mut old);
    assert!(old.locate(&(10, block.to_vec())).is_some(), "once");
    feed(&mut old);
    // Of the first or the second one.
    assert_eq!(old.locate(&(11, block.to_vec())).map(|_| ()), Some(()), "as before");
    let mut old = Old::new(&["/a"]);
    feed(&mut old);
    feed(&mut old);
    assert_eq!(old.locate(&(10, block.to_vec())), None, "one of two");
    feed(&mut old);
    // 10 or 9 before the first: so that fits the second or the third one.
    assert_eq!(old.locate(&(11, block.to_vec())), None);
    // Another block is there but once.
    let next = old.get("/next");
    assert!(old.locate(&(13, next.1.clone())).is_some());
    // And what it says holds for the table of this address alone.
    assert_eq!(old.bench.follower.locate(ADDRESS + 1, 3, &block, block.len()), None);
}

#[test]
fn who_contradicts_is_not_believed() {
    let mut old = Old::new(&["/a", "/b"]);
    let first = old.get("/new");
    assert_eq!(old.locate(&(first.0, b"another".to_vec())), None, "it was not seen");
    let anchor = old.locate(&first).unwrap();
    let own = old.own();
    let mut other = own.clone();
    other.entries[0].1 = b"/old"[..].into();
    assert!(!old.bench.follower.adopt(R, anchor, &other), "another value");
    let mut other = own.clone();
    other.entries[0].0 = b":authority"[..].into();
    assert!(!old.bench.follower.adopt(R, anchor, &other), "another name");
    for added in [0, 1, own.added - 1, own.added + 1, own.added + 100, u64::MAX] {
        let other = OwnTable { added, ..own.clone() };
        assert!(!old.bench.follower.adopt(R, anchor, &other), "{added} instead of {}", own.added);
    }
    assert!(!old.bench.follower.adopt(Q, anchor, &OwnTable { entries: Vec::new(), ..own.clone() }));
    assert!(old.bench.follower.adopt(R, anchor, &own));
    assert!(!old.bench.follower.adopt(R, anchor, &own), "all is known");
}

/// Counts alone are not enough once there is something to compare.
#[test]
fn a_table_that_has_nothing_in_common_waits() {
    let mut old = Old::new(&["/a", "/b"]);
    let first = old.get("/a");
    let anchor = old.locate(&first).unwrap();
    let own = old.own();
    old.get("/since");
    assert!(!old.bench.follower.adopt(R, anchor, &own));
    let own = old.own();
    assert!(old.bench.follower.adopt(R, anchor, &own));
}

#[test]
fn after_a_loss_nothing_holds() {
    let mut old = Old::new(&["/a", "/b"]);
    let first = old.get("/a");
    let anchor = old.locate(&first).unwrap();
    let own = old.own();
    let lost = old.client.get(old.stream, "/lost");
    old.stream += 2;
    old.bench.gap(R, lost.len() as u64);
    old.get("/c");
    assert!(!old.bench.follower.adopt(R, anchor, &own));
    assert_eq!(old.locate(&first), None);
    let next = old.get("/lost");
    let anchor = old.locate(&next).unwrap();
    let own = old.own();
    assert!(old.bench.follower.adopt(R, anchor, &own));
    old.get("/lost");
    assert_eq!(old.targets(1), ["/lost"]);
}

/// What is wrong with fields that were encoded.
type Doubt = fn(&mut Vec<(u64, u64)>);

/// The process is the client: it has encoded its fields before it sent them.
#[test]
fn what_was_encoded_is_what_is_sent_next() {
    let begin = || {
        let mut client = Peer::default();
        ["/a", "/b"].iter().for_each(|path| drop(client.get(1, path)));
        let mut bench = Bench::new(false);
        bench.follower.seek_table(Q, true);
        (client, bench)
    };
    // A request has four fields.
    let fields = |client: &Peer| vec![(ADDRESS, client.added()); 4];
    let (mut client, mut bench) = begin();
    let before = fields(&client);
    bench.feed(Q, client.get(3, "/a"));
    assert!(bench.follower.is_short(Q));
    let (address, anchor) = bench.follower.locate_sent(&before).unwrap();
    assert_eq!(address, ADDRESS);
    let entries = client.entries().iter().rev().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()));
    let own = OwnTable { added: client.added(), limit: 4096, entries: entries.collect() };
    assert!(bench.follower.adopt(Q, anchor, &own));
    bench.feed(Q, client.get(5, "/b"));
    let mut server = Peer::default();
    bench.feed(R, server.status(5, "200", true));
    assert_eq!(bench.out.last().unwrap().message.target.as_ref(), "/b");

    // Two requests by one call.
    let (mut client, mut bench) = begin();
    let mut both = fields(&client);
    let first = client.get(3, "/new");
    both.extend(fields(&client));
    bench.feed(Q, [first, client.get(5, "/a")].concat());
    assert!(bench.follower.locate_sent(&both).is_some());
    assert_eq!(bench.follower.locate_sent(&both), None, "nothing was sent since");

    // Too few and too many, those of two tables, and counts that are not those of the blocks.
    let doubts: [Doubt; 6] = [
        Vec::clear,
        |fields| fields.truncate(7),
        |fields| fields.push((ADDRESS, 7)),
        |fields| fields[2].0 += 8,
        |fields| fields[4].1 += 1,
        |fields| fields[0].1 = u64::MAX,
    ];
    for (number, doubt) in doubts.into_iter().enumerate() {
        let (mut client, mut bench) = begin();
        let mut both = fields(&client);
        let first = client.get(3, "/new");
        both.extend(fields(&client));
        bench.feed(Q, [first, client.get(5, "/a")].concat());
        doubt(&mut both);
        assert_eq!(bench.follower.locate_sent(&both), None, "{number}");
    }
}
