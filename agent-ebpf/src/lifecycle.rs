//! Connections and processes that come and go.

use agent_common::counter::Counter;
use agent_common::ids::Direction;
use agent_common::layout::{PROCESS_TLS, PROCESS_TRACE};
use agent_common::limits::FILENAME;
use agent_common::record::{Birth, Closing, Connection, Coroutine, Process, SpeaksTls, lifecycle, role};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_probe_read_kernel_str};
use aya_ebpf::programs::TracePointContext;

use crate::call::{self, Call};
use crate::context;
use crate::coroutine;
use crate::judge::First;
use crate::maps::{ASYNCIO, GO, PROCESSES, SOCKETS, count, emit_lifecycle, given};
use crate::socket::{self, AF_INET, AF_INET6, Ends, Socket, kernel, verdict};

/// States of a TCP socket (include/net/tcp_states.h).
mod state {
    pub const ESTABLISHED: i32 = 1;
    pub const SYN_SENT: i32 = 2;
    pub const SYN_RECV: i32 = 3;
    pub const FIN_WAIT1: i32 = 4;
    pub const FIN_WAIT2: i32 = 5;
    pub const CLOSE: i32 = 7;
    pub const CLOSE_WAIT: i32 = 8;
    pub const LAST_ACK: i32 = 9;
    pub const CLOSING: i32 = 11;
}

const IPPROTO_TCP: u16 = 6;

/// Reads a field of a tracepoint's context.
#[inline(always)]
fn field<T: Copy>(ctx: &TracePointContext, offset: usize) -> T {
    // SAFETY: offsets are those of the tracepoint's format file; the verifier checks direct access to the context.
    unsafe { *ctx.as_ptr().cast::<u8>().add(offset).cast::<T>() }
}

/// Begins to follow a socket: tells user space of it. Whether that worked; otherwise the next octets try again.
#[inline(never)]
pub fn take(sk: u64, socket: &mut Socket, first: &First) -> bool {
    let thread = call::thread();
    let Some(ends) = socket::ends(sk) else { return false };
    if !socket::ports_allow(&ends, socket.role) {
        socket.verdict = verdict::REFUSED;
        count(Counter::SocketsRefused);
        return false;
    }
    // One record, filled in where it lies: before Linux 6.13 the stacks of a program and of all functions on the way here
    // share 512 octets ("combined stack size of 3 calls is 544").
    let mut record = Connection::default();
    describe(&mut record, socket, &ends, thread, call::now());
    record.kind = lifecycle::OPEN;
    record.fresh = socket.fresh;
    record.tls = socket.tls.into();
    if !socket::addresses(sk, ends.family, &mut record) {
        return false;
    }
    record.sent = socket.sent(sk).unwrap_or(0);
    record.received = socket.received(sk).unwrap_or(0);
    match first.direction {
        Direction::Egress => record.sent = record.sent.wrapping_sub(first.len),
        Direction::Ingress => record.received = record.received.wrapping_sub(first.len),
    }
    // A process that user space does not know yet may be gone in a moment, and with it its name.
    // SAFETY: values are single octets.
    let unknown = unsafe { PROCESSES.get(&((thread >> 32) as u32)) }.is_none();
    if !emit_lifecycle(&record, unknown) {
        socket.fresh = 0;
        return false;
    }
    socket.verdict = verdict::TAKEN;
    count(Counter::SocketsTaken);
    true
}

/// Tells user space that a process speaks TLS, unless it has looked for the library.
#[inline(never)]
pub fn speaks_tls(thread: u64) {
    let tgid = (thread >> 32) as u32;
    // SAFETY: values are single octets.
    let bits = unsafe { PROCESSES.get(&tgid) }.copied().unwrap_or_default();
    if bits & PROCESS_TLS == 0 {
        emit_lifecycle(&SpeaksTls { kind: lifecycle::SPEAKS_TLS, reserved: [0; 3], tgid, at: call::now() }, true);
    }
}

