//! Integers and strings (RFC 7541, section 5).

use super::huffman;

/// Integers above this are refused: nothing in a header block is that large.
const LARGEST: u32 = 1 << 24;

/// Reads an integer whose first octet has `prefix` bits of it (section 5.1); gives what follows it.
pub(super) fn integer(octets: &[u8], prefix: u32) -> Option<(u32, &[u8])> {
    let (&first, mut rest) = octets.split_first()?;
    let most = (1 << prefix) - 1;
    let mut value = u32::from(first) & most;
    if value < most {
        return Some((value, rest));
    }
    // Four octets of seven bits are more than the largest takes; a fifth could only be a zero written long.
    for shift in [0, 7, 14, 21] {
        let (&octet, after) = rest.split_first()?;
        rest = after;
        value += u32::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return (value <= LARGEST).then_some((value, rest));
        }
    }
    None
}

/// Reads a string (section 5.2), into `decoded` when it is coded; gives what follows it.
pub(super) fn string<'a: 's, 's>(octets: &'a [u8], decoded: &'s mut Vec<u8>) -> Option<(&'s [u8], &'a [u8])> {
    let coded = octets.first()? & 0x80 != 0;
    let (length, rest) = integer(octets, 7)?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    if !coded {
        return Some((text, rest));
    }
    decoded.clear();
    huffman::decode(text, decoded)?;
    Some((decoded, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, appendix C.1.
    #[test]
    fn integers() {
        assert_eq!(integer(&[0b1110_1010], 5), Some((10, &[][..])));
        assert_eq!(integer(&[0b0001_1111, 0b1001_1010, 0b0000_1010, 7], 5), Some((1337, &[7][..])));
        assert_eq!(integer(&[42], 8), Some((42, &[][..])));
        assert_eq!(integer(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], 7), None, "too large");
        assert_eq!(integer(&[0x7f, 0x80], 7), None, "cut short");
    }

    #[test]
    fn strings_are_coded_in_one_way_only() {
        let decode = |octets: &[u8]| {
            let mut space = Vec::new();
            string(octets, &mut space).map(|(text, _)| String::from_utf8_lossy(text).into_owned())
        };
        // RFC 7541, appendix C.4.1.
        let coded = [0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&coded).as_deref(), Some("www.example.com"));
        assert_eq!(decode(&[0x81, 0x07]).as_deref(), Some("0"));
        assert_eq!(decode(&[0x81, 0x06]), None, "padded by something else than ones");
        assert_eq!(decode(&[0x82, 0x07, 0xff]), None, "padded by an octet");
        assert_eq!(decode(&[0x84, 0xff, 0xff, 0xff, 0xff]), None, "the end in a string");
        assert_eq!(decode(&[0x80]).as_deref(), Some(""));
        assert_eq!(decode(&[0x03, b'a']), None, "cut short");
    }
}
