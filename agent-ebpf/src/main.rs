//! The kernel side of Remora: entry points only. Each is a line over what does the work:
//!
//! - `call`: the arguments of the system call that is ending;
//! - `socket`: from a descriptor to the socket behind it, and what is known of that socket;
//! - `judge`: whether a socket is followed, by its first octets;
//! - `payload`: where a call's octets lie, and how they are copied;
//! - `segment`: the octets a call moved, into the ring of segments;
//! - `sock`: the hooks at the sockets themselves;
//! - `tls`: plaintext at the functions of TLS libraries;
//! - `tables`: by which table of header fields a process decodes and encodes;
//! - `coroutine`: which goroutine a thread of a Go program runs;
//! - `lifecycle`: connections and processes that come and go, into the ring of lifecycles;
//! - `context`: with `--propagate` alone, which trace a request belongs to, and how its packets say so.
//!
//! Why these hooks: tracepoints need no kprobes and survive lockdown. Where the kernel has them (Linux 6.16), those at the
//! sockets are used: they cost nothing on any other call. Elsewhere it is the tracepoints of system calls, which exist on
//! every kernel with tracing, but send every system call of the host a longer way. Returns are hooked for all calls that
//! move octets, since only the return says how many did; entries only for sending calls, whose time is that of the
//! entry. During the call the arguments are in the registers that the task saved when it entered the kernel.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(clippy::needless_borrows_for_generic_args, reason = "the kernel reads keys and values where they lie")]

mod call;
mod context;
mod coroutine;
mod judge;
mod lifecycle;
mod maps;
mod payload;
mod registers;
mod segment;
mod sock;
mod socket;
mod tables;
mod tls;

use agent_common::ids::Direction;
use aya_ebpf::macros::{raw_tracepoint, sk_msg, sock_ops, tracepoint, uprobe, uretprobe};
use aya_ebpf::programs::{
    ProbeContext, RawTracePointContext, RetProbeContext, SkMsgContext, SockOpsContext, TracePointContext,
};

use crate::call::{Call, Exit};
use crate::payload::Payload;

/// Declares the entry hook of a call that sends, with its payload and that one's length where it may begin a request
/// whose context is decided.
macro_rules! enter {
    ($($name:ident $(: |$call:ident| $payload:expr)?;)*) => {$(
        #[tracepoint]
        pub fn $name(_ctx: TracePointContext) -> u32 {
            call::note_entry();
            $(if context::is_on() {
                let $call = Call::current();
                let (payload, len) = $payload;
                context::sending($call.arg0(), payload, len);
            })?
            0
        }
    )*};
}

enter! {
    enter_write: |call| (Payload::Flat { at: call.arg1() }, call.arg2());
    enter_writev: |call| (Payload::Vectors { at: call.arg1(), count: call.arg2() }, 0);
    enter_sendto: |call| (Payload::Flat { at: call.arg1() }, call.arg2());
    enter_sendmsg: |call| (call::message(call.arg1()), 0);
    enter_sendmmsg;
    enter_sendfile64;
    enter_splice;
}

/// Connections and packets of TCP, for contexts in options, and for the sockets whose messages may get fields; attached
/// when propagation is on. The kernel goes on with what was done when it gives 1.
#[sock_ops]
pub fn options(ctx: SockOpsContext) -> u32 {
    context::option::called(&ctx);
    1
}

/// Messages of sockets that may be written to, for contexts in fields; attached with `--propagate headers`.
#[sk_msg]
pub fn fields(ctx: SkMsgContext) -> u32 {
    context::header::message(&ctx)
}

#[tracepoint]
pub fn exit_read(ctx: TracePointContext) -> u32 {
    receive(&ctx, |call| Some(Payload::Flat { at: call.arg1() }))
}

#[tracepoint]
pub fn exit_readv(ctx: TracePointContext) -> u32 {
    receive(&ctx, |call| Some(Payload::Vectors { at: call.arg1(), count: call.arg2() }))
}

#[tracepoint]
pub fn exit_recvfrom(ctx: TracePointContext) -> u32 {
    receive(&ctx, |call| call::received(call.arg3(), Payload::Flat { at: call.arg1() }))
}

#[tracepoint]
pub fn exit_recvmsg(ctx: TracePointContext) -> u32 {
    receive(&ctx, |call| call::received(call.arg2(), call::message(call.arg1())))
}

#[tracepoint]
pub fn exit_recvmmsg(ctx: TracePointContext) -> u32 {
    segment::messages(&ctx, Direction::Ingress);
    0
}

#[tracepoint]
pub fn exit_write(ctx: TracePointContext) -> u32 {
    send(&ctx, |call| Payload::Flat { at: call.arg1() })
}

#[tracepoint]
pub fn exit_writev(ctx: TracePointContext) -> u32 {
    send(&ctx, |call| Payload::Vectors { at: call.arg1(), count: call.arg2() })
}

