//! The metrics as OTLP: cumulative, one resource per service.

use agent_common::ids::UnixNanos;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, exemplar, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_semantic_conventions::attribute as key;

use super::Registry;
use super::exposition::MetricKind;
use super::histogram::{Exemplars, seconds};
use super::instrument::{HISTOGRAMS, Instrument, LEVELS, Measure, NUMBERS, distribution, value};
use super::series::Series;
use super::service::Service;
use crate::signal::attribute::AttributeSink;
use crate::signal::http::SCHEMA_URL;
use crate::signal::resource::Value;
use crate::signal::span::Kind;

/// Data points in one request, each at most some 2 KiB: receivers refuse messages of more than 4 MiB by default.
const POINTS: usize = 1_000;

/// The instrumentation scope's name, the same as that of spans.
const SCOPE: &str = "remora";

/// The name of a service that is not known (semantic conventions, `service.name`).
const UNKNOWN_SERVICE: &str = "unknown_service";

impl Registry {
    /// All metrics at `now`, in as many requests as their size asks for; none when there is nothing.
    ///
    /// Values are cumulative since their service was first seen. The agent's own metrics are not among them.
    #[must_use]
    pub fn to_otlp(&self, now: UnixNanos) -> Vec<ExportMetricsServiceRequest> {
        let mut requests = Requests::default();
        for service in self.services.iter().chain([&self.others]) {
            requests.service(service);
            for (kind, measure, instrument) in &HISTOGRAMS {
                let points = service.of_kind(*kind).filter_map(|series| histogram(service, series, *measure, now));
                requests.put(instrument, points, |points| {
                    let aggregation_temporality = AggregationTemporality::Cumulative.into();
                    metric::Data::Histogram(Histogram { data_points: points, aggregation_temporality })
                });
            }
            for (sort, instrument) in &NUMBERS {
                let points = service.of_kind(Kind::Client).filter_map(|series| {
                    let mut attributes = Attributes::default();
                    let value = value(series, *sort)?;
                    series.labels.attributes(&mut attributes);
                    Some(number(service, attributes, value, now))
                });
                requests.put(instrument, points, |points| sum(instrument, points));
            }
            for (is_of, instrument) in &LEVELS {
                let points = service.levels.iter().filter(|(level, _)| is_of(level)).map(|(level, value)| {
                    let mut attributes = Attributes::default();
                    level.attributes(&mut attributes);
                    number(service, attributes, *value, now)
                });
                requests.put(instrument, points, |points| sum(instrument, points));
            }
        }
        requests.all
    }
}

/// Requests being filled. A service may begin in one and go on in the next.
#[derive(Default)]
struct Requests {
    all: Vec<ExportMetricsServiceRequest>,
    /// The resource of what comes next.
    resource: Resource,
    /// Whether the last request has that resource last.
    begun: bool,
    /// Points that the last request has.
    points: usize,
}

impl Requests {
    fn service(&mut self, service: &Service) {
        self.resource = resource(service);
        self.begun = false;
    }

    fn put<P>(
        &mut self,
        instrument: &Instrument,
        points: impl Iterator<Item = P>,
        data: impl Fn(Vec<P>) -> metric::Data,
    ) {
        let mut points = points.peekable();
        while points.peek().is_some() {
            if self.points >= POINTS {
                (self.points, self.begun) = (0, false);
                self.all.push(ExportMetricsServiceRequest::default());
            }
            let some: Vec<P> = points.by_ref().take(POINTS - self.points).collect();
            self.points += some.len();
            let metric = Metric {
                name: instrument.name.to_owned(),
                description: instrument.family.help.to_owned(),
                unit: instrument.unit.to_owned(),
                data: Some(data(some)),
                ..Metric::default()
            };
            self.push(metric);
        }
    }

