//! Plaintext of TLS, seen at the functions of the libraries that take it and give it.
//!
//! A function names its session (an `SSL *`, a `tls.Conn *`), and not the socket. The socket is the one that the same
//! thread, or goroutine, uses while it is in the function ([`moved`]). Where the program moves the records itself, the
//! session comes next to the socket in time ([`session`]). So no field of a library's structure is read.

pub mod hello;
mod kept;
pub mod kernel;
mod session;

use agent_common::counter::Counter;
use agent_common::ids::Direction;
use agent_common::tls::{Deferred, function};
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_attach_cookie;

use crate::call::{self, Call};
use crate::context;
use crate::maps::{SOCKETS, TLS_CALLS, count, given};
use crate::payload::Payload;
use crate::registers::Registers;
use crate::segment::{self, Plaintext};
use crate::socket::{Socket, tls};
pub use crate::tls::kept::Kept;
pub use crate::tls::session::{Session, SessionId, Thread};

/// Who calls a library: a thread by its id, or a goroutine, which may change its thread, by the address of its `runtime.g`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Caller {
    pub tgid: u64,
    pub id: u64,
}

/// A call that has not returned.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Calling {
    /// As [`SessionId::address`].
    pub session: u64,
    pub buffer: u64,
    /// Where the function was told to put the number of octets, or of how many slices the buffer is an array; 0 for none. Of
    /// Go's `Write`, not 0 when it was reported.
    pub further: u64,
    pub at: u64,
    /// One of [`function`].
    pub function: u32,
    /// Not 0: a socket was used within it.
    pub nested: u32,
}

/// What a function does with its session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Moves(Direction),
    /// Comes before the handshake.
    Begins,
    Handshake,
    Frees,
}

#[inline(always)]
fn role(function: u64) -> Option<Role> {
    Some(match function {
        function::SSL_READ
        | function::SSL_READ_EX
        | function::GNUTLS_RECV
        | function::GO_READ
        | function::RUSTLS_READ => Role::Moves(Direction::Ingress),
        function::SSL_WRITE
        | function::SSL_WRITE_EX
        | function::SSL_WRITE_EX2
        | function::SSL_SENDFILE
        | function::GNUTLS_SEND
        | function::GNUTLS_SEND2
        | function::GO_WRITE
        | function::RUSTLS_WRITE
        | function::RUSTLS_WRITE_SLICE => Role::Moves(Direction::Egress),
        function::SSL_BEGINS => Role::Begins,
        function::SSL_HANDSHAKE | function::GNUTLS_HANDSHAKE | function::GO_HANDSHAKE => Role::Handshake,
        function::SSL_FREE | function::GNUTLS_DEINIT | function::RUSTLS_DROP => Role::Frees,
        _ => return None,
    })
}

#[inline(always)]
fn caller<const GO: bool>(registers: &Registers, thread: u64) -> Caller {
    let id = if GO { registers.goroutine() } else { thread & 0xffff_ffff };
    Caller { tgid: thread >> 32, id }
}

#[inline(always)]
fn cookie<C: EbpfContext>(ctx: &C) -> u64 {
    // SAFETY: the context is that of the program.
    unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }
}

/// A function of a library begins. `GO`: one of Go, whose calls follow another convention and whose goroutines change their
/// threads.
#[inline(always)]
pub fn entered<const GO: bool, C: EbpfContext>(ctx: &C) {
    let thread = call::thread();
    if !segment::traced((thread >> 32) as u32) {
        return;
    }
    let function = cookie(ctx);
    let registers = Registers::of(ctx);
    let Some(role) = role(function) else { return };
    let [session, buffer, len, fourth, fifth] = if GO { registers.go_arguments() } else { registers.arguments() };
    let id = SessionId { tgid: thread >> 32, address: session };
    match role {
        Role::Frees => return session::freed(&id),
        Role::Begins => return session::begins(&id),
        Role::Handshake => session::begins(&id),
        Role::Moves(_) => {}
    }
    let caller = caller::<GO>(&registers, thread);
    if let Some(outer) = TLS_CALLS.get_ptr(&caller) {
        // SAFETY: a value of the map; only this caller changes it.
        let outer = unsafe { &*outer };
        // A function that calls another one with what it was given itself.
        let same = outer.session == session && outer.function != function as u32;
        if same && (role == Role::Handshake || outer.buffer == buffer) {
            return;
        }
    }
    let (buffer, len, further) = match function {
        function::SSL_READ_EX | function::SSL_WRITE_EX => (buffer, len, fourth),
        function::SSL_WRITE_EX2 => (buffer, len, fifth),
        function::RUSTLS_WRITE => chunks(buffer),
        _ => (buffer, len, 0),
    };
    if !GO
        && context::is_on()
        && role == Role::Moves(Direction::Egress)
        && let Some((sk, socket)) = session::socket(&id)
    {
        let (payload, len) = match function {
            function::SSL_SENDFILE => (Payload::Unseen, 0),
            function::RUSTLS_WRITE if further != 0 => {
                (Payload::Vectors { at: buffer, count: further }, u64::from(u32::MAX))
            }
            // C's `int` leaves the upper half of the register undefined.
            function::SSL_WRITE => (Payload::Flat { at: buffer }, len & 0x7fff_ffff),
            _ => (Payload::Flat { at: buffer }, len),
        };
        // SAFETY: a value of the map, which stays readable while the program runs.
        context::sending_plaintext(sk, unsafe { &*socket }, thread, payload, len);
    }
    begins(&caller, session, buffer, further, function);
}

