//! The octets that a call moved: from the call's result and buffers to a record in the ring of segments.
//!
//! Positions are TCP's own sequence numbers, read when the call returns. They count octets that no hook saw as well
//! (another path into the socket, a lost record), so user space sees each gap as a gap, wherever it comes from.

use agent_common::counter::Counter;
use agent_common::hint;
use agent_common::ids::Direction;
use agent_common::layout::PROCESS_IGNORE;
use agent_common::limits::{CAPTURE, LEAN_CAPTURE, MESSAGES};
use agent_common::record::segment as kind;
use agent_common::record::{SegmentHead, segment};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use aya_ebpf::programs::TracePointContext;

use crate::call::{self, Call, Exit};
use crate::context;
use crate::context::client::Put;
use crate::context::serving::Run;
use crate::coroutine;
use crate::judge::{First, decide};
use crate::lifecycle;
use crate::maps::{HINTS, PROCESSES, SOCKETS, Scratch, claim_scratch, count, emit_segment, give_back, given, scratch};
use crate::payload::{Payload, bounded, first_part, flat, vectors};
use crate::socket::{self, Socket, shown, verdict};
use crate::tls;

/// `struct mmsghdr` (include/linux/socket.h): a `user_msghdr` of 56 octets and `msg_len`.
const MMSGHDR_SIZE: u64 = 64;
const MMSGHDR_LEN: u64 = 56;

pub const HEAD: usize = size_of::<SegmentHead>();

/// As a number of octets to capture: all of them.
const WHOLE: u32 = u32::MAX;
/// So many records has a call at most.
const PIECES: u32 = 32;

/// A call's transfer on a socket that is followed.
#[derive(Clone, Copy)]
pub struct Transfer {
    pub sk: u64,
    pub conn: u64,
    pub thread: u64,
    pub direction: Direction,
    /// One message of several.
    pub batched: bool,
}

/// The messages of a call.
struct Batch {
    sk: u64,
    socket: *mut Socket,
    /// Where the array of `struct mmsghdr` lies.
    at: u64,
    thread: u64,
    direction: Direction,
    /// The position after all of them, and that of the next one.
    end: u32,
    seq: u32,
}

/// Reports what a call did on a descriptor. Whether the descriptor is a TCP socket at all.
#[inline(always)]
pub fn transfer(exit: Exit, fd: u64, direction: Direction, payload: Payload) -> bool {
    let thread = call::thread();
    if !traced((thread >> 32) as u32) {
        return false;
    }
    let Some((sk, socket)) = socket::of(fd) else { return false };
    // SAFETY: `of` gives a value of the map, which stays readable while the program runs.
    let socket = unsafe { &mut *socket };
    if socket.verdict != verdict::REFUSED {
        moved(sk, socket, thread, exit, direction, payload);
    }
    true
}

/// Reports what the call in progress did on a socket that the kernel names.
#[inline(always)]
pub fn transfer_at(sk: u64, thread: u64, exit: Exit, direction: Direction, payload: impl Fn() -> Option<Payload>) {
    if !traced((thread >> 32) as u32) {
        return;
    }
    let Some(socket) = socket::at(sk) else { return };
    // SAFETY: `at` gives a value of the map, which stays readable while the program runs.
    let socket = unsafe { &mut *socket };
    if socket.verdict == verdict::REFUSED {
        return;
    }
    // Those older than the agent were asked when they got their entry, and may stay undecided for long.
    if socket.verdict == verdict::UNDECIDED && socket.fresh != 0 && !socket::is_owned(sk) {
        socket.verdict = verdict::REFUSED;
        return;
    }
    if let Some(payload) = payload() {
        moved(sk, socket, thread, exit, direction, payload);
    }
}

