//! The memory of a process: octets and words. Nothing that is read is to be believed: the caller bounds each length, and an address
//! that is not mapped is `None`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// `/proc/PID/mem` takes offsets of this many bits.
const HIGHEST: u64 = i64::MAX as u64;

pub(super) struct Memory(File);

impl Memory {
    /// `None` when the process is gone, or may not be read.
    pub(super) fn of(tgid: u32) -> Option<Self> {
        File::open(format!("/proc/{tgid}/mem")).ok().map(Self)
    }

    pub(super) fn octets<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let mut octets = [0; N];
        self.fill(at, &mut octets)?;
        Some(octets)
    }

    pub(super) fn word(&self, at: u64) -> Option<u64> {
        self.octets(at).map(u64::from_le_bytes)
    }

    /// So many octets from an address on.
    pub(super) fn run(&self, at: u64, octets: usize) -> Option<Vec<u8>> {
        let mut read = vec![0; octets];
        self.fill(at, &mut read)?;
        Some(read)
    }

    /// The words in `octets` octets from an address on.
    pub(super) fn words(&self, at: u64, octets: u64) -> Option<Vec<u64>> {
        let read = self.run(at, usize::try_from(octets).ok()?)?;
        Some(read.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    fn fill(&self, at: u64, octets: &mut [u8]) -> Option<()> {
        self.0.read_exact_at(octets, Some(at).filter(|at| *at <= HIGHEST)?).ok()
    }
}
