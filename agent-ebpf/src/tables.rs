//! By which table of header fields (RFC 7541) a process decodes and encodes: where it has it in its memory, and how far it is.
//!
//! On a connection older than the agent the table holds what was never seen. User space reads it from the process's memory; what is
//! told here is which one belongs to which connection, and to which of its blocks: the same goroutine or thread has just received the block
//! that it decodes, and sends next what it encodes.

use agent_common::ids::Direction;
use agent_common::limits::BLOCK;
use agent_common::record::{HeaderTable, SegmentHead, segment as segment_kind, table};
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_probe_read_user;

use crate::call;
use crate::coroutine;
use crate::maps::{claim_scratch, emit_segment, give_back};
use crate::payload::bounded;
use crate::registers::Registers;
use crate::segment::{self, HEAD, Transfer};

/// `hpack.Decoder` and `hpack.Encoder` begin with their `dynamicTable`, and that with its `headerFieldTable`: `ents`, which is address,
/// length and capacity, and `evictCount` (golang.org/x/net/http2/hpack since 2017, as vendored by Go 1.10 to 1.26).
const COUNT: u64 = 8;
const EVICTED: u64 = 24;
/// `nghttp2_hd_inflater` begins with its `nghttp2_hd_context`: `next_seq` (nghttp2 since 1.20).
const NEXT: u64 = 56;

const TABLE: usize = size_of::<HeaderTable>();

/// Go's decoder is given a block, or a part of one.
#[inline(always)]
pub fn decodes<C: EbpfContext>(ctx: &C) {
    let [address, block, len, ..] = Registers::of(ctx).go_arguments();
    tell(table::GO, address, block, len, Direction::Ingress);
}

/// Go's encoder is given a field.
#[inline(always)]
pub fn encodes<C: EbpfContext>(ctx: &C) {
    let [address, ..] = Registers::of(ctx).go_arguments();
    tell(table::GO, address, address, 0, Direction::Egress);
}

/// nghttp2 is given a block, or the rest of one.
#[inline(always)]
pub fn inflates<C: EbpfContext>(ctx: &C) {
    let [address, _, _, block, len] = Registers::of(ctx).arguments();
    tell(table::NGHTTP2, address, block, len, Direction::Ingress);
}

/// How many entries were ever added to a table.
#[inline(always)]
fn added(kind: u64, address: u64) -> Option<u64> {
    if kind == table::NGHTTP2 {
        return call::user::<u32>(address.wrapping_add(NEXT)).map(u64::from);
    }
    let (count, evicted) =
        (call::user::<u64>(address.wrapping_add(COUNT))?, call::user(address.wrapping_add(EVICTED))?);
    Some(count.wrapping_add(evicted))
}

#[inline(always)]
fn tell(kind: u64, address: u64, block: u64, len: u64, direction: Direction) {
    let thread = call::thread();
    if !segment::traced((thread >> 32) as u32) {
        return;
    }
    let Some(added) = added(kind, address) else { return };
    let Some(wanted) = bounded(if len < BLOCK as u64 { len } else { BLOCK as u64 }) else { return };
    let Some(scratch) = claim_scratch() else { return };
    let transfer = Transfer { sk: 0, conn: 0, thread, direction, batched: false };
    let captured = TABLE as u32 + wanted;
    let head = SegmentHead { len: len as u32, captured, kind: segment_kind::TABLE, ..SegmentHead::default() };
    segment::write_head(scratch, &transfer, call::now(), head);
    // SAFETY: a value of the map, which nobody else uses until it is given back. What is written is less than the payload's size.
    let result = unsafe {
        coroutine::note(&raw mut (*scratch).head.coroutine, thread);
        let payload = (&raw mut (*scratch).payload).cast::<u8>();
        payload.cast::<HeaderTable>().write_unaligned(HeaderTable { kind, address, added });
        bpf_probe_read_user(payload.add(TABLE).cast(), wanted, block as *const core::ffi::c_void)
    };
    if result == 0 {
        emit_segment(scratch, (HEAD + TABLE) as u64 + u64::from(wanted));
    }
    give_back(scratch);
}
