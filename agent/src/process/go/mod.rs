//! Where Go programs keep what tells their goroutines apart.
//!
//! The kernel side reads the goroutine of a thread from the program's memory, and has to know where. That is found out from
//! the executable ([`binary`]).

mod binary;
mod debug;
mod releases;

pub(super) use self::binary::layout;

#[cfg(test)]
pub(super) mod tests;
