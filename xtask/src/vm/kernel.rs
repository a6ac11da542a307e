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
    pub(super) series: &'static str,
    /// The Debian release that has it.
    suite: &'static str,
}

/// The oldest first: what the oldest takes, the newer ones mostly do.
pub(super) const KERNELS: &[Kernel] =
    &[Kernel { series: "6.1", suite: "bookworm" }, Kernel { series: "6.12", suite: "trixie" }];

/// A kernel on this machine.
#[derive(Debug, PartialEq)]
pub(super) struct Vmlinuz {
    /// As `uname -r` says it.
    pub(super) release: String,
    pub(super) file: PathBuf,
}

/// Depends on the newest kernel of its release. It is looked up among the security updates, whose list is small.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// What apt checks the signature of Debian's lists with; it has to be there on derivatives too.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Finds the kernel, downloading it where it is not there yet. Once there it stays the same: remove its folder below
/// `target/vm/kernels` to get the newest one.
pub(super) fn ensure(kernel: &Kernel) -> Result<Vmlinuz> {
    let kernels = super::folder().join("kernels");
    if let Some(found) = newest_there(&kernels, kernel.series) {
        return Ok(found);
    }
    download(kernel, &kernels).with_context(|| format!("cannot get Debian's kernel {}", kernel.series))
}

fn newest_there(kernels: &Path, series: &str) -> Option<Vmlinuz> {
    let folders = fs::read_dir(kernels).into_iter().flatten().flatten();
    let releases = folders.filter_map(|entry| entry.file_name().into_string().ok());
    let releases = releases.filter(|release| is_of(release, series));
    let there = releases.map(|release| Vmlinuz { file: kernels.join(&release).join("vmlinuz"), release });
    there
        .filter(|vmlinuz| vmlinuz.file.exists())
        .max_by_key(|vmlinuz| fs::metadata(&vmlinuz.file).and_then(|at| at.modified()).ok())
}

fn is_of(release: &str, series: &str) -> bool {
    release.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'))
}

fn download(kernel: &Kernel, kernels: &Path) -> Result<Vmlinuz> {
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(exec::find(program).is_some(), "there is no {program}: this needs the package tools of Debian");
    }
    ensure!(Path::new(KEYRING).exists(), "there is no {KEYRING}: install the package debian-archive-keyring");
    let apt = Apt::new(&super::folder().join("apt").join(kernel.suite), kernel.suite)?;
    eprintln!("vm: apt-get update, with the lists of Debian {} alone (below 1 MB)", kernel.suite);
    exec::run(apt.command("apt-get").args(["-qq", "update"]))?;
    let shown = exec::output(apt.command("apt-cache").args(["show", META_PACKAGE]))?;
    let release = release_of(&shown, kernel.series).with_context(|| {
        format!("{META_PACKAGE} of Debian {} does not depend on a kernel {}: {shown}", kernel.suite, kernel.series)
    })?;
    let package = format!("linux-image-{release}");
    eprintln!("vm: apt-get download {package} (about 30 MB)");
    let unpacked = fresh_folder(&apt.folder.join("unpacked"))?;
    exec::run(apt.command("apt-get").args(["-q", "download", &package]).current_dir(&unpacked))?;
    let file = unpack(&unpacked, release)?;
    let folder = kernels.join(release);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let vmlinuz = Vmlinuz { release: release.to_owned(), file: folder.join("vmlinuz") };
    fs::rename(&file, &vmlinuz.file).with_context(|| format!("cannot move {}", file.display()))?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))?;
    Ok(vmlinuz)
}

/// Unpacks the kernel out of the one package in the folder; what it has as modules is not needed.
fn unpack(folder: &Path, release: &str) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let package = files.into_iter().find(|file| file.extension().is_some_and(|extension| extension == "deb"));
    let package = package.with_context(|| format!("apt-get has put no package into {}", folder.display()))?;
    let inside = format!("./boot/vmlinuz-{release}");
    let script = r#"dpkg-deb --fsys-tarfile "$1" | tar --extract --directory "$2" "$3""#;
    exec::run(Command::new("sh").args(["-c", script, "sh"]).args([&package, folder]).arg(&inside))?;
    Ok(folder.join("boot").join(format!("vmlinuz-{release}")))
}

/// The kernel's release that the meta package depends on, out of `apt-cache show`.
fn release_of<'a>(shown: &'a str, series: &str) -> Option<&'a str> {
    let depends = shown.lines().filter_map(|line| line.strip_prefix("Depends: "));
    let packages = depends.flat_map(|list| list.split(',')).filter_map(|item| item.split_whitespace().next());
    packages.filter_map(|package| package.strip_prefix("linux-image-")).find(|release| is_of(release, series))
}

/// apt with sources, lists and cache of its own, so that it needs no root and no source is added to the system's.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(folder: &Path, suite: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let sources = folder.join("sources.list");
        let line = format!(
            "deb [arch=amd64 signed-by={KEYRING}] http://deb.debian.org/debian-security {suite}-security main\n"
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
    }

    #[test]
    fn the_meta_package_names_the_kernel() {
        let shown = "Package: linux-image-cloud-amd64\nDepends: linux-base, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nSize: 1\n";
        assert_eq!(release_of(shown, "6.1"), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(release_of(shown, "6.12"), None);
        assert_eq!(release_of("", "6.1"), None);
    }
}
