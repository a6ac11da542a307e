//! The tables that indices point into (RFC 7541, section 2.3): the static one, and the dynamic one as far as it is known.
//!
//! Indices count from the newest entry of the dynamic table. So what was seen to be added is found by its index whatever
//! stands behind it, and an observer that came late only does not know what the higher indices mean.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::own::{OwnField, OwnTable};

/// One field as it stands in the table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// `None` when it was given by an index that is not known.
    pub(super) name: Option<Cow<'static, [u8]>>,
    pub(super) value: Box<[u8]>,
}

impl Entry {
    /// Section 4.1; of a name not known at least this.
    fn size(&self) -> usize {
        self.name.as_ref().map_or(0, |name| name.len()) + self.value.len() + OVERHEAD
    }
}

/// What an entry counts for besides its octets (section 4.1).
const OVERHEAD: usize = 32;
/// The size of a table of which nobody said anything (RFC 9113, section 6.5.2).
const DEFAULT: usize = 4096;
/// What is kept of a table at most, whatever size it may have.
const KEPT: usize = 64 << 10;

/// What an index stands for.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Entry(&'a Entry),
    /// An entry that was not seen.
    Unknown,
    /// No table has such an entry.
    Nothing,
}

/// The dynamic table.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    /// How large it may become; `None` when that is not known.
    capacity: Option<usize>,
    /// Nothing stands behind `entries`.
    complete: bool,
}

impl Table {
    /// The table of a connection that begins.
    pub(super) const fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, capacity: Some(DEFAULT), complete: true }
    }

    /// A table of which nothing is known.
    pub(super) const fn unknown() -> Self {
        Self { entries: VecDeque::new(), size: 0, capacity: None, complete: false }
    }

    /// The entry of an index, counted from 0 in this table alone.
    pub(super) fn get(&self, index: usize) -> Found<'_> {
        match self.entries.get(index) {
            Some(entry) => Found::Entry(entry),
            None if self.complete || index >= self.capacity.unwrap_or(KEPT) / OVERHEAD => Found::Nothing,
            None => Found::Unknown,
        }
    }

    /// Adds the newest entry (section 4.4).
    pub(super) fn add(&mut self, entry: Entry) {
        let size = entry.size();
        match self.capacity {
            // It empties the table, and is not added.
            Some(capacity) if size > capacity => {
                self.clear();
                self.complete = true;
            }
            // Whether it was added is not known.
            None if size > DEFAULT => self.clear(),
            _ => {
                self.size += size;
                self.entries.push_front(entry);
                self.evict();
            }
        }
    }

    /// The table may have this size from now on (section 4.3).
    pub(super) fn resize(&mut self, capacity: usize) {
        self.capacity = Some(capacity);
        if capacity == 0 {
            self.complete = true;
        }
        self.evict();
    }

    /// Nothing stands in it that is not known, but perhaps for a name.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes over what another observer knows of this table as it stands now. What both know has to agree, else nothing is.
    pub(super) fn learn(&mut self, other: &Self) {
        let more = other.complete || other.entries.len() > self.entries.len();
        if self.complete || !more {
            return;
        }
        let agrees = |(ours, theirs): (&Entry, &Entry)| {
            ours.value == theirs.value && (ours.name == theirs.name || ours.name.is_none() || theirs.name.is_none())
        };
        let sizes = self.capacity.is_none() || other.capacity.is_none() || self.capacity == other.capacity;
        if !sizes || !self.entries.iter().zip(&other.entries).all(agrees) {
            return;
        }
        for (ours, theirs) in self.entries.iter_mut().zip(&other.entries) {
            if ours.name.is_none() {
                ours.name.clone_from(&theirs.name);
            }
        }
        self.entries.extend(other.entries.iter().skip(self.entries.len()).cloned());
        self.capacity = self.capacity.or(other.capacity);
        self.complete = other.complete;
        self.size = self.entries.iter().map(Entry::size).sum();
        self.evict();
    }

    /// Takes over what the process that decodes by this table has in it, which was read at another time: `added` is what that counts
    /// as added to the table as it stands here. What both know has to agree, else nothing is taken; whether it did.
    pub(super) fn adopt(&mut self, added: u64, own: &OwnTable) -> bool {
        let apart = |one: u64, other: u64| usize::try_from(one.saturating_sub(other)).unwrap_or(usize::MAX);
        // Added since by who comes later.
        let (theirs, ours) = (apart(own.added, added), apart(added, own.added));
        if self.complete || ours > self.entries.len() || theirs > own.entries.len() {
            return false;
        }
        let mut shared = self.entries.iter().skip(ours).zip(own.entries.iter().skip(theirs)).peekable();
        // The counts alone do not tell where something can be compared, since a count may be read while it changes.
        let compared = self.entries.is_empty() || shared.peek().is_some();
        let agrees = |(entry, (name, value)): (&Entry, &OwnField)| {
            entry.value == *value && entry.name.as_ref().is_none_or(|known| known[..] == name[..])
        };
        if !compared || !shared.all(agrees) {
            return false;
        }
        let mut known = own.entries.iter().skip(theirs);
        for (entry, (name, _)) in self.entries.iter_mut().skip(ours).zip(&mut known) {
            entry.name.get_or_insert_with(|| Cow::Owned(name.to_vec()));
        }
        self.entries
            .extend(known.map(|(name, value)| Entry { name: Some(Cow::Owned(name.to_vec())), value: value.clone() }));
        // What was added there since has pushed out others, perhaps.
        if theirs == 0 {
            self.entries.truncate(ours.saturating_add(own.entries.len()));
            self.capacity = self.capacity.or(usize::try_from(own.limit).ok());
            self.complete = true;
        }
        self.size = self.entries.iter().map(Entry::size).sum();
        self.evict();
        true
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.size = 0;
    }

    fn evict(&mut self) {
        let limit = self.capacity.map_or(KEPT, |capacity| capacity.min(KEPT));
        while self.size > limit
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
            // Sizes here are at most what they are in truth. So what has no room in the table's own limit is gone there
            // too, with all that was older; what has none in ours is only not known any more.
            self.complete = self.capacity == Some(limit);
        }
    }

    /// Octets of memory, by the reckoning of section 4.1.
    #[cfg(test)]
    pub(super) const fn size(&self) -> usize {
        self.size
    }
}

/// An entry of the static table (appendix A), by its index from 1.
pub(super) fn fixed(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    let (name, value) = STATIC.get(index.checked_sub(1)?)?;
    Some((name.as_bytes(), value.as_bytes()))
}

/// How many entries the static table has.
pub(super) const FIXED: usize = STATIC.len();

const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
