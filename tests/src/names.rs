//! Names that the tests rely on and that no standard gives: the agent's own metrics and its values of `error.type`.

/// What the kernel side did, by `operation`; [`OPERATION_SEGMENTS`] counts the segment records it wanted to hand over.
pub const KERNEL_OPERATIONS: &str = "remora_kernel_operations_total";
pub const OPERATION_SEGMENTS: &str = "segments";
/// Records taken out of the rings, by `ring`.
pub const RECORDS: &str = "remora_records_total";
pub const RING_SEGMENTS: &str = "segments";
/// What the kernel side could not hand over, by `reason`.
pub const KERNEL_DROPS: &str = "remora_kernel_drops_total";
pub const SEGMENT_RING_FULL: &str = "segment_ring_full";
/// Spans given to the exporters, each to all of them.
pub const SPANS: &str = "remora_spans_total";
/// Spans delivered, by `exporter`.
pub const SPANS_EXPORTED: &str = "remora_spans_exported_total";
/// Spans not delivered, by `exporter` and `reason`.
pub const SPANS_DROPPED: &str = "remora_spans_dropped_total";
/// The value of `exporter` of OTLP.
pub const OTLP: &str = "otlp";

/// What was found out about connections, by `what`; `unsupported` for those of a protocol that is known and not followed.
pub const CONNECTION_COUNTS: &str = "remora_connection_observations_total";

/// Files with functions of TLS libraries that are hooked.
pub const TLS_FILES: &str = "remora_tls_files";

/// The duration histograms' names in the Prometheus exposition (OpenTelemetry's compatibility rules).
pub const SERVER_DURATION: &str = "http_server_request_duration_seconds";
pub const CLIENT_DURATION: &str = "http_client_request_duration_seconds";

/// What a messaging client does, by operation and destination, and how many messages it sends and receives by it.
pub const MESSAGING_DURATION: &str = "messaging_client_operation_duration_seconds";
pub const MESSAGES_SENT: &str = "messaging_client_sent_messages_total";
pub const MESSAGES_CONSUMED: &str = "messaging_client_consumed_messages_total";
/// From the send to the fetch that brings it, by destination and group.
pub const TIME_IN_QUEUE: &str = "remora_messaging_time_in_queue_seconds";
/// How far a group is behind, by destination, partition and group.
pub const EXCHANGES_LOST: &str = "remora_exchanges_lost_total";
pub const CONSUMER_LAG: &str = "remora_messaging_consumer_lag";

/// `error.type` of what fails below HTTP's own status codes.
pub mod error {
    pub const REFUSED: &str = "connection_refused";
    pub const RESET: &str = "connection_reset";
    pub const SERVER_CLOSED: &str = "server_closed";
    pub const CLIENT_CLOSED: &str = "client_closed";
}
