//! How right traces are: spans against the truth that their requests carry (see [`crate::mesh`]).
//!
//! The right parent of a client span is the server span of the request that caused it; of a server span, the client
//! span of the same request. Where there is no such span, no parent is right and any is wrong; only of a server span whose
//! parent never came out nothing can be said: it may be the client span of a call that the end of the run cut off.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::AddAssign;

use crate::span::{CLIENT, SERVER, Span, Value};

pub(crate) const TRUTH: &str = "http.request.header.x-truth";
const PARENT: &str = "http.request.header.x-truth-parent";
const METHOD: &str = "remora.link.method";
/// Wrong links that are kept to be looked at.
const KEPT: usize = 1000;

/// Methods that prove a parent instead of estimating it.
pub const EXACT: [&str; 7] = ["context", "socket", "request_id", "target", "coroutine", "thread", "born_in"];

/// Spans and their parents, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub spans: usize,
    /// With the right parent, or rightly without one.
    pub right: usize,
    pub wrong: usize,
    /// Without a parent though there is one.
    pub none: usize,
    /// With a parent that never came out.
    pub cut_off: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.spans += other.spans;
        self.right += other.right;
        self.wrong += other.wrong;
        self.none += other.none;
        self.cut_off += other.cut_off;
    }
}

impl Tally {
    /// `count` in percent of all spans.
    #[must_use]
    pub fn percent(&self, count: usize) -> f64 {
        100.0 * count as f64 / self.spans.max(1) as f64
    }
}

/// A parent that is not the right one.
#[derive(Clone, Debug)]
pub struct Wrong {
    pub service: String,
    pub method: String,
    pub confidence: f64,
    pub truth: String,
    /// The truth of the parent it has; `?` when no such span came out.
    pub has: String,
    pub should: Option<String>,
    pub name: String,
}

/// What an evaluation found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By the process that a span is of: server and client spans.
    pub services: BTreeMap<String, Tally>,
    /// By `remora.link.method`; `none` where there is no parent.
    pub methods: BTreeMap<String, Tally>,
    pub all: Tally,
    /// Root requests, and those all of whose spans are in one trace of their own with the right parents.
    pub traces: usize,
    pub whole: usize,
    /// Root requests whose spans are not complete, and how many of how many there are.
    pub incomplete: Vec<(String, usize, usize)>,
    /// Spans in the largest trace.
    pub largest: usize,
    /// Wrong parents by service and method.
    pub blame: BTreeMap<(String, String), usize>,
    /// Some of them.
    pub wrong: Vec<Wrong>,
}

impl Report {
    #[must_use]
    pub fn whole_percent(&self) -> f64 {
        100.0 * self.whole as f64 / self.traces.max(1) as f64
    }

    /// Wrong parents under methods that prove.
    #[must_use]
    pub fn wrong_by_proof(&self) -> usize {
        EXACT.iter().filter_map(|method| self.methods.get(*method)).map(|tally| tally.wrong).sum()
    }
}

/// Evaluates the spans of the requests that were sent: the truth of each, and how many spans it must have. `services`
/// names server ports. All spans of the run must be given, as parents are looked for among all of them; `counted` tells
/// by the truth which are counted.
pub fn evaluate(
    spans: &[Span],
    services: &HashMap<u16, &str>,
    requests: &[(String, usize)],
    counted: impl Fn(&str) -> bool,
) -> Report {
    let index = Index::new(spans, services);
    let mut report = Report::default();
    let mut roots: HashMap<&str, Root> = HashMap::new();
    for span in spans {
        let Some(truth) = header(span, TRUTH).filter(|truth| counted(truth)) else { continue };
        let verdict = index.judge(span, truth);
        let tally = Tally {
            spans: 1,
            right: usize::from(verdict == Verdict::Right),
            wrong: usize::from(verdict == Verdict::Wrong),
            none: usize::from(verdict == Verdict::None),
            cut_off: usize::from(verdict == Verdict::CutOff),
        };
        let service = index.service(span);
        let method = span.str(METHOD).unwrap_or("none");
        report.all += tally;
        *report.services.entry(service.clone()).or_default() += tally;
        *report.methods.entry(method.to_owned()).or_default() += tally;
        if verdict == Verdict::Wrong {
            *report.blame.entry((service.clone(), method.to_owned())).or_default() += 1;
            if report.wrong.len() < KEPT {
                report.wrong.push(index.wrong(span, truth, service));
            }
        }
        let root = roots.entry(truth.split('.').next().unwrap_or(truth)).or_default();
        root.traces.insert(&span.trace_id);
        root.seen.insert((truth, span.kind));
        root.spans += 1;
        root.not_right += usize::from(verdict != Verdict::Right);
    }
    report.traces = requests.len();
    for (truth, expected) in requests {
        let root = roots.remove(truth.as_str()).unwrap_or_default();
        if root.spans != *expected || root.seen.len() != *expected {
            report.incomplete.push((truth.clone(), root.spans, *expected));
        } else if root.not_right == 0
            && root.traces.iter().all(|&trace| root.traces.len() == 1 && index.size(trace) == *expected)
        {
            report.whole += 1;
        }
    }
    report.largest = index.sizes.values().copied().max().unwrap_or(0);
    report
}

