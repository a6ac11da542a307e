//! What was said when TLS began, in the terms of OpenTelemetry's semantic conventions, version 1.42.0, "TLS attributes" (in
//! development).

use opentelemetry_semantic_conventions::attribute as key;

use super::attribute::AttributeSink;
use super::span::Kind;
use crate::protocol::http;
use crate::protocol::tls::{Session, Version};

/// The conventions call it deprecated and name `server.address` instead. That is what the request itself asks for wherever it
/// does; what the connection was made for may be something else, as where a proxy or several hosts share a certificate.
const CLIENT_SERVER_NAME: &str = "tls.client.server_name";

/// Name and number of a version as OpenSSL's `SSL_get_version` has them, to which the conventions refer.
const fn version(version: Version) -> (&'static str, &'static str) {
    match version {
        Version::Ssl30 => ("ssl", "3"),
        Version::Tls10 => ("tls", "1"),
        Version::Tls11 => ("tls", "1.1"),
        Version::Tls12 => ("tls", "1.2"),
        Version::Tls13 => ("tls", "1.3"),
    }
}

/// The name of a version of HTTP in IANA's registry of protocols for ALPN.
const fn protocol(spoken: http::Version) -> &'static str {
    match spoken {
        http::Version::Http10 => "http/1.0",
        http::Version::Http11 => "http/1.1",
        http::Version::Http2 => "h2",
    }
}

/// The server that a client has made its connection for.
pub(super) fn server_name(kind: Kind, session: Option<&Session>) -> Option<&str> {
    match kind {
        Kind::Client => session?.server_name.as_deref(),
        Kind::Server => None,
    }
}

/// Hands what is known of a handshake to `sink`, after which `spoken` was spoken.
pub(super) fn attributes(session: &Session, spoken: http::Version, sink: &mut impl AttributeSink) {
    if let Some(agreed) = session.version {
        let (name, number) = version(agreed);
        sink.str(key::TLS_PROTOCOL_NAME, name);
        sink.str(key::TLS_PROTOCOL_VERSION, number);
    }
    if let Some(protocol) = session.next_protocol(protocol(spoken)) {
        sink.str(key::TLS_NEXT_PROTOCOL, protocol);
    }
    if let Some(name) = &session.server_name {
        sink.str(CLIENT_SERVER_NAME, name);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::export::fixture;
    use crate::protocol::tls::{Choice, Hello};

    #[derive(Default)]
    struct Sink(BTreeMap<String, String>);

    impl AttributeSink for Sink {
        fn str(&mut self, key: &str, value: &str) {
            assert_eq!(self.0.insert(key.to_owned(), value.to_owned()), None, "{key} twice");
        }

        fn int(&mut self, key: &str, value: i64) {
            panic!("{key} is {value}");
        }

        fn bool(&mut self, key: &str, value: bool) {
            panic!("{key} is {value}");
        }

        fn double(&mut self, key: &str, value: f64) {
            panic!("{key} is {value}");
        }

        fn strs(&mut self, key: &str, values: &[&str]) {
            panic!("{key} is {values:?}");
        }
    }

    fn session(name: Option<&str>, offered: &[&'static str], version: Option<Version>, choice: Choice) -> Session {
        let mut session = Session::default();
        session.learn(Hello::Client { server_name: name.map(Into::into), offered: offered.to_vec() });
        session.learn(Hello::Server { version, choice });
        session
    }

    #[test]
    fn what_is_known_is_told_and_nothing_else() {
        let h2 = Choice::Protocol("h2".into());
        let cases = [
            (
                session(Some("api.example"), &["h2", "http/1.1"], Some(Version::Tls13), Choice::Unseen),
                http::Version::Http2,
                "tls.client.server_name=api.example tls.next_protocol=h2 tls.protocol.name=tls tls.protocol.version=1.3",
            ),
            (
                session(None, &["h2"], Some(Version::Tls12), h2),
                http::Version::Http2,
                "tls.next_protocol=h2 tls.protocol.name=tls tls.protocol.version=1.2",
            ),
            (
                session(None, &["h2"], Some(Version::Tls10), Choice::Nothing),
                http::Version::Http11,
                "tls.protocol.name=tls tls.protocol.version=1",
            ),
            (
                session(None, &[], Some(Version::Ssl30), Choice::Nothing),
                http::Version::Http10,
                "tls.protocol.name=ssl tls.protocol.version=3",
            ),
            (session(None, &["http/1.1"], None, Choice::Unseen), http::Version::Http11, "tls.next_protocol=http/1.1"),
            (Session::default(), http::Version::Http2, ""),
        ];
        for (session, spoken, expected) in cases {
            let mut sink = Sink::default();
            attributes(&session, spoken, &mut sink);
            let found: Vec<_> = sink.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
            assert_eq!(found.join(" "), expected, "{session:?}");
        }
    }

    #[test]
    fn a_client_asks_for_the_server_that_it_connected_to_unless_it_says_otherwise() {
        let session = session(Some("api.example"), &[], None, Choice::Unseen);
        let asked = |host: Option<&str>, kind| {
            let http = http::HttpMessage { host: host.map(Into::into), ..fixture::message() };
            let end = Some("10.0.0.1:8443".parse().unwrap());
            super::super::http::server(&http, server_name(kind, Some(&session)), end)
        };
        let cases = [
            (Some("www.example:444"), Kind::Client, "www.example", 444),
            (Some("www.example"), Kind::Client, "www.example", 8443),
            (None, Kind::Client, "api.example", 8443),
            (Some(""), Kind::Client, "api.example", 8443),
            (None, Kind::Server, "10.0.0.1", 8443),
        ];
        for (host, kind, address, port) in cases {
            assert_eq!(asked(host, kind), (Some(address.to_owned()), Some(port)), "{host:?}, {kind:?}");
        }
    }
}
