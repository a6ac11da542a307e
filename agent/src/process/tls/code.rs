//! Machine code of x86-64: where a function returns, and whether it calls another.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction};
use object::elf;

use super::elf::Image;
use super::names::Defined;

/// The longest function that is read, in octets.
const FUNCTION: u64 = 256 * 1024;
/// What is read of a function whose symbol does not tell its size.
const UNKNOWN: u64 = 256;
/// A stub of the procedure linkage table, in octets.
const STUB: u64 = 16;
/// The octets of a relocation: address, information, addend (`Elf64_Rela`).
const RELOCATION: usize = 24;
/// The longest table of relocations that is read, in octets.
const RELOCATIONS: u64 = 32 * 1024 * 1024;

/// The addresses of all `RET` in the function between two addresses. `None` when something there is no instruction, since
/// then one that looks like a `RET` may be part of another.
pub(super) fn returns(image: &Image<'_>, from: u64, to: u64) -> Option<Vec<u64>> {
    let size = to.checked_sub(from).filter(|size| *size <= FUNCTION)?;
    let octets = image.octets_at_address(from, size)?;
    let mut found = Vec::new();
    for instruction in instructions(&octets, from) {
        match instruction.code() {
            Code::INVALID => return None,
            Code::Retnq | Code::Retnq_imm16 => found.push(instruction.ip()),
            _ => {}
        }
    }
    Some(found)
}

/// Whether a function calls the one at `target`, or goes on there, also by way of the procedure linkage table. Taken to be
/// so for other machines.
pub(super) fn calls(image: &Image<'_>, function: &Defined, target: u64) -> bool {
    if !image.x86_64 {
        return true;
    }
    let size = if function.size == 0 { UNKNOWN } else { function.size.min(FUNCTION) };
    let Some(octets) = image.octets_at_address(function.address, size) else { return false };
    instructions(&octets, function.address)
        .filter(|instruction| {
            matches!(instruction.code(), Code::Call_rel32_64 | Code::Jmp_rel32_64 | Code::Jmp_rel8_64)
        })
        .map(|instruction| instruction.near_branch_target())
        .any(|to| to == target || behind_stub(image, to) == Some(target))
}

fn instructions(octets: &[u8], address: u64) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, octets, address, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
}

/// Where the stub at `address` leads: it jumps to what a word holds that the dynamic linker fills, by a relocation.
fn behind_stub(image: &Image<'_>, address: u64) -> Option<u64> {
    let octets = image.octets_at_address(address, STUB)?;
    let jump = instructions(&octets, address).take(2).find(|instruction| instruction.code() == Code::Jmp_rm64)?;
    let word = jump.is_ip_rel_memory_operand().then(|| jump.ip_rel_memory_address())?;
    let symbols = image.section_of_kind(elf::SHT_DYNSYM)?;
    image.sections_of_kind(elf::SHT_RELA).filter(|table| table.size <= RELOCATIONS).find_map(|table| {
        let octets = image.octets(table.at, table.size)?;
        let entry = octets.as_chunks::<RELOCATION>().0.iter().find(|entry| entry[..8] == word.to_le_bytes())?;
        let symbol = u64::from(u32::from_le_bytes(*entry[12..].first_chunk()?));
        let value = image.octets(symbols.at.checked_add(symbol * 24 + 8)?, 8)?;
        value.first_chunk().copied().map(u64::from_le_bytes)
    })
}
