//! From the rings to records: checks what the kernel side wrote and gives it types. No other module sees raw records.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use agent_common::context::by;
use agent_common::ids::{ConnId, Direction, MonoNanos, Seq, SpanId, Tgid, Tid, TraceId};
use agent_common::limits::FILENAME;
use agent_common::record::{
    Birth, Closing, Connection, Coroutine, HeaderTable, Process, SegmentHead, SpeaksTls, TLS_HEAD, lifecycle, role,
    segment,
};
use aya::maps::{Map, MapData, MapError, RingBuf};

use crate::probe::sys;
use crate::protocol::Thread;
use crate::signal::span::{Endpoints, Tls};

/// The ring of segments and the ring of lifecycles.
pub struct Rings {
    pub segments: SegmentRing,
    pub lifecycle: LifecycleRing,
}

pub struct SegmentRing(RingBuf<MapData>);
pub struct LifecycleRing(RingBuf<MapData>);

/// A call on a socket that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRecord<'a> {
    pub at: MonoNanos,
    pub conn: ConnId,
    pub thread: Thread,
    pub direction: Direction,
    pub seq: Seq,
    pub what: What<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// `len` octets went through; the first of them, and when these are not all, the last ones.
    Data { len: u32, octets: &'a [u8], tail: &'a [u8] },
    /// The receiver was told of the end of the stream.
    End,
    /// The call failed since the connection is lost.
    Lost { errno: u8 },
    /// The kernel side knows the trace of the request that begins here; its octets come next.
    Context(Told),
    /// The thread is about to decode a block of header fields of HTTP/2 by this table: the block's first octets, and how many it has; or
    /// to encode a field. It is the table of the connection that the same coroutine or thread has received from last, or sends to next.
    Table { table: HeaderTable, block: &'a [u8], len: u32 },
    /// The beginning of a TLS handshake, as it is on the wire; `headless` without the head of its record. No payload.
    Hello { octets: &'a [u8], headless: bool },
}

/// The trace of a request, as the kernel side has decided it or was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub trace_id: TraceId,
    /// The client's span; `None` for a server's new trace.
    pub span_id: Option<SpanId>,
    pub sampled: bool,
    pub by: By,
    /// Octets that the kernel side put into the request, which its process does not know of; and after how many of the
    /// request's own octets.
    pub inserted: u32,
    pub after: u32,
}

/// How the kernel side came to a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A new trace.
    Root,
    /// A TCP option brought it.
    Option,
    /// A client's request, caused by the server's request with this connection and position that its thread serves.
    Thread(ConnId, Seq),
    /// The same, by the only one that its process serves.
    Only(ConnId, Seq),
}

/// Something that begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifecycleRecord {
    Open(Opened),
    ConnectFailed {
        connection: Opened,
        errno: u32,
    },
    /// Nothing more will be sent.
    SentAll(Closed),
    /// The connection is gone, and what it brought has been read.
    Closed(Closed),
    Exec {
        tgid: Tgid,
        at: MonoNanos,
        comm: [u8; 16],
        filename: Box<[u8]>,
    },
    Exit {
        tgid: Tgid,
        at: MonoNanos,
    },
    /// A process speaks TLS, and the kernel side was not told that its library was looked for.
    SpeaksTls {
        tgid: Tgid,
        at: MonoNanos,
    },
    Born(Born),
}

/// A thread has started another one, or a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Born {
    pub at: MonoNanos,
    /// Who started it.
    pub tgid: Tgid,
    pub tid: Tid,
    pub child: Child,
}

/// What was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// A thread of the same process.
    Thread(Tid),
    Process(Tgid),
}

/// How far a connection came when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    pub conn: ConnId,
    pub at: MonoNanos,
    /// The peer had closed its direction before.
    pub peer_first: bool,
    /// 0 for none.
    pub errno: u16,
    pub positions: Positions,
}

/// TCP positions of both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    pub sent: Seq,
    pub received: Seq,
}

/// A socket that is followed from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub conn: ConnId,
    pub at: MonoNanos,
    pub thread: Thread,
    pub role: Role,
    /// Seen from its first octet on.
    pub fresh: bool,
    pub endpoints: Endpoints,
    /// Before the first octets that are reported.
    pub positions: Positions,
    pub comm: [u8; 16],
    /// Who called `connect`: itself and its parent.
    pub dialler: Coroutine,
    pub opened_at: Option<MonoNanos>,
    pub established_at: Option<MonoNanos>,
}

/// Who made the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Unknown,
    Connected,
    Accepted,
}

