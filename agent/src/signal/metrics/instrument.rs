//! The instruments of HTTP, gRPC and messaging: names, units and descriptions as the semantic conventions have them.

use opentelemetry_semantic_conventions::metric;

use super::exposition::{Family, MetricKind};
use super::histogram::{DURATION_SECONDS, Exemplars, SIZE, Sizes, WAIT_SECONDS, seconds};
use super::labels::{Sort, What};
use super::levels::Level;
use super::series::{Series, Timed, Values};
use crate::signal::span::Kind;

/// A name, unit and description, and the family that Prometheus knows it as.
pub(super) struct Instrument {
    pub(super) name: &'static str,
    /// UCUM.
    pub(super) unit: &'static str,
    pub(super) family: Family,
}

/// What a histogram's values are.
#[derive(Clone, Copy)]
pub(super) enum Measure {
    Duration,
    /// Of calls of gRPC.
    CallDuration,
    RequestBody,
    ResponseBody,
    /// Of calls of messaging.
    OperationDuration,
    TimeInQueue,
}

/// A histogram of a series.
pub(super) struct Distribution<'a> {
    /// Upper bounds in the unit of export, rising; one fewer than there are counts.
    pub(super) bounds: &'static [f64],
    pub(super) counts: &'a [u64],
    /// In the unit of export.
    pub(super) sum: f64,
    pub(super) exemplars: Option<&'a Exemplars>,
}

const fn histogram(name: &'static str, unit: &'static str, family: &'static str, help: &'static str) -> Instrument {
    let unit_word = if unit.len() == 1 { "seconds" } else { "bytes" };
    Instrument { name, unit, family: Family { name: family, help, kind: MetricKind::Histogram, unit: Some(unit_word) } }
}

const fn number(
    kind: MetricKind,
    name: &'static str,
    unit: &'static str,
    family: &'static str,
    help: &'static str,
) -> Instrument {
    Instrument { name, unit, family: Family { name: family, help, kind, unit: None } }
}

const fn level(name: &'static str, unit: &'static str, family: &'static str, help: &'static str) -> Instrument {
    number(MetricKind::Gauge, name, unit, family, help)
}

/// The conventions have no calls that a broker serves, and no time in queues, so these are ours.
pub(super) const HISTOGRAMS: [(Kind, Measure, Instrument); 11] = [
    (
        Kind::Server,
        Measure::Duration,
        histogram(
            metric::HTTP_SERVER_REQUEST_DURATION,
            "s",
            "http_server_request_duration_seconds",
            "Duration of HTTP server requests.",
        ),
    ),
    (
        Kind::Client,
        Measure::Duration,
        histogram(
            metric::HTTP_CLIENT_REQUEST_DURATION,
            "s",
            "http_client_request_duration_seconds",
            "Duration of HTTP client requests.",
        ),
    ),
    (
        Kind::Server,
        Measure::CallDuration,
        histogram(
            metric::RPC_SERVER_CALL_DURATION,
            "s",
            "rpc_server_call_duration_seconds",
            "Duration of incoming calls.",
        ),
    ),
    (
        Kind::Client,
        Measure::CallDuration,
        histogram(
            metric::RPC_CLIENT_CALL_DURATION,
            "s",
            "rpc_client_call_duration_seconds",
            "Duration of outgoing calls.",
        ),
    ),
    (
        Kind::Server,
        Measure::RequestBody,
        histogram(
            metric::HTTP_SERVER_REQUEST_BODY_SIZE,
            "By",
            "http_server_request_body_size_bytes",
            "Size of HTTP server request bodies.",
        ),
    ),
    (
        Kind::Server,
        Measure::ResponseBody,
        histogram(
            metric::HTTP_SERVER_RESPONSE_BODY_SIZE,
            "By",
            "http_server_response_body_size_bytes",
            "Size of HTTP server response bodies.",
        ),
    ),
    (
        Kind::Client,
        Measure::RequestBody,
        histogram(
            metric::HTTP_CLIENT_REQUEST_BODY_SIZE,
            "By",
            "http_client_request_body_size_bytes",
            "Size of HTTP client request bodies.",
        ),
    ),
    (
        Kind::Client,
        Measure::ResponseBody,
        histogram(
            metric::HTTP_CLIENT_RESPONSE_BODY_SIZE,
            "By",
            "http_client_response_body_size_bytes",
            "Size of HTTP client response bodies.",
        ),
    ),
    (
        Kind::Client,
        Measure::OperationDuration,
        histogram(
            metric::MESSAGING_CLIENT_OPERATION_DURATION,
            "s",
            "messaging_client_operation_duration_seconds",
            "Duration of messaging operation initiated by a producer or consumer client.",
        ),
    ),
    (
        Kind::Server,
        Measure::OperationDuration,
        histogram(
            "remora.messaging.server.operation.duration",
            "s",
            "remora_messaging_server_operation_duration_seconds",
            "Duration of messaging operation served by a broker.",
        ),
    ),
    (
        Kind::Client,
        Measure::TimeInQueue,
        histogram(
            "remora.messaging.time_in_queue",
            "s",
            "remora_messaging_time_in_queue_seconds",
            "Time from when a message was sent to when a consumer received it.",
        ),
    ),
];