    /// Adds a metric of the current service to the last request.
    fn push(&mut self, metric: Metric) {
        let mut request = self.all.pop().unwrap_or_default();
        match request.resource_metrics.last_mut().and_then(|resource| resource.scope_metrics.last_mut()) {
            Some(scope) if self.begun => scope.metrics.push(metric),
            _ => {
                let scope = InstrumentationScope {
                    name: SCOPE.to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                };
                let schema_url = SCHEMA_URL.to_owned();
                let metrics = ScopeMetrics { scope: Some(scope), metrics: vec![metric], schema_url };
                request.resource_metrics.push(ResourceMetrics {
                    resource: Some(self.resource.clone()),
                    scope_metrics: vec![metrics],
                    schema_url: SCHEMA_URL.to_owned(),
                });
                self.begun = true;
            }
        }
        self.all.push(request);
    }
}

fn resource(service: &Service) -> Resource {
    let mut attributes = Attributes::default();
    for (key, value) in &service.attributes {
        match value {
            Value::Str(value) => attributes.str(key, value),
            Value::Int(value) => attributes.int(key, *value),
            Value::Strs(values) => {
                let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
                attributes.strs(key, &values);
            }
        }
    }
    if !attributes.0.iter().any(|attribute| attribute.key == key::SERVICE_NAME) {
        attributes.str(key::SERVICE_NAME, service.identity.as_ref().map_or(UNKNOWN_SERVICE, |identity| &identity.name));
    }
    Resource { attributes: attributes.0, ..Resource::default() }
}

fn histogram(service: &Service, series: &Series, measure: Measure, now: UnixNanos) -> Option<HistogramDataPoint> {
    let distribution = distribution(series, measure)?;
    let mut attributes = Attributes::default();
    series.labels.attributes(&mut attributes);
    let exemplars = distribution.exemplars.into_iter().flat_map(Exemplars::iter);
    Some(HistogramDataPoint {
        attributes: attributes.0,
        start_time_unix_nano: service.start.0,
        time_unix_nano: now.0,
        count: distribution.counts.iter().sum(),
        sum: Some(distribution.sum),
        bucket_counts: distribution.counts.to_vec(),
        explicit_bounds: distribution.bounds.to_vec(),
        exemplars: exemplars
            .map(|exemplar| Exemplar {
                filtered_attributes: Vec::new(),
                time_unix_nano: exemplar.at.0,
                span_id: exemplar.span_id.0.to_vec(),
                trace_id: exemplar.trace_id.0.to_vec(),
                value: Some(exemplar::Value::AsDouble(seconds(exemplar.nanos))),
            })
            .collect(),
        ..HistogramDataPoint::default()
    })
}

fn number(service: &Service, attributes: Attributes, value: u64, now: UnixNanos) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes.0,
        start_time_unix_nano: service.start.0,
        time_unix_nano: now.0,
        value: i64::try_from(value).ok().map(number_data_point::Value::AsInt),
        ..NumberDataPoint::default()
    }
}

/// A counter only grows; what is a gauge to Prometheus is a counter that goes both ways.
fn sum(instrument: &Instrument, data_points: Vec<NumberDataPoint>) -> metric::Data {
    let is_monotonic = instrument.family.kind == MetricKind::Counter;
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    metric::Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
}

/// Attributes in OTLP's form.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn push(&mut self, key: &str, value: Any) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }
}

impl AttributeSink for Attributes {
    fn str(&mut self, key: &str, value: &str) {
        self.push(key, Any::StringValue(value.to_owned()));
    }

    fn int(&mut self, key: &str, value: i64) {
        self.push(key, Any::IntValue(value));
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.push(key, Any::BoolValue(value));
    }

    fn double(&mut self, key: &str, value: f64) {
        self.push(key, Any::DoubleValue(value));
    }

    fn strs(&mut self, key: &str, values: &[&str]) {
        let value = |value: &&str| AnyValue { value: Some(Any::StringValue((*value).to_owned())) };
        self.push(key, Any::ArrayValue(ArrayValue { values: values.iter().map(value).collect() }));
    }
}
