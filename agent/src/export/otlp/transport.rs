//! One request to an OTLP receiver and what its answer means; gRPC and HTTP over the same client.
//!
//! The client never uses a proxy and follows no redirect. It knows nothing of spans: what is sent is an encoded
//! request of any signal, and where to is in the [`OtlpConfig`].

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use rustls::{ClientConfig, RootCertStore};

use super::config::{OtlpConfig, Protocol, Tls};
use super::{grpc, http as otlp_http};

/// No answer of an OTLP receiver is anywhere near as long; what is longer is not read.
const MAX_ANSWER: usize = 64 << 10;
/// A connection nobody has used for so long is closed.
const IDLE: Duration = Duration::from_secs(90);
/// Finds out that the other end is gone although nothing said so.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Of the receiver's own words in log lines, in characters.
const MAX_WORDS: usize = 200;

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken, but for `rejected` of the items in it; a message may also come as a warning, without rejection.
    Accepted { rejected: u64, message: String },
    /// May work later; not before `after`, when the receiver said so.
    Retry { after: Option<Duration>, why: String },
    /// Would be refused again.
    Refused { why: String },
    /// Success by its status, but no OTLP answer.
    BadAnswer { why: String },
}

/// Why TLS cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("no trusted certificates on this host; name some with OTEL_EXPORTER_OTLP_CERTIFICATE")]
    NoRoots(#[source] std::io::Error),
    #[error("certificate or key not usable")]
    Tls(#[from] rustls::Error),
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// `None` when it was too long or broke off.
    pub(super) body: Option<Bytes>,
    pub(super) trailers: HeaderMap,
}

/// A connection to one receiver, made when first needed and again after it broke.
pub struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Uri,
    protocol: Protocol,
    headers: HeaderMap,
    timeout: Duration,
    gzip: bool,
}

impl Transport {
    /// Makes the client; connects nowhere yet.
    ///
    /// # Errors
    /// When `https` is asked for and certificates or key cannot be used.
    pub fn new(config: OtlpConfig) -> Result<Self, TransportError> {
        let headers = request_headers(&config);
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(config.timeout));
        let https = config.endpoint.scheme_str() == Some("https");
        // Without TLS nothing is verified, so there is nothing to load.
        let tls = if https { client_tls(config.tls)? } else { no_tls()? };
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let grpc = config.protocol == Protocol::Grpc;
        let connector = if grpc {
            builder.enable_http2().wrap_connector(http)
        } else {
            builder.enable_http1().wrap_connector(http)
        };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http2_only(grpc)
            .http2_keep_alive_interval(Some(KEEP_ALIVE))
            .http2_keep_alive_timeout(config.timeout)
            .build(connector);
        let OtlpConfig { endpoint, protocol, timeout, gzip, .. } = config;
        Ok(Self { client, endpoint, protocol, headers, timeout, gzip })
    }

    /// The body that carries `encoded`, compressed and framed as configured; made once for all attempts.
    #[must_use]
    pub fn pack(&self, encoded: &[u8]) -> Bytes {
        let head: &[u8] = match self.protocol {
            Protocol::Grpc => &[0; grpc::HEAD],
            Protocol::HttpProtobuf => &[],
        };
        let mut body = Vec::with_capacity(head.len() + if self.gzip { encoded.len() / 4 } else { encoded.len() });
        body.extend_from_slice(head);
        if self.gzip {
            let mut gzip = GzEncoder::new(body, Compression::fast());
            // Memory does not fail to be written to.
            let _ = gzip.write_all(encoded);
            body = gzip.finish().unwrap_or_default();
        } else {
            body.extend_from_slice(encoded);
        }
        if self.protocol == Protocol::Grpc {
            grpc::fill_head(self.gzip, &mut body);
        }
        body.into()
    }

    /// Sends a body made by [`Self::pack`], once. Whatever happens within the time allowed has an outcome.
    pub async fn send(&self, body: Bytes) -> Outcome {
        match tokio::time::timeout(self.timeout, self.exchange(body)).await {
            Ok(Ok(answer)) => match self.protocol {
                Protocol::Grpc => grpc::outcome(&answer),
                Protocol::HttpProtobuf => otlp_http::outcome(&answer),
            },
            Ok(Err(why)) => Outcome::Retry { after: None, why },
            Err(_) => Outcome::Retry { after: None, why: format!("no answer within {} ms", self.timeout.as_millis()) },
        }
    }

    async fn exchange(&self, body: Bytes) -> Result<Answer, String> {
        let mut request = Request::post(self.endpoint.clone());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
        }
        if self.protocol == Protocol::Grpc {
            request = request.version(Version::HTTP_2);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| describe(&error))?;
        let (head, body) = response.into_parts();
        let collected = Limited::new(body, MAX_ANSWER).collect().await.ok();
        let trailers = collected.as_ref().and_then(|collected| collected.trailers()).cloned().unwrap_or_default();
        let body = collected.map(http_body_util::Collected::to_bytes);
        Ok(Answer { status: head.status, headers: head.headers, body, trailers })
    }
}

fn request_headers(config: &OtlpConfig) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("remora/", env!("CARGO_PKG_VERSION"))));
    // Those of the user may replace the agent's name, but not what tells the format.
    for (name, value) in &config.headers {
        if name == USER_AGENT {
            headers.insert(name, value.clone());
        } else {
            headers.append(name, value.clone());
        }
    }
    let (content_type, encoding) = match config.protocol {
        Protocol::Grpc => {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            ("application/grpc", HeaderName::from_static("grpc-encoding"))
        }
        Protocol::HttpProtobuf => (otlp_http::CONTENT_TYPE_PROTOBUF, CONTENT_ENCODING),
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if config.gzip {
        headers.insert(encoding, HeaderValue::from_static("gzip"));
    }
    headers
}

fn tls_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
}

fn no_tls() -> Result<ClientConfig, rustls::Error> {
    Ok(tls_builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn client_tls(tls: Tls) -> Result<ClientConfig, TransportError> {
    let builder = if tls.roots.is_empty() {
        tls_builder()?.with_native_roots().map_err(TransportError::NoRoots)?
    } else {
        let mut roots = RootCertStore::empty();
        for root in tls.roots {
            roots.add(root)?;
        }
        tls_builder()?.with_root_certificates(roots)
    };
    Ok(match tls.identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    })
}

/// What the success message of a request means. Those of all signals have the same form, so one type reads them all.
/// An empty one is a plain success.
pub(super) fn accepted(message: &[u8]) -> Outcome {
    match ExportTraceServiceResponse::decode(message) {
        Ok(ExportTraceServiceResponse { partial_success: None }) => {
            Outcome::Accepted { rejected: 0, message: String::new() }
        }
        Ok(ExportTraceServiceResponse { partial_success: Some(partial) }) => Outcome::Accepted {
            rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
            message: words(&partial.error_message),
        },
        Err(_) => Outcome::BadAnswer { why: "the answer is no OTLP response".to_owned() },
    }
}

/// The receiver's own words, fit for a log line.
pub(super) fn words(text: &str) -> String {
    text.chars().take(MAX_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An error with its causes, which say what a person needs ("connection refused").
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    words(&text)
}
