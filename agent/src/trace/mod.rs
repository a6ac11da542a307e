//! From exchanges to traces: which exchange belongs to which trace, and what caused it.
//!
//! A ladder; each rung is tried where the one above says nothing:
//! 1. the trace context that a message carries;
//! 2. both ends of a request on this host ([`ends`]);
//! 3. within a process, which incoming request caused an outgoing one ([`crate::causality`]).
//!
//! An exchange gets its place in a trace once, soon after it has begun, and keeps it. Where the place depends on another
//! exchange it waits for that one's; what [`crate::causality`] has to decide is decided at the latest the hold-back after the
//! call returned. A finished exchange waits with it. Parents are named by a span id that is given out at the beginning, so the order of ends is no matter.

mod alike;
mod births;
mod brokered;
mod deliveries;
mod ends;
mod habits;
mod inside;
mod judge;
mod messages;
mod open;
mod place;
mod propagated;
mod published;
mod sdk;
mod slowest;
mod tail;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, SpanId, Tgid};
use rustc_hash::{FxHashMap, FxHashSet};

use self::births::Births;
pub use self::brokered::Message;
use self::deliveries::Given;
pub use self::deliveries::Moved;
use self::ends::{End, Ends, Key};
use self::habits::Habits;
use self::inside::{Faithful, unborn};
use self::judge::Judge;
use self::messages::Messages;
pub use self::messages::SpanLink;
use self::open::Open;
pub use self::place::{Link, Method, Parent, Place, Verdict};
use self::propagated::Propagated;
use self::published::Published;
pub use self::sdk::SdkSpans;
use self::sdk::{Beginning, Sdks};
pub use self::slowest::Percentile;
pub use self::tail::{Keep, Tail};
use self::work::Works;
use crate::causality::{self, Causality};
use crate::conn::{ExchangeId, Finished};
use crate::protocol::context::TraceContext;
use crate::protocol::{Begun, Failure};
use crate::sampling::{Origin, RateLimiter, Sampler};
use crate::signal::resource::Resource;
use crate::signal::span::{Endpoints, Kind};
use crate::source::{Opened, Told};

/// Exchanges remembered at the same time; past it the oldest are placed as well as can be and forgotten.
const MOST: usize = 64 * 1024;
/// Processes remembered; past it the idle ones are forgotten.
const MOST_PROCESSES: usize = 16 * 1024;
/// How long a server's end waits for its client's, in nanoseconds: the two are recorded on different processors, and a
/// thread may be stopped between its call and its record.
const PATIENCE: u64 = 50_000_000;
/// How long a finished exchange is remembered for those that it caused, over the hold-back, in nanoseconds.
const LINGER: u64 = 500_000_000;

/// What gets a span.
#[derive(Debug)]
pub enum Subject {
    Exchange(Finished),
    /// A connection that could not be made; 0 when no errno told why.
    Connect {
        connection: Box<Opened>,
        errno: u32,
    },
    /// A batch of messages that was sent, or came.
    Message(Message),
    /// A message that was published, or came.
    Moved(Box<Moved>),
}

impl Subject {
    fn end(&self) -> MonoNanos {
        match self {
            Self::Exchange(finished) => finished.exchange.end,
            Self::Connect { connection, .. } => connection.at,
            Self::Message(message) => message.call.exchange.end,
            Self::Moved(moved) => moved.transfer.exchange.end,
        }
    }
}

/// Something finished, with its place in a trace.
#[derive(Debug)]
pub struct Placed {
    pub subject: Subject,
    pub resource: Arc<Resource>,
    pub span_id: SpanId,
    pub place: Place,
    /// It gets no span: its process makes one of its own.
    pub left_out: bool,
}

