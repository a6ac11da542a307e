//! Debian's kernels for virtual machines: found by apt with lists of its own, downloaded, and unpacked without being
//! installed. The system's package lists and sources stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::exec;

/// A line of kernels that Debian maintains.
pub(super) struct Kernel {
    /// Its series; the newest one has none of its own, since it moves on.
    pub(super) name: &'static str,
    /// The archive and the suite that have it: those whose lists are small.
    archive: &'static str,
    suite: &'static str,
}

/// The oldest first: what the oldest takes, the newer ones mostly do.
pub(super) const KERNELS: &[Kernel] = &[
    Kernel { name: "6.1", archive: "debian-security", suite: "bookworm-security" },
    Kernel { name: "6.12", archive: "debian-security", suite: "trixie-security" },
    Kernel { name: NEWEST, archive: "debian", suite: "trixie-backports" },
];
const NEWEST: &str = "newest";

/// A kernel on this machine.
#[derive(Debug, PartialEq)]
pub(super) struct Vmlinuz {
    /// As `uname -r` says it.
    pub(super) release: String,
    pub(super) file: PathBuf,
    /// Its modules for TLS, in the order in which they are loaded.
    pub(super) modules: Vec<PathBuf>,
}

/// The kernel's TLS, and what it encrypts with, in an order in which they can be loaded. Which of them are modules depends on the
/// kernel.
const MODULES: [&str; 6] = ["gf128mul", "ghash-generic", "crypto_null", "ctr", "gcm", "tls"];

/// Depends on the newest kernel of its release.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// What apt checks the signature of Debian's lists with; it has to be there on derivatives too.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Finds the kernel, downloading it where it is not there yet. Once there it stays the same: remove its folder below
/// `target/vm/kernels` to get the newest one.
pub(super) fn ensure(kernel: &Kernel) -> Result<Vmlinuz> {
    let folder = super::folder().join("kernels").join(kernel.name);
    if let Some(found) = there(&folder) {
        return Ok(found);
    }
    download(kernel, &folder).with_context(|| format!("cannot get Debian's kernel {}", kernel.name))?;
    there(&folder).with_context(|| format!("there is no kernel in {}", folder.display()))
}

/// The newest kernel in the folder.
fn there(folder: &Path) -> Option<Vmlinuz> {
    let releases = fs::read_dir(folder).into_iter().flatten().flatten();
    let releases = releases.filter(|release| release.path().join("vmlinuz").exists());
    let newest = releases.max_by_key(|release| release.metadata().and_then(|at| at.modified()).ok())?;
    let path = newest.path();
    let modules = MODULES.map(|module| path.join(format!("{module}.ko"))).into_iter().filter(|file| file.exists());
    Some(Vmlinuz {
        release: newest.file_name().into_string().ok()?,
        file: path.join("vmlinuz"),
        modules: modules.collect(),
    })
}

fn is_of(release: &str, series: &str) -> bool {
    series == NEWEST || release.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'))
}

fn download(kernel: &Kernel, folder: &Path) -> Result<()> {
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(exec::find(program).is_some(), "there is no {program}: this needs the package tools of Debian");
    }
    ensure!(Path::new(KEYRING).exists(), "there is no {KEYRING}: install the package debian-archive-keyring");
    let apt = Apt::new(&super::folder().join("apt").join(kernel.suite), kernel)?;
    eprintln!("vm: apt-get update, with the lists of Debian {} alone (about 1 MB)", kernel.suite);
    exec::run(apt.command("apt-get").args(["-qq", "update"]))?;
    let shown = exec::output(apt.command("apt-cache").args(["show", META_PACKAGE]))?;
    let release = release_of(&shown, kernel.name).with_context(|| {
        format!("{META_PACKAGE} of Debian {} does not depend on a kernel {}: {shown}", kernel.suite, kernel.name)
    })?;
    let image = format!("linux-image-{release}");
    let shown = exec::output(apt.command("apt-cache").args(["show", &image]))?;
    let mut packages = parts_of(&shown, release);
    packages.push(image);
    eprintln!("vm: apt-get download {} (about 30 MB)", packages.join(" "));
    let unpacked = fresh_folder(&apt.folder.join("unpacked"))?;
    exec::run(apt.command("apt-get").args(["-q", "download"]).args(&packages).current_dir(&unpacked))?;
    unpack(&unpacked)?;
    let found = fresh_folder(&apt.folder.join("found"))?;
    take(&unpacked, &found)?;
    ensure!(found.join("vmlinuz").exists(), "there is no vmlinuz in {}", packages.join(", "));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let place = fresh_folder(&folder.join(release))?;
    fs::rename(&found, &place).with_context(|| format!("cannot move {}", found.display()))?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))
}

