//! Where the running kernel keeps the fields that the kernel side reads, and how the agent is set up. User space
//! fills both in before loading: offsets from the kernel's BTF, as rustc emits no CO-RE relocations.

/// Offsets in octets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `task_struct.files`
    pub task_files: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.max_fds`
    pub fdtable_max_fds: u32,
    /// `fdtable.fd`
    pub fdtable_fd: u32,
    /// `file.private_data`
    pub file_private_data: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// `socket.type`
    pub socket_type: u32,
    /// `socket.file`
    pub socket_file: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `sock.sk_protocol`
    pub sk_protocol: u32,
    /// `sock.sk_err`
    pub sk_err: u32,
    /// `sock_common.skc_family`
    pub skc_family: u32,
    /// `sock_common.skc_daddr`
    pub skc_daddr: u32,
    /// `sock_common.skc_rcv_saddr`
    pub skc_rcv_saddr: u32,
    /// `sock_common.skc_dport`
    pub skc_dport: u32,
    /// `sock_common.skc_num`
    pub skc_num: u32,
    /// `sock_common.skc_v6_daddr`
    pub skc_v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`
    pub skc_v6_rcv_saddr: u32,
    /// `tcp_sock.write_seq`
    pub tcp_write_seq: u32,
    /// `tcp_sock.copied_seq`
    pub tcp_copied_seq: u32,
    /// `tcp_sock.rcv_nxt`
    pub tcp_rcv_nxt: u32,
    /// `tcp_sock.snd_una`
    pub tcp_snd_una: u32,
    /// `sock_common.skc_flags`
    pub skc_flags: u32,
    /// `sock.sk_socket`
    pub sk_socket: u32,
    /// `bpf_sock_ops_kern.sk`
    pub sock_ops_sk: u32,
    /// `bpf_sock_ops_kern.skb`
    pub sock_ops_skb: u32,
    /// `sk_buff.cb`, which holds a `tcp_skb_cb`
    pub skb_cb: u32,
    /// `tcp_skb_cb.seq`
    pub cb_seq: u32,
    /// `tcp_skb_cb.end_seq`
    pub cb_end_seq: u32,
    /// `sk_msg.sk`
    pub sk_msg_sk: u32,
    /// `sock.sk_wmem_queued`
    pub sk_wmem_queued: u32,
    /// `sock.sk_sndbuf`
    pub sk_sndbuf: u32,
    /// `tcp_sock.mss_cache`
    pub tcp_mss_cache: u32,
    /// `tcp_sock.snd_nxt`
    pub tcp_snd_nxt: u32,
    /// `tcp_sock.notsent_lowat`
    pub tcp_notsent_lowat: u32,
    /// `sock_common.skc_net`
    pub skc_net: u32,
    /// `net.ipv4.sysctl_tcp_notsent_lowat`
    pub net_notsent_lowat: u32,
    /// `task_struct.thread.fsbase`; 0 on architectures other than x86-64.
    pub task_fsbase: u32,
    /// `inet_connection_sock.icsk_ulp_ops`. This and the next ones are 0 where the kernel has no TLS of its own.
    pub icsk_ulp_ops: u32,
    /// `inet_connection_sock.icsk_ulp_data`, which points to a `tls_context`
    pub icsk_ulp_data: u32,
    /// `tcp_ulp_ops.name`
    pub ulp_name: u32,
    /// `tls_context.priv_ctx_tx`
    pub tls_tx: u32,
    /// `tls_context.priv_ctx_rx`
    pub tls_rx: u32,
    /// `tls_context.prot_info.version`
    pub tls_version: u32,
    /// `tls_context.rx.rec_seq`, the number of the next record, of eight octets
    pub tls_rx_number: u32,
    /// Not 0: that is a pointer to it, as in Linux 6.1.
    pub tls_number_is_far: u32,
}

/// Where a Go program keeps what tells its goroutines apart: offsets in octets, which differ by release.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoLayout {
    /// Of the pointer to the running `runtime.g`, from the thread's `fsbase` on; modulo 2^64.
    pub tls: u64,
    /// `g.m`
    pub g_m: u32,
    /// `g.goid`
    pub g_goid: u32,
    /// `g.parentGoid`; 0 before Go 1.21.
    pub g_parent: u32,
    /// `m.curg`
    pub m_curg: u32,
    /// `m.p`
    pub m_p: u32,
    /// `m.oldp`
    pub m_oldp: u32,
    /// `p.goidcache`, which `p.goidcacheend` follows
    pub p_goidcache: u32,
    pub reserved: u32,
}

/// How the agent is set up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The agent's own process, never traced.
    pub agent: u32,
    /// Possible CPUs, at least 1.
    pub cpus: u32,
    /// Not 0: the map of processes decides on each call; one without an entry is captured, user space decides then.
    pub choose_processes: u32,
    /// Not 0: a socket is only followed when one of its ports is in the map of ports with [`PORT_KEEP`].
    pub keep_ports: u32,
    /// Not 0: a socket with a port in the map of ports with [`PORT_LEAVE`] is not followed.
    pub leave_ports: u32,
    /// Not 0: transfers are seen at the sockets, so the hooks of system calls report only what those do not see.
    pub at_sockets: u32,
    /// One of [`propagate`]; if not 0, contexts of requests are decided and sent. Everything that belongs to it is off
    /// otherwise.
    pub propagate: u32,
    /// Not 0: a parent's sampling decision is followed.
    pub parent_based: u32,
    /// A new trace is sampled when its randomness, 56 bits, is not below this; in two halves.
    pub sample_from_high: u32,
    pub sample_from_low: u32,
    /// Not 0: TLS is told from what is refused, since functions of its libraries may show what is under it.
    pub tls: u32,
}

/// How contexts are sent.
pub mod propagate {
    /// Not at all.
    pub const OFF: u32 = 0;
    /// In an option of TCP.
    pub const TCP: u32 = 1;
    /// In fields of the requests themselves.
    pub const HEADERS: u32 = 2;
}

/// Values of the map of processes: one of these two.
pub const PROCESS_TRACE: u8 = 1;
pub const PROCESS_IGNORE: u8 = 2;
/// With [`PROCESS_TRACE`]: a thread stays with the request that it has read until that is answered.
pub const PROCESS_THREADS_TELL: u8 = 1 << 2;
/// With [`PROCESS_TRACE`]: the process calls also on its own account.
pub const PROCESS_CALLS_UNASKED: u8 = 1 << 3;
/// With [`PROCESS_TRACE`]: it was found out whether its threads run coroutines that can be told apart.
pub const PROCESS_LOOKED_INTO: u8 = 1 << 4;
/// With [`PROCESS_LOOKED_INTO`]: they do, and the map of Go programs says where to read which.
pub const PROCESS_GO: u8 = 1 << 5;
/// With [`PROCESS_TRACE`]: functions of TLS libraries were looked for in what it runs.
pub const PROCESS_TLS: u8 = 1 << 6;
/// With [`PROCESS_LOOKED_INTO`]: an event loop of Python runs tasks there, and the map of such processes says where to read which.
pub const PROCESS_ASYNCIO: u8 = 1 << 7;

/// Values of the map of ports.
pub const PORT_KEEP: u8 = 1;
pub const PORT_LEAVE: u8 = 2;
