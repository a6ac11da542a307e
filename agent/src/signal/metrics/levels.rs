//! What is going on at the moment: requests in flight and open connections.

use std::sync::Arc;

use opentelemetry_semantic_conventions::attribute as key;

use super::labels::Server;
use crate::protocol::http::Method;
use crate::signal::attribute::AttributeSink;
use crate::signal::http;
use crate::signal::resource::Resource;
use crate::signal::span::Kind;

/// An open connection, told at each scrape.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Which side of it the process is.
    pub kind: Kind,
    pub resource: &'a Arc<Resource>,
    /// Of a client only: the server its last request named.
    pub server: Option<&'a Arc<Server>>,
    /// The oldest request without a complete response and the number of such requests; `None` when idle.
    pub in_flight: Option<(Method, u32)>,
    /// `url.scheme`: `http` or `https`.
    pub scheme: &'static str,
}

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Level {
    ServerRequests(Method, &'static str),
    ClientRequests(Method, &'static str),
    ServerConnections { active: bool },
    ClientConnections { active: bool, server: Option<Arc<Server>> },
}

impl Level {
    pub(super) const fn requests(kind: Kind, method: Method, scheme: &'static str) -> Self {
        match kind {
            Kind::Server => Self::ServerRequests(method, scheme),
            Kind::Client => Self::ClientRequests(method, scheme),
        }
    }

    /// Hands the attributes to `sink`, by their names in the semantic conventions.
    pub(super) fn attributes(&self, sink: &mut impl AttributeSink) {
        match self {
            Self::ServerRequests(method, scheme) | Self::ClientRequests(method, scheme) => {
                sink.str(key::HTTP_REQUEST_METHOD, http::method_name(*method));
                sink.str(key::URL_SCHEME, scheme);
            }
            Self::ServerConnections { active } => sink.str(key::HTTP_CONNECTION_STATE, state(*active)),
            Self::ClientConnections { active, server } => {
                sink.str(key::HTTP_CONNECTION_STATE, state(*active));
                if let Some(server) = server {
                    server.attributes(sink);
                }
            }
        }
    }
}

const fn state(active: bool) -> &'static str {
    if active { "active" } else { "idle" }
}
