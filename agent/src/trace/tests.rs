//! Traces put together from made-up exchanges.

mod births;
mod deliveries;
mod sampling;
mod sdk;

use agent_common::ids::{ConnId, Seq, Tid};
use rustc_hash::FxHashSet;

use super::*;
use crate::listen::sample;
use crate::protocol::context::{Format, TraceContext};
use crate::protocol::http::HttpMessage;
use crate::protocol::{Coroutine, Course, Exchange, Thread};
use crate::signal::span::{Detail, Tls, TraceId};

const MS: u64 = 1_000_000;
const CLIENT: &str = "10.0.0.9:40000";
const SERVER: &str = "10.0.0.1:80";

struct Bench {
    traces: Traces,
    out: Vec<Placed>,
    /// Where and by whom each request was begun, by its id.
    begun: FxHashMap<u64, (Begun, Option<Endpoints>)>,
    /// Of the requests that begin.
    target: u64,
    target_text: Arc<str>,
    service: &'static str,
    operation: u32,
}

impl Bench {
    fn new() -> Self {
        Self::with(Sampler::default())
    }

    fn with(sampler: Sampler) -> Self {
        Self {
            traces: Traces::new(sampler, None, causality::Settings::default(), SdkSpans::default()),
            out: Vec::new(),
            begun: FxHashMap::default(),
            target: 1,
            target_text: "/".into(),
            service: "shop",
            operation: 1,
        }
    }

    fn begin(&mut self, conn: u64, kind: Kind, tgid: u32, at: u64, position: u32) {
        self.begin_with(conn, kind, tgid, at, position, CLIENT, None);
    }

    #[expect(clippy::too_many_arguments, reason = "each test says what matters to it")]
    fn begin_with(
        &mut self,
        conn: u64,
        kind: Kind,
        tgid: u32,
        at: u64,
        position: u32,
        client: &str,
        context: Option<TraceContext>,
    ) {
        let (client, server) = (client.parse().unwrap(), SERVER.parse().unwrap());
        let (direction, endpoints) = match kind {
            Kind::Server => (Direction::Ingress, Endpoints { local: server, peer: client, tls: Tls::No }),
            Kind::Client => (Direction::Egress, Endpoints { local: client, peer: server, tls: Tls::No }),
        };
        let begun = Begun {
            number: 1,
            direction,
            thread: Thread { tgid: Tgid(tgid), tid: Tid(tgid), ..Thread::default() },
            coroutine: Coroutine::default(),
            dialler: Coroutine::default(),
            head_end: MonoNanos(at),
            at: MonoNanos(at),
            position: Seq(position),
            stream: None,
            pipelined: false,

            collected: false,
            brokered: None,
            operation: self.operation,
            target: self.target,
            target_text: Arc::clone(&self.target_text),
            request_id: None,
            context,
        };
        let id = ExchangeId::new(ConnId(conn), 1);
        self.traces.begin(id, &begun, Some(endpoints), None, &sample::resource(self.service), &mut self.out);
        self.begun.insert(conn, (begun, Some(endpoints)));
    }

    fn finish(&mut self, conn: u64, end: u64) {
        self.finish_as(conn, end, |_| ());
    }

    fn finish_as(&mut self, conn: u64, end: u64, change: impl FnOnce(&mut HttpMessage)) {
        let (begun, endpoints) = self.begun[&conn].clone();
        let Detail::Http(detail) = sample::span(1).build().detail else { panic!("an exchange") };
        let mut http = detail.exchange.message;
        http.context = begun.context;
        change(&mut http);
        let course = Course {
            number: begun.number,
            position: begun.position,
            request_direction: begun.direction,
            request_thread: begun.thread,
            start: begun.at,
            request_end: begun.at,
            response_start: Some(MonoNanos(end)),
            response_thread: Some(begun.thread),
            end: MonoNanos(end),
            ..detail.exchange.course
        };
        let exchange = Exchange { course, message: http };
        let finished = Finished { conn: ConnId(conn), exchange: Box::new(exchange), endpoints, session: None };
        self.traces.finish(finished, sample::resource(self.service), &mut self.out);
    }

    fn poll(&mut self, now: u64) {
        self.traces.poll(MonoNanos(now), &mut self.out);
    }

    fn placed(&self, conn: u64) -> &Placed {
        let of = |placed: &&Placed| matches!(&placed.subject, Subject::Exchange(finished) if finished.conn.0 == conn);
        self.out.iter().find(of).unwrap_or_else(|| panic!("{conn} is not placed"))
    }

