//! From an executable to the layout of the Go program in it: which release built it (`.go.buildinfo`), and where a thread
//! has its goroutine. Reads no more than it needs; what does not add up is no Go program.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;

use agent_common::layout::GoLayout;
use flate2::read::ZlibDecoder;
use object::elf::{FileHeader64, ProgramHeader64, SectionHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, SectionTable, Sym as _};
use object::{LittleEndian, ReadCache, ReadRef as _, elf};

use super::debug::{self, Offsets};
use super::releases;

type Header = FileHeader64<LittleEndian>;
type Executable<'a> = &'a ReadCache<File>;

const ENDIAN: LittleEndian = LittleEndian;
/// The longest symbol table, and sections of debug information, that are read, in octets; the latter when unpacked.
const SYMBOLS: u64 = 32 * 1024 * 1024;
const DEBUG: u64 = 64 * 1024 * 1024;
/// `runtime.tlsg` where the Go linker places it: the word before the thread's block.
const TLS: u64 = 8_u64.wrapping_neg();

/// The layout of the Go program in an executable for x86-64. `None` for other programs, releases that are not known and
/// have no debug information, and files that are no executables.
pub(in crate::process) fn layout(file: File) -> Option<GoLayout> {
    let file = ReadCache::new(file);
    let header = Header::parse(&file).ok()?;
    // Counts that do not fit the header stand elsewhere, and may be anything; no executable has so many.
    let countable = header.e_shnum.get(ENDIAN) != 0 && header.e_phnum.get(ENDIAN) < elf::PN_XNUM;
    if header.e_machine(ENDIAN) != elf::EM_X86_64 || !countable {
        return None;
    }
    let sections = header.sections(ENDIAN, &file).ok()?;
    let version = version(&file, &sections)?;
    let offsets = releases::offsets(&version).or_else(|| described(&file, &sections))?;
    let Offsets { g_m, g_goid, g_parent, m_curg, m_p, m_oldp, p_goidcache } = offsets;
    let tls = tls(&file, header, &sections)?;
    Some(GoLayout { tls, g_m, g_goid, g_parent, m_curg, m_p, m_oldp, p_goidcache, reserved: 0 })
}

fn section<'a, 'b>(
    sections: &'b SectionTable<'a, Header, Executable<'a>>,
    name: &str,
) -> Option<&'b SectionHeader64<LittleEndian>> {
    sections.section_by_name(ENDIAN, name.as_bytes()).map(|(_, section)| section)
}

/// The release that built the program, as `runtime.Version` gives it (debug/buildinfo: 14 octets of magic, the size of a
/// pointer, flags, and from Go 1.18 on at octet 32 the length of the name as a varint, and the name).
fn version<'a>(file: Executable<'a>, sections: &SectionTable<'a, Header, Executable<'a>>) -> Option<String> {
    const MAGIC: &[u8] = b"\xff Go buildinf:";
    const INLINE: u8 = 2;
    let section = section(sections, ".go.buildinfo")?;
    let (at, size) = section.file_range(ENDIAN)?;
    let octets = file.read_bytes_at(at, size.min(256)).ok()?;
    if !octets.starts_with(MAGIC) || octets.get(15)? & INLINE == 0 {
        return None;
    }
    // Names of less than 128 octets have a length of one octet.
    let length = usize::from(octets.get(32).copied().filter(|length| *length < 128)?);
    let name = octets.get(33..33 + length)?;
    String::from_utf8(name.to_vec()).ok()
}

/// Where the pointer to the running goroutine is, from the thread's `fsbase` on. The Go linker has one word before it; the
/// C linker of programs with cgo may place that word among others, and then only its symbol tells.
fn tls<'a>(file: Executable<'a>, header: &Header, sections: &SectionTable<'a, Header, Executable<'a>>) -> Option<u64> {
    let segments = header.program_headers(ENDIAN, file).ok()?;
    let block = |segment: &&ProgramHeader64<LittleEndian>| segment.p_type(ENDIAN) == elf::PT_TLS;
    let Some(block) = segments.iter().find(block) else { return Some(TLS) };
    if block.p_memsz(ENDIAN) == 8 {
        return Some(TLS);
    }
    let (_, symtab) = sections.iter().enumerate().find(|(_, section)| section.sh_type(ENDIAN) == elf::SHT_SYMTAB)?;
    let strings = sections.section(object::SectionIndex(symtab.sh_link(ENDIAN) as usize)).ok()?;
    if symtab.sh_size(ENDIAN).max(strings.sh_size(ENDIAN)) > SYMBOLS {
        return None;
    }
    let symbols = sections.symbols(ENDIAN, file, elf::SHT_SYMTAB).ok()?;
    let tlsg = symbols.iter().find(|symbol| {
        symbol.st_type() == elf::STT_TLS && symbol.name(ENDIAN, symbols.strings()) == Ok(b"runtime.tlsg")
    })?;
    let size = block.p_memsz(ENDIAN).checked_next_multiple_of(block.p_align(ENDIAN).max(1))?;
    Some(tlsg.st_value(ENDIAN).wrapping_sub(size))
}

/// The offsets that the debug information tells.
fn described<'a>(file: Executable<'a>, sections: &SectionTable<'a, Header, Executable<'a>>) -> Option<Offsets> {
    // That of lines is read with each unit's head.
    const NAMES: [&str; 7] = [
        ".debug_info",
        ".debug_abbrev",
        ".debug_addr",
        ".debug_line",
        ".debug_line_str",
        ".debug_str",
        ".debug_str_offsets",
    ];
    let read = NAMES.map(|name| (name, unpacked(file, sections, name).unwrap_or_default()));
    debug::offsets(|name| read.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, octets)| octets))
}

/// The octets of a section, unpacked where it is packed.
fn unpacked<'a>(
    file: Executable<'a>,
    sections: &SectionTable<'a, Header, Executable<'a>>,
    name: &str,
) -> Option<Cow<'a, [u8]>> {
    let section = section(sections, name)?;
    if section.sh_size(ENDIAN) > DEBUG {
        return None;
    }
    let (kind, at, packed, unpacked) = match section.compression(ENDIAN, file).ok()? {
        Some((header, at, packed)) => (header.ch_type.get(ENDIAN), at, packed, header.ch_size.get(ENDIAN)),
        None => {
            let (at, size) = section.file_range(ENDIAN)?;
            return file.read_bytes_at(at, size).ok().map(Cow::Borrowed);
        }
    };
    if kind != elf::ELFCOMPRESS_ZLIB || unpacked > DEBUG {
        return None;
    }
    let mut octets = Vec::new();
    let packed = file.read_bytes_at(at, packed).ok()?;
    ZlibDecoder::new(packed).take(unpacked).read_to_end(&mut octets).ok()?;
    Some(Cow::Owned(octets))
}

#[cfg(test)]
pub(super) mod parts {
    //! The two ways to the offsets, each by itself.

    use super::*;

    pub(crate) fn by_release_and_description(file: File) -> (String, Option<Offsets>, Option<Offsets>) {
        let file = ReadCache::new(file);
        let header = Header::parse(&file).unwrap();
        let sections = header.sections(ENDIAN, &file).unwrap();
        let version = version(&file, &sections).unwrap();
        let by_release = releases::offsets(&version);
        (version, by_release, described(&file, &sections))
    }
}
