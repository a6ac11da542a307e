//! What tells one series of a service from another: its attributes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use opentelemetry_semantic_conventions::attribute as key;
use rustc_hash::FxHasher;

use super::messaging::Messaging;
use crate::protocol::http::{Method, Version};
use crate::signal::attribute::AttributeSink;
use crate::signal::http;
use crate::signal::rpc;
use crate::signal::span::Kind;

/// Set to true on what is counted together since there was no room for its attributes (OpenTelemetry metrics SDK
/// specification, "Overflow attribute").
const OVERFLOW: &str = "otel.metric.overflow";

/// The server that a client asked, by the name it used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// A host name or an address.
    pub address: Box<str>,
    pub port: Option<u16>,
}

/// What a series has values of, and with that which instruments it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sort {
    /// Exchanges of HTTP and calls of gRPC.
    Exchange,
    /// Calls of messaging.
    Operation,
    Sent,
    Consumed,
    Wait,
    Lag,
}

/// What tells the series of one protocol from one another, but for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Http {
        method: Method,
        status: Option<u16>,
        version: Version,
        scheme: &'static str,
    },
    Grpc {
        status: Option<u32>,
    },
    Messaging(Messaging),
    /// What found no room; nothing else is told of it, and it is never looked up.
    Overflow(Sort),
}

/// The attributes of a series as what is counted has them: finds the series without taking memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    pub(super) kind: Kind,
    pub(super) what: What,
    pub(super) error_type: Option<&'static str>,
    /// The route of HTTP, the method of gRPC, the destination of messages.
    pub(super) name: Option<&'a Arc<str>>,
    /// The consumer group of messages.
    pub(super) group: Option<&'a Arc<str>>,
    pub(super) server: Option<&'a Arc<Server>>,
}

/// The attributes of a series. Two series of a service differ in them.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    pub(super) kind: Kind,
    pub(super) what: What,
    error_type: Option<&'static str>,
    name: Option<Arc<str>>,
    group: Option<Arc<str>>,
    server: Option<Arc<Server>>,
}

impl What {
    pub(super) const fn sort(self) -> Sort {
        match self {
            Self::Http { .. } | Self::Grpc { .. } => Sort::Exchange,
            Self::Messaging(Messaging { sort, .. }) | Self::Overflow(sort) => sort,
        }
    }
}

impl Key<'_> {
    /// The labels of a series that has none of its like yet.
    pub(super) fn labels(self) -> Labels {
        let Self { kind, what, error_type, name, group, server } = self;
        Labels { kind, what, error_type, name: name.cloned(), group: group.cloned(), server: server.cloned() }
    }

    pub(super) fn hash(self) -> u64 {
        let mut hasher = FxHasher::default();
        // All small numbers in one: no status of HTTP is 0.
        let numbers = match self.what {
            What::Http { method, status, version, scheme } => {
                let secure = u64::from(scheme == "https");
                u64::from(status.unwrap_or(0)) | secure << 20 | (method as u64) << 24 | (version as u64) << 32
            }
            What::Grpc { status } => u64::from(status.unwrap_or(u32::MAX)) | 1 << 63,
            What::Messaging(messaging) => {
                messaging.hash(&mut hasher);
                1 << 62
            }
            What::Overflow(_) => 0,
        };
        let error_type = self.error_type.map_or(0, str::len) as u64;
        (numbers | error_type << 40 | (self.kind as u64) << 48).hash(&mut hasher);
        self.name.hash(&mut hasher);
        self.group.hash(&mut hasher);
        self.server.hash(&mut hasher);
        hasher.finish()
    }
}

impl Labels {
    /// Those of what found no room.
    pub(super) const fn overflow(kind: Kind, sort: Sort) -> Self {
        Self { kind, what: What::Overflow(sort), error_type: None, name: None, group: None, server: None }
    }

    pub(super) const fn key(&self) -> Key<'_> {
        let Self { kind, what, error_type, name, group, server } = self;
        Key {
            kind: *kind,
            what: *what,
            error_type: *error_type,
            name: name.as_ref(),
            group: group.as_ref(),
            server: server.as_ref(),
        }
    }

    /// Hands the attributes to `sink`, by their names in the semantic conventions.
    pub(super) fn attributes(&self, sink: &mut impl AttributeSink) {
        let Self { kind, what, error_type, name, group, server } = self;
        match *what {
            What::Http { method, status, scheme, .. } => {
                sink.str(key::HTTP_REQUEST_METHOD, http::method_name(method));
                sink.str(key::URL_SCHEME, scheme);
                if let Some(status) = status {
                    sink.int(key::HTTP_RESPONSE_STATUS_CODE, status.into());
                }
            }
            What::Grpc { status } => rpc::attributes(name.as_deref(), status, sink),
            What::Messaging(messaging) => messaging.attributes(name.as_deref(), group.as_deref(), sink),
            What::Overflow(_) => sink.bool(OVERFLOW, true),
        }
        if let Some(error_type) = error_type {
            sink.str(key::ERROR_TYPE, error_type);
        }
        if let What::Http { version, .. } = *what {
            if let Some(route) = name {
                match kind {
                    Kind::Server => sink.str(key::HTTP_ROUTE, route),
                    Kind::Client => sink.str(key::URL_TEMPLATE, route),
                }
            }
            sink.str(key::NETWORK_PROTOCOL_VERSION, http::version_name(version));
        }
        if let Some(server) = server {
            server.attributes(sink);
        }
    }
}

impl Server {
    pub(super) fn attributes(&self, sink: &mut impl AttributeSink) {
        sink.str(key::SERVER_ADDRESS, &self.address);
        if let Some(port) = self.port {
            sink.int(key::SERVER_PORT, port.into());
        }
    }
}