/// Fills a record of zeros with what is known of a socket, but for its addresses.
#[inline(always)]
fn describe(record: &mut Connection, socket: &Socket, ends: &Ends, thread: u64, at: u64) {
    record.role = socket.role;
    record.family = ends.family as u8;
    record.conn = socket.conn;
    record.at = at;
    record.opened_at = socket.opened_at;
    record.established_at = socket.established_at;
    record.tgid = (thread >> 32) as u32;
    record.tid = thread as u32;
    record.local_port = ends.local_port;
    record.peer_port = ends.peer_port;
    record.dialler = socket.dialler;
    record.dialler_parent = socket.dialler_parent;
    // SAFETY: the destination has the size given; the helper fills it with zeros when it fails.
    unsafe { bpf_get_current_comm(record.comm.as_mut_ptr().cast(), record.comm.len() as u32) };
}

/// `sock:inet_sock_set_state`: `skaddr` at 8, `oldstate` at 16, `newstate` at 20, `protocol` at 30. The current task is
/// the socket's owner only when the state was changed by a call, not by a packet.
#[inline(always)]
pub fn state_changed(ctx: &TracePointContext) {
    // Where the protocol has one octet (before Linux 5.6) the next one is padding of 0.
    if field::<u16>(ctx, 30) != IPPROTO_TCP {
        return;
    }
    let sk: u64 = field(ctx, 8);
    let (old, new): (i32, i32) = (field(ctx, 16), field(ctx, 20));
    match (old, new) {
        (_, state::SYN_SENT) => connecting(sk),
        (state::SYN_SENT, state::ESTABLISHED) => {
            if let Some(socket) = SOCKETS.get_ptr_mut(&sk) {
                // SAFETY: a value of the map.
                unsafe { (*socket).established_at = call::now() };
            }
        }
        (state::SYN_RECV, state::ESTABLISHED) => {
            let now = call::now();
            let socket = fresh(role::ACCEPTED, now);
            socket::remember(sk, &Socket { established_at: now, ..socket });
        }
        (_, state::CLOSE_WAIT | state::CLOSING) => {
            if let Some(socket) = SOCKETS.get_ptr_mut(&sk) {
                // SAFETY: a value of the map.
                unsafe { (*socket).peer_closed = if new == state::CLOSE_WAIT { 1 } else { 2 } };
            }
        }
        (_, state::FIN_WAIT1 | state::LAST_ACK) => sent_all(sk),
        (_, state::CLOSE) => closed(sk, old),
        _ => {}
    }
}

#[inline(always)]
fn fresh(role: u8, now: u64) -> Socket {
    Socket { opened_at: now, role, fresh: 1, ..Socket::OLD }
}

#[inline(always)]
fn connecting(sk: u64) {
    let thread = call::thread();
    let tgid = (thread >> 32) as u32;
    let mut socket = Socket { tgid, ..fresh(role::CONNECTED, call::now()) };
    if coroutine::is_told(&mut socket, thread) {
        let mut dialler = Coroutine::default();
        coroutine::note(&raw mut dialler, thread);
        (socket.dialler, socket.dialler_parent) = (dialler.id, dialler.parent);
    }
    if tgid == given!(SETUP.agent) {
        socket::remember(sk, &Socket { verdict: verdict::REFUSED, ..socket });
    } else {
        socket::remember(sk, &socket);
    }
}

/// The process has closed its sending direction.
#[inline(always)]
fn sent_all(sk: u64) {
    // SAFETY: a value of the map, readable while the program runs.
    if let Some(socket) = unsafe { SOCKETS.get(&sk) } {
        closing(sk, socket, lifecycle::SENT_ALL, 0, 0);
    }
}

/// Tells user space about the end of a socket it was told of. `fin`: 1 when the kernel has counted a FIN as sent.
#[inline(always)]
fn closing(sk: u64, socket: &Socket, kind: u8, errno: u16, fin: u32) {
    if socket.verdict == verdict::TAKEN {
        let record = Closing {
            kind,
            peer_first: u8::from(socket.peer_closed == 1),
            errno,
            sent: socket.sent(sk).unwrap_or(0).wrapping_sub(if socket.tls != 0 { 0 } else { fin }),
            received: socket.received(sk).unwrap_or(0),
            reserved: 0,
            conn: socket.conn,
            at: call::now(),
        };
        emit_lifecycle(&record, false);
    }
}

