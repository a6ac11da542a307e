//! Where the running kernel keeps the fields that the kernel side reads: from its own type information (BTF).

use std::path::Path;

use agent_common::layout::Layout;
use btf_rs::{Btf, Type};

/// The kernel's type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why offsets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "the kernel has no type information at {VMLINUX}; it must be built with CONFIG_DEBUG_INFO_BTF=y (all current distributions do)"
    )]
    NoBtf,
    #[error("cannot read the kernel's type information: {0}")]
    Read(#[from] btf_rs::Error),
    #[error("the kernel's type information has no field {structure}.{field}; this kernel is not supported")]
    NoField { structure: &'static str, field: &'static str },
}

/// The tracepoints at the sockets, which are there from Linux 6.16 on.
const AT_SOCKETS: [&str; 3] = ["tcp_sendmsg_locked", "sock_send_length", "sock_recv_length"];

/// Where the payload lies is told by the registers of the call, which the kernel side reads on x86-64 alone.
const PAYLOAD_IS_FOUND: bool = cfg!(target_arch = "x86_64");

/// What the type information of the running kernel says.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    pub layout: Layout,
    /// It has the tracepoints at the sockets, and they can be used.
    pub socket_hooks: bool,
}

/// Reads the type information.
///
/// # Errors
/// When there is none, or a field is not in it.
pub fn kernel() -> Result<Kernel, LayoutError> {
    if !Path::new(VMLINUX).exists() {
        return Err(LayoutError::NoBtf);
    }
    let btf = Btf::from_file(VMLINUX)?;
    // Each tracepoint has a type of its own.
    let traced =
        |name: &&str| btf.resolve_types_by_name(&format!("btf_trace_{name}")).is_ok_and(|types| !types.is_empty());
    let release = std::fs::read_to_string(OSRELEASE).unwrap_or_default();
    let socket_hooks = PAYLOAD_IS_FOUND && is_not_preempted(&release) && AT_SOCKETS.iter().all(traced);
    Ok(Kernel { layout: layout(&btf)?, socket_hooks })
}

/// The kernel's release, as `uname -r` says it.
const OSRELEASE: &str = "/proc/sys/kernel/osrelease";
/// The first release, major and minor, of which it is not known that it does not preempt programs at raw tracepoints. Linux 7.3 does:
/// it leaves out a program where the same one was preempted on that processor (`recursion_misses`), and two of them would share
/// what each processor has once. Those at system calls are not preempted.
const PREEMPTED: (u32, u32) = (6, 19);

/// Whether programs at raw tracepoints are not preempted; not known is no.
fn is_not_preempted(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    (major, minor) < PREEMPTED
}

fn layout(btf: &Btf) -> Result<Layout, LayoutError> {
    let at = |structure, field| offset(btf, structure, field);
    let layout = kernel_tls(btf).unwrap_or_default();
    Ok(Layout {
        task_files: at("task_struct", "files")?,
        files_fdt: at("files_struct", "fdt")?,
        fdtable_max_fds: at("fdtable", "max_fds")?,
        fdtable_fd: at("fdtable", "fd")?,
        file_private_data: at("file", "private_data")?,
        file_inode: at("file", "f_inode")?,
        inode_mode: at("inode", "i_mode")?,
        socket_type: at("socket", "type")?,
        socket_file: at("socket", "file")?,
        socket_sk: at("socket", "sk")?,
        sk_protocol: at("sock", "sk_protocol")?,
        sk_err: at("sock", "sk_err")?,
        skc_family: at("sock_common", "skc_family")?,
        skc_daddr: at("sock_common", "skc_daddr")?,
        skc_rcv_saddr: at("sock_common", "skc_rcv_saddr")?,
        skc_dport: at("sock_common", "skc_dport")?,
        skc_num: at("sock_common", "skc_num")?,
        skc_v6_daddr: at("sock_common", "skc_v6_daddr")?,
        skc_v6_rcv_saddr: at("sock_common", "skc_v6_rcv_saddr")?,
        tcp_write_seq: at("tcp_sock", "write_seq")?,
        tcp_copied_seq: at("tcp_sock", "copied_seq")?,
        tcp_rcv_nxt: at("tcp_sock", "rcv_nxt")?,
        tcp_snd_una: at("tcp_sock", "snd_una")?,
        skc_flags: at("sock_common", "skc_flags")?,
        sk_socket: at("sock", "sk_socket")?,
        // For propagation alone, which asks for them.
        sock_ops_sk: at("bpf_sock_ops_kern", "sk").unwrap_or_default(),
        sock_ops_skb: at("bpf_sock_ops_kern", "skb").unwrap_or_default(),
        skb_cb: at("sk_buff", "cb").unwrap_or_default(),
        cb_seq: at("tcp_skb_cb", "seq").unwrap_or_default(),
        cb_end_seq: at("tcp_skb_cb", "end_seq").unwrap_or_default(),
        sk_msg_sk: at("sk_msg", "sk").unwrap_or_default(),
        sk_wmem_queued: at("sock", "sk_wmem_queued").unwrap_or_default(),
        sk_sndbuf: at("sock", "sk_sndbuf").unwrap_or_default(),
        tcp_mss_cache: at("tcp_sock", "mss_cache").unwrap_or_default(),
        tcp_snd_nxt: at("tcp_sock", "snd_nxt").unwrap_or_default(),
        tcp_notsent_lowat: at("tcp_sock", "notsent_lowat").unwrap_or_default(),
        skc_net: at("sock_common", "skc_net").unwrap_or_default(),
        net_notsent_lowat: net_notsent_lowat(btf).unwrap_or_default(),
        task_fsbase: fsbase(btf).unwrap_or_default(),
        ..layout
    })
}

