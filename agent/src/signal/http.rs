//! HTTP exchanges in the terms of OpenTelemetry's semantic conventions, version 1.42.0, "HTTP spans" (stable).

use std::fmt::Write as _;
use std::net::SocketAddr;

use opentelemetry_semantic_conventions::attribute as key;

use super::attribute::AttributeSink;
use super::redact;
use super::rpc;
use super::span::{ConnectDetail, Endpoints, HttpDetail, Kind, Status, Tls};
use super::tls;
use crate::protocol::http::{HttpMessage, Method, Version};
use crate::protocol::{Exchange, Failure};

/// The schema that all attribute and metric names follow.
pub const SCHEMA_URL: &str = opentelemetry_semantic_conventions::SCHEMA_URL;

/// The time from a request's first octet to the response's first, in seconds.
const TIME_TO_FIRST_OCTET: &str = "remora.time_to_first_octet";
/// Set when part of the exchange was not seen.
const PARTIAL: &str = "remora.partial";

/// The value of `http.request.method`.
#[must_use]
pub const fn method_name(method: Method) -> &'static str {
    match method {
        Method::Connect => "CONNECT",
        Method::Delete => "DELETE",
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Options => "OPTIONS",
        Method::Patch => "PATCH",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Query => "QUERY",
        Method::Trace => "TRACE",
        Method::Other | Method::Unknown => "_OTHER",
    }
}

/// The value of `network.protocol.version`.
#[must_use]
pub const fn version_name(version: Version) -> &'static str {
    match version {
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
        Version::Http2 => "2",
    }
}

/// The value of `error.type`: how the exchange failed, or the status when that is an error for `kind`.
#[must_use]
pub fn error_type(kind: Kind, exchange: &Exchange) -> Option<&'static str> {
    if let Some(grpc) = exchange.message.grpc.filter(|grpc| grpc.status.is_some()) {
        return rpc::error_type(kind, grpc);
    }
    match exchange.failure {
        Some(Failure::ServerClosed) => Some("server_closed"),
        Some(Failure::ClientClosed) => Some("client_closed"),
        Some(Failure::Reset) => Some("connection_reset"),
        Some(Failure::TimedOut) => Some("timeout"),
        Some(Failure::Stream(code)) => Some(code.name()),
        None => {
            let status = exchange.message.status?;
            let least = match kind {
                Kind::Server => 500,
                Kind::Client => 400,
            };
            (status >= least).then(|| status_name(status))
        }
    }
}

/// `Error` when there is an `error.type`, `Unset` otherwise, as the conventions ask of instrumentation.
#[must_use]
pub fn status(kind: Kind, exchange: &Exchange) -> Status {
    if error_type(kind, exchange).is_some() { Status::Error } else { Status::Unset }
}

/// The span's name: method and route, or the method alone (`HTTP` for an unknown one); of a call of gRPC that one's method.
#[must_use]
pub fn span_name(http: &HttpMessage, route: Option<&str>) -> Box<str> {
    if http.grpc.is_some() {
        return rpc::method(&http.target).unwrap_or(rpc::GRPC).into();
    }
    let method = match http.method {
        Method::Other | Method::Unknown => "HTTP",
        method => method_name(method),
    };
    match route {
        Some(route) => [method, " ", route].concat().into(),
        None => method.into(),
    }
}

/// The value of `url.scheme`.
pub(super) fn scheme(http: &HttpMessage, endpoints: Option<Endpoints>) -> &'static str {
    if http.https || endpoints.is_some_and(|endpoints| endpoints.tls != Tls::No) { "https" } else { "http" }
}

/// Path and query of a request target; neither for the authority form, and of one that was not
/// seen. The asterisk form counts as a path.
#[must_use]
pub fn path_and_query(target: &str) -> (Option<&str>, Option<&str>) {
    // The search for a scheme is left out where there can be none.
    let absolute = if target.starts_with('/') { None } else { target.split_once("://") };
    let origin = match absolute {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => match rest.find(['/', '?']) {
            Some(at) => rest.get(at..).unwrap_or(""),
            None => "/",
        },
        _ if target.starts_with(['/', '*']) => target,
        _ => return (None, None),
    };
    let origin = origin.split_once('#').map_or(origin, |(before, _)| before);
    match origin.split_once('?') {
        Some(("", query)) => (Some("/"), Some(query)),
        Some((path, query)) => (Some(path), Some(query)),
        None => (Some(origin), None),
    }
}

/// The authority a request names: of an absolute target, of CONNECT's target, or of `Host`.
pub(super) fn authority(http: &HttpMessage) -> Option<&str> {
    let absolute = if http.target.starts_with('/') { None } else { http.target.split_once("://") };
    let of_target = match absolute {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => Some(rest.split(['/', '?']).next().unwrap_or(rest)),
        _ if http.method == Method::Connect => Some(&*http.target),
        _ => None,
    };
    of_target.or(http.host.as_deref()).map(redact::authority).filter(|authority| !authority.is_empty())
}

