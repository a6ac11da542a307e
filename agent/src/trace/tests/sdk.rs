//! Processes that make spans of their own, and those that only look like it.

use super::*;
use crate::protocol::grpc::{Coding, Grpc};
use crate::protocol::http::Method as HttpMethod;

const CALLER: u32 = 10;
const MIDDLE: u32 = 20;

fn context(trace: u8, span: u8) -> TraceContext {
    TraceContext {
        trace_id: TraceId([trace; 16]),
        span_id: Some(SpanId([span; 8])),
        sampled: Some(true),
        trace_state: None,
        format: Format::W3c,
    }
}

impl Bench {
    /// A request with a context, on a connection of its own.
    fn carries(&mut self, conn: u64, kind: Kind, tgid: u32, at: u64, context: Option<TraceContext>) {
        let client = format!("10.0.0.9:{}", 1_000 + conn);
        self.begin_with(conn, kind, tgid, at, 1, &client, context);
    }

    /// What a process does with spans it has made, or been sent.
    fn posts_traces(&mut self, conn: u64, tgid: u32, at: u64, user_agent: &str, status: u16) {
        let before = std::mem::replace(&mut self.target_text, "/otel/v1/traces".into());
        self.operation = 99;
        self.carries(conn, Kind::Client, tgid, at, None);
        self.finish_as(conn, at + 1, |http| {
            (http.method, http.target) = (HttpMethod::Post, "/otel/v1/traces".into());
            (http.user_agent, http.status) = (Some(user_agent.into()), Some(status));
        });
        (self.target_text, self.operation) = (before, 1);
    }

    fn left_out(&self, conn: u64) -> bool {
        self.placed(conn).left_out
    }

    /// A request to `tgid` and one that it makes meanwhile, with these contexts; whether their spans are left out.
    fn calls_on(&mut self, tgid: u32, number: u64, from: TraceContext, to: TraceContext) -> (bool, bool) {
        let (conn, at) = (1_000 + 10 * number, 1_000 * MS + number * 100 * MS);
        self.carries(conn, Kind::Server, tgid, at, Some(from));
        self.carries(conn + 1, Kind::Client, tgid, at + MS, Some(to));
        self.finish(conn + 1, at + 2 * MS);
        self.finish(conn, at + 3 * MS);
        self.poll(at + PATIENCE + 4 * MS);
        (self.left_out(conn), self.left_out(conn + 1))
    }
}

const PYTHON: &str = "OTel-OTLP-Exporter-Python/1.45.1";

#[test]
fn who_exports_makes_its_own_spans() {
    for (user_agent, status, expected) in [
        (PYTHON, 200, true),
        ("shop/1.0 OTel-OTLP-Exporter-JavaScript/0.219.0", 202, true),
        ("OTel OTLP Exporter Go/1.38.0", 200, true),
        (PYTHON, 404, false),
        (PYTHON, 503, false),
        ("NotOTel-OTLP-Exporter-Python/1", 200, false),
        ("python-requests/2.34.2", 200, false),
        ("OpenTelemetry Collector/0.140.0 (linux/amd64)", 200, false),
    ] {
        let mut bench = Bench::new();
        bench.posts_traces(1, MIDDLE, MS, user_agent, status);
        assert_eq!(bench.traces.stats().sdks, u64::from(expected), "{user_agent} {status}");
        bench.carries(2, Kind::Server, MIDDLE, 100 * MS, None);
        bench.carries(3, Kind::Client, MIDDLE, 101 * MS, Some(context(1, 1)));
        // No SDK has made a span of a request without a context, or of a trace that is not sampled.
        bench.carries(4, Kind::Client, MIDDLE, 102 * MS, None);
        bench.carries(5, Kind::Client, MIDDLE, 103 * MS, Some(TraceContext { sampled: Some(false), ..context(1, 2) }));
        bench.carries(6, Kind::Server, CALLER, 104 * MS, None);
        for conn in 2..=6 {
            bench.finish(conn, 110 * MS);
        }
        bench.poll(4_000 * MS);
        let left_out = [2, 3, 4, 5, 6].map(|conn| bench.left_out(conn));
        assert_eq!(left_out, [expected, expected, false, false, false], "{user_agent} {status}");
        assert!(!bench.left_out(1), "the export itself");
    }
}

