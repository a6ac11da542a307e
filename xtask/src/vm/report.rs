//! What the script in the virtual machine tells: sections that begin with `=== NAME VALUE`, and whether they are what a
//! working agent leaves behind.

use serde_json::Value;

use super::ktls::Ktls;

/// The results of one run. What was not told is empty.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// As `uname -r` says it.
    kernel: String,
    /// `remora check --json`: its exit status, and the report.
    check: Section,
    pub(super) check_log: Vec<String>,
    /// Requests made, and those answered with 200.
    asked: Option<u64>,
    answered: Option<u64>,
    /// Requests that the server received with a `traceparent`.
    contexts: Option<u64>,
    /// The exit status of `remora run`, and what it logged.
    pub(super) agent: Section,
    spans: Spans,
    /// The agents that followed TLS in the kernel.
    ktls: Vec<Ktls>,
    /// What the kernel complained of.
    complaints: Vec<String>,
    /// The script came to its end.
    ended: bool,
}

#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) status: Option<u64>,
    pub(super) lines: Vec<String>,
}

/// Spans by kind; `other` has those without status 200 as well.
#[derive(Debug, Default, PartialEq)]
struct Spans {
    client: u64,
    server: u64,
    other: u64,
    /// Lines that are no OTLP/JSON.
    unreadable: u64,
}

/// `SpanKind` of opentelemetry/proto/trace/v1/trace.proto.
pub(super) const KIND_SERVER: u64 = 2;
pub(super) const KIND_CLIENT: u64 = 3;

impl Report {
    pub(super) fn parse(text: &str) -> Self {
        let mut report = Self::default();
        let mut section = "";
        for line in text.lines().map(str::trim_end) {
            if let Some(head) = line.strip_prefix("=== ") {
                let (name, value) = head.split_once(' ').unwrap_or((head, ""));
                section = name;
                report.begin(name, value);
            } else if !line.is_empty() {
                report.add(section, line);
            }
        }
        report
    }

    fn begin(&mut self, section: &str, value: &str) {
        match section {
            "kernel" => value.clone_into(&mut self.kernel),
            "check" => self.check.status = value.parse().ok(),
            "asked" => self.asked = value.parse().ok(),
            "answered" => self.answered = value.parse().ok(),
            "contexts" => self.contexts = value.parse().ok(),
            "agent" => self.agent.status = value.parse().ok(),
            "ktls" => self.ktls.push(Ktls::new(value)),
            "end" => self.ended = true,
            _ => self.ktls.iter_mut().next_back().into_iter().for_each(|ktls| ktls.begin(section, value)),
        }
    }

    fn add(&mut self, section: &str, line: &str) {
        match section {
            "check" => self.check.lines.push(line.to_owned()),
            "check-log" => self.check_log.push(line.to_owned()),
            "agent" => self.agent.lines.push(line.to_owned()),
            "spans" => self.spans.read(line),
            "complaints" => self.complaints.push(line.to_owned()),
            _ => self.ktls.iter_mut().next_back().into_iter().for_each(|ktls| ktls.add(section, line)),
        }
    }

    /// Everything that is not as it should be. `fields`: contexts are to be in
    /// the requests, where else nothing is.
    pub(super) fn faults(&self, fields: bool) -> Vec<String> {
        let mut faults = Vec::new();
        if self.kernel.is_empty() {
            return vec!["the script in the machine did not start".to_owned()];
        }
        if self.check.status != Some(0) {
            faults.push("`remora check` does not say that capture can work".to_owned());
        }
        if self.hooks().is_empty() {
            faults.push("`remora check` names no hooks".to_owned());
        }
        // Older kernels lack the hooks at the sockets (Linux 6.16).
        for (hook, why) in self.hooks_missing().into_iter().filter(|(hook, _)| !AT_SOCKETS.contains(&&**hook)) {
            faults.push(format!("hook {hook}: {why}"));
        }
        match (self.asked, self.answered) {
            (Some(asked), Some(answered)) if asked == answered => {}
            (Some(asked), Some(answered)) => faults.push(format!("{answered} of {asked} requests were answered")),
            _ => faults.push("no requests were made".to_owned()),
        }
        let asked = self.asked.unwrap_or(0);
        match self.contexts {
            Some(0) if !fields => {}
            // Not those on the connection that is older than the agent.
            Some(contexts) if fields && contexts >= asked / 2 => {}
            contexts => faults.push(format!("{contexts:?} of {asked} requests came with a context")),
        }
        for (kind, count) in [("client", self.spans.client), ("server", self.spans.server)] {
            if count != asked {
                faults.push(format!("{count} {kind} spans with status 200 for {asked} requests"));
            }
        }
        if self.spans.other > 0 {
            faults.push(format!("{} spans of another kind or status", self.spans.other));
        }
        if self.spans.unreadable > 0 {
            faults.push(format!("{} lines of spans are not OTLP/JSON", self.spans.unreadable));
        }
        match self.agent.status {
            Some(0) => {}
            Some(status) => faults.push(format!("the agent ended with exit status {status}")),
            None => faults.push("the agent did not end".to_owned()),
        }
        if self.ktls.len() != KTLS {
            faults.push(format!("{} of {KTLS} agents followed TLS in the kernel", self.ktls.len()));
        }
        faults.extend(self.ktls.iter().flat_map(|ktls| ktls.faults(fields)));
        // A program that the kernel refuses among them: with these flags, which `remora check` does not know of.
        let warnings = self.logs().flatten().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
        faults.extend(warnings.map(|line| format!("the agent says: {line}")));
        faults.extend(self.complaints.iter().map(|line| format!("the kernel says: {line}")));
        if !self.ended {
            faults.push("the script in the machine did not come to its end".to_owned());
        }
        faults
    }

