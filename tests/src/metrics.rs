//! The Prometheus text format and OpenMetrics, as far as the tests look at them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// One sample, with its exemplar's labels when it has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    pub exemplar: Option<BTreeMap<String, String>>,
}

/// What one scrape gave.
#[derive(Clone, Debug, Default)]
pub struct Metrics(pub Vec<Sample>);

impl Metrics {
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| sample(line).with_context(|| format!("no sample: {line}"))).collect::<Result<_>>().map(Self)
    }

    /// All samples of `name` whose labels have these values.
    pub fn with<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        let has =
            |sample: &Sample, (key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|found| found == value);
        self.0.iter().filter(move |sample| sample.name == name && labels.iter().all(|label| has(sample, label)))
    }

    /// The sum of [`Metrics::with`]; 0 when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.with(name, labels).map(|sample| sample.value).sum()
    }

    /// As [`Metrics::sum`], but fails when the metric does not exist at all, so that a wrong name is no 0.
    pub fn total(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let exists = self.0.iter().any(|sample| sample.name == name);
        anyhow::ensure!(exists, "no metric {name}; there are: {:?}", self.names());
        Ok(self.sum(name, labels))
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// `name{labels} value [timestamp] [# {labels} value [timestamp]]`
fn sample(line: &str) -> Option<Sample> {
    let (name, labels, rest) = labelled(line)?;
    let value = rest.split_whitespace().next()?.parse().ok()?;
    let exemplar = match rest.split_once(" # ") {
        Some((_, exemplar)) => Some(labelled(exemplar)?.1),
        None => None,
    };
    Some(Sample { name: name.to_owned(), labels, value, exemplar })
}

/// A name (which may be empty), the labels in braces if there are any, and what follows.
fn labelled(text: &str) -> Option<(&str, BTreeMap<String, String>, &str)> {
    let at = text.find(['{', ' '])?;
    let (name, mut rest) = text.split_at(at);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(key.to_owned(), value);
            rest = after;
        }
    }
    Some((name, labels, rest))
}

/// The text up to the closing quotation mark, with `\\`, `\"` and `\n` resolved, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read() {
        let text = "# TYPE a counter\na 3\nb{x=\"1\",y=\"q\\\"}, \\\\\"} 4.5 1700\nc_bucket{le=\"+Inf\"} 7 # {trace_id=\"ab\"} 0.1 1.0\n# EOF\n";
        let metrics = Metrics::parse(text).unwrap();
        assert!((metrics.sum("a", &[]) - 3.0).abs() < f64::EPSILON);
        assert!((metrics.sum("b", &[("x", "1"), ("y", "q\"}, \\")]) - 4.5).abs() < f64::EPSILON);
        assert!((metrics.sum("b", &[("x", "2")])).abs() < f64::EPSILON);
        let exemplar = metrics.0[2].exemplar.as_ref().unwrap();
        assert_eq!(exemplar["trace_id"], "ab");
        assert!(Metrics::parse("d{x=\"1\" 5").is_err());
        assert!(metrics.total("nothing", &[]).is_err());
    }
}
