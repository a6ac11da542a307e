//! What the process itself knows of the header fields that it is sent: its table, which it has in memory.
//!
//! The caller finds and reads it. Here is told where that is wanted, and what was read is put in its place.

use agent_common::ids::Direction;

use super::follower::Follower;
use super::hpack::{Anchor, OwnTable};

impl Follower {
    /// Header fields sent in `direction` were not known that the table's owner knows.
    #[must_use]
    pub fn is_short(&self, direction: Direction) -> bool {
        self.over.is_none() && self.certain && self.lane_of(direction).decoder.is_short()
    }

    /// All header fields sent in `direction` are known.
    #[must_use]
    pub fn is_complete(&self, direction: Direction) -> bool {
        self.lane_of(direction).decoder.is_complete()
    }

    /// Remembers blocks sent in `direction` from now on, to know them again in [`Self::locate`]; or not any more.
    pub fn seek_table(&mut self, direction: Direction, seek: bool) {
        self.lane(direction).decoder.seek(seek);
    }

    /// The process has a table at an address, had added so many entries to it, and was about to decode a block of `len` octets that
    /// begins so, of what it has received: which place of its table belongs to which one here, once that is certain.
    pub fn locate(&mut self, address: u64, added: u64, block: &[u8], len: usize) -> Option<Anchor> {
        self.ingress.decoder.locate(address, added, block, len)
    }

    /// The process has encoded `fields` before it sent what was last read here, or more since this was called last: for each, the address
    /// of the table and what had been added to it. Where the table is, and which place of it belongs to which one here, if that is certain.
    pub fn locate_sent(&mut self, fields: &[(u64, u64)]) -> Option<(u64, Anchor)> {
        self.egress.decoder.locate_sent(fields)
    }

    /// Takes over what the process has in its table; whether that fits what was seen here.
    pub fn adopt(&mut self, direction: Direction, anchor: Anchor, own: &OwnTable) -> bool {
        self.lane(direction).decoder.adopt(anchor, own)
    }
}
