//! The protocol's primitive types, taken off what is there of a message (Kafka protocol guide, "Protocol Primitive Types").
//!
//! The outer `None` is what cannot be, the inner one that more octets are needed.

use super::{Kind, Walk};

impl Walk {
    /// How many octets, or elements, follow: `Some(None)` for null.
    pub(super) fn length(&mut self, kind: Kind, octets: &mut &[u8]) -> Option<Option<Option<u64>>> {
        if self.flexible {
            return Some(self.varint(octets)?.map(|length| length.checked_sub(1).map(u64::from)));
        }
        let width = if kind == Kind::Text { Kind::Int16 } else { Kind::Int32 };
        match self.number(width, octets)? {
            Some(-1) => Some(Some(None)),
            Some(length) => Some(Some(Some(u64::try_from(length).ok()?))),
            None => Some(None),
        }
    }

    pub(super) fn number(&mut self, kind: Kind, octets: &mut &[u8]) -> Option<Option<i64>> {
        Some(match kind {
            Kind::Bool | Kind::Int8 => self.fixed(octets)?.map(|octets| i8::from_be_bytes(octets).into()),
            Kind::Int16 => self.fixed(octets)?.map(|octets| i16::from_be_bytes(octets).into()),
            Kind::Int32 => self.fixed(octets)?.map(|octets| i32::from_be_bytes(octets).into()),
            _ => self.fixed(octets)?.map(i64::from_be_bytes),
        })
    }

    /// An `UNSIGNED_VARINT`: seven bits an octet, the lowest first, five octets at most.
    pub(super) fn varint(&mut self, octets: &mut &[u8]) -> Option<Option<u32>> {
        loop {
            let Some(&last) = self.take(octets, 1)?.first() else { return Some(None) };
            self.partial.push(last);
            if last & 0x80 == 0 {
                break;
            }
            if self.partial.len() == 5 {
                return None;
            }
        }
        let value = self.partial.iter().rev().fold(0, |value, octet| value << 7 | u64::from(octet & 0x7f));
        self.partial.clear();
        u32::try_from(value).ok().map(Some)
    }

    pub(super) fn fixed<const N: usize>(&mut self, octets: &mut &[u8]) -> Option<Option<[u8; N]>> {
        if self.partial.is_empty() && self.left < N as u64 {
            return None;
        }
        let missing = N.checked_sub(self.partial.len())?;
        let taken = self.take(octets, missing as u64)?;
        self.partial.extend_from_slice(taken);
        let whole = self.partial.first_chunk().copied();
        if whole.is_some() {
            self.partial.clear();
        }
        Some(whole)
    }

    /// At most so many octets; `None` when the message ends before.
    pub(super) fn take<'a>(&mut self, octets: &mut &'a [u8], most: u64) -> Option<&'a [u8]> {
        if most > self.left {
            return None;
        }
        let here = usize::try_from(most).unwrap_or(usize::MAX).min(octets.len());
        let (taken, rest) = octets.split_at_checked(here)?;
        *octets = rest;
        self.left -= here as u64;
        Some(taken)
    }
}
