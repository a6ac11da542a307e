//! Cases from the specifications of each format.

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn parse(fields: &[(&str, &str)]) -> Option<TraceContext> {
    let mut context = ContextFields::default();
    for (name, value) in fields {
        assert!(context.add(name, value.as_bytes()), "{name} is a context field");
    }
    context.finish()
}

/// The context in one line: format, ids in hexadecimal, sampling.
fn line(fields: &[(&str, &str)]) -> String {
    let Some(context) = parse(fields) else { return "none".into() };
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let span = context.span_id.map_or("-".into(), |span| hex(&span.0));
    let sampled = context.sampled.map_or("-", |sampled| if sampled { "1" } else { "0" });
    format!("{:?} {} {span} {sampled}", context.format, hex(&context.trace_id.0))
}

fn check(fields: &[(&str, &str)], expected: &str) {
    assert_eq!(line(fields), expected, "{fields:?}");
}

#[test]
fn traceparent_by_the_specification() {
    let ok = |flags: &str| format!("W3c {TRACE} {SPAN} {flags}");
    let none = || "none".to_owned();
    for (value, expected) in [
        (format!("00-{TRACE}-{SPAN}-01"), ok("1")),
        (format!("00-{TRACE}-{SPAN}-00"), ok("0")),
        (format!("00-{TRACE}-{SPAN}-ff"), ok("1")),
        (format!("  00-{TRACE}-{SPAN}-01\t"), ok("1")),
        (format!("cc-{TRACE}-{SPAN}-01"), ok("1")),
        (format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"), ok("1")),
        (format!("cc-{TRACE}-{SPAN}-01.what-the-future"), none()),
        (format!("00-{TRACE}-{SPAN}-01-what"), none()),
        (format!("00-{TRACE}-{SPAN}-01-"), none()),
        (format!("ff-{TRACE}-{SPAN}-01"), none()),
        (format!("0-{TRACE}-{SPAN}-01"), none()),
        (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), none()),
        (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), none()),
        (format!("00-{TRACE}-{SPAN}-0A"), none()),
        (format!("00-{}-{SPAN}-01", "0".repeat(32)), none()),
        (format!("00-{TRACE}-{}-01", "0".repeat(16)), none()),
        (format!("00-{TRACE}-{SPAN}-1"), none()),
        (format!("00-{}x-{SPAN}-01", &TRACE[1..]), none()),
        (format!("00-{TRACE}{SPAN}--01"), none()),
        (format!("00_{TRACE}_{SPAN}_01"), none()),
        (format!("00-{TRACE}-é{}-01", &SPAN[2..]), none()),
        (String::new(), none()),
    ] {
        check(&[("traceparent", &value)], &expected);
    }
    let value = format!("00-{TRACE}-{SPAN}-01");
    check(&[("traceparent", &value), ("TraceParent", &value)], "none");
}

#[test]
fn tracestate_goes_with_a_valid_traceparent() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let state = |values: &[&str]| {
        let mut fields = vec![("traceparent", parent.as_str())];
        fields.extend(values.iter().map(|value| ("tracestate", *value)));
        parse(&fields).unwrap().trace_state.map(String::from)
    };
    assert_eq!(state(&["foo=1"]).as_deref(), Some("foo=1"));
    assert_eq!(
        state(&["foo=1,bar=2", "", " rojo=00f067aa0ba902b7 "]).as_deref(),
        Some("foo=1,bar=2,rojo=00f067aa0ba902b7")
    );
    assert_eq!(state(&["foo=1 , \t bar=2,,"]).as_deref(), Some("foo=1 , \t bar=2,,"));
    assert_eq!(state(&["fw529a3039@dt=FfAAAA"]).as_deref(), Some("fw529a3039@dt=FfAAAA"));
    for invalid in ["foo", "Foo=1", "=1", "foo=a=b", "foo=\u{7f}", "", ","] {
        assert_eq!(state(&[invalid]), None, "{invalid:?}");
    }
    let list = |members: usize| (0..members).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    assert!(state(&[&list(32)]).is_some());
    assert_eq!(state(&[&list(33)]), None);
    assert_eq!(parse(&[("tracestate", "foo=1")]), None);
}

