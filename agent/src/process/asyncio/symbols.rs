//! Where the interpreter has what it lets others use.

use std::fs::File;

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, SectionHeader as _, Sym as _};
use object::{LittleEndian, ReadCache};

use crate::process::maps::mapping;
use crate::process::memory::Memory;

const ENDIAN: LittleEndian = LittleEndian;
/// The most octets of a table of symbols.
const SYMBOLS: u64 = 4 * 1024 * 1024;

/// The address in a process of a symbol of Python's, which the executable has, or the library beside it.
pub(super) fn address(tgid: u32, memory: &Memory, minor: u32, name: &[u8]) -> Option<u64> {
    let library = format!("libpython3.{minor}.so");
    let exe = format!("/proc/{tgid}/exe");
    let executable = std::fs::read_link(&exe).ok()?;
    let executable = executable.file_name()?.to_str()?;
    if let Some(address) = symbol(File::open(exe).ok()?, name) {
        return memory.program(mapping(tgid, |mapped| mapped == executable)?.start)?.place(address);
    }
    let mapped = mapping(tgid, |mapped| mapped.starts_with(&library))?;
    memory.program(mapped.start)?.place(symbol(File::open(mapped.path(tgid)).ok()?, name)?)
}

fn symbol(file: File, name: &[u8]) -> Option<u64> {
    let file = ReadCache::new(file);
    let header = FileHeader64::<LittleEndian>::parse(&file).ok()?;
    if header.e_shnum.get(ENDIAN) == 0 {
        return None;
    }
    let sections = header.sections(ENDIAN, &file).ok()?;
    let (_, table) = sections.iter().enumerate().find(|(_, section)| section.sh_type(ENDIAN) == elf::SHT_DYNSYM)?;
    if table.sh_size(ENDIAN) > SYMBOLS {
        return None;
    }
    let symbols = sections.symbols(ENDIAN, &file, elf::SHT_DYNSYM).ok()?;
    let found = symbols.iter().find(|symbol| symbol.name(ENDIAN, symbols.strings()) == Ok(name))?;
    Some(found.st_value(ENDIAN)).filter(|address| *address != 0)
}
