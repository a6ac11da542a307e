//! Comparing spans with what clients and servers say they did.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::span::{CLIENT, ERROR, SERVER, Span};
use crate::truth::Exchange;

/// From so many times on, two of them may lie outside.
const FEW: usize = 10;
/// How many differences of a kind are shown.
const SHOWN: usize = 12;

/// How close a span's times must be to those of a log.
///
/// A log's time is taken in the process, before or after the system call; when the scheduler takes the processor away in
/// between, the two differ although both are right. So a share may be outside, but never beyond the second bound.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub within: Duration,
    /// The share of times that must be within, 0 to 1.
    pub share: f64,
    pub never_beyond: Duration,
    /// What must have been first by the log's own meaning was first by the span, always: a client sends after it has
    /// noted the start, a server notes it after it has read, and both note the end after the last octet.
    pub in_order: bool,
}

/// Clocks are compared by way of two readings each; within this, first and second are the same.
const SAME: u64 = 300_000;

impl Clock {
    /// The promise: within 1 ms of the log. The share leaves room for a machine whose processors others use as well.
    pub const EXACT: Self = Self {
        within: Duration::from_millis(1),
        share: 0.95,
        never_beyond: Duration::from_millis(100),
        in_order: true,
    };
    /// The same for a log whose start is reckoned back from the end and a duration (curl): the order says nothing.
    pub const RECKONED: Self = Self { in_order: false, ..Self::EXACT };
    /// For a log with whole milliseconds of a clock that is read now and then (nginx).
    pub const MILLISECONDS: Self = Self {
        within: Duration::from_millis(3),
        share: 0.9,
        never_beyond: Duration::from_millis(100),
        in_order: false,
    };
    /// For a log whose start lies before a look-up, a queue or a framework's own work.
    pub const LOOSE: Self = Self {
        within: Duration::from_millis(20),
        share: 0.9,
        never_beyond: Duration::from_millis(500),
        in_order: false,
    };
    /// For a log whose times say something else than the span's: the order of start and end only.
    pub const NONE: Self = Self { within: Duration::MAX, share: 1.0, never_beyond: Duration::MAX, in_order: false };
}

/// Spans and log differ in nothing but how far apart their times are.
#[derive(Debug)]
pub struct Apart(String);

impl std::fmt::Display for Apart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Apart {}

/// Repeats a run, three times at most, while times are all that is wrong: a machine that was busy with something else
/// sets a few of them apart, a fault does so every time.
pub fn undisturbed(mut run: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..2 {
        match run() {
            Err(error) if error.downcast_ref::<Apart>().is_some() => {
                eprintln!("again, since only times are apart: {error:#}");
            }
            done => return done,
        }
    }
    run()
}

/// One side's exchanges.
pub struct Side<'a> {
    pub kind: i32,
    pub truth: &'a [Exchange],
    pub port: u16,
    pub start: Clock,
    pub end: Clock,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Compare `process.pid`.
    pub pid: bool,
    /// Compare the response's status and size; false where the observer cannot see them (a client that reads by splice).
    pub response: bool,
    /// Sizes of content may be unknown: of chunked content of which not all was captured.
    pub unsized_bodies: bool,
    /// Exchanges may lack a span, and spans may lack values, but what is there must be right: for lossy capture.
    pub lossy: bool,
}

impl<'a> Side<'a> {
    #[must_use]
    pub fn new(kind: i32, truth: &'a [Exchange], port: u16) -> Self {
        Self {
            kind,
            truth,
            port,
            start: Clock::EXACT,
            end: Clock::EXACT,
            scheme: "http",
            pid: true,
            response: true,
            unsized_bodies: false,
            lossy: false,
        }
    }

    #[must_use]
    pub fn client(truth: &'a [Exchange], port: u16) -> Self {
        Self::new(CLIENT, truth, port)
    }

    #[must_use]
    pub fn server(truth: &'a [Exchange], port: u16) -> Self {
        Self::new(SERVER, truth, port)
    }

