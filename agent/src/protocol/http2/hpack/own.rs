//! What a table holds in the memory of the process that decodes by it, and where that belongs in what was seen here.
//!
//! Both count the entries that were added, from another beginning. A block that the process was about to decode when it had added so
//! many, and that was seen here as well, tells how far these are apart. The same octets may come several times: only what all blocks
//! that were told of have in common is believed.

use std::collections::VecDeque;
use std::hash::Hasher as _;

use agent_common::limits::BLOCK;
use rustc_hash::FxHasher;

/// Blocks that are remembered: more than a process is given by one call and has not decoded yet.
const BLOCKS: usize = 512;

/// Name and value.
pub(super) type OwnField = (Box<[u8]>, Box<[u8]>);

/// A table, read as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTable {
    /// Entries that were ever added to it.
    pub added: u64,
    /// How large it may become.
    pub limit: u32,
    /// Names and values, the newest first.
    pub entries: Vec<OwnField>,
}

/// How the counts of a process and of a decoder here belong together; it holds until that has lost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    generation: u64,
    /// What the process had added when the decoder here had added nothing.
    base: u64,
}

/// A block: its octets, what had been added before, and how many fields it has.
#[derive(Clone, Copy, Debug)]
struct Seen {
    digest: u64,
    before: u64,
    fields: usize,
}

/// What a decoder has seen since it knows nothing.
#[derive(Debug)]
pub(super) struct History {
    /// Each beginning has another number.
    generation: u64,
    added: u64,
    /// While somebody asks for it.
    search: Option<Box<Search>>,
}

#[derive(Debug, Default)]
struct Search {
    blocks: VecDeque<Seen>,
    /// How many of them came since [`History::locate_sent`].
    recent: usize,
    /// Where a process's table is, and the bases that all it told allows.
    possible: Option<(u64, Vec<u64>)>,
}

impl History {
    pub(super) const fn new() -> Self {
        Self { generation: 0, added: 0, search: None }
    }

    /// Nothing is known any more.
    pub(super) fn restart(&mut self) {
        (self.generation, self.added) = (self.generation.wrapping_add(1), 0);
        if let Some(search) = &mut self.search {
            **search = Search::default();
        }
    }

    /// Blocks are to be remembered, or not any more.
    pub(super) fn seek(&mut self, seek: bool) {
        match seek {
            true => _ = self.search.get_or_insert_default(),
            false => self.search = None,
        }
    }

    pub(super) const fn added(&self) -> u64 {
        self.added
    }

    pub(super) const fn add(&mut self) {
        self.added += 1;
    }

    /// A whole block was read; `before` is what had been added then.
    pub(super) fn note(&mut self, block: &[u8], before: u64, fields: usize) {
        let Some(search) = &mut self.search else { return };
        if search.blocks.len() >= BLOCKS {
            search.blocks.pop_front();
        }
        search.blocks.push_back(Seen { digest: digest(block, block.len()), before, fields });
        search.recent += 1;
    }

    /// A process has a table at an address, had added so many entries, and is about to decode a block of `len` octets that begins so.
    pub(super) fn locate(&mut self, address: u64, added: u64, block: &[u8], len: usize) -> Option<Anchor> {
        let digest = digest(block, len);
        let Search { blocks, possible, .. } = &mut **self.search.as_mut()?;
        let same = blocks.iter().filter(|seen| seen.digest == digest);
        let mut bases: Vec<u64> = same.filter_map(|seen| added.checked_sub(seen.before)).collect();
        if bases.is_empty() {
            return None;
        }
        bases.sort_unstable();
        bases.dedup();
        if let Some((_, known)) = possible.take_if(|(known, _)| *known == address) {
            bases.retain(|base| known.contains(base));
        }
        let anchor = match bases[..] {
            [base] => Some(Anchor { generation: self.generation, base }),
            _ => None,
        };
        *possible = (!bases.is_empty()).then_some((address, bases));
        anchor
    }

    /// A process has encoded these fields, and then sent what came since the last call: one block or several, each with as many fields.
    pub(super) fn locate_sent(&mut self, mut fields: &[(u64, u64)]) -> Option<(u64, Anchor)> {
        let Search { blocks, recent, .. } = &mut **self.search.as_mut()?;
        let recent = std::mem::take(recent);
        let &(address, _) = fields.first()?;
        let mut base = None;
        for seen in blocks.range(blocks.len().checked_sub(recent)?..) {
            let (of_block, rest) = fields.split_at_checked(seen.fields)?;
            let (_, added) = of_block.first()?;
            let apart = added.checked_sub(seen.before)?;
            if *base.get_or_insert(apart) != apart || of_block.iter().any(|(other, _)| *other != address) {
                return None;
            }
            fields = rest;
        }
        let base = base.filter(|_| fields.is_empty())?;
        Some((address, Anchor { generation: self.generation, base }))
    }

    /// What a process that is so far apart has added when it is where this decoder is; `None` when something was lost since.
    pub(super) fn count(&self, anchor: Anchor) -> Option<u64> {
        (anchor.generation == self.generation).then(|| anchor.base.checked_add(self.added))?
    }
}

/// Of a block of `len` octets.
fn digest(block: &[u8], len: usize) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(block.get(..BLOCK).unwrap_or(block));
    hasher.write_usize(len);
    hasher.finish()
}