/// Where it is seen that the kernel itself speaks TLS on a socket: all of it or nothing. The types are the kernel's own, also where
/// TLS is in a module.
fn kernel_tls(btf: &Btf) -> Result<Layout, LayoutError> {
    let at = |structure, field| offset(btf, structure, field);
    let number = member(btf, "cipher_context", "rec_seq")?;
    Ok(Layout {
        icsk_ulp_ops: at("inet_connection_sock", "icsk_ulp_ops")?,
        icsk_ulp_data: at("inet_connection_sock", "icsk_ulp_data")?,
        ulp_name: at("tcp_ulp_ops", "name")?,
        tls_tx: at("tls_context", "priv_ctx_tx")?,
        tls_rx: at("tls_context", "priv_ctx_rx")?,
        tls_version: at("tls_context", "prot_info")? + at("tls_prot_info", "version")?,
        tls_rx_number: at("tls_context", "rx")? + number.offset,
        tls_number_is_far: number.is_pointer.into(),
        ..Layout::default()
    })
}

/// Where a task that is not on a processor, or calls the kernel, has the base of its thread-local memory; x86-64 alone.
fn fsbase(btf: &Btf) -> Result<u32, LayoutError> {
    Ok(offset(btf, "task_struct", "thread")? + offset(btf, "thread_struct", "fsbase")?)
}

/// Where a network namespace has what `tcp_sock.notsent_lowat` is when it is not set.
fn net_notsent_lowat(btf: &Btf) -> Result<u32, LayoutError> {
    Ok(offset(btf, "net", "ipv4")? + offset(btf, "netns_ipv4", "sysctl_tcp_notsent_lowat")?)
}

/// A field of a structure.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// In octets.
    offset: u32,
    is_pointer: bool,
}

/// The offset of a field in octets.
fn offset(btf: &Btf, structure: &'static str, field: &'static str) -> Result<u32, LayoutError> {
    Ok(member(btf, structure, field)?.offset)
}

/// A field, also when it stands in an unnamed structure or union inside.
fn member(btf: &Btf, structure: &'static str, field: &'static str) -> Result<Member, LayoutError> {
    for candidate in btf.resolve_types_by_name(structure)? {
        if let Type::Struct(fields) | Type::Union(fields) = candidate
            && let Some(found) = find(btf, &fields, field, 0)
        {
            return Ok(found);
        }
    }
    Err(LayoutError::NoField { structure, field })
}

/// No structure of the kernel nests unnamed ones deeper.
const DEPTH: u32 = 8;

fn find(btf: &Btf, structure: &btf_rs::Struct, field: &str, depth: u32) -> Option<Member> {
    for member in &structure.members {
        match btf.resolve_name(member) {
            Ok(name) if name == field => {
                let is_pointer = matches!(btf.resolve_chained_type(member), Ok(Type::Ptr(_)));
                return Some(Member { offset: member.bit_offset() / 8, is_pointer });
            }
            Ok(name) if !name.is_empty() => {}
            _ if depth < DEPTH => {
                if let Ok(Type::Struct(inner) | Type::Union(inner)) = btf.resolve_chained_type(member)
                    && let Some(found) = find(btf, &inner, field, depth + 1)
                {
                    return Some(Member { offset: member.bit_offset() / 8 + found.offset, ..found });
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_at_sockets_are_for_kernels_that_do_not_preempt_them() {
        assert!(is_not_preempted("6.18.44-x\n"));
        assert!(is_not_preempted("6.16"));
        assert!(!is_not_preempted("6.19.0"));
        assert!(!is_not_preempted("7.3.4+deb13-cloud-amd64\n"));
        assert!(!is_not_preempted(""));
    }

    #[test]
    fn offsets_of_the_running_kernel_are_found_and_differ() {
        if !Path::new(VMLINUX).exists() {
            println!("SKIPPED: no {VMLINUX}");
            return;
        }
        let layout = kernel().unwrap().layout;
        assert_eq!(layout.skc_daddr, 0, "the addresses come first, since sockets are looked up by them");
        assert_eq!(layout.skc_rcv_saddr, 4);
        assert_ne!(layout.tcp_write_seq, layout.tcp_copied_seq);
        assert_ne!(layout.task_files, 0);
        assert_eq!(layout.task_fsbase != 0, cfg!(target_arch = "x86_64"));
        assert_ne!(layout.skc_v6_daddr, layout.skc_v6_rcv_saddr);
        assert_eq!(layout.icsk_ulp_ops == 0, layout.tls_rx_number == 0, "all or nothing");
    }
}
