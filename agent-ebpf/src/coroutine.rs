//! Which coroutine a thread runs, read from the program's own memory.
//!
//! Of a Go program the goroutine: `fsbase → g → m → curg`. During a system call the thread may be on its system stack (`m.g0`), so
//! the goroutine is the one that `m.curg` names. It has to name its `m` in turn: offsets that do not fit the program give nothing.
//!
//! Of a Python program the task of its event loop ([`agent_common::asyncio`]). That the thread is the loop's own is not looked at:
//! user space believes a task only where the same thread answers a request in it.

use agent_common::asyncio;
use agent_common::layout::{PROCESS_ASYNCIO, PROCESS_GO, PROCESS_LOOKED_INTO};
use agent_common::record::Coroutine;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_loop};

use crate::call::user;
use crate::maps::{ASYNCIO, GO, PROCESSES, given};
use crate::socket::{Socket, coroutines, kernel};

/// Whether the coroutine can be told of a thread that uses a socket. Of a process that user space has looked into it costs
/// no look-up.
#[inline(always)]
pub fn is_told(socket: &mut Socket, thread: u64) -> bool {
    if socket.coroutines == coroutines::UNKNOWN {
        // SAFETY: values are single octets.
        let bits = unsafe { PROCESSES.get(&((thread >> 32) as u32)) }.copied().unwrap_or_default();
        socket.coroutines = match bits & (PROCESS_LOOKED_INTO | PROCESS_GO | PROCESS_ASYNCIO) {
            0 => coroutines::UNKNOWN,
            PROCESS_LOOKED_INTO => coroutines::NONE,
            _ => coroutines::SOME,
        };
    }
    socket.coroutines == coroutines::SOME
}

/// Notes the coroutine that the current thread runs; leaves `place` as it is when that is not known. A function of its own,
/// so that its frame adds to no chain of calls.
#[inline(never)]
pub fn note(place: *mut Coroutine, thread: u64) {
    if let Some(coroutine) = goroutine(thread).or_else(|| task(thread)) {
        // SAFETY: the caller gives a place in a map's value or on its stack, which the verifier checks.
        unsafe { place.write(coroutine) };
    }
}

/// The task of the event loop in the current thread's process.
#[inline(always)]
fn task(thread: u64) -> Option<Coroutine> {
    // SAFETY: the entry is only replaced as a whole, by user space.
    let layout = unsafe { ASYNCIO.get(&((thread >> 32) as u32)) }?;
    let mut next = asyncio::current_task(layout, word);
    let mut names = [0; 3];
    for name in &mut names {
        let Some(task) = next else { break };
        *name = asyncio::name(layout, task, word);
        next = asyncio::waiter(layout, task, |variables| search(layout.module, variables), word);
    }
    if names[0] == 0 { None } else { Some(Coroutine::task(names)) }
}

#[inline(always)]
fn goroutine(thread: u64) -> Option<Coroutine> {
    // SAFETY: the entry is only replaced as a whole, by user space.
    let layout = unsafe { GO.get(&((thread >> 32) as u32)) }?;
    let fsbase: u64 = match given!(LAYOUT.task_fsbase) {
        0 => return None,
        // SAFETY: the helper has no preconditions.
        offset => kernel(unsafe { bpf_get_current_task_btf() } as u64, offset)?,
    };
    let field = |base: u64, offset: u32| user::<u64>(base.wrapping_add(u64::from(offset)));
    let m = field(user(fsbase.wrapping_add(layout.tls))?, layout.g_m)?;
    let goroutine = field(m, layout.m_curg)?;
    if goroutine == 0 || field(goroutine, layout.g_m) != Some(m) {
        return None;
    }
    let id = field(goroutine, layout.g_goid)?;
    let parent = if layout.g_parent == 0 { 0 } else { field(goroutine, layout.g_parent)? };
    // In a system call the thread has given its processor away and only remembers it.
    let processor = match field(m, layout.m_p)? {
        0 => field(m, layout.m_oldp)?,
        processor => processor,
    };
    let [next, end] = match processor {
        0 => [0, 0],
        processor => user::<[u64; 2]>(processor.wrapping_add(u64::from(layout.p_goidcache)))?,
    };
    Some(Coroutine { id: id as u32, parent: parent as u32, next: next as u32, end: end as u32 })
}

/// A search among the variables of a function.
struct Search {
    module: [u64; 2],
    variables: u64,
    found: u64,
}

/// The first task that waits for one of a function's variables; 0 where none does. A loop that the verifier goes through once: turn by
/// turn it took half of all the time that the programs need to be loaded.
#[inline(always)]
fn search(module: [u64; 2], variables: u64) -> u64 {
    let mut search = Search { module, variables, found: 0 };
    let turn = look_at as *mut core::ffi::c_void;
    // SAFETY: the callback has the signature that bpf_loop asks for, and its context lives longer than the call.
    unsafe { bpf_loop(asyncio::VARIABLES, turn, (&raw mut search).cast(), 0) };
    search.found
}

/// One variable; 1 where it is what is looked for, which ends the loop.
#[inline(never)]
extern "C" fn look_at(number: u32, search: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `search` gives its own, and does not use it meanwhile.
    let search = unsafe { &mut *search.cast::<Search>() };
    match asyncio::waiting_in(search.module, search.variables, number, word) {
        Some(waiter) if waiter != 0 => {
            search.found = waiter;
            1
        }
        _ => 0,
    }
}

/// Eight octets of the process's memory; 0 where there is none. A function of its own, as each copy of it in [`task`] would take
/// room in that frame: the chain of calls that moves several messages at once then needs more stack than there is.
#[inline(never)]
fn word_or_zero(at: u64) -> u64 {
    user(at).unwrap_or_default()
}

#[inline(always)]
fn word(at: u64) -> Option<u64> {
    Some(word_or_zero(at))
}
