//! The files of a process that may carry a TLS library: its executable, and mapped libraries with the name of one.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Parts of the names of libraries: of OpenSSL and BoringSSL, as they are and inside others (Conscrypt and Netty of Java,
/// Python's module where it was linked with all it needs), and of GnuTLS.
const NAMES: [&str; 7] = ["libssl", "boringssl", "libgnutls", "conscrypt", "tcnative", "_ssl.", "libpython"];
/// The most that is read of a list of mappings, in octets. Processes with tens of thousands of mappings exist.
const LIST: u64 = 16 * 1024 * 1024;
/// The most files of a process.
const FILES: usize = 32;

/// A file that a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Where this process can open it, and the kernel attach to it: also in a container, and when it was deleted.
    pub path: PathBuf,
    /// What the process calls it.
    pub name: String,
}

/// One line of a list of mappings.
struct Line<'a> {
    addresses: &'a str,
    /// Device and inode as the list has them. On some file systems the device is not the one that `stat` tells.
    file: (&'a str, u64),
    name: &'a str,
}

/// The executable of a process, and those of its libraries that may be about TLS. Empty when it is gone.
#[must_use]
pub fn files(pid: u32) -> Vec<Mapped> {
    let mut found = Vec::new();
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    if let Ok(name) = fs::read_link(&exe) {
        found.push(Mapped { path: exe, name: name.to_string_lossy().into_owned() });
    }
    let Ok(list) = File::open(format!("/proc/{pid}/maps")) else { return found };
    let mut seen = Vec::new();
    for line in BufReader::new(list.take(LIST)).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let Some(line) = code(&line).filter(|line| is_of_interest(line.name)) else { continue };
        let file = (line.file.0.to_owned(), line.file.1);
        // An executable may have such a name as well.
        if seen.contains(&file) || found.first().is_some_and(|exe| exe.name == line.name) {
            continue;
        }
        seen.push(file);
        found.push(Mapped { path: path(pid, &line), name: line.name.to_owned() });
        if found.len() >= FILES {
            break;
        }
    }
    found
}

/// What a line tells if it is of code from a file (proc_pid_maps(5)):
/// `7f0c8a600000-7f0c8a6a5000 r-xp 0001e000 fe:01 262201 /usr/lib/x86_64-linux-gnu/libssl.so.3`.
fn code(line: &str) -> Option<Line<'_>> {
    let (addresses, rest) = line.split_once(' ')?;
    let (rights, rest) = rest.split_once(' ')?;
    let (_offset, rest) = rest.split_once(' ')?;
    let (device, rest) = rest.split_once(' ')?;
    let (inode, name) = rest.split_once(' ')?;
    let (inode, name) = (inode.parse().ok()?, name.trim_start());
    let is_code = rights.as_bytes().get(2) == Some(&b'x') && inode != 0 && name.starts_with('/');
    is_code.then_some(Line { addresses, file: (device, inode), name })
}

fn is_of_interest(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    NAMES.iter().any(|part| name.contains(part))
}

/// The file under its name as the process sees it, if that is still the same file; else the mapping itself, which needs a
/// further capability (`CAP_CHECKPOINT_RESTORE`).
fn path(pid: u32, line: &Line<'_>) -> PathBuf {
    let named = PathBuf::from(format!("/proc/{pid}/root{}", line.name));
    match fs::metadata(&named) {
        Ok(there) if there.ino() == line.file.1 => named,
        _ => PathBuf::from(format!("/proc/{pid}/map_files/{}", line.addresses)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_code_from_files_count() {
        let line = "7f0c8a600000-7f0c8a6a5000 r-xp 0001e000 fe:01 262201                     /usr/lib/a b/libssl.so.3 (deleted)";
        let found = code(line).unwrap();
        assert_eq!((found.addresses, found.file), ("7f0c8a600000-7f0c8a6a5000", ("fe:01", 262_201)));
        assert_eq!(found.name, "/usr/lib/a b/libssl.so.3 (deleted)");
        for other in [
            "7f0c8a600000-7f0c8a6a5000 r--p 0001e000 fe:01 262201                     /usr/lib/libssl.so.3",
            "7f0c8a600000-7f0c8a6a5000 r-xp 00000000 00:00 0                          [vdso]",
            "7f0c8a600000-7f0c8a6a5000 r-xp 00000000 00:00 0 ",
            "7f0c8a600000-7f0c8a6a5000 rwxp",
            "",
        ] {
            assert!(code(other).is_none(), "{other}");
        }
    }

    #[test]
    fn names_of_libraries() {
        for name in [
            "/a/libssl.so.3",
            "/a/libssl-1c2d.so.1.1 (deleted)",
            "/a/libnetty_tcnative_linux_x86_64.so",
            "/a/libgnutls.so.30",
        ] {
            assert!(is_of_interest(name), "{name}");
        }
        for name in ["/usr/lib/libc.so.6", "/opt/libssl/libz.so", "/a/libcurl-gnutls.so.4"] {
            assert!(!is_of_interest(name), "{name}");
        }
    }
}
