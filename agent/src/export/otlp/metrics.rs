//! Metrics by OTLP: everything there is, each interval, cumulative; so one export that fails loses no count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::config::{ConfigError, OtlpConfig};
use super::retry::{self, Health, Policy, Verdict};
use super::transport::{Transport, TransportError};

/// Milliseconds between exports (OpenTelemetry environment variable specification, "Periodic exporting MetricReader").
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);

/// The time between exports.
///
/// # Errors
/// When the variable is no number of milliseconds above 0.
pub fn interval(get: &dyn Fn(&str) -> Option<String>) -> Result<Duration, ConfigError> {
    let Some(value) = get(INTERVAL).filter(|value| !value.is_empty()) else { return Ok(DEFAULT_INTERVAL) };
    match value.trim().parse() {
        Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => {
            Err(ConfigError { variable: INTERVAL.to_owned(), problem: "expected milliseconds, at least 1".to_owned() })
        }
    }
}

/// What became of the data points so far.
#[derive(Debug, Default)]
pub struct Points {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl Points {
    /// Delivered, and not delivered.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.exported.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

/// Exports what `source` gives, each `interval` and once more at the end.
///
/// # Errors
/// When certificates or key cannot be used.
pub fn start(
    config: OtlpConfig,
    interval: Duration,
    source: impl Fn() -> Vec<ExportMetricsServiceRequest> + Send + 'static,
    closing: CancellationToken,
) -> Result<(tokio::task::JoinHandle<()>, Arc<Points>), TransportError> {
    let transport = Transport::new(config)?;
    let points = Arc::new(Points::default());
    let task = tokio::spawn({
        let points = Arc::clone(&points);
        async move {
            // The next export has all of it again, so there is no use in trying this one for longer than that.
            let policy = Policy { give_up: interval.min(Policy::default().give_up), ..Policy::default() };
            let health = Health::default();
            loop {
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = closing.cancelled() => {}
                }
                for request in source() {
                    export(&transport, &request, policy, &health, &closing, &points).await;
                }
                if closing.is_cancelled() {
                    return;
                }
            }
        }
    });
    Ok((task, points))
}

async fn export(
    transport: &Transport,
    request: &ExportMetricsServiceRequest,
    policy: Policy,
    health: &Health,
    closing: &CancellationToken,
    points: &Points,
) {
    let all = count(request);
    let body = transport.pack(&request.encode_to_vec());
    let (dropped, why) = match retry::deliver(transport, body, policy, health, closing, || {}).await {
        Verdict::Accepted { rejected, message } => (rejected.min(all), message),
        Verdict::Refused { why } | Verdict::BadAnswer { why } | Verdict::GaveUp { why } => (all, why),
    };
    points.exported.fetch_add(all - dropped, Ordering::Relaxed);
    if dropped > 0 && points.dropped.fetch_add(dropped, Ordering::Relaxed) == 0 {
        tracing::warn!(dropped, why, "metrics were not delivered; further losses are counted only");
    }
}

/// The data points of a request.
fn count(request: &ExportMetricsServiceRequest) -> u64 {
    let metrics = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    metrics
        .flat_map(|scope| &scope.metrics)
        .map(|metric| match &metric.data {
            Some(Data::Gauge(data)) => data.data_points.len() as u64,
            Some(Data::Sum(data)) => data.data_points.len() as u64,
            Some(Data::Histogram(data)) => data.data_points.len() as u64,
            _ => 0,
        })
        .sum()
}
