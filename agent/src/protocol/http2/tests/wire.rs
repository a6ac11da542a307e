//! What a client and a server write.

use agent_common::http2::{flag, kind};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(super) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

pub(super) fn data(stream: u32, octets: &[u8], end: bool) -> Vec<u8> {
    frame(kind::DATA, if end { flag::END_STREAM } else { 0 }, stream, octets)
}

pub(super) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(super) fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes(), *b"why?"].concat())
}

pub(super) fn window_update(stream: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &[0, 0, 1, 0])
}

/// One side's encoder: it adds all fields to its table, and refers to those that are there.
#[derive(Default)]
pub(super) struct Peer {
    table: Vec<(String, String)>,
    evicted: u64,
}

impl Peer {
    /// A block of header fields.
    pub(super) fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for &(name, value) in fields {
            match self.table.iter().rev().position(|(n, v)| n == name && v == value) {
                Some(at) => number(&mut block, 0x80, 7, 62 + at as u32),
                None if (name, value) == (":status", "200") => block.push(0x88),
                None if (name, value) == (":method", "GET") => block.push(0x82),
                None if (name, value) == (":method", "POST") => block.push(0x83),
                None if (name, value) == (":scheme", "http") => block.push(0x86),
                None => {
                    // Encoders in use take the static table first.
                    let named = [":authority", ":method", "", ":path", "", ":scheme", "", ":status"];
                    let fixed = named.iter().position(|known| *known == name).map(|at| 1 + at);
                    let added = self.table.iter().rev().position(|(n, _)| n == name).map(|at| 62 + at);
                    match fixed.or(added) {
                        Some(index) => number(&mut block, 0x40, 6, index as u32),
                        None => {
                            block.push(0x40);
                            string(&mut block, name);
                        }
                    }
                    string(&mut block, value);
                    self.table.push((name.to_owned(), value.to_owned()));
                    while self.table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > 4096 {
                        self.table.remove(0);
                        self.evicted += 1;
                    }
                }
            }
        }
        block
    }

    /// What it has in its table, the oldest first.
    pub(super) fn entries(&self) -> &[(String, String)] {
        &self.table
    }

    /// How many it has ever added to it.
    pub(super) fn added(&self) -> u64 {
        self.evicted + self.table.len() as u64
    }

    pub(super) fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
        let end = if end { flag::END_STREAM } else { 0 };
        frame(kind::HEADERS, flag::END_HEADERS | end, stream, &self.block(fields))
    }

    pub(super) fn get(&mut self, stream: u32, path: &str) -> Vec<u8> {
        self.headers(stream, &[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "h")], true)
    }

    pub(super) fn post(&mut self, stream: u32, path: &str) -> Vec<u8> {
        self.headers(stream, &[(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "h")], false)
    }

    pub(super) fn status(&mut self, stream: u32, status: &str, end: bool) -> Vec<u8> {
        self.headers(stream, &[(":status", status), ("server", "s")], end)
    }
}

fn string(block: &mut Vec<u8>, text: &str) {
    number(block, 0, 7, text.len() as u32);
    block.extend(text.bytes());
}

/// Writes an integer (RFC 7541, section 5.1).
pub(in crate::protocol::http2) fn number(block: &mut Vec<u8>, pattern: u8, prefix: u32, value: u32) {
    let most = (1 << prefix) - 1;
    if value < most {
        return block.push(pattern | value as u8);
    }
    block.push(pattern | most as u8);
    let mut value = value - most;
    while value >= 0x80 {
        block.push(value as u8 | 0x80);
        value >>= 7;
    }
    block.push(value as u8);
}
