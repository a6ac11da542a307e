//! What is kept of an exchange while it is under way, and while others may ask for its place.

use std::sync::Arc;

use agent_common::ids::{MonoNanos, SpanId, Tgid, TraceId};

use super::Subject;
use super::deliveries::Arrival;
use super::ends::Key;
use super::messages::Batch;
use super::place::{Link, Place};
use crate::conn::ExchangeId;
use crate::protocol::{Coroutine, Thread};
use crate::sampling::Origin;
use crate::signal::resource::Resource;
use crate::signal::span::Kind;

/// An exchange that has begun, and stays until nobody can ask for it any more.
pub(super) struct Open {
    pub(super) kind: Kind,
    pub(super) tgid: Tgid,
    pub(super) tid: u32,
    /// Who read the request, or sent it; and who made its connection, when it is the first on it.
    pub(super) coroutine: Coroutine,
    pub(super) dialler: Coroutine,
    pub(super) at: MonoNanos,
    pub(super) head_end: MonoNanos,
    pub(super) operation: u32,
    pub(super) target: u64,
    /// Kept until the exchange is placed, when sampling may ask for it.
    pub(super) target_text: Option<Arc<str>>,
    pub(super) request_id: Option<u64>,
    pub(super) span_id: SpanId,
    /// The trace that others were told it belongs to.
    pub(super) fixed: Option<TraceId>,
    /// What names it at its other end, while that was not met.
    pub(super) key: Option<Key>,
    pub(super) place: Option<Place>,
    /// Where it stands by its own context, while its client may say better.
    pub(super) by_context: Option<Box<Place>>,
    /// It may have been made for several requests at once.
    pub(super) collected: bool,
    /// It passes on the context of the request that caused it.
    pub(super) passes_on: bool,
    pub(super) left_out: bool,
    /// What gets its place from this one's: by a link its child, else one beside it.
    pub(super) waiting: Vec<(ExchangeId, Option<Link>)>,
    /// Messages that it has sent, of which others may want to know the place.
    pub(super) sent: Vec<Batch>,
    /// What names the message that it has sent.
    pub(super) published: Option<u64>,
    /// It is a message that came.
    pub(super) arrival: Option<Box<Arrival>>,
    pub(super) resource: Arc<Resource>,
    /// Finished before its place was known.
    pub(super) finished: Option<Subject>,
    pub(super) over: bool,
    /// A message that its process does not work on yet.
    pub(super) queued: bool,
    /// `causality` knows of it.
    pub(super) told: bool,
    /// The request that its process was started for.
    pub(super) started_for: Option<ExchangeId>,
    /// The calls of its process when it began.
    pub(super) calls: u32,
}

impl Open {
    /// One of which nothing more is known.
    pub(super) fn new(kind: Kind, thread: Thread, at: MonoNanos, span_id: SpanId, resource: &Arc<Resource>) -> Self {
        Self {
            kind,
            tgid: thread.tgid,
            tid: thread.tid.0,
            coroutine: thread.coroutine,
            dialler: Coroutine::default(),
            at,
            head_end: at,
            operation: 0,
            target: 0,
            target_text: None,
            request_id: None,
            span_id,
            fixed: None,
            key: None,
            place: None,
            by_context: None,
            collected: false,
            passes_on: false,
            left_out: false,
            waiting: Vec::new(),
            sent: Vec::new(),
            published: None,
            arrival: None,
            resource: Arc::clone(resource),
            finished: None,
            over: false,
            queued: false,
            told: false,
            started_for: None,
            calls: 0,
        }
    }

    /// The place of what this one, itself at `place`, has caused; without a link, of what is beside it.
    pub(super) fn cause(&self, place: &Place, link: Option<Link>) -> Place {
        match link {
            None => place.clone(),
            Some(link) if self.left_out => place.heir(link),
            Some(link) => place.child(self.span_id, link),
        }
    }

    pub(super) fn origin(&self) -> Origin<'_> {
        Origin { service: &self.resource.service_name, target: self.target_text.as_deref() }
    }
}
