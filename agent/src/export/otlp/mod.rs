//! Export by OTLP: a bounded queue, a few workers that take batches from it, and the transport they share.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use agent::export::otlp::{Exporter, config::{OtlpConfig, Signal}};
//! if let Some(config) = OtlpConfig::from_env(Signal::Traces, &|name| std::env::var(name).ok())? {
//!     let (exporter, handle) = Exporter::start(config)?;
//!     // … handle.push(batch) on any thread …
//!     let books = exporter.shutdown(std::time::Duration::from_secs(5)).await;
//! }
//! # Ok(()) }
//! ```

pub mod config;
pub mod encode;
mod grpc;
mod http;
pub mod metrics;
pub mod retry;
pub mod transport;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::config::OtlpConfig;
use self::encode::Encoder;
use self::retry::{Health, Policy, Verdict};
use self::transport::{Transport, TransportError};
use super::queue::{Poll, Queue, Taken};
use super::{Books, DropReason, ExportHandle};
use crate::signal::span::Span;

/// Requests under way at a time. More than one, so that a receiver far away does not set the pace: four batches of
/// 2,048 spans a round trip of 50 ms are 160,000 spans a second.
const WORKERS: usize = 4;

/// A buffer larger than this is given back after use.
const KEEP_BUFFER: usize = 2 << 20;

/// What the workers share.
struct Shared {
    queue: Arc<Queue>,
    /// Notified when the queue has something to look at.
    pushed: Notify,
    /// Held by the worker whose turn it is to wait for the next batch.
    turn: Mutex<()>,
    transport: Transport,
    policy: Policy,
    health: Health,
    closing: CancellationToken,
}

/// Exports spans until it is shut down.
pub struct Exporter {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

impl Exporter {
    /// Starts the workers on the current tokio runtime, which needs its timer and I/O enabled. Connects when the first
    /// spans come.
    ///
    /// # Errors
    /// When certificates or key cannot be used.
    pub fn start(config: OtlpConfig) -> Result<(Self, ExportHandle), TransportError> {
        Self::start_with(config, Policy::default())
    }

    fn start_with(config: OtlpConfig, policy: Policy) -> Result<(Self, ExportHandle), TransportError> {
        let queue = Arc::new(Queue::new("otlp", config.limits));
        let shared = Arc::new(Shared {
            queue: Arc::clone(&queue),
            pushed: Notify::new(),
            turn: Mutex::new(()),
            transport: Transport::new(config)?,
            policy,
            health: Health::default(),
            closing: CancellationToken::new(),
        });
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            workers.spawn(work(Arc::clone(&shared)));
        }
        let handle = ExportHandle::new(queue, {
            let shared = Arc::clone(&shared);
            move || shared.pushed.notify_one()
        });
        Ok((Self { shared, workers }, handle))
    }

    /// Sends what is queued and ends the workers; what is not through after `deadline` is counted as
    /// [`DropReason::Shutdown`], as is everything pushed from now on.
    pub async fn shutdown(mut self, deadline: Duration) -> Books {
        self.shared.queue.close();
        self.shared.closing.cancel();
        let all = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, all).await.is_err() {
            // Stopping a worker settles what it holds.
            self.workers.shutdown().await;
        }
        self.shared.queue.abandon();
        self.shared.queue.books()
    }
}

/// Takes batches and exports them until the queue is closed and empty.
async fn work(shared: Arc<Shared>) {
    let mut encoder = Encoder::default();
    let mut request = Vec::new();
    while let Some(mut taken) = next_batch(&shared).await {
        request.clear();
        let spans: Vec<&Span> = taken.spans().collect();
        encoder.encode(&spans, &mut request);
        drop(spans);
        let body = shared.transport.pack(&request);
        request.shrink_to(KEEP_BUFFER);
        taken.release(body.len());
        let retried = || shared.queue.count_retry();
        let verdict =
            retry::deliver(&shared.transport, body, shared.policy, &shared.health, &shared.closing, retried).await;
        settle(taken, verdict);
    }
}

fn settle(taken: Taken, verdict: Verdict) {
    let all = taken.count() as u64;
    match verdict {
        Verdict::Accepted { rejected: 0, message } => {
            if !message.is_empty() {
                tracing::debug!(message, "the receiver took all spans with a warning");
            }
            taken.settle(None);
        }
        Verdict::Accepted { rejected, message } => taken.settle(Some((DropReason::Rejected, rejected, &message))),
        Verdict::Refused { why } => taken.settle(Some((DropReason::Unretryable, all, &why))),
        Verdict::BadAnswer { why } => taken.settle(Some((DropReason::BadAnswer, all, &why))),
        Verdict::GaveUp { why } => taken.settle(Some((DropReason::GaveUp, all, &why))),
    }
}

/// The next batch when it is due, `None` when there will be no more.
async fn next_batch(shared: &Shared) -> Option<Taken> {
    let _turn = shared.turn.lock().await;
    loop {
        let due = match shared.queue.poll(Instant::now()) {
            Poll::Ready(taken) => return Some(taken),
            Poll::Closed => return None,
            Poll::Wait(due) => due,
        };
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.pushed.notified() => {}
            () = timer => {}
            () = shared.closing.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests;
