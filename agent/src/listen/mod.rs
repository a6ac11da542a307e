//! The agent's one HTTP listener: live page, metrics, health and `/api`.
//!
//! It reads; nothing that comes in changes what the agent does. It may listen where anybody can connect, so that each
//! client is bounded in number, time and memory, and the page is safe against what spans hold (all text is inserted as
//! text) and against other sites (`guard`).

mod api;
mod filter;
mod guard;
mod json;
mod page;
#[cfg(test)]
pub(crate) mod sample;
mod source;
mod store;
mod stream;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::source::{Drops, ExporterStats, ServiceRow, Services, Source, Stats};
pub use self::store::{Limits, Store, Tail, Usage};

/// More clients than this wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// The time a client has to send a request's head; an idle connection is closed after it.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// The time a client has to read at least something of what is sent to it.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// A request's head in octets. Also bounds what is buffered for writing.
const HEAD_OCTETS: usize = 16 << 10;
const HEAD_FIELDS: usize = 64;
/// The time that answers in progress have when the listener ends.
const GRACE: Duration = Duration::from_millis(500);

/// What is served.
pub struct State {
    source: Arc<dyn Source>,
    store: Arc<Store>,
    hosts: Vec<Box<str>>,
    shutdown: CancellationToken,
    viewers: stream::Viewers,
    services: api::Cached,
    stats: api::Cached,
    scrape: Semaphore,
}

impl State {
    /// `hosts`: names besides IP addresses and `localhost` under which people may open the page, such as the name given
    /// to `--listen`; without port. See `guard` for why others are refused.
    #[must_use]
    pub fn new(
        source: Arc<dyn Source>,
        store: Arc<Store>,
        hosts: impl IntoIterator<Item = impl Into<Box<str>>>,
    ) -> Self {
        Self {
            source,
            store,
            hosts: hosts.into_iter().map(Into::into).collect(),
            shutdown: CancellationToken::new(),
            viewers: stream::Viewers::default(),
            services: api::Cached::default(),
            stats: api::Cached::default(),
            scrape: Semaphore::new(1),
        }
    }
}

/// Serves until `shutdown`, then gives answers in progress a moment to finish. Failures of single connections end those
/// only.
pub async fn serve(listener: TcpListener, state: Arc<State>, shutdown: CancellationToken) {
    // Streams end by the state's own token, so that one state cannot outlive what serves it.
    let _ends_streams = state.shutdown.clone().drop_guard();
    let app = api::router(Arc::clone(&state));
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (stream, slot) = accept(&listener, &slots) => {
                let connection = connection(stream, app.clone(), slot, shutdown.clone());
                connections.spawn(connection);
            }
        }
    }
    drop(listener);
    state.shutdown.cancel();
    let finished = async { while connections.join_next().await.is_some() {} };
    // What is not finished by then is cut when the set is dropped.
    let _ = tokio::time::timeout(GRACE, finished).await;
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // Nobody closes the semaphore.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) => {
                // Either that client is gone again, or descriptors or memory are short: then trying at once only burns.
                tracing::debug!(%error, "no connection accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    app: axum::Router,
    slot: Option<OwnedSemaphorePermit>,
    shutdown: CancellationToken,
) {
    // A stream's small pieces must not wait for each other's acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut stream = tokio_io_timeout::TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(HEAD_FIELDS)
        .max_buf_size(HEAD_OCTETS)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::trace!(%error, "connection ended");
    }
    drop(slot);
}

#[cfg(test)]
mod tests;
