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

/// What objdump says of a function: where in the file it begins, and its instructions, each with its place in the file.
fn disassembled(file: &Path, name: &str) -> Option<(u64, Vec<(u64, String)>)> {
    let text = output("objdump", &["-dF", "--no-show-raw-insn", &format!("--disassemble={name}")], file)?;
    // `0000000000035430 <SSL_read@@OPENSSL_3.0.0> (File Offset: 0x35430):`
    let head =
        text.lines().find(|line| line.contains("(File Offset: 0x") && line.ends_with("):") && line.contains(name));
    let head = head.unwrap_or_else(|| panic!("{name} is not in {}", file.display()));
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let address = hex(head.split(' ').next().unwrap());
    let at = hex(head.rsplit_once("0x").unwrap().1.trim_end_matches("):"));
    // `   3546c:\tret`
    let instructions = text.lines().filter_map(|line| line.split_once(":\t"));
    let placed = |(from, code): (&str, &str)| (hex(from.trim()) - address + at, code.trim().to_owned());
    let placed = instructions.map(placed).collect();
    Some((at, placed))
}

/// Where in the file the first of a function's calls leads that is not to another file's function.
fn called(file: &Path, name: &str) -> Option<u64> {
    let (at, code) = disassembled(file, name)?;
    let (_, call) = code.iter().find(|(_, code)| code.starts_with("call"))?;
    // `call   35290 <SSL_get_default_timeout@@OPENSSL_3.0.0+0x10> (File Offset: 0x35290)`
    let offset = call.rsplit_once("0x").unwrap().1.trim_end_matches(')');
    assert!(!call.contains("@plt"), "{call}, in the function at {at:x}");
    Some(u64::from_str_radix(offset, 16).unwrap())
}

/// A file has the functions, all where objdump sees them, and no others of those that may be hooked.
fn has(file: &Path, functions: &[(&str, u64)]) {
    let Some(mut expected) = expected(file, functions) else { return };
    expected.sort_unstable();
    assert_eq!(of(file), expected, "{}", file.display());
}

fn expected(file: &Path, functions: &[(&str, u64)]) -> Option<Vec<Place>> {
    let mut expected = Vec::new();
    for (name, function) in functions {
        let (at, code) = disassembled(file, name)?;
        let place = |at, kind| Place { function: *function, at, kind };
        if name.starts_with("crypto/tls") {
            expected.extend(of_go(file, name, &code, place)?);
        } else {
            expected.push(place(at, Kind::Entry));
            if returns(*function) {
                expected.push(place(at, Kind::Return));
            }
        }
    }
    Some(expected)
}

fn returns(function: u64) -> bool {
    !matches!(function, function::SSL_FREE | function::SSL_BEGINS | function::GNUTLS_DEINIT | function::HPACK_INFLATE)
}

