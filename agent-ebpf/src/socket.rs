//! From a descriptor to the TCP socket behind it, whoever opened it and whenever: `task → files → fdt → fd[n] → file →
//! socket → sock` (struct names as of Linux 5.15 to 6.18). Nothing depends on having seen `connect` or `accept`.

use agent_common::counter::Counter;
use agent_common::layout::{PORT_KEEP, PORT_LEAVE};
use agent_common::record::{Connection, role};
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{self, bpf_get_current_task_btf, bpf_get_smp_processor_id};

use crate::maps::{LAST_CONN, PORTS, SOCKETS, count, given};

/// `BPF_ANY`, `BPF_NOEXIST` of bpf(2).
const ANY: u64 = 0;
const NOEXIST: u64 = 1;

pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// What is known of a socket's payload.
pub mod verdict {
    /// Too little seen.
    pub const UNDECIDED: u8 = 0;
    /// Begins like HTTP: captured, user space has been told of the socket.
    pub const TAKEN: u8 = 1;
    /// Something else, or filtered out.
    pub const REFUSED: u8 = 2;
}

/// One socket's entry.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Socket {
    pub conn: u64,
    pub opened_at: u64,
    pub established_at: u64,
    /// The process that called `connect`; 0 when not seen.
    pub tgid: u32,
    /// One of [`verdict`].
    pub verdict: u8,
    /// One of [`role`].
    pub role: u8,
    /// Not 0: seen from its first octet on.
    pub fresh: u8,
    /// Not 0: the peer has closed its direction, 1 before and 2 after the process closed its own.
    pub peer_closed: u8,
    /// Not 0: the connection is gone, but the process has not read yet all that came before.
    pub dying: u8,
    /// One of [`coroutines`].
    pub coroutines: u8,
    /// Why, when it is dying.
    pub errno: u16,
    /// As in [`Connection`].
    pub dialler: u32,
    pub dialler_parent: u32,
    /// One of [`tls`]. With TLS, what the calls on the socket move is not the payload; the library's functions tell that.
    pub tls: u8,
    /// Not 0: records were received outside of the library's functions, since plaintext was last seen to be received.
    pub unseen: u8,
    /// What is looked at of a TLS handshake next, sent and received: one of [`hello`] each.
    pub hello: [u8; 2],
    /// Octets of plaintext sent and received so far, with TLS; modulo 2^32.
    pub plain: [u32; 2],
    /// Bits of [`crate::tls::kernel`]: which directions the kernel encrypts.
    pub kernel_tls: u8,
    /// Not 0: seen from its first octet on, which began TLS.
    pub whole: u8,
    /// Who shows the plaintext sent and received, once the kernel has the keys: one of [`shown`] each.
    pub shown: [u8; 2],
}

/// Whether TLS is spoken on a socket.
pub mod tls {
    pub const NO: u8 = 0;
    pub const YES: u8 = 1;
    /// By Go, which reads and writes records within its functions alone.
    pub const GO: u8 = 2;
}

/// Who shows the plaintext of one direction; whoever does so first stays the one.
pub mod shown {
    pub const BY_NOBODY: u8 = 0;
    /// Functions of a library.
    pub const BY_FUNCTIONS: u8 = 1;
    /// Calls on the socket, whose octets the kernel encrypts or has decrypted.
    pub const BY_CALLS: u8 = 2;
}

/// What is looked at of a TLS handshake, in one direction.
pub mod hello {
    /// Nothing more.
    pub const NOTHING: u8 = 0;
    /// What is moved first.
    pub const FIRST: u8 = 1;
    /// What follows a record's head that was moved alone.
    pub const BODY: u8 = 2;
}

/// Whether the threads that use a socket run coroutines that can be told apart.
pub mod coroutines {
    /// User space has not looked into the process yet.
    pub const UNKNOWN: u8 = 0;
    pub const NONE: u8 = 1;
    pub const SOME: u8 = 2;
}

impl Socket {
    /// A socket seen in the middle of its life.
    pub const OLD: Self = Self {
        conn: 0,
        opened_at: 0,
        established_at: 0,
        tgid: 0,
        verdict: verdict::UNDECIDED,
        role: role::UNKNOWN,
        fresh: 0,
        peer_closed: 0,
        dying: 0,
        coroutines: coroutines::UNKNOWN,
        errno: 0,
        dialler: 0,
        dialler_parent: 0,
        tls: tls::NO,
        unseen: 0,
        hello: [hello::NOTHING; 2],
        plain: [0; 2],
        kernel_tls: 0,
        whole: 0,
        shown: [shown::BY_NOBODY; 2],
    };

    /// TLS begins here: what is payload is not known yet.
    #[inline(always)]
    pub fn begins_tls(&mut self) {
        (self.whole, self.fresh) = (self.fresh, 0);
        (self.tls, self.plain) = (tls::YES, [0; 2]);
    }

    /// The position after all payload sent so far: TCP's, or that of the plaintext.
    #[inline(always)]
    pub fn sent(&self, sk: u64) -> Option<u32> {
        if self.tls != tls::NO { Some(self.plain[0]) } else { sent(sk) }
    }

