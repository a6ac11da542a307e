//! Who a process is: what a person would call it, what its resource says, and whether it is traced.
//!
//! [`read`] takes what `/proc` tells, once for each process; [`name`], [`container`] and [`environment`] make sense of
//! it, [`resource`] puts it in the terms of the semantic conventions, [`filter`] is the user's choice, and [`Processes`]
//! remembers all that; [`programs`] looks into executables: [`go`] finds the goroutines of Go programs, [`tls`] the functions of
//! TLS libraries. A process that ends before it can be read is called as its exec said.

mod args;
mod asyncio;
pub mod container;
pub mod environment;
pub mod filter;
pub mod go;
mod hpack;
mod maps;
mod memory;
pub mod name;
pub mod programs;
pub mod read;
pub mod resource;
mod table;
pub mod tls;

#[cfg(test)]
mod tests;

pub use self::table::Processes;
