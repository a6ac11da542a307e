//! Walks through the fields of one message as its octets come, in any pieces.
//!
//! What nobody wants is passed by its length. The only thing kept between pieces is a value that has begun: a number, or
//! a text, which the protocol holds to 32 KiB.

mod primitives;

use super::schema::{Field, Kind, Role};

/// What a walk tells, in the order of the message.
pub(super) trait Sink {
    /// A structure of an array begins.
    fn enter(&mut self, role: Role);
    /// It ends.
    fn leave(&mut self, role: Role);
    fn number(&mut self, role: Role, value: i64);
    fn uuid(&mut self, role: Role, id: [u8; 16]);
    /// `None` is null.
    fn text(&mut self, role: Role, text: Option<&[u8]>);
    /// Records of this many octets follow; `None` is null, and nothing follows.
    fn records(&mut self, length: Option<u32>);
    fn records_octets(&mut self, octets: &[u8]);
    /// So many octets of the records were not seen.
    fn records_lost(&mut self, octets: u64);
    fn records_end(&mut self);
    /// So many of the octets of the records that follow need not be seen.
    fn records_skippable(&self) -> u64;
}

/// How a walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// More octets are needed.
    Open,
    /// It has come to the end of the fields, and no octet is left.
    Exact,
    /// The fields that follow are not wanted, or their form is not known.
    Rest,
    /// Octets were missing where they mattered.
    Torn,
    /// It is not what its header says.
    Invalid,
}