    #[must_use]
    pub fn clocks(mut self, start: Clock, end: Clock) -> Self {
        (self.start, self.end) = (start, end);
        self
    }

    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.scheme = "https";
        self
    }

    #[must_use]
    pub fn without_pid(mut self) -> Self {
        self.pid = false;
        self
    }

    #[must_use]
    pub fn unsized_bodies(mut self) -> Self {
        self.unsized_bodies = true;
        self
    }

    #[must_use]
    pub fn lossy(mut self) -> Self {
        self.lossy = true;
        self
    }

    #[must_use]
    pub fn without_response(mut self) -> Self {
        self.response = false;
        self
    }
}

/// Exactly one span per exchange of each side, with the right values, and no span besides. The error lists what differs.
pub fn expect_pairs(sides: &[Side<'_>], spans: &[Span]) -> Result<()> {
    let mut report = Report::default();
    let mut left: BTreeMap<Key, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        left.entry(Key::of_span(span)).or_default().push(span);
    }
    for group in left.values_mut() {
        group.sort_by_key(|span| std::cmp::Reverse(span.start));
    }
    for side in sides {
        let mut truth: Vec<_> = side.truth.iter().collect();
        truth.sort_by_key(|exchange| exchange.start);
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for exchange in truth {
            let key = Key::of_exchange(side, exchange);
            match left.get_mut(&key).and_then(Vec::pop) {
                None if side.lossy => {}
                None => report.missing.push(format!("{key}")),
                Some(span) => {
                    compare(side, exchange, span, &mut report, &key);
                    let (first, second) =
                        if side.kind == CLIENT { (exchange.start, span.start) } else { (span.start, exchange.start) };
                    report.order("start", side.start, first, second, &key);
                    report.order("end", side.end, span.end, exchange.end, &key);
                    starts.push((span.start.abs_diff(exchange.start), key.to_string()));
                    ends.push((span.end.abs_diff(exchange.end), key.to_string()));
                }
            }
        }
        report.times("start", side.kind, side.start, starts);
        report.times("end", side.kind, side.end, ends);
    }
    for (key, spans) in left {
        report
            .extra
            .extend(spans.iter().map(|span| format!("{key} status {:?} pid {:?}", span.status_code(), span.pid())));
    }
    report.verdict(sides, spans)
}

/// What a span and an exchange have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: i32,
    port: i64,
    method: String,
    target: String,
}

impl Key {
    fn of_span(span: &Span) -> Self {
        Self {
            kind: span.kind,
            // A server behind a proxy is asked for by another name: the socket's own end is what is compared.
            port: span.int(if span.kind == CLIENT { "network.peer.port" } else { "network.local.port" }).unwrap_or(-1),
            method: span.method().unwrap_or("-").to_owned(),
            target: span.target().unwrap_or_else(|| "-".to_owned()),
        }
    }

