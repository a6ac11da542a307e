//! Connections of HTTP/2 that refer to header fields from before the agent came, which their process has in its memory: which of its
//! tables is a connection's.
//!
//! A goroutine or thread that is about to decode a block has received it last, and what it has encoded it sends next: so the table by which
//! it does is that connection's. Where in the table the connection stands is told by the blocks (`protocol::http2::own_table`).

use agent_common::ids::{ConnId, Direction, MonoNanos, Tgid};
use agent_common::record::{HeaderTable, table};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::protocol::Thread;
use crate::protocol::http2::Anchor;

/// Directions whose tables are looked for at the same time; workers that are remembered for what they receive, and for what they encode; and
/// fields that one encodes: 16 MiB of these at most.
const MOST: usize = 1024;
const READERS: usize = 16 * 1024;
const WRITERS: usize = 1024;
const FIELDS: usize = 1024;
/// How long and how often the table of one is looked for at most; in nanoseconds.
const PATIENCE: u64 = 30_000_000_000;
const TRIES: u8 = 5;

/// One direction of a connection.
pub(super) type Lane = (ConnId, Direction);
/// Who decodes and encodes in a process: a goroutine or a thread by its number, as the kind of table tells.
type Worker = (Tgid, u64, u32);

/// A table was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub conn: ConnId,
    /// The direction whose fields it holds.
    pub direction: Direction,
    pub tgid: Tgid,
    pub table: HeaderTable,
    pub anchor: Anchor,
}

/// Those connections.
#[derive(Debug, Default)]
pub(super) struct Tables {
    wanted: FxHashMap<Lane, Wanted>,
    given_up: FxHashSet<Lane>,
    /// The connection that a worker has received from last.
    readers: FxHashMap<Worker, ConnId>,
    /// What a goroutine has encoded since it sent last: for each field where the table is, and what had been added to it before.
    writers: FxHashMap<Worker, Vec<(u64, u64)>>,
    /// Processes that no table was looked for in before.
    new: Vec<Tgid>,
    pub(super) counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    tgid: Tgid,
    since: MonoNanos,
    tries: u8,
    /// It is being read.
    asked: bool,
}

/// What became of them. Monotonic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Tables that were read and taken over.
    pub adopted: u64,
    /// Tables that could not be read, or that contradicted what was seen.
    pub refused: u64,
    /// Directions whose tables were not found.
    pub given_up: u64,
}

impl Tables {
    /// Looks for the table of a direction from now on; whether it did not before and may.
    pub(super) fn want(&mut self, lane: Lane, tgid: Tgid, now: MonoNanos) -> bool {
        if self.wanted.contains_key(&lane) || self.wanted.len() >= MOST || self.given_up.contains(&lane) {
            return false;
        }
        if self.wanted.values().all(|wanted| wanted.tgid != tgid) {
            self.new.push(tgid);
        }
        self.wanted.insert(lane, Wanted { tgid, since: now, tries: 0, asked: false });
        true
    }

    pub(super) fn wants(&self, lane: Lane) -> bool {
        self.wanted.contains_key(&lane)
    }

    /// The processes whose tables are looked for, each once.
    pub(super) fn processes(&self) -> Vec<Tgid> {
        let open = self.wanted.values().filter(|wanted| !wanted.asked);
        let mut processes: Vec<Tgid> = open.map(|wanted| wanted.tgid).collect();
        processes.sort_unstable();
        processes.dedup();
        processes
    }

    /// The processes that tables are looked for in since the last call.
    pub(super) fn take_new(&mut self) -> Vec<Tgid> {
        std::mem::take(&mut self.new)
    }

    /// A thread has received octets of a connection.
    pub(super) fn received(&mut self, conn: ConnId, thread: &Thread) {
        if self.wanted.is_empty() {
            return self.readers.clear();
        }
        for worker in [table::GO, table::NGHTTP2].into_iter().filter_map(|kind| worker(thread, kind)) {
            make_room(&mut self.readers, READERS);
            self.readers.insert(worker, conn);
        }
    }

