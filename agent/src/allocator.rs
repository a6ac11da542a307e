//! The agent's own memory. Exchanges and spans are made on one thread and freed on another, by the hundred thousand a
//! second, which mimalloc does in about half the time of glibc's allocator; here it is told to keep little in hand.
#![allow(unsafe_code, reason = "the settings of the allocator have no safe interface")]

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h: milliseconds until memory that was freed goes back to the kernel.
const PURGE_DELAY: mi_option_t = 15;

/// Sets the allocator up; to be called before anything of size.
pub fn configure() {
    // A huge page for a few octets in use would count as two megabytes.
    // SAFETY: the call changes a flag of this process alone. Where it is refused, more memory is resident.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    // SAFETY: the option exists since mimalloc 1.6; nothing else sets it.
    unsafe { mi_option_set(PURGE_DELAY, 1) };
}

/// Gives memory back to the kernel that is not in use any more: reading the kernel's type information takes tens of
/// megabytes once.
pub fn give_back() {
    // SAFETY: the function only touches the allocator's own free memory.
    unsafe { mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_purge_delay() {
        // SAFETY: reads a setting. A second is its default in mimalloc 3; no other option has that.
        let delay = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay, 1_000);
    }
}
