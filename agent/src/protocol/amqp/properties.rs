//! Content headers: how long a message's body is, and its properties (specification, section 4.2.6.1).

use std::hash::{DefaultHasher, Hasher as _};

use super::message::Properties;
use super::wire::Reader;
use crate::protocol::context::{ContextFields, TraceContext};

/// The class of messages.
pub(super) const BASIC: u16 = 60;

/// What a content header tells.
#[derive(Debug)]
pub(super) struct ContentHeader {
    pub(super) body_size: u64,
    pub(super) properties: Properties,
    pub(super) context: Option<TraceContext>,
    /// Begun with the properties as sent, and the body's size.
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
        hasher.write(reader.0);
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
    if has(13) {
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
