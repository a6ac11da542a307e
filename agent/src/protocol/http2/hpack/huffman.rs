//! The code for strings (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: codes of one length are consecutive, in the order of their octets, and those of the next length
//! go on from there. So the octets in the order of their codes, and how many codes each length has, are the whole table.

/// How many codes have each length, in bits from 0 to 30, without that of the end of the string (30 bits, all ones).
const COUNTS: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 3];

/// The octets in the order of their codes.
const OCTETS: &[u8; 256] = b"012aceiost %-./3456789=A_bdfghlmnpru:BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz&*,;XZ!\"()?'+|#>\
\x00$@[]~^}<`{\\\xc3\xd0\x80\x82\x83\xa2\xb8\xc2\xe0\xe2\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6\x81\x84\
\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9\x01\x87\x89\x8a\x8b\
\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef\t\x8e\x90\x91\x94\
\x9f\xab\xce\xd7\xe1\xec\xed\xc7\xcf\xea\xeb\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff\xcb\xcc\xd3\
\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\
\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9\n\r\x16";

/// The codes of one length.
#[derive(Clone, Copy)]
struct Level {
    bits: u32,
    /// The first code, and the one after the last, as the highest bits of 32.
    first: u64,
    limit: u64,
    /// Where the octet of the first code stands in [`OCTETS`].
    offset: u32,
}

const LEVELS: [Level; COUNTS.len()] = levels();

const fn levels() -> [Level; COUNTS.len()] {
    let mut levels = [Level { bits: 0, first: 0, limit: 0, offset: 0 }; COUNTS.len()];
    let (mut bits, mut code, mut offset) = (0, 0, 0);
    while bits < COUNTS.len() {
        code <<= 1;
        let count = COUNTS[bits];
        let shift = 32 - bits;
        levels[bits] = Level { bits: bits as u32, first: code << shift, limit: (code + count as u64) << shift, offset };
        code += count as u64;
        offset += count;
        bits += 1;
    }
    levels
}

/// The shortest code.
const SHORTEST: usize = 5;

/// Decodes `text` to the end of `out`. `None` when it is no such code, or not padded as it must be: by less than an octet
/// of the end's code, which is all ones.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // The lowest `held` bits wait to be decoded.
    let (mut bits, mut held) = (0_u64, 0_u32);
    let mut rest = text.iter();
    loop {
        while held <= 32
            && let Some(&octet) = rest.next()
        {
            bits = bits << 8 | u64::from(octet);
            held += 8;
        }
        // The next 32 bits, ones behind the last.
        let window = if held >= 32 { bits >> (held - 32) } else { ((bits + 1) << (32 - held)) - 1 } & 0xffff_ffff;
        if held < 8 && window == 0xffff_ffff {
            return Some(());
        }
        let level = LEVELS.get(SHORTEST..)?.iter().find(|level| window < level.limit)?;
        if level.bits > held {
            return None;
        }
        let place = u64::from(level.offset) + ((window - level.first) >> (32 - level.bits));
        out.push(*OCTETS.get(usize::try_from(place).ok()?)?);
        held -= level.bits;
        bits &= (1 << held) - 1;
    }
}
