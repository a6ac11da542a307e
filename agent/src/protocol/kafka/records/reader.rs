//! One partition's records as their octets come, in any pieces and with pieces missing.

use super::super::wire::Reader;
use super::aborted::Aborted;
use super::batch::Record;
use super::compression::{Compression, Content};
use super::{BatchHead, HEADS, Producer, RecordContext, Records, legacy};
use crate::protocol::context::ContextFields;

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub(in crate::protocol::kafka) struct RecordLimits {
    /// Octets of a batch's content that are kept until it is all there.
    pub(in crate::protocol::kafka) content: usize,
    /// Octets that content may become when it is decompressed.
    pub(in crate::protocol::kafka) decompressed: usize,
    /// Trace contexts kept.
    pub(in crate::protocol::kafka) contexts: usize,
    /// The longest first key that is kept, in octets.
    pub(in crate::protocol::kafka) key: usize,
}

/// The head of a batch: base offset 8, length 4, leader epoch 4, magic 1, checksum 4, attributes 2, last offset delta 4,
/// base timestamp 8, max timestamp 8, producer id 8, producer epoch 2, base sequence 4, number of records 4.
const BATCH_HEAD: usize = 61;
/// Octets of the head that do not count in its length.
const UNCOUNTED: usize = 12;
/// Enough to tell the format.
const MAGIC_AT: usize = 16;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

#[derive(Clone, Copy, Debug)]
enum Head {
    Batch { base: i64, last_delta: i32, checksum: u32, records: u32, fate: Fate, compression: Option<Compression> },
    Message { offset: i64, magic: i8, compression: Option<Compression> },
}

/// What becomes of a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// They are the program's.
    Taken,
    /// A marker, or of a transaction that was aborted.
    Left,
    /// One of these.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// At a batch's head.
    Head,
    /// In its content, of which so many octets are still to come.
    Content(Head, u64),
    /// It is not known where the next batch begins.
    Lost,
    /// What comes is the beginning of a batch that the broker has cut off.
    Tail,
}

#[derive(Debug)]
pub(in crate::protocol::kafka) struct RecordReader {
    limits: RecordLimits,
    /// They come from a broker: offsets are those of the log, and the last batch may be cut off.
    fetched: bool,
    /// Octets still to come.
    left: u64,
    state: State,
    head: Vec<u8>,
    content: Vec<u8>,
    /// Octets of the content are missing, or there are too many of them.
    cut: bool,
    aborted: Aborted,
    /// A batch that is not left out has begun.
    begun: bool,
    /// One has come to its end.
    taken: bool,
    out: Records,
}

impl RecordReader {
    pub(in crate::protocol::kafka) fn new(length: u32, fetched: bool, limits: RecordLimits, aborted: Aborted) -> Self {
        Self {
            limits,
            fetched,
            left: length.into(),
            state: State::Head,
            head: Vec::new(),
            content: Vec::new(),
            cut: false,
            aborted,
            begun: false,
            taken: false,
            out: Records { size: length, left_out: Some(0), count: Some(0), ..Records::default() },
        }
    }