/// Reports what a call did on a socket that is not refused.
#[inline(always)]
fn moved(sk: u64, socket: &mut Socket, thread: u64, exit: Exit, direction: Direction, payload: Payload) {
    if socket.tls == 0 && socket.verdict == verdict::UNDECIDED {
        tls::kernel::look(sk, socket);
    }
    match exit {
        Exit::Moved(len) if socket.tls != 0 && !tls::moved(sk, socket, thread, direction, payload, len) => {}
        Exit::Moved(len) => {
            let put = match direction {
                Direction::Egress if context::puts_fields() => Put::into(sk),
                _ => Put::NOTHING,
            };
            let first = First { direction, len: len.wrapping_add(put.octets) };
            let tls = socket.tls;
            if socket.verdict == verdict::UNDECIDED && !decide(sk, socket, payload, len, &first) {
                if socket.tls != tls {
                    if given!(SETUP.tls) != 0 {
                        lifecycle::speaks_tls(thread);
                    }
                    tls::moved(sk, socket, thread, direction, payload, len);
                }
                return;
            }
            let transfer = Transfer { sk, conn: socket.conn, thread, direction, batched: false };
            let Some(end) = position(sk, socket, direction) else { return };
            emit(&transfer, socket, payload, put.begin(end.wrapping_sub(len)), len);
            if socket.dying != 0 {
                lifecycle::read_on(sk, socket);
            }
        }
        Exit::Nothing if matches!(direction, Direction::Egress) => {}
        Exit::Nothing | Exit::Lost(_) => {
            if socket.verdict == verdict::TAKEN {
                emit_end(&Transfer { sk, conn: socket.conn, thread, direction, batched: false }, socket, exit);
            }
            if socket.dying != 0 {
                lifecycle::read_on(sk, socket);
            }
        }
    }
}

/// `recvmmsg` and `sendmmsg`: as many messages as the call returned, each with its own length.
#[inline(always)]
pub fn messages(ctx: &TracePointContext, direction: Direction) {
    let number = call::result(ctx);
    if number <= 0 {
        return;
    }
    let thread = call::thread();
    if !traced((thread >> 32) as u32) {
        return;
    }
    let call = Call::current();
    let Some((sk, socket)) = socket::of(call.arg0()) else { return };
    // SAFETY: `of` gives a value of the map, which stays readable while the program runs.
    let socket = unsafe { &mut *socket };
    if socket.verdict == verdict::REFUSED {
        return;
    }
    if socket.tls == 0 && socket.verdict == verdict::UNDECIDED {
        tls::kernel::look(sk, socket);
    }
    let at = call.arg1();
    let Some(end) = position(sk, socket, direction) else { return };
    let mut seq = end;
    if number > i64::from(MESSAGES) {
        count(Counter::VectorsCut);
    }
    // The position is that after the whole call: go back by what all its messages hold. Messages past the limit are
    // not subtracted, so they come out as a gap before what follows.
    for index in 0..MESSAGES {
        if i64::from(index) < number {
            seq = seq.wrapping_sub(message_len(at, index));
        }
    }
    let number = if number < i64::from(MESSAGES) { number as u32 } else { MESSAGES };
    let mut batch = Batch { sk, socket, at, thread, direction, end, seq };
    // A loop that the verifier goes through once, as in `vectors`: unrolled, 6.1's gives up after a million steps ("BPF
    // program is too large").
    // SAFETY: the callback has the signature that bpf_loop asks for, and its context lives longer than the call.
    unsafe { bpf_loop(number, message_one as *mut core::ffi::c_void, (&raw mut batch).cast(), 0) };
    // SAFETY: a value of the map, which stays readable while the program runs.
    let socket = unsafe { &mut *batch.socket };
    if socket.tls != 0 {
        tls::kernel::passed(sk, socket, direction, end.wrapping_sub(seq));
    }
    if context::is_on() && socket.verdict == verdict::TAKEN {
        context::serving::batched(sk, socket.conn, thread, socket.role);
    }
}

/// One message of the call; always 0, which goes on with the next.
#[inline(never)]
extern "C" fn message_one(index: u32, batch: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `messages` gives its own, and does not use it meanwhile.
    let batch = unsafe { &mut *batch.cast::<Batch>() };
    // SAFETY: a value of the map, which stays readable while the program runs.
    let socket = unsafe { &mut *batch.socket };
    let len = message_len(batch.at, index);
    let first = First { direction: batch.direction, len: batch.end.wrapping_sub(batch.seq) };
    let payload = call::message(batch.at.wrapping_add(u64::from(index) * MMSGHDR_SIZE));
    if len > 0
        && socket.tls == 0
        && (socket.verdict == verdict::TAKEN || decide(batch.sk, socket, payload, len, &first))
    {
        let &mut Batch { sk, thread, direction, .. } = batch;
        let transfer = Transfer { sk, conn: socket.conn, thread, direction, batched: true };
        emit_one(&transfer, socket, payload, batch.seq, len);
    }
    batch.seq = batch.seq.wrapping_add(len);
    0
}

#[inline(always)]
fn message_len(at: u64, index: u32) -> u32 {
    call::user(at.wrapping_add(u64::from(index) * MMSGHDR_SIZE + MMSGHDR_LEN)).unwrap_or(0)
}

