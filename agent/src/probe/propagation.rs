//! What belongs to propagation in the kernel: its maps, its program for packets, and whether the host lets it work.

use std::fs::File;
use std::path::PathBuf;

use agent_common::layout::{Layout, Setup, propagate};
use agent_common::limits;
use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::SockHash;
use aya::programs::{CgroupAttachMode, SkMsg, SockOps};

/// What carries contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// An option of TCP (`--propagate tcp`).
    TcpOption,
    /// Fields of the requests themselves (`--propagate headers`); also where `FIONREAD` is wrong then, if allowed.
    Fields { allow_unsafe: bool },
}

/// How contexts are decided and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    pub carrier: Carrier,
    /// A parent's sampling decision is followed.
    pub parent_based: bool,
    /// A new trace is sampled when its randomness is not below this.
    pub sample_from: u64,
}

/// Maps that have one entry when propagation is off, and the octets of a key and a value of each.
pub(super) const MAPS: [(&str, u64); 4] = [("CLIENTS", 112), ("REQUESTS", 56), ("TOLD", 160), ("LOADS", 40)];
/// Those that have one entry unless contexts are put into requests.
pub(super) const FIELD_MAPS: [(&str, u32, u64); 3] =
    [("WRITABLE", limits::PROPAGATED, 16), ("STATES", limits::STATES, 560), ("FRAMES", limits::HTTP2, 1016)];

/// The program that the kernel calls for connections and packets.
const PROGRAM: &str = "options";
/// The program that it calls for messages.
const MESSAGES: &str = "fields";

impl Propagation {
    /// These settings for the kernel side, and zeros for all else.
    pub(super) fn setup(self) -> Setup {
        let [high, low] = [self.sample_from >> 32, self.sample_from & u64::from(u32::MAX)];
        Setup {
            propagate: match self.carrier {
                Carrier::TcpOption => propagate::TCP,
                Carrier::Fields { .. } => propagate::HEADERS,
            },
            parent_based: self.parent_based.into(),
            sample_from_high: u32::try_from(high).unwrap_or(u32::MAX),
            sample_from_low: u32::try_from(low).unwrap_or(u32::MAX),
            ..Setup::default()
        }
    }
}

/// Where the root of the hierarchy of cgroups (version 2) is mounted: all processes of the host are below it.
///
/// # Errors
/// When it is not mounted.
pub fn cgroup_root() -> anyhow::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let found = fields.find_map(|mut fields| {
        let at = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(at))
    });
    found.context("the cgroup v2 hierarchy is not mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
}

/// Loads the programs for packets or messages and attaches them, beside those of others.
pub(super) fn attach(ebpf: &mut Ebpf, layout: &Layout, carrier: Carrier) -> anyhow::Result<()> {
    let described = match carrier {
        Carrier::TcpOption => layout.sock_ops_skb != 0 && layout.skb_cb != 0,
        Carrier::Fields { .. } => {
            [layout.sk_msg_sk, layout.sk_sndbuf, layout.tcp_notsent_lowat, layout.net_notsent_lowat]
                .iter()
                .all(|offset| *offset != 0)
        }
    };
    anyhow::ensure!(
        described,
        "the kernel's type information does not describe packets and messages, so that --propagate cannot work"
    );
    if let Carrier::Fields { .. } = carrier {
        // Before the first socket is put into the map.
        attach_to_messages(ebpf)?;
    }
    let root = cgroup_root()?;
    let cgroup = File::open(&root).with_context(|| format!("cannot open {}", root.display()))?;
    let program: &mut SockOps =
        ebpf.program_mut(PROGRAM).with_context(|| format!("the kernel side has no program {PROGRAM}"))?.try_into()?;
    program.load().with_context(|| format!("the kernel refuses the program {PROGRAM}"))?;
    program
        // Programs attached by a link are always let in beside others; the flag for it is refused there.
        .attach(cgroup, CgroupAttachMode::Single)
        .with_context(|| format!("cannot attach to {} (CAP_NET_ADMIN is needed)", root.display()))?;
    Ok(())
}

fn attach_to_messages(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    let sockets: SockHash<_, u64> = SockHash::try_from(ebpf.map("WRITABLE").context("the kernel side has no map")?)?;
    let sockets = sockets.fd().try_clone()?;
    let program: &mut SkMsg =
        ebpf.program_mut(MESSAGES).with_context(|| format!("the kernel side has no program {MESSAGES}"))?.try_into()?;
    program.load().with_context(|| format!("the kernel refuses the program {MESSAGES}"))?;
    program.attach(&sockets).context("cannot attach to messages (CAP_NET_ADMIN is needed)")?;
    Ok(())
}
