//! What the script in the virtual machine tells of TLS in the kernel: sections `ktls…`, once for each agent that followed it, and
//! whether they are what that agent should have seen.

use std::collections::BTreeSet;

use serde_json::Value;

use super::report::{KIND_CLIENT, KIND_SERVER, Section, attribute, spans_of};

/// One agent that followed TLS in the kernel.
#[derive(Debug, Default)]
pub(super) struct Ktls {
    /// [`BY_CALLS`] where no library was hooked.
    name: String,
    /// Requests made with keys in the kernel at both ends and for both directions, and status and size of each answer.
    asked: usize,
    answers: Vec<String>,
    /// How often the kernel was given keys for sending and for receiving, for those.
    keys: String,
    /// The same of requests by TLS 1.3, and how often it was given keys for receiving there: not with every library.
    half: usize,
    half_answers: Vec<String>,
    half_keys: Option<u64>,
    /// `remora_kernel_drops_total`.
    drops: Vec<String>,
    /// Requests that came with a `traceparent`.
    contexts: Option<u64>,
    pub(super) agent: Section,
    spans: Vec<Value>,
    /// Lines that are no OTLP/JSON.
    unreadable: usize,
}

/// Whether a number is more than 0.
fn is_some(number: &str) -> bool {
    number.parse().is_ok_and(|number: u64| number > 0)
}

/// The agent that saw the calls on sockets alone.
const BY_CALLS: &str = "calls";
/// The port of the server by TLS 1.3 (`nginx-tls.conf`).
const HALF_PORT: &str = "8444";

impl Ktls {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub(super) fn begin(&mut self, section: &str, value: &str) {
        match section {
            "ktls-asked" => self.asked = value.parse().unwrap_or(0),
            "ktls-keys" => value.clone_into(&mut self.keys),
            "ktls-half" => self.half = value.parse().unwrap_or(0),
            "ktls-half-keys" => self.half_keys = value.parse().ok(),
            "ktls-contexts" => self.contexts = value.parse().ok(),
            "ktls-agent" => self.agent.status = value.parse().ok(),
            _ => {}
        }
    }

    pub(super) fn add(&mut self, section: &str, line: &str) {
        match section {
            "ktls-asked" => self.answers.push(line.to_owned()),
            "ktls-half" => self.half_answers.push(line.to_owned()),
            "ktls-drops" => self.drops.push(line.to_owned()),
            "ktls-agent" => self.agent.lines.push(line.to_owned()),
            "ktls-spans" => match spans_of(line) {
                Some(spans) => self.spans.extend(spans),
                None => self.unreadable += 1,
            },
            _ => {}
        }
    }

    /// Everything that is not as it should be. With `fields`, contexts are put into requests in the clear: then the sockets of
    /// clients get no keys (docs/LIMITS.md), so that the functions of libraries alone show what clients do.
    pub(super) fn faults(&self, fields: bool) -> Vec<String> {
        let mut faults = Vec::new();
        if self.asked == 0 || self.half == 0 {
            faults.push("no requests were made".to_owned());
        }
        for (asked, answers) in [(self.asked, &self.answers), (self.half, &self.half_answers)] {
            if answers.len() != asked || !answers.iter().all(|answer| answer.starts_with("200 ")) {
                faults.push(format!("{asked} requests were answered by {answers:?}"));
            }
        }
        if !fields && (self.keys.is_empty() || !self.keys.split(' ').all(is_some)) {
            faults.push(format!("the kernel was not given keys for both directions: {:?}", self.keys));
        }
        if !fields || self.name != BY_CALLS {
            self.compare(&mut faults);
        }
        if self.contexts != Some(0) {
            faults.push(format!("{:?} requests came with a context", self.contexts));
        }
        if self.unreadable > 0 {
            faults.push(format!("{} lines of spans are not OTLP/JSON", self.unreadable));
        }
        if self.agent.status != Some(0) {
            faults.push(format!("the agent ended with exit status {:?}", self.agent.status));
        }
        faults.iter().map(|fault| format!("TLS in the kernel, seen by {}: {fault}", self.name)).collect()
    }

    /// Compares the spans with the answers.
    fn compare(&self, faults: &mut Vec<String>) {
        // Where the kernel has the keys of one direction alone, the calls tell nothing.
        let seen = self.half_keys.is_some_and(|keys| keys > 0) || self.name != BY_CALLS;
        let none = Vec::new();
        let half = if seen { &self.half_answers } else { &none };
        for (is_half, answers) in [(false, &self.answers), (true, half)] {
            let mut expected = answers.clone();
            expected.sort();
            for (kind, name) in [(KIND_CLIENT, "client"), (KIND_SERVER, "server")] {
                let mut found = self.of(kind, is_half);
                found.sort();
                if found != expected {
                    faults.push(format!("{name} spans with status and size {found:?} instead of {expected:?}"));
                }
            }
        }
        let clients = self.ids(KIND_CLIENT, "spanId");
        let apart = self.ids(KIND_SERVER, "parentSpanId").difference(&clients).count();
        if apart > 0 {
            faults.push(format!("{apart} server spans have another parent than their client's span"));
        }
        let counted = self.counted();
        if (counted > 0) == seen {
            faults
                .push(format!("{counted} connections were counted of which the kernel has the keys of one direction"));
        }
    }