/// Host and port of an authority; an IPv6 address without its brackets.
fn split_authority(authority: &str) -> (&str, Option<u16>) {
    if let Some(rest) = authority.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, port)) => (host, port.strip_prefix(':').and_then(|port| port.parse().ok())),
            None => (authority, None),
        };
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

/// The server's name and port: what the request asked for, else `server_name`, for which the connection was made, else the
/// socket's server end.
#[must_use]
pub fn server(http: &HttpMessage, server_name: Option<&str>, end: Option<SocketAddr>) -> (Option<String>, Option<u16>) {
    match authority(http) {
        Some(authority) => {
            let (host, port) = split_authority(authority);
            // Where the request names no port, the socket's is what is known for certain.
            (Some(host.to_owned()), port.or_else(|| end.map(|end| end.port())))
        }
        None => {
            let address = || end.map(|end| end.ip().to_canonical().to_string());
            (server_name.map(str::to_owned).or_else(address), end.map(|end| end.port()))
        }
    }
}

/// Server and client end of a socket, by which side the observed process is.
#[must_use]
pub fn ends(kind: Kind, endpoints: Endpoints) -> (SocketAddr, SocketAddr) {
    match kind {
        Kind::Server => (endpoints.local, endpoints.peer),
        Kind::Client => (endpoints.peer, endpoints.local),
    }
}

/// Hands the attributes of an HTTP span to `sink`.
pub(super) fn attributes(kind: Kind, detail: &HttpDetail, sink: &mut impl AttributeSink) {
    let HttpDetail { exchange, endpoints, session, .. } = detail;
    let http = &exchange.message;
    let server_name = tls::server_name(kind, session.as_deref());
    let (address, port) = server(http, server_name, endpoints.map(|endpoints| ends(kind, endpoints).0));
    match http.grpc {
        Some(grpc) => {
            rpc::attributes(Some(&http.target), grpc.status, sink);
            rpc::details(&grpc, sink);
        }
        None => request(kind, detail, address.as_deref(), port, sink),
    }
    if let Some(address) = &address {
        sink.str(key::SERVER_ADDRESS, address);
    }
    if let Some(port) = port {
        sink.int(key::SERVER_PORT, port.into());
    }
    if let Some(endpoints) = endpoints {
        network(*endpoints, sink);
        if kind == Kind::Server {
            sink.str(key::CLIENT_ADDRESS, ip_text(endpoints.peer.ip().to_canonical(), &mut [0; 45]));
            sink.int(key::CLIENT_PORT, endpoints.peer.port().into());
        }
    }
    sink.str(key::NETWORK_PROTOCOL_VERSION, version_name(http.version));
    if let Some(session) = session {
        tls::attributes(session, http.version, sink);
    }
    if let Some(agent) = &http.user_agent {
        sink.str(key::USER_AGENT_ORIGINAL, agent);
    }
    // A call's own status says more, where there is one.
    if let Some(status) = http.status.filter(|_| http.grpc.is_none_or(|grpc| grpc.status.is_none())) {
        sink.int(key::HTTP_RESPONSE_STATUS_CODE, status.into());
    }
    if let Some(error) = error_type(kind, exchange) {
        sink.str(key::ERROR_TYPE, error);
    }
    let sizes = [
        (key::HTTP_REQUEST_BODY_SIZE, http.request_body),
        (key::HTTP_RESPONSE_BODY_SIZE, http.response_body),
        (key::HTTP_REQUEST_SIZE, Some(http.request_size)),
        (key::HTTP_RESPONSE_SIZE, http.status.map(|_| http.response_size)),
    ];
    for (key, size) in sizes {
        if let Some(size) = size.and_then(|size| i64::try_from(size).ok()) {
            sink.int(key, size);
        }
    }
    let prefixes = match http.grpc {
        Some(_) => ["rpc.request.metadata.", "rpc.response.metadata."],
        None => ["http.request.header.", "http.response.header."],
    };
    for (prefix, headers) in prefixes.into_iter().zip([&http.request_headers, &http.response_headers]) {
        for (name, values) in headers {
            let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
            sink.strs(&[prefix, name].concat(), &values);
        }
    }
    if let Some(first) = exchange.response_start {
        #[expect(clippy::cast_precision_loss, reason = "a double holds whole nanoseconds for 104 days")]
        sink.double(TIME_TO_FIRST_OCTET, first.since(exchange.start) as f64 / 1e9);
    }
    if exchange.partial {
        sink.bool(PARTIAL, true);
    }
}