/// `SOCK_DEAD` of `sk_flags` (enum sock_flags, include/net/sock.h): no process has the socket any more.
const SOCK_DEAD: u64 = 1;

#[inline(always)]
fn closed(sk: u64, old: i32) {
    if context::is_on() {
        context::closed(sk);
    }
    let errno: i32 = kernel(sk, given!(LAYOUT.sk_err)).unwrap_or(0);
    if old == state::SYN_SENT {
        failed(sk, errno as u32);
        let _ = SOCKETS.remove(&sk);
        return;
    }
    let Some(socket) = SOCKETS.get_ptr_mut(&sk) else { return };
    // SAFETY: a value of the map, readable and writable while the program runs.
    let socket = unsafe { &mut *socket };
    if old == state::FIN_WAIT2 && errno == 0 {
        socket.peer_closed = 2;
    }
    let by_packet = errno != 0 || matches!(old, state::FIN_WAIT2 | state::CLOSING | state::LAST_ACK);
    if by_packet && socket.verdict == verdict::TAKEN && has_unread(sk, socket) {
        // The process may still read what came before the end: the connection is gone for it when it has.
        (socket.dying, socket.errno) = (1, errno as u16);
        return;
    }
    let fin = matches!(old, state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSING | state::LAST_ACK);
    closing(sk, socket, lifecycle::CLOSE, errno as u16, fin.into());
    let _ = SOCKETS.remove(&sk);
}

/// Whether octets wait that a process may still read.
#[inline(always)]
fn has_unread(sk: u64, socket: &Socket) -> bool {
    let flags: u64 = kernel(sk, given!(LAYOUT.skc_flags)).unwrap_or(SOCK_DEAD);
    flags & SOCK_DEAD == 0 && unread(sk, socket) > 0
}

#[inline(always)]
fn unread(sk: u64, socket: &Socket) -> i32 {
    let fin = u32::from(socket.peer_closed != 0);
    let end: u32 = kernel(sk, given!(LAYOUT.tcp_rcv_nxt)).unwrap_or(0);
    let received = socket::received(sk, socket).unwrap_or(0);
    end.wrapping_sub(fin).wrapping_sub(received) as i32
}

/// A call read from a socket that is dying: nothing more is to come when all is read.
#[inline(never)]
pub fn read_on(sk: u64, socket: &mut Socket) {
    if unread(sk, socket) <= 0 {
        closing(sk, socket, lifecycle::CLOSE, socket.errno, 0);
        let _ = SOCKETS.remove(&sk);
    }
}

/// A connection that never was. Without an errno the process itself gave up.
#[inline(always)]
fn failed(sk: u64, errno: u32) {
    // SAFETY: a value of the map, readable while the program runs.
    let Some(socket) = (unsafe { SOCKETS.get(&sk) }) else { return };
    if socket.verdict == verdict::REFUSED || socket.tgid == 0 {
        return;
    }
    let Some(ends) = socket::ends(sk) else { return };
    if !socket::ports_allow(&ends, role::CONNECTED) {
        return;
    }
    let mut record = Connection::default();
    describe(&mut record, socket, &ends, u64::from(socket.tgid) << 32, call::now());
    if !socket::addresses(sk, ends.family, &mut record) {
        return;
    }
    (record.kind, record.errno, record.comm) = (lifecycle::CONNECT_FAILED, errno, [0; 16]);
    emit_lifecycle(&record, true);
}

const ENETUNREACH: i64 = 101;
const EHOSTUNREACH: i64 = 113;
const EADDRNOTAVAIL: i64 = 99;