    fn is_child(&self, child: u64, parent: u64, method: Method) {
        let (child, parent) = (self.placed(child), self.placed(parent));
        let given = child.place.parent.expect("a parent");
        assert_eq!((given.span_id, given.link.method), (parent.span_id, method));
        assert_eq!(child.place.trace_id, parent.place.trace_id);
    }
}

#[test]
fn both_ends_of_a_request_are_one_trace_whichever_is_seen_first() {
    for server_first in [false, true] {
        let mut bench = Bench::new();
        if server_first {
            bench.begin(2, Kind::Server, 20, 1_200, 7);
            bench.begin(1, Kind::Client, 10, 1_000, 7);
        } else {
            bench.begin(1, Kind::Client, 10, 1_000, 7);
            bench.begin(2, Kind::Server, 20, 1_200, 7);
        }
        bench.finish(2, 2_000);
        bench.finish(1, 2_200);
        bench.is_child(2, 1, Method::Socket);
        assert!(bench.placed(2).place.parent.unwrap().remote);
        assert_eq!(bench.placed(1).place.parent, None);
        let stats = bench.traces.stats();
        assert_eq!((stats.open, stats.ends, stats.roots), (0, 0, 1), "nothing is kept");
    }
}

#[test]
fn ends_that_only_look_alike_are_not_joined() {
    let mut bench = Bench::new();
    bench.begin(1, Kind::Client, 10, 1_000, 7);
    // Another position, another client, and a server that read before the client wrote.
    bench.begin(2, Kind::Server, 20, 1_100, 8);
    bench.begin_with(3, Kind::Server, 20, 1_100, 7, "10.0.0.8:40000", None);
    bench.begin(4, Kind::Client, 10, 900 * MS, 9);
    bench.begin(5, Kind::Server, 20, 800 * MS, 9);
    for conn in 1..=5 {
        bench.finish(conn, 1_000 * MS);
    }
    bench.poll(2_000 * MS);
    assert!((1..=5).all(|conn| bench.placed(conn).place.parent.is_none()));
    let ids: FxHashSet<TraceId> = (1..=5).map(|conn| bench.placed(conn).place.trace_id).collect();
    assert_eq!(ids.len(), 5);
}

#[test]
fn a_chain_over_two_processes_is_one_trace() {
    let mut bench = Bench::new();
    bench.begin(1, Kind::Client, 10, MS, 1);
    bench.begin(2, Kind::Server, 20, 2 * MS, 1);
    bench.begin_with(3, Kind::Client, 20, 3 * MS, 1, "10.0.0.1:50000", None);
    bench.begin_with(4, Kind::Server, 30, 4 * MS, 1, "10.0.0.1:50000", None);
    bench.finish(4, 5 * MS);
    bench.finish(3, 6 * MS);
    bench.finish(2, 7 * MS);
    bench.finish(1, 8 * MS);
    bench.poll(2_000 * MS);
    bench.poll(4_000 * MS);
    bench.is_child(2, 1, Method::Socket);
    bench.is_child(3, 2, Method::Only);
    bench.is_child(4, 3, Method::Socket);
    assert!(!bench.placed(3).place.parent.unwrap().remote, "it is of the same process");
    assert_eq!(bench.placed(4).place.trace_id, bench.placed(1).place.trace_id);
    let stats = bench.traces.stats();
    assert_eq!((stats.open, stats.ends), (0, 0), "nothing is kept for ever");
}

#[test]
fn a_proxy_is_known_by_the_targets_that_it_passes_on() {
    let mut bench = Bench::new();
    let (mut conn, mut at) = (0, MS);
    // One request after the other first, each passed on; `conn + 1` is the call.
    for target in 0..20 {
        (bench.target, conn, at) = (target, conn + 2, at + 20 * MS);
        bench.begin(conn, Kind::Server, 20, at, 1);
        bench.begin_with(conn + 1, Kind::Client, 20, at + MS, 1, "10.0.0.1:50000", None);
        bench.finish(conn + 1, at + 2 * MS);
        bench.finish(conn, at + 3 * MS);
    }
    // Then three at a time, whose calls come in another order; and the same in another worker of it, not seen before.
    for (tgid, first, at) in [(20, conn + 2, at + 40 * MS), (21, conn + 22, at + 60 * MS)] {
        for (number, target) in [(0, 100), (1, 101), (2, 102)] {
            bench.target = target;
            bench.begin(first + number, Kind::Server, tgid, at + number, 2);
        }
        for (number, target) in [(0, 102), (1, 100), (2, 101)] {
            bench.target = target;
            bench.begin_with(first + 10 + number, Kind::Client, tgid, at + MS + number, 2, "10.0.0.1:50000", None);
        }
        for number in 0..3 {
            bench.finish(first + 10 + number, at + 2 * MS);
            bench.finish(first + number, at + 3 * MS);
        }
    }
    bench.poll(at + 2_000 * MS);
    bench.poll(at + 4_000 * MS);
    for first in [conn + 2, conn + 22] {
        for (call, request) in [(0, 2), (1, 0), (2, 1)] {
            bench.is_child(first + 10 + call, first + request, Method::Target);
        }
    }
}

