//! The memory of a process that runs Python: the programs mapped in it, and a few of its objects.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use crate::process::memory::Memory;

/// `PyObject.ob_type`, `PyTypeObject.tp_name`: the same in all releases of Python 3.
const TYPE: u64 = 8;
const NAME: u64 = 24;
/// A program's headers stand in its first octets.
const HEADERS: usize = 4096;

impl Memory {
    /// Whether an object of just this type stands at the address.
    fn is(&self, object: u64, name: &[u8; 5]) -> bool {
        let word = |at: u64| self.word(at);
        let name_at = (object != 0 && object.is_multiple_of(8))
            .then(|| word(object.checked_add(TYPE)?))
            .flatten()
            .and_then(|kind| word(kind.checked_add(NAME)?));
        name_at.and_then(|at| self.octets::<5>(at)).as_ref() == Some(name)
    }

    pub(super) fn is_dict(&self, object: u64) -> bool {
        self.is(object, b"dict\0")
    }

    /// The program or library that is mapped from here on.
    pub(super) fn program(&self, start: u64) -> Option<Program> {
        let headers: [u8; HEADERS] = self.octets(start)?;
        let header = FileHeader64::<LittleEndian>::parse(&headers[..]).ok()?;
        let segments = header.program_headers(LittleEndian, &headers[..]).ok()?;
        let loaded = || segments.iter().filter(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD);
        let lowest = loaded().map(|segment| segment.p_vaddr(LittleEndian)).min()?;
        let place = |at: u64| at.checked_sub(lowest)?.checked_add(start);
        let mut program = Program { start, lowest, end: start, zeroed: None };
        for segment in loaded() {
            let at = segment.p_vaddr(LittleEndian);
            let (in_file, in_memory) = (segment.p_filesz(LittleEndian), segment.p_memsz(LittleEndian));
            program.end = program.end.max(place(at.checked_add(in_memory)?)?);
            if segment.p_flags(LittleEndian) & elf::PF_W != 0 {
                let rest = in_memory.checked_sub(in_file)?;
                program.zeroed = Some((place(at.checked_add(in_file)?)?, rest));
            }
        }
        Some(program)
    }
}

/// A program or library in memory.
#[derive(Debug)]
pub(super) struct Program {
    start: u64,
    /// The address that its first segment has in the file.
    lowest: u64,
    end: u64,
    zeroed: Option<(u64, u64)>,
}

impl Program {
    /// Its static data that begins as zeros: address and octets.
    pub(super) fn zeroed(&self) -> Option<(u64, u64)> {
        self.zeroed
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    /// Where something stands that has this address in the file.
    pub(super) fn place(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.lowest)?.checked_add(self.start)
    }
}