/// The instruments of series that are one number, all of them of clients. The conventions have no lag, so that one is ours.
pub(super) const NUMBERS: [(Sort, Instrument); 3] = [
    (
        Sort::Sent,
        number(
            MetricKind::Counter,
            metric::MESSAGING_CLIENT_SENT_MESSAGES,
            "{message}",
            "messaging_client_sent_messages",
            "Number of messages producer attempted to send to the broker.",
        ),
    ),
    (
        Sort::Consumed,
        number(
            MetricKind::Counter,
            metric::MESSAGING_CLIENT_CONSUMED_MESSAGES,
            "{message}",
            "messaging_client_consumed_messages",
            "Number of messages that were delivered to the application.",
        ),
    ),
    (
        Sort::Lag,
        level(
            "remora.messaging.consumer.lag",
            "{message}",
            "remora_messaging_consumer_lag",
            "Number of messages of a partition that a consumer group has not received yet.",
        ),
    ),
];

/// Whether an instrument is about a level.
type IsAbout = fn(&Level) -> bool;

/// The instruments of what goes on at the moment. The conventions have no open connections of a server, so that one is ours.
pub(super) const LEVELS: [(IsAbout, Instrument); 4] = [
    (
        |level| matches!(level, Level::ServerRequests(..)),
        level(
            metric::HTTP_SERVER_ACTIVE_REQUESTS,
            "{request}",
            "http_server_active_requests",
            "Number of active HTTP server requests.",
        ),
    ),
    (
        |level| matches!(level, Level::ClientRequests(..)),
        level(
            metric::HTTP_CLIENT_ACTIVE_REQUESTS,
            "{request}",
            "http_client_active_requests",
            "Number of active HTTP client requests.",
        ),
    ),
    (
        |level| matches!(level, Level::ServerConnections { .. }),
        level(
            "remora.http.server.open_connections",
            "{connection}",
            "remora_http_server_open_connections",
            "Number of inbound HTTP connections that are active or idle.",
        ),
    ),
    (
        |level| matches!(level, Level::ClientConnections { .. }),
        level(
            metric::HTTP_CLIENT_OPEN_CONNECTIONS,
            "{connection}",
            "http_client_open_connections",
            "Number of outbound HTTP connections that are active or idle.",
        ),
    ),
];

/// What a series has of a measure; `None` when no value was ever known.
pub(super) fn distribution(series: &Series, measure: Measure) -> Option<Distribution<'_>> {
    match (measure, &series.values) {
        (Measure::Duration | Measure::CallDuration, Values::Exchange { durations, .. }) => {
            let is_grpc = matches!(series.labels.what, What::Grpc { .. });
            (is_grpc == matches!(measure, Measure::CallDuration)).then(|| timed(durations, &DURATION_SECONDS))
        }
        (Measure::RequestBody, Values::Exchange { request_body, .. }) => request_body.as_deref().map(sized),
        (Measure::ResponseBody, Values::Exchange { response_body, .. }) => response_body.as_deref().map(sized),
        (Measure::OperationDuration, Values::Operation(durations)) => Some(timed(durations, &DURATION_SECONDS)),
        (Measure::TimeInQueue, Values::Wait(waits)) => Some(timed(waits, &WAIT_SECONDS)),
        _ => None,
    }
}

fn timed<'a, const N: usize>(timed: &'a Timed<N>, bounds: &'static [f64]) -> Distribution<'a> {
    let Timed { histogram, exemplars } = timed;
    Distribution { bounds, counts: &histogram.counts, sum: seconds(histogram.sum), exemplars: Some(exemplars) }
}

fn sized(sizes: &Sizes) -> Distribution<'_> {
    #[expect(clippy::cast_precision_loss, reason = "octets up to 8 PiB are exact")]
    let sum = sizes.sum as f64;
    Distribution { bounds: &SIZE_BOUNDS, counts: &sizes.counts, sum, exemplars: None }
}

/// The number that a series of a sort is.
pub(super) fn value(series: &Series, sort: Sort) -> Option<u64> {
    match series.values {
        Values::Count(value) | Values::Lag { messages: value, .. } if series.labels.what.sort() == sort => Some(value),
        _ => None,
    }
}

/// `SIZE` in the type of export.
static SIZE_BOUNDS: [f64; SIZE.len()] = {
    let mut bounds = [0.0; SIZE.len()];
    let mut index = 0;
    while index < SIZE.len() {
        #[expect(clippy::cast_precision_loss, reason = "powers of two")]
        #[allow(clippy::indexing_slicing, reason = "evaluated when compiled")]
        {
            bounds[index] = SIZE[index] as f64;
        }
        index += 1;
    }
    bounds
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_follow_from_instruments() {
        let histograms = HISTOGRAMS.iter().map(|(_, _, instrument)| instrument);
        let numbers = NUMBERS.iter().map(|(_, instrument)| instrument);
        for instrument in histograms.chain(numbers).chain(LEVELS.iter().map(|(_, instrument)| instrument)) {
            let suffix = match instrument.unit {
                "s" => "_seconds",
                "By" => "_bytes",
                unit if unit.starts_with('{') => "",
                unit => panic!("{unit}"),
            };
            assert_eq!(instrument.family.name, instrument.name.replace('.', "_") + suffix);
            assert_eq!(instrument.family.unit.map_or(String::new(), |unit| format!("_{unit}")), suffix);
        }
    }
}
