//! Remora: sees what unmodified processes say to each other, and tells it as OpenTelemetry spans and Prometheus
//! metrics. `ARCHITECTURE.md` has the map; the modules below are in the order of the data flow.
#![deny(unsafe_code)]

pub mod allocator;
pub mod app;
pub mod causality;
pub mod check;
pub mod clock;
pub mod config;
pub mod conn;
pub mod ending;
pub mod export;
pub mod listen;
pub mod observe;
pub mod pipeline;
pub mod probe;
pub mod process;
pub mod protocol;
pub mod sampling;
pub mod signal;
pub mod source;
pub mod trace;
