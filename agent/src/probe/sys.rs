//! Memory that user space and the kernel side both see, and the values that are written into the object before
//! loading. With `allocator` the one place of the agent with `unsafe` code.
#![allow(unsafe_code, reason = "mapping memory and casting plain data for aya needs it")]

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::NonNull;

use agent_common::asyncio::AsyncioLayout;
use agent_common::hint::{self, Hint, Reader};
use agent_common::ids::{ConnId, Direction};
use agent_common::layout::{GoLayout, Layout, Setup};
use agent_common::limits;
use aya::maps::Map;

/// [`Layout`] as a value for the loader.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct LayoutGlobal(pub(super) Layout);
/// [`Setup`] as a value for the loader.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct SetupGlobal(pub(super) Setup);

/// [`GoLayout`] as a value of a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct GoValue(pub(super) GoLayout);

/// [`AsyncioLayout`] as a value of a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct AsyncioValue(pub(super) AsyncioLayout);

// SAFETY: `repr(C)`, a u64 and an even number of u32, so without padding.
unsafe impl aya::Pod for GoValue {}
// SAFETY: `repr(C)`, made of u64 alone, so without padding.
unsafe impl aya::Pod for AsyncioValue {}
// SAFETY: `repr(C)`, made of u32 alone, so without padding.
unsafe impl aya::Pod for LayoutGlobal {}
// SAFETY: `repr(C)`, made of u32 alone, so without padding.
unsafe impl aya::Pod for SetupGlobal {}

/// Why a map could not be mapped into memory.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error("a map of the kernel side is not of the kind expected")]
    Kind,
    #[error("cannot map a map of the kernel side into memory: {0}")]
    Mmap(#[from] std::io::Error),
}

/// An array map, mapped into memory.
struct Mapped<T> {
    at: NonNull<T>,
    len: usize,
}

// SAFETY: the memory is shared with the kernel side in any case; all accesses are volatile, of aligned integers.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    /// The mapping keeps the map alive.
    fn new(map: &Map, len: usize) -> Result<Self, MapError> {
        let Map::Array(data) = map else { return Err(MapError::Kind) };
        let fd = data.fd().as_fd().as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice; the length is that of the map or shorter.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        let at = NonNull::new(at.cast()).ok_or(MapError::Kind)?;
        Ok(Self { at, len })
    }

    fn slot(&self, index: u32) -> Option<NonNull<T>> {
        let index = index as usize;
        // SAFETY: inside the mapping.
        (index < self.len).then(|| unsafe { self.at.add(index) })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing refers to any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

/// Tells the kernel side what need not be captured (`agent_common::hint`).
pub struct Hints(Mapped<Hint>);

impl Hints {
    pub(super) fn map(map: &Map) -> Result<Self, MapError> {
        // Values of an array are padded to 8 octets each, which 24 are already.
        Mapped::new(map, limits::HINTS as usize).map(Self)
    }

    /// Writes a connection's hints: `flags` of `agent_common::hint`, and the positions up to which calls need no record.
    pub fn set(&mut self, conn: ConnId, flags: u32, skip: [u32; 2]) {
        let Some(slot) = self.0.slot(hint::slot(conn.0)) else { return };
        let slot = slot.as_ptr();
        // SAFETY: a slot of the mapping. The flags are cleared first and set last, so that the kernel side never sees a
        // flag with a position of another connection.
        unsafe {
            (&raw mut (*slot).flags).write_volatile(0);
            (&raw mut (*slot).conn).write_volatile(conn.0);
            (&raw mut (*slot).skip).write_volatile(skip);
            std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
            (&raw mut (*slot).flags).write_volatile(flags);
        }
    }

    /// The bit that makes the skip position of a direction hold.
    #[must_use]
    pub const fn skip_bit(direction: Direction) -> u32 {
        match direction {
            Direction::Egress => hint::SKIP[0],
            Direction::Ingress => hint::SKIP[1],
        }
    }
}

/// Tells the kernel side whether the reader waits for a wake-up.
pub struct ReaderFlag(Mapped<Reader>);

impl ReaderFlag {
    pub(super) fn map(map: &Map) -> Result<Self, MapError> {
        Mapped::new(map, 1).map(Self)
    }

    /// No record is to be written from now on. Those being written are when this returns.
    pub fn stop(&self) {
        if let Some(slot) = self.0.slot(0) {
            // SAFETY: the slot of the mapping; an aligned integer.
            unsafe { (&raw mut (*slot.as_ptr()).stopped).write_volatile(1) };
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        }
        // Programs are not preempted and take microseconds.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }

    pub fn set(&self, waiting: bool) {
        if let Some(slot) = self.0.slot(0) {
            // SAFETY: the slot of the mapping; an aligned integer.
            unsafe { (&raw mut (*slot.as_ptr()).waiting).write_volatile(waiting.into()) };
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        }
    }
}

/// What the kernel side tells of calls that have no hook yet (`agent_common::hint::rare`).
pub struct RareCalls(Mapped<Reader>);

impl RareCalls {
    pub(super) fn map(map: &Map) -> Result<Self, MapError> {
        Mapped::new(map, 1).map(Self)
    }

    /// The calls seen whose hooks were not attached yet.
    #[must_use]
    pub fn unhooked(&self) -> u32 {
        let Some(slot) = self.0.slot(0) else { return 0 };
        let slot = slot.as_ptr();
        // SAFETY: the slot of the mapping; aligned integers.
        unsafe { (&raw const (*slot).seen).read_volatile() & !(&raw const (*slot).hooked).read_volatile() }
    }

    /// Tells the kernel side that these calls have hooks from now on.
    pub fn hook(&mut self, calls: u32) {
        let Some(slot) = self.0.slot(0) else { return };
        let slot = slot.as_ptr();
        // SAFETY: as above; nobody else writes the field.
        unsafe {
            let hooked = (&raw const (*slot).hooked).read_volatile();
            (&raw mut (*slot).hooked).write_volatile(hooked | calls);
        }
    }
}

/// Waits until one of the descriptors is readable, or the time is over.
pub fn wait_readable<const N: usize>(fds: [std::os::fd::RawFd; N], timeout: std::time::Duration) {
    let mut fds = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: an array of that many `pollfd`. A signal or an error ends the wait early, which callers take for time over.
    unsafe { libc::poll(fds.as_mut_ptr(), N as libc::nfds_t, timeout) };
}

/// Ends the process now, without the time that the kernel needs to detach programs: more than a second for tracepoints
/// of system calls. A child is left behind that holds nothing but their descriptors, all those that are not in `close`,
/// and ends with the last of them.
pub fn leave(status: i32, close: &[std::os::fd::RawFd]) -> ! {
    let me = std::process::id().cast_signed();
    // SAFETY: the child has this thread alone, and calls nothing but functions that are safe in a signal handler.
    unsafe {
        if libc::fork() == 0 {
            for fd in close {
                libc::close(*fd);
            }
            // The last to close a descriptor does the work: that must not be the parent.
            let pause = libc::timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            while libc::getppid() == me {
                libc::nanosleep(&raw const pause, std::ptr::null_mut());
            }
        }
        libc::_exit(status)
    }
}

/// `CLOCK_MONOTONIC` now, the clock of the kernel side's times.
#[must_use]
pub fn monotonic() -> agent_common::ids::MonoNanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and the destination is a `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    agent_common::ids::MonoNanos(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}