/// What the traces counted. Monotonic, but for the last four.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Spans with a parent, in the order of [`Method::ALL`].
    pub links: [u64; Method::ALL.len()],
    /// Spans without one.
    pub roots: u64,
    /// Exchanges that finished without having been remembered since they began.
    pub untracked: u64,
    /// Exchanges forgotten for want of room before they were placed.
    pub evicted: u64,
    /// Parents that became known after the child had its place.
    pub late: u64,
    /// Exchanges whose trace was told to others before it turned out that another one would have fitted.
    pub contradicted: u64,
    pub open: u64,
    pub ends: u64,
    /// Processes known to make spans of their own.
    pub sdks: u64,
    /// Batches of messages, and single ones, remembered.
    pub batches: u64,
}

/// All traces that are being put together. One owner.
pub struct Traces {
    judge: Judge,
    /// How long after its end an exchange may be named as a parent, in nanoseconds.
    linger: u64,
    open: FxHashMap<ExchangeId, Open>,
    ends: Ends,
    causality: Causality,
    sdks: Sdks,
    habits: FxHashMap<Tgid, Habits>,
    /// A process of each program, whose habits others are expected to have.
    programs: FxHashMap<u64, Tgid>,
    /// Open requests of processes that call, by what they ask for.
    targets: FxHashMap<(Tgid, u64), u32>,
    /// Servers' ends that wait for their client's, by time.
    lonely: VecDeque<(MonoNanos, ExchangeId)>,
    /// Exchanges that are over, by the time until which they stay.
    leaving: VecDeque<(MonoNanos, ExchangeId)>,
    /// Exchanges in the order in which they began.
    begun: VecDeque<(MonoNanos, ExchangeId)>,
    links: Vec<causality::Link>,
    propagated: Propagated,
    births: Births,
    messages: Messages,
    works: Works,
    /// Messages that came, and wait for what tells who sent them, by time.
    arrived: VecDeque<(MonoNanos, ExchangeId)>,
    published: Published,
    /// The same of a broker that gives its messages no numbers, with what tells them.
    given: BTreeMap<(MonoNanos, ExchangeId), Given>,
    /// Processes that have got messages of any broker.
    consuming: FxHashSet<Tgid>,
    stats: Stats,
}

impl Traces {
    #[must_use]
    pub fn new(
        sampler: Sampler,
        limiter: Option<RateLimiter>,
        settings: causality::Settings,
        sdk_spans: SdkSpans,
    ) -> Self {
        Self {
            judge: Judge::new(sampler, limiter),
            linger: settings.hold_back + LINGER,
            open: FxHashMap::default(),
            ends: Ends::default(),
            causality: Causality::new(settings),
            sdks: Sdks::new(sdk_spans),
            habits: FxHashMap::default(),
            programs: FxHashMap::default(),
            targets: FxHashMap::default(),
            lonely: VecDeque::new(),
            leaving: VecDeque::new(),
            begun: VecDeque::new(),
            links: Vec::new(),
            propagated: Propagated::default(),
            births: Births::default(),
            messages: Messages::default(),
            works: Works::default(),
            arrived: VecDeque::new(),
            published: Published::default(),
            given: BTreeMap::new(),
            consuming: FxHashSet::default(),
            stats: Stats::default(),
        }
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        let (open, ends) = (self.open.len() as u64, self.ends.len() as u64);
        Stats {
            open,
            ends,
            sdks: self.sdks.known(),
            batches: self.messages.batches() + self.published.len(),
            ..self.stats
        }
    }

