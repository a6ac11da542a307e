//! The table of header fields (RFC 7541) that a program decodes by, read from its memory: what it holds on a connection older than the
//! agent was sent once, and never again.
//!
//! The program goes on meanwhile. What is read counts only where its parts agree: the sizes add up to that of the table, and all that
//! leads to the fields is the same after they were read.

mod go;
mod nghttp2;

use agent_common::record::{HeaderTable, table};

use super::memory::Memory;
use crate::protocol::http2::OwnTable;

/// Octets of a table, as it counts them: what the agent keeps of one at most.
const SIZE: u64 = 64 << 10;
/// What an entry counts for besides its octets (RFC 7541, section 4.1).
const OVERHEAD: u64 = 32;
/// Entries of such a table at most.
const ENTRIES: u64 = SIZE / OVERHEAD;
/// How often a table is read that changes meanwhile.
const TRIES: u32 = 4;

/// A field as it lies in memory: the name's address and length, and the value's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    name: (u64, u64),
    value: (u64, u64),
}

/// A table without its fields' text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    /// Entries that were ever added.
    added: u64,
    size: u64,
    limit: u32,
    /// The newest first.
    places: Vec<Place>,
}

/// Reads a table. `None` when the process is gone, or what stands there is no table.
pub(super) fn read(tgid: u32, table: &HeaderTable) -> Option<OwnTable> {
    let frame = match table.kind {
        table::GO => go::frame,
        table::NGHTTP2 => nghttp2::frame,
        _ => return None,
    };
    let memory = Memory::of(tgid)?;
    (0..TRIES).find_map(|_| read_once(|| frame(&memory, table.address), &memory))
}

fn read_once(read: impl Fn() -> Option<Frame>, memory: &Memory) -> Option<OwnTable> {
    let frame = read()?;
    let length = |place: &Place| place.name.1.checked_add(place.value.1)?.checked_add(OVERHEAD);
    let sum = frame.places.iter().try_fold(0_u64, |sum, place| sum.checked_add(length(place)?))?;
    if sum != frame.size || sum > u64::from(frame.limit) || sum > SIZE {
        return None;
    }
    let text = |(at, length): (u64, u64)| Some(memory.run(at, usize::try_from(length).ok()?)?.into_boxed_slice());
    let entries = frame.places.iter().map(|place| Some((text(place.name)?, text(place.value)?)));
    let entries = entries.collect::<Option<Vec<_>>>()?;
    let agrees = entries.iter().all(|(name, _)| is_name(name)) && read().as_ref() == Some(&frame);
    agrees.then_some(OwnTable { added: frame.added, limit: frame.limit, entries })
}

/// Whether this is the name of a field of HTTP/2 (RFC 9113, section 8.2.1), also one that stands for a part of the request line.
fn is_name(name: &[u8]) -> bool {
    let is_proper = |octet: &u8| octet.is_ascii_graphic() && !octet.is_ascii_uppercase();
    !name.is_empty() && name.iter().all(is_proper)
}

#[cfg(test)]
mod tests;
