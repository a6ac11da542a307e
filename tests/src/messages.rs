//! How right the traces are that go on over the mesh's topic (see [`crate::topic`]).

use std::collections::HashMap;

use crate::accuracy::{TRUTH, Tally, header};
use crate::kafka::Record;
use crate::span::{CLIENT, CONSUMER, PRODUCER, SERVER, Span};
use crate::topic::SHIPPED;

/// Of each record: whether the span that sent it is below that of the order; the one that received it below, or linked with,
/// that one; the call that was made because of it below the one that received it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub records: usize,
    pub sent: Tally,
    pub received: Tally,
    /// Those received by a span that has links and no parent, since its records come from several.
    pub linked: usize,
    pub calls: Tally,
    /// Records all of whose spans are right and in the trace of the order, the answer to that call included.
    pub whole: usize,
    /// Spans with a wrong parent.
    pub wrong: Vec<Span>,
}

/// Evaluates the records whose key, the truth of the order, is `counted`. All spans of the run must be given.
#[must_use]
pub fn evaluate(spans: &[&Span], records: &[Record], counted: impl Fn(&str) -> bool) -> Report {
    let by_truth: HashMap<_, &Span> =
        spans.iter().filter_map(|span| Some(((span.kind, header(span, TRUTH)?), *span))).collect();
    let batches: Vec<&Span> = spans.iter().filter(|span| matches!(span.kind, PRODUCER | CONSUMER)).copied().collect();
    let mut report = Report::default();
    for record in records.iter().filter(|record| counted(&record.key)) {
        let shipped = format!("{SHIPPED}{}", record.key);
        let with = |kind, truth: &str| by_truth.get(&(kind, truth)).copied();
        let holding = |kind| batches.iter().find(|span| span.kind == kind && holds(span, record)).copied();
        let (order, send, receive) = (with(SERVER, &record.key), holding(PRODUCER), holding(CONSUMER));
        let (call, answer) = (with(CLIENT, &shipped), with(SERVER, &shipped));
        let (sent, received, called) = (judge(send, order), judge(receive, send), judge(call, receive));
        let wrong =
            [(send, sent), (receive, received), (call, called)].into_iter().filter(|(_, tally)| tally.wrong > 0);
        let right = [sent, received, called, judge(answer, call)].iter().all(|tally| tally.right == 1);
        let whole = right && order.zip(answer).is_some_and(|(order, answer)| order.trace_id == answer.trace_id);
        report.wrong.extend(wrong.filter_map(|(span, _)| span.cloned()));
        report.records += 1;
        report.sent += sent;
        report.received += received;
        report.linked += usize::from(received.right == 1 && receive.is_some_and(|span| span.parent_span_id.is_empty()));
        report.calls += called;
        report.whole += usize::from(whole);
    }
    report
}

/// Whether a record is one of those that a span is about. Whoever fetches by a topic's id gives no name as long as the agent
/// was told none; there is but one topic.
fn holds(span: &Span, record: &Record) -> bool {
    let count = span.int("messaging.batch.message_count").unwrap_or(1);
    let partition = span.str("messaging.destination.partition.id").and_then(|partition| partition.parse().ok());
    let place = span.int("messaging.kafka.offset").zip(record.offset);
    partition == Some(record.partition) && place.is_some_and(|(first, at)| (first..first + count).contains(&at))
}