    /// The same of what the process has received.
    #[inline(always)]
    pub fn received(&self, sk: u64) -> Option<u32> {
        if self.tls != tls::NO { Some(self.plain[1]) } else { received(sk, self) }
    }
}

/// The TCP position after all octets sent so far.
#[inline(always)]
pub fn sent(sk: u64) -> Option<u32> {
    kernel(sk, given!(LAYOUT.tcp_write_seq))
}

/// The TCP position after all octets that the process has received so far. The kernel counts a FIN that was read as an
/// octet (`tcp_recvmsg_locked`, net/ipv4/tcp.c); it is none here.
#[inline(always)]
pub fn received(sk: u64, socket: &Socket) -> Option<u32> {
    let copied: u32 = kernel(sk, given!(LAYOUT.tcp_copied_seq))?;
    if socket.peer_closed != 0 && kernel(sk, given!(LAYOUT.tcp_rcv_nxt)) == Some(copied) {
        return Some(copied.wrapping_sub(1));
    }
    Some(copied)
}

/// Reads a field of a kernel structure; `None` when the address is not mapped.
#[inline(always)]
pub fn kernel<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address; `T` is made of integers wherever this is used.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(u64::from(offset)) as *const T) }.ok()
}

/// The `struct file` of a descriptor of the current process.
#[inline(always)]
fn file_of(fd: u64) -> Option<u64> {
    // The verifier knows the types along this way, so plain loads do, which the kernel guards against faults; each saves
    // the call of a helper.
    let (files_at, fdt_at) = (given!(LAYOUT.task_files) as usize, given!(LAYOUT.files_fdt) as usize);
    let (max_at, table_at) = (given!(LAYOUT.fdtable_max_fds) as usize, given!(LAYOUT.fdtable_fd) as usize);
    // SAFETY: the verifier checks each offset against the kernel's types, and a load that faults reads 0.
    let (max, table) = unsafe {
        let task: *const u8 = bpf_get_current_task_btf().cast();
        let files = *task.add(files_at).cast::<*const u8>();
        if files.is_null() {
            return None;
        }
        let fdt = *files.add(fdt_at).cast::<*const u8>();
        if fdt.is_null() {
            return None;
        }
        (*fdt.add(max_at).cast::<u32>(), *fdt.add(table_at).cast::<u64>())
    };
    let fd = fd as u32;
    if fd >= max {
        return None;
    }
    let file: u64 = kernel(table.wrapping_add(u64::from(fd) * 8), 0)?;
    (file != 0).then_some(file)
}

/// The `struct socket` and `struct sock` behind a descriptor of the current process, when it is a socket at all.
#[inline(always)]
fn socket_of(file: u64) -> Option<(u64, u64)> {
    let socket: u64 = kernel(file, given!(LAYOUT.file_private_data))?;
    if socket == 0 {
        return None;
    }
    // Only a `struct socket` points back at its file: this alone refuses pipes, files and everything else.
    let back: u64 = kernel(socket, given!(LAYOUT.socket_file))?;
    if back != file {
        return None;
    }
    let sk: u64 = kernel(socket, given!(LAYOUT.socket_sk))?;
    (sk != 0).then_some((socket, sk))
}

/// The TCP socket behind a descriptor of the current process, and its entry. One without an entry gets it now: the
/// connection is then older than the agent.
#[inline(always)]
pub fn of(fd: u64) -> Option<(u64, *mut Socket)> {
    let file = file_of(fd)?;
    let (socket, sk) = socket_of(file)?;
    if let Some(entry) = SOCKETS.get_ptr_mut(&sk) {
        return Some((sk, entry));
    }
    // Not seen yet: a last look before it is taken for one.
    if !is_stream_socket(file, socket) || !is_tcp(sk) {
        return None;
    }
    Some((sk, remember(sk, &Socket::OLD)?))
}

/// The entry of a socket that the kernel names itself, `None` when it is no TCP socket. One without an entry gets it
/// now, as in [`of`], when it is a process's.
#[inline(always)]
pub fn at(sk: u64) -> Option<*mut Socket> {
    if let Some(entry) = SOCKETS.get_ptr_mut(&sk) {
        return Some(entry);
    }
    if !is_tcp(sk) || !is_owned(sk) {
        return None;
    }
    remember(sk, &Socket::OLD)
}

/// Whether a process has the socket as a descriptor: sockets of the kernel's own (a network file system's) have no file.
#[inline(always)]
pub fn is_owned(sk: u64) -> bool {
    let socket: Option<u64> = kernel(sk, given!(LAYOUT.sk_socket)).filter(|&socket| socket != 0);
    let file: Option<u64> = socket.and_then(|socket| kernel(socket, given!(LAYOUT.socket_file)));
    file.is_some_and(|file| file != 0)
}

/// Whether a descriptor is a TCP socket without an entry.
#[inline(always)]
pub fn is_unknown(fd: u64) -> bool {
    let Some(file) = file_of(fd) else { return false };
    let Some((socket, sk)) = socket_of(file) else { return false };
    SOCKETS.get_ptr(&sk).is_none() && is_stream_socket(file, socket) && is_tcp(sk)
}