/// A record that no kernel side of this version writes: counted, never guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Rings {
    /// Takes the maps of both rings.
    ///
    /// # Errors
    /// When a map is no ring or cannot be mapped into memory.
    pub fn new(segments: Map, lifecycle: Map) -> Result<Self, MapError> {
        Ok(Self {
            segments: SegmentRing(RingBuf::try_from(segments)?),
            lifecycle: LifecycleRing(RingBuf::try_from(lifecycle)?),
        })
    }

    /// Waits until a ring has a record whose writer asked for a wake-up, or the time is over.
    pub fn wait(&self, timeout: Duration) {
        sys::wait_readable([self.segments.0.as_raw_fd(), self.lifecycle.0.as_raw_fd()], timeout);
    }
}

impl SegmentRing {
    /// Hands the next segment to `take`; whether there was one.
    pub fn take(&mut self, take: impl FnOnce(Result<SegmentRecord<'_>, Malformed>)) -> bool {
        match self.0.next() {
            Some(item) => {
                take(segment_record(&item));
                true
            }
            None => false,
        }
    }
}

impl LifecycleRing {
    /// The next lifecycle record.
    pub fn take(&mut self) -> Option<Result<LifecycleRecord, Malformed>> {
        self.0.next().map(|item| lifecycle_record(&item))
    }
}

/// Reads fields one after the other; the layouts are those of `agent_common::record`, pinned there.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.take::<1>().map(|[octet]| octet)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_ne_bytes)
    }
}

fn segment_record(octets: &[u8]) -> Result<SegmentRecord<'_>, Malformed> {
    let mut fields = Fields(octets);
    let head = SegmentHead {
        at: fields.u64()?,
        conn: fields.u64()?,
        tgid: fields.u32()?,
        tid: fields.u32()?,
        seq: fields.u32()?,
        len: fields.u32()?,
        captured: fields.u32()?,
        direction: fields.u8()?,
        tail: fields.u8()?,
        kind: fields.u8()?,
        errno: fields.u8()?,
        coroutine: Coroutine { id: fields.u32()?, parent: fields.u32()?, next: fields.u32()?, end: fields.u32()? },
    };
    let what = match head.kind {
        segment::DATA => {
            let octets = fields.slice(head.captured as usize)?;
            let tail = fields.slice(head.tail.into())?;
            if u64::from(head.captured) + u64::from(head.tail) > u64::from(head.len) {
                return Err(Malformed);
            }
            What::Data { len: head.len, octets, tail }
        }
        segment::END => What::End,
        segment::ERROR => What::Lost { errno: head.errno },
        segment::HELLO => What::Hello { octets: fields.slice(head.captured as usize)?, headless: head.seq == TLS_HEAD },
        segment::TABLE => {
            let table = HeaderTable { kind: fields.u64()?, address: fields.u64()?, added: fields.u64()? };
            let block = (head.captured as usize).checked_sub(size_of::<HeaderTable>()).ok_or(Malformed)?;
            What::Table { table, block: fields.slice(block)?, len: head.len }
        }
        segment::CONTEXT => What::Context(told(&mut fields, head.len, head.captured)?),
        _ => return Err(Malformed),
    };
    Ok(SegmentRecord {
        at: MonoNanos(head.at),
        conn: ConnId(head.conn),
        thread: Thread { tgid: Tgid(head.tgid), tid: Tid(head.tid), coroutine: head.coroutine },
        direction: Direction::from_code(head.direction).ok_or(Malformed)?,
        seq: Seq(head.seq),
        what,
    })
}

fn told(fields: &mut Fields<'_>, inserted: u32, after: u32) -> Result<Told, Malformed> {
    let (trace_id, span_id) = (fields.take()?, fields.take()?);
    let (conn, seq) = (ConnId(fields.u64()?), Seq(fields.u32()?));
    let by = match fields.u8()? {
        by::ROOT => By::Root,
        by::OPTION => By::Option,
        by::THREAD => By::Thread(conn, seq),
        by::ONLY => By::Only(conn, seq),
        _ => return Err(Malformed),
    };
    if trace_id == [0; 16] {
        return Err(Malformed);
    }
    Ok(Told {
        trace_id: TraceId(trace_id),
        span_id: (span_id != [0; 8]).then_some(SpanId(span_id)),
        sampled: fields.u8()? != 0,
        by,
        inserted,
        after,
    })
}

