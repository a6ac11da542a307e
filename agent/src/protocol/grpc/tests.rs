use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

fn message(flags: u8, content: &[u8]) -> Vec<u8> {
    [&[flags][..], &(content.len() as u32).to_be_bytes(), content].concat()
}

#[test]
fn content_types() {
    for (value, coding) in [
        ("application/grpc", Some(Coding::Plain)),
        ("application/grpc+proto", Some(Coding::Plain)),
        ("application/grpc;charset=utf-8", Some(Coding::Plain)),
        ("application/grpc-web", Some(Coding::Web)),
        ("application/grpc-web+proto", Some(Coding::Web)),
        ("application/grpc-web-text+proto", Some(Coding::WebText)),
        ("application/grpcx", None),
        ("application/grpc-webx", None),
        ("application/json", None),
    ] {
        assert_eq!(Coding::of(value.as_bytes()), coding, "{value}");
    }
}

#[test]
fn timeouts() {
    for (value, nanos) in [
        ("100m", Some(100_000_000)),
        ("99999999H", Some(u64::MAX)),
        ("1S", Some(1_000_000_000)),
        ("123456789n", None),
        ("S", None),
        ("-1S", None),
        ("1s", None),
        ("", None),
    ] {
        assert_eq!(timeout(value.as_bytes()), nanos, "{value}");
    }
    for (timeout, from) in [(1_000, 900), (1_000_000_000, 980_000_000), (10_000_000_000, 9_900_000_000)] {
        let call = Grpc { timeout: Some(timeout), ..Grpc::new(Coding::Plain) };
        assert_eq!([call.cancelled(from - 1), call.cancelled(from)], [CANCELLED, DEADLINE_EXCEEDED], "{timeout}");
    }
    assert_eq!(Grpc::new(Coding::Plain).cancelled(u64::MAX), CANCELLED);
}

#[test]
fn what_went_by_unseen_is_known_only_within_a_message() {
    let mut messages = Messages::new(Coding::Plain);
    messages.feed(&[0, 0, 0, 1, 0, 9]);
    assert_eq!(messages.left(), 255);
    messages.pass(255);
    assert_eq!((messages.count(), messages.left()), (Some(1), 0));
    messages.feed(&message(1, b""));
    messages.pass(0);
    assert_eq!(messages.count(), Some(2));
    messages.pass(1);
    assert_eq!((messages.count(), messages.left()), (None, u64::MAX));
    let mut messages = Messages::new(Coding::Plain);
    messages.feed(&[0, 0, 0, 0, 9, 9]);
    assert_eq!(messages.count(), Some(0), "not complete");
    messages.pass(9);
    assert_eq!(messages.count(), None);
}

#[test]
fn flags_that_no_message_has() {
    for (coding, flags, count) in
        [(Coding::Plain, 0x80, None), (Coding::Plain, 2, None), (Coding::Web, 0x80, Some(0)), (Coding::Web, 0x81, None)]
    {
        let mut messages = Messages::new(coding);
        messages.feed(&message(flags, b"grpc-status:0\r\n"));
        assert_eq!(messages.count(), count, "{coding:?} {flags}");
    }
}

#[test]
fn trailers_are_kept_within_limits() {
    let mut messages = Messages::new(Coding::Web);
    messages.feed(&message(0x80, &[b'x'; 100_000]));
    assert_eq!((messages.status(), messages.kept()), (None, 4096));
}

proptest! {
    /// However it arrives, with and without base64, and whatever of it was coded by itself.
    #[test]
    fn any_split_gives_the_same(sizes in prop::collection::vec(0..300_usize, 0..6), cuts in prop::collection::vec(1..50_usize, 1..9), text: bool, apart: bool) {
        let mut parts: Vec<_> = sizes.iter().map(|size| message((size % 2) as u8, &vec![7; *size])).collect();
        parts.push(message(0x80, b"grpc-message: a:b\r\nGrpc-Status: 13\r\n"));
        let whole = match (text, apart) {
            (false, _) => parts.concat(),
            (true, true) => parts.iter().map(|part| STANDARD.encode(part)).collect::<String>().into_bytes(),
            (true, false) => STANDARD.encode(parts.concat()).into_bytes(),
        };
        let mut messages = Messages::new(if text { Coding::WebText } else { Coding::Web });
        let mut rest = &whole[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            messages.feed(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
            prop_assert_eq!(messages.status(), None);
        }
        prop_assert_eq!((messages.count(), messages.status()), (Some(sizes.len() as u32), Some(13)));
    }

    #[test]
    fn nothing_panics(octets in prop::collection::vec(any::<u8>(), 0..200), passed: u64, text: bool) {
        let mut messages = Messages::new(if text { Coding::WebText } else { Coding::Web });
        messages.feed(&octets);
        messages.pass(passed);
        messages.feed(&octets);
        let _ = (messages.count(), messages.status(), messages.left());
    }
}
