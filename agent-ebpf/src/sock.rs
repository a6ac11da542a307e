//! The hooks at the sockets: `tcp_sendmsg_locked(sk, msg, skb, size_goal)` before octets are sent (Linux 6.16),
//! `sock_send_length(sk, ret, flags)` and `sock_recv_length(sk, ret, flags)` when a call on a socket ends (Linux 6.3; net/socket.c).
//!
//! They name the socket, whatever the call and its descriptor. Where the payload lies in user memory they do not say: the
//! arguments of the system call do, as far as the thread is in one that is known here.

use agent_common::hint::rare;
use agent_common::ids::Direction;
use aya_ebpf::programs::RawTracePointContext;

use crate::call::{self, Call, Exit};
use crate::maps::{given, has_hook};
use crate::payload::Payload;
use crate::segment;

/// Numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl).
mod number {
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const SPLICE: u64 = 275;
    pub const RECVMMSG: u64 = 299;
    pub const SENDMMSG: u64 = 307;
    pub const PREADV2: u64 = 327;
    pub const PWRITEV2: u64 = 328;
}

/// Whether these hooks are in use, so that what is sent is seen here.
#[inline(always)]
pub fn sees_sending() -> bool {
    given!(SETUP.at_sockets) != 0
}

/// A call has sent: `sk` and `ret`.
#[inline(always)]
pub fn sent(ctx: &RawTracePointContext) {
    let thread = call::thread();
    if let Some(exit) = Exit::with(ctx.arg::<i32>(1).into()) {
        segment::transfer_at(ctx.arg(0), thread, exit, Direction::Egress, || {
            let call = Call::current();
            match call.number() {
                Some(number::WRITE | number::SENDTO) => Some(Payload::Flat { at: call.arg1() }),
                Some(number::WRITEV | number::PWRITEV2) => {
                    Some(Payload::Vectors { at: call.arg1(), count: call.arg2() })
                }
                Some(number::SENDMSG) => Some(call::message(call.arg1())),
                Some(number::SENDMMSG) if has_hook(rare::BATCHES) => None,
                Some(number::SPLICE) => {
                    has_hook(rare::SPLICE);
                    Some(Payload::Unseen)
                }
                _ => Some(Payload::Unseen),
            }
        });
    }
    call::forget_turns(thread);
}

/// A call has received: `sk`, `ret` (0 where it only peeked) and the flags of recv(2).
#[inline(always)]
pub fn received(ctx: &RawTracePointContext) {
    let Some(exit) = Exit::with(ctx.arg::<i32>(1).into()) else { return };
    let flags = ctx.arg::<i32>(2) as u64;
    segment::transfer_at(ctx.arg(0), call::thread(), exit, Direction::Ingress, || {
        let call = Call::current();
        let payload = match call.number() {
            Some(number::READ | number::RECVFROM) => Payload::Flat { at: call.arg1() },
            Some(number::READV | number::PREADV2) => Payload::Vectors { at: call.arg1(), count: call.arg2() },
            Some(number::RECVMSG) => call::message(call.arg1()),
            Some(number::RECVMMSG) if has_hook(rare::BATCHES) => return None,
            _ => Payload::Unseen,
        };
        call::received(flags, payload)
    });
}
