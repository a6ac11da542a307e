//! Every map, with its bound and who deletes from it, and the counters.

use agent_common::asyncio::AsyncioLayout;
use agent_common::counter::Counter;
use agent_common::hint::{Hint, Reader};
use agent_common::layout::{GoLayout, Layout, Setup};
use agent_common::limits;
use agent_common::record::SegmentHead;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ringbuf_output};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, SockHash};

use crate::call::Entered;
use crate::context::Record;
use crate::context::client::Client;
use crate::context::frames::Frames;
use crate::context::head::Scan;
use crate::context::option::Told;
use crate::context::serving::{Load, Request};
use crate::context::state::State;
use crate::context::stream::Block;
use crate::payload::Gather;
use crate::socket::Socket;
use crate::tls::{Caller, Calling, Kept, Session, SessionId, Thread};

/// Offsets in kernel structures; user space fills it in before loading.
#[unsafe(no_mangle)]
pub static LAYOUT: Layout = Layout {
    task_files: 0,
    files_fdt: 0,
    fdtable_max_fds: 0,
    fdtable_fd: 0,
    file_private_data: 0,
    file_inode: 0,
    inode_mode: 0,
    socket_type: 0,
    socket_file: 0,
    socket_sk: 0,
    sk_protocol: 0,
    sk_err: 0,
    skc_family: 0,
    skc_daddr: 0,
    skc_rcv_saddr: 0,
    skc_dport: 0,
    skc_num: 0,
    skc_v6_daddr: 0,
    skc_v6_rcv_saddr: 0,
    tcp_write_seq: 0,
    tcp_copied_seq: 0,
    tcp_rcv_nxt: 0,
    tcp_snd_una: 0,
    skc_flags: 0,
    sk_socket: 0,
    sock_ops_sk: 0,
    sock_ops_skb: 0,
    skb_cb: 0,
    cb_seq: 0,
    cb_end_seq: 0,
    sk_msg_sk: 0,
    sk_wmem_queued: 0,
    sk_sndbuf: 0,
    tcp_mss_cache: 0,
    tcp_snd_nxt: 0,
    tcp_notsent_lowat: 0,
    skc_net: 0,
    net_notsent_lowat: 0,
    task_fsbase: 0,
    icsk_ulp_ops: 0,
    icsk_ulp_data: 0,
    ulp_name: 0,
    tls_tx: 0,
    tls_rx: 0,
    tls_version: 0,
    tls_rx_number: 0,
    tls_number_is_far: 0,
};

/// How the agent is set up; user space fills it in before loading.
#[unsafe(no_mangle)]
pub static SETUP: Setup = Setup {
    agent: 0,
    cpus: 1,
    choose_processes: 0,
    keep_ports: 0,
    leave_ports: 0,
    at_sockets: 0,
    propagate: 0,
    parent_based: 0,
    sample_from_high: 0,
    sample_from_low: 0,
    tls: 0,
};

/// Reads a field of [`LAYOUT`] or [`SETUP`]. The compiler must not take the value it sees for the one at load time.
macro_rules! given {
    ($global:ident.$field:ident) => {{
        // SAFETY: the global is a plain static of integers that nobody writes after loading.
        unsafe { (&raw const $crate::maps::$global.$field).read_volatile() }
    }};
}
pub(crate) use given;

#[map]
static SEGMENTS: RingBuf = RingBuf::with_byte_size(limits::SEGMENT_RING, 0);

#[map]
static LIFECYCLE: RingBuf = RingBuf::with_byte_size(limits::LIFECYCLE_RING, 0);

/// When the sending call of a thread began. A slot per thread id modulo its length: written at entry, read at return.
#[map]
pub static ENTERED: Array<Entered> = Array::with_max_entries(limits::ENTERED, 0);

/// What is known of a socket, by the address of its `struct sock`. Deleted when the socket reaches `TCP_CLOSE`.
#[map]
pub static SOCKETS: LruHashMap<u64, Socket> = LruHashMap::with_max_entries(limits::SOCKETS, 0);

/// User space's decision about a process. Deleted when it exits.
#[map]
pub static PROCESSES: LruHashMap<u32, u8> = LruHashMap::with_max_entries(limits::PROCESSES, 0);

/// Where Go processes keep what tells their goroutines apart; user space fills it in. Deleted when a process exits or runs
/// another file.
#[map]
pub static GO: LruHashMap<u32, GoLayout> = LruHashMap::with_max_entries(limits::GO_PROCESSES, 0);

/// The same of tasks, of Python processes with an event loop.
#[map]
pub static ASYNCIO: LruHashMap<u32, AsyncioLayout> = LruHashMap::with_max_entries(limits::ASYNCIO_PROCESSES, 0);

/// Calls into TLS libraries that have not returned. Deleted when they do.
#[map]
pub static TLS_CALLS: LruHashMap<Caller, Calling> = LruHashMap::with_max_entries(limits::TLS_CALLS, 0);