    /// An id of the spans of a kind; of those without it, nothing.
    fn ids(&self, kind: u64, id: &str) -> BTreeSet<&str> {
        let spans = self.spans.iter().filter(|span| span.get("kind").and_then(Value::as_u64) == Some(kind));
        spans.map(|span| span.get(id).and_then(Value::as_str).unwrap_or_default()).collect()
    }

    /// The figures.
    pub(super) fn summary(&self) -> String {
        let count = |kind| self.of(kind, false).len() + self.of(kind, true).len();
        format!(
            "kTLS by {}: {} + {} requests, {} client and {} server spans",
            self.name,
            self.asked,
            self.half,
            count(KIND_CLIENT),
            count(KIND_SERVER)
        )
    }

    /// Status and size of the answers that spans of this kind tell of.
    fn of(&self, kind: u64, is_half: bool) -> Vec<String> {
        let spans = self.spans.iter().filter(|span| span.get("kind").and_then(Value::as_u64) == Some(kind));
        let spans = spans.filter(|span| (attribute(span, "server.port") == Some(HALF_PORT)) == is_half);
        let number = |span, key| attribute(span, key).unwrap_or("none").to_owned();
        spans
            .map(|span| number(span, "http.response.status_code") + " " + &number(span, "http.response.body.size"))
            .collect()
    }

    /// Connections of which the kernel has the keys of one direction and nothing shows the other.
    fn counted(&self) -> u64 {
        let of_half = self.drops.iter().filter(|line| line.contains("\"kernel_tls_half\""));
        of_half.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn span(kind: u64, port: &str, status: &str, size: &str) -> Value {
        let attributes =
            [("server.port", port), ("http.response.status_code", status), ("http.response.body.size", size)];
        let attributes = attributes.map(|(key, value)| json!({"key": key, "value": {"intValue": value}}));
        json!({"kind": kind, "spanId": "1", "parentSpanId": "1", "attributes": attributes})
    }

    fn told(name: &str, half_keys: &str, drops: &str, spans: &[Value]) -> Vec<String> {
        ktls(name, half_keys, drops, spans).faults(false)
    }

    fn ktls(name: &str, half_keys: &str, drops: &str, spans: &[Value]) -> Ktls {
        let mut ktls = Ktls::new(name);
        let spans = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).to_string();
        let drops = format!("remora_kernel_drops_total{{reason=\"kernel_tls_half\"}} {drops}");
        for (section, value, line) in [
            ("ktls-asked", "1", "200 5"),
            ("ktls-keys", "2 2", ""),
            ("ktls-half", "1", "200 4"),
            ("ktls-half-keys", half_keys, ""),
            ("ktls-drops", "", &drops),
            ("ktls-contexts", "0", ""),
            ("ktls-agent", "0", ""),
            ("ktls-spans", "", &spans),
        ] {
            ktls.begin(section, value);
            if !line.is_empty() {
                ktls.add(section, line);
            }
        }
        ktls
    }

    #[test]
    fn each_request_has_a_span_at_each_end() {
        let both = [span(2, "8443", "200", "5"), span(3, "8443", "200", "5")];
        let all: Vec<_> =
            both.iter().cloned().chain([span(2, "8444", "200", "4"), span(3, "8444", "200", "4")]).collect();
        assert_eq!(told("functions", "0", "0", &all), Vec::<String>::new());
        assert_eq!(told("calls", "1", "0", &all), Vec::<String>::new());
        assert_eq!(told("calls", "0", "2", &both), Vec::<String>::new());
        assert_eq!(told("functions", "0", "0", &both).len(), 2);
        assert_eq!(told("calls", "0", "2", &all).len(), 2);
    }

    #[test]
    fn with_fields_the_functions_alone_show_what_clients_do() {
        assert_eq!(ktls("functions", "0", "0", &[]).faults(true).len(), 4);
        assert_eq!(ktls("calls", "0", "0", &[]).faults(true), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let size = [span(2, "8443", "200", "5"), span(3, "8443", "200", "4")];
        assert_eq!(
            told("calls", "0", "0", &size),
            [
                "TLS in the kernel, seen by calls: client spans with status and size [\"200 4\"] instead of [\"200 5\"]",
                "TLS in the kernel, seen by calls: 0 connections were counted of which the kernel has the keys of one direction",
            ]
        );
        let mut none = Ktls::new("calls");
        none.begin("ktls-keys", "0 0");
        assert_eq!(none.faults(false).len(), 5);
        assert_eq!(none.faults(true).len(), 3);
    }
}
