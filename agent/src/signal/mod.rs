//! From exchanges to what leaves the agent: spans and metrics.

pub mod attribute;
mod groups;
pub mod http;
mod messaging;
pub mod metrics;
mod rabbitmq;
pub mod redact;
pub mod resource;
pub mod route;
mod rpc;
mod servers;
pub mod span;
mod tls;
pub mod tracer;