    /// The connection that a thread is about to decode a block of, if its table is looked for.
    pub(super) fn decodes(&self, thread: &Thread, table: &HeaderTable) -> Option<ConnId> {
        let conn = *self.readers.get(&worker(thread, table.kind)?)?;
        let wanted = self.wanted.get(&(conn, Direction::Ingress))?;
        (!wanted.asked && wanted.tgid == thread.tgid).then_some(conn)
    }

    /// A thread is about to encode a field.
    pub(super) fn encodes(&mut self, thread: &Thread, table: &HeaderTable) {
        let Some(worker) = worker(thread, table.kind).filter(|_| !self.wanted.is_empty()) else { return };
        make_room(&mut self.writers, WRITERS);
        let fields = self.writers.entry(worker).or_default();
        // One more than can be believed.
        if fields.len() <= FIELDS {
            fields.push((table.address, table.added));
        }
    }

    /// A thread has sent octets of a connection: what it has encoded before, if the table of that direction is looked for.
    pub(super) fn sent(&mut self, conn: ConnId, thread: &Thread) -> Option<Vec<(u64, u64)>> {
        if self.wanted.is_empty() {
            self.writers.clear();
            return None;
        }
        let fields = worker(thread, table::GO).and_then(|worker| self.writers.remove(&worker)).unwrap_or_default();
        let wanted = self.wanted.get(&(conn, Direction::Egress))?;
        (!wanted.asked && wanted.tgid == thread.tgid).then_some(fields)
    }

    /// The table of a direction is being read.
    pub(super) fn asked(&mut self, lane: Lane) {
        if let Some(wanted) = self.wanted.get_mut(&lane) {
            (wanted.asked, wanted.tries) = (true, wanted.tries.saturating_add(1));
        }
    }

    /// It was read; whether that was of use, if it was wanted still.
    pub(super) fn answered(&mut self, lane: Lane, adopted: bool) {
        if let Some(wanted) = self.wanted.get_mut(&lane) {
            wanted.asked = false;
            *(if adopted { &mut self.counts.adopted } else { &mut self.counts.refused }) += 1;
        }
    }

    /// All is known of a direction, or it is gone.
    pub(super) fn forget(&mut self, lane: Lane) {
        self.wanted.remove(&lane);
    }

    /// Those that were looked for in vain for long enough.
    pub(super) fn give_up(&mut self, now: MonoNanos) -> Vec<Lane> {
        let overdue = |wanted: &Wanted| !wanted.asked && (wanted.tries >= TRIES || now.since(wanted.since) > PATIENCE);
        let lanes: Vec<Lane> = self.wanted.extract_if(|_, wanted| overdue(wanted)).map(|(lane, _)| lane).collect();
        self.counts.given_up += lanes.len() as u64;
        self.given_up.extend(&lanes);
        lanes
    }

    /// Keeps those that are open.
    pub(super) fn retain(&mut self, is_open: impl Fn(ConnId) -> bool) {
        self.wanted.retain(|(conn, _), _| is_open(*conn));
        self.given_up.retain(|(conn, _)| is_open(*conn));
    }
}

fn make_room<T>(workers: &mut FxHashMap<Worker, T>, most: usize) {
    if workers.len() >= most {
        workers.clear();
    }
}

/// Who works on a table of this kind when a thread does. A goroutine may change its thread, so it has to be known.
fn worker(thread: &Thread, kind: u64) -> Option<Worker> {
    let coroutine = thread.coroutine;
    let number = match kind {
        table::GO => Some(coroutine.id).filter(|id| *id != 0 && coroutine.as_task().is_none()),
        _ => Some(thread.tid.0),
    };
    Some((thread.tgid, kind, number?))
}

#[cfg(test)]
mod tests {
    use agent_common::ids::Tid;

    use super::*;
    use crate::protocol::Coroutine;

    const IN: Direction = Direction::Ingress;
    const OUT: Direction = Direction::Egress;

    fn thread(tid: u32, goroutine: u32) -> Thread {
        let coroutine = Coroutine { id: goroutine, ..Coroutine::default() };
        Thread { tgid: Tgid(1), tid: Tid(tid), coroutine }
    }

    fn of(kind: u64) -> HeaderTable {
        HeaderTable { kind, address: 8, added: 3 }
    }