    /// The figures, on one line.
    pub(super) fn summary(&self) -> String {
        let hooks = self.hooks();
        let attached = hooks.iter().filter(|hook| is_ok(hook)).count();
        let status = self.agent.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        let ktls: String = self.ktls.iter().map(|ktls| format!("; {}", ktls.summary())).collect();
        format!(
            "{attached} of {} hooks, {} requests, {} client and {} server spans, exit status {status}{ktls}",
            hooks.len(),
            self.answered.unwrap_or(0),
            self.spans.client,
            self.spans.server
        )
    }

    /// What each agent logged.
    pub(super) fn logs(&self) -> impl Iterator<Item = &[String]> {
        [&self.agent].into_iter().chain(self.ktls.iter().map(|ktls| &ktls.agent)).map(|agent| &*agent.lines)
    }

    fn hooks(&self) -> Vec<Value> {
        let check: Value = serde_json::from_str(&self.check.lines.concat()).unwrap_or_default();
        check.get("hooks").and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// Hooks that could not be attached, optional ones as well, and why.
    fn hooks_missing(&self) -> Vec<(String, String)> {
        let text = |hook: &Value, key| hook.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let hooks = self.hooks();
        hooks.iter().filter(|hook| !is_ok(hook)).map(|hook| (text(hook, "id"), text(hook, "detail"))).collect()
    }
}

/// So many agents follow TLS in the kernel: one that hooks the library, and one that does not.
const KTLS: usize = 2;

const AT_SOCKETS: [&str; 3] = ["tcp:tcp_sendmsg_locked", "sock:sock_send_length", "sock:sock_recv_length"];

fn is_ok(hook: &Value) -> bool {
    hook.get("outcome").and_then(Value::as_str) == Some("ok")
}

impl Spans {
    /// Counts the spans of one `ExportTraceServiceRequest`.
    fn read(&mut self, line: &str) {
        let Some(spans) = spans_of(line) else {
            self.unreadable += 1;
            return;
        };
        for span in spans {
            match span.get("kind").and_then(Value::as_u64) {
                Some(KIND_SERVER) if is_200(&span) => self.server += 1,
                Some(KIND_CLIENT) if is_200(&span) => self.client += 1,
                _ => self.other += 1,
            }
        }
    }
}

/// The spans of one `ExportTraceServiceRequest`; `None` when the line is no JSON.
pub(super) fn spans_of(line: &str) -> Option<Vec<Value>> {
    let request = serde_json::from_str::<Value>(line).ok()?;
    let resources = items(&request, "resourceSpans");
    let scopes = resources.iter().flat_map(|resource| items(resource, "scopeSpans"));
    Some(scopes.flat_map(|scope| items(scope, "spans")).cloned().collect())
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_200(span: &Value) -> bool {
    attribute(span, "http.response.status_code") == Some("200")
}

/// A span's attribute that is a number. OTLP/JSON writes 64-bit integers as strings.
pub(super) fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a str> {
    let mut attributes = items(span, "attributes").iter();
    let attribute = attributes.find(|attribute| attribute.get("key").and_then(Value::as_str) == Some(key));
    attribute?.pointer("/value/intValue")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn span(kind: u64, status: &str) -> Value {
        json!({"kind": kind, "attributes": [
            {"key": "http.request.method", "value": {"stringValue": "GET"}},
            {"key": "http.response.status_code", "value": {"intValue": status}}]})
    }

    fn request(spans: &[Value]) -> String {
        json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).to_string()
    }

    fn text(outcome: &str, agent: u64, spans: &[&str]) -> String {
        let check = json!({"ready": true, "hooks": [{"id": "exit_read", "outcome": "ok", "detail": ""},
            {"id": "exit_write", "outcome": outcome, "detail": "refused"}]});
        let spans = spans.join("\r\n");
        let ktls = ktls("functions") + &ktls("calls");
        format!(
            "=== kernel 6.1.0-1\r\n=== check 0\r\n{check}\r\n=== check-log \r\n=== asked 2\r\n=== answered 2\r\n=== contexts 0\r\n\
            === agent {agent}\r\nremora: done\r\n=== spans \r\n{spans}\r\n{ktls}=== complaints \r\n=== end \r\n"
        )
    }

    /// What an agent tells that followed TLS in the kernel.
    fn ktls(name: &str) -> String {
        format!(
            "=== ktls {name}\r\n=== ktls-asked 1\r\n200 5\r\n=== ktls-keys 1 1\r\n=== ktls-half 1\r\n200 5\r\n\
            === ktls-half-keys 1\r\n=== ktls-contexts 0\r\n=== ktls-agent 0\r\n=== ktls-spans \r\n{}\r\n",
            json!({"resourceSpans": [{"scopeSpans": [{"spans": [
                tls_span(2, "8443"), tls_span(3, "8443"), tls_span(2, "8444"), tls_span(3, "8444")]}]}]})
        )
    }

    fn tls_span(kind: u64, port: &str) -> Value {
        let attributes =
            [("server.port", port), ("http.response.status_code", "200"), ("http.response.body.size", "5")];
        let attributes = attributes.map(|(key, value)| json!({"key": key, "value": {"intValue": value}}));
        json!({"kind": kind, "spanId": "1", "parentSpanId": "1", "attributes": attributes})
    }

    #[test]
    fn a_good_run_has_no_faults() {
        let lines = [request(&[span(2, "200"), span(3, "200")]), request(&[span(3, "200"), span(2, "200")])];
        let report = Report::parse(&text("ok", 0, &[&lines[0], &lines[1]]));
        assert_eq!(report.faults(false), Vec::<String>::new());
        let summary = report.summary();
        assert!(
            summary.starts_with("2 of 2 hooks, 2 requests, 2 client and 2 server spans, exit status 0; kTLS"),
            "{summary}"
        );
        assert_eq!(report.agent.lines, ["remora: done"]);
    }

    #[test]
    fn each_fault_is_told() {
        let line = request(&[span(2, "200"), span(2, "404"), span(1, "200"), span(3, "200")]);
        let report = Report::parse(&text("missing", 1, &[&line, "{\"resourceSp"]));
        assert_eq!(
            report.faults(false),
            [
                "hook exit_write: refused",
                "1 client spans with status 200 for 2 requests",
                "1 server spans with status 200 for 2 requests",
                "2 spans of another kind or status",
                "1 lines of spans are not OTLP/JSON",
                "the agent ended with exit status 1",
            ]
        );
    }

    #[test]
    fn a_run_that_broke_off_has_faults() {
        assert_eq!(Report::parse("").faults(false), ["the script in the machine did not start"]);
        let whole = text("ok", 0, &[&request(&[span(2, "200"), span(3, "200"), span(2, "200"), span(3, "200")])]);
        assert_eq!(Report::parse(&whole).faults(false), Vec::<String>::new());
        for end in (0..whole.len() - 3).filter(|&end| whole.is_char_boundary(end)) {
            let cut = whole.get(..end).unwrap_or_default();
            // All but the very last line, which only says that it was the last one.
            if !cut.contains("=== end") {
                assert_ne!(Report::parse(cut).faults(false), Vec::<String>::new(), "cut at {end}");
            }
        }
    }

    #[test]
    fn the_agents_warnings_are_faults() {
        let whole = text("ok", 0, &[&request(&[span(2, "200"), span(3, "200"), span(2, "200"), span(3, "200")])]);
        let warning =
            "2026-12-01T15:11:02Z  WARN plaintext of TLS is not seen: the kernel refuses the program tls_return";
        let report =
            Report::parse(&whole.replace("=== ktls-agent 0\r\n", &format!("=== ktls-agent 0\r\n{warning}\r\n")));
        assert_eq!(report.faults(false), vec![format!("the agent says: {warning}"); 2]);
    }

    #[test]
    fn the_kernels_complaints_are_faults() {
        let whole = text("ok", 0, &[&request(&[span(2, "200"), span(3, "200"), span(2, "200"), span(3, "200")])]);
        let report = Report::parse(&whole.replace("=== complaints \r\n", "=== complaints \r\nBUG: x\r\n"));
        assert_eq!(report.faults(false), ["the kernel says: BUG: x"]);
    }
}
