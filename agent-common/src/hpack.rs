//! Blocks of header fields of HTTP/2 (RFC 7541) as far as the kernel side reads them: where each field ends, and whether
//! the name of one is that of a trace context.

/// How a field is represented, by its first octet (section 6): the bits that say so, and those of the integer.
mod first {
    pub const INDEXED: u8 = 0x80;
    pub const INCREMENTAL: u8 = 0x40;
    pub const SIZE_UPDATE: u8 = 0x20;
}

/// The bit of a string's first octet that says that it is Huffman-coded (section 5.2).
const HUFFMAN: u8 = 0x80;

/// A field's representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where the next one begins.
    pub next: u32,
    /// Not 0: where its name begins, when that is a literal; before it comes its length, so that it is never 0.
    pub name: u32,
    /// Octets of that name.
    pub name_len: u32,
    /// Not 0: the name is Huffman-coded.
    pub huffman: u8,
}

/// Reads the field at `at` of the octets that `octet` gives; `None` when a number has more octets than any in use.
#[must_use]
#[inline(always)]
pub fn field(octet: impl Fn(u32) -> u8, at: u32) -> Option<Field> {
    let first = octet(at);
    let prefix = match first {
        _ if first & first::INDEXED != 0 => 7,
        _ if first & first::INCREMENTAL != 0 => 6,
        _ if first & first::SIZE_UPDATE != 0 => 5,
        _ => 4,
    };
    let (index, mut next) = integer(&octet, at, prefix)?;
    let mut field = Field { next, name: 0, name_len: 0, huffman: 0 };
    if prefix == 7 || prefix == 5 {
        return Some(field);
    }
    if index == 0 {
        field.huffman = octet(next) & HUFFMAN;
        (field.name_len, field.name) = integer(&octet, next, 7)?;
        next = field.name + field.name_len;
    }
    let (len, value) = integer(&octet, next, 7)?;
    field.next = value + len;
    Some(field)
}

/// Reads the integer whose first `bits` are the low ones of the octet at `at` (section 5.1), and where it ends.
#[inline(always)]
fn integer(octet: &impl Fn(u32) -> u8, at: u32, bits: u32) -> Option<(u32, u32)> {
    let most = (1 << bits) - 1;
    let first = u32::from(octet(at)) & most;
    if first < most {
        return Some((first, at + 1));
    }
    let (low, high) = (u32::from(octet(at + 1)), u32::from(octet(at + 2)));
    if low < 128 {
        return Some((most + low, at + 2));
    }
    (high < 128).then_some((most + (low & 127) + (high << 7), at + 3))
}

/// The first eight octets of names that trace contexts have, or of what such names begin with: the value, and the bits of it
/// that count. First as they are, then Huffman-coded.
type Beginning = (u64, u64);
const BEGINNINGS: [(Beginning, Beginning); 7] = [
    both(b"tracepar"),
    both(b"tracesta"),
    both(b"x-b3-"),
    both(b"uber-tra"),
    both(b"x-datado"),
    both(b"x-amzn-t"),
    both(b"grpc-tra"),
];
/// The whole name.
const B3: (Beginning, Beginning) = both(b"b3");

/// Whether a name of `len` octets is one of a trace context, by its first eight octets, the first in the highest bits.
#[must_use]
#[inline(always)]
pub fn is_context(huffman: bool, len: u32, name: u64) -> bool {
    let begins = |(plain, coded): (Beginning, Beginning)| {
        let (value, mask) = if huffman { coded } else { plain };
        name & mask == value
    };
    let [a, b, c, d, e, f, g] = BEGINNINGS;
    begins(a) || begins(b) || begins(c) || begins(d) || begins(e) || begins(f) || begins(g) || (len == 2 && begins(B3))
}

const fn both(name: &[u8]) -> (Beginning, Beginning) {
    (plain(name), coded(name))
}

const fn plain(name: &[u8]) -> Beginning {
    let (mut value, mut bits, mut i) = (0, 0, 0);
    while i < name.len() {
        value = value << 8 | name[i] as u64;
        bits += 8;
        i += 1;
    }
    aligned(value, bits)
}