#[test]
fn b3() {
    for (value, expected) in [
        (format!("{TRACE}-{SPAN}-1"), format!("B3Single {TRACE} {SPAN} 1")),
        (format!("{TRACE}-{SPAN}-d-05e3ac9a4f6e3b90"), format!("B3Single {TRACE} {SPAN} 1")),
        (format!("{TRACE}-{SPAN}-0"), format!("B3Single {TRACE} {SPAN} 0")),
        (format!("{TRACE}-{SPAN}"), format!("B3Single {TRACE} {SPAN} -")),
        (format!("{SPAN}-{SPAN}-1"), format!("B3Single 0000000000000000{SPAN} {SPAN} 1")),
        ("0".into(), "none".into()),
        (TRACE.into(), "none".into()),
        (format!("{TRACE}-{SPAN}-x"), "none".into()),
        (format!("{TRACE}-{SPAN}-1-05e3"), "none".into()),
        (format!("{}-{SPAN}-1", "0".repeat(32)), "none".into()),
    ] {
        check(&[("b3", &value)], &expected);
    }
    let multi = |more: &[(&'static str, &'static str)]| {
        let mut fields = vec![("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN)];
        fields.extend(more);
        line(&fields)
    };
    assert_eq!(multi(&[]), format!("B3Multi {TRACE} {SPAN} -"));
    assert_eq!(multi(&[("X-B3-Sampled", "1")]), format!("B3Multi {TRACE} {SPAN} 1"));
    assert_eq!(multi(&[("X-B3-Sampled", "true")]), format!("B3Multi {TRACE} {SPAN} 1"));
    assert_eq!(multi(&[("X-B3-Sampled", "0")]), format!("B3Multi {TRACE} {SPAN} 0"));
    assert_eq!(multi(&[("X-B3-Flags", "1")]), format!("B3Multi {TRACE} {SPAN} 1"));
    check(&[("x-b3-traceid", SPAN)], &format!("B3Multi 0000000000000000{SPAN} - -"));
    check(&[("x-b3-spanid", SPAN)], "none");
    check(&[("x-b3-traceid", TRACE), ("x-b3-spanid", "12")], "none");
}

#[test]
fn jaeger_ids_may_be_short_and_encoded() {
    for (value, expected) in [
        (format!("{TRACE}:{SPAN}:0:1"), format!("Jaeger {TRACE} {SPAN} 1")),
        (format!("{TRACE}%3A{SPAN}%3a0%3A3"), format!("Jaeger {TRACE} {SPAN} 1")),
        ("1f:2e:0:0".into(), format!("Jaeger {:032x} {:016x} 0", 0x1f, 0x2e)),
        (format!("{TRACE}:{SPAN}:0"), "none".into()),
        (format!("{TRACE}:0:0:1"), "none".into()),
        (format!("{TRACE}:{SPAN}:0:1:2"), "none".into()),
        (format!("+{}:{SPAN}:0:1", &TRACE[1..]), "none".into()),
        (":::".into(), "none".into()),
    ] {
        check(&[("uber-trace-id", &value)], &expected);
    }
}

#[test]
fn datadog_ids_are_decimal_halves() {
    let base = [("x-datadog-trace-id", "9532127138774266268"), ("x-datadog-parent-id", "13235353014750950193")];
    let with = |more: &[(&'static str, &'static str)]| line(&[&base[..], more].concat());
    assert_eq!(with(&[]), format!("Datadog 00000000000000008448eb211c80319c {SPAN} -"));
    assert_eq!(
        with(&[("x-datadog-tags", "_dd.p.dm=-1,_dd.p.tid=0af7651916cd43dd")]),
        format!("Datadog {TRACE} {SPAN} -")
    );
    assert_eq!(
        with(&[("x-datadog-sampling-priority", "2")]),
        format!("Datadog 00000000000000008448eb211c80319c {SPAN} 1")
    );
    assert_eq!(
        with(&[("x-datadog-sampling-priority", "-1")]),
        format!("Datadog 00000000000000008448eb211c80319c {SPAN} 0")
    );
    check(&[("x-datadog-trace-id", "0")], "none");
    check(&[("x-datadog-trace-id", "+1")], "none");
    check(&[("x-datadog-trace-id", "")], "none");
    check(&[("x-datadog-trace-id", "18446744073709551616")], "none");
    check(&[("x-datadog-trace-id", "1"), ("x-datadog-parent-id", "0")], &format!("Datadog {:032x} - -", 1));
}

#[test]
fn xray_fields_come_in_any_order() {
    let root = "Root=1-0af76519-16cd43dd8448eb211c80319c";
    check(&[("X-Amzn-Trace-Id", &format!("{root};Parent={SPAN};Sampled=1"))], &format!("XRay {TRACE} {SPAN} 1"));
    check(&[("x-amzn-trace-id", &format!("Self=1-a-b; Sampled=0; {root}"))], &format!("XRay {TRACE} - 0"));
    check(&[("x-amzn-trace-id", &format!("{root};Sampled=?"))], &format!("XRay {TRACE} - -"));
    check(&[("x-amzn-trace-id", "Root=2-0af76519-16cd43dd8448eb211c80319c")], "none");
    check(&[("x-amzn-trace-id", "Root=1-0af7651-16cd43dd8448eb211c80319c")], "none");
    check(&[("x-amzn-trace-id", &format!("Parent={SPAN}"))], "none");
}

#[test]
fn the_first_valid_format_counts() {
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    let b3 = format!("{SPAN}-{SPAN}-1");
    check(&[("b3", &b3), ("traceparent", &w3c)], &format!("W3c {TRACE} {SPAN} 1"));
    check(&[("b3", &b3), ("traceparent", "00-bad")], &format!("B3Single 0000000000000000{SPAN} {SPAN} 1"));
    check(&[("b3", "0"), ("uber-trace-id", "1:2:0:1")], &format!("Jaeger {:032x} {:016x} 1", 1, 2));
}