/// Go's `Write` begins, which sends all or fails: what it is given is reported now. Until it returns, another goroutine may have
/// read the response and closed the connection. Where the socket is not known yet, it is reported then.
#[inline(always)]
pub fn writes<C: EbpfContext>(ctx: &C) {
    let thread = call::thread();
    if !segment::traced((thread >> 32) as u32) {
        return;
    }
    let registers = Registers::of(ctx);
    let [session, buffer, len, ..] = registers.go_arguments();
    let caller = caller::<true>(&registers, thread);
    let sk = going_out(&SessionId { tgid: thread >> 32, address: session }, thread, buffer, len);
    begins(&caller, session, buffer, u64::from(sk != 0), function::GO_WRITE);
    if sk != 0 {
        let (at, len, direction) = (call::now(), len as u32, Direction::Egress);
        segment::plaintext(&Plaintext { sk, thread, at, buffer, slices: 0, len, direction });
    }
}

/// The socket of a session that is given plaintext; 0 where that is not known. Its context is decided.
#[inline(never)]
fn going_out(id: &SessionId, thread: u64, buffer: u64, len: u64) -> u64 {
    let Some((sk, socket)) = session::socket(id) else { return 0 };
    if len == 0 || len > i32::MAX as u64 {
        return 0;
    }
    session::moves(id);
    if context::is_on() {
        // SAFETY: a value of the map, which stays readable while the program runs.
        context::sending_plaintext(sk, unsafe { &*socket }, thread, Payload::Flat { at: buffer }, len);
    }
    sk
}

/// Notes a call. A function of its own, as others here, so that its frame does not add up with those of what its caller
/// calls beside.
#[inline(never)]
fn begins(caller: &Caller, session: u64, buffer: u64, further: u64, function: u64) {
    let calling = Calling { session, buffer, further, at: call::now(), function: function as u32, nested: 0 };
    if TLS_CALLS.insert(caller, &calling, 0).is_err() {
        count(Counter::TlsCallLost);
    }
}

/// A function of a library returns; `GO` as in [`entered`].
#[inline(always)]
pub fn returned<const GO: bool, C: EbpfContext>(ctx: &C) {
    let thread = call::thread();
    if !segment::traced((thread >> 32) as u32) {
        return;
    }
    let cookie = cookie(ctx);
    let registers = Registers::of(ctx);
    let result = match Deferred::of(cookie) {
        Some(deferred) if GO => deferred_result(&registers, deferred),
        _ => Some(registers.result()),
    };
    let Some(result) = result else { return };
    let caller = caller::<GO>(&registers, thread);
    let mut plaintext = Plaintext { sk: 0, thread, at: 0, buffer: 0, slices: 0, len: 0, direction: Direction::Ingress };
    outcome(&caller, cookie & 0xffff_ffff, result, &mut plaintext);
    if plaintext.sk != 0 {
        segment::plaintext(&plaintext);
    }
}

/// What a function is about to return that calls what it had deferred. `None` when something else calls that: the runtime does,
/// once something has panicked.
#[inline(always)]
fn deferred_result(registers: &Registers, deferred: Deferred) -> Option<u64> {
    let stack = registers.stack();
    let returns_to = call::user::<u64>(stack)?;
    if registers.instruction().wrapping_sub(returns_to) >= u64::from(deferred.back) {
        return None;
    }
    // The return address is on top of the function's own stack.
    call::user(stack.wrapping_add(8 + u64::from(deferred.slot)))
}

/// What came of a call: fills in `plaintext` where it moved some of a connection that is known.
#[inline(never)]
fn outcome(caller: &Caller, function: u64, result: u64, plaintext: &mut Plaintext) {
    let Some(calling) = TLS_CALLS.get_ptr(caller) else {
        if result as i32 > 0 && matches!(role(function), Some(Role::Moves(_))) {
            count(Counter::TlsCallLost);
        }
        return;
    };
    // SAFETY: a value of the map; only this caller changes it.
    let calling = unsafe { *calling };
    if u64::from(calling.function) != function {
        return;
    }
    let _ = TLS_CALLS.remove(caller);
    let go = function::GO.contains(&function);
    let id = SessionId { tgid: caller.tgid, address: calling.session };
    if !go && calling.nested == 0 {
        session::returned(&id, plaintext.thread, function);
    }
    let Some(Role::Moves(direction)) = role(function) else { return };
    let moved = match function {
        // They return 1 when it worked, and C's `int` leaves the upper half of the register undefined.
        function::SSL_READ_EX | function::SSL_WRITE_EX | function::SSL_WRITE_EX2 => match result as i32 {
            1 => call::user::<u64>(calling.further).unwrap_or(0) as i64,
            _ => 0,
        },
        function::SSL_READ | function::SSL_WRITE => i64::from(result as i32),
        _ => result as i64,
    };
    if moved <= 0 || moved > i64::from(i32::MAX) || (function == function::GO_WRITE && calling.further != 0) {
        return;
    }
    plaintext.direction = direction;
    plaintext.len = moved as u32;
    plaintext.at = match direction {
        Direction::Egress => calling.at,
        Direction::Ingress => call::now(),
    };
    plaintext.buffer = if function == function::SSL_SENDFILE { 0 } else { calling.buffer };
    plaintext.slices = if function == function::RUSTLS_WRITE { calling.further } else { 0 };
    match session::socket(&id) {
        Some((sk, _)) => {
            plaintext.sk = sk;
            session::moves(&id);
        }
        None if !go && direction == Direction::Egress => kept::keep(&id, plaintext),
        None => count(Counter::TlsUnattributed),
    }
}

