//! Labels of a sample, from plain pairs or from attributes.

use std::fmt::Write;

use crate::signal::attribute::AttributeSink;

/// Labels as they stand between the braces of a sample. As a sink it turns the names of attributes into those of labels by
/// OpenTelemetry's rules for Prometheus.
#[derive(Clone, Debug, Default)]
pub struct Labels(String);

impl Labels {
    /// Adds a label. Its name must be one already, and not be there yet.
    pub fn push(&mut self, name: &str, value: &str) {
        self.begin(name);
        for char in value.chars() {
            match char {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                char => self.0.push(char),
            }
        }
        self.0.push('"');
    }

    /// Empties it, to be used again.
    pub(in crate::signal::metrics) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) const fn as_str(&self) -> &str {
        self.0.as_str()
    }

    fn begin(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        push_name(&mut self.0, name);
        self.0.push_str("=\"");
    }

    fn display(&mut self, key: &str, value: impl std::fmt::Display) {
        self.begin(key);
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{value}\"");
    }
}

/// Appends a label's name: what is no letter or digit becomes an underscore, several of these become one, and what would
/// begin with a digit or nothing gets `key_` put before.
fn push_name(out: &mut String, key: &str) {
    if !key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        out.push_str("key_");
    }
    let mut before = None;
    for char in key.chars() {
        let char = if char.is_ascii_alphanumeric() { char } else { '_' };
        if char != '_' || before != Some('_') {
            out.push(char);
        }
        before = Some(char);
    }
}

/// The label's name of an attribute.
pub(in crate::signal::metrics) fn label_name(key: &str) -> String {
    let mut name = String::new();
    push_name(&mut name, key);
    name
}

impl AttributeSink for Labels {
    fn str(&mut self, key: &str, value: &str) {
        self.push(key, value);
    }

    fn int(&mut self, key: &str, value: i64) {
        self.display(key, value);
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.display(key, value);
    }

    fn double(&mut self, key: &str, value: f64) {
        self.display(key, value);
    }

    /// As a JSON array, which the rules ask for.
    fn strs(&mut self, key: &str, values: &[&str]) {
        self.push(key, &serde_json::to_string(values).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_become_labels() {
        let mut labels = Labels::default();
        labels.str("http.route", "/a\"b\\c\nd");
        labels.int("server.port", 80);
        labels.bool("otel.metric.overflow", true);
        labels.strs("process.command_args", &["a", "b\"c"]);
        labels.str("9lives", "");
        labels.str("__name__", "é");
        labels.str("a-.b", "x");
        assert_eq!(
            labels.as_str(),
            r#"http_route="/a\"b\\c\nd",server_port="80",otel_metric_overflow="true",process_command_args="[\"a\",\"b\\\"c\"]",key_9lives="",_name_="é",a_b="x""#
        );
    }
}
