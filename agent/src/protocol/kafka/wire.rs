//! Numbers in octets that are all there.

pub(super) use crate::protocol::reader::Reader;

impl<'a> Reader<'a> {
    pub(super) fn i8(&mut self) -> Option<i8> {
        self.fixed().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Option<i16> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// A `VARINT`: zigzag, seven bits an octet, the lowest first, five octets at most.
    pub(super) fn varint(&mut self) -> Option<i32> {
        let value = u32::try_from(self.unsigned(5)?).ok()?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// A `VARLONG`: the same, with ten octets at most.
    pub(super) fn varlong(&mut self) -> Option<i64> {
        let value = self.unsigned(10)?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    fn unsigned(&mut self, most: u32) -> Option<u64> {
        let mut value = 0;
        for place in 0..most {
            let [octet] = self.fixed()?;
            let bits = u64::from(octet & 0x7f);
            // Of the tenth octet only one bit has room.
            if place == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * place);
            if octet & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Octets behind their length as a `VARINT`; `Some(None)` is null.
    pub(super) fn sized(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Some(None),
            length => Some(Some(self.octets(usize::try_from(length).ok()?)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;

    #[test]
    fn varints_are_zigzag() {
        for (octets, value) in [
            (&[0][..], 0),
            (&[1], -1),
            (&[2], 1),
            (&[0x80, 1], 64),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], i32::MIN),
            (&[0xfe, 0xff, 0xff, 0xff, 0x0f], i32::MAX),
        ] {
            assert_eq!(Reader(octets).varint(), Some(value), "{octets:?}");
            assert_eq!(Reader(octets).varlong(), Some(value.into()), "{octets:?}");
        }
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Reader(&most).varlong(), Some(i64::MIN));
        for octets in [&[][..], &[0x80], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0x80, 0x80, 0x80, 0x80, 0x80, 0]] {
            assert_eq!(Reader(octets).varint(), None, "{octets:?}");
        }
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varlong(), None);
    }
}
