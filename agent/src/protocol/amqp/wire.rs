//! Numbers, strings and tables in octets that are all there (specification, section 4.2).

pub(super) use crate::protocol::reader::Reader;

impl<'a> Reader<'a> {
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.fixed().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.fixed().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.fixed().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// A `shortstr`: 255 octets at most.
    pub(super) fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.octets(length.into())
    }

    /// A `longstr`.
    pub(super) fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.octets(usize::try_from(length).ok()?)
    }

    /// A `table`, whose fields come as it is iterated; one that breaks the grammar ends there.
    pub(super) fn table(&mut self) -> Option<Table<'a>> {
        self.long().map(|octets| Table(Reader(octets)))
    }
}

/// The fields of a table: names, and those values that are octets (`S`, `x`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a>(Reader<'a>);

impl<'a> Table<'a> {
    /// The octets of the fields that are still to come, or of what breaks the grammar.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0.0
    }
}

impl<'a> Iterator for Table<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.0.short()?;
        // The types that RabbitMQ and its clients send; its errata say how they differ from the specification's.
        let length = match self.0.u8()? {
            b'S' | b'x' => return Some((name, Some(self.0.long()?))),
            b'A' | b'F' => return self.0.long().map(|_| (name, None)),
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            _ => return None,
        };
        self.0.octets(length).map(|_| (name, None))
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;

    #[test]
    fn tables_are_read_over_values_of_all_types() {
        let mut fields = Vec::new();
        for (kind, length) in [
            (b't', 1),
            (b'b', 1),
            (b'B', 1),
            (b's', 2),
            (b'u', 2),
            (b'I', 4),
            (b'i', 4),
            (b'f', 4),
            (b'D', 5),
            (b'l', 8),
        ] {
            fields.extend([1, kind, kind]);
            fields.extend(vec![0xff; length]);
        }
        for kind in [b'L', b'd', b'T'] {
            fields.extend([1, kind, kind, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        fields.extend(b"\x01vV\x01AA\0\0\0\x02t\x01\x01FF\0\0\0\x05\x01nS\0\0\x01xx\0\0\0\x01b\x01SS\0\0\0\x02ab");
        let whole = [&(fields.len() as u32).to_be_bytes()[..], &fields, b"rest"].concat();
        let mut reader = Reader(&whole);
        let table: Vec<_> = reader.table().unwrap().collect();
        assert_eq!(reader.0, b"rest");
        assert_eq!(table.len(), 18);
        assert_eq!(table[16..], [(&b"x"[..], Some(&b"b"[..])), (b"S", Some(b"ab"))]);
        for length in 0..whole.len() - 4 {
            assert!(Reader(&whole[..length]).table().is_none());
        }
    }

    #[test]
    fn a_table_ends_where_it_breaks_the_grammar() {
        for octets in
            [&b"\0\0\0\x05\x01aS\0\0"[..], b"\0\0\0\x03\x01a?", b"\0\0\0\x02\x05a", b"\0\0\0\x07\x01aS\xff\xff\xff\xff"]
        {
            assert_eq!(Reader(octets).table().unwrap().count(), 0, "{octets:?}");
        }
    }
}
