//! Where the TLS of a process can be seen in plaintext: the files that it runs ([`files`]), and the places in each at which
//! its TLS library takes plaintext from the program or hands it over ([`places`]).
//!
//! What is found depends on the file alone, not on the process, and costs reading much of it: a caller remembers it by the
//! file. [`elf`] reads files, [`names`] their symbols; [`c`] knows OpenSSL, BoringSSL and GnuTLS, [`rust`] rustls, [`go`]
//! Go's `crypto/tls`; [`code`] reads machine code.
//!
//! Not found: what has no symbols any more, but for Go; what a compiler has put into its callers; libraries under names that
//! nobody gives them; Java's own TLS, whose code the JVM makes as it runs.

mod c;
mod code;
mod elf;
mod files;
mod go;
mod host;
mod names;
mod rust;

use std::fs::File;

use agent_common::tls::Deferred;

pub use self::files::{Mapped, files};
pub use self::host::host_files;

/// One place to be hooked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which function it belongs to: [`agent_common::tls::function`].
    pub function: u64,
    /// Octets from the file's beginning, as uprobes count.
    pub at: u64,
    pub kind: Kind,
}

/// What happens at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The function begins.
    Entry,
    /// The function that begins there returns: a uretprobe.
    Return,
    /// An instruction by which the function returns: a uprobe. Go moves its stacks, which no uretprobe survives.
    Ret,
    /// The beginning of what the function has deferred, which it calls last when it returns: a uprobe that costs less.
    Deferred(Deferred),
}

/// The most places of one file. A program has a few dozen at most.
const PLACES: usize = 256;

/// The places in an executable or a shared library, in order, none twice; none when it is neither, or damaged.
#[must_use]
pub fn places(file: &File) -> Vec<Place> {
    let Some(image) = elf::Image::of(file) else { return Vec::new() };
    let mut found = go::places(&image);
    // A Go program has the C libraries that it is linked with as others do.
    found.extend(c_and_rust(&image));
    found.sort_unstable();
    found.dedup();
    found.truncate(PLACES);
    found
}

/// Those of functions that symbols tell. The symbols that the dynamic linker needs are looked through first: where a file
/// has a library's functions there, it has no others of its kind.
fn c_and_rust(image: &elf::Image<'_>) -> Vec<Place> {
    let exported = names::defined(image, names::Table::Dynamic, c::function);
    if !exported.is_empty() {
        return c::places(image, &exported);
    }
    let all = names::defined(image, names::Table::Full, |name| c::function(name).or_else(|| rust::function(name)));
    c::places(image, &all)
}

#[cfg(test)]
mod tests;