#[derive(Clone, Copy, Debug)]
enum Items {
    /// The tagged fields of a header alone.
    Header,
    Fields(&'static [Field]),
    Values(Kind),
}

/// A structure, or all those of an array.
#[derive(Debug)]
struct Level {
    items: Items,
    role: Role,
    /// The next field.
    at: usize,
    /// Elements still to come, this one included.
    elements: u64,
    /// Tagged fields still to come, once their number is known.
    tags: Option<u64>,
}

impl Level {
    const fn new(items: Items, role: Role, elements: u64) -> Self {
        Self { items, role, at: 0, elements, tags: None }
    }
}

#[derive(Clone, Copy, Debug)]
enum Pending {
    Field,
    TagSize,
    Skip(u64),
    Text { length: usize, role: Role },
    Records(u64),
}

/// The longest text (Kafka protocol guide: the length is an `INT16`, and the compact form holds no more).
const TEXT: u64 = i16::MAX as u64;

#[derive(Debug)]
pub(super) struct Walk {
    version: i16,
    flexible: bool,
    /// Octets of the message still to come.
    left: u64,
    levels: Vec<Level>,
    pending: Pending,
    /// A value that has begun.
    partial: Vec<u8>,
    state: State,
}

/// What one step came to.
enum Step {
    Next,
    More,
    Over(State),
}

impl Walk {
    /// `length` octets follow; `header_tags`: first the tagged fields of the header.
    pub(super) fn new(fields: &'static [Field], version: i16, flexible: bool, header_tags: bool, length: u64) -> Self {
        let mut levels = vec![Level::new(Items::Fields(fields), Role::None, 1)];
        if header_tags {
            levels.push(Level::new(Items::Header, Role::None, 1));
        }
        let (pending, partial) = (Pending::Field, Vec::new());
        Self { version, flexible, left: length, levels, pending, partial, state: State::Open }
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// No more octets of it come.
    pub(super) fn tear(&mut self) {
        if self.state == State::Open {
            self.state = State::Torn;
        }
    }

    /// Takes octets of the message; there must not be more of them than are left of it.
    pub(super) fn feed(&mut self, mut octets: &[u8], sink: &mut impl Sink) {
        while self.state == State::Open {
            match self.step(&mut octets, sink) {
                Some(Step::Next) => {}
                Some(Step::More) => break,
                Some(Step::Over(state)) => self.state = state,
                None => self.state = State::Invalid,
            }
        }
    }

    /// So many octets of the message were not seen.
    pub(super) fn pass(&mut self, octets: u64, sink: &mut impl Sink) {
        if self.state != State::Open || octets == 0 {
            return;
        }
        self.left = self.left.saturating_sub(octets);
        match &mut self.pending {
            Pending::Skip(left) if *left >= octets => *left -= octets,
            Pending::Records(left) if *left >= octets => {
                *left -= octets;
                sink.records_lost(octets);
            }
            Pending::Records(left) => {
                sink.records_lost(*left);
                sink.records_end();
                self.state = State::Torn;
            }
            _ => self.state = State::Torn,
        }
        // What ends the message may have been among them.
        self.feed(&[], sink);
    }

    /// So many of the octets that follow need not be seen.
    pub(super) fn skippable(&self, sink: &impl Sink) -> u64 {
        match (self.state, self.pending) {
            (State::Open, Pending::Skip(left)) => left,
            (State::Open, Pending::Records(left)) => sink.records_skippable().min(left),
            (State::Open, _) => 0,
            _ => u64::MAX,
        }
    }

    /// `None`: it is not what its header says.
    fn step(&mut self, octets: &mut &[u8], sink: &mut impl Sink) -> Option<Step> {
        match self.pending {
            Pending::Field => self.field(octets, sink),
            Pending::TagSize => {
                let Some(size) = self.varint(octets)? else { return Some(Step::More) };
                self.skip(size.into())
            }
            Pending::Skip(left) => {
                let taken = self.take(octets, left)?;
                let left = left - taken.len() as u64;
                self.pending = if left == 0 { Pending::Field } else { Pending::Skip(left) };
                Some(if left == 0 { Step::Next } else { Step::More })
            }
            Pending::Text { length, role } => {
                if self.partial.is_empty() && octets.len() >= length {
                    sink.text(role, Some(self.take(octets, length as u64)?));
                } else {
                    let missing = length.checked_sub(self.partial.len())?;
                    let taken = self.take(octets, missing as u64)?;
                    self.partial.extend_from_slice(taken);
                    if self.partial.len() < length {
                        return Some(Step::More);
                    }
                    sink.text(role, Some(&std::mem::take(&mut self.partial)));
                }
                self.pending = Pending::Field;
                Some(Step::Next)
            }
            Pending::Records(left) => {
                let taken = self.take(octets, left)?;
                sink.records_octets(taken);
                let left = left - taken.len() as u64;
                if left > 0 {
                    self.pending = Pending::Records(left);
                    return Some(Step::More);
                }
                sink.records_end();
                self.pending = Pending::Field;
                Some(Step::Next)
            }
        }
    }

    /// The next field of the innermost structure, or its end.
    fn field(&mut self, octets: &mut &[u8], sink: &mut impl Sink) -> Option<Step> {
        let Some(level) = self.levels.last_mut() else {
            return (self.left == 0).then_some(Step::Over(State::Exact));
        };
        let (kind, role, nullable) = match level.items {
            Items::Values(_) if level.elements == 0 => {
                self.levels.pop();
                return Some(Step::Next);
            }
            Items::Values(kind) => (kind, level.role, false),
            Items::Fields(fields) => match fields.get(level.at) {
                Some(field) if field.is_in(self.version) => (field.kind, field.role, field.is_nullable(self.version)),
                Some(_) => {
                    level.at += 1;
                    return Some(Step::Next);
                }
                None => return self.end(octets, sink),
            },
            Items::Header => return self.end(octets, sink),
        };
        let step = self.value(kind, role, nullable, octets, sink)?;
        Some(step)
    }

    /// The innermost structure has no more fields, but perhaps tagged ones.
    fn end(&mut self, octets: &mut &[u8], sink: &mut impl Sink) -> Option<Step> {
        let level = self.levels.last_mut()?;
        if self.flexible && level.tags != Some(0) {
            let known = level.tags;
            let Some(number) = self.varint(octets)? else { return Some(Step::More) };
            let left = self.left;
            let level = self.levels.last_mut()?;
            match known {
                // Each takes two octets at least.
                None if u64::from(number) <= left / 2 => level.tags = Some(number.into()),
                None => return None,
                Some(tags) => {
                    level.tags = Some(tags - 1);
                    self.pending = Pending::TagSize;
                }
            }
            return Some(Step::Next);
        }
        if matches!(level.items, Items::Fields(_)) {
            sink.leave(level.role);
        }
        level.elements -= 1;
        level.at = 0;
        level.tags = None;
        if level.elements == 0 {
            self.levels.pop();
        } else {
            sink.enter(level.role);
        }
        Some(Step::Next)
    }

    /// Begins one value.
    fn value(
        &mut self,
        kind: Kind,
        role: Role,
        nullable: bool,
        octets: &mut &[u8],
        sink: &mut impl Sink,
    ) -> Option<Step> {
        if let Some(size) = size(kind) {
            if role == Role::None {
                self.begun();
                return self.skip(size);
            }
            if kind == Kind::Uuid {
                let Some(id) = self.fixed::<16>(octets)? else { return Some(Step::More) };
                sink.uuid(role, id);
            } else {
                let Some(number) = self.number(kind, octets)? else { return Some(Step::More) };
                sink.number(role, number);
            }
            self.begun();
            return Some(Step::Next);
        }
        if kind == Kind::Rest {
            return Some(Step::Over(State::Rest));
        }
        if let Kind::Object(fields) = kind {
            // A structure that may be null has an octet that tells (KIP-893).
            let Some(present) = (if nullable { self.number(Kind::Int8, octets)? } else { Some(1) }) else {
                return Some(Step::More);
            };
            self.begun();
            if present >= 0 {
                self.levels.push(Level::new(Items::Fields(fields), role, 1));
                sink.enter(role);
            }
            return Some(Step::Next);
        }
        let Some(length) = self.length(kind, octets)? else { return Some(Step::More) };
        self.begun();
        let Some(length) = length else {
            if kind == Kind::Records {
                sink.records(None);
            } else if kind == Kind::Text && role != Role::None {
                sink.text(role, None);
            }
            return nullable.then_some(Step::Next);
        };
        // Whatever it counts takes an octet at least.
        if length > self.left || (kind == Kind::Text && length > TEXT) {
            return None;
        }
        match kind {
            Kind::Text if role != Role::None => {
                self.pending = Pending::Text { length: usize::try_from(length).ok()?, role };
                Some(Step::Next)
            }
            Kind::Records => {
                sink.records(Some(u32::try_from(length).ok()?));
                self.pending = Pending::Records(length);
                Some(Step::Next)
            }
            Kind::Array(fields) => {
                if length > 0 {
                    self.levels.push(Level::new(Items::Fields(fields), role, length));
                    sink.enter(role);
                }
                Some(Step::Next)
            }
            Kind::List(item) => match size(*item) {
                Some(size) => self.skip(length.checked_mul(size)?),
                None => {
                    self.levels.push(Level::new(Items::Values(*item), role, length));
                    Some(Step::Next)
                }
            },
            _ => self.skip(length),
        }
    }

    /// The field, or the value of a list, has been taken up.
    fn begun(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            match level.items {
                Items::Values(_) => level.elements = level.elements.saturating_sub(1),
                _ => level.at += 1,
            }
        }
    }

    fn skip(&mut self, octets: u64) -> Option<Step> {
        if octets > self.left {
            return None;
        }
        self.pending = if octets == 0 { Pending::Field } else { Pending::Skip(octets) };
        Some(Step::Next)
    }
}

/// Octets of a value that always has as many.
const fn size(kind: Kind) -> Option<u64> {
    match kind {
        Kind::Bool | Kind::Int8 => Some(1),
        Kind::Int16 => Some(2),
        Kind::Int32 => Some(4),
        Kind::Int64 => Some(8),
        Kind::Uuid => Some(16),
        _ => None,
    }
}
