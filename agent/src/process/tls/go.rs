//! Go's `crypto/tls`, by the table of functions that every Go program has for its own use (`pclntab`), stripped or not.
//!
//! The table's beginning is that of runtime/symtab.go, `pcHeader`: a magic number of the release, and words that tell how
//! many functions there are and where in the table the parts are. Releases from 1.17 on pass arguments in registers; 1.16
//! has 1.17's magic number, so there the release's name counts.

use agent_common::tls::{Deferred, function};
use memchr::memmem;

use super::elf::{Image, Section};
use super::{Kind, Place, code};

const FUNCTIONS: [(&[u8], u64, Part); 12] = [
    (b"crypto/tls.(*Conn).Read\0", function::GO_READ, Part::Whole),
    (b"crypto/tls.(*Conn).Read.deferwrap1\0", function::GO_READ, Part::Deferred(1)),
    (b"crypto/tls.(*Conn).Read.deferwrap2\0", function::GO_READ, Part::Deferred(2)),
    (b"crypto/tls.(*Conn).Write\0", function::GO_WRITE, Part::Whole),
    (b"crypto/tls.(*Conn).Write.deferwrap1\0", function::GO_WRITE, Part::Deferred(1)),
    (b"crypto/tls.(*Conn).Write.deferwrap2\0", function::GO_WRITE, Part::Deferred(2)),
    (b"crypto/tls.(*Conn).clientHandshake\0", function::GO_HANDSHAKE, Part::Whole),
    (b"crypto/tls.(*Conn).serverHandshake\0", function::GO_HANDSHAKE, Part::Whole),
    // That of net/http, and that of grpc-go.
    (b"vendor/golang.org/x/net/http2/hpack.(*Decoder).Write\0", function::HPACK_DECODE, Part::Whole),
    (b"golang.org/x/net/http2/hpack.(*Decoder).Write\0", function::HPACK_DECODE, Part::Whole),
    (b"vendor/golang.org/x/net/http2/hpack.(*Encoder).WriteField\0", function::HPACK_ENCODE, Part::Whole),
    (b"golang.org/x/net/http2/hpack.(*Encoder).WriteField\0", function::HPACK_ENCODE, Part::Whole),
];
/// What these names have in common.
const PREFIXES: [&[u8]; 3] =
    [b"crypto/tls.(*Conn).", b"vendor/golang.org/x/net/http2/hpack.", b"golang.org/x/net/http2/hpack."];
/// More than the longest of them, in octets.
const NAME: u64 = 64;
/// The most functions of a program whose table is read.
const COUNT: u64 = 1024 * 1024;
/// The longest table of names, in octets.
const NAMES: u64 = 1024 * 1024 * 1024;
/// How much of the functions' descriptions is read at a time, in octets.
const WINDOW: u64 = 1024 * 1024;

/// The entries of the functions, and all places where they return.
pub(super) fn places(image: &Image<'_>) -> Vec<Place> {
    let found = if image.x86_64 { Table::find(image).and_then(|table| table.functions(image)) } else { None };
    let found = found.unwrap_or_default();
    let wholes = found.iter().filter(|found| found.part == Part::Whole);
    wholes.filter_map(|whole| of_function(image, whole, &found)).flatten().collect()
}

/// The places of one function, all or none: a call that is seen to begin must be seen to end.
fn of_function(image: &Image<'_>, whole: &Found, found: &[Found]) -> Option<Vec<Place>> {
    let place = |address, kind| Some(Place { function: whole.function, at: image.place_of_code(address)?, kind });
    let mut places = vec![place(code::emulated_in_go(image, whole.from).unwrap_or(whole.from), Kind::Entry)?];
    if matches!(whole.function, function::HPACK_DECODE | function::HPACK_ENCODE) {
        return Some(places);
    }
    let mut returns = code::returns(image, whole.from, whole.to).filter(|returns| !returns.is_empty())?;
    if let Some((nth, address, deferred)) =
        [1, 2].into_iter().find_map(|nth| deferred(image, whole, &returns, found, nth))
    {
        places.push(place(address, Kind::Deferred(deferred))?);
        returns.retain(|ret| ret.closures < nth);
    }
    for ret in returns {
        places.push(place(ret.address, Kind::Ret)?);
    }
    Some(places)
}

