//! Random conversations, split, reordered and robbed of octets at random.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    Length(usize),
    Chunked(usize),
}

impl Content {
    pub(super) fn len(self) -> usize {
        let (Self::Length(len) | Self::Chunked(len)) = self;
        len
    }

    /// The fields and the octets. The content holds what looks like messages.
    pub(super) fn write(self, head: &str) -> Vec<u8> {
        const TEXT: &[u8] = b"xGET /0 HTTP/1.1\r\n\r\nxHTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n0\r\nx";
        let octets = || TEXT.iter().copied().cycle();
        match self {
            Self::Length(len) => {
                let mut message = format!("{head}Content-Length: {len}\r\n\r\n").into_bytes();
                message.extend(octets().take(len));
                message
            }
            Self::Chunked(len) => {
                let mut message = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                for from in (0..len).step_by(150) {
                    let size = (len - from).min(150);
                    message.extend(format!("{size:x};ext\r\n").bytes());
                    message.extend(octets().skip(from).take(size));
                    message.extend(b"\r\n");
                }
                message.extend(if len % 2 == 0 { &b"0\r\nTrailer: t\r\n\r\n"[..] } else { b"0\r\n\r\n" });
                message
            }
        }
    }
}

/// One request and its response: what they say, and in what order they are sent.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) sent: Content,
    pub(super) received: Content,
    pub(super) interim: bool,
    /// How many requests are sent before the oldest unanswered one is answered.
    pub(super) depth: usize,
}

/// What was sent in one system call.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) direction: Direction,
    pub(super) at: u64,
    pub(super) octets: Vec<u8>,
}

/// When each exchange's parts were.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    pub(super) start: u64,
    pub(super) response_start: u64,
    pub(super) end: u64,
}

pub(super) fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        4 => Just(Content::Length(0)),
        4 => (1usize..400).prop_map(Content::Length),
        3 => (0usize..500).prop_map(Content::Chunked),
    ]
}

fn pairs(depth: std::ops::Range<usize>, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Pair>> {
    let pair = (content(), content(), any::<bool>(), depth).prop_map(|(sent, received, interim, depth)| Pair {
        sent,
        received,
        interim,
        depth,
    });
    proptest::collection::vec(pair, count)
}

pub(super) fn status(id: usize) -> u16 {
    310 + id as u16
}

/// The conversation in order of time, one segment per message.
fn conversation(pairs: &[Pair]) -> (Vec<Sent>, Vec<Truth>) {
    let mut truth = vec![Truth::default(); pairs.len()];
    let mut all = Vec::new();
    let mut at = 0;
    let mut sent = 0;
    for (id, pair) in pairs.iter().enumerate() {
        while sent < pairs.len().min(id + pair.depth.max(1)) {
            at += MS;
            truth[sent].start = at;
            let octets = pairs[sent].sent.write(&format!("POST /{sent} HTTP/1.1\r\nHost: h\r\n"));
            all.push(Sent { direction: Q, at, octets });
            sent += 1;
        }
        at += MS;
        if pair.interim {
            all.push(Sent { direction: R, at, octets: b"HTTP/1.1 100 Continue\r\n\r\n".to_vec() });
            at += MS;
        }
        (truth[id].response_start, truth[id].end) = (at, at);
        let octets = pair.received.write(&format!("HTTP/1.1 {} OK\r\nX-Id: {id}\r\n", status(id)));
        all.push(Sent { direction: R, at, octets });
    }
    (all, truth)
}

fn bench(fresh: bool) -> Bench {
    Bench::with(fresh, Config { response_headers: vec!["x-id".into()], ..Config::default() })
}

/// Cuts segments in pieces, but not where the content looks like a start line: whoever comes late could not tell.
fn split(all: &[Sent], cuts: &[(Index, Index)]) -> Vec<Sent> {
    let mut places: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    for (segment, place) in cuts {
        let segment = segment.index(all.len());
        let octets = &all[segment].octets;
        let place = place.index(octets.len());
        let after = &octets[place..];
        let place = if after.starts_with(b"GET /0") || after.starts_with(b"HTTP/1.1 9") { place + 1 } else { place };
        if place > 0 && place < octets.len() {
            places[segment].push(place);
        }
    }
    let mut pieces = Vec::new();
    for (sent, places) in all.iter().zip(&mut places) {
        places.sort_unstable();
        places.dedup();
        let mut from = 0;
        for &to in places.iter().chain([&sent.octets.len()]) {
            pieces.push(Sent { octets: sent.octets[from..to].to_vec(), ..sent.clone() });
            from = to;
        }
    }
    pieces
}

fn replay(pieces: &[Sent]) -> Bench {
    let mut bench = bench(true);
    for piece in pieces {
        bench.at(piece.direction, piece.at, &piece.octets, 0, b"");
    }
    bench
}

/// How a segment is seen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sight {
    Whole,
    /// Only its beginning, up to this share of it, and a tail.
    Beginning(u8, u8),
    Lost,
    LostUncounted,
}

