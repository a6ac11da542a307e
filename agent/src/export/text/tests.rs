use super::*;
use crate::export::fixture;
use crate::protocol::Failure;
use crate::signal::span::{ConnectDetail, Kind};

fn shown(span: &Span, colour: bool) -> String {
    let mut out = String::new();
    line(span, colour, &mut out);
    out
}

/// The line without its time, which depends on the time zone.
fn rest(span: &Span) -> String {
    let line = shown(span, false);
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.len() == 12 && time.ends_with(".000"), "{time}");
    rest.to_owned()
}

#[test]
fn lines_say_what_happened() {
    let resource = fixture::resource(1, "nginx");
    let plain = fixture::span(0, Kind::Server, &resource, fixture::message());
    assert_eq!(rest(&plain), "SERVER nginx GET /cart/4711/items 200 3.20 ms 127.0.0.1:51442\n");
    let mut reset = fixture::span(0, Kind::Client, &resource, fixture::message());
    if let Detail::Http(detail) = &mut reset.detail {
        detail.exchange.message.status = None;
        detail.exchange.failure = Some(Failure::Reset);
    }
    assert_eq!(rest(&reset), "CLIENT nginx GET /cart/4711/items 3.20 ms 127.0.0.1:51442 connection_reset\n");
    let mut refused = fixture::span(0, Kind::Client, &resource, fixture::message());
    refused.name = "CONNECT".into();
    refused.detail =
        Detail::Connect(ConnectDetail { peer: "[::ffff:10.0.0.1]:80".parse().unwrap(), error: "connrefused" });
    assert_eq!(rest(&refused), "CLIENT nginx CONNECT 3.20 ms 10.0.0.1:80 connrefused\n");
}

#[test]
fn what_was_observed_cannot_steer_the_terminal() {
    let mut http = fixture::message();
    http.target = format!("/\x1b[2J\r\n\u{202e}é{}", "x".repeat(70_000)).into();
    let span = fixture::span(0, Kind::Server, &fixture::resource(1, "a\x07b"), http);
    let line = rest(&span);
    assert!(line.starts_with("SERVER a\\u{7}b GET /\\u{1b}[2J\\u{d}\\u{a}\\u{202e}éxxx"), "{line}");
    assert!(line.contains('…') && line.len() < 400 && line.matches('\n').count() == 1);
    assert!(!line.trim_end().contains(char::is_control));
}

#[test]
fn colour_only_when_asked_for() {
    let span = fixture::span(0, Kind::Server, &fixture::resource(1, "nginx"), fixture::message());
    assert!(!shown(&span, false).contains('\x1b'));
    assert!(shown(&span, true).contains("\x1b[32m200\x1b[0m"));
}

#[test]
fn durations_have_three_digits_and_a_unit() {
    let cases =
        [(0, "0.00 µs"), (1_500, "1.50 µs"), (99_900, "99.9 µs"), (150_000_000, "150 ms"), (61_000_000_000, "61.0 s")];
    for (nanos, expected) in cases {
        assert_eq!(Duration(nanos).to_string(), expected);
    }
}
