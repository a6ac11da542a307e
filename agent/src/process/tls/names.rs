//! Which functions a file defines, by its symbols.
//!
//! The strings are searched for names before any symbol is read, both in pieces: large programs have tables of hundreds of
//! megabytes, and a few names of interest.

use memchr::memmem;
use object::elf;
use rustc_hash::FxHashMap;

use super::elf::Image;

/// The longest name that is understood, in octets.
const NAME: usize = 512;
/// The longest tables that are read, in octets. Browsers with all their symbols have a tenth of it.
const TABLES: u64 = 2 * 1024 * 1024 * 1024;
/// The octets of a symbol: name, information, visibility, section, address, size (`Elf64_Sym`).
const SYMBOL: u64 = 24;
/// What names of interest contain, and few others: the strings are searched for each.
const PARTS: [&[u8]; 4] = [b"SSL_", b"gnutls_", b"CommonState", b"nghttp2_hd_inflate_hd_nv"];

/// Which of a file's tables of symbols.
#[derive(Clone, Copy)]
pub(super) enum Table {
    /// What the dynamic linker needs; always there in programs that it loads.
    Dynamic,
    /// All; gone once the file is stripped.
    Full,
}

/// A function that the file defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Defined {
    /// [`agent_common::tls::function`].
    pub(super) function: u64,
    pub(super) address: u64,
    /// Octets, 0 where the symbol does not say.
    pub(super) size: u64,
}

/// The functions that `known` knows by name.
pub(super) fn defined(image: &Image<'_>, table: Table, known: impl Fn(&[u8]) -> Option<u64>) -> Vec<Defined> {
    let kind = match table {
        Table::Dynamic => elf::SHT_DYNSYM,
        Table::Full => elf::SHT_SYMTAB,
    };
    let Some(symbols) = image.section_of_kind(kind) else { return Vec::new() };
    let Some(strings) = image.section_by_number(symbols.link) else { return Vec::new() };
    if symbols.size > TABLES || strings.size > TABLES {
        return Vec::new();
    }
    let mut names = FxHashMap::default();
    image.pieces(strings, 2 * NAME as u64, |from, piece| collect(from, piece, &known, &mut names));
    let mut found = Vec::new();
    if names.is_empty() {
        return found;
    }
    // A piece is no multiple of a symbol: the symbol that is cut stands whole in the next piece.
    image.pieces(symbols, SYMBOL, |from, piece| {
        let first = (SYMBOL - from % SYMBOL) % SYMBOL;
        let whole = piece.get(first as usize..).unwrap_or_default();
        found.extend(whole.as_chunks::<{ SYMBOL as usize }>().0.iter().filter_map(|symbol| read(symbol, &names)));
    });
    found
}

/// Notes where in the strings names stand that `known` knows. `from` is where the piece begins. Linkers let a name be the
/// end of a longer one, so that it need not begin behind a zero.
fn collect(from: u64, piece: &[u8], known: &impl Fn(&[u8]) -> Option<u64>, names: &mut FxHashMap<u32, u64>) {
    let mut note = |start: usize| {
        let rest = piece.get(start..piece.len().min(start + NAME)).unwrap_or_default();
        let Some(end) = memchr::memchr(0, rest) else { return };
        if let (Some(function), Ok(at)) = (known(&rest[..end]), u32::try_from(from + start as u64)) {
            names.insert(at, function);
        }
    };
    for part in PARTS {
        for hit in memmem::find_iter(piece, part) {
            note(hit);
            let before = hit.saturating_sub(NAME);
            if let Some(zero) = memchr::memrchr(0, &piece[before..hit]) {
                note(before + zero + 1);
            }
        }
    }
}

/// A symbol, if it is a function that is defined in this file and has one of the names.
fn read(symbol: &[u8; SYMBOL as usize], names: &FxHashMap<u32, u64>) -> Option<Defined> {
    let name = u32::from_le_bytes(*symbol.first_chunk()?);
    let function = *names.get(&name)?;
    let is_function = symbol[4] & 0xf == elf::STT_FUNC;
    let section = u16::from_le_bytes([symbol[6], symbol[7]]);
    let address = u64::from_le_bytes(*symbol[8..].first_chunk()?);
    let size = u64::from_le_bytes(*symbol[16..].first_chunk()?);
    (is_function && section != elf::SHN_UNDEF).then_some(Defined { function, address, size })
}
