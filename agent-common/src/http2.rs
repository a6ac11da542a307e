//! The head of an HTTP/2 frame (RFC 9113, section 4.1), by which both sides find out that a connection speaks HTTP/2.

/// What a client sends first (section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Octets of a frame's head.
pub const HEAD: usize = 9;
/// The longest payload of a frame that nobody has asked for more of (section 4.2).
pub const PAYLOAD: u32 = 1 << 14;

/// Frame types (section 6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags (section 6); what each means depends on the type.
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Octets of payload that follow.
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    /// The bit before the stream's number, which means nothing and is not set.
    pub reserved: bool,
}

impl FrameHead {
    #[must_use]
    #[inline(always)]
    pub const fn parse(octets: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, s, t, u, v] = octets;
        let stream = u32::from_be_bytes([s, t, u, v]);
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: stream & 0x7fff_ffff,
            reserved: stream >> 31 != 0,
        }
    }

    /// Whether a frame of this type may have this length and be about this stream (section 6).
    #[must_use]
    #[inline(always)]
    pub const fn is_regular(&self) -> bool {
        let Self { length, stream, .. } = *self;
        match self.kind {
            kind::DATA | kind::CONTINUATION => stream != 0,
            kind::HEADERS => stream != 0 && length > 0,
            kind::PRIORITY => stream != 0 && length == 5,
            kind::RST_STREAM => stream != 0 && length == 4,
            kind::SETTINGS if self.flags & flag::ACK != 0 => stream == 0 && length == 0,
            // No known setting has a number of more than one octet, so there are never hundreds of them.
            kind::SETTINGS => stream == 0 && length % 6 == 0 && length <= 6 * 256,
            kind::PUSH_PROMISE => stream != 0 && length > 4,
            kind::PING => stream == 0 && length == 8,
            kind::GOAWAY => stream == 0 && length >= 8,
            kind::WINDOW_UPDATE => length == 4,
            _ => true,
        }
    }

    /// Whether these octets, of which nothing is known, are a frame's head: everything is as senders in use write it.
    #[must_use]
    #[inline(always)]
    pub const fn is_likely(&self) -> bool {
        let flags = match self.kind {
            kind::DATA => flag::END_STREAM | flag::PADDED,
            kind::HEADERS => flag::END_STREAM | flag::END_HEADERS | flag::PADDED | flag::PRIORITY,
            kind::PUSH_PROMISE => flag::END_HEADERS | flag::PADDED,
            kind::SETTINGS | kind::PING => flag::ACK,
            kind::CONTINUATION => flag::END_HEADERS,
            kind::PRIORITY | kind::RST_STREAM | kind::GOAWAY | kind::WINDOW_UPDATE => 0,
            _ => return false,
        };
        // Streams that clients open have odd numbers, and others are hardly in use.
        self.flags & !flags == 0
            && !self.reserved
            && self.length <= PAYLOAD
            && (self.stream == 0 || self.stream & 1 == 1)
            && self.is_regular()
    }

    /// The same for the first octets that a server writes on a connection: its settings, perhaps none (section 3.4).
    #[must_use]
    #[inline(always)]
    pub const fn begins_connection(&self) -> bool {
        self.kind == kind::SETTINGS && self.flags & flag::ACK == 0 && self.is_likely()
    }

    /// The same for the first octets of a call in the middle of a connection: a frame that says something by its head
    /// alone. Content may begin with anything, and a short block of header fields is in one frame.
    #[must_use]
    #[inline(always)]
    pub const fn begins_call(&self) -> bool {
        let telling = match self.kind {
            kind::HEADERS => self.flags & flag::END_HEADERS != 0,
            kind::SETTINGS => self.length > 0 || self.flags & flag::ACK != 0,
            kind::RST_STREAM | kind::PING | kind::GOAWAY | kind::WINDOW_UPDATE => true,
            _ => false,
        };
        telling && self.is_likely()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_from_other_protocols() {
        let begins = |octets: &[u8; HEAD]| FrameHead::parse(*octets).begins_call();
        assert!(begins(b"\x00\x00\x10\x01\x25\x00\x00\x00\x0d"), "HEADERS");
        assert!(begins(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"), "SETTINGS");
        assert!(begins(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00"), "WINDOW_UPDATE");
        assert!(!begins(b"\x00\x00\x10\x01\x04\x00\x00\x00\x02"), "a stream of a server");
        assert!(!begins(b"\x00\x00\x10\x00\x00\x00\x00\x00\x01"), "DATA says little");
        assert!(!begins(b"*1\r\n$4\r\nP"), "Redis");
        assert!(!begins(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), "TLS");
        assert!(!begins(b"\x17\x03\x03\x00\x45\x00\x00\x00\x01"), "TLS");
        assert!(!begins(b"\x00\x00\x00\x54\x00\x03\x00\x00u"), "PostgreSQL");
        assert!(!begins(b"\x00\x00\x00\x08\x04\xd2\x16\x2f\x00"), "PostgreSQL");
        assert!(!begins(b"\x00\x00\x00\x2b\x00\x12\x00\x03\x00"), "Kafka");
        assert!(!begins(b"\x00\x00\x00\x00\x00\x00\x00\x00\x00"), "zeros");
        assert!(!begins(b"GET / HTT"), "HTTP/1");
        let settings = FrameHead::parse(*b"\x00\x00\x00\x04\x00\x00\x00\x00\x00");
        assert!(settings.begins_connection() && !settings.begins_call());
    }
}
