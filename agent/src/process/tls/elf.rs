//! An ELF file for a 64-bit little-endian machine: its sections and segments, and its octets by section, by address and by
//! place in the file. Reads no more than is asked for; nothing the file says is believed before it is compared with its
//! length.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use object::elf::{FileHeader64, SectionHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{LittleEndian, ReadCache, elf};

type Header = FileHeader64<LittleEndian>;

const ENDIAN: LittleEndian = LittleEndian;
/// The most sections of a file that is looked into. Linkers make some 40 of them.
const SECTIONS: u16 = 4096;

/// A file, and what its headers say.
pub(super) struct Image<'f> {
    file: &'f File,
    length: u64,
    pub(super) x86_64: bool,
    sections: Vec<Section>,
    segments: Vec<Segment>,
}

/// A section as its header says. `at` and `size` are in octets of the file; a section without octets has no size here.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) name: String,
    /// `SHT_…`.
    pub(super) kind: u32,
    pub(super) address: u64,
    pub(super) at: u64,
    pub(super) size: u64,
    /// The number of the section that this one refers to.
    pub(super) link: usize,
}

/// A part of the file that is mapped, for octets that are in the file.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    at: u64,
    size: u64,
    executable: bool,
}

impl<'f> Image<'f> {
    /// `None` for what is no executable or shared library of such a machine.
    pub(super) fn of(file: &'f File) -> Option<Self> {
        let length = file.metadata().ok()?.len();
        let cache = ReadCache::new(file);
        let header = Header::parse(&cache).ok().filter(|header| header.is_little_endian())?;
        // Counts that do not fit the header stand elsewhere, and may be anything.
        let countable = header.e_shnum.get(ENDIAN) < SECTIONS && header.e_phnum.get(ENDIAN) < elf::PN_XNUM;
        if !matches!(header.e_type(ENDIAN), elf::ET_EXEC | elf::ET_DYN) || !countable {
            return None;
        }
        let segments = header.program_headers(ENDIAN, &cache).ok()?;
        let loaded = segments.iter().filter(|segment| segment.p_type(ENDIAN) == elf::PT_LOAD);
        let segments = loaded.map(|segment| Segment {
            address: segment.p_vaddr(ENDIAN),
            at: segment.p_offset(ENDIAN),
            size: segment.p_filesz(ENDIAN),
            executable: segment.p_flags(ENDIAN) & elf::PF_X != 0,
        });
        let segments = segments.collect();
        let named = header.sections(ENDIAN, &cache).ok()?;
        let name = |section: &SectionHeader64<_>| named.section_name(ENDIAN, section).map(String::from_utf8_lossy);
        let sections = named.iter().map(|section| {
            let (at, size) = section.file_range(ENDIAN).unwrap_or_default();
            Section {
                name: name(section).unwrap_or_default().into_owned(),
                kind: section.sh_type(ENDIAN),
                address: section.sh_addr(ENDIAN),
                at,
                size,
                link: section.sh_link(ENDIAN) as usize,
            }
        });
        let sections = sections.collect();
        Some(Self { file, length, x86_64: header.e_machine(ENDIAN) == elf::EM_X86_64, sections, segments })
    }

    /// Octets of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    pub(super) fn sections_of_kind(&self, kind: u32) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(move |section| section.kind == kind)
    }

    /// The first section of a kind.
    pub(super) fn section_of_kind(&self, kind: u32) -> Option<&Section> {
        self.sections_of_kind(kind).next()
    }

    pub(super) fn section_by_number(&self, number: usize) -> Option<&Section> {
        self.sections.get(number)
    }

    /// The place in the file of an address in mapped code.
    pub(super) fn place_of_code(&self, address: u64) -> Option<u64> {
        self.place(address, |segment| segment.executable).map(|(at, _)| at)
    }

    /// `size` octets of the file from `at` on.
    pub(super) fn octets(&self, at: u64, size: u64) -> Option<Vec<u8>> {
        if at.checked_add(size)? > self.length {
            return None;
        }
        let mut octets = vec![0; usize::try_from(size).ok()?];
        self.file.read_exact_at(&mut octets, at).ok()?;
        Some(octets)
    }

    /// `size` octets that are mapped at `address`.
    pub(super) fn octets_at_address(&self, address: u64, size: u64) -> Option<Vec<u8>> {
        let (at, left) = self.place(address, |_| true)?;
        if size > left { None } else { self.octets(at, size) }
    }

    /// The word of 64 bits at `address`.
    pub(super) fn word_at_address(&self, address: u64) -> Option<u64> {
        let octets = self.octets_at_address(address, 8)?;
        octets.first_chunk().copied().map(u64::from_le_bytes)
    }

    /// Hands the octets of a section to `each` in pieces of at most `PIECE` octets, with where each begins. A piece begins
    /// `overlap` octets before the end of the one before; `overlap` is less than a piece.
    pub(super) fn pieces(&self, section: &Section, overlap: u64, mut each: impl FnMut(u64, &[u8])) {
        const PIECE: u64 = 1024 * 1024;
        let mut from = 0;
        while from < section.size {
            let size = PIECE.min(section.size - from);
            let Some(octets) = section.at.checked_add(from).and_then(|at| self.octets(at, size)) else { return };
            each(from, &octets);
            if from + size == section.size {
                return;
            }
            from += size - overlap;
        }
    }

    /// The place in the file of an address, and how many octets of its segment follow.
    fn place(&self, address: u64, wanted: impl Fn(&Segment) -> bool) -> Option<(u64, u64)> {
        self.segments.iter().filter(|segment| wanted(segment)).find_map(|segment| {
            let from = address.checked_sub(segment.address).filter(|from| *from < segment.size)?;
            let at = segment.at.checked_add(from).filter(|at| *at < self.length)?;
            Some((at, segment.size - from))
        })
    }
}