    fn wanting(lanes: &[Lane]) -> Tables {
        let mut tables = Tables::default();
        for lane in lanes {
            assert!(tables.want(*lane, Tgid(1), MonoNanos(1)) && !tables.want(*lane, Tgid(1), MonoNanos(1)));
        }
        tables
    }

    #[test]
    fn a_block_is_of_the_connection_that_its_worker_has_received_last() {
        let mut tables = wanting(&[(ConnId(1), IN), (ConnId(2), OUT)]);
        assert_eq!((tables.processes(), tables.take_new(), tables.take_new()), (vec![Tgid(1)], vec![Tgid(1)], vec![]));
        tables.received(ConnId(1), &thread(7, 40));
        assert_eq!(tables.decodes(&thread(9, 40), &of(table::GO)), Some(ConnId(1)), "on another thread by now");
        assert_eq!(tables.decodes(&thread(7, 41), &of(table::GO)), None);
        assert_eq!(tables.decodes(&thread(7, 0), &of(table::GO)), None, "its goroutine is not known");
        assert_eq!(tables.decodes(&thread(7, 0), &of(table::NGHTTP2)), Some(ConnId(1)));
        tables.received(ConnId(2), &thread(7, 40));
        assert_eq!(tables.decodes(&thread(7, 40), &of(table::GO)), None, "not looked for");
        tables.received(ConnId(1), &thread(7, 40));
        tables.asked((ConnId(1), IN));
        assert_eq!(tables.decodes(&thread(7, 40), &of(table::GO)), None, "it is being read");
        tables.answered((ConnId(1), IN), true);
        assert_eq!((tables.counts.adopted, tables.counts.refused), (1, 0));
        tables.forget((ConnId(1), IN));
        tables.forget((ConnId(2), OUT));
        tables.received(ConnId(1), &thread(7, 40));
        assert!(tables.processes().is_empty() && tables.readers.is_empty());
    }

    #[test]
    fn fields_are_of_what_is_sent_next() {
        let mut tables = wanting(&[(ConnId(1), OUT)]);
        tables.encodes(&thread(7, 40), &of(table::GO));
        tables.encodes(&thread(8, 40), &of(table::GO));
        tables.encodes(&thread(8, 0), &of(table::GO));
        assert_eq!(tables.sent(ConnId(1), &thread(7, 41)), Some(vec![]));
        assert_eq!(tables.sent(ConnId(1), &thread(9, 40)), Some(vec![(8, 3); 2]));
        assert_eq!(tables.sent(ConnId(1), &thread(9, 40)), Some(vec![]), "once");
        tables.encodes(&thread(7, 40), &of(table::GO));
        assert_eq!(tables.sent(ConnId(2), &thread(7, 40)), None);
        assert_eq!(tables.sent(ConnId(1), &thread(7, 40)), Some(vec![]), "they went elsewhere");
        for _ in 0..2 * FIELDS {
            tables.encodes(&thread(7, 40), &of(table::GO));
        }
        assert_eq!(tables.sent(ConnId(1), &thread(7, 40)).map(|fields| fields.len()), Some(FIELDS + 1));
    }

    #[test]
    fn nothing_is_looked_for_without_end() {
        let mut tables = wanting(&[(ConnId(1), IN), (ConnId(2), IN)]);
        for _ in 0..TRIES {
            assert!(tables.give_up(MonoNanos(2)).is_empty());
            tables.asked((ConnId(1), IN));
            tables.answered((ConnId(1), IN), false);
        }
        assert_eq!(tables.give_up(MonoNanos(2)), [(ConnId(1), IN)]);
        tables.asked((ConnId(2), IN));
        assert!(tables.give_up(MonoNanos(2 * PATIENCE)).is_empty(), "it is being read");
        tables.answered((ConnId(2), IN), false);
        assert_eq!(tables.give_up(MonoNanos(2 * PATIENCE)), [(ConnId(2), IN)]);
        assert!(tables.processes().is_empty());
        assert!(!tables.want((ConnId(1), IN), Tgid(1), MonoNanos(2 * PATIENCE)), "not again");
        assert_eq!((tables.counts.refused, tables.counts.given_up), (u64::from(TRIES) + 1, 2));
        tables.retain(|_| false);
        assert!(tables.want((ConnId(1), IN), Tgid(1), MonoNanos(2 * PATIENCE)), "another connection");
    }
}