/// Whether the process may be traced, as far as the kernel side knows.
#[inline(always)]
pub fn traced(tgid: u32) -> bool {
    if tgid == given!(SETUP.agent) {
        return false;
    }
    if given!(SETUP.choose_processes) == 0 {
        return true;
    }
    // SAFETY: values are single octets.
    unsafe { PROCESSES.get(&tgid) }.copied() != Some(PROCESS_IGNORE)
}

/// The TCP position after what was transferred so far.
#[inline(always)]
fn position(sk: u64, socket: &Socket, direction: Direction) -> Option<u32> {
    match direction {
        Direction::Egress => socket.sent(sk),
        Direction::Ingress => socket.received(sk),
    }
}

/// Plaintext that a call into a TLS library moved.
pub struct Plaintext {
    pub sk: u64,
    pub thread: u64,
    /// Its time.
    pub at: u64,
    /// Where it lies: the address of a buffer, or of so many slices; 0 and 0 where that is not known.
    pub buffer: u64,
    pub slices: u64,
    pub len: u32,
    pub direction: Direction,
}

/// Reports it.
#[inline(never)]
pub fn plaintext(plaintext: &Plaintext) {
    let &Plaintext { sk, thread, at, buffer, slices, len, direction } = plaintext;
    let Some(socket) = SOCKETS.get_ptr_mut(&sk) else { return };
    // SAFETY: a value of the map, which stays readable while the program runs.
    let socket = unsafe { &mut *socket };
    let payload = match (buffer, slices) {
        (0, _) => Payload::Unseen,
        (at, 0) => Payload::Flat { at },
        (at, count) => Payload::Vectors { at, count },
    };
    let mut side = match direction {
        Direction::Egress => 0_usize,
        Direction::Ingress => 1,
    };
    if side == 1 && socket.unseen != 0 {
        socket.unseen = 0;
        if socket.tls == socket::tls::GO {
            // What was not seen before leaves a gap. Not before now: a connection that is taken meanwhile would begin behind it.
            socket.plain[1] = socket.plain[1].wrapping_add(1);
        }
    }
    // The verifier does not know that there is no other direction; a check of the compiler's own would end in a panic.
    // SAFETY: the number is 0 or 1, and so many octets there are.
    let seq = unsafe {
        core::arch::asm!("{0} &= 1", inout(reg) side);
        let shown = (&raw mut socket.shown).cast::<u8>().add(side);
        if *shown == shown::BY_CALLS {
            return;
        }
        if tls::kernel::has_side(socket.kernel_tls, side) {
            *shown = shown::BY_FUNCTIONS;
        }
        let place = (&raw mut socket.plain).cast::<u32>().add(side);
        let seq = *place;
        *place = seq.wrapping_add(len);
        seq
    };
    if socket.verdict == verdict::REFUSED {
        return;
    }
    let first = First { direction, len };
    if socket.verdict == verdict::UNDECIDED && !decide(sk, socket, payload, len, &first) {
        return;
    }
    let transfer = Transfer { sk, conn: socket.conn, thread, direction, batched: false };
    if let Some(cap) = wanted(&transfer, socket, seq, len)
        && let Some(scratch) = claim_scratch()
    {
        fill(scratch, &transfer, socket, payload, at, seq, len, cap);
        give_back(scratch);
    }
    if socket.dying != 0 {
        lifecycle::read_on(sk, socket);
    }
}

/// Reports plaintext of which the first `captured` octets were kept at `payload`, in a map's value.
#[inline(always)]
pub fn kept(sk: u64, socket: &mut Socket, thread: u64, at: u64, payload: u64, captured: u32, len: u32) {
    if socket.shown[0] == shown::BY_CALLS {
        return;
    }
    let seq = socket.plain[0];
    socket.plain[0] = seq.wrapping_add(len);
    let first = First { direction: Direction::Egress, len };
    // It was looked at when it was kept.
    if socket.verdict != verdict::TAKEN && (socket.verdict == verdict::REFUSED || !lifecycle::take(sk, socket, &first))
    {
        return;
    }
    let Some(scratch) = scratch() else { return };
    let Some(captured) = bounded(captured.into()) else { return };
    let transfer = Transfer { sk, conn: socket.conn, thread, direction: Direction::Egress, batched: true };
    let head = SegmentHead { seq, len, captured, kind: kind::DATA, ..SegmentHead::default() };
    write_head(scratch, &transfer, at, head);
    // SAFETY: `captured` is less than the payload's size.
    unsafe { bpf_probe_read_kernel((&raw mut (*scratch).payload).cast(), captured, payload as *const _) };
    emit_segment(scratch, HEAD as u64 + u64::from(captured));
}