    /// A request of a traced process has begun. What gets its place by that and has finished already goes to `out`.
    pub fn begin(
        &mut self,
        id: ExchangeId,
        request: &Begun,
        endpoints: Option<Endpoints>,
        told: Option<Told>,
        resource: &Arc<Resource>,
        out: &mut Vec<Placed>,
    ) {
        self.note_births(request.at);
        if let Some(brokered) = &request.brokered {
            return self.given(id, request, brokered, resource, out);
        }
        // An application's own context wins.
        let told = told.filter(|_| request.context.is_none());
        let kind = match request.direction {
            Direction::Ingress => Kind::Server,
            Direction::Egress => Kind::Client,
        };
        let operation = match endpoints {
            // The same question to another server is another operation.
            Some(ends) if kind == Kind::Client => request.operation ^ u32::from(ends.peer.port()) << 16,
            _ => request.operation,
        };
        let beginning = Beginning {
            id,
            kind,
            tgid: request.thread.tgid,
            at: request.at,
            target: &request.target_text,
            context: request.context.as_ref(),
        };
        let own = self.sdks.begun(&beginning, |id| self.open.get(&id).is_some_and(|open| !open.over));
        let span_id = told.filter(|_| kind == Kind::Client).and_then(|told| told.span_id);
        let span_id = span_id.unwrap_or_else(|| self.judge.span_id());
        let open = Open {
            coroutine: request.coroutine,
            dialler: request.dialler,
            head_end: request.head_end,
            operation,
            target: request.target,
            target_text: self.judge.needs_target().then(|| Arc::clone(&request.target_text)),
            request_id: request.request_id,
            fixed: told.map(|told| told.trace_id),
            key: endpoints.and_then(|endpoints| Key::of(kind, request, endpoints)),
            collected: request.collected,
            passes_on: own.cause.is_some(),
            left_out: own.left_out,
            started_for: if kind == Kind::Client { self.started_for(request.thread.tgid) } else { None },
            ..Open::new(kind, request.thread, request.at, span_id, resource)
        };
        let named = open.key.is_some();
        let started_for = open.started_for;
        let met = open.key.and_then(|key| self.ends.meet(key, End { id, kind, at: request.at }));
        let alone = self.enter(id, open, out);
        self.propagated.begun(kind, id, request.position);
        match (&request.context, kind, met) {
            (Some(context), ..) => {
                let origin = Origin { service: &resource.service_name, target: Some(&request.target_text) };
                let place = self.judge.continued(context, origin, request.at);
                let passed_on = met.is_some_and(|client| self.open.get(&client.id).is_some_and(|open| open.passes_on));
                match (kind, own.cause, met) {
                    (Kind::Client, Some(cause), _) => self.join(id, cause, Link::certain(Method::Context), out),
                    (Kind::Server, _, Some(client)) if passed_on => {
                        self.join(id, client.id, Link::certain(Method::Socket), out);
                    }
                    (Kind::Server, _, None) if self.sdks.passing && named => {
                        if let Some(open) = self.open.get_mut(&id) {
                            open.by_context = Some(Box::new(place));
                        }
                        self.lonely.push_back((request.at, id));
                    }
                    _ => self.settle(id, place, out),
                }
            }
            (None, ..) if told.is_some_and(|told| self.follow(id, &told, kind, met, request.at, out)) => {}
            (None, Kind::Server, Some(client)) => self.join(id, client.id, Link::certain(Method::Socket), out),
            // Where nothing names it at its connection's other end, that one cannot be met.
            (None, Kind::Server, None) if !named => self.uproot(id, out),
            (None, Kind::Server, None) => self.lonely.push_back((request.at, id)),
            (None, Kind::Client, _) if alone => match started_for {
                Some(request) => self.join(id, request, Link::certain(Method::BornIn), out),
                None => self.uproot(id, out),
            },
            // What finds causes may tell; of what is anyone's, each part may have a context of its own, see `produced`.
            (None, Kind::Client, _) => {}
        }
        if let Some(other) = met {
            for id in [id, other.id] {
                if let Some(open) = self.open.get_mut(&id) {
                    open.key = None;
                }
            }
            if kind == Kind::Client {
                // A context of its own says more than the socket, unless the client only passed it on.
                if own.cause.is_none() && self.open.get(&other.id).is_some_and(|open| open.by_context.is_some()) {
                    self.uproot(other.id, out);
                }
                self.join(other.id, id, Link::certain(Method::Socket), out);
            }
        }
    }