/// Which socket each TLS session uses. Deleted when the library frees it.
#[map]
pub static TLS_SESSIONS: LruHashMap<SessionId, Session> = LruHashMap::with_max_entries(limits::TLS_SESSIONS, 0);

/// What each thread last did on the sockets of TLS connections, outside of calls into libraries.
#[map]
pub static TLS_THREADS: LruHashMap<u64, Thread> = LruHashMap::with_max_entries(limits::TLS_THREADS, 0);

/// What threads gave to TLS sessions whose socket is not known yet.
#[map]
pub static TLS_KEPT: LruHashMap<u64, Kept> = LruHashMap::with_max_entries(limits::TLS_KEEPING, 0);

/// Ports to keep or to leave out; written once, before attaching.
#[map]
pub static PORTS: HashMap<u16, u8> = HashMap::with_max_entries(limits::PORTS, 0);

#[map]
pub static HINTS: Array<Hint> = Array::with_max_entries(limits::HINTS, BPF_F_MMAPABLE);

#[map]
static READER: Array<Reader> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How many ids each CPU has given to sockets: those whose beginning was seen, and older ones.
#[map]
pub static LAST_CONN: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// What is sent with the newest request of a connection, by `struct sock`. Made when the connection is, deleted when it
/// reaches `TCP_CLOSE`. This map and the next six have one entry when propagation is off.
#[map]
pub static CLIENTS: LruHashMap<u64, Client> = LruHashMap::with_max_entries(limits::PROPAGATED, 0);

/// The newest request received on a connection. Deleted as above.
#[map]
pub static REQUESTS: HashMap<u64, Request> = HashMap::with_max_entries(limits::PROPAGATED, 0);

/// What TCP options told of a connection's requests. Deleted as above.
#[map]
pub static TOLD: LruHashMap<u64, Told> = LruHashMap::with_max_entries(limits::PROPAGATED, 0);

/// What each thread and each process serves: `pid_tgid`, with a thread id of 0 for the process. Deleted at their exit.
#[map]
pub static LOADS: HashMap<u64, Load> = HashMap::with_max_entries(limits::PROPAGATED, 0);

/// Sockets of clients whose messages may get fields; the kernel removes them when they close. Empty but with
/// `--propagate headers`.
#[map]
pub static WRITABLE: SockHash<u64> = SockHash::with_max_entries(limits::PROPAGATED, 0);

/// The `tracestate` of the newest request received on a connection. Deleted as above.
#[map]
pub static STATES: LruHashMap<u64, State> = LruHashMap::with_max_entries(limits::STATES, 0);

/// What clients have sent on connections of HTTP/2. Deleted as above.
#[map]
pub static FRAMES: LruHashMap<u64, Frames> = LruHashMap::with_max_entries(limits::HTTP2, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Where a segment record is put together: the stack has 512 octets. Twice the capture size, since the verifier bounds
/// where a copy begins and how long it is each by itself.
///
/// Most programs use that of their CPU. They do not interrupt one another on a CPU: the kernel refuses to enter a second one
/// of the tracepoints and counts that, and at the sockets they run in processes alone, without being preempted (up to Linux
/// 6.18). Those at functions of user space may be preempted, and claim one for themselves.
#[repr(C)]
pub struct Scratch {
    /// Not 0: claimed.
    taken: u64,
    /// Its place in the array: callbacks of loops are given that.
    slot: u64,
    pub gather: Gather,
    pub scan: Scan,
    pub block: Block,
    pub context: Record,
    pub state: State,
    pub request: Request,
    pub head: SegmentHead,
    pub payload: [u8; 2 * limits::CAPTURE],
}

/// User space sets the number of entries to twice that of possible CPUs, and one: first those of the CPUs, then those that
/// are claimed.
#[map]
static SCRATCH: Array<Scratch> = Array::with_max_entries(3, 0);

/// That of this CPU, for programs that are not preempted.
#[inline(always)]
pub fn scratch() -> Option<*mut Scratch> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(scratch) = SCRATCH.get_ptr_mut(cpu) else {
        count(Counter::NoScratch);
        return None;
    };
    // SAFETY: a value of the map.
    unsafe { (*scratch).slot = cpu.into() };
    Some(scratch)
}

/// One of one's own, for programs that may be preempted; to be given back by [`give_back`].
#[inline(always)]
pub fn claim_scratch() -> Option<*mut Scratch> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let cpus = given!(SETUP.cpus);
    let claimed = claim(cpus + cpu).or_else(|| claim(2 * cpus));
    if claimed.is_none() {
        count(Counter::NoScratch);
    }
    claimed
}

#[inline(always)]
pub fn give_back(scratch: *mut Scratch) {
    // SAFETY: a value of the map, which nobody else uses until then.
    unsafe { (&raw mut (*scratch).taken).write_volatile(0) };
}