/// Writes the record of `len` octets that begin at `seq`, or several, unless user space said it needs none.
#[inline(always)]
fn emit(transfer: &Transfer, socket: &mut Socket, payload: Payload, seq: u32, len: u32) {
    let Some(cap) = wanted(transfer, socket, seq, len) else { return };
    if cap == WHOLE
        && len > CAPTURE as u32
        && let Some((buffer, available)) = first_part(payload, len.into())
        && available >= u64::from(len)
    {
        let mut pieces = Pieces { transfer: *transfer, at: time(transfer), buffer, seq, left: len };
        // A loop that the verifier goes through once, as in `messages`.
        // SAFETY: the callback has the signature that bpf_loop asks for, and its context lives longer than the call.
        unsafe { bpf_loop(PIECES, piece as *mut core::ffi::c_void, (&raw mut pieces).cast(), 0) };
        return;
    }
    record(transfer, socket, payload, seq, len, cap);
}

/// The same in one record, of one message of several.
#[inline(always)]
fn emit_one(transfer: &Transfer, socket: &mut Socket, payload: Payload, seq: u32, len: u32) {
    let Some(cap) = wanted(transfer, socket, seq, len) else { return };
    record(transfer, socket, payload, seq, len, cap);
}

#[inline(always)]
fn record(transfer: &Transfer, socket: &mut Socket, payload: Payload, seq: u32, len: u32, cap: u32) {
    let Some(scratch) = scratch() else { return };
    fill(scratch, transfer, socket, payload, time(transfer), seq, len, cap);
}

/// When the call in progress moved its octets.
#[inline(always)]
fn time(transfer: &Transfer) -> u64 {
    match transfer.direction {
        Direction::Ingress => call::now(),
        Direction::Egress => entry_time(transfer.thread),
    }
}

/// A call's octets on their way into records, each of which is captured whole.
struct Pieces {
    transfer: Transfer,
    at: u64,
    /// Where the next ones lie.
    buffer: u64,
    seq: u32,
    left: u32,
}

/// One piece; 1 after the last one, which ends the loop.
#[inline(never)]
extern "C" fn piece(index: u32, pieces: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `emit` gives its own, and does not use it meanwhile.
    let pieces = unsafe { &mut *pieces.cast::<Pieces>() };
    let Some(scratch) = scratch() else { return 1 };
    // What is left after the last piece is not captured.
    let fits = pieces.left <= CAPTURE as u32 || index == PIECES - 1;
    let len = if fits { pieces.left } else { CAPTURE as u32 };
    let wanted = if len < CAPTURE as u32 { len } else { CAPTURE as u32 };
    let packed = flat(scratch, pieces.buffer, len, wanted);
    let (captured, tail) = (packed & 0x1_ffff, packed >> 32);
    let head = SegmentHead {
        seq: pieces.seq,
        len,
        captured: captured as u32,
        tail: tail as u8,
        kind: kind::DATA,
        ..SegmentHead::default()
    };
    write_head(scratch, &pieces.transfer, pieces.at, head);
    // Read back, as in `fill`.
    // SAFETY: `scratch` is a value of the map.
    let (captured, tail) = unsafe {
        let head = &raw const (*scratch).head;
        ((&raw const (*head).captured).read_volatile(), (&raw const (*head).tail).read_volatile())
    };
    let captured = if captured < CAPTURE as u32 { captured } else { CAPTURE as u32 };
    emit_segment(scratch, HEAD as u64 + u64::from(captured) + u64::from(tail));
    pieces.buffer = pieces.buffer.wrapping_add(len.into());
    pieces.seq = pieces.seq.wrapping_add(len);
    pieces.left = pieces.left.wrapping_sub(len);
    i64::from(pieces.left == 0)
}

/// How many octets of a transfer are to be captured at most; `None` when user space wants no record of it.
#[inline(always)]
fn wanted(transfer: &Transfer, socket: &mut Socket, seq: u32, len: u32) -> Option<u32> {
    let Some(hint) = HINTS.get(hint::slot(transfer.conn)) else { return Some(CAPTURE as u32) };
    // SAFETY: user space may write the slot at any time, so each field is read once; a torn hint is a hint about
    // some position, which is only used when it is one of this connection and then right.
    let (conn, flags) = unsafe { ((&raw const hint.conn).read_volatile(), (&raw const hint.flags).read_volatile()) };
    if conn != transfer.conn {
        return Some(CAPTURE as u32);
    }
    if flags & hint::IGNORE != 0 {
        socket.verdict = verdict::REFUSED;
        return None;
    }
    let (skip, bit) = match transfer.direction {
        Direction::Egress => (&raw const hint.skip[0], hint::SKIP[0]),
        Direction::Ingress => (&raw const hint.skip[1], hint::SKIP[1]),
    };
    if flags & bit != 0 {
        // SAFETY: as above.
        let skip = unsafe { skip.read_volatile() };
        if (skip.wrapping_sub(seq.wrapping_add(len)) as i32) > 0 {
            return None;
        }
    }
    Some(match flags & (hint::LEAN | hint::WHOLE) {
        0 => CAPTURE as u32,
        hint::WHOLE => WHOLE,
        _ => LEAN_CAPTURE as u32,
    })
}

