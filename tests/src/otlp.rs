//! A real OTLP receiver, by gRPC or by HTTP with protobuf, that can be made to misbehave.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::codec::CompressionEncoding;

use crate::span::{self, Span};

/// How the receiver treats requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Normal,
    /// Answers after this time.
    Slow(Duration),
    /// Never answers.
    Hang,
    /// Says that it cannot now (gRPC `UNAVAILABLE`, HTTP 503): to be tried again.
    Unavailable,
    /// Says that the request is wrong (gRPC `INVALID_ARGUMENT`, HTTP 400): not to be tried again.
    Refuse,
    /// HTTP 500, which OTLP does not allow to retry; gRPC `INTERNAL`, likewise.
    Broken,
    /// HTTP 200 with a body that is no OTLP; by gRPC the same as `Broken`.
    Garbage,
    /// Takes the request but rejects this many of its spans.
    Partial(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

impl Protocol {
    /// The value of `OTEL_EXPORTER_OTLP_PROTOCOL`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// What a receiver has taken.
#[derive(Default)]
struct Taken {
    spans: Vec<Span>,
    requests: u64,
    /// Names and values of the headers of the last request.
    headers: Vec<(String, String)>,
    /// What was wrong with a request that should have been right.
    faults: Vec<String>,
    metrics: Vec<ExportMetricsServiceRequest>,
}

struct Shared {
    mode: Mutex<Mode>,
    taken: Mutex<Taken>,
}

/// A receiver that listens. Closed on drop.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Receiver {
    /// Listens on a port chosen by the kernel.
    pub fn start(protocol: Protocol) -> Result<Self> {
        Self::start_on(protocol, 0)
    }

    /// Listens on `port`, which may have been another receiver's before.
    pub fn start_on(protocol: Protocol, port: u16) -> Result<Self> {
        let shared = Arc::new(Shared { mode: Mutex::new(Mode::Normal), taken: Mutex::default() });
        let (runtime, listener, address) = listen(port)?;
        match protocol {
            Protocol::Grpc => {
                let service = TraceServiceServer::from_arc(Arc::new(Grpc(Arc::clone(&shared))))
                    .accept_compressed(CompressionEncoding::Gzip)
                    .max_decoding_message_size(64 << 20);
                let metrics = MetricsServiceServer::from_arc(Arc::new(Grpc(Arc::clone(&shared))))
                    .accept_compressed(CompressionEncoding::Gzip);
                let server = tonic::transport::Server::builder().add_service(service).add_service(metrics);
                runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            }
            Protocol::Http => {
                let router = axum::Router::new()
                    .route("/v1/traces", post(traces))
                    .route("/v1/metrics", post(metrics))
                    .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
                    .with_state(Arc::clone(&shared));
                runtime.spawn(async move { axum::serve(listener, router).await });
            }
        }
        Ok(Self { address, shared, runtime: Some(runtime) })
    }

    /// The value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, mode: Mode) {
        *lock(&self.shared.mode) = mode;
    }

    /// All spans taken until now.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.shared.taken).spans.clone()
    }

    /// How many requests came, whatever was done with them.
    #[must_use]
    pub fn requests(&self) -> u64 {
        lock(&self.shared.taken).requests
    }

    /// A header of the last request.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let taken = lock(&self.shared.taken);
        taken.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    }

    /// How many values the histogram `name` has counted by its last export, over all resources and attributes.
    #[must_use]
    pub fn histogram_count(&self, name: &str) -> u64 {
        let taken = lock(&self.shared.taken);
        // An export may be spread over several requests; the largest sum is the last one, since counts only rise.
        let count = |request: &ExportMetricsServiceRequest| -> u64 {
            let metrics = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
            metrics.filter(|metric| metric.name == name).map(points).sum()
        };
        taken.metrics.iter().map(count).max().unwrap_or(0)
    }

    /// Requests that were no OTLP.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        lock(&self.shared.taken).faults.clone()
    }
}

