//! Content headers: how long a message's body is, and its properties (specification, section 4.2.6.1).

use std::hash::{DefaultHasher, Hasher as _};

use super::message::Properties;
use super::wire::{Reader, Table};
use crate::protocol::context::{ContextFields, TraceContext};

/// The class of messages.
pub(super) const BASIC: u16 = 60;
/// The flag of headers.
const HEADERS: u16 = 1 << 13;
/// The header in which a quorum queue counts how often a message came back to it.
const DELIVERY_COUNT: &[u8] = b"x-delivery-count";

/// What a content header tells.
#[derive(Debug)]
pub(super) struct ContentHeader {
    pub(super) body_size: u64,
    pub(super) properties: Properties,
    pub(super) context: Option<TraceContext>,
    /// Begun with the properties as sent, but for what a queue changes of them, and the body's size.
    pub(super) hasher: DefaultHasher,
}

impl ContentHeader {
    /// Reads the payload of a content header's frame; `None` when it is none of a message. Properties that are not all there are
    /// unknown.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        // The weight means nothing.
        let (class, _weight, body_size) = (reader.u16()?, reader.u16()?, reader.u64()?);
        if class != BASIC {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        if hash_with_headers(reader.0, &mut hasher).is_none() {
            hasher.write(reader.0);
        }
        hasher.write_u64(body_size);
        let (mut properties, mut context) = (Properties::default(), ContextFields::default());
        let whole = read(&mut reader, &mut properties, &mut context).is_some();
        if whole {
            properties.persistent.get_or_insert(false);
        }
        // Of headers cut short, the same field may come once more.
        Some(Self { body_size, properties, context: context.finish().filter(|_| whole), hasher })
    }
}

/// Hashes properties with headers so that a message stays the same when a queue has counted its deliveries: without that count, and
/// the others in any order, since the broker sorts them then. `None`, and nothing is hashed, where there are no headers or not all.
fn hash_with_headers(properties: &[u8], hasher: &mut DefaultHasher) -> Option<()> {
    let mut reader = Reader(properties);
    let flags = reader.u16().filter(|flags| flags & HEADERS != 0 && flags & 1 == 0)?;
    let before = reader.0;
    for bit in [15, 14] {
        if flags >> bit & 1 == 1 {
            reader.short()?;
        }
    }
    let before = before.get(..before.len() - reader.0.len())?;
    let (count, sum) = sum(reader.table()?)?;
    // As if there were none.
    hasher.write(&if count == 0 { flags & !HEADERS } else { flags }.to_be_bytes());
    hasher.write(before);
    if count > 0 {
        hasher.write_u64(sum);
    }
    hasher.write(reader.0);
    Some(())
}

/// How many fields count, and what they come to in whichever order.
fn sum(mut table: Table<'_>) -> Option<(usize, u64)> {
    let (mut count, mut sum) = (0, 0_u64);
    loop {
        let here = table.rest();
        let Some((name, _)) = table.next() else { return here.is_empty().then_some((count, sum)) };
        if name != DELIVERY_COUNT {
            let mut hasher = DefaultHasher::new();
            hasher.write(here.get(..here.len() - table.rest().len())?);
            (count, sum) = (count + 1, sum.wrapping_add(hasher.finish()));
        }
    }
}