/// Puts the record together, of at most `cap` octets of payload, and writes it.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one place for both kinds of payload; inlined")]
fn fill(
    scratch: *mut Scratch,
    transfer: &Transfer,
    socket: &mut Socket,
    payload: Payload,
    at: u64,
    seq: u32,
    len: u32,
    cap: u32,
) {
    let cap = if cap < CAPTURE as u32 { cap } else { CAPTURE as u32 };
    let wanted = if len < cap { len } else { cap };
    let packed = match payload {
        Payload::Flat { at } => flat(scratch, at, len, wanted),
        Payload::Vectors { at, count } => vectors(scratch, at, count, len, wanted),
        Payload::Unseen => 0,
    };
    let (captured, tail) = (packed & 0x1_ffff, packed >> 32);
    write_head(
        scratch,
        transfer,
        at,
        SegmentHead {
            seq,
            len,
            captured: captured as u32,
            tail: tail as u8,
            kind: kind::DATA,
            ..SegmentHead::default()
        },
    );
    // Not of messages that come several in a call. With a task read inside of that loop, 6.18 went on behind the messages that the
    // call had brought, though the program asks for no more; and nothing with coroutines reads from TCP that way.
    if !transfer.batched && coroutine::is_told(socket, transfer.thread) {
        // SAFETY: a value of the map, this CPU's own.
        coroutine::note(unsafe { &raw mut (*scratch).head.coroutine }, transfer.thread);
    }
    if !transfer.batched && context::is_on() {
        context::moved(&Run {
            sk: transfer.sk,
            conn: transfer.conn,
            thread: transfer.thread,
            direction: transfer.direction,
            seq,
            len,
            captured: captured as u32,
            tail: tail as u32,
            scratch,
            role: socket.role,
            fresh: socket.fresh,
            tls: socket.tls.into(),
        });
    }
    // Read back from the head. The compiler knows both lengths well enough to leave out a bound on what it has in
    // registers; 6.12's verifier forgets the bound of `wanted` where `flat` compares `wanted + TAIL` with `len`, two values
    // that it takes for linked ("R3 unbounded memory access").
    // SAFETY: `scratch` is a value of the map.
    let (captured, tail) = unsafe {
        let head = &raw const (*scratch).head;
        ((&raw const (*head).captured).read_volatile(), (&raw const (*head).tail).read_volatile())
    };
    let captured = if captured < CAPTURE as u32 { captured } else { CAPTURE as u32 };
    emit_segment(scratch, HEAD as u64 + u64::from(captured) + u64::from(tail));
}

/// Writes the record of a stream's end or loss.
#[inline(always)]
fn emit_end(transfer: &Transfer, socket: &Socket, exit: Exit) {
    let Some(scratch) = scratch() else { return };
    let seq = position(transfer.sk, socket, transfer.direction).unwrap_or(0);
    let (kind, errno) = match exit {
        Exit::Lost(errno) => (segment::ERROR, errno),
        _ => (segment::END, 0),
    };
    write_head(scratch, transfer, call::now(), SegmentHead { seq, kind, errno, ..SegmentHead::default() });
    emit_segment(scratch, HEAD as u64);
}

#[inline(always)]
pub fn write_head(scratch: *mut Scratch, transfer: &Transfer, at: u64, head: SegmentHead) {
    let direction = match transfer.direction {
        Direction::Egress => Direction::EGRESS,
        Direction::Ingress => Direction::INGRESS,
    };
    // SAFETY: `scratch` is a value of the map.
    unsafe {
        (&raw mut (*scratch).head).write(SegmentHead {
            at,
            conn: transfer.conn,
            tgid: (transfer.thread >> 32) as u32,
            tid: transfer.thread as u32,
            direction,
            ..head
        });
    }
}

#[inline(always)]
fn entry_time(thread: u64) -> u64 {
    match call::entry(thread) {
        Some(at) => at,
        None => {
            count(Counter::EntryTimeLost);
            call::now()
        }
    }
}
