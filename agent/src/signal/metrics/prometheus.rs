//! The metrics in Prometheus' formats.

use std::collections::BTreeMap;
use std::fmt;

use super::Registry;
use super::exposition::{BucketExemplar, Exposition, Family, Labels, MetricKind, label_name};
use super::histogram::seconds;
use super::instrument::{HISTOGRAMS, LEVELS, NUMBERS, distribution, value};
use super::service::Service;
use crate::signal::resource::Value;
use crate::signal::span::Kind;

const TARGET: Family = Family {
    name: "target",
    help: "Attributes that all processes of a service share.",
    kind: MetricKind::Info,
    unit: None,
};

/// Attributes of `target_info` and the octets of each: a process' environment can bring any number.
const TARGET_LABELS: usize = 64;
const TARGET_VALUE: usize = 1024;

impl Registry {
    /// Writes all metrics and `target_info`; the caller writes what else there is, and the end.
    ///
    /// # Errors
    /// Only those of the exposition's output.
    pub fn expose<W: fmt::Write>(&self, exposition: &mut Exposition<'_, W>) -> fmt::Result {
        let services = || self.services.iter().chain([&self.others]);
        if !self.services.is_empty() {
            exposition.family(&TARGET)?;
            for service in &self.services {
                target(service, exposition)?;
            }
        }
        let mut labels = Labels::default();
        for (kind, measure, instrument) in &HISTOGRAMS {
            let mut begun = false;
            for service in services() {
                for series in service.of_kind(*kind) {
                    let Some(distribution) = distribution(series, *measure) else { continue };
                    if !begun {
                        exposition.family(&instrument.family)?;
                        begun = true;
                    }
                    identify(service, &mut labels);
                    series.labels.attributes(&mut labels);
                    let exemplar = |bucket| {
                        let exemplar = distribution.exemplars?.of(bucket)?;
                        Some(BucketExemplar {
                            trace_id: exemplar.trace_id,
                            span_id: exemplar.span_id,
                            value: seconds(exemplar.nanos),
                            at_millis: exemplar.at.0 / 1_000_000,
                        })
                    };
                    let (bounds, counts, sum) = (distribution.bounds, distribution.counts, distribution.sum);
                    exposition.histogram(&labels, bounds, counts, sum, exemplar)?;
                }
            }
        }
        for (sort, instrument) in &NUMBERS {
            let mut begun = false;
            for service in services() {
                for series in service.of_kind(Kind::Client) {
                    let Some(value) = value(series, *sort) else { continue };
                    if !begun {
                        exposition.family(&instrument.family)?;
                        begun = true;
                    }
                    identify(service, &mut labels);
                    series.labels.attributes(&mut labels);
                    exposition.labelled(&labels, value)?;
                }
            }
        }
        for (is_of, instrument) in &LEVELS {
            let mut begun = false;
            for service in services() {
                for (level, value) in service.levels.iter().filter(|(level, _)| is_of(level)) {
                    if !begun {
                        exposition.family(&instrument.family)?;
                        begun = true;
                    }
                    identify(service, &mut labels);
                    level.attributes(&mut labels);
                    exposition.labelled(&labels, *value)?;
                }
            }
        }
        Ok(())
    }
}

/// Begins the labels of a series with the service's name.
fn identify(service: &Service, labels: &mut Labels) {
    labels.clear();
    if let Some(identity) = &service.identity {
        labels.push("service_name", &identity.name);
        if let Some(namespace) = &identity.namespace {
            labels.push("service_namespace", namespace);
        }
    }
}

fn target<W: fmt::Write>(service: &Service, exposition: &mut Exposition<'_, W>) -> fmt::Result {
    let mut labels = Labels::default();
    identify(service, &mut labels);
    // Attributes whose labels would have one name share it, their values joined by `;` (OpenTelemetry, "Prometheus and
    // OpenMetrics Compatibility"): a label given twice would make the whole answer invalid.
    let mut values = BTreeMap::<String, String>::new();
    for (key, value) in &service.attributes {
        let name = label_name(key);
        let value = match value {
            Value::Str(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Strs(values) => serde_json::to_string(values).unwrap_or_default(),
        };
        let is_bounded = value.len() <= TARGET_VALUE && (values.len() < TARGET_LABELS || values.contains_key(&name));
        if is_bounded && !matches!(&*name, "service_name" | "service_namespace") {
            values.entry(name).and_modify(|known| *known = [known, ";", &value].concat()).or_insert(value);
        }
    }
    for (name, value) in &values {
        labels.push(name, value);
    }
    exposition.labelled(&labels, 1)
}