/// Go's functions are hooked where they save the frame's pointer; and where the first closure that can be hooked so does the
/// same, which is called before a `RET`; else at the `RET`.
fn of_go(file: &Path, name: &str, code: &[(u64, String)], place: impl Fn(u64, Kind) -> Place) -> Option<Vec<Place>> {
    let push = |code: &[(u64, String)]| code.iter().find(|(_, code)| code == "push   %rbp").map(|(at, _)| *at);
    let ends = code.iter().enumerate().filter(|(_, (_, code))| matches!(code.as_str(), "ret" | "repz ret" | "bnd ret"));
    let mut ends: Vec<_> = ends.map(|(end, _)| end).collect();
    assert!(!ends.is_empty(), "{name}");
    let mut places = vec![place(push(code).unwrap(), Kind::Entry)];
    // `call *%rax; movb $0x0,0x2f(%rsp); mov 0xb0(%rsp),%rdx; mov (%rdx),%rax; call *%rax;
    // mov 0x20(%rsp),%rax; mov …,%rbx; mov …,%rcx; add …,%rsp; pop %rbp; ret`
    let is_call = |at: usize| code[at].1 == "call   *%rax";
    let called = |end: usize| {
        if !is_call(end - 6) {
            0
        } else if is_call(end - 10) {
            2
        } else {
            1
        }
    };
    let names: &[usize] = if name.ends_with("Handshake") { &[] } else { &[1, 2] };
    for &nth in names {
        let Some(&first) = ends.iter().find(|end| called(**end) >= nth) else { continue };
        let (_, closure) = disassembled(file, &format!("{name}.deferwrap{nth}"))?;
        let Some(at) = push(&closure) else { continue };
        let slot = code[first - 5].1.strip_prefix("mov    0x").unwrap().strip_suffix("(%rsp),%rax").unwrap();
        let (slot, back) = (u16::from_str_radix(slot, 16).unwrap(), u16::try_from(at - code[0].0).unwrap());
        places.push(place(at, Kind::Deferred(Deferred { slot, back })));
        ends.retain(|end| called(*end) < nth);
        break;
    }
    places.extend(ends.into_iter().map(|end| place(code[end].0, Kind::Ret)));
    Some(places)
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
    // Distributions' have functions inside that do what these pass on.
    if let Some(library) = library("libssl.so.3")
        && let Some(mut places) = expected(&library, &OPENSSL[4..])
    {
        for (name, function) in [OPENSSL[1], OPENSSL[3]] {
            let Some(at) = called(&library, name) else { return };
            places.extend([Kind::Entry, Kind::Return].map(|kind| Place { function, at, kind }));
        }
        places.sort_unstable();
        assert_eq!(of(&library), places);
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&folders).map(|folder| folder.join("node")).find(|node| node.is_file()) {
        // Some distributions link it with the library.
        Some(node) if !of(&node).is_empty() => {
            has(&node, &[&OPENSSL[..], &[("nghttp2_hd_inflate_hd_nv", function::HPACK_INFLATE)]].concat());
        }
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
fn where_go_decodes_and_encodes_header_fields() {
    let folder = tempfile::tempdir().unwrap();
    let source = "package main\n\nimport \"net/http\"\n\nfunc main() { http.ListenAndServe(\"\", nil) }\n";
    let coding = |name: &str, arguments: &[&str]| {
        let program = compile(folder.path(), name, source, "go build", arguments)?;
        let functions = [function::HPACK_DECODE, function::HPACK_ENCODE];
        let of_table = of(&program).into_iter().filter(|place| functions.contains(&place.function)).collect::<Vec<_>>();
        assert_eq!(
            of_table.iter().map(|place| (place.function, place.kind)).collect::<Vec<_>>(),
            functions.map(|function| (function, Kind::Entry))
        );
        Some((program, of_table))
    };
    let Some((program, places)) = coding("plain.go", &[]) else { return };
    for (place, name) in places.iter().zip(["(*Decoder).Write", "(*Encoder).WriteField"]) {
        let Some((at, code)) = disassembled(&program, &format!("vendor/golang.org/x/net/http2/hpack.{name}")) else {
            return;
        };
        let end = code.last().unwrap().0;
        assert!((at..end.min(at + 64)).contains(&place.at), "{place:?} of {name} at {at:#x}");
    }
    coding("stripped.go", &["-ldflags=-s -w"]);
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
    let by_closure =
        |function| of(&plain).iter().any(|place| place.function == function && matches!(place.kind, Kind::Deferred(_)));
    assert!(by_closure(function::GO_READ) && by_closure(function::GO_WRITE), "{:?}", of(&plain));
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
fn forms_of_one_call_are_hooked_inside() {
    let folder = tempfile::tempdir().unwrap();
    let inside = "__attribute__((noinline)) static int inside(void *s, char *b, long n, long *r) {\n\
        for (long i = 0; i < n; i++) b[i] = puts(s); *r = puts(b); return puts(s); }\n";
    let first =
        "int SSL_read_ex(void *s, void *b, long n, long *r) { int d = inside(s, b, n, r); return d < 0 ? 0 : d; }\n";
    let calls = "int SSL_read(void *s, void *b, int n) { long r; return inside(s, b, n, &r) > 0 ? r : -1; }\n";
    let through = "int SSL_read(void *s, void *b, int n) { long r; return SSL_read_ex(s, b, n, &r) > 0 ? r : -1; }\n";
    let own = "int SSL_read(void *s, char *b, int n) { b[n] = puts(s); return n; }\n";
    let changes = "int SSL_read_ex(void *s, void *b, long n, long *r) { int d = inside(s, b, n - 1, r); return d < 0 ? 0 : d; }\n";
    let plain = ["-shared", "-fPIC", "-O2", "-fno-ipa-sra", "-fno-ipa-cp"];
    let marked = [&plain[..], &["-fcf-protection"]].concat();
    let direct = [&plain[..], &["-Wl,-Bsymbolic"]].concat();
    for (name, first, second, arguments, at_inside) in [
        ("calls.c", first, calls, &plain[..], true),
        ("marked.c", first, calls, &marked, true),
        ("through.c", first, through, &direct, true),
        ("own.c", first, own, &plain, false),
        ("changes.c", changes, calls, &plain, false),
    ] {
        let text = format!("int puts(const char *);\n{inside}{first}{second}");
        let Some(library) = compile(folder.path(), name, &text, "cc", arguments) else { return };
        let Some((at, code)) = disassembled(&library, "inside") else { return };
        let at = at + if code[0].1 == "endbr64" { 4 } else { 0 };
        let place = |kind| Place { function: function::SSL_READ_EX, at, kind };
        let found = of(&library);
        assert_eq!(found == [place(Kind::Entry), place(Kind::Return)], at_inside, "{name}: {found:?}");
        if !at_inside {
            assert_eq!(found.len(), 4, "{name}: {found:?}");
        }
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
