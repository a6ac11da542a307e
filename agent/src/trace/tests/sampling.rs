//! Rates of single services and routes, decided about at the root.

use super::*;
use crate::sampling::Rule;

/// Keeps nothing but what the rules say.
fn bench(rules: &[(Option<&str>, Option<&str>, f64)]) -> Bench {
    let sampler = Sampler::from_env(&|name| (name == "OTEL_TRACES_SAMPLER").then(|| "always_off".to_owned())).unwrap();
    let rules = rules.iter().map(|(service, route, ratio)| Rule::new(*service, *route, *ratio).unwrap()).collect();
    Bench::with(sampler.with_rules(rules))
}

impl Bench {
    fn is(&mut self, service: &'static str, target: &str) {
        (self.service, self.target_text) = (service, target.into());
    }

    fn verdict(&self, conn: u64) -> Verdict {
        self.placed(conn).place.verdict
    }
}

#[test]
fn the_root_decides_for_its_whole_trace_whichever_end_it_is() {
    // The server alone would be kept; the trace begins with its client, where that one is seen.
    for (client_is_seen, expected) in [(true, Verdict::SampledOut), (false, Verdict::Exported)] {
        let mut bench = bench(&[(Some("curl"), None, 0.0), (Some("shop"), Some("/cart/*"), 1.0)]);
        if client_is_seen {
            bench.is("curl", "/cart/7?full");
            bench.begin(1, Kind::Client, 10, MS, 7);
        }
        bench.is("shop", "/cart/7?full");
        bench.begin(2, Kind::Server, 20, 2 * MS, 7);
        // The server's own call goes elsewhere, where a rule of its own would speak against it.
        bench.is("shop", "/stock");
        bench.begin_with(3, Kind::Client, 20, 3 * MS, 1, "10.0.0.1:50000", None);
        for (conn, end) in [(3, 5), (2, 6)] {
            bench.finish(conn, end * MS);
        }
        bench.poll(2_000 * MS);
        bench.poll(4_000 * MS);
        bench.is_child(3, 2, Method::Only);
        assert_eq!([bench.verdict(2), bench.verdict(3)], [expected; 2], "client seen: {client_is_seen}");
    }
}

#[test]
fn the_rate_that_was_used_is_recorded() {
    let mut bench = bench(&[(None, Some("/cart"), 0.25)]);
    bench.is("shop", "/cart");
    let context = |conn: u64| TraceContext {
        trace_id: TraceId(u128::from(conn).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()),
        span_id: Some(SpanId([9; 8])),
        sampled: None,
        trace_state: conn.is_multiple_of(4).then(|| "vendor=1,ot=th:8".into()),
        format: Format::B3Single,
    };
    for conn in 1..=400_u64 {
        // Half of them continue a trace whose caller left the decision open.
        let context = conn.is_multiple_of(2).then(|| context(conn));
        let position = u32::try_from(conn).unwrap();
        bench.begin_with(conn, Kind::Server, 20, conn * MS, position, CLIENT, context);
        bench.finish(conn, conn * MS + 1);
    }
    bench.poll(2_000 * MS);
    let kept: Vec<u64> = (1..=400).filter(|conn| bench.verdict(*conn) == Verdict::Exported).collect();
    assert!((50..150).contains(&kept.len()), "{} of 400 at 25 %", kept.len());
    for conn in kept {
        let expected = if conn.is_multiple_of(4) { "ot=th:c,vendor=1" } else { "ot=th:c" };
        assert_eq!(bench.placed(conn).place.trace_state.as_deref(), Some(expected), "{conn}");
    }
}

#[test]
fn the_target_is_not_kept_longer_than_it_is_needed() {
    let target: Arc<str> = "/cart".into();
    for (mut bench, kept) in [(bench(&[(None, Some("/cart"), 1.0)]), 1), (Bench::new(), 0)] {
        bench.target_text = Arc::clone(&target);
        bench.begin(1, Kind::Server, 20, MS, 7);
        // Here, in the bench twice, and with what waits for its place.
        assert_eq!(Arc::strong_count(&target), 3 + kept);
        bench.poll(MS + PATIENCE + 1);
        assert_eq!(Arc::strong_count(&target), 3);
    }
}