#[inline(always)]
fn is_stream_socket(file: u64, socket: u64) -> bool {
    let inode: Option<u64> = kernel(file, given!(LAYOUT.file_inode));
    let mode: Option<u16> = inode.and_then(|inode| kernel(inode, given!(LAYOUT.inode_mode)));
    let kind: Option<u16> = kernel(socket, given!(LAYOUT.socket_type));
    mode.is_some_and(|mode| mode & S_IFMT == S_IFSOCK) && kind == Some(SOCK_STREAM)
}

/// Puts a socket into the map under a new connection id.
#[inline(never)]
pub fn remember(sk: u64, socket: &Socket) -> Option<*mut Socket> {
    let mut socket = *socket;
    socket.conn = next_conn(socket.fresh != 0)?;
    // A socket that another thread put there meanwhile stays; one that begins its life replaces what was there.
    let flags = if socket.fresh == 0 { NOEXIST } else { ANY };
    if SOCKETS.insert(&sk, &socket, flags).is_err() && SOCKETS.get_ptr(&sk).is_none() {
        count(Counter::SocketMapFull);
        return None;
    }
    SOCKETS.get_ptr_mut(&sk)
}

/// Sockets older than the agent have ids of this range: a packet that opens a connection may interrupt the program that
/// gives one out, so the two count apart.
const OLD_IDS: u64 = 1 << 39;

/// A connection id that was never given out: each CPU counts for itself.
#[inline(always)]
fn next_conn(fresh: bool) -> Option<u64> {
    let last = LAST_CONN.get_ptr_mut(u32::from(!fresh))?;
    // SAFETY: the slot is this CPU's own; the helper has no preconditions.
    let (number, cpu) = unsafe {
        *last += 1;
        (*last, bpf_get_smp_processor_id())
    };
    let id = number * u64::from(given!(SETUP.cpus)) + u64::from(cpu);
    Some(if fresh { id } else { id | OLD_IDS })
}

#[inline(always)]
fn is_tcp(sk: u64) -> bool {
    let family: Option<u16> = kernel(sk, given!(LAYOUT.skc_family));
    let protocol: Option<u16> = kernel(sk, given!(LAYOUT.sk_protocol));
    matches!(family, Some(AF_INET | AF_INET6)) && protocol == Some(IPPROTO_TCP)
}

/// The two ends of a socket, without their addresses.
pub struct Ends {
    pub family: u16,
    pub local_port: u16,
    pub peer_port: u16,
}

#[inline(always)]
pub fn ends(sk: u64) -> Option<Ends> {
    Some(Ends {
        family: kernel(sk, given!(LAYOUT.skc_family))?,
        local_port: kernel(sk, given!(LAYOUT.skc_num))?,
        peer_port: u16::from_be(kernel(sk, given!(LAYOUT.skc_dport))?),
    })
}

/// Reads the addresses of a socket's two ends into a record of zeros; whether they could be read. Straight into it: each
/// copy on the way would take room on the stack.
#[inline(always)]
pub fn addresses(sk: u64, family: u16, record: &mut Connection) -> bool {
    let (local, peer, size) = if family == AF_INET6 {
        (given!(LAYOUT.skc_v6_rcv_saddr), given!(LAYOUT.skc_v6_daddr), 16)
    } else {
        (given!(LAYOUT.skc_rcv_saddr), given!(LAYOUT.skc_daddr), 4)
    };
    kernel_into(sk, local, &mut record.local, size) && kernel_into(sk, peer, &mut record.peer, size)
}

/// Reads the first `size` octets of an address; whether that worked.
#[inline(always)]
fn kernel_into(base: u64, offset: u32, to: &mut [u8; 16], size: u32) -> bool {
    // SAFETY: `size` is 4 or 16, so it fits; the helper checks the address it reads from.
    unsafe {
        let from = base.wrapping_add(u64::from(offset)) as *const core::ffi::c_void;
        generated::bpf_probe_read_kernel(to.as_mut_ptr().cast(), size, from) == 0
    }
}

/// Whether the port filters let a socket through. Which port is the server's is only known of a socket whose making was
/// seen; of another one user space decides, once it knows.
#[inline(always)]
pub fn ports_allow(ends: &Ends, role: u8) -> bool {
    if given!(SETUP.keep_ports) != 0 && port(ends.local_port) != PORT_KEEP && port(ends.peer_port) != PORT_KEEP {
        return false;
    }
    if given!(SETUP.leave_ports) == 0 {
        return true;
    }
    match role {
        role::CONNECTED => port(ends.peer_port) != PORT_LEAVE,
        role::ACCEPTED => port(ends.local_port) != PORT_LEAVE,
        _ => true,
    }
}

#[inline(always)]
fn port(port: u16) -> u8 {
    // SAFETY: values are single octets and never deleted.
    unsafe { PORTS.get(&port) }.copied().unwrap_or(0)
}