fn lifecycle_record(octets: &[u8]) -> Result<LifecycleRecord, Malformed> {
    let kind = *octets.first().ok_or(Malformed)?;
    let mut fields = Fields(octets);
    match kind {
        lifecycle::OPEN | lifecycle::CONNECT_FAILED => {
            let record = connection(&mut fields)?;
            let opened = opened(&record)?;
            Ok(if kind == lifecycle::OPEN {
                LifecycleRecord::Open(opened)
            } else {
                LifecycleRecord::ConnectFailed { connection: opened, errno: record.errno }
            })
        }
        lifecycle::SENT_ALL | lifecycle::CLOSE => {
            let record = Closing {
                kind: fields.u8()?,
                peer_first: fields.u8()?,
                errno: fields.u16()?,
                sent: fields.u32()?,
                received: fields.u32()?,
                reserved: fields.u32()?,
                conn: fields.u64()?,
                at: fields.u64()?,
            };
            let closed = Closed {
                conn: ConnId(record.conn),
                at: MonoNanos(record.at),
                peer_first: record.peer_first != 0,
                errno: record.errno,
                positions: Positions { sent: Seq(record.sent), received: Seq(record.received) },
            };
            Ok(if kind == lifecycle::SENT_ALL {
                LifecycleRecord::SentAll(closed)
            } else {
                LifecycleRecord::Closed(closed)
            })
        }
        lifecycle::EXEC | lifecycle::EXIT => {
            let record = Process {
                kind: fields.u8()?,
                reserved: fields.take()?,
                tgid: fields.u32()?,
                at: fields.u64()?,
                comm: fields.take()?,
                filename: fields.take::<FILENAME>()?,
            };
            let (tgid, at) = (Tgid(record.tgid), MonoNanos(record.at));
            Ok(if kind == lifecycle::EXEC {
                let filename = record.filename.split(|octet| *octet == 0).next().unwrap_or_default();
                LifecycleRecord::Exec { tgid, at, comm: record.comm, filename: filename.into() }
            } else {
                LifecycleRecord::Exit { tgid, at }
            })
        }
        lifecycle::SPEAKS_TLS => {
            let record =
                SpeaksTls { kind: fields.u8()?, reserved: fields.take()?, tgid: fields.u32()?, at: fields.u64()? };
            Ok(LifecycleRecord::SpeaksTls { tgid: Tgid(record.tgid), at: MonoNanos(record.at) })
        }
        lifecycle::BIRTH => {
            let record = Birth {
                kind: fields.u8()?,
                thread: fields.u8()?,
                reserved: fields.take()?,
                tgid: fields.u32()?,
                tid: fields.u32()?,
                child: fields.u32()?,
                at: fields.u64()?,
            };
            let child = match record.thread {
                0 => Child::Process(Tgid(record.child)),
                _ => Child::Thread(Tid(record.child)),
            };
            let (tgid, tid) = (Tgid(record.tgid), Tid(record.tid));
            Ok(LifecycleRecord::Born(Born { at: MonoNanos(record.at), tgid, tid, child }))
        }
        _ => Err(Malformed),
    }
}

fn connection(fields: &mut Fields<'_>) -> Result<Connection, Malformed> {
    Ok(Connection {
        kind: fields.u8()?,
        role: fields.u8()?,
        fresh: fields.u8()?,
        family: fields.u8()?,
        errno: fields.u32()?,
        conn: fields.u64()?,
        at: fields.u64()?,
        opened_at: fields.u64()?,
        established_at: fields.u64()?,
        tgid: fields.u32()?,
        tid: fields.u32()?,
        local: fields.take()?,
        peer: fields.take()?,
        local_port: fields.u16()?,
        peer_port: fields.u16()?,
        sent: fields.u32()?,
        received: fields.u32()?,
        dialler: fields.u32()?,
        dialler_parent: fields.u32()?,
        tls: fields.u32()?,
        comm: fields.take()?,
    })
}