#[derive(Default)]
struct Root<'a> {
    traces: HashSet<&'a str>,
    seen: HashSet<(&'a str, i32)>,
    spans: usize,
    not_right: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Right,
    Wrong,
    None,
    CutOff,
}

struct Index<'a> {
    by_id: HashMap<&'a str, &'a Span>,
    /// Span ids by kind and truth.
    by_truth: HashMap<(i32, &'a str), &'a str>,
    /// The service that a process is, by the port it serves on.
    by_pid: HashMap<i64, &'a str>,
    /// Spans of each trace.
    sizes: HashMap<&'a str, usize>,
}

impl<'a> Index<'a> {
    fn new(spans: &'a [Span], services: &HashMap<u16, &'a str>) -> Self {
        let mut index =
            Self { by_id: HashMap::new(), by_truth: HashMap::new(), by_pid: HashMap::new(), sizes: HashMap::new() };
        for span in spans {
            index.by_id.insert(&span.span_id, span);
            *index.sizes.entry(&span.trace_id).or_default() += 1;
            if let Some(truth) = header(span, TRUTH) {
                index.by_truth.insert((span.kind, truth), &span.span_id);
            }
            let port = span.int("server.port").and_then(|port| u16::try_from(port).ok());
            if let (SERVER, Some(pid), Some(service)) =
                (span.kind, span.pid(), port.and_then(|port| services.get(&port)))
            {
                index.by_pid.insert(pid, service);
            }
        }
        index
    }

    fn size(&self, trace: &str) -> usize {
        self.sizes.get(trace).copied().unwrap_or(0)
    }

    /// The service whose process the span is of. What it does without being asked counts apart, as its truth says.
    fn service(&self, span: &Span) -> String {
        let name = span.pid().and_then(|pid| self.by_pid.get(&pid)).copied().unwrap_or("load");
        let own = span.kind == CLIENT && name != "load" && header(span, PARENT).is_none();
        if own { format!("{name}, background") } else { name.to_owned() }
    }

    fn right_parent(&self, span: &Span, truth: &str) -> Option<&'a str> {
        if span.kind == SERVER {
            self.by_truth.get(&(CLIENT, truth)).copied()
        } else {
            header(span, PARENT).and_then(|parent| self.by_truth.get(&(SERVER, parent)).copied())
        }
    }

    fn judge(&self, span: &Span, truth: &str) -> Verdict {
        match (self.right_parent(span, truth), span.parent_span_id.as_str()) {
            (None, "") => Verdict::Right,
            (Some(_), "") => Verdict::None,
            (Some(right), parent) if right == parent => Verdict::Right,
            (None, parent) if span.kind == SERVER && !self.by_id.contains_key(parent) => Verdict::CutOff,
            _ => Verdict::Wrong,
        }
    }

    fn wrong(&self, span: &Span, truth: &str, service: String) -> Wrong {
        let truth_of = |id: &str| self.by_id.get(id).and_then(|span| header(span, TRUTH)).map(ToOwned::to_owned);
        Wrong {
            service,
            method: span.str(METHOD).unwrap_or("none").to_owned(),
            confidence: match span.attributes.get("remora.link.confidence") {
                Some(Value::Double(confidence)) => *confidence,
                Some(Value::Int(confidence)) => *confidence as f64,
                _ => f64::NAN,
            },
            truth: truth.to_owned(),
            has: truth_of(&span.parent_span_id).unwrap_or_else(|| "?".to_owned()),
            should: self.right_parent(span, truth).and_then(truth_of),
            name: span.target().unwrap_or_default(),
        }
    }
}

