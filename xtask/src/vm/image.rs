//! What the virtual machine boots into: an initramfs of the agent, nginx, curl and busybox with their shared libraries, the
//! kernel's modules for TLS, and the script that runs there.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::kernel::{Vmlinuz, fresh_folder};
use crate::exec;

const INIT: &str = include_str!("init.sh");
const NGINX: &str = include_str!("nginx.conf");
const NGINX_TLS: &str = include_str!("nginx-tls.conf");
const NGINX_PROXY: &str = include_str!("nginx-proxy.conf");
const OWN_KEYS: &str = include_str!("own_keys.rs");
/// The programs of the host that run there.
const PROGRAMS: [&str; 3] = ["busybox", "nginx", "curl"];
/// Octets of the file that nginx serves.
const FILE: usize = 256 * 1024;

/// Makes the initramfs for these kernels, of `newc` format and not compressed; returns its path. `flags` are for `remora run`.
pub(super) fn make(agent: &Path, flags: &[OsString], kernels: &[Vmlinuz]) -> Result<PathBuf> {
    let root = fresh_folder(&super::folder().join("image"))?;
    add_program(&root, agent, "remora")?;
    strip(&root.join("bin/remora"));
    for name in PROGRAMS {
        let file = exec::find(name).with_context(|| format!("there is no {name}: cargo xtask setup --tests"))?;
        add_program(&root, &file, name)?;
    }
    add(&root, "init", INIT.as_bytes(), 0o755)?;
    add(&root, "etc/nginx.conf", NGINX.as_bytes(), 0o644)?;
    add_tls(&root)?;
    for kernel in kernels {
        // Loaded in the order of their names.
        for (number, module) in kernel.modules.iter().enumerate() {
            copy(module, &root.join("lib/modules").join(&kernel.release).join(format!("{number}.ko")))?;
        }
    }
    // nginx asks for the names of its user and group.
    add(&root, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644)?;
    add(&root, "etc/group", b"root:x:0:\n", 0o644)?;
    add(&root, "etc/arguments", &lines(flags)?, 0o644)?;
    add(&root, "srv/file", &vec![b'f'; FILE], 0o644)?;
    // nginx opens it before it reads where its log is to be.
    fs::create_dir_all(root.join("var/log/nginx"))?;
    let file = super::folder().join("initramfs");
    let script = r#"find . -print0 | cpio --quiet --null --create --format=newc --owner=+0:+0 --file="$1""#;
    exec::run(Command::new("sh").args(["-c", script, "sh"]).arg(&file).current_dir(&root))?;
    let octets = fs::metadata(&file).with_context(|| format!("cpio has not made {}", file.display()))?.len();
    eprintln!("vm: made the initramfs, {} MiB", octets >> 20);
    Ok(file)
}

/// What speaks TLS with keys in the kernel: nginx twice, and a program without a library.
fn add_tls(root: &Path) -> Result<()> {
    add(root, "etc/nginx-tls.conf", NGINX_TLS.as_bytes(), 0o644)?;
    add(root, "etc/nginx-proxy.conf", NGINX_PROXY.as_bytes(), 0o644)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=vm"]);
    openssl.arg("-keyout").arg(root.join("etc/key")).arg("-out").arg(root.join("etc/certificate"));
    exec::output(&mut openssl)?;
    let source = super::folder().join("own_keys.rs");
    fs::write(&source, OWN_KEYS).with_context(|| format!("cannot write {}", source.display()))?;
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=debuginfo"]);
    exec::run(rustc.arg(&source).arg("-o").arg(root.join("bin/own-keys")))
}

/// One flag a line, as the script reads them.
fn lines(flags: &[OsString]) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for flag in flags {
        ensure!(
            !flag.as_bytes().contains(&b'\n'),
            "a flag with a line break cannot be handed over: {}",
            flag.display()
        );
        lines.extend_from_slice(flag.as_bytes());
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Adds a program as `/bin/NAME`, and its libraries where they are on the host.
fn add_program(root: &Path, file: &Path, name: &str) -> Result<()> {
    copy(file, &root.join("bin").join(name))?;
    for library in libraries(file)? {
        let inside = library.strip_prefix("/").unwrap_or(&library);
        copy(&library, &root.join(inside))?;
    }
    Ok(())
}

/// Leaves out the debug information, most of the file. Without the tool for it the machine boots more slowly, no more.
fn strip(file: &Path) {
    if let Some(strip) = exec::find("strip") {
        let _ = Command::new(strip).arg("--strip-debug").arg(file).status();
    }
}

/// The libraries that a program is loaded with, the loader included.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut ldd = Command::new("ldd");
    // Its complaint about a program without any is looked for below.
    let output = ldd.env("LC_ALL", "C").arg(program).output().with_context(|| exec::cannot_start(&ldd))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if stderr.contains("not a dynamic executable") || stdout.contains("statically linked") {
        return Ok(BTreeSet::new());
    }
    ensure!(output.status.success(), "{} from: {}\n{}", output.status, exec::show(&ldd), stderr.trim_end());
    libraries_of(&stdout).with_context(|| format!("from: {}", exec::show(&ldd)))
}

/// The paths in the output of `ldd`: `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)`, or a name that has no file.
fn libraries_of(ldd: &str) -> Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    for line in ldd.lines().map(str::trim) {
        ensure!(!line.ends_with("not found"), "a library is missing: {line}");
        let target = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = target.rsplit_once(" (").map_or(target, |(path, _)| path);
        if path.starts_with('/') {
            paths.insert(PathBuf::from(path));
        }
    }
    Ok(paths)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    // Follows symbolic links, and keeps the permissions.
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn add(root: &Path, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let file = root.join(name);
    make_parent(&file)?;
    fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", file.display()))
}

fn make_parent(file: &Path) -> Result<()> {
    let Some(parent) = file.parent() else { return Ok(()) };
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ldd_says() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f00)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f01)\n";
        let found: Vec<_> = libraries_of(text).unwrap().into_iter().collect();
        assert_eq!(found, [Path::new("/lib/x86_64-linux-gnu/libz.so.1"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        let error = libraries_of("\tlibgone.so.3 => not found\n").unwrap_err().to_string();
        assert_eq!(error, "a library is missing: libgone.so.3 => not found");
    }

    #[test]
    fn flags_are_handed_over_by_line() {
        assert_eq!(lines(&["--log".into(), "a b".into()]).unwrap(), b"--log\na b\n");
        assert!(lines(&["a\nb".into()]).is_err());
    }
}
