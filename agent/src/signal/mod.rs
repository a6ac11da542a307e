//! From exchanges to what leaves the agent: spans and metrics.

pub mod attribute;
pub mod http;
pub mod metrics;
pub mod redact;
pub mod resource;
pub mod route;
mod rpc;
pub mod span;
mod tls;
pub mod tracer;