    /// A connection that could not be made.
    pub fn connect_failed(&mut self, connection: Opened, errno: u32, resource: &Arc<Resource>, out: &mut Vec<Placed>) {
        // Requests are counted from 1.
        let id = ExchangeId::new(connection.conn, 0);
        let end = connection.at;
        let span_id = self.judge.span_id();
        let at = connection.opened_at.unwrap_or(end);
        let (thread, dialler) = (connection.thread, connection.dialler);
        let open = Open {
            coroutine: dialler,
            head_end: end,
            operation: connection.endpoints.peer.port().into(),
            over: true,
            finished: Some(Subject::Connect { connection: Box::new(connection), errno }),
            ..Open::new(Kind::Client, thread, at, span_id, resource)
        };
        let alone = self.enter(id, open, out);
        self.note_return(thread.tgid, end, out);
        if self.open.get(&id).is_some_and(|open| open.told) {
            self.causality.returned(id.0, end.0);
        }
        if alone {
            self.uproot(id, out);
        }
    }

    /// An exchange has finished; it goes to `out` with its place, now or later.
    pub fn finish(&mut self, finished: Finished, resource: Arc<Resource>, out: &mut Vec<Placed>) {
        let id = finished.id();
        let exchange = &finished.exchange;
        let end = exchange.end;
        let Some(open) = self.open.get_mut(&id).filter(|open| !open.over) else {
            let (context, target) = (exchange.message.context.clone(), exchange.message.target.clone());
            return self.untracked(Subject::Exchange(finished), &resource, context.as_ref(), &target, out);
        };
        self.sdks.finished(open.kind, open.tgid, exchange);
        let faithful = exchange.response_thread.map(|thread| Faithful::of(open, exchange.request_thread, thread));
        open.over = true;
        let ending = open.ending();
        if ending.told
            && let (Some(thread), Some(at)) = (exchange.response_thread, exchange.response_start)
            && thread.coroutine.id != 0
        {
            self.causality.unborn(ending.tgid.0, unborn(thread.coroutine, at));
        }
        if ending.told && ending.kind == Kind::Client && exchange.failure == Some(Failure::ClientClosed) {
            self.causality.gave_up(ending.tgid.0, end.0);
        }
        self.ended(id, ending, end, faithful, out);
        self.conclude(id, Subject::Exchange(finished), resource, out);
    }

    /// Something that was not remembered since it began goes to `out`, with the place that its own context gives.
    fn untracked(
        &mut self,
        subject: Subject,
        resource: &Arc<Resource>,
        context: Option<&TraceContext>,
        target: &str,
        out: &mut Vec<Placed>,
    ) {
        self.stats.untracked += 1;
        let (origin, end) = (Origin { service: &resource.service_name, target: Some(target) }, subject.end());
        let place = match context {
            Some(context) => self.judge.continued(context, origin, end),
            None => self.judge.root(origin, end),
        };
        self.count(&place);
        let (span_id, resource) = (self.judge.span_id(), Arc::clone(resource));
        out.push(Placed { subject, resource, span_id, place, left_out: false });
    }

    /// An exchange is over; it goes to `out` with its place, now or later.
    fn conclude(&mut self, id: ExchangeId, subject: Subject, resource: Arc<Resource>, out: &mut Vec<Placed>) {
        let Some(open) = self.open.get_mut(&id) else { return };
        let Some(place) = open.place.clone() else {
            open.finished = Some(subject);
            return;
        };
        let (span_id, left_out) = (open.span_id, open.left_out);
        self.leave(id, subject.end());
        out.push(Placed { subject, resource, span_id, place, left_out });
    }

    /// A request that began will not become an exchange.
    pub fn dropped(&mut self, id: ExchangeId, now: MonoNanos, out: &mut Vec<Placed>) {
        self.forget(id, now, out);
    }

    /// A process has ended.
    pub fn exited(&mut self, tgid: Tgid, out: &mut Vec<Placed>) {
        self.habits.remove(&tgid);
        self.sdks.forget(tgid);
        self.births.forget(tgid);
        self.consuming.remove(&tgid);
        self.work_is_over(tgid, out);
    }

