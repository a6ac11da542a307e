//! Real files, compared with what binutils say of them.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agent_common::tls::function;

use super::*;

const OPENSSL: [(&str, u64); 9] = [
    ("SSL_read", function::SSL_READ),
    ("SSL_read_ex", function::SSL_READ_EX),
    ("SSL_write", function::SSL_WRITE),
    ("SSL_write_ex", function::SSL_WRITE_EX),
    ("SSL_sendfile", function::SSL_SENDFILE),
    ("SSL_do_handshake", function::SSL_HANDSHAKE),
    ("SSL_free", function::SSL_FREE),
    ("SSL_set_accept_state", function::SSL_BEGINS),
    ("SSL_set_connect_state", function::SSL_BEGINS),
];
const GNUTLS: [(&str, u64); 4] = [
    ("gnutls_record_recv", function::GNUTLS_RECV),
    // gnutls_record_send calls it.
    ("gnutls_record_send2", function::GNUTLS_SEND2),
    ("gnutls_handshake", function::GNUTLS_HANDSHAKE),
    ("gnutls_deinit", function::GNUTLS_DEINIT),
];
const GO: [(&str, u64); 3] = [
    ("crypto/tls.(*Conn).Read", function::GO_READ),
    ("crypto/tls.(*Conn).Write", function::GO_WRITE),
    ("crypto/tls.(*Conn).clientHandshake", function::GO_HANDSHAKE),
];
const CLIENT: &str = "package main\n\nimport (\n\t\"crypto/tls\"\n\t\"os\"\n)\n\nfunc main() {\n\
    \tc, err := tls.Dial(\"tcp\", os.Args[1], nil)\n\tif err != nil {\n\t\treturn\n\t}\n\
    \tc.Write([]byte(\"x\"))\n\tc.Read(make([]byte, 9))\n}\n";

fn of(file: &Path) -> Vec<Place> {
    places(&File::open(file).unwrap())
}