fn points(metric: &opentelemetry_proto::tonic::metrics::v1::Metric) -> u64 {
    match &metric.data {
        Some(Data::Histogram(histogram)) => histogram.data_points.iter().map(|point| point.count).sum(),
        _ => 0,
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Requests that hang must not hold up the end; once the tasks are gone the port is free.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

/// Something that takes connections and answers octets that no protocol knows.
pub struct Nonsense {
    pub address: SocketAddr,
    _runtime: Runtime,
}

impl Nonsense {
    pub fn start() -> Result<Self> {
        let (runtime, listener, address) = listen(0)?;
        runtime.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&[0xff, 0x00, b'?', 0x80].repeat(64)).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Ok(Self { address, _runtime: runtime })
    }
}

fn listen(port: u16) -> Result<(Runtime, TcpListener, SocketAddr)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port))).context("cannot listen for OTLP")?;
    let address = listener.local_addr()?;
    Ok((runtime, listener, address))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Keeps what came, less what the mode refuses; gives the answer of the modes that take requests.
    fn take(&self, request: ExportTraceServiceRequest, mode: Mode) -> ExportTraceServiceResponse {
        let mut taken = lock(&self.taken);
        match span::from_proto(request) {
            Ok(spans) => {
                let rejected = match mode {
                    Mode::Partial(rejected) => usize::try_from(rejected).unwrap_or(0).min(spans.len()),
                    _ => 0,
                };
                taken.spans.extend(spans.into_iter().skip(rejected));
                let partial = (rejected > 0).then(|| ExportTracePartialSuccess {
                    rejected_spans: i64::try_from(rejected).unwrap_or(i64::MAX),
                    error_message: "rejected by the test".to_owned(),
                });
                return ExportTraceServiceResponse { partial_success: partial };
            }
            Err(error) => taken.faults.push(error.to_string()),
        }
        ExportTraceServiceResponse::default()
    }

    /// Notes that a request came; gives how to treat it, after the time that takes.
    async fn arrived(&self, headers: Vec<(String, String)>) -> Mode {
        {
            let mut taken = lock(&self.taken);
            taken.requests += 1;
            taken.headers = headers;
        }
        let mode = *lock(&self.mode);
        match mode {
            Mode::Slow(time) => tokio::time::sleep(time).await,
            Mode::Hang => std::future::pending().await,
            _ => {}
        }
        mode
    }
}

struct Grpc(Arc<Shared>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        match self.0.arrived(texts(&headers)).await {
            Mode::Unavailable => Err(Status::unavailable("by the test")),
            Mode::Refuse => Err(Status::invalid_argument("by the test")),
            Mode::Broken | Mode::Garbage => Err(Status::internal("by the test")),
            mode => Ok(tonic::Response::new(self.0.take(request.into_inner(), mode))),
        }
    }
}

/// Metrics are always taken: the modes are about traces.
#[tonic::async_trait]
impl MetricsService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        lock(&self.0.taken).metrics.push(request.into_inner());
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut taken = lock(&shared.taken);
    match decode(&headers, &body) {
        Ok(request) => {
            taken.metrics.push(request);
            ([("content-type", "application/x-protobuf")], Vec::new()).into_response()
        }
        Err(error) => {
            taken.faults.push(format!("{error:#}"));
            StatusCode::BAD_REQUEST.into_response()
        }
    }
}

async fn traces(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    match shared.arrived(texts(&headers)).await {
        Mode::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mode::Refuse => StatusCode::BAD_REQUEST.into_response(),
        Mode::Broken => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mode::Garbage => "\u{1}<html>no OTLP at all</html>".into_response(),
        mode => match decode(&headers, &body) {
            Ok(request) => {
                let answer = shared.take(request, mode).encode_to_vec();
                ([("content-type", "application/x-protobuf")], answer).into_response()
            }
            Err(error) => {
                lock(&shared.taken).faults.push(format!("{error:#}"));
                StatusCode::BAD_REQUEST.into_response()
            }
        },
    }
}