/// `connect(fd, address, …)` that failed before a packet was sent, so that no state changed.
#[inline(always)]
pub fn connected(ctx: &TracePointContext) {
    let result = -call::result(ctx);
    if !matches!(result, ENETUNREACH | EHOSTUNREACH | EADDRNOTAVAIL) {
        return;
    }
    let thread = call::thread();
    if (thread >> 32) as u32 == given!(SETUP.agent) {
        return;
    }
    let call = Call::current();
    // A socket that has an entry was seen to change its state, and tells of its failure so.
    if !socket::is_unknown(call.arg0()) {
        return;
    }
    let Some([family, port]) = call::user::<[u16; 2]>(call.arg1()) else { return };
    let ends = Ends { family, local_port: 0, peer_port: u16::from_be(port) };
    let now = call::now();
    let mut record = Connection::default();
    describe(&mut record, &fresh(role::CONNECTED, now), &ends, thread, now);
    match family {
        // struct sockaddr_in: sin_addr at 4; struct sockaddr_in6: sin6_addr at 8.
        AF_INET => {
            let Some([a, b, c, d]) = call::user::<[u8; 4]>(call.arg1().wrapping_add(4)) else { return };
            (record.peer[0], record.peer[1], record.peer[2], record.peer[3]) = (a, b, c, d);
        }
        AF_INET6 => {
            let Some(address) = call::user::<[u8; 16]>(call.arg1().wrapping_add(8)) else { return };
            record.peer = address;
        }
        _ => return,
    }
    if !socket::ports_allow(&ends, role::CONNECTED) {
        return;
    }
    (record.kind, record.errno) = (lifecycle::CONNECT_FAILED, result as u32);
    emit_lifecycle(&record, true);
}

/// `sched:sched_process_exec`: the place of `filename` at 8 (offset in the low half, length in the high one).
#[inline(always)]
pub fn executed(ctx: &TracePointContext) {
    let place: u32 = field(ctx, 8);
    let mut record = process(lifecycle::EXEC);
    // SAFETY: the destination has the size given; the source lies in the context's record.
    unsafe {
        bpf_probe_read_kernel_str(
            record.filename.as_mut_ptr().cast(),
            FILENAME as u32,
            ctx.as_ptr().cast::<u8>().add((place & 0xffff) as usize).cast(),
        );
    }
    // The file is another one now, so what was decided about the process may not hold any more.
    let _ = PROCESSES.remove(&record.tgid);
    let _ = GO.remove(&record.tgid);
    let _ = ASYNCIO.remove(&record.tgid);
    // At once: what it runs may have to be hooked before it speaks.
    emit_lifecycle(&record, given!(SETUP.tls) != 0);
}

/// `sched:sched_process_exit`, for each thread: the process has ended with its first thread as good as always.
#[inline(always)]
pub fn exited() {
    let thread = call::thread();
    let tgid = (thread >> 32) as u32;
    if context::is_on() {
        context::serving::exited(thread);
    }
    // SAFETY: values are single octets.
    if tgid != thread as u32 || unsafe { PROCESSES.get(&tgid) }.is_none() {
        return;
    }
    let _ = PROCESSES.remove(&tgid);
    let _ = GO.remove(&tgid);
    let _ = ASYNCIO.remove(&tgid);
    emit_lifecycle(&process(lifecycle::EXIT), false);
}

/// `CLONE_THREAD` (include/uapi/linux/sched.h): the new task is a thread of the same process.
const CLONE_THREAD: u64 = 0x1_0000;

/// `task:task_newtask`, in the task that starts another one: the new one's `pid` at 8, `clone_flags` at 32.
#[inline(always)]
pub fn born(ctx: &TracePointContext) {
    let thread = call::thread();
    let tgid = (thread >> 32) as u32;
    // SAFETY: values are single octets.
    let bits = unsafe { PROCESSES.get(&tgid) }.copied().unwrap_or_default();
    if bits & PROCESS_TRACE == 0 {
        return;
    }
    let record = Birth {
        kind: lifecycle::BIRTH,
        thread: u8::from(field::<u64>(ctx, 32) & CLONE_THREAD != 0),
        reserved: [0; 2],
        tgid,
        tid: thread as u32,
        child: field(ctx, 8),
        at: call::now(),
    };
    emit_lifecycle(&record, false);
}

#[inline(always)]
fn process(kind: u8) -> Process {
    Process {
        kind,
        reserved: [0; 3],
        tgid: (call::thread() >> 32) as u32,
        at: call::now(),
        comm: helpers::bpf_get_current_comm().unwrap_or_default(),
        filename: [0; FILENAME],
    }
}