fn sight() -> impl Strategy<Value = Sight> {
    prop_oneof![
        12 => Just(Sight::Whole),
        2 => (any::<u8>(), 0u8..17).prop_map(|(share, tail)| Sight::Beginning(share, tail)),
        1 => Just(Sight::Lost),
        1 => Just(Sight::LostUncounted),
    ]
}

/// What was lost shows when something comes after it.
#[derive(Clone, Copy, Default)]
struct Owed {
    octets: u64,
    uncounted: bool,
}

impl Owed {
    fn pay(&mut self, bench: &mut Bench, direction: Direction, at: u64) {
        let owed = std::mem::take(self);
        if owed.octets > 0 {
            let octets = (!owed.uncounted).then_some(owed.octets);
            bench.follower.gap(direction, octets, MonoNanos(at), &mut |exchange| bench.out.push(exchange));
        }
    }
}

pub(super) fn watch(fresh: bool, pieces: &[Sent], sights: &[Sight], late_notice: bool) -> Bench {
    let mut bench = bench(fresh);
    let (mut q, mut r) = (Owed::default(), Owed::default());
    let mut last = 0;
    for (piece, sight) in pieces.iter().zip(sights.iter().cycle()) {
        let owed = if piece.direction == Q { &mut q } else { &mut r };
        last = piece.at;
        match *sight {
            Sight::Whole => {
                owed.pay(&mut bench, piece.direction, piece.at);
                bench.at(piece.direction, piece.at, &piece.octets, 0, b"");
            }
            Sight::Beginning(share, tail) => {
                owed.pay(&mut bench, piece.direction, piece.at);
                let (seen, missing) = piece.octets.split_at(piece.octets.len() * usize::from(share) / 255);
                let tail = &missing[missing.len() - usize::from(tail).min(missing.len())..];
                bench.at(piece.direction, piece.at, seen, missing.len() as u64, tail);
            }
            Sight::Lost | Sight::LostUncounted => {
                owed.octets += piece.octets.len() as u64;
                owed.uncounted |= matches!(sight, Sight::LostUncounted);
                if !late_notice {
                    owed.pay(&mut bench, piece.direction, piece.at);
                }
            }
        }
    }
    q.pay(&mut bench, Q, last);
    r.pay(&mut bench, R, last);
    bench.at = last;
    bench.end(R).close(End::Closed);
    bench
}