/// Where to see what a function returns before it does: at the closure that it defers as the nth, which it calls as the nth of
/// the last ones. All that has to be found is that the function takes its result from the same place each time.
fn deferred(
    image: &Image<'_>,
    whole: &Found,
    returns: &[code::Ret],
    found: &[Found],
    nth: usize,
) -> Option<(usize, u64, Deferred)> {
    let wrap = found.iter().find(|found| found.function == whole.function && found.part == Part::Deferred(nth))?;
    let address = code::emulated_in_go(image, wrap.from)?;
    let mut slots = returns.iter().filter(|ret| ret.closures >= nth).map(|ret| ret.slot);
    let slot = slots.next()?.filter(|slot| *slot < u64::from(Deferred::SLOTS))?;
    let same = slots.all(|other| other == Some(slot)) && wrap.from >= whole.to;
    let back = address.checked_sub(whole.from).filter(|_| same)?;
    Some((nth, address, Deferred { slot: u16::try_from(slot).ok()?, back: u16::try_from(back).ok()? }))
}

/// What a name looked for is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// One of the functions.
    Whole,
    /// The closure that it defers as the nth, where the compiler has made that a function.
    Deferred(usize),
}

/// A function that was looked for, between two addresses.
#[derive(Debug)]
struct Found {
    function: u64,
    part: Part,
    from: u64,
    to: u64,
}

/// How a release writes its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Go 1.17: addresses of 64 bits.
    Addresses,
    /// Go 1.18 and newer: 32 bits, counted from the beginning of Go's code.
    Offsets,
}

/// Where the parts of the table are in the file.
#[derive(Debug)]
struct Table {
    format: Format,
    /// The address from which functions are counted.
    text: u64,
    count: u64,
    /// The names, one behind the other, each with a zero at its end.
    names: Section,
    /// The functions' addresses, each with the place of its description from here on.
    functions: u64,
}

impl Table {
    fn find(image: &Image<'_>) -> Option<Self> {
        for name in [".gopclntab", ".data.rel.ro.gopclntab"] {
            if let Some(section) = image.section(name) {
                return Self::read(image, section, 0);
            }
        }
        // Where the C linker makes position-independent programs, it stands among other data.
        image.section(".go.buildinfo")?;
        let section = image.section(".data.rel.ro")?;
        let mut found = None;
        image.pieces(section, 8, |from, piece| {
            for hit in memmem::find_iter(piece, b"\xff\xff\xff\0\0\x01\x08") {
                if found.is_none() && hit > 0 {
                    found = Self::read(image, section, from + hit as u64 - 1);
                }
            }
        });
        found
    }

    /// The table that begins `from` octets behind the beginning of a section.
    fn read(image: &Image<'_>, section: &Section, from: u64) -> Option<Self> {
        let at = section.at.checked_add(from)?;
        let octets = image.octets(at, 72)?;
        let words = octets[8..].as_chunks().0.iter().copied().map(u64::from_le_bytes).collect::<Vec<_>>();
        // No padding, instructions of one octet, pointers of eight.
        if octets[4..8] != [0, 0, 1, 8] {
            return None;
        }
        let (format, parts) = match u32::from_le_bytes(*octets.first_chunk()?) {
            0xffff_fff0 | 0xffff_fff1 => (Format::Offsets, &words[3..]),
            0xffff_fffa if release(image)?.starts_with(b"go1.17") => (Format::Addresses, &words[2..]),
            _ => return None,
        };
        let text = match format {
            Format::Addresses => 0,
            Format::Offsets if words[2] != 0 => words[2],
            Format::Offsets => text(image, section.address.checked_add(from)?)?,
        };
        let (&names, &behind_names, &functions) = (parts.first()?, parts.get(1)?, parts.get(4)?);
        let count = words[0];
        let size = behind_names.checked_sub(names)?;
        if count > COUNT || size > NAMES {
            return None;
        }
        let names = Section { at: at.checked_add(names)?, size, ..section.clone() };
        Some(Self { format, text, count, names, functions: at.checked_add(functions)? })
    }

