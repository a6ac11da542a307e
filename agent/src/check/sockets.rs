//! The TCP sockets of processes, from `/proc`: who has any is likely to be of interest.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use procfs::ProcResult;
use procfs::net::TcpState;
use procfs::process::{FDTarget, Process};

/// A process's TCP sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// The ports it listens on, ascending, each once.
    pub listening: Vec<u16>,
    /// Established connections.
    pub connections: usize,
}

/// Listening ports (`Some`) and established connections (`None`) by the inode of their socket.
type Table = HashMap<u64, Option<u16>>;

/// The kernel's tables of TCP sockets, by network namespace, each read once.
#[derive(Default)]
pub(super) struct Tables(HashMap<PathBuf, Table>);

impl Tables {
    /// The TCP sockets of `pid`; `None` when its descriptors cannot be read, for want of privilege or since it is gone.
    pub(super) fn of(&mut self, pid: u32) -> Option<Sockets> {
        let process = Process::new(i32::try_from(pid).ok()?).ok()?;
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
        let table = self.0.entry(namespace).or_insert_with(|| table(&process));
        let mut listening = BTreeSet::new();
        // A socket may have several descriptors.
        let mut connections = BTreeSet::new();
        // Descriptors come and go while they are read.
        for descriptor in process.fd().ok()?.flatten() {
            let FDTarget::Socket(inode) = descriptor.target else { continue };
            match table.get(&inode) {
                Some(Some(port)) => {
                    listening.insert(*port);
                }
                Some(None) => {
                    connections.insert(inode);
                }
                None => {}
            }
        }
        Some(Sockets { listening: listening.into_iter().collect(), connections: connections.len() })
    }
}

/// Reads the tables of the network namespace that `process` is in. IPv6 may be switched off.
fn table(process: &Process) -> Table {
    let both: [ProcResult<_>; 2] = [process.tcp(), process.tcp6()];
    let entries = both.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| match entry.state {
            TcpState::Listen => Some((entry.inode, Some(entry.local_address.port()))),
            TcpState::Established => Some((entry.inode, None)),
            _ => None,
        })
        .collect()
}
