//! Which socket a TLS session uses.
//!
//! What a library does on a socket while it is called for a session is certain. Where the program moves the records itself
//! (memory BIOs, rustls), it reads them from the socket and hands them to the session at once, or takes them from the
//! session and writes them at once, all in one thread: the session that is called next after a read was meant by it, and
//! the socket that is written to next after a session was called, when no other session was called in between. A session
//! that seems to use two sockets so is left alone.
//!
//! Functions are not put into one another, so that their frames do not add up in what calls them.

use agent_common::counter::Counter;
use agent_common::ids::Direction;
use agent_common::tls::function;

use crate::maps::{TLS_SESSIONS, TLS_THREADS, count};
use crate::socket::{Socket, verdict};
use crate::tls::still;

/// A session of a library: the address of its object in a process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SessionId {
    pub tgid: u64,
    pub address: u64,
}

/// What is known of a session.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Session {
    /// The `struct sock`; 0 when it is not known.
    sk: u64,
    /// The connection it was then.
    conn: u64,
    /// Not 0: its handshake was seen.
    begins: u32,
    /// Not 0: plaintext of it was seen.
    used: u32,
    /// One of [`known`].
    known: u64,
}

/// How the socket of a session is known.
mod known {
    pub const NOT: u64 = 0;
    pub const BY_ORDER: u64 = 1;
    pub const BY_CALL: u64 = 2;
    /// By order, and it seemed to be two.
    pub const AMBIGUOUS: u64 = 3;
}

impl Session {
    const NEW: Self = Self { sk: 0, conn: 0, begins: 0, used: 0, known: known::NOT };
}

/// What a thread last did on sockets of TLS connections, outside of calls into libraries; each is forgotten once used.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Thread {
    /// The socket that it read from, and the connection that was; 0 for none.
    read: u64,
    read_conn: u64,
    /// The session that it called since it last wrote to a socket; 0 for none.
    called: u64,
    /// Not 0: it called several.
    several: u64,
}

/// A handshake is done, or goes on.
#[inline(never)]
pub fn begins(id: &SessionId) {
    let Some(session) = TLS_SESSIONS.get_ptr_mut(id) else {
        let _ = TLS_SESSIONS.insert(id, &Session { begins: 1, ..Session::NEW }, 0);
        return;
    };
    // SAFETY: a value of the map; a library's session is used by one thread at a time.
    let session = unsafe { &mut *session };
    if session.sk == 0 || still(session.sk, session.conn).is_none() {
        *session = Session { begins: 1, ..Session::NEW };
    }
}

#[inline(always)]
pub fn freed(id: &SessionId) {
    let _ = TLS_SESSIONS.remove(id);
}

/// A library uses a socket while it is called for a session.
#[inline(always)]
pub fn uses(id: &SessionId, sk: u64, socket: &mut Socket) {
    attribute(id, sk, socket, known::BY_CALL);
}

#[inline(never)]
fn attribute(id: &SessionId, sk: u64, socket: &mut Socket, how: u64) {
    if let Some(session) = TLS_SESSIONS.get_ptr_mut(id) {
        // SAFETY: as in `begins`.
        let session = unsafe { &mut *session };
        if session.sk == sk && session.conn == socket.conn && session.known >= how {
            return;
        }
        if how == known::BY_ORDER {
            match session.known {
                known::NOT => {}
                known::BY_ORDER if session.sk == sk && session.conn == socket.conn => return,
                // An object that was used for another connection before, which is gone.
                known::BY_ORDER if still(session.sk, session.conn).is_none() => {}
                // What was read before its handshake began may have been another's.
                known::BY_ORDER if session.used == 0 => {}
                known::BY_ORDER => {
                    session.known = known::AMBIGUOUS;
                    count(Counter::TlsAmbiguous);
                    return;
                }
                known::BY_CALL if still(session.sk, session.conn).is_none() => {}
                _ => return,
            }
        }
        (session.sk, session.conn, session.known) = (sk, socket.conn, how);
        if session.begins != 0 && socket.verdict == verdict::UNDECIDED && socket.plain == [0; 2] {
            socket.fresh = 1;
        }
        return;
    }
    let _ = TLS_SESSIONS.insert(id, &Session { sk, conn: socket.conn, known: how, ..Session::NEW }, 0);
}