    /// Those of the functions looked for that are there; each ends where the next one begins.
    fn functions(&self, image: &Image<'_>) -> Option<Vec<Found>> {
        let names = self.names(image);
        let mut found = Vec::new();
        if names.is_empty() {
            return Some(found);
        }
        // One more address stands at the end.
        let (half, head) = if self.format == Format::Addresses { (8, 8) } else { (4, 4) };
        let octets = image.octets(self.functions, (2 * self.count + 1) * half)?;
        let mut halves = octets.chunks_exact(half as usize).map(number);
        let mut from = halves.next()?;
        let mut window = Window::default();
        while let (Some(description), Some(to)) = (halves.next(), halves.next()) {
            let name = window.read(image, self.functions.checked_add(description)?.checked_add(head)?)?;
            if let Some(&(_, function, part)) = names.iter().find(|(at, ..)| *at == name) {
                let (from, to) = (self.text.checked_add(from)?, self.text.checked_add(to)?);
                found.push(Found { function, part, from, to });
            }
            from = to;
        }
        Some(found)
    }

    /// Where among the names those stand that are looked for.
    fn names(&self, image: &Image<'_>) -> Vec<(u64, u64, Part)> {
        let mut found = Vec::new();
        image.pieces(&self.names, NAME, |from, piece| {
            for hit in PREFIXES.iter().flat_map(|prefix| memmem::find_iter(piece, prefix)) {
                let begins = hit == 0 || piece[hit - 1] == 0;
                let known = FUNCTIONS.iter().find(|(name, ..)| begins && piece[hit..].starts_with(name));
                found.extend(known.map(|(_, function, part)| (from + hit as u64, *function, *part)));
            }
        });
        found
    }
}

/// A part of the file that moves on as it is read.
#[derive(Default)]
struct Window {
    at: u64,
    octets: Vec<u8>,
}

impl Window {
    /// The number of 32 bits at a place. `None` before the window's beginning: descriptions stand in the order of their
    /// functions.
    fn read(&mut self, image: &Image<'_>, at: u64) -> Option<u64> {
        if at.checked_add(4)? > self.at + self.octets.len() as u64 {
            let size = WINDOW.min(image.length().saturating_sub(at));
            *self = Self { at, octets: image.octets(at, size)? };
        }
        let from = usize::try_from(at.checked_sub(self.at)?).ok()?;
        self.octets.get(from..from + 4).map(number)
    }
}

/// Of 32 or 64 bits.
fn number(octets: &[u8]) -> u64 {
    octets.iter().rev().fold(0, |number, octet| number << 8 | u64::from(*octet))
}

/// From Go 1.26 on the beginning of Go's code stands in the description of the module alone (runtime/symtab.go,
/// `moduledata`), whose first word is the table's address.
fn text(image: &Image<'_>, table: u64) -> Option<u64> {
    const TEXT: u64 = 22 * 8;
    let module = image.section(".go.module")?;
    if image.word_at_address(module.address)? != table {
        return None;
    }
    image.word_at_address(module.address.checked_add(TEXT)?)
}

/// The name of a release before 1.18 (debug/buildinfo): 14 octets of magic, the size of a pointer, flags, and the address of
/// a string, which is address and length.
fn release(image: &Image<'_>) -> Option<Vec<u8>> {
    const POINTER: u64 = 16;
    let string = image.word_at_address(image.section(".go.buildinfo")?.address.checked_add(POINTER)?)?;
    let address = image.word_at_address(string)?;
    let length = image.word_at_address(string.checked_add(8)?)?;
    image.octets_at_address(address, length.min(64))
}