/// Properties in the order of their bits, from the highest on.
fn read<'a>(reader: &mut Reader<'a>, properties: &mut Properties, context: &mut ContextFields<'a>) -> Option<()> {
    let flags = reader.u16()?;
    let mut more = flags;
    while more & 1 == 1 {
        more = reader.u16()?;
    }
    let has = |bit: u32| flags >> bit & 1 == 1;
    let text = |reader: &mut Reader<'a>, bit| -> Option<Option<Box<str>>> {
        if has(bit) {
            reader.short().map(|octets| std::str::from_utf8(octets).ok().map(Into::into))
        } else {
            Some(None)
        }
    };
    properties.content_type = text(reader, 15)?;
    let _encoding = text(reader, 14)?;
    if flags & HEADERS != 0 {
        for (name, value) in reader.table()? {
            if let (Ok(name), Some(value)) = (std::str::from_utf8(name), value) {
                context.add(name, value);
            }
        }
    }
    if has(12) {
        properties.persistent = Some(reader.u8()? == 2);
    }
    if has(11) {
        let _priority = reader.u8()?;
    }
    properties.correlation_id = text(reader, 10)?;
    properties.reply_to = text(reader, 9)?;
    let _expiration = text(reader, 8)?;
    properties.message_id = text(reader, 7)?;
    if has(6) {
        let _timestamp = reader.u64()?;
    }
    properties.message_type = text(reader, 5)?;
    let _user = text(reader, 4)?;
    properties.app_id = text(reader, 3)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use super::ContentHeader;

    fn header(properties: &[u8]) -> Vec<u8> {
        [&b"\0\x3c\0\0\0\0\0\0\0\0\0\x05"[..], properties].concat()
    }

    #[test]
    fn all_properties_are_passed_in_their_order() {
        let octets = [
            &b"\xff\xfc\x02ct\x02ce\0\0\0\x07\x01nI\0\0\0\x07"[..],
            b"\x02\x09\x02ci\x02rt\x021s\x02mi\0\0\0\0\0\0\0\x01\x02ty\x02us\x02ap\x02cl",
        ]
        .concat();
        let read = ContentHeader::read(&header(&octets)).unwrap();
        let texts = [
            &read.properties.content_type,
            &read.properties.correlation_id,
            &read.properties.reply_to,
            &read.properties.message_id,
            &read.properties.message_type,
            &read.properties.app_id,
        ];
        assert_eq!(texts.map(|text| text.as_deref().unwrap()), ["ct", "ci", "rt", "mi", "ty", "ap"]);
        assert_eq!((read.body_size, read.properties.persistent), (5, Some(true)));
    }

    /// What a quorum queue makes of a message's headers when it hands it out again names the same message.
    #[test]
    fn a_count_of_deliveries_is_no_part_of_a_message() {
        let hash = |properties: &[u8]| ContentHeader::read(&header(properties)).unwrap().hasher.finish();
        let with = |fields: &[&[u8]]| {
            let fields = fields.concat();
            hash(&[b"\xb0\0\x02ct", &(fields.len() as u32).to_be_bytes()[..], &fields, b"\x02"].concat())
        };
        let (a, b, count) =
            (&b"\x01aI\0\0\0\x01"[..], &b"\x01bS\0\0\0\x01x"[..], &b"\x10x-delivery-countl\0\0\0\0\0\0\0\x01"[..]);
        assert_eq!(with(&[b, a]), with(&[a, b, count]));
        assert_eq!(with(&[count]), hash(b"\x90\0\x02ct\x02"));
        for other in [with(&[a]), with(&[b]), with(&[a, a]), with(&[a, b, b]), with(&[a, &b"\x01bS\0\0\0\x01y"[..]])] {
            assert_ne!(other, with(&[a, b]));
        }
        // What breaks the grammar counts as it is.
        assert_ne!(with(&[a, b"\x01b?"]), with(&[a, b"\x01b!"]));
        assert_ne!(with(&[count, b"\x01b?"]), with(&[b"\x01b?"]));
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        // None at all, and with a second word of flags.
        for none in [&b"\0\0"[..], b"\0\x01\0\0"] {
            let read = ContentHeader::read(&header(none)).unwrap();
            assert_eq!((read.properties.persistent, read.properties.message_id), (Some(false), None));
        }
        // Headers longer than what was kept: nothing behind them is known, nor what they say.
        let cut = b"\xb0\x80\x02ct\0\0\x40\0\x0btraceparentS\0\0\0\x3700-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
        let read = ContentHeader::read(&header(cut)).unwrap();
        assert_eq!(read.properties.content_type.as_deref(), Some("ct"));
        assert!(read.context.is_none() && read.properties.persistent.is_none());
        assert!(ContentHeader::read(&header(b"")[..11]).is_none());
        // Of another class.
        assert!(ContentHeader::read(b"\0\x3d\0\0\0\0\0\0\0\0\0\x05\0\0").is_none());
    }
}
