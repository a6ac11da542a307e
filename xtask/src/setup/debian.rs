//! Debian and its derivatives: installing packages without starting what is in them.

use std::fs;

use anyhow::{Context as _, Result};

use super::doing;
use crate::exec;

/// Installs "$@". Neither now nor at the next boot does an installed server start: the tests start their own, on their
/// own ports. `policy-rc.d` is Debian's way to say so to a package's scripts; one that is there already is left alone.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
# By the files alone: systemd may be installed and not run, as in a container.
units() { systemctl --root=/ "$@" --quiet; }
enabled() { units list-unit-files --type=service,socket --state=enabled --no-legend | cut -d ' ' -f 1 | sort; }
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
systemd=$(command -v systemctl || true)
before=${systemd:+$(enabled)}
apt-get -qq update || echo "apt-get update failed; going on with the package lists that are there" >&2
apt-get -qq install -y --no-install-recommends -- "$@"
for unit in ${systemd:+$(enabled)}; do
    if ! printf '%s\n' "$before" | grep -qxF "$unit"; then units disable "$unit"; fi
done
"#;

/// Whether packages can be installed by apt here.
pub(super) fn is_here() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    is_debian_like(&release) && exec::find("apt-get").is_some()
}

fn is_debian_like(os_release: &str) -> bool {
    os_release.lines().filter_map(|line| line.split_once('=')).any(|(key, value)| {
        matches!(key, "ID" | "ID_LIKE") && value.trim_matches('"').split(' ').any(|id| id == "debian")
    })
}

/// Installs the packages, as root, with apt's output shown.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    doing(&format!("apt-get install {}", packages.join(" ")));
    exec::run(exec::as_root("sh", &[])?.args(["-c", INSTALL, "sh"]).args(packages))
        .with_context(|| format!("apt could not install: {}", packages.join(" ")))
}

/// Whether apt knows the package, by the lists that are there.
pub(super) fn knows(package: &str) -> bool {
    let mut query = std::process::Command::new("apt-cache");
    exec::output(query.args(["--quiet", "show", package])).is_ok_and(|found| !found.is_empty())
}

/// Refreshes apt's lists if it has none: a container image comes without.
pub(super) fn refresh_empty_lists() -> Result<()> {
    let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    if lists.filter(|entry| entry.path().is_file() && entry.file_name() != "lock").count() > 0 {
        return Ok(());
    }
    doing("apt-get update");
    exec::run(exec::as_root("apt-get", &[])?.args(["-qq", "update"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_debian_and_its_derivatives() {
        assert!(is_debian_like("NAME=x\nID=debian\n"));
        assert!(is_debian_like("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian_like("ID=fedora\nHOME_URL=https://debian/\n"));
        assert!(!is_debian_like(""));
    }
}