/// rustls hands over plaintext of what the same thread has just read: its second argument is where three words lie, of which
/// the last two are its address and length.
#[inline(always)]
pub fn taken<C: EbpfContext>(ctx: &C) {
    let thread = call::thread();
    if !segment::traced((thread >> 32) as u32) {
        return;
    }
    let [session, at, ..] = Registers::of(ctx).arguments();
    let id = SessionId { tgid: thread >> 32, address: session };
    session::returned(&id, thread, function::RUSTLS_READ);
    let Some([_, buffer, len]) = call::user::<[u64; 3]>(at) else {
        count(Counter::PayloadFault);
        return;
    };
    if len == 0 || len > i32::MAX as u64 {
        return;
    }
    let Some((sk, _)) = session::socket(&id) else {
        count(Counter::TlsUnattributed);
        return;
    };
    let (len, direction) = (len as u32, Direction::Ingress);
    segment::plaintext(&Plaintext { sk, thread, at: call::now(), buffer, slices: 0, len, direction });
}

/// Where the plaintext lies that rustls is given (`OutboundChunks`): one buffer and its length, or an array of slices, 0, and
/// how many they are. What begins in the middle of the first slice is not looked for.
#[inline(always)]
fn chunks(at: u64) -> (u64, u64, u64) {
    match call::user::<[u64; 4]>(at) {
        Some([0, buffer, len, _]) => (buffer, len, 0),
        Some([slices, count, 0, _]) => (slices, 0, count),
        _ => (0, 0, 0),
    }
}

/// A call has moved `len` octets on the socket of a TLS connection. Whether they are plaintext that is reported, since the
/// kernel has the keys, and no function shows it.
#[inline(always)]
pub fn moved(sk: u64, socket: &mut Socket, thread: u64, direction: Direction, payload: Payload, len: u32) -> bool {
    if given!(SETUP.tls) == 0 {
        return kernel::has_keys(sk, socket, direction) && kernel::moved(sk, socket, direction, len, false);
    }
    hello::look(socket, thread, direction, payload, len);
    let nested = within(sk, socket, thread);
    if kernel::has_keys(sk, socket, direction) {
        return kernel::moved(sk, socket, direction, len, nested);
    }
    if !nested {
        records(sk, socket, thread, direction);
    }
    false
}

/// A call outside of a library's functions has moved records.
#[inline(always)]
fn records(sk: u64, socket: &mut Socket, thread: u64, direction: Direction) {
    if direction == Direction::Ingress {
        // With Go, a goroutine was in the function before that was hooked. It may have read before another one, which has sent
        // the request, is seen to be Go's.
        socket.unseen = 1;
        if socket.tls == tls::GO {
            return;
        }
    }
    let called = session::beside(thread, sk, socket, direction);
    if called != 0 {
        kept::release(thread, called, sk, socket);
    }
}

/// Whether the call is made within a function of a library; then its session uses this socket.
#[inline(always)]
fn within(sk: u64, socket: &mut Socket, thread: u64) -> bool {
    let tgid = thread >> 32;
    let in_thread = TLS_CALLS.get_ptr_mut(&Caller { tgid, id: thread & 0xffff_ffff });
    // A goroutine's address is in the register that Go's functions keep it in: its system calls are made by such.
    let calling = in_thread.or_else(|| TLS_CALLS.get_ptr_mut(&Caller { tgid, id: Call::current().goroutine() }));
    if let Some(calling) = calling {
        if in_thread.is_none() {
            socket.tls = tls::GO;
        }
        // SAFETY: a value of the map; only this caller changes it.
        let calling = unsafe { &mut *calling };
        calling.nested = 1;
        session::uses(&SessionId { tgid, address: calling.session }, sk, socket);
        return true;
    }
    false
}

/// The entry of a socket that still is the one that it was.
#[inline(always)]
fn still(sk: u64, conn: u64) -> Option<*mut Socket> {
    let socket = SOCKETS.get_ptr_mut(&sk)?;
    // SAFETY: a value of the map, which stays readable while the program runs.
    (unsafe { (*socket).conn } == conn).then_some(socket)
}
