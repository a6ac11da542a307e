//! Against real receivers: tonic's gRPC server, axum, and sockets that answer whatever a test wants.

use std::collections::HashSet;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, StatusCode};
use axum::Router;
use axum::body::Bytes;
use axum::response::IntoResponse as _;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::codec::CompressionEncoding;
use tonic::metadata::KeyAndValueRef;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::config::Signal;
use super::*;
use crate::export::fixture;

const QUICK: Policy =
    Policy { initial: Duration::from_millis(20), max: Duration::from_millis(100), give_up: Duration::from_mins(1) };

/// What receivers noted.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    /// How long the gRPC receiver takes for each request, in milliseconds.
    delay: AtomicU64,
    spans: StdMutex<Vec<Vec<u8>>>,
    headers: StdMutex<Vec<(String, String)>>,
}

impl Seen {
    fn take(&self, request: &ExportTraceServiceRequest) {
        let spans = request.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        self.spans.lock().unwrap().extend(spans.map(|span| span.span_id.clone()));
    }

    fn count(&self) -> usize {
        self.spans.lock().unwrap().len()
    }

    fn distinct(&self) -> usize {
        self.spans.lock().unwrap().iter().collect::<HashSet<_>>().len()
    }

    fn header(&self, name: &str) -> Option<String> {
        self.headers.lock().unwrap().iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

/// The answer to the request with this number, counted from 0.
type GrpcScript = Box<dyn Fn(usize) -> Result<ExportTraceServiceResponse, Status> + Send + Sync>;

struct Grpc(Arc<Seen>, GrpcScript);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let number = self.0.requests.fetch_add(1, Ordering::SeqCst);
        let headers = request.metadata().iter().filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => Some((key.to_string(), value.to_str().ok()?.to_owned())),
            KeyAndValueRef::Binary(..) => None,
        });
        *self.0.headers.lock().unwrap() = headers.collect();
        tokio::time::sleep(Duration::from_millis(self.0.delay.load(Ordering::SeqCst))).await;
        let response = (self.1)(number)?;
        self.0.take(request.get_ref());
        Ok(tonic::Response::new(response))
    }
}

/// A port that nobody listens on, until somebody does.
async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn grpc_at(address: SocketAddr, tls: Option<ServerTlsConfig>, script: GrpcScript) -> (SocketAddr, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = TraceServiceServer::new(Grpc(Arc::clone(&seen), script)).accept_compressed(CompressionEncoding::Gzip);
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    tokio::spawn(server.add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
    (address, seen)
}

async fn grpc(
    script: impl Fn(usize) -> Result<ExportTraceServiceResponse, Status> + Send + Sync + 'static,
) -> (SocketAddr, Arc<Seen>) {
    grpc_at("127.0.0.1:0".parse().unwrap(), None, Box::new(script)).await
}

/// Status, content type and body of the answer to the request with this number.
type HttpScript = fn(usize) -> (u16, &'static str, Vec<u8>);

async fn http(script: HttpScript) -> (SocketAddr, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let noted = Arc::clone(&seen);
    let handler = move |headers: HeaderMap, body: Bytes| async move {
        let number = noted.requests.fetch_add(1, Ordering::SeqCst);
        let mut body = body.to_vec();
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip") {
            let compressed = std::mem::take(&mut body);
            flate2::read::GzDecoder::new(&*compressed).read_to_end(&mut body).unwrap();
        }
        let text = |value: &::http::HeaderValue| value.to_str().unwrap().to_owned();
        *noted.headers.lock().unwrap() = headers.iter().map(|(k, v)| (k.to_string(), text(v))).collect();
        let (status, content_type, answer) = script(number);
        if status == 200 {
            noted.take(&ExportTraceServiceRequest::decode(&*body).unwrap());
        }
        let headers = [(CONTENT_TYPE, content_type), (RETRY_AFTER, "0")];
        (StatusCode::from_u16(status).unwrap(), headers, answer).into_response()
    };
    let app = Router::new().route("/v1/traces", post(handler)).layer(axum::extract::DefaultBodyLimit::max(8 << 20));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    (address, seen)
}

fn config(protocol: &str, endpoint: &str, more: &[(&str, &str)]) -> OtlpConfig {
    let fixed = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ];
    let get = |name: &str| {
        let all = more.iter().chain(&fixed);
        all.into_iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    };
    OtlpConfig::from_env(Signal::Traces, &get).unwrap().unwrap()
}

