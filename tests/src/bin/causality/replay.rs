//! Replays a set of recorded traces through the module as an observer of sockets would have seen them, and scores.
//!
//! # What is fed
//! Events of each process (a service stands for one), in order of time over all traces of the set, without any fact
//! about threads. The recorded parents are used only to build what a socket shows, and to score:
//!
//! - A client span is an outgoing call of its service. A server span below it is the other end of that call: their
//!   being a pair is known (two ends of one connection), each has the times of its own host.
//! - A span without a client span above it, in another service than its parent, was recorded at the callee only. It
//!   stands for both ends: an incoming request of its service and an outgoing call of the parent's service, with the
//!   same times.
//! - A span in the service of its parent, without kind and without spans below it, is a call to something that was not
//!   recorded (a store): an outgoing call, and nothing that could have caused another one.
//! - A span in the service of its parent with spans below it is local: it did not cross a socket. It is never fed as a
//!   call. The innermost local span stands for the request that it is part of, with its own times, and the wrappers
//!   around it are left out, as TraceWeaver does (nginx in the media sets, whose outermost spans have times in whole
//!   milliseconds). With `--sockets-only` local spans are left out instead, and the request has the outermost times.
//! - A root is an incoming request, or an outgoing call with no cause when its kind is client.
//!
//! That a span has none below it is thus the one thing taken from the answer: it replaces the address of the store,
//! which an observer of sockets has and the sets have not.
//!
//! The operation of a call is (callee's service, name), that of a request (caller's service, name). Where times are
//! equal, outer spans begin before inner ones and end after them, by their durations; what is still equal is ordered by
//! a hash, so that the order of the file tells nothing.
//!
//! A call that no request caused is a root of kind client. An optional field `thread` (a number) of a span is fed with it.
//!
//! # Score
//! A trace is exact when each of its outgoing calls was given the request that caused it. Pairs are known and local
//! spans are unseen, so they cannot be wrong. `wrong_parent` and `no_parent` are shares of all spans, and of those that
//! are no roots. `exact_as_published` leaves out what TraceWeaver's own code leaves out: calls to stores, and calls made
//! by services that several other services call (compose-review-service in the media sets).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Instant;

use flate2::read::MultiGzDecoder;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use serde::Deserialize;
use std::hash::{Hash, Hasher};

use crate::causality::{Causality, Facts, Incoming, Link, Outgoing, Settings};

#[derive(Deserialize)]
struct Span {
    id: String,
    parent: String,
    service: String,
    #[serde(default)]
    kind: String,
    op: String,
    start: i64,
    end: i64,
    /// The thread of its system calls, where it was recorded.
    #[serde(default)]
    thread: Option<u32>,
}

#[derive(Deserialize)]
struct Trace {
    #[serde(default)]
    trace: String,
    spans: Vec<Span>,
}

/// One step that a socket shows. Spans are named by their place in the set.
#[derive(Clone, Copy)]
enum Step {
    Incoming { process: u32, operation: u32 },
    Answered,
    Outgoing { process: u32, operation: u32 },
    Returned,
}

struct Timed {
    at: u64,
    span: u64,
    step: Step,
    thread: Option<u32>,
}

/// The answer for an outgoing call.
struct Truth {
    trace: usize,
    /// The request that caused it.
    cause: Option<u64>,
    /// It counts in the published figures of TraceWeaver too.
    published: bool,
}

/// A set ready to be replayed, with the answer.
pub struct Set {
    name: String,
    traces: usize,
    spans: usize,
    roots: usize,
    steps: Vec<Timed>,
    /// For each span that is an outgoing call.
    truth: FxHashMap<u64, Truth>,
    /// Of spans, to show errors.
    names: Vec<String>,
    /// Of traces: what their id says before the last `-`.
    parts: Vec<String>,
}

#[derive(Default)]
struct Numbers(FxHashMap<(String, String), u32>);