const fn coded(name: &[u8]) -> Beginning {
    let (mut value, mut bits, mut i) = (0, 0, 0);
    while i < name.len() {
        let (code, length) = code(name[i]);
        value = value << length | code;
        bits += length;
        i += 1;
    }
    aligned(value, bits)
}

const fn aligned(value: u64, bits: u32) -> Beginning {
    let shift = u64::BITS - bits;
    (value << shift, u64::MAX << shift)
}

/// Codes of the letters of those names, and how many bits they have (appendix B).
const fn code(letter: u8) -> (u64, u32) {
    match letter {
        b'a' => (0x3, 5),
        b'c' => (0x4, 5),
        b'e' => (0x5, 5),
        b's' => (0x8, 5),
        b't' => (0x9, 5),
        b'o' => (0x7, 5),
        b'-' => (0x16, 6),
        b'3' => (0x19, 6),
        b'b' => (0x23, 6),
        b'd' => (0x24, 6),
        b'g' => (0x26, 6),
        b'm' => (0x29, 6),
        b'n' => (0x2a, 6),
        b'p' => (0x2b, 6),
        b'r' => (0x2c, 6),
        b'u' => (0x2d, 6),
        b'x' => (0x79, 7),
        b'z' => (0x7b, 7),
        _ => panic!("no such letter is in use"),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// The fields of a block, each with its name when that is a literal; `None` when the block has no end where it should.
    fn fields(block: &[u8]) -> Option<Vec<(u32, Option<bool>)>> {
        let octet = |at: u32| block.get(at as usize).copied().unwrap_or(0);
        let (mut at, mut found) = (0, Vec::new());
        while (at as usize) < block.len() {
            let field = field(octet, at)?;
            let name = (0..8).fold(0, |name, i| name << 8 | u64::from(octet(field.name + i)));
            let literal = (field.name != 0).then(|| is_context(field.huffman != 0, field.name_len, name));
            found.push((field.next, literal));
            at = field.next;
        }
        (at as usize == block.len()).then_some(found)
    }

    #[test]
    fn fields_are_told_from_one_another() {
        // RFC 7541, appendix C.2.1 to C.2.4, and C.4.1.
        assert_eq!(fields(b"\x40\x0acustom-key\x0dcustom-header"), Some([(26, Some(false))].to_vec()));
        assert_eq!(fields(b"\x04\x0c/sample/path"), Some([(14, None)].to_vec()));
        assert_eq!(fields(b"\x10\x08password\x06secret\x82"), Some([(17, Some(false)), (18, None)].to_vec()));
        let c41 = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(fields(c41), Some([(1, None), (2, None), (3, None), (17, None)].to_vec()));
        // A table of another size, and an index of three octets.
        assert_eq!(fields(b"\x3f\xe1\x1f\xff\x80\x01"), Some([(3, None), (6, None)].to_vec()));
        assert_eq!(fields(b"\x04\x0c/sample/pat"), None, "cut");
        assert_eq!(fields(b"\xff\x80\x80\x01"), None, "a number of four octets");
    }

    #[test]
    fn names_of_trace_contexts_are_found() {
        let is = |name: &[u8], huffman: u8| {
            let len = u8::try_from(name.len()).unwrap();
            let block = [&[0x40, len | huffman][..], name, b"\x01x"].concat();
            fields(&block).unwrap()[0].1.unwrap()
        };
        for name in [&b"traceparent"[..], b"tracestate", b"b3", b"x-b3-traceid", b"uber-trace-id", b"x-amzn-trace-id"] {
            assert!(is(name, 0), "{name:?}");
        }
        for name in [&b"trace"[..], b"b4", b"b3x", b"x-b2-traceid", b"te", b"grpc-timeout", b"user-agent"] {
            assert!(!is(name, 0), "{name:?}");
        }
        // As nghttp2 writes them.
        assert!(is(b"\x4d\x83\x21\x6b\x1d\x85\xa9\x3f", HUFFMAN), "traceparent");
        assert!(!is(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", HUFFMAN), "www.example.com");
    }
}
