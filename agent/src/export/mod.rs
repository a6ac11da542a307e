//! Where finished spans leave the agent: OTLP over the network, OTLP/JSON lines, readable lines on a terminal.
//!
//! Every way out is fed by [`ExportHandle::push`], which never blocks, through a [`queue`] bounded by spans and by
//! octets. The queue is the one place where load loses spans: when it is full, the newest are refused and counted.
//! Its [`Books`] balance at any moment: `accepted = exported + dropped + pending`.
//!
//! ```text
//! ExportHandle::push ─▶ Queue ─┬─▶ otlp: workers ─▶ encode ─▶ transport (gRPC | HTTP), retries
//!                              └─▶ lines: one thread ─▶ json | text ─▶ file | standard output
//! ```

pub mod books;
pub mod json;
pub mod lines;
pub mod otlp;
pub mod queue;
pub mod text;

use std::sync::Arc;

pub use self::books::{Books, DropReason};

use self::queue::Queue;
use crate::signal::span::Batch;

/// The entry of one exporter. Cheap to clone; may be used on any thread.
#[derive(Clone)]
pub struct ExportHandle {
    queue: Arc<Queue>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl ExportHandle {
    /// `wake` is called when the consumer of `queue` has something to look at; it must not block.
    fn new(queue: Arc<Queue>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { queue, wake: Arc::new(wake) }
    }

    /// Offers spans for export. Never blocks and never fails: what does not fit is dropped and counted in
    /// [`Books::dropped`].
    pub fn push(&self, batch: Batch) {
        if self.queue.push(batch) {
            (self.wake)();
        }
    }

    /// What became of all spans so far; consistent in itself.
    #[must_use]
    pub fn books(&self) -> Books {
        self.queue.books()
    }
}

/// The instrumentation scope of all spans.
const SCOPE_NAME: &str = "remora";
const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
pub(crate) mod fixture;
