//! The system call in progress or ending: its result, its arguments, and when it began to send.

use agent_common::limits::ENTERED as SLOTS;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_probe_read_user, bpf_task_pt_regs};
use aya_ebpf::programs::TracePointContext;

use crate::maps::ENTERED;
use crate::payload::Payload;

/// When a thread entered the sending call it is in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Entered {
    at: u64,
    thread: u64,
}

/// `user_msghdr`: `msg_iov` and `msg_iovlen` (include/linux/socket.h).
const MSGHDR_IOV: u64 = 16;

const MSG_PEEK: u64 = 0x2;
const MSG_TRUNC: u64 = 0x20;
const MSG_ERRQUEUE: u64 = 0x2000;

/// The thread that runs: thread-group id in the upper half, thread id in the lower.
#[inline(always)]
pub fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn slot(thread: u64) -> u32 {
    (thread as u32) & (SLOTS - 1)
}

/// Remembers that this thread enters a sending call now.
#[inline(always)]
pub fn note_entry() {
    let thread = thread();
    if let Some(entered) = ENTERED.get_ptr_mut(slot(thread)) {
        // SAFETY: a value of the array; another thread of the same slot may write too, which `take_entry` notices.
        unsafe { entered.write(Entered { at: now(), thread }) };
    }
}

/// Remembers that this thread begins to send now, unless it began before in the same call: a long buffer is sent in
/// several turns.
#[inline(always)]
pub fn note_turn() {
    let thread = thread();
    if let Some(entered) = ENTERED.get_ptr_mut(slot(thread)) {
        // SAFETY: as in `note_entry`.
        let entered = unsafe { &mut *entered };
        if entered.thread != thread || entered.at == 0 {
            *entered = Entered { at: now(), thread };
        }
    }
}

/// When this thread entered the call that is ending, unless another thread took its slot since, or the call began
/// before the agent.
#[inline(always)]
pub fn entry(thread: u64) -> Option<u64> {
    let entered = ENTERED.get(slot(thread))?;
    (entered.thread == thread && entered.at != 0).then_some(entered.at)
}

/// Forgets what [`note_turn`] noted: the call has sent what it will.
#[inline(always)]
pub fn forget_turns(thread: u64) {
    if let Some(entered) = ENTERED.get_ptr_mut(slot(thread)) {
        // SAFETY: as in `note_entry`.
        unsafe { (*entered).at = 0 };
    }
}

/// What the ending call returned; only results that say something about a connection.
#[derive(Clone, Copy)]
pub enum Exit {
    Moved(u32),
    /// 0: the end of the stream for a receiving call.
    Nothing,
    /// The connection is lost: `ECONNRESET`, `EPIPE`, `ETIMEDOUT`.
    Lost(u8),
}

const EPIPE: i64 = 32;
const ECONNRESET: i64 = 104;
const ETIMEDOUT: i64 = 110;

/// The result of the ending call (`long ret` at offset 16 of `sys_exit_*`).
#[inline(always)]
pub fn result(ctx: &TracePointContext) -> i64 {
    // SAFETY: the context of a `sys_exit_*` tracepoint has `ret` there, as its format file says; direct access to the
    // context of a tracepoint is checked by the verifier.
    unsafe { *ctx.as_ptr().cast::<u8>().add(16).cast::<i64>() }
}

impl Exit {
    /// What the call that is ending returned.
    #[inline(always)]
    pub fn of(ctx: &TracePointContext) -> Option<Self> {
        Self::with(result(ctx))
    }

    /// `None` for results that mean nothing here, such as `EAGAIN`, by far the most frequent.
    #[inline(always)]
    pub fn with(result: i64) -> Option<Self> {
        if result > 0 {
            return Some(Self::Moved(result as u32));
        }
        match -result {
            0 => Some(Self::Nothing),
            EPIPE => Some(Self::Lost(EPIPE as u8)),
            ECONNRESET => Some(Self::Lost(ECONNRESET as u8)),
            ETIMEDOUT => Some(Self::Lost(ETIMEDOUT as u8)),
            _ => None,
        }
    }
}

/// The arguments of the current thread's system call, from the registers saved when it entered the kernel.
pub struct Call(*const u8);