#[test]
fn who_forwards_the_spans_of_others_does_not() {
    let mut bench = Bench::new();
    bench.target_text = "/otel/v1/traces".into();
    bench.carries(1, Kind::Server, MIDDLE, MS, None);
    bench.posts_traces(2, MIDDLE, 2 * MS, PYTHON, 200);
    bench.finish(1, 3 * MS);
    assert_eq!(bench.traces.stats().sdks, 0);
}

#[test]
fn exports_by_grpc_tell_it_when_they_succeed() {
    const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    for (status, known) in [(Some(0), 1), (Some(14), 0), (None, 0)] {
        let mut bench = Bench::new();
        bench.target_text = EXPORT.into();
        bench.carries(1, Kind::Client, MIDDLE, MS, None);
        bench.finish_as(1, 2 * MS, |http| {
            (http.method, http.target) = (HttpMethod::Post, EXPORT.into());
            (http.user_agent, http.status) = (Some(PYTHON.into()), Some(200));
            http.grpc = Some(Grpc { status, ..Grpc::new(Coding::Plain) });
        });
        assert_eq!(bench.traces.stats().sdks, known, "{status:?}");
    }
}

#[test]
fn new_span_ids_in_the_trace_of_a_request_tell_it_too() {
    let mut bench = Bench::new();
    let mut left_out = Vec::new();
    for number in 0..5 {
        let id = u8::try_from(number).unwrap() + 1;
        left_out.push(bench.calls_on(MIDDLE, number, context(id, id), context(id, 100 + id)));
    }
    let (kept, gone) = ((false, false), (true, true));
    assert_eq!(left_out, [kept, kept, (false, true), gone, gone], "three are needed");
    bench.traces.exited(Tgid(MIDDLE), &mut bench.out);
    assert_eq!(bench.calls_on(MIDDLE, 9, context(9, 9), context(9, 109)), kept, "another process of that number");
}

#[test]
fn who_passes_a_context_on_makes_none() {
    let mut bench = Bench::new();
    for number in 0..20 {
        let id = u8::try_from(number).unwrap() + 1;
        assert_eq!(bench.calls_on(MIDDLE, number, context(id, id), context(id, id)), (false, false));
        let (server, client) = (1_000 + 10 * number, 1_001 + 10 * number);
        bench.is_child(client, server, Method::Context);
        assert_eq!(bench.placed(server).place.parent.unwrap().span_id, SpanId([id; 8]));
    }
    // It once was sent another span of the trace, and keeps it for later; no more is needed to make it a suspect.
    for number in 30..60 {
        let (from, to) = (context(200, u8::try_from(number).unwrap()), context(200, 200));
        assert_eq!(bench.calls_on(MIDDLE, number, from, to), (false, false));
    }
    assert_eq!(bench.traces.stats().sdks, 0);
}

#[test]
fn contexts_from_elsewhere_hide_nothing() {
    let mut bench = Bench::new();
    // A load generator that sends one context with all its requests, or a new one with each, and a process that calls
    // with contexts of other traces than it serves.
    for number in 0..50 {
        let id = u8::try_from(number).unwrap() + 1;
        bench.carries(2 * number, Kind::Client, CALLER, number * MS, Some(context(7, if id < 25 { 7 } else { id })));
        bench.finish(2 * number, number * MS + 1);
        assert_eq!(bench.calls_on(MIDDLE, number, context(100, id), context(101, id)), (false, false));
        // A context that came in a while ago, of a request that was answered since.
        let earlier = context(100, id.saturating_sub(5).max(1));
        assert_eq!(bench.calls_on(MIDDLE + 1, number, context(100, id), earlier), (false, false));
    }
    assert!((0..50).all(|number| !bench.left_out(2 * number)));
    assert_eq!(bench.traces.stats().sdks, 0);
}

