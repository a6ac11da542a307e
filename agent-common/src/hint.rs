//! What user space tells the kernel side about a connection, so that less needs to be captured.
//!
//! Hints live in a memory-mapped array, one slot per connection id modulo its length. A slot that another connection
//! took over is a hint lost, which costs some copying and nothing else; so no lock is needed. Positions are those of
//! the TCP stream, so a hint that comes late is still right.

use crate::limits;

/// Nothing of this connection is wanted any more.
pub const IGNORE: u32 = 1;
/// The first [`limits::LEAN_CAPTURE`] octets and the tail of each call are enough.
pub const LEAN: u32 = 1 << 1;
/// `skip[direction]` holds: calls that end before that position need no record.
pub const SKIP: [u32; 2] = [1 << 2, 1 << 3];

/// All octets of a call are wanted, also where they do not fit one record, as far as they lie in one buffer.
pub const WHOLE: u32 = 1 << 4;

/// One connection's slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Hint {
    /// The connection the slot belongs to now; 0 for none.
    pub conn: u64,
    pub flags: u32,
    /// TCP positions, by direction code.
    pub skip: [u32; 2],
    pub reserved: u32,
}

const _: () = assert!(size_of::<Hint>() == 24);
const _: () = assert!(limits::HINTS.is_power_of_two());

/// The slot of a connection.
#[must_use]
pub const fn slot(conn: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "only the low bits choose the slot")]
    let low = conn as u32;
    low & (limits::HINTS - 1)
}

/// What user space tells the kernel side about itself, in a memory-mapped array of one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    /// Not 0 while the reader waits for a wake-up; 0 while it looks by itself every few milliseconds.
    pub waiting: u32,
    /// Not 0 once the agent stops: no record and no context from then on, from whichever hook. Taking the hooks away takes
    /// a while for each, and in between one end of an exchange would be seen without the other.
    pub stopped: u32,
    /// Bits of [`rare`]: the kernel side has seen such a call on a TCP socket and could not see all of it.
    pub seen: u32,
    /// Bits of [`rare`]: user space has attached the hooks of these calls.
    pub hooked: u32,
}

/// Calls that are hooked from their first use on: the socket alone does not tell where their octets lie, and a hook of
/// any system call makes every system call of the host slower.
pub mod rare {
    /// `recvmmsg` and `sendmmsg`, which hand over several messages.
    pub const BATCHES: u32 = 1;
    /// `splice`, whose receiving side passes no hook at the socket.
    pub const SPLICE: u32 = 1 << 1;
}
