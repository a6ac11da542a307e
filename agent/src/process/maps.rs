//! Which files a process has mapped, and where.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

/// The most octets read of a process's list of mappings.
const LIST: u64 = 4 * 1024 * 1024;

/// A file as a process has mapped it.
#[derive(Debug)]
pub(super) struct Mapping {
    /// The address of its first octet.
    pub(super) start: u64,
    /// The last part of its path.
    pub(super) name: String,
    /// All of its path, as the process sees it.
    path: String,
}

impl Mapping {
    /// The file, as seen from here.
    pub(super) fn path(&self, tgid: u32) -> PathBuf {
        PathBuf::from(format!("/proc/{tgid}/root{}", self.path))
    }
}

/// The first file mapped from its beginning on with a name that `is_it` (proc_pid_maps(5)).
pub(super) fn mapping(tgid: u32, is_it: impl Fn(&str) -> bool) -> Option<Mapping> {
    let list = BufReader::new(File::open(format!("/proc/{tgid}/maps")).ok()?.take(LIST));
    list.split(b'\n').map_while(Result::ok).find_map(|line| {
        let line = std::str::from_utf8(&line).ok()?;
        let (addresses, rest) = line.split_once(' ')?;
        let path = rest.get(rest.find('/')?..)?;
        let name = path.rsplit('/').next().filter(|name| is_it(name))?;
        let offset = rest.split(' ').nth(1)?;
        let start = u64::from_str_radix(addresses.split('-').next()?, 16).ok()?;
        (u64::from_str_radix(offset, 16) == Ok(0)).then(|| Mapping {
            start,
            name: name.to_owned(),
            path: path.to_owned(),
        })
    })
}
