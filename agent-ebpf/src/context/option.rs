//! Contexts on packets, in a TCP option (`agent_common::context::option`).
//!
//! The kernel asks for each packet of a connection whose flag is set, first how much room it needs, then for the octets.
//! The option goes onto packets with the first octet of the connection's newest request, also when they are sent again.
//! It asks for the largest segment size as well, without a packet: while the request's first octet is not acknowledged,
//! segments have to be smaller by the option's size, or the packet would be too large for its way.

use agent_common::context::{Context, by, option};
use agent_common::counter::Counter;
use agent_common::layout::propagate;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_PARSE_HDR_OPT_CB,
    BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_WRITE_HDR_OPT_CB,
    BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG,
};
use aya_ebpf::helpers::generated::{bpf_load_hdr_opt, bpf_reserve_hdr_opt, bpf_store_hdr_opt};
use aya_ebpf::programs::SockOpsContext;

use super::Trace;
use super::serving::Run;
use crate::maps::{CLIENTS, TOLD, count, given};
use crate::socket::kernel;

/// Options of one connection that are remembered.
const SLOTS: usize = 4;

/// What options told of a connection's requests, a ring.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Told {
    slots: [Slot; SLOTS],
    /// The slot written last.
    last: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slot {
    pub trace: Trace,
    pub span_id: [u8; 8],
    pub seq: u32,
    /// Not 0: it holds something.
    full: u32,
}

impl Slot {
    /// Tells user space of the trace of the request at `seq`, when it was decided.
    #[inline(always)]
    fn tell(&self, run: &Run, seq: u32) {
        if self.trace.decided != 0 {
            let (trace_id, span_id, sampled) = (self.trace.id, self.span_id, self.trace.sampled);
            super::tell(run, seq, (0, 0), Context { trace_id, span_id, by: by::OPTION, sampled, ..Context::default() });
        }
    }
}

impl Told {
    const NONE: Self = Self {
        slots: [Slot { trace: Trace::UNDECIDED, span_id: [0; 8], seq: 0, full: 0 }; SLOTS],
        last: 0,
        reserved: 0,
    };
}

/// A callback for a connection or one of its packets.
#[inline(always)]
pub fn called(ctx: &SockOpsContext) {
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => {
            if super::client::connected(ctx) {
                flag(ctx, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
            }
        }
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB if given!(SETUP.propagate) == propagate::TCP => {
            flag(ctx, BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG)
        }
        BPF_SOCK_OPS_PARSE_HDR_OPT_CB => parse(ctx),
        BPF_SOCK_OPS_HDR_OPT_LEN_CB => reserve(ctx),
        BPF_SOCK_OPS_WRITE_HDR_OPT_CB => write(ctx),
        _ => {}
    }
}

/// Asks for more callbacks of a connection, beside those that others asked for.
#[inline(always)]
fn flag(ctx: &SockOpsContext, flag: u32) {
    let _ = ctx.set_cb_flags((ctx.cb_flags() | flag) as i32);
}

/// A field of the kernel's own form of the context, which the context stands for.
#[inline(always)]
fn inner(ctx: &SockOpsContext, offset: u32) -> Option<u64> {
    kernel::<u64>(ctx.as_ptr() as u64, offset).filter(|pointer| *pointer != 0)
}

#[inline(always)]
pub fn sock(ctx: &SockOpsContext) -> Option<u64> {
    inner(ctx, given!(LAYOUT.sock_ops_sk))
}

/// The positions of a packet's first octet and after its last.
#[inline(always)]
fn packet(ctx: &SockOpsContext) -> Option<(u32, u32)> {
    let skb = inner(ctx, given!(LAYOUT.sock_ops_skb))?.wrapping_add(u64::from(given!(LAYOUT.skb_cb)));
    Some((kernel(skb, given!(LAYOUT.cb_seq))?, kernel(skb, given!(LAYOUT.cb_end_seq))?))
}

#[inline(always)]
fn holds((seq, end): (u32, u32), position: u32) -> bool {
    position.wrapping_sub(seq) < end.wrapping_sub(seq)
}

/// How much room a packet needs; without a packet, what the largest segment size has to leave.
#[inline(always)]
fn reserve(ctx: &SockOpsContext) {
    let Some(sk) = sock(ctx) else { return };
    // SAFETY: a value of the map.
    let Some(client) = (unsafe { CLIENTS.get(&sk) }) else { return };
    if !client.sends() {
        return;
    }
    // SAFETY: a field of the context.
    let acknowledged = unsafe { (*ctx.ops).snd_una };
    let carries = match packet(ctx) {
        Some(packet) => holds(packet, client.seq),
        None => client.seq.wrapping_sub(acknowledged) as i32 >= 0,
    };
    // SAFETY: the context of this program.
    if carries && unsafe { bpf_reserve_hdr_opt(ctx.ops, option::LEN as u32, 0) } != 0 {
        count(Counter::OptionNoRoom);
    }
}

