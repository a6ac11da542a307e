use std::io::Write as _;

use super::*;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

fn config(signal: Signal, variables: &[(&str, &str)]) -> Result<Option<OtlpConfig>, ConfigError> {
    OtlpConfig::from_env(signal, &|name| {
        variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    })
}

fn traces(variables: &[(&str, &str)]) -> OtlpConfig {
    config(Signal::Traces, variables).unwrap().unwrap()
}

#[test]
fn without_an_endpoint_there_is_no_export() {
    for variables in [&[][..], &[(ENDPOINT, "")], &[(ENDPOINT, " "), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]] {
        assert!(config(Signal::Traces, variables).unwrap().is_none());
    }
    let of_metrics = [("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://a")];
    assert!(config(Signal::Traces, &of_metrics).unwrap().is_none());
}

#[test]
fn endpoints_follow_the_specification() {
    let (grpc, http) = ("grpc", "http/protobuf");
    let grpc_path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let cases = [
        (ENDPOINT, http, "http://collector:4318", "http://collector:4318/v1/traces".to_owned()),
        (ENDPOINT, http, "http://collector:4318/", "http://collector:4318/v1/traces".to_owned()),
        (ENDPOINT, http, "https://c/mycollector/", "https://c/mycollector/v1/traces".to_owned()),
        (ENDPOINT, http, "http://[::1]:4318/a?b=c", "http://[::1]:4318/a/v1/traces?b=c".to_owned()),
        (TRACES_ENDPOINT, http, "http://collector:4318", "http://collector:4318/".to_owned()),
        (TRACES_ENDPOINT, http, "http://c/own/path", "http://c/own/path".to_owned()),
        (ENDPOINT, grpc, "http://collector:4317", format!("http://collector:4317{grpc_path}")),
        (TRACES_ENDPOINT, grpc, "https://collector:4317/x", format!("https://collector:4317{grpc_path}")),
        (ENDPOINT, grpc, "collector:4317", format!("https://collector:4317{grpc_path}")),
    ];
    for (variable, protocol, endpoint, expected) in cases {
        let config = traces(&[(variable, endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
        assert_eq!(config.endpoint.to_string(), expected, "{variable} {endpoint}");
    }
    let insecure = [
        (ENDPOINT, "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "TRUE"),
    ];
    assert_eq!(traces(&insecure).endpoint.scheme_str(), Some("http"));
    let metrics = config(Signal::Metrics, &[(ENDPOINT, "http://c")]).unwrap().unwrap();
    assert_eq!(metrics.endpoint.to_string(), "http://c/v1/metrics");
}

#[test]
fn a_setting_of_the_signal_comes_before_the_general_one() {
    let config = traces(&[
        (ENDPOINT, "http://general"),
        (TRACES_ENDPOINT, "http://own/"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2"),
    ]);
    assert_eq!(config.endpoint.to_string(), "http://own/");
    assert_eq!(config.timeout, Duration::from_millis(2500));
    assert!(config.gzip);
    assert!(config.headers.get("a").is_none() && config.headers.get("b").is_some());
}

#[test]
fn defaults() {
    let config = traces(&[(ENDPOINT, "http://c")]);
    assert_eq!(config.protocol, Protocol::HttpProtobuf);
    assert_eq!(config.timeout, Duration::from_secs(10));
    assert!(!config.gzip && config.headers.is_empty() && config.tls.identity.is_none());
    assert_eq!(
        config.limits,
        Limits {
            spans: 65_536,
            bytes: 8 << 20,
            batch_spans: 2048,
            batch_bytes: 1 << 20,
            delay: Duration::from_secs(1)
        }
    );
    let small = traces(&[(ENDPOINT, "http://c"), ("OTEL_BSP_MAX_QUEUE_SIZE", "100")]);
    assert_eq!((small.limits.spans, small.limits.batch_spans), (100, 100));
}

#[test]
fn headers_are_decoded_and_sensitive() {
    let value = " api-key = a%20b%3D%2C , X-Scope=tenant=1,, empty=";
    let config = traces(&[(ENDPOINT, "http://c"), ("OTEL_EXPORTER_OTLP_HEADERS", value)]);
    let read: Vec<_> = config.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(read, [("api-key", "a b=,"), ("x-scope", "tenant=1"), ("empty", "")]);
    assert!(config.headers.values().all(HeaderValue::is_sensitive));
    assert!(!format!("{config:?}").contains("tenant"));
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let cases = [
        (ENDPOINT, "localhost:4318", "URL"),
        (ENDPOINT, "ftp://c", "URL"),
        (ENDPOINT, "http://", "URL"),
        (ENDPOINT, "http://:4318", "URL"),
        (ENDPOINT, "http://user:secret@c", "no user name"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "GRPC", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip or none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "from 1 to"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a", "key=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", "key=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0a", "key=value"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "yes", "true or false"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/does/not/exist", "PEM"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/does/not/exist", "CLIENT_KEY"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/does/not/exist", "CLIENT_CERTIFICATE"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "spans"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000", "not be larger"),
        ("OTEL_BSP_SCHEDULE_DELAY", "x", "milliseconds"),
        ("REMORA_OTLP_QUEUE_BYTES", "0", "octets"),
    ];
    for (variable, value, expected) in cases {
        let error = config(Signal::Traces, &[(variable, value), (ENDPOINT, "http://c")]).unwrap_err().to_string();
        assert!(error.starts_with(variable) && error.contains(expected), "{variable}={value}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_file_without_certificates_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"nothing of use\n").unwrap();
    let variables = [(ENDPOINT, "https://c"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", file.path().to_str().unwrap())];
    let error = config(Signal::Traces, &variables).unwrap_err().to_string();
    assert!(error.contains("none in it"), "{error}");
}
