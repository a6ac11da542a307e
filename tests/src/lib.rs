//! What the whole-system tests are made of: real servers and clients that log what they did, the real agent, a real
//! OTLP receiver, and the comparison of spans with the logs.
//!
//! Every process belongs to a guard that ends it by its id. Every wait has a condition and a deadline. All runs of the
//! agent name the ports they look at, so that nothing else on the machine can change a count.

pub mod accuracy;
pub mod agent;
pub mod browser;
pub mod chain;
pub mod curl;
pub mod env;
pub mod expect;
pub mod fan;
pub mod fixture;
pub mod grpc;
pub mod hop;
pub mod http;
pub mod kafka;
pub mod load;
pub mod mesh;
pub mod messages;
pub mod metrics;
pub mod names;
pub mod netns;
pub mod nginx;
pub mod order;
pub mod otlp;
pub mod plan;
pub mod process;
pub mod rabbit;
pub mod run;
pub mod scenario;
pub mod secure;
pub mod span;
pub mod streams;
pub mod tls;
pub mod topic;
pub mod truth;
pub mod wait;
pub mod wire;

/// Ends the test with a line that says why it cannot run here. The line goes past libtest's capture, so that it is seen.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::env::say_skipped(&format!($($why)*));
        return Ok(());
    }};
}

/// Skips the test unless all named prerequisites are there: `root`, `venv`, `go` (the built fixtures),
/// `mesh` (all of its services), `grpc`, `kafka` and `rabbit` (with their packages of Node, Python, Go and Java), `sdk` (OpenTelemetry's packages of Python and Node), or a program's name.
#[macro_export]
macro_rules! needs {
    ($($what:literal),+ $(,)?) => {
        if let Some(missing) = $crate::env::missing(&[$($what),+]) {
            $crate::skip!("{missing}");
        }
    };
}