#[test]
fn what_a_left_out_span_caused_hangs_on_its_parent() {
    let mut bench = Bench::new();
    bench.posts_traces(1, MIDDLE, MS, PYTHON, 200);
    // From an SDK: the caller's context came along. And from an unmodified process on this host.
    for (first, from) in [(10, Some(context(1, 1))), (20, None)] {
        let at = first * 1_000 * MS;
        if from.is_none() {
            bench.carries(first, Kind::Client, CALLER, at, None);
        }
        let client = format!("10.0.0.9:{}", 1_000 + first);
        bench.begin_with(first + 1, Kind::Server, MIDDLE, at + MS, 1, &client, from);
        bench.carries(first + 2, Kind::Client, MIDDLE, at + 2 * MS, None);
        bench.carries(first + 3, Kind::Client, MIDDLE, at + 3 * MS, Some(context(2, 2)));
        let client = format!("10.0.0.9:{}", 1_003 + first);
        bench.begin_with(first + 4, Kind::Server, 30, at + 4 * MS, 1, &client, Some(context(2, 2)));
        for conn in [4, 3, 2, 1] {
            bench.finish(first + conn, at + 10 * MS);
        }
        if bench.begun.contains_key(&first) {
            bench.finish(first, at + 11 * MS);
        }
        bench.poll(at + 4_000 * MS);
        assert_eq!([1, 2, 3, 4].map(|conn| bench.left_out(first + conn)), [true, false, true, false]);
        let without = bench.placed(first + 2).place.clone();
        let parent = without.parent.unwrap();
        if first == 10 {
            assert_eq!((without.trace_id, parent.span_id), (TraceId([1; 16]), SpanId([1; 8])), "the caller's span");
        } else {
            assert_eq!(parent.span_id, bench.placed(first).span_id, "the client's span on this host");
        }
        assert!(parent.remote && matches!(parent.link.method, Method::Only | Method::Thread));
        let downstream = &bench.placed(first + 4).place;
        assert_eq!((downstream.trace_id, downstream.parent.unwrap().span_id), (TraceId([2; 16]), SpanId([2; 8])));
    }
}

/// A server that was sent a context its client only passed on is that client's child, whichever end is seen first.
#[test]
fn behind_a_process_that_passes_on_the_socket_says_more_than_the_context() {
    for server_first in [false, true] {
        let mut bench = Bench::new();
        bench.calls_on(MIDDLE, 1, context(9, 9), context(9, 9));
        let at = 5_000 * MS;
        bench.carries(1, Kind::Server, MIDDLE, at, Some(context(1, 1)));
        let begin = |bench: &mut Bench, conn, kind, tgid| {
            bench.begin_with(conn, kind, tgid, at + MS, 1, "10.0.0.1:50000", Some(context(1, 1)));
        };
        if server_first {
            begin(&mut bench, 3, Kind::Server, 30);
        }
        begin(&mut bench, 2, Kind::Client, MIDDLE);
        if !server_first {
            begin(&mut bench, 3, Kind::Server, 30);
        }
        for conn in [3, 2, 1] {
            bench.finish(conn, at + 10 * MS);
        }
        bench.poll(at + 4_000 * MS);
        bench.is_child(2, 1, Method::Context);
        bench.is_child(3, 2, Method::Socket);
        // Where the client is elsewhere, or does not pass on, the context holds.
        let at = 15_000 * MS;
        bench.carries(5, Kind::Server, 30, at, Some(context(2, 2)));
        bench.begin_with(7, Kind::Server, 30, at, 1, "10.0.0.1:50007", Some(context(3, 3)));
        bench.begin_with(6, Kind::Client, CALLER, at, 1, "10.0.0.1:50007", Some(context(3, 3)));
        for conn in [5, 6, 7] {
            bench.finish(conn, at + 10 * MS);
        }
        bench.poll(at + 4_000 * MS);
        for (conn, span) in [(5, 2), (6, 3), (7, 3)] {
            let parent = bench.placed(conn).place.parent.unwrap();
            assert_eq!((parent.span_id, parent.link.method), (SpanId([span; 8]), Method::Context));
        }
        let stats = bench.traces.stats();
        assert_eq!((stats.open, stats.ends), (0, 0), "nothing is kept");
    }
}

#[test]
fn all_are_kept_when_asked_for() {
    let mut bench = Bench::new();
    bench.traces = Traces::new(Sampler::default(), None, causality::Settings::default(), SdkSpans::Keep);
    bench.posts_traces(1, MIDDLE, MS, PYTHON, 200);
    assert_eq!(bench.calls_on(MIDDLE, 1, context(1, 1), context(1, 2)), (false, false));
    assert_eq!(bench.traces.stats().sdks, 1);
}

#[test]
fn contexts_are_forgotten() {
    let mut bench = Bench::new();
    for number in 0..3_u64 * 1024 {
        let context = TraceContext { span_id: Some(SpanId((number + 1).to_be_bytes())), ..context(1, 1) };
        bench.carries(number, Kind::Server, MIDDLE, number * 100 * MS, Some(context));
        bench.finish(number, number * 100 * MS + 1);
        bench.out.clear();
        bench.poll(number * 100 * MS + 2);
    }
    assert!(bench.traces.sdks.remembered() <= 601, "{}", bench.traces.sdks.remembered());
}