#[inline(always)]
fn claim(slot: u32) -> Option<*mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(slot)?;
    let mut taken = 1_u64;
    // SAFETY: an aligned field of a map's value, which the verifier checks.
    unsafe {
        core::arch::asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) taken, in(reg) &raw mut (*scratch).taken);
        if taken != 0 {
            return None;
        }
        (*scratch).slot = slot.into();
    }
    Some(scratch)
}

/// Which scratch space it is, for the callback of a loop, which finds it again by [`scratch_of`]: the verifier does not let
/// it have the space itself.
#[inline(always)]
pub fn slot(scratch: *mut Scratch) -> u64 {
    // SAFETY: a value of the map.
    unsafe { (*scratch).slot }
}

/// The scratch space whose [`slot`] a loop was given as its context.
#[inline(always)]
pub fn scratch_of(context: *mut core::ffi::c_void) -> Option<*mut Scratch> {
    // SAFETY: whoever begins a loop with such a callback gives it a slot that lives longer than the loop.
    SCRATCH.get_ptr_mut(unsafe { *context.cast::<u64>() } as u32)
}

/// Whether the hooks of a call that is rare on TCP are there ([`agent_common::hint::rare`]). If not, user space is told
/// that the call is made.
#[inline(always)]
pub fn has_hook(rare: u32) -> bool {
    let Some(reader) = READER.get_ptr_mut(0) else { return false };
    // SAFETY: as in `wake`; a bit that is lost to another CPU's is set again by the next such call.
    unsafe {
        if (&raw const (*reader).hooked).read_volatile() & rare != 0 {
            return true;
        }
        let seen = (&raw const (*reader).seen).read_volatile();
        if seen & rare == 0 {
            (&raw mut (*reader).seen).write_volatile(seen | rare);
        }
    }
    false
}

/// Adds to a number in a map that others may change at the same time. `core` has no such operation for this target,
/// which lacks compare-and-swap before Linux 5.12.
#[inline(always)]
pub fn add(number: *mut u64, amount: u64) {
    // SAFETY: the caller gives an aligned field of a map's value, which the verifier checks.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) number, in(reg) amount) };
}

/// Atomic, since a packet that comes in may interrupt a program that counts, and its own program counts too.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        add(value, 1);
    }
}

/// Whether the agent has ended: its programs are there until the kernel has let go of them.
#[inline(always)]
pub fn has_stopped() -> bool {
    READER.get(0).is_some_and(is_stopped)
}

#[inline(always)]
fn is_stopped(reader: &Reader) -> bool {
    // SAFETY: the slot is in a mapped array; user space may write it at any time, so it is read once.
    unsafe { (&raw const reader.stopped).read_volatile() != 0 }
}

/// The flags of a record, `None` when user space wants none any more. A wake-up only when it waits for one: under load
/// it looks by itself, and a wake-up per record would cost more than the record.
#[inline(always)]
fn wake() -> Option<u64> {
    let reader = READER.get(0)?;
    if is_stopped(reader) {
        return None;
    }
    // SAFETY: as in `is_stopped`.
    let waiting = unsafe { (&raw const reader.waiting).read_volatile() };
    Some(if waiting != 0 { u64::from(BPF_RB_FORCE_WAKEUP) } else { u64::from(BPF_RB_NO_WAKEUP) })
}

/// Puts `len` octets, from the head on, into the ring of segments.
#[inline(always)]
pub fn emit_segment(scratch: *mut Scratch, len: u64) {
    let Some(flags) = wake() else { return };
    count(Counter::Segments);
    // SAFETY: `scratch` is a map value, and the verifier checks that `len` stays inside it.
    let result = unsafe {
        let from = (&raw mut (*scratch).head).cast();
        bpf_ringbuf_output((&raw const SEGMENTS).cast_mut().cast(), from, len, flags)
    };
    if result != 0 {
        count(Counter::SegmentRingFull);
    }
}

/// Puts a record without payload into the ring of segments.
#[inline(always)]
pub fn emit_context<T>(record: &T) {
    let Some(flags) = wake() else { return };
    count(Counter::Segments);
    if SEGMENTS.output::<T>(record, flags).is_err() {
        count(Counter::SegmentRingFull);
    }
}

/// Puts a record into the ring of lifecycles; whether it found room. `urgent`: user space should look at once.
#[inline(always)]
pub fn emit_lifecycle<T>(record: &T, urgent: bool) -> bool {
    let Some(flags) = wake() else { return false };
    count(Counter::Lifecycle);
    let flags = if urgent { u64::from(BPF_RB_FORCE_WAKEUP) } else { flags };
    let emitted = LIFECYCLE.output::<T>(record, flags).is_ok();
    if !emitted {
        count(Counter::LifecycleRingFull);
    }
    emitted
}
