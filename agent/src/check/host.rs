//! What a check asks a host, apart from what it makes of the answers.

use std::io;

use agent_common::layout::Layout;

use super::sockets::{Sockets, Tables};
use crate::probe;
use crate::probe::hooks::Hook;

/// A host to be checked.
pub trait Host {
    /// The text of a file.
    ///
    /// # Errors
    /// As for reading a file; what is not UTF-8 is replaced.
    fn text(&self, path: &str) -> io::Result<String>;

    /// Where a symbolic link points to.
    ///
    /// # Errors
    /// As for reading a link.
    fn link(&self, path: &str) -> io::Result<String>;

    /// Where the kernel keeps what capture reads.
    ///
    /// # Errors
    /// What is missing, in words.
    fn layout(&self) -> Result<Layout, String>;

    /// Tries to attach each hook, and lets go.
    ///
    /// # Errors
    /// Why none can be tried.
    fn try_hooks(&self, layout: &Layout) -> anyhow::Result<Vec<(Hook, anyhow::Result<()>)>>;

    /// The TCP sockets of a process; `None` when they cannot be read.
    fn sockets(&mut self, pid: u32) -> Option<Sockets>;
}

/// The host that this runs on.
#[derive(Default)]
pub struct ThisHost {
    tables: Tables,
}

impl Host for ThisHost {
    fn text(&self, path: &str) -> io::Result<String> {
        std::fs::read(path).map(|octets| String::from_utf8_lossy(&octets).into_owned())
    }

    fn link(&self, path: &str) -> io::Result<String> {
        std::fs::read_link(path).map(|target| target.to_string_lossy().into_owned())
    }

    fn layout(&self) -> Result<Layout, String> {
        probe::btf::kernel().map(|kernel| kernel.layout).map_err(|error| error.to_string())
    }

    fn try_hooks(&self, layout: &Layout) -> anyhow::Result<Vec<(Hook, anyhow::Result<()>)>> {
        probe::try_hooks(layout)
    }

    fn sockets(&mut self, pid: u32) -> Option<Sockets> {
        self.tables.of(pid)
    }
}