/// Whatever is said of an exchange is true.
pub(super) fn check_truth(bench: &mut Bench, pairs: &[Pair], truth: &[Truth]) -> Result<usize, TestCaseError> {
    let count = bench.out.len();
    let mut newest = None;
    for exchange in &bench.out {
        let http = &exchange.message;
        let what = line(exchange);
        let id: usize = http.target.trim_start_matches('/').parse().unwrap();
        prop_assert!(newest < Some(id), "out of order: {what}");
        newest = Some(id);
        let (pair, truth) = (&pairs[id], &truth[id]);
        prop_assert_eq!(http.method, Method::Post, "{}", what);
        prop_assert_eq!(exchange.start.0, truth.start, "{}", what);
        prop_assert_eq!(exchange.failure, None, "{}", what);
        prop_assert_eq!(http.status, Some(status(id)), "{}", what);
        prop_assert_eq!(exchange.response_start.unwrap().0, truth.response_start, "{}", what);
        if let Some((_, values)) = http.response_headers.first() {
            prop_assert_eq!(&*values[0], id.to_string(), "{}", what);
        }
        prop_assert!(http.request_body.is_none_or(|len| len == pair.sent.len() as u64), "{what}");
        prop_assert!(http.response_body.is_none_or(|len| len == pair.received.len() as u64), "{what}");
        if !exchange.partial {
            prop_assert_eq!(exchange.end.0, truth.end, "{}", what);
            prop_assert!(http.request_body.is_some() && http.response_body.is_some(), "{what}");
        }
    }
    bench.lines();
    Ok(count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_exchanges(
        pairs in pairs(1..6, 1..12),
        cuts in proptest::collection::vec(any::<(Index, Index)>(), 0..60),
    ) {
        let (all, truth) = conversation(&pairs);
        let mut whole = replay(&all);
        prop_assert_eq!(check_truth(&mut replay(&all), &pairs, &truth)?, pairs.len());
        let expected = whole.lines();
        let pieces = split(&all, &cuts);
        for end in 0..=pieces.len() {
            let lines = replay(&pieces[..end]).lines();
            prop_assert!(expected.starts_with(&lines));
        }
        let mut split = replay(&pieces);
        prop_assert_eq!(split.lines(), expected);
        prop_assert_eq!(split.stats, whole.stats);
    }

    /// Segments of the two directions may overtake one another.
    #[test]
    fn order_between_directions_does_not_matter(
        pairs in pairs(1..4, 1..12),
        cuts in proptest::collection::vec(any::<(Index, Index)>(), 0..10),
        swaps in proptest::collection::vec(any::<Index>(), 0..10),
    ) {
        let (all, truth) = conversation(&pairs);
        let mut pieces = split(&all, &cuts);
        for swap in swaps {
            let at = swap.index(pieces.len());
            if at + 1 < pieces.len() && pieces[at].direction != pieces[at + 1].direction {
                pieces.swap(at, at + 1);
            }
        }
        prop_assert_eq!(check_truth(&mut replay(&pieces), &pairs, &truth)?, pairs.len());
    }

    #[test]
    fn losses_never_make_a_wrong_pair(
        pairs in pairs(1..2, 1..30),
        cuts in proptest::collection::vec(any::<(Index, Index)>(), 0..60),
        clean in 0usize..40,
        sights in proptest::collection::vec(sight(), 1..60),
        late_notice: bool,
        fresh: bool,
    ) {
        let (all, truth) = conversation(&pairs);
        let pieces = split(&all, &cuts);
        let sights: Vec<_> = std::iter::repeat_n(Sight::Whole, clean).chain(sights).collect();
        check_truth(&mut watch(fresh, &pieces, &sights, late_notice), &pairs, &truth)?;
    }

    /// The first two requests show that the client pipelines, whether we see them or not. It does not after an upload
    /// of unknown length.
    #[test]
    fn losses_of_a_pipelining_client_neither(
        mut pairs in pairs(1..5, 2..10),
        cuts in proptest::collection::vec(any::<(Index, Index)>(), 0..60),
        clean in 0usize..10,
        sights in proptest::collection::vec(sight(), 1..60),
        late_notice: bool,
    ) {
        pairs[0].depth = 2;
        for pair in &mut pairs {
            pair.sent = Content::Length(pair.sent.len());
        }
        let (all, truth) = conversation(&pairs);
        let pieces = split(&all, &cuts);
        let sights: Vec<_> = std::iter::repeat_n(Sight::Whole, clean).chain(sights).collect();
        check_truth(&mut watch(true, &pieces, &sights, late_notice), &pairs, &truth)?;
    }

    /// Whoever comes to a sequential connection at any octet pairs from the next request on.
    #[test]
    fn a_late_join_anywhere(
        pairs in pairs(1..2, 2..12),
        first in any::<Index>(),
        place in any::<Index>(),
    ) {
        let (all, truth) = conversation(&pairs);
        let first = first.index(all.len());
        let cut = [(first, place.index(all[first].octets.len()))];
        let mut rest = all[first..].to_vec();
        rest[0].octets.drain(..cut[0].1);
        let octets = &rest[0].octets;
        prop_assume!(!octets.starts_with(b"GET /0") && !octets.starts_with(b"HTTP/1.1 9"));
        let expected = rest.iter().skip(usize::from(cut[0].1 > 0)).filter(|sent| sent.direction == Q).count();
        let mut bench = watch(false, &rest, &[Sight::Whole], false);
        prop_assert_eq!(check_truth(&mut bench, &pairs, &truth)?, expected);
    }

    #[test]
    fn arbitrary_octets_do_no_harm(
        fresh: bool,
        steps in proptest::collection::vec((any::<bool>(), 0usize..14, any::<u16>(), 0u64..40), 0..200),
    ) {
        const WORDS: [&[u8]; 12] = [
            b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"\r\n", b"Content-Length: 7\r\n\r\n", b"HEAD /x HTTP/1.0\n\n",
            b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n", b"\0\xff", b"HTTP/1.1 100 C\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"x",
        ];
        let mut bench = bench(fresh);
        for (way, what, number, missing) in steps {
            let direction = if way { Q } else { R };
            bench.at += u64::from(number) * MS / 1000;
            match WORDS.get(what) {
                Some(word) => {
                    let missing = if missing < 30 { 0 } else { missing };
                    bench.at(direction, bench.at, word, missing, &word[..word.len().min(missing as usize)]);
                }
                None if number % 5 == 0 => _ = bench.end(direction),
                None => _ = bench.gap(direction, (number % 2 == 0).then_some(missing)),
            }
            let _ = bench.follower.want(direction);
        }
        bench.close(End::Closed).lines();
        prop_assert_eq!(bench.follower.outstanding(), 0);
    }
}