/// Without a span there is no parent either.
fn judge(span: Option<&Span>, parent: Option<&Span>) -> Tally {
    let Some(span) = span else { return Tally { none: 1, ..Tally::default() } };
    let linked = |parent: &Span| span.links.contains(&(parent.trace_id.clone(), parent.span_id.clone()));
    let right = parent.is_some_and(|parent| span.parent_span_id == parent.span_id || linked(parent));
    let none = !right && span.parent_span_id.is_empty();
    let cut_off = !right && !none && parent.is_none();
    Tally {
        spans: 1,
        right: usize::from(right),
        wrong: usize::from(!right && !none && !cut_off),
        none: usize::from(none),
        cut_off: usize::from(cut_off),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::{Attributes, Value};

    fn span(kind: i32, id: &str, parent: &str, attributes: &[(&str, Value)]) -> Span {
        Span {
            trace_id: "t".to_owned(),
            span_id: id.to_owned(),
            parent_span_id: parent.to_owned(),
            trace_state: String::new(),
            links: Vec::new(),
            flags: 0,
            name: String::new(),
            kind,
            start: 0,
            end: 1,
            status: 0,
            attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            resource: Attributes::new(),
        }
    }

    fn truth(text: &str) -> [(&'static str, Value); 1] {
        [(TRUTH, Value::Array(vec![Value::Str(text.to_owned())]))]
    }

    fn at(offset: i64, count: i64) -> [(&'static str, Value); 3] {
        let partition = ("messaging.destination.partition.id", Value::Str("0".to_owned()));
        let count = ("messaging.batch.message_count", Value::Int(count));
        [partition, ("messaging.kafka.offset", Value::Int(offset)), count]
    }

    fn record(offset: i64, key: &str) -> Record {
        let line = format!(r#"{{"role":"producer","topic":"orders","partition":0,"offset":{offset},"key":"{key}"}}"#);
        serde_json::from_str(&line).unwrap()
    }

    /// Orders `r` and `s`, each sent by itself and both received at once, the calls because of them and the answers to these.
    fn spans() -> Vec<Span> {
        let mut both = span(CONSUMER, "got", "", &at(7, 2));
        both.links = ["sent-r", "sent-s"].map(|id| ("t".to_owned(), id.to_owned())).to_vec();
        let mut all = vec![both];
        for (offset, key) in [(7, "r"), (8, "s")] {
            all.push(span(SERVER, key, "", &truth(key)));
            all.push(span(PRODUCER, &format!("sent-{key}"), key, &at(offset, 1)));
            let (call, shipped) = (format!("call-{key}"), format!("{SHIPPED}{key}"));
            all.push(span(CLIENT, &call, "got", &truth(&shipped)));
            all.push(span(SERVER, &format!("answer-{key}"), &call, &truth(&shipped)));
        }
        all
    }

    fn report(spans: &[Span]) -> Report {
        let spans: Vec<_> = spans.iter().collect();
        evaluate(&spans, &[record(7, "r"), record(8, "s"), record(9, "other")], |key| key != "other")
    }

    #[test]
    fn all_right() {
        let right = Tally { spans: 2, right: 2, ..Tally::default() };
        let Report { records, sent, received, linked, calls, whole, wrong } = report(&spans());
        assert_eq!((records, sent, received, calls, linked, whole), (2, right, right, right, 2, 2));
        assert!(wrong.is_empty());
    }

    #[test]
    fn what_is_not_below_its_cause_is_not_right() {
        let mut spans = spans();
        spans[0].links.pop();
        spans[2].parent_span_id = "s".to_owned();
        spans[3].parent_span_id = "sent-s".to_owned();
        let found = report(&spans);
        let one = Tally { spans: 2, right: 1, ..Tally::default() };
        assert_eq!(found.sent, Tally { wrong: 1, ..one });
        assert_eq!(found.received, Tally { none: 1, ..one });
        assert_eq!(found.calls, Tally { wrong: 1, ..one });
        assert_eq!(found.whole, 0);
        assert_eq!(found.wrong.iter().map(|span| &*span.span_id).collect::<Vec<_>>(), ["sent-r", "call-r"]);
    }

    #[test]
    fn what_is_right_in_another_trace_is_not_whole() {
        let mut spans = spans();
        spans[4].trace_id = "u".to_owned();
        let found = report(&spans);
        assert_eq!((found.calls.right, found.whole), (2, 1));
    }

    #[test]
    fn without_a_span_there_is_no_parent() {
        let found = report(&spans().split_off(1));
        assert_eq!(found.received, Tally { none: 2, ..Tally::default() });
        assert_eq!(found.calls, Tally { spans: 2, cut_off: 2, ..Tally::default() });
    }
}
