//! Machine code of x86-64: where a function returns, whether it calls another, and where a breakpoint costs least.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Register};
use object::elf;

use super::elf::Image;
use super::names::Defined;

/// The longest function that is read, in octets.
const FUNCTION: u64 = 256 * 1024;
/// What is read of a function whose symbol does not tell its size.
const UNKNOWN: u64 = 256;
/// What is read of a function of which only the beginning is of interest.
const BEGINNING: u64 = 64;
/// A stub of the procedure linkage table, in octets.
const STUB: u64 = 16;
/// The octets of a relocation: address, information, addend (`Elf64_Rela`).
const RELOCATION: usize = 24;
/// The longest table of relocations that is read, in octets.
const RELOCATIONS: u64 = 32 * 1024 * 1024;

/// A `RET` of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ret {
    pub(super) address: u64,
    /// How many closures are called on the way to it and nothing else, as Go does with what was deferred.
    pub(super) closures: usize,
    /// Where on the stack the first result is taken from after those, in octets from the stack pointer.
    pub(super) slot: Option<u64>,
}

/// All `RET`s in the function between two addresses. `None` when something there is no instruction, since then one that looks
/// like a `RET` may be part of another.
pub(super) fn returns(image: &Image<'_>, from: u64, to: u64) -> Option<Vec<Ret>> {
    let size = to.checked_sub(from).filter(|size| *size <= FUNCTION)?;
    let octets = image.octets_at_address(from, size)?;
    let mut found = Vec::new();
    let (mut since, mut closures, mut slot, mut before) = (from, 0, None, Instruction::default());
    for instruction in instructions(&octets, from) {
        match instruction.code() {
            Code::INVALID => return None,
            // By Go's ABI a closure is in rdx, with its code's address in the first word.
            Code::Call_rm64 if before.code() == Code::Mov_r64_rm64 && before.memory_base() == Register::RDX => {
                if closures == 0 {
                    since = instruction.ip();
                }
                (closures, slot) = (closures + 1, None);
            }
            Code::Mov_r64_rm64 if instruction.memory_base() == Register::RSP => {
                if instruction.op0_register() == Register::RAX {
                    slot = Some(instruction.memory_displacement64());
                }
            }
            Code::Mov_r64_rm64 if instruction.memory_base() == Register::RDX => {}
            Code::Add_rm64_imm8 | Code::Add_rm64_imm32 if instruction.op0_register() == Register::RSP => {}
            // Of what was deferred, what is left to call.
            Code::Mov_rm8_imm8 | Code::Pop_r64 => {}
            Code::Retnq | Code::Retnq_imm16 => {
                let address = instruction.ip();
                let entered = is_entered(&octets, from, since, address);
                found.push(Ret { address, closures: if entered { 0 } else { closures }, slot });
                (closures, slot) = (0, None);
            }
            _ => (closures, slot) = (0, None),
        }
        before = instruction;
    }
    Some(found)
}

/// Whether a jump in the function leads to behind `since`, and not behind `until`.
fn is_entered(octets: &[u8], from: u64, since: u64, until: u64) -> bool {
    // 0 for instructions that are none.
    instructions(octets, from).map(|jump| jump.near_branch_target()).any(|target| since < target && target <= until)
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

/// The function that is handed all arguments of another one as they are, before that does anything else.
pub(super) fn passes_on(image: &Image<'_>, function: &Defined) -> Option<u64> {
    let octets = image.octets_at_address(function.address, BEGINNING).filter(|_| image.x86_64)?;
    let keeps_arguments = |instruction: &Instruction| match instruction.code() {
        Code::Endbr64 | Code::Push_r64 => true,
        Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 => instruction.op0_register() == Register::RSP,
        _ => false,
    };
    let first = instructions(&octets, function.address).find(|instruction| !keeps_arguments(instruction))?;
    (first.code() == Code::Call_rel32_64).then(|| first.near_branch_target())
}

/// Where a function that begins at `address` can be hooked at its beginning such that the kernel emulates the instruction
/// behind the breakpoint, and does not have the processor step over it: that is a second exception, which costs several
/// microseconds where a hypervisor has to see it. Linux emulates `push`, `nop` and relative jumps and calls
/// (arch/x86/kernel/uprobes.c); before it may stand what marks targets of indirect calls. Arguments and return address
/// are still where they were.
pub(super) fn emulated(image: &Image<'_>, address: u64) -> Option<u64> {
    let octets = image.octets_at_address(address, BEGINNING).filter(|_| image.x86_64)?;
    let first = instructions(&octets, address).find(|instruction| instruction.code() != Code::Endbr64)?;
    matches!(first.code(), Code::Push_r64 | Code::Jmp_rel32_64 | Code::Jmp_rel8_64 | Code::Call_rel32_64 | Code::Nopd)
        .then(|| first.ip())
}

/// The same for a function of Go's, which may begin by comparing its stack with its end: behind that, so that what runs a
/// second time with a larger stack is seen once.
pub(super) fn emulated_in_go(image: &Image<'_>, address: u64) -> Option<u64> {
    let octets = image.octets_at_address(address, BEGINNING).filter(|_| image.x86_64)?;
    let compares = |instruction: &Instruction| match instruction.code() {
        Code::Cmp_r64_rm64 | Code::Jbe_rel8_64 | Code::Jbe_rel32_64 => true,
        Code::Lea_r64_m => instruction.op0_register() == Register::R12,
        _ => false,
    };
    let first = instructions(&octets, address).find(|instruction| !compares(instruction))?;
    (first.code() == Code::Push_r64).then(|| first.ip())
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