// Offsets in the saved registers (`struct pt_regs`, arch/x86/include/asm/ptrace.h): all that differs by architecture.
#[cfg(bpf_target_arch = "x86_64")]
mod regs {
    pub const ARGS: [usize; 4] = [112, 104, 96, 56];
    /// `r14`
    pub const GOROUTINE: usize = 8;
    /// `ax`, `orig_ax` and `cs`.
    pub const RESULT: usize = 80;
    pub const NUMBER: usize = 120;
    /// `sendmsg` and `recvmsg` (arch/x86/entry/syscalls/syscall_64.tbl).
    pub const MESSAGES: [u64; 2] = [46, 47];
    pub const SEGMENT: usize = 136;
    /// What the entry into the kernel puts into `ax` until the call returns (`PUSH_AND_CLEAR_REGS rax=$-ENOSYS`,
    /// arch/x86/entry/entry_64.S).
    pub const IN_PROGRESS: i64 = -38;
    /// `__USER_CS`: not a 32-bit call, whose numbers are others.
    pub const USER_64: u16 = 0x33;
}
// On arm64 the first argument's register holds the result at the return; `orig_x0` keeps it
// (struct pt_regs, arch/arm64/include/asm/ptrace.h).
#[cfg(bpf_target_arch = "aarch64")]
mod regs {
    pub const ARGS: [usize; 4] = [272, 8, 16, 24];
    /// `x28`
    pub const GOROUTINE: usize = 224;
    /// `x8`, with the number of the call; `sendmsg` and `recvmsg` (include/uapi/asm-generic/unistd.h).
    pub const NUMBER: usize = 64;
    pub const MESSAGES: [u64; 2] = [211, 212];
}

impl Call {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helpers have no preconditions; the pointer is of a type that the verifier lets programs read.
        unsafe { Self(bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8) }
    }

    #[inline(always)]
    fn arg<const N: usize>(&self) -> u64 {
        // SAFETY: a constant offset inside `struct pt_regs`; the verifier checks it against the kernel's type.
        unsafe { *self.0.add(regs::ARGS[N]).cast::<u64>() }
    }

    /// What is in the register where functions of Go keep the address of the running `runtime.g`.
    #[inline(always)]
    pub fn goroutine(&self) -> u64 {
        // SAFETY: a constant offset inside `struct pt_regs`; the verifier checks it against the kernel's type.
        unsafe { *self.0.add(regs::GOROUTINE).cast::<u64>() }
    }

    /// The number of the call that the thread is in (arch/x86/entry/syscalls/syscall_64.tbl). `None` for a kernel thread,
    /// for work that the kernel does on the way back to user space, and for 32-bit calls: what the registers say is
    /// then not about what the kernel is doing.
    #[cfg(bpf_target_arch = "x86_64")]
    #[inline(always)]
    pub fn number(&self) -> Option<u64> {
        // SAFETY: constant offsets inside `struct pt_regs`; the verifier checks them against the kernel's type.
        let (result, number, segment) = unsafe {
            (
                *self.0.add(regs::RESULT).cast::<i64>(),
                *self.0.add(regs::NUMBER).cast::<u64>(),
                *self.0.add(regs::SEGMENT).cast::<u16>(),
            )
        };
        (result == regs::IN_PROGRESS && segment == regs::USER_64).then_some(number)
    }

    /// Not tried on other architectures: capture stays at the system calls there.
    #[cfg(not(bpf_target_arch = "x86_64"))]
    #[inline(always)]
    pub fn number(&self) -> Option<u64> {
        None
    }

    /// Whether the call that is in progress or ending is one of `sendmsg` and `recvmsg`.
    #[inline(always)]
    pub fn is_message(&self) -> bool {
        // SAFETY: a constant offset inside `struct pt_regs`; the verifier checks it against the kernel's type.
        regs::MESSAGES.contains(&unsafe { *self.0.add(regs::NUMBER).cast::<u64>() })
    }

    #[inline(always)]
    pub fn arg0(&self) -> u64 {
        self.arg::<0>()
    }

    #[inline(always)]
    pub fn arg1(&self) -> u64 {
        self.arg::<1>()
    }

    #[inline(always)]
    pub fn arg2(&self) -> u64 {
        self.arg::<2>()
    }

    #[inline(always)]
    pub fn arg3(&self) -> u64 {
        self.arg::<3>()
    }
}

/// Reads a value from user memory; `None` when it is not there.
#[inline(always)]
pub fn user<T: Copy>(at: u64) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the destination has the size given; the source may be any address, the helper checks it.
    let result = unsafe {
        bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, at as *const core::ffi::c_void)
    };
    // SAFETY: the helper wrote all octets when it returned 0, and `T` is made of integers wherever this is used.
    (result == 0).then(|| unsafe { value.assume_init() })
}

/// The payload that a `user_msghdr` describes; one that cannot be read has its vectors nowhere. Another kind of payload
/// then would leave fields undefined, which the verifier refuses where the compiler reads them before it looks at the kind.
#[inline(always)]
pub fn message(at: u64) -> Payload {
    let [at, count] = user(at.wrapping_add(MSGHDR_IOV)).unwrap_or([0, 0]);
    Payload::Vectors { at, count }
}

/// What a receiving call with these flags brought: nothing new when it only peeked, octets that went nowhere when it
/// threw them away (tcp(7), `MSG_TRUNC`).
#[inline(always)]
pub fn received(flags: u64, payload: Payload) -> Option<Payload> {
    if flags & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
        return None;
    }
    Some(if flags & MSG_TRUNC != 0 { Payload::Unseen } else { payload })
}
