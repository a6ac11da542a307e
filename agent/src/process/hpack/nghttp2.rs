//! nghttp2's, since 1.20 (2017), as Node has it: `nghttp2_hd_inflater` begins with its `nghttp2_hd_context` (lib/nghttp2_hd.h), which is
//!
//! ```text
//! hd_table              nghttp2_hd_ringbuf { nghttp2_hd_entry **buffer; size_t mask, first, len }
//! mem                   nghttp2_mem *
//! hd_table_bufsize      size_t
//! hd_table_bufsize_max  size_t
//! next_seq              uint32_t
//! bad                   uint8_t
//! ```
//!
//! with the newest entry first. Of an entry `cnv` is looked at, which has name and value, and `seq`, its number from 0.

use super::{ENTRIES, Frame, Memory, Place};

/// Octets of what is read of the table, and of an entry.
const TABLE: usize = 64;
const ENTRY: usize = 80;
/// `cnv`, as a number of words before it.
const FIELD: usize = 3;

pub(super) fn frame(memory: &Memory, address: u64) -> Option<Frame> {
    let words: [u8; TABLE] = memory.octets(address)?;
    let [buffer, mask, first, count, _, size, limit, next] = *words.as_chunks().0 else { return None };
    let [buffer, mask, first, count, size, limit, next] =
        [buffer, mask, first, count, size, limit, next].map(u64::from_le_bytes);
    let (added, bad) = (next & 0xffff_ffff, next >> 32 & 0xff);
    // The ring has a power of two of places.
    let slots = mask.checked_add(1).filter(|slots| slots.is_power_of_two() && *slots <= 2 * ENTRIES)?;
    if count > slots || count > ENTRIES || bad != 0 {
        return None;
    }
    let ring = memory.words(buffer, slots * 8)?;
    let entry = |nth: u64| {
        let at = *ring.get(usize::try_from(first.wrapping_add(nth) & mask).ok()?)?;
        place(&memory.octets(at)?, added.checked_sub(nth + 1)?)
    };
    let places = (0..count).map(entry).collect::<Option<Vec<_>>>()?;
    Some(Frame { added, size, limit: u32::try_from(limit).ok()?, places })
}

/// The entry, if it has this number.
fn place(entry: &[u8; ENTRY], number: u64) -> Option<Place> {
    let words = entry.as_chunks().0;
    let word = |at: usize| words.get(at).copied().map(u64::from_le_bytes);
    let [name, value, name_length, value_length] = [0, 1, 2, 3].map(|at| word(FIELD + at));
    let place = Place { name: (name?, name_length?), value: (value?, value_length?) };
    (word(FIELD + 6)? & 0xffff_ffff == number).then_some(place)
}
