//! Messages of the formats before batches: magic 0, and 1 with a timestamp (KIP-32). A compressed message has others in it.

use super::super::wire::Reader;
use super::compression::Content;

/// Offset, size, checksum, magic, attributes.
pub(super) const HEAD: usize = 18;
/// The timestamp that magic 1 has behind it.
pub(super) const TIMESTAMP: usize = 8;
/// As many octets of the head count in the size.
pub(super) const COUNTED: usize = 6;

/// What the messages in a compressed one say.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) count: u64,
    /// Of the first and the last: offsets, or with magic 1 how far they are behind each other (KIP-31).
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) key: Option<Box<[u8]>>,
}

/// `None` when they are not all there.
pub(super) fn inner(content: &Content, key: usize) -> Option<Inner> {
    let mut rest = Reader(&content.octets);
    let mut inner: Option<Inner> = None;
    while !rest.0.is_empty() {
        let offset = rest.i64()?;
        let size = usize::try_from(rest.i32()?).ok()?;
        let mut message = Reader(rest.octets(size)?);
        match &mut inner {
            Some(inner) => (inner.count, inner.last) = (inner.count + 1, offset),
            None => {
                let _checksum = message.i32()?;
                let magic = message.i8()?;
                let _attributes = message.i8()?;
                let _timestamp = if magic == 1 { message.i64()? } else { 0 };
                inner = Some(Inner { count: 1, first: offset, last: offset, key: first_key(message, key) });
            }
        }
    }
    inner.filter(|_| content.whole)
}

/// The key of a message, by what comes behind its head; none that is longer than the limit.
pub(super) fn first_key(mut message: Reader<'_>, limit: usize) -> Option<Box<[u8]>> {
    let length = usize::try_from(message.i32()?).ok()?;
    if limit == 0 || length > limit { None } else { message.octets(length).map(Into::into) }
}