#[inline(always)]
fn write(ctx: &SockOpsContext) {
    let Some(sk) = sock(ctx) else { return };
    // SAFETY: a value of the map.
    let Some(client) = (unsafe { CLIENTS.get(&sk) }) else { return };
    let Some(packet) = packet(ctx) else { return };
    if !client.sends() || !holds(packet, client.seq) {
        return;
    }
    let mut octets = [0_u8; option::LEN];
    octets[0] = option::KIND;
    octets[1] = option::LEN as u8;
    octets[option::TRACE_ID..option::SPAN_ID].copy_from_slice(&client.trace.id);
    octets[option::SPAN_ID..option::TAIL].copy_from_slice(&client.context.span_id);
    let mut tail = option::VERSION | client.seq as u16 & option::POSITION;
    if client.trace.decided != 0 {
        tail |= option::DECIDED;
    }
    if client.trace.sampled != 0 {
        tail |= option::SAMPLED;
    }
    octets[option::TAIL] = (tail >> 8) as u8;
    octets[option::TAIL + 1] = tail as u8;
    // SAFETY: the context of this program, and an array of that size. The kernel refuses a second option of the kind.
    let result = unsafe { bpf_store_hdr_opt(ctx.ops, octets.as_ptr().cast(), option::LEN as u32, 0) };
    count(if result == 0 { Counter::OptionSent } else { Counter::OptionNoRoom });
}

/// A packet with an option that the kernel does not know.
#[inline(always)]
fn parse(ctx: &SockOpsContext) {
    let mut octets = [0_u8; option::LEN];
    octets[0] = option::KIND;
    // SAFETY: the context of this program, and an array of that size; the first octet says what is looked for.
    let found = unsafe { bpf_load_hdr_opt(ctx.ops, octets.as_mut_ptr().cast(), option::LEN as u32, 0) };
    if found < 0 {
        return;
    }
    let tail = u16::from_be_bytes([octets[option::TAIL], octets[option::TAIL + 1]]);
    if found != option::LEN as i64 || tail & option::VERSION_MASK != option::VERSION {
        count(Counter::OptionMalformed);
        return;
    }
    let (Some(sk), Some(packet)) = (sock(ctx), packet(ctx)) else { return };
    let seq = option::position(packet.0, tail);
    // Segments that a network card cut off the packet have the option too.
    if !holds(packet, seq) {
        return;
    }
    remember(sk, seq, tail, &octets);
}

#[inline(never)]
fn remember(sk: u64, seq: u32, tail: u16, octets: &[u8; option::LEN]) {
    let told = match TOLD.get_ptr_mut(&sk) {
        Some(told) => told,
        None => {
            let _ = TOLD.insert(&sk, &Told::NONE, 0);
            let Some(told) = TOLD.get_ptr_mut(&sk) else {
                count(Counter::ContextMapFull);
                return;
            };
            told
        }
    };
    // SAFETY: a value of the map; the socket is locked, so that no other program writes here.
    let told = unsafe { &mut *told };
    let mut span_id = [0; 8];
    span_id.copy_from_slice(&octets[option::SPAN_ID..option::TAIL]);
    let newest = &told.slots[told.last as usize & (SLOTS - 1)];
    if newest.full != 0 && newest.span_id == span_id && newest.seq.wrapping_sub(seq) as i32 <= 0 {
        // The packet again, or a later segment of it.
        return;
    }
    let again = newest.full != 0 && newest.span_id == span_id;
    let place = if again { told.last } else { told.last.wrapping_add(1) } & (SLOTS as u32 - 1);
    told.last = place;
    let slot = &mut told.slots[place as usize & (SLOTS - 1)];
    slot.full = 0;
    slot.trace.id.copy_from_slice(&octets[option::TRACE_ID..option::SPAN_ID]);
    slot.span_id = span_id;
    slot.trace.sampled = u8::from(tail & option::SAMPLED != 0);
    slot.trace.decided = u8::from(tail & option::DECIDED != 0);
    slot.seq = seq;
    // SAFETY: a field of this value, written last.
    unsafe { (&raw mut slot.full).write_volatile(1) };
    count(Counter::OptionReceived);
}

/// What options told of the request whose plaintext begins with what a process has received. Which records brought that
/// is not known; they are among those that were read. So it is the only request told of since the one before: with several,
/// it is known that there is a trace, and not which. Whether there is one.
#[inline(never)]
pub fn received_by_tls(run: &Run, trace: &mut Trace) -> bool {
    let Some(told) = TOLD.get_ptr_mut(&run.sk) else { return false };
    // SAFETY: a value of the map, as above; a slot that is emptied here is of octets that the process has received.
    let told = unsafe { &mut *told };
    let Some(read) = kernel::<u32>(run.sk, given!(LAYOUT.tcp_copied_seq)) else { return false };
    let mut number = 0;
    let mut only = 0;
    for i in 0..SLOTS {
        let slot = &mut told.slots[i];
        if slot.full != 0 && (slot.seq.wrapping_sub(read) as i32) < 0 {
            slot.full = 0;
            number += 1;
            only = i;
        }
    }
    if number != 1 {
        return number > 0;
    }
    let slot = &told.slots[only & (SLOTS - 1)];
    slot.tell(run, run.seq);
    *trace = slot.trace;
    true
}

/// What options told of the octets received by a call: each is told to user space, the one about the first octet is
/// put into `trace`; whether there is one.
#[inline(never)]
pub fn received(run: &Run, trace: &mut Trace) -> bool {
    // SAFETY: a value of the map. It may be written meanwhile: slots of octets that the process has received are
    // written again only after as many more requests.
    let Some(told) = (unsafe { TOLD.get(&run.sk) }) else { return false };
    let mut found = false;
    for i in 0..SLOTS {
        let slot = &told.slots[i];
        if slot.full == 0 || !holds((run.seq, run.seq.wrapping_add(run.len)), slot.seq) {
            continue;
        }
        slot.tell(run, slot.seq);
        if slot.seq == run.seq {
            *trace = slot.trace;
            found = true;
        }
    }
    found
}
