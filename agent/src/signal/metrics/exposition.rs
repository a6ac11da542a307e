//! The text formats of Prometheus: text 0.0.4 and OpenMetrics 1.0.

mod labels;
mod negotiation;

use std::fmt::{self, Write};

pub use self::labels::Labels;
pub(super) use self::labels::label_name;
use crate::signal::span::{SpanId, TraceId};

/// A format of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0, the one with exemplars.
    OpenMetrics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A value that only grows; its sample's name ends in `_total`.
    Counter,
    Gauge,
    Histogram,
    /// Labels with the value 1; its sample's name ends in `_info`.
    Info,
}

/// A metric's name, meaning and type.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Without `_total` and `_info`, which follow from the kind. With a unit it ends in it.
    pub name: &'static str,
    /// One sentence. No backslash, quote or line feed.
    pub help: &'static str,
    pub kind: MetricKind,
    /// A base unit in full: `seconds`, `bytes`.
    pub unit: Option<&'static str>,
}

/// A value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Int(u64),
    Float(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => value.fmt(f),
            Self::Float(value) if value.is_infinite() => f.write_str(if *value > 0.0 { "+Inf" } else { "-Inf" }),
            Self::Float(value) => value.fmt(f),
        }
    }
}

/// A span that stands for the values of a bucket.
pub(super) struct BucketExemplar {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) value: f64,
    /// Milliseconds since the Unix epoch.
    pub(super) at_millis: u64,
}

/// Writes families of samples in one of the formats. Every family is written once, with all its samples after it.
/// Fails only when `out` does.
pub struct Exposition<'w, W> {
    out: &'w mut W,
    format: Format,
    family: &'static str,
    /// What follows the family's name in the names of its samples.
    suffix: &'static str,
}

impl<'w, W: Write> Exposition<'w, W> {
    pub const fn new(out: &'w mut W, format: Format) -> Self {
        Self { out, format, family: "", suffix: "" }
    }

    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Begins a family.
    pub fn family(&mut self, family: &Family) -> fmt::Result {
        let Family { name, help, kind, unit } = *family;
        let (suffix, type_name) = match kind {
            MetricKind::Counter => ("_total", "counter"),
            MetricKind::Gauge => ("", "gauge"),
            MetricKind::Histogram => ("", "histogram"),
            MetricKind::Info => ("_info", "info"),
        };
        (self.family, self.suffix) = (name, suffix);
        match self.format {
            Format::OpenMetrics => {
                writeln!(self.out, "# TYPE {name} {type_name}")?;
                if let Some(unit) = unit {
                    writeln!(self.out, "# UNIT {name} {unit}")?;
                }
                writeln!(self.out, "# HELP {name} {help}")
            }
            Format::Text => {
                // The older format names the samples, and knows no info.
                let type_name = if kind == MetricKind::Info { "gauge" } else { type_name };
                writeln!(self.out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {type_name}")
            }
        }
    }

    /// Writes one sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) -> fmt::Result {
        let mut all = Labels::default();
        for (name, value) in labels {
            all.push(name, value);
        }
        self.labelled(&all, value)
    }

    /// The same with labels made before.
    pub fn labelled(&mut self, labels: &Labels, value: impl Into<Number>) -> fmt::Result {
        let (family, suffix, labels, value) = (self.family, self.suffix, labels.as_str(), value.into());
        if labels.is_empty() {
            writeln!(self.out, "{family}{suffix} {value}")
        } else {
            writeln!(self.out, "{family}{suffix}{{{labels}}} {value}")
        }
    }

    /// Writes one histogram of the family: `counts` by bucket (not cumulative), one more than there are `bounds`.
    pub(super) fn histogram(
        &mut self,
        labels: &Labels,
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
        exemplar: impl Fn(usize) -> Option<BucketExemplar>,
    ) -> fmt::Result {
        let (family, labels) = (self.family, labels.as_str());
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0u64;
        for (bucket, count) in counts.iter().enumerate() {
            below += count;
            write!(self.out, "{family}_bucket{{{labels}{comma}le=\"")?;
            match (bounds.get(bucket), self.format) {
                (None, _) => self.out.write_str("+Inf")?,
                (Some(bound), Format::Text) => write!(self.out, "{bound}")?,
                // Whole numbers too are written as floats (section "Considerations: Canonical Numbers").
                (Some(bound), Format::OpenMetrics) => write!(self.out, "{bound:?}")?,
            }
            write!(self.out, "\"}} {below}")?;
            if self.format == Format::OpenMetrics
                && let Some(exemplar) = exemplar(bucket)
            {
                self.exemplar(&exemplar)?;
            }
            self.out.write_char('\n')?;
        }
        let braced = |out: &mut W, name: &str| match labels {
            "" => write!(out, "{family}{name} "),
            labels => write!(out, "{family}{name}{{{labels}}} "),
        };
        braced(self.out, "_sum")?;
        writeln!(self.out, "{}", Number::Float(sum))?;
        braced(self.out, "_count")?;
        writeln!(self.out, "{below}")
    }