    /// A process has become another program.
    pub fn executed(&mut self, tgid: Tgid) {
        self.sdks.forget(tgid);
    }

    /// Decides what can be decided by `now`, the time up to which everything has been seen.
    pub fn poll(&mut self, now: MonoNanos, out: &mut Vec<Placed>) {
        self.note_births(now);
        let mut links = std::mem::take(&mut self.links);
        self.causality.poll(now.0, &mut links);
        for link in links.drain(..) {
            self.linked(&link, out);
        }
        self.links = links;
        self.poll_messages(now, out);
        self.poll_given(now, out);
        while let Some(&(at, id)) = self.lonely.front()
            && now.since(at) > PATIENCE
        {
            self.lonely.pop_front();
            self.alone(id, out);
        }
        while let Some(&(until, id)) = self.leaving.front()
            && now > until
        {
            self.leaving.pop_front();
            self.forget(id, now, out);
        }
    }

    /// Decides everything: nothing more will come.
    pub fn finish_all(&mut self, now: MonoNanos, out: &mut Vec<Placed>) {
        let mut links = std::mem::take(&mut self.links);
        self.causality.finish(&mut links);
        for link in links.drain(..) {
            self.linked(&link, out);
        }
        while let Some((_, id)) = self.lonely.pop_front() {
            self.alone(id, out);
        }
        self.poll_messages(MonoNanos(u64::MAX), out);
        self.poll_given(MonoNanos(u64::MAX), out);
        let ids: Vec<ExchangeId> = self.open.keys().copied().collect();
        for id in ids {
            self.forget(id, now, out);
        }
    }

    /// Places an exchange under another, now or as soon as that one has a place.
    fn join(&mut self, child: ExchangeId, parent: ExchangeId, link: Link, out: &mut Vec<Placed>) {
        let Some(open) = self.open.get(&child) else { return };
        if let Some(place) = &open.place {
            let known = |parent: Parent| matches!(parent.link.method, Method::Context | Method::Tcp);
            self.stats.late += u64::from(link.method == Method::Socket && !place.parent.is_some_and(known));
            return;
        }
        if link.method == Method::Socket
            && let Some(trace_id) = open.fixed
        {
            self.adopt(parent, trace_id);
        }
        match self.open.get_mut(&parent) {
            Some(parent) => match &parent.place {
                Some(place) => {
                    let place = parent.cause(place, Some(link));
                    self.settle(child, place, out);
                }
                None => parent.waiting.push((child, Some(link))),
            },
            None => self.uproot(child, out),
        }
    }

    /// A server's end has waited long enough for its client's.
    fn alone(&mut self, id: ExchangeId, out: &mut Vec<Placed>) {
        let Some(open) = self.open.get_mut(&id) else { return };
        // Without the key it has met the other end, and waits for that one's place.
        if let Some(key) = open.key.take() {
            self.ends.forget(&key, id);
            self.uproot(id, out);
        }
    }

    /// Places an exchange at the root of a new trace, if it has no place.
    fn uproot(&mut self, id: ExchangeId, out: &mut Vec<Placed>) {
        let Some(open) = self.open.get_mut(&id).filter(|open| open.place.is_none()) else { return };
        let place = match open.by_context.take() {
            Some(place) => *place,
            None => self.judge.root_of(open.fixed, open.origin(), open.at),
        };
        self.settle(id, place, out);
    }