/// What a program says; `None`, with a word about it, when it is not there.
fn output(program: &str, arguments: &[&str], file: &Path) -> Option<String> {
    let Ok(output) = Command::new(program).args(arguments).arg(file).output() else {
        println!("SKIPPED: no {program}");
        return None;
    };
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where in the file a function begins, and where it has its `RET`s, by objdump.
fn disassembled(file: &Path, name: &str) -> Option<(u64, Vec<u64>)> {
    let text = output("objdump", &["-dF", "--no-show-raw-insn", &format!("--disassemble={name}")], file)?;
    // `0000000000035430 <SSL_read@@OPENSSL_3.0.0> (File Offset: 0x35430):`
    let head =
        text.lines().find(|line| line.contains("(File Offset: 0x") && line.ends_with("):") && line.contains(name));
    let head = head.unwrap_or_else(|| panic!("{name} is not in {}", file.display()));
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let address = hex(head.split(' ').next().unwrap());
    let at = hex(head.rsplit_once("0x").unwrap().1.trim_end_matches("):"));
    // `   3546c:	ret`
    let instructions = text.lines().filter_map(|line| line.split_once(":\t"));
    let returns = instructions.filter(|(_, code)| matches!(code.trim(), "ret" | "repz ret" | "bnd ret"));
    Some((at, returns.map(|(address, _)| hex(address.trim())).map(|ret| ret - address + at).collect()))
}

/// A file has the functions, all where objdump sees them, and no others of those that may be hooked.
fn has(file: &Path, functions: &[(&str, u64)]) {
    let mut expected = Vec::new();
    for (name, function) in functions {
        let Some((at, returns)) = disassembled(file, name) else { return };
        let place = |at, kind| Place { function: *function, at, kind };
        expected.push(place(at, Kind::Entry));
        if name.starts_with("crypto/tls") {
            assert!(!returns.is_empty(), "{name}");
            expected.extend(returns.into_iter().map(|at| place(at, Kind::Ret)));
        } else if !matches!(*function, function::SSL_FREE | function::SSL_BEGINS | function::GNUTLS_DEINIT) {
            expected.push(place(at, Kind::Return));
        }
    }
    expected.sort_unstable();
    assert_eq!(of(file), expected, "{}", file.display());
}

fn library(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/lib/x86_64-linux-gnu"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|file| file.exists());
    if found.is_none() {
        println!("SKIPPED: no {name}");
    }
    found
}

/// Runs a compiler, with what it is to compile in a file; `None`, with a word about it, when there is none.
fn compile(folder: &Path, source: &str, text: &str, compiler: &str, arguments: &[&str]) -> Option<PathBuf> {
    let (file, program) = (folder.join(source), folder.join(source.split('.').next().unwrap()));
    std::fs::write(&file, text).unwrap();
    let mut parts = compiler.split(' ');
    let mut command = Command::new(parts.next().unwrap());
    let Ok(built) = command.args(parts).args(arguments).arg("-o").arg(&program).arg(&file).output() else {
        println!("SKIPPED: no {compiler}");
        return None;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

#[test]
fn openssl_in_a_library_and_in_node() {
    if let Some(library) = library("libssl.so.3") {
        has(&library, &OPENSSL);
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&folders).map(|folder| folder.join("node")).find(|node| node.is_file()) {
        // Some distributions link it with the library.
        Some(node) if !of(&node).is_empty() => has(&node, &OPENSSL),
        _ => println!("SKIPPED: no node with its own OpenSSL"),
    }
}

#[test]
fn gnutls() {
    if let Some(library) = library("libgnutls.so.30") {
        has(&library, &GNUTLS);
    }
}

#[test]
fn go_however_it_is_linked() {
    let folder = tempfile::tempdir().unwrap();
    let build = |name: &str, arguments: &[&str]| compile(folder.path(), name, CLIENT, "go build", arguments);
    let Some(plain) = build("plain.go", &[]) else { return };
    has(&plain, &GO);
    for (name, arguments) in [
        ("pie.go", &["-buildmode=pie"][..]),
        ("external.go", &["-ldflags=-linkmode=external"]),
        ("both.go", &["-buildmode=pie", "-ldflags=-linkmode=external"]),
    ] {
        has(&build(name, arguments).unwrap(), &GO);
    }
    // Without symbols objdump cannot tell; the code is the same.
    let stripped = build("stripped.go", &["-ldflags=-s -w"]).unwrap();
    assert_eq!(of(&stripped), of(&plain));
    let Some(_) = output("strip", &["-s"], &folder.path().join("both")) else { return };
    assert_eq!(of(&folder.path().join("both")).len(), of(&plain).len());
    // A program that does without TLS.
    let none = compile(folder.path(), "none.go", "package main\n\nfunc main() {}\n", "go build", &[]).unwrap();
    assert_eq!(of(&none), []);
}

/// This test's own executable has rustls in it.
#[test]
fn rustls_in_this_program() {
    let own = std::env::current_exe().unwrap();
    let Some(symbols) = output("nm", &["--defined-only"], &own) else { return };
    let image = File::open(&own).unwrap();
    let image = elf::Image::of(&image).unwrap();
    let of_symbols = |name: &str| {
        let lines = symbols.lines().filter(|line| line.contains("6rustls12common_state11CommonState"));
        let lines = lines.filter(|line| line.contains(name));
        let address = |line: &str| u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
        lines.map(|line| image.place_of_code(address(line)).unwrap()).collect::<BTreeSet<_>>()
    };
    let found = of(&own);
    for (name, function) in
        [("23take_received_plaintext17h", function::RUSTLS_READ), ("16buffer_plaintext17h", function::RUSTLS_WRITE)]
    {
        let expected = of_symbols(name);
        assert!(!expected.is_empty(), "{name}");
        let of_function = |kind| found.iter().filter(move |place| place.function == function && place.kind == kind);
        let at = |kind| of_function(kind).map(|place| place.at).collect::<BTreeSet<_>>();
        assert_eq!(at(Kind::Entry), expected, "{name}");
        let returns = if function == function::RUSTLS_WRITE { expected } else { BTreeSet::new() };
        assert_eq!(at(Kind::Return), returns, "{name}");
    }
    assert!(found.iter().any(|place| place.function == function::RUSTLS_DROP));
    assert!(found.iter().all(|place| place.function >= function::RUSTLS_READ), "{found:?}");
}

#[test]
fn a_function_that_calls_its_longer_form_is_not_hooked() {
    let folder = tempfile::tempdir().unwrap();
    let longer = "int SSL_write_ex2(void *s, const void *b, long n, long f, long *w) { *w = n + f; return s != b; }\n";
    let calls = "int SSL_write_ex(void *s, const void *b, long n, long *w) { return SSL_write_ex2(s, b, n, 0, w); }\n";
    let alone = "int SSL_write_ex(void *s, const void *b, long n, long *w) { *w = n; return s != b; }\n";
    let shared = ["-shared", "-fPIC", "-O2", "-fno-inline"];
    for (name, source, arguments, both) in [
        ("by_stub.c", calls, &shared[..], false),
        ("by_marked_stub.c", calls, &[&shared[..], &["-fcf-protection", "-Wl,-z,now"]].concat(), false),
        ("directly.c", calls, &[&shared[..], &["-Wl,-Bsymbolic"]].concat(), false),
        ("unoptimised.c", calls, &["-shared", "-fPIC", "-O0"], false),
        ("alone.c", alone, &shared, true),
        ("copied.c", calls, &["-shared", "-fPIC", "-O2", "-fno-semantic-interposition"], true),
    ] {
        let Some(library) = compile(folder.path(), name, &format!("{longer}{source}"), "cc", arguments) else { return };
        let found = of(&library);
        let has = |function| found.iter().any(|place| place.function == function);
        assert!(has(function::SSL_WRITE_EX2), "{name}");
        assert_eq!(has(function::SSL_WRITE_EX), both, "{name}");
    }
}

#[test]
fn an_executable_that_carries_a_library_without_exporting_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = "__attribute__((noinline)) static int SSL_read(void *s, void *b, int n) { return s == b ? n : 0; }\n\
        int main(int n, char **v) { return SSL_read(v, v + n, n); }\n";
    let Some(program) = compile(folder.path(), "carrier.c", source, "cc", &["-O0"]) else { return };
    has(&program, &OPENSSL[..1]);
    let Some(_) = output("strip", &[], &program) else { return };
    assert_eq!(of(&program), [], "stripped");
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

#[test]
fn files_of_a_process_can_be_opened_when_they_are_gone() {
    let Some(library) = library("libssl.so.3") else { return };
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libssl-copy.so.3");
    std::fs::copy(&library, &copy).unwrap();
    let program = format!(
        "import ctypes, os, ssl\nctypes.CDLL('{0}')\nos.unlink('{0}')\nprint(1, flush=True)\ninput()",
        copy.display()
    );
    let mut python = Command::new("python3");
    let Ok(child) = python.args(["-c", &program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        println!("SKIPPED: no python3");
        return;
    };
    let mut child = Running(child);
    let mut line = [0];
    std::io::Read::read_exact(child.0.stdout.as_mut().unwrap(), &mut line).unwrap();
    let found = files(child.0.id());
    assert_eq!(found[0].path, Path::new(&format!("/proc/{}/exe", child.0.id())));
    assert!(found.iter().all(|file| File::open(&file.path).is_ok()), "{found:?}");
    // The copy's own OpenSSL, and the one that `import ssl` has brought, which may be the one copied.
    let with_places: Vec<_> = found.iter().filter(|file| !of(&file.path).is_empty()).collect();
    assert!(with_places.iter().any(|file| file.name.ends_with("libssl-copy.so.3 (deleted)")), "{found:?}");
    assert!(with_places.len() >= 2, "{found:?}");
    assert_eq!(of(&with_places.last().unwrap().path).len(), of(&library).len());
    drop(child);
    assert_eq!(files(u32::MAX), []);
}

#[test]
fn damaged_files_have_no_places_and_are_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = Vec::new();
    whole.extend(library("libgnutls.so.30"));
    whole.extend(compile(folder.path(), "client.go", CLIENT, "go build", &[]));
    for file in whole {
        let copy = folder.path().join("damaged");
        std::fs::copy(&file, &copy).unwrap();
        let damaged = File::options().read(true).write(true).open(&copy).unwrap();
        let length = damaged.metadata().unwrap().len();
        let image = elf::Image::of(&damaged).unwrap();
        let mut parts = vec![(4, 60), (word(&damaged, 40), 40 * 64)];
        for name in [".gopclntab", ".dynsym", ".dynstr", ".rela.plt", ".go.module", ".go.buildinfo"] {
            parts.extend(image.section(name).map(|section| (section.at, section.size.min(600))));
        }
        let octets = parts.into_iter().flat_map(|(at, size)| (at..(at + size).min(length)).step_by(17));
        for (at, value) in octets.zip([0xff, 0x7f, 0].into_iter().cycle()) {
            let mut was = [0];
            damaged.read_exact_at(&mut was, at).unwrap();
            damaged.write_all_at(&[value], at).unwrap();
            let _ = places(&damaged);
            damaged.write_all_at(&was, at).unwrap();
        }
        assert_eq!(places(&damaged), of(&file), "it is whole again");
        for left in [length - 1, length / 2, word(&damaged, 40) + 100, 4096, 65, 64, 63, 1, 0] {
            damaged.set_len(left.min(length)).unwrap();
            let _ = places(&damaged);
        }
        assert_eq!(places(&damaged), []);
    }
    assert_eq!(of(Path::new("/proc/self/status")), []);
    assert_eq!(places(&File::open("/").unwrap()), []);
}

/// The word of 64 bits at a place.
fn word(file: &File, at: u64) -> u64 {
    let mut octets = [0; 8];
    file.read_exact_at(&mut octets, at).unwrap();
    u64::from_le_bytes(octets)
}
