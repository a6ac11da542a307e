//! The registers at the entry and the return of a function in user space: all that differs by architecture.

use aya_ebpf::EbpfContext;

pub struct Registers(*const u8);

// Offsets in `struct pt_regs` (arch/x86/include/asm/ptrace.h). C: System V's ABI. Go: its ABIInternal
// (src/cmd/compile/abi-internal.md), which keeps the running goroutine in r14.
#[cfg(bpf_target_arch = "x86_64")]
mod offset {
    pub const C: [usize; 5] = [112, 104, 96, 88, 72];
    pub const GO: [usize; 5] = [80, 40, 88, 112, 104];
    pub const RESULT: usize = 80;
    pub const GOROUTINE: usize = 8;
    pub const INSTRUCTION: usize = 128;
    pub const STACK: usize = 152;
}
// `struct user_pt_regs` (arch/arm64/include/uapi/asm/ptrace.h); Go keeps the running goroutine in x28.
#[cfg(bpf_target_arch = "aarch64")]
mod offset {
    pub const C: [usize; 5] = [0, 8, 16, 24, 32];
    pub const GO: [usize; 5] = C;
    pub const RESULT: usize = 0;
    pub const GOROUTINE: usize = 224;
    pub const INSTRUCTION: usize = 256;
    pub const STACK: usize = 248;
}

impl Registers {
    #[inline(always)]
    pub fn of<C: EbpfContext>(ctx: &C) -> Self {
        Self(ctx.as_ptr().cast())
    }

    #[inline(always)]
    fn at(&self, offset: usize) -> u64 {
        // SAFETY: a constant offset inside `struct pt_regs`, which the verifier lets programs of this kind read.
        unsafe { self.0.add(offset).cast::<u64>().read_volatile() }
    }

    /// The first five arguments of a function of C.
    #[inline(always)]
    pub fn arguments(&self) -> [u64; 5] {
        offset::C.map(|offset| self.at(offset))
    }

    /// The first five words of the arguments of a function of Go.
    #[inline(always)]
    pub fn go_arguments(&self) -> [u64; 5] {
        offset::GO.map(|offset| self.at(offset))
    }

    #[inline(always)]
    pub fn result(&self) -> u64 {
        self.at(offset::RESULT)
    }

    /// The address of the instruction.
    #[inline(always)]
    pub fn instruction(&self) -> u64 {
        self.at(offset::INSTRUCTION)
    }

    #[inline(always)]
    pub fn stack(&self) -> u64 {
        self.at(offset::STACK)
    }

    /// The address of the running `runtime.g`, in a function of Go.
    #[inline(always)]
    pub fn goroutine(&self) -> u64 {
        self.at(offset::GOROUTINE)
    }
}
