//! The head of a method's frame of AMQP 0-9-1 (specification, sections 2.3.5 and 4.2), by which both sides find out in the middle of a
//! connection that it may speak that. User space has the last word.

/// Octets up to the method's arguments: type, channel, size, class, method.
pub const HEAD: usize = 11;
/// The type of a method's frame.
pub const METHOD: u8 = 1;
/// The longest payload believed of a method's or content header's frame. Brokers take frames of 128 KiB by default.
pub const LONGEST: u32 = 128 << 10;
/// RabbitMQ and its clients take no more channels by default.
pub const CHANNELS: u16 = 2047;

/// The class of the connection itself, the only one on channel 0.
const CONNECTION: u16 = 10;

/// Whether the frame of a known method may begin so.
#[must_use]
#[inline(always)]
pub const fn begins_method(octets: [u8; HEAD]) -> bool {
    let [kind, a, b, c, d, e, f, k, l, m, n] = octets;
    let (channel, size) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
    let (class, method) = (u16::from_be_bytes([k, l]), u16::from_be_bytes([m, n]));
    kind == METHOD
        && channel <= CHANNELS
        && size >= 4
        && size <= LONGEST
        && (class == CONNECTION) == (channel == 0)
        && is_method(class, method)
}

/// Whether there is such a method, in the specification or of RabbitMQ.
#[must_use]
#[inline(always)]
pub const fn is_method(class: u16, method: u16) -> bool {
    if method > 120 {
        return false;
    }
    let (tens, one) = (method / 10, method % 10);
    // By tens, in which of them there is a method, and in which an answer.
    let (methods, answers): (u32, u32) = match class {
        10 => (0b1111_1110, 0b1111_1110),
        20 => (0b1_0110, 0b1_0110),
        30 => (0b10, 0b10),
        40 => (0b1_1110, 0b10_1110),
        50 => (0b11_1110, 0b11_1110),
        60 => (0b1_1111_1111_1110, 0b1000_1000_1110),
        85 => (0b10, 0b10),
        90 => (0b1110, 0b1110),
        _ => return false,
    };
    match one {
        0 => methods >> tens & 1 == 1,
        1 => answers >> tens & 1 == 1,
        // `basic.get-empty`.
        2 => class == 60 && tens == 7,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_told_from_other_protocols() {
        let begins = |octets: &[u8]| begins_method(*octets.first_chunk().unwrap());
        assert!(begins(b"\x01\0\x01\0\0\0\x10\0\x3c\0\x28\0\0"), "basic.publish");
        assert!(begins(b"\x01\0\0\0\0\0\x0c\0\x0a\0\x1f\x07\xff"), "connection.tune-ok");
        assert!(!begins(b"\x01\0\0\0\0\0\x10\0\x3c\0\x28\0\0"), "a message on channel 0");
        assert!(!begins(b"\x01\0\x01\0\0\0\x10\0\x3c\0\x29\0\0"), "an unknown method");
        assert!(!begins(b"\x02\0\x01\0\0\0\x10\0\x3c\0\x28\0\0"), "a content header");
        assert!(!begins(b"\x01\0\x01\x10\0\0\x10\0\x3c\0\x28\0\0"), "a frame of 256 MiB");
        assert!(!begins(b"\0\0\0\x16\0\x0c\0\0\0\0\0"), "Kafka");
        assert!(!begins(b"GET / HTTP/1.1"), "HTTP/1");
    }
}