    fn exemplar(&mut self, exemplar: &BucketExemplar) -> fmt::Result {
        let hex = |out: &mut W, octets: &[u8]| octets.iter().try_for_each(|octet| write!(out, "{octet:02x}"));
        self.out.write_str(" # {trace_id=\"")?;
        hex(self.out, &exemplar.trace_id.0)?;
        self.out.write_str("\",span_id=\"")?;
        hex(self.out, &exemplar.span_id.0)?;
        let (seconds, millis) = (exemplar.at_millis / 1000, exemplar.at_millis % 1000);
        write!(self.out, "\"}} {} {seconds}.{millis:03}", exemplar.value)
    }

    /// Writes what the format ends with. Nothing may follow.
    pub fn end(self) -> fmt::Result {
        match self.format {
            Format::Text => Ok(()),
            Format::OpenMetrics => self.out.write_str("# EOF\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(format: Format) -> String {
        let mut text = String::new();
        let mut exposition = Exposition::new(&mut text, format);
        let family = |name, kind, unit| Family { name, help: "What it is.", kind, unit };
        exposition.family(&family("cpu_seconds", MetricKind::Counter, Some("seconds"))).unwrap();
        exposition.sample(&[], 1.5).unwrap();
        exposition.family(&family("build", MetricKind::Info, None)).unwrap();
        exposition.sample(&[("version", "1\"2\\3\n4")], 1).unwrap();
        exposition.family(&family("took_seconds", MetricKind::Histogram, Some("seconds"))).unwrap();
        let exemplar = |bucket| {
            (bucket == 1).then_some(BucketExemplar {
                trace_id: TraceId([1; 16]),
                span_id: SpanId([0xab; 8]),
                value: 0.75,
                at_millis: 1_800_000_000_007,
            })
        };
        exposition.histogram(&Labels::default(), &[0.5, 1.0], &[1, 2, 3], 9.25, exemplar).unwrap();
        exposition.family(&family("level", MetricKind::Gauge, None)).unwrap();
        exposition.sample(&[("a", "x"), ("b", "y")], f64::INFINITY).unwrap();
        exposition.end().unwrap();
        text
    }

    #[test]
    fn text_is_as_the_format_asks() {
        assert_eq!(
            write(Format::Text),
            r#"# HELP cpu_seconds_total What it is.
# TYPE cpu_seconds_total counter
cpu_seconds_total 1.5
# HELP build_info What it is.
# TYPE build_info gauge
build_info{version="1\"2\\3\n4"} 1
# HELP took_seconds What it is.
# TYPE took_seconds histogram
took_seconds_bucket{le="0.5"} 1
took_seconds_bucket{le="1"} 3
took_seconds_bucket{le="+Inf"} 6
took_seconds_sum 9.25
took_seconds_count 6
# HELP level What it is.
# TYPE level gauge
level{a="x",b="y"} +Inf
"#
        );
    }

    #[test]
    fn open_metrics_is_as_the_format_asks() {
        assert_eq!(
            write(Format::OpenMetrics),
            r#"# TYPE cpu_seconds counter
# UNIT cpu_seconds seconds
# HELP cpu_seconds What it is.
cpu_seconds_total 1.5
# TYPE build info
# HELP build What it is.
build_info{version="1\"2\\3\n4"} 1
# TYPE took_seconds histogram
# UNIT took_seconds seconds
# HELP took_seconds What it is.
took_seconds_bucket{le="0.5"} 1
took_seconds_bucket{le="1.0"} 3 # {trace_id="01010101010101010101010101010101",span_id="abababababababab"} 0.75 1800000000.007
took_seconds_bucket{le="+Inf"} 6
took_seconds_sum 9.25
took_seconds_count 6
# TYPE level gauge
# HELP level What it is.
level{a="x",b="y"} +Inf
# EOF
"#
        );
    }
}