    /// An exchange has its place now; so has what waited for it, and what waited for that.
    fn settle(&mut self, id: ExchangeId, place: Place, out: &mut Vec<Placed>) {
        let mut next = Some((id, place));
        let mut more = Vec::new();
        while let Some((id, place)) = next.take().or_else(|| more.pop()) {
            let Some(open) = self.open.get_mut(&id).filter(|open| open.place.is_none()) else { continue };
            let place = match open.fixed {
                Some(trace_id) if trace_id != place.trace_id => {
                    self.stats.contradicted += 1;
                    self.judge.root_of(Some(trace_id), open.origin(), open.at)
                }
                _ => place,
            };
            let children = std::mem::take(&mut open.waiting);
            more.extend(children.into_iter().map(|(child, link)| (child, open.cause(&place, link))));
            open.place = Some(place.clone());
            open.target_text = None;
            let finished = open.finished.take();
            let (span_id, resource, left_out) = (open.span_id, Arc::clone(&open.resource), open.left_out);
            let over = open.over;
            for batch in std::mem::take(&mut open.sent) {
                self.messages.placed(&batch, &open.cause(&place, Some(Link::certain(Method::Offset))));
            }
            if let Some(name) = open.published {
                self.published.placed(name, id, &open.cause(&place, Some(Link::certain(Method::Content))));
            }
            self.count(&place);
            if let Some(subject) = finished {
                // A message came with its exchange, and is worked on for longer.
                if over {
                    self.leave(id, subject.end());
                }
                out.push(Placed { subject, resource, span_id, place, left_out });
            }
        }
    }

    /// An exchange is over and has its place: it goes now, or stays for those that may still name it.
    fn leave(&mut self, id: ExchangeId, end: MonoNanos) {
        let Some(open) = self.open.get(&id) else { return };
        let wanted = match open.kind {
            Kind::Server => self.habits.get(&open.tgid).is_some_and(|habits| habits.calls != open.calls),
            Kind::Client => open.key.is_some(),
        };
        if wanted {
            self.leaving.push_back((MonoNanos(end.0.saturating_add(self.linger)), id));
        } else if let Some(Open { key: Some(key), .. }) = self.open.remove(&id) {
            self.ends.forget(&key, id);
        }
    }

    /// Forgets an exchange; what waits for its place gets one.
    fn forget(&mut self, id: ExchangeId, now: MonoNanos, out: &mut Vec<Placed>) {
        let Some(open) = self.open.remove(&id) else { return };
        if let Some(key) = &open.key {
            self.ends.forget(key, id);
        }
        if !open.over && !open.queued {
            self.ended(id, open.ending(), now, None, out);
        }
        self.give_up(open, out);
    }

    /// Places what waits for this one, and this one if it has finished: it will not be heard of again.
    fn give_up(&mut self, mut open: Open, out: &mut Vec<Placed>) {
        if open.finished.is_none() && open.waiting.is_empty() {
            return;
        }
        let place = open.place.take().or_else(|| open.by_context.take().map(|place| *place));
        let place = place.unwrap_or_else(|| self.judge.root_of(open.fixed, open.origin(), open.at));
        for (child, link) in std::mem::take(&mut open.waiting) {
            self.settle(child, open.cause(&place, link), out);
        }
        if let Open { span_id, resource, finished: Some(subject), left_out, .. } = open {
            self.count(&place);
            out.push(Placed { subject, resource, span_id, place, left_out });
        }
    }

    /// Makes room for one more: the oldest have to go.
    fn make_room(&mut self, out: &mut Vec<Placed>) {
        while self.open.len() >= MOST || self.begun.len() >= 2 * MOST {
            let Some((at, id)) = self.begun.pop_front() else { break };
            // Most have gone by themselves.
            if self.open.len() >= MOST && self.open.get(&id).is_some_and(|open| open.at == at) {
                self.stats.evicted += 1;
                self.forget(id, at, out);
            }
        }
        if self.habits.len() >= MOST_PROCESSES {
            self.habits.retain(|_, habits| habits.serving > 0);
        }
        if self.programs.len() >= MOST_PROCESSES {
            self.programs.clear();
        }
    }

    fn count(&mut self, place: &Place) {
        match &place.parent {
            Some(parent) => {
                if let Some(count) = self.stats.links.get_mut(parent.link.method as usize) {
                    *count += 1;
                }
            }
            None => self.stats.roots += 1,
        }
    }
}
