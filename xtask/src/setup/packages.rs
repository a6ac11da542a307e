//! The programs that the tests run, by the Debian package that brings each.

use std::process::Command;

use anyhow::{Result, bail};

use super::debian;
use crate::exec;

struct Package {
    name: &'static str,
    /// There if one of these is: looked for by program, so that another distribution's or an own install counts.
    programs: &'static [&'static str],
    purpose: &'static str,
}

const fn package(name: &'static str, programs: &'static [&'static str], purpose: &'static str) -> Package {
    Package { name, programs, purpose }
}

const PACKAGES: &[Package] = &[
    package("nginx-light", &["nginx"], "HTTP server under test"),
    package("curl", &["curl"], "HTTP client under test"),
    package("wrk", &["wrk"], "HTTP load"),
    package("nghttp2-client", &["h2load"], "HTTP load at a given rate"),
    package("redis-server", &["redis-server"], "a neighbour that does not speak HTTP"),
    package("redis-tools", &["redis-benchmark"], "load on that neighbour"),
    package("prometheus", &["promtool"], "promtool checks /metrics"),
    package("chromium", &["chromium", "chromium-browser", "google-chrome"], "opens the live page"),
    package("iproute2", &["ss"], "what the kernel says of sockets"),
    package("python3", &["python3"], "Python servers and clients"),
    package("nodejs", &["node"], "Node servers and clients"),
    package("npm", &["npm"], "brings their packages"),
    package("golang-go", &["go"], "Go servers and clients"),
    package("g++", &["c++"], "the fuzzer's runtime"),
];

/// Installs what is missing; on a system without apt says what to install.
pub(super) fn ensure() -> Result<String> {
    let mut missing: Vec<&str> = missing().map(|package| package.name).collect();
    if exec::find("python3").is_none() || !python_has_venv() {
        // Debian splits it off.
        missing.push("python3-venv");
    }
    if missing.is_empty() {
        return Ok(format!("all {} there", PACKAGES.len()));
    }
    if !debian::is_here() {
        let list: Vec<String> = self::missing()
            .map(|package| {
                format!(
                    "{} ({}; Debian calls the package {})",
                    package.programs.join(" or "),
                    package.purpose,
                    package.name
                )
            })
            .collect();
        bail!("install these with this distribution's package manager, then repeat:\n  {}", list.join("\n  "));
    }
    debian::install(&missing)?;
    Ok(format!("{} installed just now, none of them started", missing.len()))
}

fn missing() -> impl Iterator<Item = &'static Package> {
    PACKAGES.iter().filter(|package| package.programs.iter().all(|program| exec::find(program).is_none()))
}

fn python_has_venv() -> bool {
    exec::output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok()
}