/// Plaintext of a session was seen.
#[inline(always)]
pub fn moves(id: &SessionId) {
    if let Some(session) = TLS_SESSIONS.get_ptr_mut(id) {
        // SAFETY: as in `begins`.
        unsafe { (*session).used = 1 };
    }
}

/// The socket of a session, when it is known.
#[inline(always)]
pub fn socket(id: &SessionId) -> Option<(u64, *mut Socket)> {
    // SAFETY: as in `begins`.
    let session = unsafe { &*TLS_SESSIONS.get_ptr(id)? };
    if !matches!(session.known, known::BY_CALL | known::BY_ORDER) {
        return None;
    }
    Some((session.sk, still(session.sk, session.conn)?))
}

/// Whether a call has shown the socket of a session, and it is there still.
#[inline(always)]
fn is_certain(id: &SessionId) -> bool {
    let Some(session) = TLS_SESSIONS.get_ptr(id) else { return false };
    // SAFETY: as in `begins`.
    let session = unsafe { &*session };
    session.known == known::BY_CALL && still(session.sk, session.conn).is_some()
}

/// A call for a session has used no socket: it may be one of a program that moves the records itself.
#[inline(never)]
pub fn returned(id: &SessionId, thread: u64, function: u64) {
    // rustls hands over what was just read, so that its order is as good as a call; its sessions may move.
    let follows = function == function::RUSTLS_READ;
    if !follows && is_certain(id) {
        return;
    }
    let reads = matches!(function, function::SSL_READ | function::SSL_READ_EX | function::RUSTLS_READ);
    let (takes, gives) = (reads || function == function::SSL_HANDSHAKE, !reads);
    let place = match TLS_THREADS.get_ptr_mut(&thread) {
        Some(place) => place,
        None if gives => {
            let called = Thread { read: 0, read_conn: 0, called: id.address, several: 0 };
            let _ = TLS_THREADS.insert(&thread, &called, 0);
            return;
        }
        None => return,
    };
    // SAFETY: a value of the map; only this thread changes it.
    let place = unsafe { &mut *place };
    if takes && place.read != 0 {
        let (sk, conn) = (place.read, place.read_conn);
        place.read = 0;
        if let Some(socket) = still(sk, conn) {
            // SAFETY: a value of the map, which stays readable while the program runs.
            attribute(id, sk, unsafe { &mut *socket }, if follows { known::BY_CALL } else { known::BY_ORDER });
        }
    }
    if gives {
        if place.called != 0 && place.called != id.address {
            place.several = 1;
        }
        place.called = id.address;
    }
}

/// A program moves records on a socket, outside of calls into a library. Gives the session that they were made by when that was
/// called last; 0 for none.
#[inline(never)]
pub fn beside(thread: u64, sk: u64, socket: &mut Socket, direction: Direction) -> u64 {
    let Some(place) = TLS_THREADS.get_ptr_mut(&thread) else {
        if direction == Direction::Ingress {
            let read = Thread { read: sk, read_conn: socket.conn, called: 0, several: 0 };
            let _ = TLS_THREADS.insert(&thread, &read, 0);
        }
        return 0;
    };
    // SAFETY: a value of the map; only this thread changes it.
    let place = unsafe { &mut *place };
    if direction == Direction::Ingress {
        (place.read, place.read_conn) = (sk, socket.conn);
        return 0;
    }
    let (called, several) = (place.called, place.several);
    (place.called, place.several) = (0, 0);
    if called != 0 && several == 0 {
        attribute(&SessionId { tgid: thread >> 32, address: called }, sk, socket, known::BY_ORDER);
    }
    called
}