/// Unpacks the packages in the folder there.
fn unpack(folder: &Path) -> Result<()> {
    let files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let packages: Vec<_> = files.filter(|file| file.extension().is_some_and(|extension| extension == "deb")).collect();
    ensure!(!packages.is_empty(), "apt-get has put no package into {}", folder.display());
    for package in packages {
        exec::run(Command::new("dpkg-deb").arg("--extract").args([&package, &folder.to_path_buf()]))?;
    }
    Ok(())
}

/// Copies the kernel and its modules for TLS out of what was unpacked, the modules without compression.
fn take(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap_or_default());
        if entry.file_type()?.is_dir() {
            take(&path, to)?;
            continue;
        }
        if name == "vmlinuz" || name.starts_with("vmlinuz-") {
            fs::copy(&path, to.join("vmlinuz"))?;
        }
        let Some((module, compression)) = name.split_once(".ko") else { continue };
        if MODULES.contains(&module) {
            fs::copy(&path, to.join(&name))?;
            if compression == ".xz" {
                exec::run(Command::new("xz").args(["--decompress", "--force"]).arg(to.join(&name)))?;
            }
        }
    }
    Ok(())
}

/// The packages that a kernel's package depends on for its parts, out of `apt-cache show`: newer ones are split.
fn parts_of(shown: &str, release: &str) -> Vec<String> {
    depends(shown)
        .filter(|name| ["linux-binary-", "linux-modules-"].iter().any(|part| name.strip_prefix(part) == Some(release)))
        .map(str::to_owned)
        .collect()
}

/// The packages that one depends on, out of `apt-cache show`.
fn depends(shown: &str) -> impl Iterator<Item = &str> {
    let depends = shown.lines().filter_map(|line| line.strip_prefix("Depends: "));
    depends.flat_map(|list| list.split(',')).filter_map(|item| item.split_whitespace().next())
}

/// The kernel's release that the meta package depends on, out of `apt-cache show`.
fn release_of<'a>(shown: &'a str, series: &str) -> Option<&'a str> {
    depends(shown).filter_map(|package| package.strip_prefix("linux-image-")).find(|release| is_of(release, series))
}

/// apt with sources, lists and cache of its own, so that it needs no root and no source is added to the system's.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(folder: &Path, kernel: &Kernel) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let sources = folder.join("sources.list");
        let line = format!(
            "deb [arch=amd64 signed-by={KEYRING}] http://deb.debian.org/{} {} main\n",
            kernel.archive, kernel.suite
        );
        fs::write(&sources, line).with_context(|| format!("cannot write {}", sources.display()))?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn command(&self, program: &str) -> Command {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::SourceList", at("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::Etc::Preferences", "/dev/null".to_owned()),
            ("Dir::Etc::PreferencesParts", "/dev/null".to_owned()),
            ("Dir::State::Lists", at("lists")),
            ("Dir::State::Status", "/dev/null".to_owned()),
            ("Dir::Cache", at("cache")),
            ("APT::Architecture", "amd64".to_owned()),
            // For root apt would download as a user of its own, who may not write here.
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }
}

/// An empty folder there.
pub(super) fn fresh_folder(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_belongs_to_one_series() {
        assert!(is_of("6.1.0-56-cloud-amd64", "6.1"));
        assert!(!is_of("6.12.117+deb13-cloud-amd64", "6.1"));
        assert!(is_of("6.12.117+deb13-cloud-amd64", "6.12"));
        assert!(!is_of("6.1", "6.1"));
        assert!(is_of("7.3.4+deb13-cloud-amd64", NEWEST));
    }

    #[test]
    fn the_meta_package_names_the_kernel() {
        let shown = "Package: linux-image-cloud-amd64\nDepends: linux-base, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nSize: 1\n";
        assert_eq!(release_of(shown, "6.1"), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(release_of(shown, "6.12"), None);
        assert_eq!(release_of("", "6.1"), None);
    }

    #[test]
    fn newer_kernels_come_in_parts() {
        let shown = "Depends: linux-base-7.3.4-cloud-amd64 (= 7.3.4-1), linux-binary-7.3.4-cloud-amd64 (= 7.3.4-1), \
            linux-modules-7.3.4-cloud-amd64 (= 7.3.4-1)\n";
        let parts = ["linux-binary-7.3.4-cloud-amd64", "linux-modules-7.3.4-cloud-amd64"];
        assert_eq!(parts_of(shown, "7.3.4-cloud-amd64"), parts);
        assert_eq!(parts_of(shown, "7.3.5-cloud-amd64"), Vec::<String>::new());
    }
}