fn opened(record: &Connection) -> Result<Opened, Malformed> {
    let address = |octets: [u8; 16]| match i32::from(record.family) {
        libc::AF_INET => {
            let [a, b, c, d, ..] = octets;
            Ok(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        libc::AF_INET6 => Ok(IpAddr::V6(Ipv6Addr::from(octets))),
        _ => Err(Malformed),
    };
    let time = |at: u64| (at != 0).then_some(MonoNanos(at));
    Ok(Opened {
        conn: ConnId(record.conn),
        at: MonoNanos(record.at),
        thread: Thread { tgid: Tgid(record.tgid), tid: Tid(record.tid), coroutine: Coroutine::default() },
        dialler: Coroutine { id: record.dialler, parent: record.dialler_parent, ..Coroutine::default() },
        role: match record.role {
            role::CONNECTED => Role::Connected,
            role::ACCEPTED => Role::Accepted,
            _ => Role::Unknown,
        },
        fresh: record.fresh != 0,
        endpoints: Endpoints {
            local: SocketAddr::new(address(record.local)?, record.local_port),
            peer: SocketAddr::new(address(record.peer)?, record.peer_port),
            tls: match (record.tls, record.fresh) {
                (0, _) => Tls::No,
                (_, 0) => Tls::Late,
                _ => Tls::Whole,
            },
        },
        positions: Positions { sent: Seq(record.sent), received: Seq(record.received) },
        comm: record.comm,
        opened_at: time(record.opened_at),
        established_at: time(record.established_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment_octets(captured: u32, tail: u8, len: u32, direction: u8, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        octets.extend(7_u64.to_ne_bytes());
        octets.extend(9_u64.to_ne_bytes());
        for field in [1_u32, 2, 3, len, captured] {
            octets.extend(field.to_ne_bytes());
        }
        octets.extend([direction, tail, kind, 104]);
        for field in [4_u32, 5, 6, 7] {
            octets.extend(field.to_ne_bytes());
        }
        octets.extend(payload);
        octets
    }

    #[test]
    fn a_segment_is_read_with_its_octets_and_tail() {
        let octets = segment_octets(3, 2, 100, 1, segment::DATA, b"abcyz\0\0\0");
        let record = segment_record(&octets).unwrap();
        assert_eq!(record.direction, Direction::Ingress);
        assert_eq!(record.what, What::Data { len: 100, octets: b"abc", tail: b"yz" });
        assert_eq!((record.at, record.conn, record.seq), (MonoNanos(7), ConnId(9), Seq(3)));
        assert_eq!(
            record.thread,
            Thread { tgid: Tgid(1), tid: Tid(2), coroutine: Coroutine { id: 4, parent: 5, next: 6, end: 7 } }
        );
    }

    #[test]
    fn a_hello_is_no_data() {
        for (before, headless) in [(0, false), (TLS_HEAD, true)] {
            let mut octets = segment_octets(3, 0, 3, 0, segment::HELLO, b"abc\0\0");
            octets[24..28].copy_from_slice(&before.to_ne_bytes());
            assert_eq!(segment_record(&octets).unwrap().what, What::Hello { octets: b"abc", headless });
        }
    }

    #[test]
    fn records_that_do_not_add_up_are_refused() {
        let cases = [
            ("more captured than follows", segment_octets(9, 0, 9, 0, segment::DATA, b"abc")),
            ("more of a hello than follows", segment_octets(9, 0, 9, 0, segment::HELLO, b"abc")),
            ("more captured than transferred", segment_octets(3, 0, 2, 0, segment::DATA, b"abc")),
            ("unknown direction", segment_octets(0, 0, 0, 7, segment::DATA, b"")),
            ("unknown kind", segment_octets(0, 0, 0, 0, 9, b"")),
            ("too short", vec![0; 20]),
            ("empty", vec![]),
        ];
        for (what, octets) in cases {
            assert_eq!(segment_record(&octets), Err(Malformed), "{what}");
        }
        assert_eq!(lifecycle_record(&[]), Err(Malformed));
        assert_eq!(lifecycle_record(&[99; 200]), Err(Malformed));
        for kind in 1..=8 {
            assert_eq!(lifecycle_record(&[kind; 10]), Err(Malformed));
        }
    }

    #[test]
    fn a_birth_tells_threads_from_processes() {
        for (thread, child) in [(1, Child::Thread(Tid(12))), (0, Child::Process(Tgid(12)))] {
            let mut octets = vec![lifecycle::BIRTH, thread, 0, 0];
            for field in [10_u32, 11, 12] {
                octets.extend(field.to_ne_bytes());
            }
            octets.extend(7_u64.to_ne_bytes());
            let born = Born { at: MonoNanos(7), tgid: Tgid(10), tid: Tid(11), child };
            assert_eq!(lifecycle_record(&octets), Ok(LifecycleRecord::Born(born)));
        }
    }

    #[test]
    fn an_opened_connection_has_its_ends_in_order() {
        let mut octets = vec![lifecycle::OPEN, role::ACCEPTED, 1, 2];
        octets.extend(0_u32.to_ne_bytes());
        for field in [5_u64, 6, 0, 8] {
            octets.extend(field.to_ne_bytes());
        }
        octets.extend(10_u32.to_ne_bytes());
        octets.extend(11_u32.to_ne_bytes());
        octets.extend([127, 0, 0, 1]);
        octets.extend([0; 12]);
        octets.extend([10, 1, 2, 3]);
        octets.extend([0; 12]);
        octets.extend(80_u16.to_ne_bytes());
        octets.extend(4000_u16.to_ne_bytes());
        octets.extend([0; 20]);
        octets.extend(*b"nginx\0\0\0\0\0\0\0\0\0\0\0");
        let Ok(LifecycleRecord::Open(opened)) = lifecycle_record(&octets) else { panic!("not opened") };
        assert_eq!(opened.endpoints.local.to_string(), "127.0.0.1:80");
        assert_eq!(opened.endpoints.peer.to_string(), "10.1.2.3:4000");
        assert_eq!((opened.opened_at, opened.established_at), (None, Some(MonoNanos(8))));
        assert!(opened.fresh);
        assert_eq!(opened.role, Role::Accepted);
    }
}
