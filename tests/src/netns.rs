//! Two network namespaces joined by a veth pair, standing for two hosts.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A namespace and the addresses of its end of the pair.
pub struct Host {
    pub name: String,
    pub ipv4: &'static str,
    pub ipv6: &'static str,
}

/// Removed on drop, and with them their ends of the pair.
pub struct Hosts {
    pub left: Host,
    pub right: Host,
}

impl Hosts {
    /// Makes both, with loopback and both ends up. Names hold this process' id, so that tests run beside each other.
    pub fn new() -> Result<Self> {
        let id = std::process::id();
        let host = |side: &str, ipv4, ipv6| Host { name: format!("remora-{id}-{side}"), ipv4, ipv6 };
        let hosts =
            Self { left: host("l", "10.213.0.1", "fd00:213::1"), right: host("r", "10.213.0.2", "fd00:213::2") };
        for host in [&hosts.left, &hosts.right] {
            ip(&["netns", "add", &host.name])?;
            ip(&["-n", &host.name, "link", "set", "lo", "up"])?;
        }
        let (left, right) = (&hosts.left, &hosts.right);
        ip(&["-n", &left.name, "link", "add", "pair", "type", "veth", "peer", "name", "pair", "netns", &right.name])?;
        for host in [left, right] {
            ip(&["-n", &host.name, "addr", "add", &format!("{}/24", host.ipv4), "dev", "pair"])?;
            // Without waiting for duplicates to be found.
            ip(&["-n", &host.name, "addr", "add", &format!("{}/64", host.ipv6), "dev", "pair", "nodad"])?;
            ip(&["-n", &host.name, "link", "set", "pair", "up"])?;
        }
        Ok(hosts)
    }
}

impl Host {
    /// Has one in `many` of the packets that come in from the other host thrown away.
    ///
    /// # Errors
    /// When nft (package nftables) refuses.
    pub fn drop_packets(&self, many: u32) -> Result<()> {
        let rules = format!(
            "add table inet remora; add chain inet remora in {{ type filter hook input priority 0; }}; \
             add rule inet remora in iifname pair numgen random mod {many} 0 counter drop"
        );
        let output = self.command(Command::new("nft").arg(rules)).output().context("nft cannot be run")?;
        ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The same command, in this namespace.
    #[must_use]
    pub fn command(&self, command: &Command) -> Command {
        let mut within = Command::new("ip");
        within.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => within.env(name, value),
                None => within.env_remove(name),
            };
        }
        within
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in [&self.left, &self.right] {
            let _ = ip(&["netns", "delete", &host.name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("ip (package iproute2) cannot be run")?;
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
