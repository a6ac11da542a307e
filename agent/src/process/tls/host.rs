//! The TLS libraries that the host has installed, for processes to come: a short-lived one would be gone before its own
//! mappings could be looked at.

use std::path::PathBuf;

/// Where the dynamic linker looks (ld.so(8)), and where distributions with several architectures have them.
const FOLDERS: [&str; 7] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];
/// What TLS libraries are called.
const NAMES: [&str; 2] = ["libssl.so", "libgnutls.so"];

/// The libraries, each once.
#[must_use]
pub fn host_files() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| NAMES.iter().any(|name| entry.file_name().to_string_lossy().starts_with(name)))
        .filter_map(|entry| entry.path().canonicalize().ok())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}