    fn of_exchange(side: &Side<'_>, exchange: &Exchange) -> Self {
        Self {
            kind: side.kind,
            port: side.port.into(),
            method: exchange.method.clone(),
            target: exchange.target.clone(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {} on port {}", kind_name(self.kind), self.method, self.target, self.port)
    }
}

const fn kind_name(kind: i32) -> &'static str {
    match kind {
        SERVER => "server",
        CLIENT => "client",
        _ => "other",
    }
}

/// Compares everything but the times.
fn compare(side: &Side<'_>, exchange: &Exchange, span: &Span, report: &mut Report, key: &Key) {
    let mut differs = |what: &str, found: String, expected: String| {
        if found != expected {
            report.wrong.push(format!("{key}: {what} is {found}, expected {expected}"));
        }
    };
    // A size of 0 need not be written.
    let size = |name: &str, expected: u64| {
        let found = span.int(name);
        let expected = i64::try_from(expected).ok();
        let found = if found.is_none() && (side.lossy || side.unsized_bodies || expected == Some(0)) {
            expected
        } else {
            found
        };
        (format!("{found:?}"), format!("{expected:?}"))
    };
    if side.pid {
        differs("process.pid", format!("{:?}", span.pid()), format!("{:?}", Some(i64::from(exchange.pid))));
    }
    differs("url.scheme", format!("{:?}", span.str("url.scheme")), format!("{:?}", Some(side.scheme)));
    differs("that start is not after end", (span.start <= span.end).to_string(), true.to_string());
    let name = span.name.split(' ').next().unwrap_or("");
    let known = span.str("http.request.method_original").is_none();
    differs("the name's method", name.to_owned(), if known { exchange.method.clone() } else { "HTTP".to_owned() });
    if !side.response || (side.lossy && span.status_code().is_none()) {
        return;
    }
    differs("status", format!("{:?}", span.status_code()), format!("{:?}", exchange.status.map(i64::from)));
    if exchange.error.is_some() {
        // How it failed is the matter of the test that made it fail.
        differs("the span's status code", span.status.to_string(), ERROR.to_string());
        return;
    }
    let (found, expected) = size("http.request.body.size", exchange.request_body);
    differs("http.request.body.size", found, expected);
    let (found, expected) = size("http.response.body.size", exchange.response_body);
    differs("http.response.body.size", found, expected);
    // HTTP spans, "Status": a server is not at fault for 4xx, a client's request has failed by it.
    let least = if side.kind == SERVER { 500 } else { 400 };
    let failed = exchange.status.filter(|status| *status >= least);
    differs(
        "error.type",
        format!("{:?}", span.str("error.type")),
        format!("{:?}", failed.map(|status| status.to_string()).as_deref()),
    );
    differs("the span's status code", span.status.to_string(), if failed.is_some() { ERROR } else { 0 }.to_string());
}

#[derive(Default)]
struct Report {
    missing: Vec<String>,
    extra: Vec<String>,
    wrong: Vec<String>,
    late: Vec<String>,
}

impl Report {
    fn order(&mut self, what: &str, clock: Clock, first: u64, second: u64, key: &Key) {
        if clock.in_order && first > second + SAME {
            let early = (first - second) / 1000;
            self.wrong.push(format!("{key}: the {what} is on the wrong side of the log's by {early} µs"));
        }
    }