/// The value of a captured header: a list of one.
pub(crate) fn header<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    match span.attributes.get(key)? {
        Value::Str(value) => Some(value),
        Value::Array(values) => match values.first()? {
            Value::Str(value) => Some(value),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Attributes;

    /// A span of process `pid`, whose requests go to port 8000 + `to`. Its id is its kind and truth.
    fn span(kind: i32, pid: i64, to: i64, truth: &str, caused_by: Option<&str>, parent: &str) -> Span {
        let mut attributes = Attributes::new();
        let list = |value: &str| Value::Array(vec![Value::Str(value.to_owned())]);
        attributes.insert(TRUTH.to_owned(), list(truth));
        if let Some(parent) = caused_by {
            attributes.insert(PARENT.to_owned(), list(parent));
        }
        attributes.insert("server.port".to_owned(), Value::Int(8000 + to));
        if !parent.is_empty() {
            let method = if kind == SERVER { "socket" } else { "delay" };
            attributes.insert(METHOD.to_owned(), Value::Str(method.to_owned()));
        }
        Span {
            trace_id: truth.split('.').next().unwrap_or_default().to_owned(),
            span_id: format!("{kind}{truth}"),
            parent_span_id: parent.to_owned(),
            trace_state: String::new(),
            links: Vec::new(),
            flags: 0,
            name: String::new(),
            kind,
            start: 0,
            end: 1,
            status: 0,
            attributes,
            resource: Attributes::from([("process.pid".to_owned(), Value::Int(pid))]),
        }
    }

    /// Load (process 1) calls a (2), which calls b (3).
    fn request(truth: &str) -> Vec<Span> {
        let on = format!("{truth}.1");
        vec![
            span(CLIENT, 1, 2, truth, None, ""),
            span(SERVER, 2, 2, truth, None, &format!("3{truth}")),
            span(CLIENT, 2, 3, &on, Some(truth), &format!("2{truth}")),
            span(SERVER, 3, 3, &on, Some(truth), &format!("3{on}")),
        ]
    }

    fn report(spans: &[Span], requests: &[&str]) -> Report {
        let services = HashMap::from([(8002, "a"), (8003, "b")]);
        let requests: Vec<_> = requests.iter().map(|truth| ((*truth).to_owned(), 4)).collect();
        evaluate(spans, &services, &requests, |_| true)
    }

    #[test]
    fn all_right() {
        let spans = [request("r"), request("s")].concat();
        let report = report(&spans, &["r", "s"]);
        assert_eq!(report.all, Tally { spans: 8, right: 8, ..Tally::default() });
        assert_eq!((report.traces, report.whole, report.largest), (2, 2, 4));
        assert_eq!(report.services["a"].spans, 4);
        assert_eq!(report.services["load"].spans, 2);
        assert_eq!(report.methods["delay"].right, 2);
        assert!(report.incomplete.is_empty() && report.wrong.is_empty());
    }

    #[test]
    fn a_parent_of_another_request_is_wrong() {
        let mut spans = [request("r"), request("s")].concat();
        spans[2].parent_span_id = "2s".to_owned();
        spans[2].trace_id = "s".to_owned();
        spans[3].trace_id = "s".to_owned();
        let report = report(&spans, &["r", "s"]);
        assert_eq!(report.services["a"], Tally { spans: 4, right: 3, wrong: 1, ..Tally::default() });
        assert_eq!(report.services["b"].wrong, 0, "its parent is right though its trace is not");
        assert_eq!(report.methods["delay"].wrong, 1);
        assert_eq!(report.whole, 0, "neither of the two is whole: one lacks spans, the other has too many");
        assert_eq!((report.wrong[0].has.as_str(), report.wrong[0].should.as_deref()), ("s", Some("r")));
        assert_eq!(report.blame, BTreeMap::from([(("a".to_owned(), "delay".to_owned()), 1)]));
        assert_eq!(report.wrong_by_proof(), 0);
    }

    #[test]
    fn no_parent_is_not_a_wrong_one() {
        let mut spans = request("r");
        spans[2].parent_span_id.clear();
        let report = report(&spans, &["r"]);
        assert_eq!((report.all.wrong, report.all.none, report.whole), (0, 1, 0));
    }

    #[test]
    fn without_its_clients_span_a_server_span_is_a_root() {
        let spans = request("r").split_off(1);
        let all = report(&spans, &["r"]).all;
        assert_eq!((all.wrong, all.cut_off), (0, 1), "its parent is a span that nobody has seen");
        let mut spans = spans;
        spans[0].parent_span_id = "2r.1".to_owned();
        assert_eq!(report(&spans, &["r"]).all.wrong, 1);
        spans[0].parent_span_id.clear();
        let report = report(&spans, &["r"]);
        assert_eq!(report.all.right, 3);
        assert_eq!(report.incomplete, [("r".to_owned(), 3, 4)]);
    }

    #[test]
    fn a_span_that_comes_twice_does_not_stand_for_one_that_is_missing() {
        let mut spans = request("r");
        spans[3] = spans[2].clone();
        assert_eq!(report(&spans, &["r"]).incomplete.len(), 1);
    }

    #[test]
    fn calls_of_its_own_have_no_parent() {
        let mut spans = request("r");
        spans.push(span(CLIENT, 2, 3, "a_background-0", None, ""));
        spans.push(span(CLIENT, 2, 3, "a_background-1", None, "2r"));
        let report = report(&spans, &["r"]);
        assert_eq!(report.services["a, background"], Tally { spans: 2, right: 1, wrong: 1, ..Tally::default() });
    }
}