#[test]
fn a_context_in_the_message_wins() {
    let context = TraceContext {
        trace_id: TraceId([7; 16]),
        span_id: Some(SpanId([9; 8])),
        sampled: Some(false),
        trace_state: Some("vendor=1".into()),
        format: Format::W3c,
    };
    let mut bench = Bench::new();
    bench.begin(1, Kind::Client, 10, 1_000, 7);
    bench.begin_with(2, Kind::Server, 20, 1_100, 7, CLIENT, Some(context));
    bench.finish(2, 2_000);
    let Place { trace_id, parent, verdict, trace_state } = &bench.placed(2).place;
    assert_eq!((*trace_id, *verdict), (TraceId([7; 16]), Verdict::SampledOut), "its caller's decision holds");
    assert_eq!(parent.unwrap().link, Link { method: Method::Context, confidence: 1.0 });
    assert_eq!(parent.unwrap().span_id, SpanId([9; 8]));
    assert_eq!(trace_state.as_deref(), Some("vendor=1"));
}

#[test]
fn a_server_whose_client_is_elsewhere_begins_a_trace_after_a_short_wait() {
    let mut bench = Bench::new();
    bench.begin(1, Kind::Server, 20, MS, 1);
    bench.finish(1, 2 * MS);
    bench.poll(10 * MS);
    assert!(bench.out.is_empty(), "its client may still show up");
    bench.poll(MS + PATIENCE + 1);
    assert_eq!(bench.placed(1).place.parent, None);
}

#[test]
fn all_spans_of_a_trace_share_its_sampling() {
    let lookup = |name: &str| match name {
        "OTEL_TRACES_SAMPLER" => Some("traceidratio".to_owned()),
        "OTEL_TRACES_SAMPLER_ARG" => Some("0.25".to_owned()),
        _ => None,
    };
    let mut bench = Bench::with(Sampler::from_env(&lookup).unwrap());
    for request in 0..2_000_u64 {
        let at = MS + request * 1_000;
        let position = u32::try_from(request).unwrap();
        bench.begin(2 * request + 1, Kind::Client, 10, at, position);
        bench.begin(2 * request + 2, Kind::Server, 20, at + 100, position);
        bench.finish(2 * request + 2, at + 200);
        bench.finish(2 * request + 1, at + 300);
    }
    let mut kept = 0;
    for request in 0..2_000 {
        let (client, server) = (&bench.placed(2 * request + 1).place, &bench.placed(2 * request + 2).place);
        assert_eq!((client.verdict, &client.trace_state), (server.verdict, &server.trace_state));
        if client.verdict == Verdict::Exported {
            kept += 1;
            assert_eq!(client.trace_state.as_deref(), Some("ot=th:c"), "so that one span counts for four");
        }
    }
    assert!((400..600).contains(&kept), "{kept} of 2,000");
}

#[test]
fn memory_is_bounded_and_everything_comes_out() {
    let mut bench = Bench::new();
    let most = u32::try_from(MOST).unwrap();
    for request in 0..most + 1_000 {
        bench.begin(request.into(), Kind::Server, 20, u64::from(request), request);
    }
    let stats = bench.traces.stats();
    assert_eq!((stats.open, stats.evicted), (u64::from(most), 1_000));
    assert!(stats.ends <= u64::from(most));
    for request in 0..most + 1_000 {
        bench.finish(request.into(), 10 * MS);
    }
    bench.traces.finish_all(MonoNanos(20 * MS), &mut bench.out);
    assert_eq!(bench.out.len(), MOST + 1_000);
    let stats = bench.traces.stats();
    assert_eq!((stats.open, stats.ends, stats.untracked), (0, 0, 1_000));
}

#[test]
fn requests_that_come_to_nothing_are_forgotten() {
    let mut bench = Bench::new();
    bench.begin(1, Kind::Client, 10, 1_000, 7);
    bench.begin(2, Kind::Server, 20, 1_100, 7);
    bench.traces.dropped(ExchangeId::new(ConnId(1), 1), MonoNanos(1_200), &mut bench.out);
    bench.traces.dropped(ExchangeId::new(ConnId(2), 1), MonoNanos(1_200), &mut bench.out);
    let stats = bench.traces.stats();
    assert_eq!((stats.open, stats.ends, bench.out.len()), (0, 0, 0));
}
