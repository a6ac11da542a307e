//! Header compression (RFC 7541), read from the side.
//!
//! An observer may have missed blocks, and with them entries of the dynamic table. What such an index stands for is
//! unknown, here and in every field that refers to it, until the entry has been added again.

mod huffman;
mod own;
mod primitive;
mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::own::History;
pub use self::own::{Anchor, OwnTable};
use self::primitive::{integer, string};
use self::table::{Entry, FIXED, Found, Table, fixed};

/// A field as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) name: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

/// A block that breaks the rules, or that rests on a table other than the one known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

/// What one direction's header blocks rest on.
#[derive(Debug)]
pub(super) struct Decoder {
    table: Table,
    /// The largest size of the table that the receiver has ever allowed; `None` when that is not known.
    allowed: Option<u32>,
    /// While something of the table is not known.
    history: History,
    /// A block has referred to what is not known.
    short: bool,
}

impl Decoder {
    /// `complete`: every block from the first one on will be seen.
    pub(super) const fn new(complete: bool) -> Self {
        let table = if complete { Table::new() } else { Table::unknown() };
        let allowed = if complete { Some(4096) } else { None };
        Self { table, allowed, history: History::new(), short: false }
    }

    /// The receiver allows a table of this size (RFC 9113, section 6.5.2). The sender may still use what was allowed
    /// before, as nobody knows when it hears of it.
    pub(super) fn allow(&mut self, size: u32) {
        self.allowed = self.allowed.map(|allowed| allowed.max(size));
    }

    /// Blocks were not seen, so what stands in the table is not known.
    pub(super) fn lose(&mut self) {
        self.table = Table::unknown();
        self.history.restart();
    }

    /// Nothing of the table is unknown.
    pub(super) const fn is_complete(&self) -> bool {
        self.table.is_complete()
    }

    /// Takes over what another observer knows. The newest block is the same for both, whichever each of them has missed.
    pub(super) fn learn(&mut self, other: &Self) {
        self.table.learn(&other.table);
    }

    /// Blocks have referred to what is not known.
    pub(super) const fn is_short(&self) -> bool {
        self.short && !self.table.is_complete()
    }

    /// Blocks are remembered, to know them again in [`Self::locate`], or not any more.
    pub(super) fn seek(&mut self, seek: bool) {
        self.history.seek(seek);
    }

    /// The process that decodes this has its table at `address`, had added so many entries to it, and was about to decode a block of
    /// `len` octets that begins so. How its count and that of what was seen here belong together, once that is certain.
    pub(super) fn locate(&mut self, address: u64, added: u64, block: &[u8], len: usize) -> Option<Anchor> {
        if self.table.is_complete() { None } else { self.history.locate(address, added, block, len) }
    }

    /// The process that encodes this has encoded `fields`, for each of which the address of the table and what had been added to it is
    /// given, and then sent the blocks that were read since the last call. Where its table is, and how the counts belong together.
    pub(super) fn locate_sent(&mut self, fields: &[(u64, u64)]) -> Option<(u64, Anchor)> {
        self.history.locate_sent(fields)
    }

    /// Takes over what the process has in its table; whether that fits what was seen here.
    pub(super) fn adopt(&mut self, anchor: Anchor, own: &OwnTable) -> bool {
        let fits = self.history.count(anchor).is_some_and(|added| self.table.adopt(added, own));
        if fits {
            self.short = false;
        }
        fits
    }

    /// Decodes a whole block. After an error nothing of it is to be believed, nor is the table.
    pub(super) fn decode(&mut self, block: &[u8], mut field: impl FnMut(Field<'_>)) -> Result<(), Invalid> {
        let before = self.history.added();
        let mut fields = 0;
        let done = self.read(block, &mut |each: Field<'_>| {
            fields += 1;
            field(each);
        });
        if done.is_none() {
            self.lose();
        } else if !self.table.is_complete() {
            self.history.note(block, before, fields);
        }
        done.ok_or(Invalid)
    }

    fn read(&mut self, mut block: &[u8], field: &mut impl FnMut(Field<'_>)) -> Option<()> {
        let (mut name_space, mut value_space) = (Vec::new(), Vec::new());
        let mut first = true;
        while let Some(&octet) = block.first() {
            block = match octet {
                // 1xxxxxxx: an indexed field (section 6.1).
                0x80.. => {
                    let (index, rest) = integer(block, 7)?;
                    let indexed = self.indexed(index)?;
                    let known = indexed.name.is_some() && indexed.value.is_some();
                    field(indexed);
                    self.short |= !known;
                    rest
                }
                // 001xxxxx: the table's size, only at the beginning (sections 6.3 and 4.2).
                0x20..0x40 => {
                    let (size, rest) = integer(block, 5)?;
                    if !first || self.allowed.is_some_and(|allowed| size > allowed) {
                        return None;
                    }
                    self.table.resize(usize::try_from(size).ok()?);
                    block = rest;
                    continue;
                }
                // 01xxxxxx: a literal that is added (section 6.2.1); 0000xxxx and 0001xxxx: one that is not.
                _ => {
                    let added = octet & 0x40 != 0;
                    let (index, rest) = integer(block, if added { 6 } else { 4 })?;
                    let (name, rest) = if index == 0 {
                        let (name, rest) = string(rest, &mut name_space)?;
                        (Some(Cow::Borrowed(name)), rest)
                    } else {
                        (self.name(index)?, rest)
                    };
                    let (value, rest) = string(rest, &mut value_space)?;
                    field(Field { name: name.as_deref(), value: Some(value) });
                    if added {
                        let name = match fixed(usize::try_from(index).ok()?) {
                            Some((name, _)) => Some(Cow::Borrowed(name)),
                            None => name.map(|name| Cow::Owned(name.into_owned())),
                        };
                        self.short |= name.is_none();
                        self.table.add(Entry { name, value: value.into() });
                        self.history.add();
                    }
                    rest
                }
            };
            first = false;
        }
        Some(())
    }

    fn indexed(&self, index: u32) -> Option<Field<'_>> {
        let index = usize::try_from(index).ok()?;
        if let Some((name, value)) = fixed(index) {
            return Some(Field { name: Some(name), value: Some(value) });
        }
        match self.table.get(index.checked_sub(FIXED + 1)?) {
            Found::Entry(entry) => Some(Field { name: entry.name.as_deref(), value: Some(&entry.value) }),
            Found::Unknown => Some(Field { name: None, value: None }),
            Found::Nothing => None,
        }
    }

    /// The name that an index stands for, which may be unknown.
    fn name(&self, index: u32) -> Option<Option<Cow<'_, [u8]>>> {
        Some(self.indexed(index)?.name.map(Cow::Borrowed))
    }
}
