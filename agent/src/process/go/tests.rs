use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

const PROGRAM: &str = "package main\n\nfunc main() {}\n";

/// Builds a program by the Go that is installed; `None`, with a word about it, when there is none.
pub(in crate::process) fn build(folder: &Path, name: &str, source: &str, arguments: &[&str]) -> Option<PathBuf> {
    let (main, program) = (folder.join(format!("{name}.go")), folder.join(name));
    std::fs::write(&main, source).unwrap();
    let built = Command::new("go").arg("build").args(arguments).arg("-o").arg(&program).arg(&main).output();
    let Ok(built) = built else {
        println!("SKIPPED: no Go: cargo xtask setup --tests");
        return None;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

fn open(program: &Path) -> File {
    File::open(program).unwrap()
}

#[test]
fn the_table_says_what_the_debug_information_of_the_installed_release_says() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = build(folder.path(), "plain", PROGRAM, &[]) else { return };
    let (version, by_release, described) = binary::parts::by_release_and_description(open(&program));
    assert!(described.is_some(), "{version} has debug information");
    assert_eq!(by_release, described, "{version}");
    let layout = binary::layout(open(&program)).unwrap();
    assert_eq!(layout.tls, 8_u64.wrapping_neg());
}

#[test]
fn a_stripped_program_is_known_by_its_release() {
    let folder = tempfile::tempdir().unwrap();
    let Some(plain) = build(folder.path(), "plain", PROGRAM, &[]) else { return };
    let Some(stripped) = build(folder.path(), "stripped", PROGRAM, &["-ldflags=-s -w"]) else { return };
    assert_eq!(binary::parts::by_release_and_description(open(&stripped)).2, None, "it has no debug information");
    let layout = binary::layout(open(&stripped));
    assert!(layout.is_some());
    assert_eq!(layout, binary::layout(open(&plain)));
}

#[test]
fn with_cgo_the_c_linker_places_the_word_of_the_goroutine() {
    let folder = tempfile::tempdir().unwrap();
    // A thread-local array of C's own moves it.
    let source = "package main\n\n// static __thread int own[100];\n// int use(int n) { own[n] = n; return own[7]; }\nimport \"C\"\n\nfunc main() { C.use(3) }\n";
    let Some(program) = build(folder.path(), "mixed", source, &["-ldflags=-linkmode=external"]) else { return };
    let layout = binary::layout(open(&program)).unwrap();
    assert!(layout.tls as i64 <= -8, "{layout:?}");
}

#[test]
fn what_is_no_go_program_of_a_known_release_is_not_read() {
    assert_eq!(binary::layout(open(Path::new("/proc/self/exe"))), None, "this test");
    for version in ["", "go1", "go1.", "go1.17", "go1.99.1", "go2.1", "go1.22.1 X:rangefunc", "go1.22-custom", "devel"]
    {
        assert_eq!(releases::offsets(version), None, "{version}");
    }
    assert_eq!(releases::offsets("go1.21"), releases::offsets("go1.22.12"));
    assert_eq!(releases::offsets("go1.20.14").map(|offsets| offsets.g_parent), Some(0));
}

#[test]
fn damaged_executables_are_no_programs_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = build(folder.path(), "plain", PROGRAM, &[]) else { return };
    let whole = std::fs::read(&program).unwrap();
    let table = u64::from_le_bytes(whole[40..48].try_into().unwrap()) as usize;
    let try_one = |octets: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(octets).unwrap();
        binary::layout(file)
    };
    for length in [0, 1, 63, 64, 65, 4096, table, table + 100, whole.len() / 2] {
        assert_eq!(try_one(&whole[..length.min(whole.len() - 1)]), None, "cut to {length}");
    }
    // Each octet of the header and of the section headers set high: offsets and sizes without end.
    let places = (4..64).chain(table..whole.len().min(table + 40 * 64));
    for place in places.step_by(3) {
        let mut octets = whole.clone();
        octets[place] = 0xff;
        try_one(&octets);
    }
}
