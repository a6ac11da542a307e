//! The head of a request of Apache Kafka (protocol guide, "Protocol Request Headers"), by which the kernel side finds out that a connection may
//! speak Kafka. User space has the last word.

/// Octets of a request up to its client id: size, key, version, correlation id, length of the client id.
pub const HEAD: usize = 14;
/// Those of its size.
pub const SIZE: usize = 4;

/// The newest kind of call that is known, and more than any version of one.
const KEYS: u16 = 92;
const VERSIONS: u16 = 20;
/// The longest client id believed.
const CLIENT_ID: u16 = 255;
/// Octets that the size counts before the client id.
const BEFORE: u32 = (HEAD - SIZE) as u32;

/// Whether a request of less than 16 MiB may begin so.
#[must_use]
#[inline(always)]
pub const fn begins_request(octets: [u8; HEAD]) -> bool {
    let [a, b, c, d, k, l, v, w, _, _, _, _, m, n] = octets;
    let size = u32::from_be_bytes([a, b, c, d]);
    let client_id = u16::from_be_bytes([m, n]);
    // Without a client id its length is -1.
    let named = if client_id == u16::MAX { 0 } else { client_id };
    a == 0
        && size >= BEFORE + named as u32
        && u16::from_be_bytes([k, l]) <= KEYS
        && u16::from_be_bytes([v, w]) <= VERSIONS
        && named <= CLIENT_ID
}

/// Whether a call that moved these four octets alone may have moved a request's size: brokers read that first, and some
/// clients keep it in a buffer of its own.
#[must_use]
#[inline(always)]
pub const fn is_size(octets: [u8; SIZE]) -> bool {
    octets[0] == 0 && u32::from_be_bytes(octets) >= BEFORE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_other_protocols() {
        let begins = |octets: &[u8]| begins_request(*octets.first_chunk().unwrap());
        assert!(begins(b"\0\0\0\x16\0\x0c\0\0\0\0\0\0\0\x02me"), "Heartbeat");
        assert!(begins(b"\0\x01\0\0\0\0\0\x0d\0\0\0\x07\xff\xff"), "Produce without a client id");
        assert!(!begins(b"\0\0\0\x16\0\x5d\0\0\0\0\0\0\0\x02"), "an unknown call");
        assert!(!begins(b"\0\0\0\x16\0\x0c\0\0\0\0\0\0\0\xff"), "a client id that is longer than the request");
        assert!(!begins(b"\0\0\0\x54\0\x03\0\0user\0p"), "PostgreSQL");
        assert!(!begins(b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\0\0\0"), "PostgreSQL");
        assert!(!begins(b"GET / HTTP/1.1"), "HTTP/1");
        assert!(!begins(b"*1\r\n$4\r\nPING\r\n"), "Redis");
        assert!(!begins(b"\0\0\x10\x01\x25\0\0\0\x0d\x82\x86\x84\x41\x8a"), "HTTP/2's HEADERS");
        assert!(is_size(*b"\0\0\0\x1f") && !is_size(*b"\0\0\0\x08") && !is_size(*b"GET "));
    }
}
