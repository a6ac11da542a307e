//! Go's: `hpack.Decoder` begins with its `dynamicTable`, which is
//!
//! ```text
//! table          headerFieldTable { ents []HeaderField, evictCount uint64, byName, byNameValue map }
//! size           uint32
//! maxSize        uint32
//! allowedMaxSize uint32
//! ```
//!
//! with `HeaderField { Name, Value string, Sensitive bool }`, the oldest first (golang.org/x/net/http2/hpack/{hpack,tables}.go since
//! 2017; as vendored by Go 1.10 to 1.26).

use super::{ENTRIES, Frame, Memory, Place};

/// Octets of what is read of the table, and of an entry.
const TABLE: usize = 56;
const ENTRY: usize = 40;

pub(super) fn frame(memory: &Memory, address: u64) -> Option<Frame> {
    let words: [u8; TABLE] = memory.octets(address)?;
    let [entries, count, capacity, evicted, _, _, sizes] = *words.as_chunks().0 else { return None };
    let [entries, count, capacity, evicted, sizes] = [entries, count, capacity, evicted, sizes].map(u64::from_le_bytes);
    if count > capacity || count > ENTRIES {
        return None;
    }
    let octets = memory.run(entries, usize::try_from(count).ok()?.checked_mul(ENTRY)?)?;
    let places = octets.as_chunks::<ENTRY>().0.iter().rev().map(place).collect::<Option<Vec<_>>>()?;
    let limit = u32::try_from(sizes >> 32).ok()?;
    Some(Frame { added: evicted.checked_add(count)?, size: sizes & 0xffff_ffff, limit, places })
}

fn place(entry: &[u8; ENTRY]) -> Option<Place> {
    let [name, name_length, value, value_length, _] = *entry.as_chunks().0 else { return None };
    let [name, name_length, value, value_length] = [name, name_length, value, value_length].map(u64::from_le_bytes);
    Some(Place { name: (name, name_length), value: (value, value_length) })
}
