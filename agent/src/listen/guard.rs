//! Keeps other web sites away from what the page shows.
//!
//! A site can make a visitor's browser send requests here, and by DNS rebinding (its own name resolved to this address)
//! even read the answers. Such a request carries the site's name in `Host`, so that page and `/api` answer only to
//! names that no stranger can hold: IP addresses, `localhost`, and what the user configured. `/metrics` and the health
//! checks answer to any name, since scrapers find them through the names of a cluster's DNS.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State as Extract};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::State;

/// Answers 400 or 403 instead of page and `/api` where the request may come from another site.
pub(super) async fn same_site(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    match host(request.uri(), request.headers()) {
        // No browser leaves it out.
        Ok(None) => {}
        Ok(Some(host)) if is_own(&host, &state.hosts) => {}
        Ok(Some(_)) => {
            let text = "This host name is not served. Use the IP address or localhost, or give the name to --listen.\n";
            return (StatusCode::FORBIDDEN, text).into_response();
        }
        Err(()) => return (StatusCode::BAD_REQUEST, "The Host header is not valid.\n").into_response(),
    }
    // A link from elsewhere to the page is fine, a script elsewhere that asks for data is not (W3C Fetch Metadata).
    let from = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    if request.uri().path().starts_with("/api/") && matches!(from, Some(b"cross-site" | b"same-site")) {
        return (StatusCode::FORBIDDEN, "Other sites may not ask.\n").into_response();
    }
    next.run(request).await
}

/// What browsers must know about every answer.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

/// The host that the request names, without port; the target's wins over `Host` (RFC 9112, section 3.2.2).
fn host(uri: &Uri, headers: &HeaderMap) -> Result<Option<Box<str>>, ()> {
    if let Some(host) = uri.host() {
        return Ok(Some(host.into()));
    }
    let mut values = headers.get_all(header::HOST).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    let authority = Authority::try_from(value.as_bytes()).map_err(drop)?;
    if authority.as_str().contains('@') {
        return Err(());
    }
    Ok(Some(authority.host().into()))
}

fn is_own(host: &str, configured: &[Box<str>]) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bracketed.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok()) || host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    // RFC 6761, section 6.3: these never leave the machine.
    host == "localhost" || host.ends_with(".localhost") || configured.iter().any(|own| own.eq_ignore_ascii_case(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_no_stranger_can_hold_are_own() {
        let configured: [Box<str>; 1] = ["node1.example".into()];
        let cases = [
            ("127.0.0.1", true),
            ("[::1]", true),
            ("192.168.7.9", true),
            ("localhost", true),
            ("LocalHost.", true),
            ("remora.localhost", true),
            ("Node1.example", true),
            ("evil.example", false),
            ("notlocalhost", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("[evil]", false),
            ("", false),
        ];
        for (host, expected) in cases {
            assert_eq!(is_own(host, &configured), expected, "{host}");
        }
    }

    #[test]
    fn a_host_is_read_from_target_or_header() {
        type Case<'a> = (&'a str, &'a [&'a str], Result<Option<&'a str>, ()>);
        let cases: [Case; 7] = [
            ("/", &[], Ok(None)),
            ("/", &["a.example:80"], Ok(Some("a.example"))),
            ("/", &["[::1]:80"], Ok(Some("[::1]"))),
            ("http://b.example/", &["localhost"], Ok(Some("b.example"))),
            ("/", &["localhost", "evil.example"], Err(())),
            ("/", &["localhost@evil.example"], Err(())),
            ("/", &["a b"], Err(())),
        ];
        for (uri, given, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(header::HOST, HeaderValue::from_str(value).unwrap());
            }
            let found = host(&uri.parse().unwrap(), &headers);
            assert_eq!(found.as_ref().map(Option::as_deref), expected.as_ref().map(|host| *host), "{uri} {given:?}");
        }
    }
}