    fn times(&mut self, what: &str, kind: i32, clock: Clock, mut apart: Vec<(u64, String)>) {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        apart.sort_unstable();
        let within = apart.iter().filter(|(apart, _)| *apart <= nanos(clock.within)).count();
        let kind = kind_name(kind);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few thousand"
        )]
        let outside = ((1.0 - clock.share) * apart.len() as f64) as usize;
        // Of few times, a share says little: two may lie outside.
        let outside = if apart.len() >= FEW { outside.max(2) } else { outside };
        if within + outside < apart.len() {
            let median = apart.get(apart.len() / 2).map_or(0, |(apart, _)| *apart / 1000);
            self.late.push(format!(
                "only {within} of {} {kind} spans have their {what} within {:?} of the log; the median is {median} µs apart",
                apart.len(),
                clock.within
            ));
        }
        for (apart, key) in apart.iter().rev().take_while(|(apart, _)| *apart > nanos(clock.never_beyond)) {
            self.late.push(format!("{key}: the {what} is {} ms from the log's", apart / 1_000_000));
        }
    }

    fn verdict(self, sides: &[Side<'_>], spans: &[Span]) -> Result<()> {
        let mut text = String::new();
        let parts = [
            ("exchanges without a span", &self.missing),
            ("spans without an exchange", &self.extra),
            ("wrong values", &self.wrong),
            ("wrong times", &self.late),
        ];
        for (what, lines) in parts.into_iter().filter(|(_, lines)| !lines.is_empty()) {
            writeln!(text, "{} {what}:", lines.len())?;
            for line in lines.iter().take(SHOWN) {
                writeln!(text, "  {line}")?;
            }
            if lines.len() > SHOWN {
                writeln!(text, "  … and {} more", lines.len() - SHOWN)?;
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        let planned: usize = sides.iter().map(|side| side.truth.len()).sum();
        let text = format!("{planned} exchanges on all sides, {} spans\n{text}", spans.len());
        if self.missing.is_empty() && self.extra.is_empty() && self.wrong.is_empty() {
            return Err(Apart(text).into());
        }
        bail!(text);
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::span::{Attributes, Value};

    const AT: u64 = 1_700_000_000_000_000_000;

    fn exchange(target: &str, status: u16) -> Exchange {
        Exchange {
            method: "GET".to_owned(),
            target: target.to_owned(),
            status: Some(status),
            request_body: 0,
            response_body: 5,
            start: AT,
            end: AT + 2_000_000,
            pid: 7,
            error: None,
        }
    }

    fn span(path: &str, query: &str, status: i64) -> Span {
        let text = |value: &str| Value::Str(value.to_owned());
        let attributes = [
            ("http.request.method", text("GET")),
            ("url.path", text(path)),
            ("url.query", text(query)),
            ("url.scheme", text("http")),
            ("http.response.status_code", Value::Int(status)),
            ("http.response.body.size", Value::Int(5)),
            ("network.local.port", Value::Int(80)),
        ];
        Span {
            trace_id: "1".repeat(32),
            span_id: "1".repeat(16),
            parent_span_id: String::new(),
            trace_state: String::new(),
            links: Vec::new(),
            flags: 0,
            name: "GET /a".to_owned(),
            kind: SERVER,
            start: AT + 1000,
            end: AT + 2_000_500,
            status: 0,
            attributes: attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            resource: Attributes::from([("process.pid".to_owned(), Value::Int(7))]),
        }
    }

    fn check(truth: &[Exchange], spans: &[Span]) -> String {
        expect_pairs(&[Side::server(truth, 80)], spans).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_same_is_the_same() {
        assert_eq!(check(&[exchange("/a?b=1", 200)], &[span("/a", "b=1", 200)]), "");
    }

    #[test]
    fn each_difference_is_told() {
        let truth = [exchange("/a?b=1", 200)];
        assert!(check(&truth, &[]).contains("1 exchanges without a span"));
        assert!(
            check(&truth, &[span("/a", "b=1", 200), span("/a", "b=1", 200)]).contains("1 spans without an exchange")
        );
        assert!(check(&truth, &[span("/a", "b=2", 200)]).contains("server GET /a?b=2 on port 80"));
        assert!(check(&truth, &[span("/a", "b=1", 201)]).contains("status is Some(201), expected Some(200)"));
        let changed = |change: fn(&mut Span)| {
            let mut span = span("/a", "b=1", 200);
            change(&mut span);
            check(&truth, &[span])
        };
        assert!(changed(|span| span.kind = CLIENT).contains("without a span"));
        assert!(changed(|span| span.start -= 5_000_000).contains("only 0 of 1"));
        assert!(changed(|span| span.end += 900_000_000).contains("900 ms from the log's"));
        assert!(changed(|span| span.start += 400_000).contains("start is on the wrong side"));
        assert!(changed(|span| span.end += 400_000).contains("end is on the wrong side"));
        assert!(changed(|span| span.status = ERROR).contains("the span's status code is 2, expected 0"));
        assert!(changed(|span| span.resource.clear()).contains("process.pid"));
        assert!(
            changed(|span| drop(span.attributes.remove("http.response.body.size"))).contains("None, expected Some(5)")
        );
        assert!(check(&[exchange("/a?b=1", 500)], &[span("/a", "b=1", 500)]).contains("error.type"));
    }

    #[test]
    fn only_times_apart_are_worth_another_run() {
        let truth = [exchange("/a", 200)];
        let runs = |change: fn(&mut Span)| {
            let mut runs = 0;
            let mut one = span("/a", "", 200);
            one.attributes.remove("url.query");
            change(&mut one);
            let result = undisturbed(|| {
                runs += 1;
                expect_pairs(&[Side::server(&truth, 80)], std::slice::from_ref(&one)).context("told with context")
            });
            (runs, result.is_ok())
        };
        assert_eq!(runs(|_| ()), (1, true));
        assert_eq!(runs(|span| span.start -= 5_000_000), (3, false));
        assert_eq!(runs(|span| span.start += 5_000_000), (1, false), "a server cannot start after its handler");
        assert_eq!(runs(|span| span.kind = CLIENT), (1, false));
    }

    #[test]
    fn lossy_forgives_what_is_missing_and_nothing_else() {
        let truth = [exchange("/a?b=1", 200), exchange("/a?b=2", 200)];
        let check = |spans: &[Span]| expect_pairs(&[Side::server(&truth, 80).lossy()], spans).is_ok();
        assert!(check(&[]) && check(&[span("/a", "b=1", 200)]));
        assert!(!check(&[span("/a", "b=1", 404)]) && !check(&[span("/a", "b=3", 200)]));
    }
}