fn decode<M: Message + Default>(headers: &HeaderMap, body: &[u8]) -> Result<M> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    anyhow::ensure!(header("content-type") == "application/x-protobuf", "content-type {:?}", header("content-type"));
    let mut plain = Vec::new();
    match header("content-encoding") {
        "" | "identity" => plain.extend_from_slice(body),
        "gzip" => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut plain)?),
        other => anyhow::bail!("content-encoding {other}"),
    }
    Ok(M::decode(plain.as_slice())?)
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as ProtoSpan};

    use super::*;

    fn request(spans: usize) -> ExportTraceServiceRequest {
        let span = |i: usize| ProtoSpan {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: format!("span {i}"),
            ..ProtoSpan::default()
        };
        let spans = (0..spans).map(span).collect();
        let of_scope = ScopeSpans { spans, ..ScopeSpans::default() };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { scope_spans: vec![of_scope], ..ResourceSpans::default() }],
        }
    }

    fn post(receiver: &Receiver, body: &[u8], headers: &str) -> (u16, Vec<u8>) {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(receiver.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST /v1/traces HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
        (status, answer[head..].to_vec())
    }

    const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

    #[test]
    fn http_is_received_and_refused_as_told() {
        let receiver = Receiver::start(Protocol::Http).unwrap();
        let body = request(3).encode_to_vec();
        assert_eq!(post(&receiver, &body, PROTOBUF), (200, Vec::new()));
        let mut gzip = flate2::read::GzEncoder::new(body.as_slice(), flate2::Compression::fast());
        let mut packed = Vec::new();
        gzip.read_to_end(&mut packed).unwrap();
        assert_eq!(post(&receiver, &packed, &format!("{PROTOBUF}Content-Encoding: gzip\r\nX-Key: v\r\n")).0, 200);
        assert_eq!(receiver.spans().len(), 6);
        assert_eq!(receiver.header("x-key").as_deref(), Some("v"));
        receiver.set(Mode::Partial(2));
        let (status, answer) = post(&receiver, &body, PROTOBUF);
        let answer = ExportTraceServiceResponse::decode(answer.as_slice()).unwrap();
        assert_eq!((status, answer.partial_success.unwrap().rejected_spans, receiver.spans().len()), (200, 2, 7));
        for (mode, status) in [(Mode::Unavailable, 503), (Mode::Refuse, 400), (Mode::Broken, 500), (Mode::Garbage, 200)]
        {
            receiver.set(mode);
            assert_eq!(post(&receiver, &body, PROTOBUF).0, status, "{mode:?}");
        }
        receiver.set(Mode::Normal);
        assert!(receiver.faults().is_empty());
        assert_eq!(post(&receiver, b"\xff\xff", PROTOBUF).0, 400);
        assert_eq!((receiver.faults().len(), receiver.spans().len(), receiver.requests()), (1, 7, 8));
    }

    #[test]
    fn grpc_is_received_and_refused_as_told_and_comes_back_on_its_port() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let export = |receiver: &Receiver, spans: usize| {
            runtime.block_on(async {
                let mut client = TraceServiceClient::connect(receiver.endpoint()).await.unwrap();
                client.export(request(spans)).await.map(tonic::Response::into_inner)
            })
        };
        let receiver = Receiver::start(Protocol::Grpc).unwrap();
        assert!(export(&receiver, 4).unwrap().partial_success.is_none());
        receiver.set(Mode::Unavailable);
        assert_eq!(export(&receiver, 1).unwrap_err().code(), tonic::Code::Unavailable);
        receiver.set(Mode::Partial(1));
        assert_eq!(export(&receiver, 2).unwrap().partial_success.unwrap().rejected_spans, 1);
        assert_eq!((receiver.spans().len(), receiver.requests()), (5, 3));
        let port = receiver.address.port();
        drop(receiver);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "closed");
        let again = Receiver::start_on(Protocol::Grpc, port).unwrap();
        assert!(export(&again, 1).is_ok());
    }
}
