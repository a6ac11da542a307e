//! The programs that the tests and the virtual machine run, by the Debian package that brings each.

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

const NGINX: Package = package("nginx-light", &["nginx"], "HTTP server under test");
const CURL: Package = package("curl", &["curl"], "HTTP client under test");

const TESTS: &[Package] = &[
    NGINX,
    CURL,
    package("wget", &["wget"], "HTTP client under test, with GnuTLS"),
    package("wrk", &["wrk"], "HTTP load"),
    package("nghttp2-client", &["h2load"], "HTTP load at a given rate"),
    package("nghttp2-server", &["nghttpd"], "HTTP/2 server under test"),
    package("nghttp2-proxy", &["nghttpx"], "HTTP/2 server that takes upgrades, under test"),
    package("redis-server", &["redis-server"], "a neighbour that does not speak HTTP"),
    package("redis-tools", &["redis-benchmark"], "load on that neighbour"),
    package("kcat", &["kcat"], "Kafka producer and consumer under test"),
    // It brings Erlang too, through the packages that it depends on.
    package("rabbitmq-server", &["rabbitmq-server"], "RabbitMQ, a broker to test against"),
    package("prometheus", &["promtool"], "promtool checks /metrics"),
    package("chromium", &["chromium", "chromium-browser", "google-chrome"], "opens the live page"),
    package("iproute2", &["ss"], "what the kernel says of sockets"),
    package("nftables", &["nft"], "loses packets"),
    package("python3", &["python3"], "Python servers and clients"),
    package("nodejs", &["node"], "Node servers and clients"),
    package("npm", &["npm"], "brings their packages"),
    package("golang-go", &["go"], "Go servers and clients"),
    // It brings `java` too, through the package that it depends on.
    package("default-jdk-headless", &["javac"], "Java servers and clients"),
    package("maven", &["mvn"], "brings their packages"),
    package("g++", &["c++"], "the fuzzer's runtime"),
];

const VM: &[Package] = &[
    NGINX,
    CURL,
    package("qemu-system-x86", &["qemu-system-x86_64"], "emulates the machine"),
    package("busybox-static", &["busybox"], "shell and small tools inside it"),
    package("cpio", &["cpio"], "packs what it boots into"),
    package("xz-utils", &["xz"], "unpacks modules of its kernel"),
    package("openssl", &["openssl"], "makes a certificate for it"),
];

/// Installs what the tests lack; on a system without apt says what to install.
pub(super) fn for_tests() -> Result<String> {
    let mut extra = Vec::new();
    if exec::find("python3").is_none() || !python_has_venv() {
        // Debian splits it off.
        extra.push("python3-venv");
    }
    ensure(TESTS, &extra)
}

/// Installs what the virtual machine lacks; on a system without apt says what to install.
pub(super) fn for_vm() -> Result<String> {
    ensure(VM, &[])
}

/// Installs those of the packages that are missing, and the extra ones.
fn ensure(packages: &[Package], extra: &[&str]) -> Result<String> {
    let missing: Vec<&Package> = packages.iter().filter(|package| package.is_missing()).collect();
    let names: Vec<&str> = missing.iter().map(|package| package.name).chain(extra.iter().copied()).collect();
    if names.is_empty() {
        return Ok(format!("all {} there", packages.len()));
    }
    if !debian::is_here() {
        let list: Vec<String> = missing
            .iter()
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
    debian::install(&names)?;
    Ok(format!("{} installed just now, none of them started", names.len()))
}

impl Package {
    fn is_missing(&self) -> bool {
        self.programs.iter().all(|program| exec::find(program).is_none())
    }
}

fn python_has_venv() -> bool {
    exec::output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok()
}
