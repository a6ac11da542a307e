//! Connections that learn from their process what its tables of header fields hold ([`super::super::tables`]).

use agent_common::ids::{ConnId, Direction, MonoNanos, Tgid};
use agent_common::record::{HeaderTable, table};

use super::super::tables::{Counts, Lane, Located};
use super::{Connections, Step, index};
use crate::protocol::Thread;
use crate::protocol::http2::{Anchor, Follower, OwnTable};
use crate::source::SegmentRecord;

impl Connections {
    /// Whether a connection refers to what only its process knows.
    pub(super) fn seek(&mut self, conn: ConnId) {
        let Some(connection) = self.table.get_mut(&conn) else { return };
        let Some(follower) = connection.follower.as_mut().and_then(|follower| follower.http2_mut()) else { return };
        for direction in [Direction::Egress, Direction::Ingress] {
            let lane = (conn, direction);
            if follower.is_short(direction) {
                if self.tables.want(lane, connection.tgid, connection.last) {
                    follower.seek_table(direction, true);
                }
            } else if self.tables.wants(lane) && follower.is_complete(direction) {
                follower.seek_table(direction, false);
                self.tables.forget(lane);
            }
        }
    }

    /// The processes whose tables of header fields are looked for.
    #[must_use]
    pub fn tables_wanted(&self) -> Vec<Tgid> {
        self.tables.processes()
    }

    /// Those of them that are new since the last call.
    pub fn tables_newly_wanted(&mut self) -> Vec<Tgid> {
        self.tables.take_new()
    }

    /// What became of those that were found.
    #[must_use]
    pub const fn tables(&self) -> Counts {
        self.tables.counts
    }

    /// A thread is about to decode a block, or to encode a field, by a table.
    pub(super) fn locate(
        &mut self,
        record: &SegmentRecord<'_>,
        table: HeaderTable,
        block: &[u8],
        len: u32,
        out: &mut Vec<Step>,
    ) {
        let thread = &record.thread;
        if record.direction == Direction::Egress {
            return self.tables.encodes(thread, &table);
        }
        let Some(conn) = self.tables.decodes(thread, &table) else { return };
        self.located((conn, Direction::Ingress), thread.tgid, out, |follower| {
            Some((table, follower.locate(table.address, table.added, block, len as usize)?))
        });
    }

    /// Where a table is, and how what it holds belongs to what was seen, if `find` says so.
    fn located(
        &mut self,
        (conn, direction): Lane,
        tgid: Tgid,
        out: &mut Vec<Step>,
        find: impl FnOnce(&mut Follower) -> Option<(HeaderTable, Anchor)>,
    ) {
        let Some(connection) = self.table.get_mut(&conn) else { return };
        // Until what is missing has come, what the thread works on was not read here.
        let holds = connection.streams[index(direction)].is_holding();
        let follower = connection.follower.as_mut().and_then(|follower| follower.http2_mut());
        if let Some((table, anchor)) = follower.and_then(find).filter(|_| !holds) {
            self.tables.asked((conn, direction));
            out.push(Step::Located(Located { conn, direction, tgid, table, anchor }));
        }
    }

    /// A table that was found has been read, or could not be.
    pub fn adopt(&mut self, located: &Located, own: Option<&OwnTable>) {
        let Located { conn, direction, anchor, .. } = *located;
        // Its other end may have told meanwhile.
        self.seek(conn);
        let follower = self.table.get_mut(&conn).and_then(|connection| connection.follower.as_mut()?.http2_mut());
        let adopted = own.zip(follower).is_some_and(|(own, follower)| follower.adopt(direction, anchor, own));
        self.tables.answered((conn, direction), adopted);
        self.seek(conn);
    }

    /// Does not look any longer for tables that were not found.
    pub(super) fn give_up_tables(&mut self, now: MonoNanos) {
        for (conn, direction) in self.tables.give_up(now) {
            let follower = self.table.get_mut(&conn).and_then(|connection| connection.follower.as_mut()?.http2_mut());
            if let Some(follower) = follower {
                follower.seek_table(direction, false);
            }
        }
    }

    /// A thread has sent octets, which have been read here: what it had encoded before was in them.
    pub(super) fn sent(&mut self, conn: ConnId, thread: &Thread, out: &mut Vec<Step>) {
        let Some(fields) = self.tables.sent(conn, thread) else { return };
        self.located((conn, Direction::Egress), thread.tgid, out, |follower| {
            let (address, anchor) = follower.locate_sent(&fields)?;
            Some((HeaderTable { kind: table::GO, address, added: 0 }, anchor))
        });
    }
}