/// Hands what an HTTP request asks for to `sink`.
fn request(kind: Kind, detail: &HttpDetail, address: Option<&str>, port: Option<u16>, sink: &mut impl AttributeSink) {
    let http = &detail.exchange.message;
    if http.method != Method::Unknown {
        sink.str(key::HTTP_REQUEST_METHOD, method_name(http.method));
    }
    if let Some(original) = &http.method_original {
        sink.str(key::HTTP_REQUEST_METHOD_ORIGINAL, original);
    }
    let (path, query) = path_and_query(&http.target);
    let query = query.map(redact::query);
    if let Some(path) = path {
        sink.str(key::URL_PATH, path);
    }
    if let Some(query) = &query {
        sink.str(key::URL_QUERY, query);
    }
    sink.str(key::URL_SCHEME, scheme(http, detail.endpoints));
    if let Some(route) = &detail.route {
        match kind {
            Kind::Server => sink.str(key::HTTP_ROUTE, route),
            Kind::Client => sink.str(key::URL_TEMPLATE, route),
        }
    }
    if kind == Kind::Client {
        full_url(scheme(http, detail.endpoints), address, port, path, query.as_deref(), sink);
    }
}

/// Hands the attributes of a connection that could not be made to `sink`.
pub(super) fn connect_attributes(detail: &ConnectDetail, sink: &mut impl AttributeSink) {
    let address = detail.peer.ip().to_canonical().to_string();
    sink.str(key::SERVER_ADDRESS, &address);
    sink.int(key::SERVER_PORT, detail.peer.port().into());
    sink.str(key::NETWORK_PEER_ADDRESS, &address);
    sink.int(key::NETWORK_PEER_PORT, detail.peer.port().into());
    sink.str(key::NETWORK_TRANSPORT, "tcp");
    sink.str(key::ERROR_TYPE, detail.error);
}

/// Hands the address of the server of a client that names it by its address alone to `sink`, and the connection's.
pub(super) fn peer(endpoints: Endpoints, sink: &mut impl AttributeSink) {
    sink.str(key::SERVER_ADDRESS, ip_text(endpoints.peer.ip().to_canonical(), &mut [0; 45]));
    sink.int(key::SERVER_PORT, endpoints.peer.port().into());
    network(endpoints, sink);
}

fn network(endpoints: Endpoints, sink: &mut impl AttributeSink) {
    let peer = endpoints.peer.ip().to_canonical();
    sink.str(key::NETWORK_PEER_ADDRESS, ip_text(peer, &mut [0; 45]));
    sink.int(key::NETWORK_PEER_PORT, endpoints.peer.port().into());
    sink.str(key::NETWORK_LOCAL_ADDRESS, ip_text(endpoints.local.ip().to_canonical(), &mut [0; 45]));
    sink.int(key::NETWORK_LOCAL_PORT, endpoints.local.port().into());
}

fn full_url(
    scheme: &str,
    address: Option<&str>,
    port: Option<u16>,
    path: Option<&str>,
    query: Option<&str>,
    sink: &mut impl AttributeSink,
) {
    let (Some(address), Some(path)) = (address, path) else { return };
    let mut url = String::with_capacity(16 + address.len() + path.len() + query.map_or(0, str::len));
    url.push_str(scheme);
    url.push_str("://");
    if address.contains(':') {
        // Writing to a string cannot fail.
        let _ = write!(url, "[{address}]");
    } else {
        url.push_str(address);
    }
    let usual = if scheme == "https" { 443 } else { 80 };
    if let Some(port) = port.filter(|port| *port != usual) {
        let _ = write!(url, ":{port}");
    }
    url.push_str(path);
    if let Some(query) = query {
        url.push('?');
        url.push_str(query);
    }
    sink.str(key::URL_FULL, &url);
}

/// A status as text without allocating: `error.type` of the errors that servers send.
fn status_name(status: u16) -> &'static str {
    macro_rules! names {
        ($($code:literal)*) => { match status { $($code => stringify!($code),)* 400..=499 => "4xx", _ => "5xx" } };
    }
    names!(400 401 402 403 404 405 406 407 408 409 410 411 412 413 414 415 416 417 418 421 422 423 424 425 426 428 429
        431 451 499 500 501 502 503 504 505 506 507 508 510 511 520 521 522 523 524 525 526 529)
}

/// An address as text, in a buffer that the longest one fits. An address stands in every span four times, and the
/// formatter's way takes several times as long.
fn ip_text(ip: std::net::IpAddr, buffer: &mut [u8; 45]) -> &str {
    use std::io::Write as _;
    let mut rest = &mut buffer[..];
    // Nothing here can fail: the buffer is long enough.
    match ip {
        std::net::IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    let _ = rest.write_all(b".");
                }
                let _ = rest.write_all(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        std::net::IpAddr::V6(ip) => {
            let _ = write!(rest, "{ip}");
        }
    }
    let left = rest.len();
    let used = buffer.split_at(buffer.len() - left).0;
    std::str::from_utf8(used).unwrap_or_default()
}