    pub(in crate::protocol::kafka) fn octets(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            match self.state {
                State::Head => self.head(&mut octets),
                State::Content(head, left) => {
                    let taken = take(&mut octets, left);
                    self.left = self.left.saturating_sub(taken.len() as u64);
                    if self.wants(head) && !self.cut {
                        let room = self.limits.content.saturating_sub(self.content.len());
                        self.cut = taken.len() > room;
                        self.content.extend_from_slice(taken.get(..room).unwrap_or(taken));
                    }
                    self.pass(head, left, taken.len() as u64);
                }
                State::Lost | State::Tail => {
                    self.left = self.left.saturating_sub(octets.len() as u64);
                    return;
                }
            }
        }
    }

    /// So many octets were not seen.
    pub(in crate::protocol::kafka) fn lost(&mut self, octets: u64) {
        self.left = self.left.saturating_sub(octets);
        match self.state {
            State::Content(head, left) => {
                self.cut = true;
                self.pass(head, left, octets.min(left));
                // A batch that ends where the gap does is followed by another one.
                if octets > left {
                    self.lose();
                }
            }
            State::Head => self.lose(),
            State::Lost | State::Tail => {}
        }
    }

    /// So many of the octets that follow need not be seen.
    pub(in crate::protocol::kafka) fn skippable(&self) -> u64 {
        match self.state {
            State::Head => 0,
            State::Content(head, left) if self.cut || !self.wants(head) => left,
            State::Content(..) => 0,
            State::Lost | State::Tail => self.left,
        }
    }

    pub(in crate::protocol::kafka) fn finish(mut self) -> Records {
        match self.state {
            State::Head if self.head.is_empty() => {}
            // A broker cuts off what does not fit.
            State::Head if self.fetched && self.left == 0 => {}
            State::Tail => {}
            _ => self.lose(),
        }
        self.out
    }

    /// What comes is not known any more.
    fn lose(&mut self) {
        self.state = State::Lost;
        self.head.clear();
        self.content = Vec::new();
        self.out.count = None;
        self.out.left_out = self.out.left_out.filter(|_| !self.fetched);
        (self.out.last_offset, self.out.end_offset) = (None, None);
    }

    fn head(&mut self, octets: &mut &[u8]) {
        let magic = self.head.get(MAGIC_AT).copied();
        let need = match magic {
            None | Some(0) => legacy::HEAD,
            Some(1) => legacy::HEAD + legacy::TIMESTAMP,
            Some(2) => BATCH_HEAD,
            Some(_) => return self.lose(),
        };
        let taken = take(octets, need.saturating_sub(self.head.len()) as u64);
        self.left = self.left.saturating_sub(taken.len() as u64);
        self.head.extend_from_slice(taken);
        if self.head.len() < need || (magic.is_none() && self.head.get(MAGIC_AT) != Some(&0)) {
            return;
        }
        let begun = std::mem::take(&mut self.head);
        match self.parse(&begun) {
            Some((head, length)) if length <= self.left => self.begin(head, length),
            Some(_) if self.fetched => self.state = State::Tail,
            _ => self.lose(),
        }
    }

    /// What a head says, and how many octets of content follow.
    fn parse(&mut self, head: &[u8]) -> Option<(Head, u64)> {
        let mut reader = Reader(head);
        let offset = reader.i64()?;
        let length = u64::try_from(reader.i32()?).ok()?;
        let (_epoch_or_checksum, magic) = (reader.i32()?, reader.i8()?);
        if magic < 2 {
            let attributes = i16::from(reader.i8()?);
            let timestamp = if magic == 1 { Some(reader.i64()?) } else { None };
            let counted = legacy::COUNTED + if magic == 1 { legacy::TIMESTAMP } else { 0 };
            let compression = Compression::of(attributes);
            if !std::mem::replace(&mut self.begun, true) {
                self.out.compression = compression;
                self.out.max_timestamp = timestamp;
                self.out.transactional = Some(false);
            }
            return Some((Head::Message { offset, magic, compression }, length.checked_sub(counted as u64)?));
        }
        let checksum = reader.i32()?.cast_unsigned();
        let attributes = reader.i16()?;
        let last_delta = reader.i32()?;
        let (_base_timestamp, max_timestamp) = (reader.i64()?, reader.i64()?);
        let (id, epoch, base_sequence) = (reader.i64()?, reader.i16()?, reader.i32()?);
        let records = u32::try_from(reader.i32()?).ok()?;
        if last_delta < 0 {
            return None;
        }
        let compression = Compression::of(attributes);
        let fate = self.fate_of(attributes, id, offset, offset.checked_add(last_delta.into())?);
        if fate != Fate::Left && !std::mem::replace(&mut self.begun, true) {
            self.out.compression = compression;
            self.out.max_timestamp = Some(max_timestamp).filter(|&at| at >= 0);
            self.out.producer = (id >= 0).then_some(Producer { id, epoch, base_sequence });
            self.out.transactional = Some(attributes & TRANSACTIONAL != 0);
        }
        let head = Head::Batch { base: offset, last_delta, checksum, records, fate, compression };
        Some((head, length.checked_sub((BATCH_HEAD - UNCOUNTED) as u64)?))
    }

    fn fate_of(&mut self, attributes: i16, producer: i64, first: i64, last: i64) -> Fate {
        if attributes & CONTROL != 0 {
            self.aborted.end(producer, first);
            return Fate::Left;
        }
        let aborted = if attributes & TRANSACTIONAL == 0 { Some(false) } else { self.aborted.has(producer, last) };
        match aborted {
            Some(false) => Fate::Taken,
            Some(true) => Fate::Left,
            None => Fate::Unknown,
        }
    }

    fn begin(&mut self, head: Head, length: u64) {
        self.cut = false;
        self.content.clear();
        if let Head::Batch { fate, .. } = head {
            let octets = u32::try_from(length).unwrap_or(u32::MAX).saturating_add(BATCH_HEAD as u32);
            self.out.left_out = match fate {
                Fate::Taken => self.out.left_out,
                Fate::Left => self.out.left_out.map(|sum| sum.saturating_add(octets)),
                Fate::Unknown => None,
            };
        }
        self.state = State::Content(head, length);
        if length == 0 {
            self.end(head);
        }
    }

    /// So many octets of the content went by.
    fn pass(&mut self, head: Head, left: u64, octets: u64) {
        let left = left - octets;
        self.state = State::Content(head, left);
        if left == 0 {
            self.end(head);
        }
    }

    /// Whether something in the content is wanted.
    fn wants(&self, head: Head) -> bool {
        let key = self.limits.key > 0 && !self.taken;
        match head {
            Head::Batch { fate: Fate::Left, .. } => false,
            Head::Batch { compression, .. } => {
                compression.is_some() && (self.out.contexts.len() < self.limits.contexts || key)
            }
            Head::Message { compression, .. } => key || compression.is_some_and(|how| how != Compression::None),
        }
    }

    /// A batch was there to its end.
    fn end(&mut self, head: Head) {
        self.state = State::Head;
        let content = std::mem::take(&mut self.content);
        let first = !self.taken;
        let (count, first_offset, last_offset) = match head {
            Head::Batch { fate: Fate::Left, base, last_delta, .. } => {
                self.out.batches += 1;
                self.out.end_offset = base.checked_add(last_delta.into()).filter(|_| self.fetched);
                (self.content, self.cut) = (content, false);
                return self.content.clear();
            }
            Head::Batch { base, last_delta, checksum, records, fate, compression } => {
                if self.wants(head) {
                    self.records(&content, compression, base, records, first);
                }
                if self.out.heads.len() < HEADS {
                    let last_offset = base.saturating_add(last_delta.into());
                    self.out.heads.push(BatchHead { first_offset: base, last_offset, checksum });
                }
                let count = (fate == Fate::Taken).then_some(u64::from(records));
                (count, Some(base), base.checked_add(last_delta.into()))
            }
            Head::Message { offset, magic, compression } => self.message(&content, offset, magic, compression, first),
        };
        self.taken = true;
        self.out.batches += 1;
        self.out.count = self.out.count.zip(count).and_then(|(sum, more)| sum.checked_add(more));
        if self.fetched {
            if first {
                self.out.first_offset = first_offset;
            }
            (self.out.last_offset, self.out.end_offset) = (last_offset, last_offset);
        }
        // The room that it took is of use for the next one.
        self.content = content;
        self.content.clear();
    }

    /// One message, or those in it: how many there are, and the first and the last offset.
    fn message(
        &mut self,
        content: &[u8],
        offset: i64,
        magic: i8,
        compression: Option<Compression>,
        first: bool,
    ) -> (Option<u64>, Option<i64>, Option<i64>) {
        let key = if first { self.limits.key } else { 0 };
        match compression {
            Some(Compression::None) => {
                if key > 0 {
                    self.out.first_key = legacy::first_key(Reader(content), key);
                }
                (Some(1), Some(offset), Some(offset))
            }
            Some(how) if !self.cut => {
                // Behind the key, which compressed messages have none of.
                let mut reader = Reader(content);
                let value = reader.i32().filter(|&key| key == -1).and_then(|_| reader.i32()).map(|_| reader.0);
                let inner = value.map(|value| how.decompress(value, self.limits.decompressed));
                let Some(inner) = inner.and_then(|content| legacy::inner(&content, key)) else {
                    return (None, None, Some(offset));
                };
                if key > 0 {
                    self.out.first_key = inner.key;
                }
                let ahead = inner.last.checked_sub(inner.first);
                let first =
                    if magic == 0 { Some(inner.first) } else { ahead.and_then(|ahead| offset.checked_sub(ahead)) };
                (Some(inner.count), first, Some(offset))
            }
            _ => (None, None, Some(offset)),
        }
    }

    /// The headers of a batch's records.
    fn records(&mut self, content: &[u8], compression: Option<Compression>, base: i64, count: u32, first: bool) {
        let decompressed: Content;
        let octets = match compression {
            None => return,
            Some(Compression::None) => content,
            Some(how) => {
                decompressed = how.decompress(content, self.limits.decompressed);
                &decompressed.octets
            }
        };
        let mut rest = Reader(octets);
        for number in 0..count {
            let Some(record) = Record::take(&mut rest) else { break };
            if number == 0 && first && self.limits.key > 0 {
                self.out.first_key = record.key.filter(|key| key.len() <= self.limits.key).map(Into::into);
            }
            let mut fields = ContextFields::default();
            if !record.headers(|name, value| _ = fields.add(name, value)) {
                break;
            }
            self.out.read += 1;
            let Some(context) = fields.finish() else { continue };
            if self.out.contexts.len() >= self.limits.contexts {
                self.out.contexts_left_out = self.out.contexts_left_out.saturating_add(1);
                continue;
            }
            let base = if self.fetched { base } else { 0 };
            if let Some(offset) = base.checked_add(record.offset_delta.into()) {
                self.out.contexts.push(RecordContext { offset, context });
            }
        }
    }
}

fn take<'a>(octets: &mut &'a [u8], most: u64) -> &'a [u8] {
    let here = usize::try_from(most).unwrap_or(usize::MAX).min(octets.len());
    let (taken, rest) = octets.split_at(here);
    *octets = rest;
    taken
}