fn start(protocol: &str, address: SocketAddr, more: &[(&str, &str)]) -> (Exporter, ExportHandle) {
    Exporter::start_with(config(protocol, &format!("http://{address}"), more), QUICK).unwrap()
}

fn balanced(books: Books) -> Books {
    assert_eq!(books.accepted, books.exported + books.dropped_total() + books.pending);
    books
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Pushes from a thread that knows nothing of tokio, as the agent does.
fn push(handle: &ExportHandle, first: u64, count: u64) {
    let handle = handle.clone();
    std::thread::spawn(move || handle.push(fixture::batch(first, count))).join().unwrap();
}

fn ok(_: usize) -> Result<ExportTraceServiceResponse, Status> {
    Ok(ExportTraceServiceResponse::default())
}

fn partial(rejected_spans: i64) -> ExportTraceServiceResponse {
    let error_message = "too old".to_owned();
    ExportTraceServiceResponse { partial_success: Some(ExportTracePartialSuccess { rejected_spans, error_message }) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_span_arrives_once() {
    let (grpc, grpc_seen) = grpc(ok).await;
    let (http, http_seen) = http(|_| (200, "application/x-protobuf", Vec::new())).await;
    for (protocol, address, seen) in [("grpc", grpc, grpc_seen), ("http/protobuf", http, http_seen)] {
        for (round, compression) in ["none", "gzip"].into_iter().enumerate() {
            let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=se%20cret,content-type=x");
            let (exporter, handle) =
                start(protocol, address, &[("OTEL_EXPORTER_OTLP_COMPRESSION", compression), headers]);
            for batch in 0..50 {
                push(&handle, ((round as u64) << 32) + batch * 200, 200);
            }
            let books = balanced(exporter.shutdown(Duration::from_secs(20)).await);
            assert_eq!((books.exported, books.dropped_total(), books.pending), (10_000, 0, 0), "{protocol}");
            assert_eq!((seen.count(), seen.distinct()), (10_000 * (round + 1), 10_000 * (round + 1)), "{protocol}");
            assert_eq!(seen.header("api-key").as_deref(), Some("se cret"));
            assert!(seen.header("user-agent").unwrap().starts_with("remora/"));
            if protocol == "http/protobuf" {
                assert_eq!(seen.header("content-type").as_deref(), Some("application/x-protobuf"));
                assert_eq!(seen.header("content-encoding").is_some(), compression == "gzip");
            } else {
                assert_eq!(seen.header("grpc-encoding").is_some(), compression == "gzip");
            }
        }
    }
}

#[tokio::test]
async fn a_few_spans_leave_after_the_delay() {
    let (address, seen) = grpc(ok).await;
    let (_exporter, handle) = start("grpc", address, &[]);
    push(&handle, 0, 3);
    eventually("delivered", || seen.count() == 3 && handle.books().exported == 3).await;
    push(&handle, 3, 1);
    eventually("delivered again", || handle.books().exported == 4).await;
}

#[tokio::test]
async fn a_dead_endpoint_costs_what_does_not_fit_and_recovers() {
    for protocol in ["grpc", "http/protobuf"] {
        let address = free_port().await;
        let limits = [("OTEL_BSP_MAX_QUEUE_SIZE", "1000"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")];
        let (exporter, handle) = start(protocol, address, &limits);
        for batch in 0..30 {
            push(&handle, batch * 100, 100);
        }
        eventually("retried", || handle.books().retries > 8).await;
        let books = balanced(handle.books());
        assert_eq!((books.pending, books.dropped(DropReason::QueueFull)), (1000, 2000), "{protocol}");
        let (_, seen) = if protocol == "grpc" {
            grpc_at(address, None, Box::new(ok)).await
        } else {
            let seen = Arc::new(Seen::default());
            let noted = Arc::clone(&seen);
            let app = Router::new().route(
                "/v1/traces",
                post(move |body: Bytes| async move {
                    noted.take(&ExportTraceServiceRequest::decode(body).unwrap());
                }),
            );
            let listener = TcpListener::bind(address).await.unwrap();
            tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
            (address, seen)
        };
        eventually("recovered", || handle.books().exported == 1000).await;
        assert_eq!((seen.count(), seen.distinct()), (1000, 1000), "{protocol}");
        push(&handle, 9000, 10);
        let books = balanced(exporter.shutdown(Duration::from_secs(10)).await);
        assert_eq!((books.exported, books.dropped_total()), (1010, 2000));
    }
}

#[tokio::test]
async fn statuses_that_may_pass_are_retried_and_others_are_not() {
    // Each script fails the first two requests.
    let scripts: [(HttpScript, bool); 6] = [
        (|n| (if n < 2 { 429 } else { 200 }, "", Vec::new()), true),
        (|n| (if n < 2 { 502 } else { 200 }, "", Vec::new()), true),
        (|n| (if n < 2 { 503 } else { 200 }, "", Vec::new()), true),
        (|n| (if n < 2 { 504 } else { 200 }, "", Vec::new()), true),
        (|n| (if n < 2 { 500 } else { 200 }, "text/html", b"<html>".to_vec()), false),
        (|n| (if n < 2 { 401 } else { 200 }, "", Vec::new()), false),
    ];
    for (script, retried) in scripts {
        let (address, seen) = http(script).await;
        let (exporter, handle) = start("http/protobuf", address, &[]);
        push(&handle, 0, 5);
        eventually("settled", || handle.books().pending == 0).await;
        let books = balanced(exporter.shutdown(Duration::from_secs(5)).await);
        let expected = if retried { (5, 0, 2) } else { (0, 5, 0) };
        assert_eq!((books.exported, books.dropped(DropReason::Unretryable), books.retries), expected);
        assert_eq!(seen.count(), books.exported as usize);
    }
}

#[tokio::test]
async fn grpc_statuses_are_taken_as_specified() {
    let soon = || ErrorDetails::with_retry_info(Some(Duration::from_millis(30)));
    let cases = [
        (Code::Cancelled, false, true),
        (Code::DeadlineExceeded, false, true),
        (Code::Aborted, false, true),
        (Code::OutOfRange, false, true),
        (Code::Unavailable, false, true),
        (Code::Unavailable, true, true),
        (Code::DataLoss, false, true),
        (Code::ResourceExhausted, true, true),
        (Code::ResourceExhausted, false, false),
        (Code::Unknown, false, false),
        (Code::InvalidArgument, false, false),
        (Code::NotFound, false, false),
        (Code::PermissionDenied, false, false),
        (Code::Unauthenticated, false, false),
        (Code::FailedPrecondition, false, false),
        (Code::Unimplemented, false, false),
        (Code::Internal, false, false),
    ];
    for (code, with_info, retried) in cases {
        let (address, seen) = grpc(move |number| match number {
            0 if with_info => Err(Status::with_error_details(code, "later", soon())),
            0 => Err(Status::new(code, "no\nway")),
            _ => ok(number),
        })
        .await;
        let (exporter, handle) = start("grpc", address, &[]);
        push(&handle, 0, 5);
        eventually("settled", || handle.books().pending == 0).await;
        let books = balanced(exporter.shutdown(Duration::from_secs(5)).await);
        let expected = if retried { (5, 0) } else { (0, 5) };
        assert_eq!((books.exported, books.dropped(DropReason::Unretryable)), expected, "{code:?} {with_info}");
        assert_eq!(seen.count(), books.exported as usize);
    }
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_is_left_alone_by_all() {
    let details = || ErrorDetails::with_retry_info(Some(Duration::from_millis(600)));
    let (address, seen) = grpc(move |number| match number {
        0 => Err(Status::with_error_details(Code::Unavailable, "busy", details())),
        _ => ok(number),
    })
    .await;
    let (_exporter, handle) = start("grpc", address, &[]);
    push(&handle, 0, 5);
    eventually("first request", || seen.requests.load(Ordering::SeqCst) == 1).await;
    let start = Instant::now();
    tokio::time::sleep(Duration::from_millis(50)).await;
    push(&handle, 5, 5);
    eventually("all", || handle.books().exported == 10).await;
    assert!(start.elapsed() >= Duration::from_millis(550), "{:?}", start.elapsed());
    assert_eq!(seen.requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn rejected_spans_are_counted_as_such() {
    let (grpc, _) = grpc(|_| Ok(partial(2))).await;
    let (http, _) = http(|_| (200, "application/x-protobuf", partial(2).encode_to_vec())).await;
    for (protocol, address) in [("grpc", grpc), ("http/protobuf", http)] {
        let (exporter, handle) = start(protocol, address, &[]);
        push(&handle, 0, 5);
        let books = balanced(exporter.shutdown(Duration::from_secs(5)).await);
        assert_eq!((books.exported, books.dropped(DropReason::Rejected)), (3, 2), "{protocol}");
    }
}

#[tokio::test]
async fn it_gives_up_in_the_end() {
    let policy = Policy { give_up: Duration::from_millis(300), ..QUICK };
    let config = config("grpc", &format!("http://{}", free_port().await), &[]);
    let (exporter, handle) = Exporter::start_with(config, policy).unwrap();
    push(&handle, 0, 5);
    eventually("given up", || handle.books().dropped(DropReason::GaveUp) == 5).await;
    balanced(exporter.shutdown(Duration::from_secs(5)).await);
}

/// A server that does with each connection what `behaviour` says.
async fn raw<F>(behaviour: fn(TcpStream) -> F) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(behaviour(stream));
        }
    });
    address
}

async fn answer(mut stream: TcpStream, octets: &[u8]) {
    let mut buffer = [0; 4096];
    let _ = stream.read(&mut buffer).await;
    let _ = stream.write_all(octets).await;
    // Read on, so that closing is no reset that overtakes the answer.
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

#[tokio::test]
async fn nonsense_is_survived_and_counted() {
    let nothing = raw(|stream| async move { drop(stream) }).await;
    let garbage = raw(|stream| async move { answer(stream, &[0xff; 2000]).await }).await;
    let silent = raw(|mut stream| async move {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let endless_head = raw(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n").await.is_ok() {}
    })
    .await;
    let http1 = raw(|stream| answer(stream, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")).await;
    let timeout = [("OTEL_EXPORTER_OTLP_TIMEOUT", "100")];
    for (protocol, address) in [
        ("http/protobuf", nothing),
        ("http/protobuf", garbage),
        ("http/protobuf", silent),
        ("http/protobuf", endless_head),
        ("grpc", nothing),
        ("grpc", garbage),
        ("grpc", silent),
        ("grpc", http1),
    ] {
        let config = config(protocol, &format!("http://{address}"), &timeout);
        let policy = Policy { give_up: Duration::from_millis(500), ..QUICK };
        let (exporter, handle) = Exporter::start_with(config, policy).unwrap();
        push(&handle, 0, 5);
        eventually("given up", || handle.books().dropped(DropReason::GaveUp) == 5).await;
        assert!(handle.books().retries > 0, "{protocol} {address}");
        balanced(exporter.shutdown(Duration::from_secs(5)).await);
    }
}

#[tokio::test]
async fn success_without_an_otlp_answer_is_no_success() {
    let page =
        raw(|stream| answer(stream, b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello"))
            .await;
    let garbage = raw(|stream| {
        answer(
            stream,
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff",
        )
    })
    .await;
    let endless_body = raw(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n\r\n").await;
        while stream.write_all(&[0x0a; 4096]).await.is_ok() {}
    })
    .await;
    for address in [page, garbage, endless_body] {
        let (exporter, handle) = start("http/protobuf", address, &[]);
        push(&handle, 0, 5);
        eventually("settled", || handle.books().pending == 0).await;
        let books = balanced(exporter.shutdown(Duration::from_secs(5)).await);
        assert_eq!((books.dropped(DropReason::BadAnswer), books.retries), (5, 0), "{address}");
    }
}

#[tokio::test]
async fn a_slow_receiver_loses_by_the_queue_only() {
    let (address, seen) = grpc(ok).await;
    seen.delay.store(1000, Ordering::SeqCst);
    let limits = [("OTEL_BSP_MAX_QUEUE_SIZE", "500"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50")];
    let (exporter, handle) = start("grpc", address, &limits);
    for batch in 0..100 {
        push(&handle, batch * 70, 70);
        assert!(balanced(handle.books()).pending <= 500);
        tokio::task::yield_now().await;
    }
    seen.delay.store(1, Ordering::SeqCst);
    let books = balanced(exporter.shutdown(Duration::from_secs(20)).await);
    assert_eq!((books.accepted, books.pending), (7000, 0));
    assert_eq!(books.dropped_total(), books.dropped(DropReason::QueueFull));
    assert!(books.exported >= 500 && books.dropped_total() > 0, "{books:?}");
    assert_eq!((seen.count() as u64, seen.distinct() as u64), (books.exported, books.exported));
}

#[tokio::test]
async fn shutdown_keeps_its_deadline_and_counts_the_rest() {
    let (exporter, handle) = start("grpc", free_port().await, &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")]);
    push(&handle, 0, 1000);
    let start = Instant::now();
    let books = balanced(exporter.shutdown(Duration::from_millis(300)).await);
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!((books.dropped(DropReason::Shutdown), books.pending), (1000, 0));
    push(&handle, 0, 7);
    assert_eq!(balanced(handle.books()).dropped(DropReason::Shutdown), 1007);
}

#[tokio::test]
async fn large_spans_make_more_requests_not_larger_ones() {
    let (address, seen) = grpc(ok).await;
    let (exporter, handle) = start("grpc", address, &[]);
    let mut http = fixture::message();
    http.target = format!("/{}?{}", "x".repeat(30_000), "y".repeat(30_000)).into();
    let resource = fixture::resource(1, "nginx");
    let span = |id| fixture::span(id, crate::signal::span::Kind::Client, &resource, http.clone());
    handle.push(Arc::new((0..100).map(span).collect()));
    let books = balanced(exporter.shutdown(Duration::from_secs(10)).await);
    // tonic's server refuses more than 4 MiB.
    assert_eq!((books.exported, seen.distinct()), (100, 100));
    assert!(seen.requests.load(Ordering::SeqCst) >= 5);
}

#[tokio::test]
async fn tls_trusts_what_it_is_told_to_and_shows_its_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let issue = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (leaf.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let ((server, server_key), (client, client_key)) = (issue(), issue());
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(server, server_key))
        .client_ca_root(Certificate::from_pem(&ca_pem));
    let (address, seen) = grpc_at("127.0.0.1:0".parse().unwrap(), Some(tls), Box::new(ok)).await;
    let endpoint = format!("https://localhost:{}", address.port());
    let ca_file = file("ca.pem", &ca_pem);
    let variables = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &*ca_file),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &*file("client.pem", &client)),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &*file("client.key", &client_key)),
    ];
    let (exporter, handle) = Exporter::start_with(config("grpc", &endpoint, &variables), QUICK).unwrap();
    push(&handle, 0, 5);
    let books = balanced(exporter.shutdown(Duration::from_secs(10)).await);
    assert_eq!((books.exported, seen.count()), (5, 5));

    // Without a certificate of its own, or with trust in somebody else, nothing gets through.
    let other_ca = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
    let other_file = file("other.pem", &other_ca);
    for ca_file in [&ca_file, &other_file] {
        let config = config("grpc", &endpoint, &[("OTEL_EXPORTER_OTLP_CERTIFICATE", ca_file)]);
        let (exporter, handle) =
            Exporter::start_with(config, Policy { give_up: Duration::from_millis(200), ..QUICK }).unwrap();
        push(&handle, 0, 5);
        eventually("given up", || handle.books().dropped(DropReason::GaveUp) == 5).await;
        balanced(exporter.shutdown(Duration::from_secs(5)).await);
    }
    assert_eq!(seen.count(), 5);
}