#[tracepoint]
pub fn exit_sendto(ctx: TracePointContext) -> u32 {
    send(&ctx, |call| Payload::Flat { at: call.arg1() })
}

#[tracepoint]
pub fn exit_sendmsg(ctx: TracePointContext) -> u32 {
    send(&ctx, |call| call::message(call.arg1()))
}

#[tracepoint]
pub fn exit_sendmmsg(ctx: TracePointContext) -> u32 {
    segment::messages(&ctx, Direction::Egress);
    if sock::sees_sending() {
        call::forget_turns(call::thread());
    }
    0
}

#[tracepoint]
pub fn exit_sendfile64(ctx: TracePointContext) -> u32 {
    send(&ctx, |_| Payload::Unseen)
}

/// `splice(fd_in, off_in, fd_out, …)`: either end may be a socket.
#[tracepoint]
pub fn exit_splice(ctx: TracePointContext) -> u32 {
    let Some(exit) = Exit::of(&ctx) else { return 0 };
    let call = Call::current();
    if sock::sees_sending() || !segment::transfer(exit, call.arg2(), Direction::Egress, Payload::Unseen) {
        segment::transfer(exit, call.arg0(), Direction::Ingress, Payload::Unseen);
    }
    0
}

#[raw_tracepoint]
pub fn tcp_sendmsg_locked(_ctx: RawTracePointContext) -> i32 {
    call::note_turn();
    0
}

#[raw_tracepoint]
pub fn sock_send_length(ctx: RawTracePointContext) -> i32 {
    sock::sent(&ctx);
    0
}

#[raw_tracepoint]
pub fn sock_recv_length(ctx: RawTracePointContext) -> i32 {
    sock::received(&ctx);
    0
}

#[tracepoint]
pub fn exit_connect(ctx: TracePointContext) -> u32 {
    lifecycle::connected(&ctx);
    0
}

#[tracepoint]
pub fn inet_sock_set_state(ctx: TracePointContext) -> u32 {
    lifecycle::state_changed(&ctx);
    0
}

#[tracepoint]
pub fn sched_process_exec(ctx: TracePointContext) -> u32 {
    lifecycle::executed(&ctx);
    0
}

#[tracepoint]
pub fn sched_process_exit(_ctx: TracePointContext) -> u32 {
    lifecycle::exited();
    0
}

#[tracepoint]
pub fn task_newtask(ctx: TracePointContext) -> u32 {
    lifecycle::born(&ctx);
    0
}

/// A function of a TLS library begins; the cookie says which.
#[uprobe]
pub fn tls_entry(ctx: ProbeContext) -> u32 {
    tls::entered::<false, _>(&ctx);
    0
}

/// A function of a TLS library returns.
#[uretprobe]
pub fn tls_return(ctx: RetProbeContext) -> u32 {
    tls::returned::<false, _>(&ctx);
    0
}

/// rustls hands over plaintext.
#[uprobe]
pub fn rustls_taken(ctx: ProbeContext) -> u32 {
    tls::taken(&ctx);
    0
}

/// A function of Go's TLS begins.
#[uprobe]
pub fn go_tls_entry(ctx: ProbeContext) -> u32 {
    tls::entered::<true, _>(&ctx);
    0
}

/// Go's TLS is given what is to be sent.
#[uprobe]
pub fn go_tls_write(ctx: ProbeContext) -> u32 {
    tls::writes(&ctx);
    0
}

/// A function of Go's TLS is about to return: Go moves stacks, so that the address to return to must not be replaced.
#[uprobe]
pub fn go_tls_ret(ctx: ProbeContext) -> u32 {
    tls::returned::<true, _>(&ctx);
    0
}

/// Go's decoder of header fields is given a block.
#[uprobe]
pub fn go_hpack_decode(ctx: ProbeContext) -> u32 {
    tables::decodes(&ctx);
    0
}

/// Go's encoder of header fields is given one.
#[uprobe]
pub fn go_hpack_encode(ctx: ProbeContext) -> u32 {
    tables::encodes(&ctx);
    0
}

/// nghttp2's decoder of header fields is given a block.
#[uprobe]
pub fn hpack_inflate(ctx: ProbeContext) -> u32 {
    tables::inflates(&ctx);
    0
}

#[inline(always)]
fn receive(ctx: &TracePointContext, payload: impl Fn(&Call) -> Option<Payload>) -> u32 {
    if let Some(exit) = Exit::of(ctx) {
        let call = Call::current();
        if let Some(payload) = payload(&call) {
            segment::transfer(exit, call.arg0(), Direction::Ingress, payload);
        }
    }
    0
}

#[inline(always)]
fn send(ctx: &TracePointContext, payload: impl Fn(&Call) -> Payload) -> u32 {
    if let Some(exit) = Exit::of(ctx) {
        let call = Call::current();
        segment::transfer(exit, call.arg0(), Direction::Egress, payload(&call));
    }
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel side may be used under either licence; the kernel asks for one that is compatible with its own.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
