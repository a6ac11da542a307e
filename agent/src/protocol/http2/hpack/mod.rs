//! Header compression (RFC 7541), read from the side.
//!
//! An observer may have missed blocks, and with them entries of the dynamic table. What such an index stands for is
//! unknown, here and in every field that refers to it, until the entry has been added again.

mod huffman;
mod primitive;
mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

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
}

impl Decoder {
    /// `complete`: every block from the first one on will be seen.
    pub(super) const fn new(complete: bool) -> Self {
        if complete {
            Self { table: Table::new(), allowed: Some(4096) }
        } else {
            Self { table: Table::unknown(), allowed: None }
        }
    }

    /// The receiver allows a table of this size (RFC 9113, section 6.5.2). The sender may still use what was allowed
    /// before, as nobody knows when it hears of it.
    pub(super) fn allow(&mut self, size: u32) {
        self.allowed = self.allowed.map(|allowed| allowed.max(size));
    }

    /// Blocks were not seen, so what stands in the table is not known.
    pub(super) fn lose(&mut self) {
        self.table = Table::unknown();
    }

    /// Nothing of the table is unknown.
    pub(super) const fn is_complete(&self) -> bool {
        self.table.is_complete()
    }

    /// Takes over what another observer knows. The newest block is the same for both, whichever each of them has missed.
    pub(super) fn learn(&mut self, other: &Self) {
        self.table.learn(&other.table);
    }

    /// Decodes a whole block. After an error nothing of it is to be believed, nor is the table.
    pub(super) fn decode(&mut self, block: &[u8], mut field: impl FnMut(Field<'_>)) -> Result<(), Invalid> {
        let done = self.read(block, &mut field);
        if done.is_none() {
            self.lose();
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
                    field(self.indexed(index)?);
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
                        self.table.add(Entry { name, value: value.into() });
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