impl Numbers {
    fn of(&mut self, one: &str, two: &str) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry((one.to_owned(), two.to_owned())).or_insert(next)
    }
}

/// Order among equal times: ends, inner spans first; then begins, outer spans first.
type SortKey = (u64, u8, u64, u64, u8);

impl Set {
    pub fn read(path: &Path, sockets_only: bool) -> Result<Self, Box<dyn std::error::Error>> {
        let file = File::open(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let input: Box<dyn Read> =
            if name.ends_with(".gz") { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let name = name.trim_end_matches(".gz").trim_end_matches(".jsonl").to_owned();
        let mut traces = Vec::new();
        for line in BufReader::new(input).lines() {
            let line = line?;
            if !line.trim().is_empty() {
                traces.push(serde_json::from_str::<Trace>(&line)?);
            }
        }
        Ok(Self::new(name, &traces, sockets_only))
    }

    fn new(name: String, traces: &[Trace], sockets_only: bool) -> Self {
        let first = traces.iter().flat_map(|trace| &trace.spans).map(|span| span.start).min().unwrap_or(0);
        let mut set = Self {
            name,
            traces: traces.len(),
            spans: 0,
            roots: 0,
            steps: Vec::new(),
            truth: FxHashMap::default(),
            names: Vec::new(),
            parts: traces.iter().map(|trace| part(&trace.trace)).collect(),
        };
        let callers = callers(traces);
        let mut steps: Vec<(SortKey, Timed)> = Vec::new();
        let (mut processes, mut operations) = (Numbers::default(), Numbers::default());
        for (number, trace) in traces.iter().enumerate() {
            let base = set.spans as u64;
            set.spans += trace.spans.len();
            let places: FxHashMap<&str, usize> =
                trace.spans.iter().enumerate().map(|(place, span)| (span.id.as_str(), place)).collect();
            let parent_of = |place: usize| {
                let parent = *places.get(trace.spans[place].parent.as_str())?;
                (parent != place).then_some(parent)
            };
            let mut has_children = vec![false; trace.spans.len()];
            (0..trace.spans.len()).filter_map(parent_of).for_each(|parent| has_children[parent] = true);
            let is_local = |place: usize| {
                let span = &trace.spans[place];
                let inside = parent_of(place).is_some_and(|parent| trace.spans[parent].service == span.service);
                inside && span.kind != "client" && span.kind != "server" && has_children[place]
            };
            // Wrappers around local spans that make no call themselves.
            let mut wraps: Vec<bool> = has_children.clone();
            for place in 0..trace.spans.len() {
                if let Some(parent) = parent_of(place)
                    && !is_local(place)
                {
                    wraps[parent] = false;
                }
            }
            // The request that a span is part of, upwards through local spans.
            let request_of = |place: usize| {
                let mut up = parent_of(place);
                while let Some(place) = up.filter(|&place| sockets_only && is_local(place)) {
                    up = parent_of(place);
                }
                up
            };
            for (place, span) in trace.spans.iter().enumerate() {
                let parent = parent_of(place);
                set.names.push(format!("{}:{} {}-{}", span.service, span.op, span.start - first, span.end - first));
                set.roots += usize::from(parent.is_none());
                if (is_local(place) && sockets_only) || (wraps[place] && !sockets_only) {
                    continue;
                }
                let above = parent.map(|parent| &trace.spans[parent]);
                let paired = span.kind == "server" && above.is_some_and(|above| above.kind == "client");
                let inside = above.is_some_and(|above| above.service == span.service);
                let is_call = span.kind == "client" || (above.is_some() && !paired && !is_local(place));
                let is_request = span.kind == "server" || (span.kind != "client" && (!inside || is_local(place)));
                let caller = above.map_or("", |above| above.service.as_str());
                let (id, thread) = (base + place as u64, span.thread);
                let mut hasher = FxHasher::default();
                (number, &span.id, "tie").hash(&mut hasher);
                let tie = hasher.finish();
                let (start, end) = ((span.start - first) as u64, (span.end.max(span.start) - first) as u64);
                let length = end - start;
                let begin = |order: u8, step| {
                    ((start, 1, u64::MAX - length, tie, order), Timed { at: start * 1000, span: id, step, thread })
                };
                // The end of a span without duration comes after its beginning, so among the beginnings.
                let finish = |order: u8, step| {
                    let class = u8::from(length == 0);
                    let inner_first = if length == 0 { u64::MAX } else { length };
                    ((end, class, inner_first, tie, order), Timed { at: end * 1000, span: id, step, thread })
                };
                let own_callers = if span.kind == "client" { &span.service } else { caller };
                let one_caller = callers.get(own_callers).is_none_or(|callers| callers.len() < 2);
                if is_call {
                    let process = processes.of(if span.kind == "client" { &span.service } else { caller }, "");
                    let callee = (0..trace.spans.len())
                        .find(|&below| span.kind == "client" && parent_of(below) == Some(place))
                        .map_or(span.service.as_str(), |below| trace.spans[below].service.as_str());
                    let operation = operations.of(callee, &span.op);
                    steps.push(begin(0, Step::Outgoing { process, operation }));
                    steps.push(finish(3, Step::Returned));
                    let cause = request_of(place).map(|cause| base + cause as u64);
                    set.truth.insert(
                        id,
                        Truth {
                            trace: number,
                            cause,
                            published: cause.is_some() && (span.kind == "client" || !inside) && one_caller,
                        },
                    );
                }
                if is_request {
                    let (process, operation) = (processes.of(&span.service, ""), operations.of(caller, &span.op));
                    steps.push(begin(1, Step::Incoming { process, operation }));
                    steps.push(finish(2, Step::Answered));
                }
            }
        }
        steps.sort_by_key(|step| step.0);
        set.steps = steps.into_iter().map(|step| step.1).collect();
        set
    }

    /// Feeds all steps to the module and collects its links, and the seconds it took.
    fn replay(&self, settings: Settings) -> (Vec<Link>, f64, Causality) {
        let mut causality = Causality::new(settings);
        let mut links = Vec::with_capacity(self.truth.len());
        let began = Instant::now();
        let mut polled = 0;
        for &Timed { at, span, step, thread } in &self.steps {
            let facts = Facts { thread, ..Facts::default() };
            match step {
                Step::Incoming { process, operation } => {
                    causality.incoming(Incoming { id: span, process, operation, at, facts });
                }
                Step::Outgoing { process, operation } => {
                    causality.outgoing(Outgoing { id: span, process, operation, at, facts });
                }
                Step::Answered => causality.answered(span, at),
                Step::Returned => causality.returned(span, at),
            }
            if at > polled + 20_000_000 {
                polled = at;
                causality.poll(at, &mut links);
            }
        }
        causality.finish(&mut links);
        (links, began.elapsed().as_secs_f64(), causality)
    }
}

/// By service: the other services whose calls it serves.
fn callers(traces: &[Trace]) -> FxHashMap<&str, FxHashSet<&str>> {
    let mut callers: FxHashMap<&str, FxHashSet<&str>> = FxHashMap::default();
    for trace in traces {
        let services: FxHashMap<&str, &str> =
            trace.spans.iter().map(|span| (span.id.as_str(), span.service.as_str())).collect();
        for span in &trace.spans {
            if let Some(&caller) = services.get(span.parent.as_str())
                && caller != span.service
            {
                callers.entry(&span.service).or_default().insert(caller);
            }
        }
    }
    callers
}

/// The part of a set that a trace belongs to: what its id says before the last `-` ("c50-17": fifty at once).
fn part(trace: &str) -> String {
    trace.rsplit_once('-').map_or_else(String::new, |(part, _)| part.to_owned())
}

/// How many links of a part of the set there are, with a wrong parent, and without the parent they should have.
#[derive(Default)]
struct Part {
    links: usize,
    wrong: usize,
    none: usize,
    /// Wrong ones by method, and those of them with a confidence above 0.9.
    methods: BTreeMap<String, (usize, usize)>,
}

impl Part {
    fn add(&mut self, link: &Link, cause: Option<u64>) {
        self.links += 1;
        if link.parent == cause {
            return;
        }
        if link.parent.is_none() {
            self.none += 1;
            return;
        }
        self.wrong += 1;
        let method = self.methods.entry(format!("{:?}", link.method)).or_default();
        method.0 += 1;
        method.1 += usize::from(link.confidence > 0.9);
    }
}

/// Replays a set and gives its line of JSON. With `parts`, the figures of its parts ([`part`]) are written to standard
/// error. With `errors`, each wrong or missing link is written to standard
/// error, and how often links of each confidence are right.
pub fn measure(set: &Set, errors: bool, parts: bool) -> String {
    let (links, seconds, causality) = set.replay(Settings::default());
    let (mut wrong, mut none) = (0usize, 0usize);
    let mut exact = vec![true; set.traces];
    let mut exact_as_published = vec![true; set.traces];
    let mut by_part: BTreeMap<&str, Part> = BTreeMap::new();
    let mut calibration = [(0u32, 0u32); 12];
    for link in &links {
        let Some(truth) = set.truth.get(&link.child) else { continue };
        by_part.entry(&set.parts[truth.trace]).or_default().add(link, truth.cause);
        if link.parent.is_some() {
            // Tenths, and what is above 0.99 and 0.999 apart.
            let above = usize::from(link.confidence > 0.99) + usize::from(link.confidence > 0.999);
            let bin = &mut calibration[((link.confidence * 10.0) as usize).min(9) + above];
            *bin = (bin.0 + 1, bin.1 + u32::from(link.parent == truth.cause));
        }
        if link.parent == truth.cause {
            continue;
        }
        exact[truth.trace] = false;
        exact_as_published[truth.trace] &= !truth.published;
        wrong += usize::from(link.parent.is_some());
        none += usize::from(link.parent.is_none());
        if errors {
            let name = |id: Option<u64>| id.and_then(|id| set.names.get(id as usize)).map_or("nothing", String::as_str);
            let (child, found, wanted) = (name(Some(link.child)), name(link.parent), name(truth.cause));
            let (trace, method, confidence) = (truth.trace, link.method, link.confidence);
            eprintln!("{trace} {method:?} {confidence:.3} | {child} | found {found} | caused by {wanted}");
        }
    }
    for (name, part) in by_part.iter().filter(|_| parts) {
        let (wrong, none) = (100.0 * share(part.wrong, part.links), 100.0 * share(part.none, part.links));
        let (set, links, methods) = (&set.name, part.links, &part.methods);
        eprintln!("{set} {name}: {links} links, {wrong:.2} % wrong, {none:.2} % none {methods:?}");
    }
    if errors {
        eprintln!("{:?}", causality.stats());
        eprintln!("confidence by tenths, above 0.99, above 0.999: (links, right) {calibration:?}");
    }
    let whole = |exact: &[bool]| share(exact.iter().filter(|exact| **exact).count(), set.traces);
    serde_json::json!({
        "set": set.name,
        "traces": set.traces,
        "spans": set.spans,
        "exact": whole(&exact),
        "exact_as_published": whole(&exact_as_published),
        "wrong_parent": share(wrong, set.spans),
        "no_parent": share(none, set.spans - set.roots),
        "spans_per_second": (set.spans as f64 / seconds).round(),
    })
    .to_string()
}

/// Rounded to a hundred-thousandth.
fn share(part: usize, whole: usize) -> f64 {
    (part as f64 / whole.max(1) as f64 * 1e5).round() / 1e5
}
