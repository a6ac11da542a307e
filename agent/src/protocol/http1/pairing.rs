//! Which response answers which request.
//!
//! Responses come in the order of their requests (RFC 9112, section 9.3), so while every message of both directions has
//! been seen, counting is enough. After a loss, or when the agent came later than the connection, the count is not
//! known, and a wrong one would pair every later response with a wrong request. [`Trust`] keeps what a connection's past
//! says about that; without enough of it nothing is paired until the connection has been idle for a while, or has
//! answered all that was asked several times in a row. The first exchange on a connection older than the agent is kept
//! until the next request shows that no response was too many.
//!
//! Whatever the trust, a response never starts before its request: both times are taken in the one process observed.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq};

use super::body::Framing;
use super::head::{RequestHead, ResponseHead};
use super::start_line::Kind;
use super::trust::Trust;
use crate::protocol::grpc::{Coding, Messages};
use crate::protocol::http::{HttpMessage, Limits, Loss, Method, Stats, operation, target, weight};
use crate::protocol::{Begun, Coroutine, Course, Exchange, Failure, Notice, Thread};

/// How much of a request has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Receiving,
    Complete,
    /// Its end cannot be told.
    Unknown,
}

/// A request without a complete response, or itself not complete.
#[derive(Debug)]
struct Pending {
    exchange: Exchange,
    request: Progress,
    answered: bool,
    may_switch: bool,
    settings: Option<Box<[u8]>>,
    /// Octets of memory its texts take.
    weight: usize,
}

/// Whose response is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    None,
    /// That of the first pending request.
    Paired,
    Unmatched,
}

/// A head that has been read: its place in time, and how it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) start: MonoNanos,
    pub(super) position: Seq,
    /// The segment with the head's last octet.
    pub(super) end: MonoNanos,
    pub(super) thread: Thread,
    /// Who moved the head's last octet.
    pub(super) coroutine: Coroutine,
    pub(super) size: u64,
    /// It was found by searching after a loss.
    pub(super) resynchronised: bool,
    /// Only its beginning was captured.
    pub(super) partial: bool,
}

/// What a response's head means for the octets after it.
pub(super) struct Answer {
    pub(super) framing: Framing,
    /// The request is not known, and so not whether the content announced follows.
    pub(super) doubtful_content: bool,
    /// The connection goes on in another protocol.
    pub(super) switches: bool,
    /// The content is that of a call.
    pub(super) coding: Option<Coding>,
}

/// A request whose response comes by HTTP/2, on the stream with the number 1 (RFC 7540, section 3.2).
#[derive(Debug)]
pub(in crate::protocol) struct Switched {
    pub(in crate::protocol) exchange: Exchange,
    /// All of the request was seen.
    pub(in crate::protocol) complete: bool,
    /// `HTTP2-Settings` as sent.
    pub(in crate::protocol) settings: Option<Box<[u8]>>,
}

#[derive(Debug)]
pub(super) struct Pairing {
    pending: VecDeque<Pending>,
    weight: usize,
    limits: Limits,
    /// The last of `pending` is still being received.
    request_open: bool,
    reply: Reply,
    trust: Trust,
    /// Responses to come that answer requests dropped for their number.
    skip: u64,
    /// Requests sent before are answered, as far as it matters: by a response paired with none, or one not seen.
    settled_until: MonoNanos,
    /// Until then more than one response may have gone by unseen.
    hazy_until: Option<MonoNanos>,
    /// A request may have gone by unseen.
    requests_hazy: bool,
    exchanged: bool,
    /// There were calls of gRPC-Web, whose messages are counted.
    calls: bool,
    /// Complete, but not certain yet.
    unconfirmed: Option<Box<Exchange>>,
    /// Counts requests.
    number: u32,
    /// What is to be told before exchanges are complete.
    pub(super) notices: Vec<Notice>,
    pub(super) stats: Stats,
}

impl Pairing {
    pub(super) fn new(fresh: bool, limits: Limits) -> Self {
        Self {
            pending: VecDeque::new(),
            weight: 0,
            limits,
            request_open: false,
            reply: Reply::None,
            trust: Trust::new(fresh),
            skip: 0,
            settled_until: MonoNanos(0),
            hazy_until: None,
            requests_hazy: false,
            exchanged: false,
            calls: false,
            unconfirmed: None,
            number: 0,
            notices: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// The method of the oldest request that is outstanding.
    pub(super) fn oldest_method(&self) -> Option<Method> {
        self.pending.front().map(|pending| pending.exchange.message.method)
    }

    pub(super) fn outstanding(&self) -> usize {
        self.pending.len() + usize::from(self.unconfirmed.is_some())
    }

    /// When the exchange ended that is complete but not certain yet.
    pub(super) fn unconfirmed_since(&self) -> Option<MonoNanos> {
        self.unconfirmed.as_ref().map(|exchange| exchange.end)
    }

    /// Takes what is complete for certain.
    pub(super) fn confirm(&mut self, out: &mut impl FnMut(Exchange)) {
        if let Some(exchange) = self.unconfirmed.take() {
            self.stats.exchanges += 1;
            out(*exchange);
        }
    }

    /// Whether a request waits for a response of which nothing was seen yet.
    pub(super) fn awaits_response(&self) -> bool {
        self.skip > 0 || self.pending.front().is_some_and(|front| front.exchange.response_start.is_none())
    }

    /// Whether the rest of the newest request is still to come.
    pub(super) fn is_receiving(&self) -> bool {
        self.request_open && self.pending.back().is_some_and(|back| back.request == Progress::Receiving)
    }

    /// Whether a response without a request is worth keeping until its request is there.
    pub(super) fn may_hold(&self) -> bool {
        !self.trust.is_in_doubt() && !self.awaits_response() && self.unconfirmed.is_none()
    }

    /// Whether the newest request may be followed by another protocol.
    pub(super) fn may_switch(&self) -> bool {
        self.pending.back().is_some_and(|back| back.may_switch)
    }

    /// Content came in chunks.
    pub(super) fn note_chunked(&mut self) {
        self.trust.note_chunked();
    }

    pub(super) fn is_lean(&self) -> bool {
        self.trust.is_lean() && !self.calls
    }

    /// Whether requests are outstanding whose response has not begun.
    pub(super) fn has_bystanders(&self) -> bool {
        self.pending.len() > usize::from(self.reply == Reply::Paired)
    }

    /// Whether an exchange was ever complete here.
    pub(super) fn has_exchanged(&self) -> bool {
        self.exchanged
    }

    /// Whether a new request proves that those before it are answered.
    pub(super) fn is_sequential(&self) -> bool {
        self.trust.is_sequential()
    }

    /// A request's head was read. `after_pause`: nothing went either way for a while before it.
    pub(super) fn request(&mut self, begun: Head, head: RequestHead, direction: Direction, after_pause: bool) {
        self.stats.requests += 1;
        self.request_open = false;
        if let Some(until) = self.hazy_until.take()
            && begun.start < until
        {
            self.degrade(None);
            self.stats.lose(Loss::UncertainRequest);
            return;
        }
        if !self.trust.request_fits(begun.start, !self.pending.is_empty()) {
            self.doubt(self.unanswered());
        }
        let idle = self.pending.is_empty() && self.reply == Reply::None;
        if self.trust.is_in_doubt() && !self.trust.request_in_doubt(begun.start, after_pause, idle) {
            self.stats.lose(Loss::UncertainRequest);
            return;
        }
        if begun.start < self.settled_until {
            self.stats.lose(Loss::UncertainRequest);
            return;
        }
        if let Some(back) = self.pending.back()
            && back.request == Progress::Complete
            && (back.exchange.start, back.exchange.request_thread) == (begun.start, begun.thread)
        {
            // Two requests in one system call.
            self.trust.note_pipelining();
        }
        self.trust.note_head(begun.size, begun.partial);
        self.number = self.number.wrapping_add(1);
        self.notices.push(Notice::Begun(Begun {
            number: self.number,
            direction,
            thread: begun.thread,
            coroutine: begun.coroutine,
            dialler: Coroutine::default(),
            at: begun.start,
            head_end: begun.end,
            position: begun.position,
            stream: None,
            pipelined: !self.pending.is_empty(),

            collected: false,
            brokered: None,
            operation: operation(&head.message),
            target: target(&head.message),
            target_text: Arc::clone(&head.message.target),
            request_id: head.message.request_id,
            context: head.message.context.clone(),
        }));
        self.calls |= head.message.grpc.is_some();
        let weight = weight(&head.message);
        self.weight += weight;
        self.pending.push_back(Pending {
            exchange: Exchange {
                course: Course {
                    number: self.number,
                    request_direction: direction,
                    request_thread: begun.thread,
                    start: begun.start,
                    position: begun.position,
                    request_end: begun.end,
                    response_start: None,
                    response_thread: None,
                    end: begun.end,
                    failure: None,
                    partial: begun.partial,
                },
                message: HttpMessage { request_size: begun.size, ..head.message },
            },
            request: Progress::Receiving,
            answered: false,
            may_switch: head.may_switch,
            settings: head.settings,
            weight,
        });
        self.request_open = true;
        while self.pending.len() > self.limits.outstanding.max(1)
            || (self.weight > self.limits.outstanding_octets && self.pending.len() > 1)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.pending.pop_front() else { return };
        self.weight = self.weight.saturating_sub(oldest.weight);
        self.stats.lose(Loss::PipelineLimit);
        self.notices.push(Notice::Dropped { number: oldest.exchange.number });
        match self.reply {
            Reply::Paired => self.reply = Reply::Unmatched,
            // Its response is still to come, and belongs to no request kept.
            _ if !oldest.answered => self.skip += 1,
            _ => {}
        }
    }

    /// More octets of the request being received.
    pub(super) fn request_octets(&mut self, octets: u64, at: MonoNanos) {
        if self.request_open
            && let Some(back) = self.pending.back_mut()
        {
            back.exchange.request_end = at;
            back.exchange.message.request_size = back.exchange.message.request_size.saturating_add(octets);
        }
    }

    /// The request being received has ended. `content` is its number of octets when all were counted.
    pub(super) fn request_done(&mut self, content: Option<u64>, out: &mut impl FnMut(Exchange)) {
        if !self.trust.is_unconfirmed() {
            self.confirm(out);
        }
        if std::mem::take(&mut self.request_open)
            && let Some(back) = self.pending.back_mut()
        {
            back.request = Progress::Complete;
            back.exchange.message.request_body = content;
            back.exchange.partial |= content.is_none();
            if back.answered {
                self.emit(out);
            }
        }
    }

    /// The end of the request being received cannot be told any more.
    pub(super) fn request_cut(&mut self, out: &mut impl FnMut(Exchange)) {
        if !self.trust.is_unconfirmed() {
            self.confirm(out);
        }
        if self.request_open
            && let Some(back) = self.pending.back_mut()
        {
            back.request = Progress::Unknown;
            back.exchange.partial = true;
            if back.answered {
                self.emit(out);
            }
        }
    }

    /// A final response's head was read.
    pub(super) fn response(&mut self, begun: Head, head: ResponseHead) -> Answer {
        let ResponseHead { status, framing, headers, coding, grpc_status, .. } = head;
        let empty = matches!(status, 100..=199 | 204 | 304);
        let framing = if empty { Framing::Length(0) } else { framing };
        self.hazy_until = None;
        self.trust.note_response(begun.start);
        let overlaps = self.pending.get(1).is_some_and(|next| next.exchange.start < begun.start);
        if overlaps && self.trust.rests_on_order() {
            self.doubt(self.unanswered());
        }
        let unmatched = |framing| Answer { framing, doubtful_content: !empty, switches: false, coding: None };
        if self.skip > 0 {
            self.skip -= 1;
            self.reply = Reply::Unmatched;
            return unmatched(framing);
        }
        let front = self
            .pending
            .front_mut()
            .filter(|front| front.exchange.response_start.is_none() && front.exchange.start <= begun.start);
        let Some(front) = front else {
            self.reply = Reply::Unmatched;
            self.settled_until = self.settled_until.max(begun.start);
            self.stats.lose(Loss::UnmatchedResponse);
            let surprising = self.trust.rests_on_count(begun.start) && !begun.resynchronised;
            if surprising || self.requests_hazy {
                // One response too many: what was paired so far may have been off by it.
                let others = self.unanswered();
                self.doubt(others + u64::from(others > 0));
            }
            return unmatched(framing);
        };
        self.reply = Reply::Paired;
        let exchange = &mut front.exchange;
        exchange.response_start = Some(begun.start);
        exchange.response_thread = Some(begun.thread);
        exchange.end = begun.end;
        exchange.partial |= begun.partial;
        exchange.message.status = Some(status);
        exchange.message.response_size = begun.size;
        exchange.message.response_headers = headers;
        let mut coding = coding;
        match &mut exchange.message.grpc {
            Some(grpc) => grpc.status = grpc_status,
            None => coding = None,
        }
        let tunnel = exchange.message.method == Method::Connect && (200..=299).contains(&status);
        let switches = status == 101 || tunnel;
        let empty = switches || exchange.message.method == Method::Head;
        self.trust.note_head(begun.size, begun.partial);
        let framing = if empty { Framing::Length(0) } else { framing };
        Answer { framing, doubtful_content: false, switches, coding }
    }

    /// More octets of the response being read.
    pub(super) fn response_octets(&mut self, octets: u64) {
        if self.reply == Reply::Paired
            && let Some(front) = self.pending.front_mut()
        {
            front.exchange.message.response_size = front.exchange.message.response_size.saturating_add(octets);
        }
    }

    /// The response being read ended at `at`. `content` is its number of octets when all were counted.
    pub(super) fn response_done(&mut self, content: Option<u64>, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        match std::mem::replace(&mut self.reply, Reply::None) {
            Reply::None => {}
            Reply::Unmatched => {
                self.trust.note_unmatched();
            }
            Reply::Paired => {
                let pipelined = self.pending.get(1).is_some_and(|next| next.exchange.start < at);
                if pipelined && self.trust.rests_on_order() {
                    self.doubt(self.unanswered().saturating_sub(1));
                    return;
                }
                self.trust.note_pair(pipelined);
                let Some(front) = self.pending.front_mut() else { return };
                front.answered = true;
                front.exchange.end = at;
                front.exchange.message.response_body = content;
                front.exchange.partial |= content.is_none();
                if front.request != Progress::Receiving {
                    self.emit(out);
                }
            }
        }
    }

    /// The messages of the request that is being received, or else of the response that is being read.
    pub(super) fn messages(&mut self, kind: Option<Kind>, messages: &Messages) {
        let pending = match kind {
            Some(Kind::Request) => self.pending.back_mut().filter(|_| self.request_open),
            _ => self.pending.front_mut().filter(|_| self.reply == Reply::Paired),
        };
        let Some(grpc) = pending.and_then(|pending| pending.exchange.message.grpc.as_mut()) else { return };
        if kind == Some(Kind::Request) {
            grpc.requests = messages.count();
        } else {
            grpc.responses = messages.count();
            grpc.status = grpc.status.or(messages.status());
        }
    }

    /// Takes the only request that is outstanding, which has been answered by a change to HTTP/2.
    pub(super) fn switch(&mut self, out: &mut impl FnMut(Exchange)) -> Option<Switched> {
        if self.pending.len() != 1 {
            return None;
        }
        self.confirm(out);
        let Pending { mut exchange, request, settings, .. } = self.pending.pop_front()?;
        (self.weight, self.request_open, self.reply) = (0, false, Reply::None);
        (exchange.response_start, exchange.response_thread) = (None, None);
        exchange.message.status = None;
        exchange.message.response_size = 0;
        exchange.message.response_headers = Vec::new();
        Some(Switched { exchange, complete: request == Progress::Complete, settings })
    }

    /// The end of a response came into sight again at `at`, but not what went before: other responses may have.
    pub(super) fn response_reappeared(&mut self, at: MonoNanos) {
        if self.has_bystanders() {
            self.responses_lost(at);
        } else {
            // Decided by when the next request comes: nothing can have answered it before it was sent.
            self.hazy_until = Some(at);
        }
    }

    /// The end of a chunked request came into sight again, but not what went before. Another request may have, if it was
    /// chunked too; but clients do not pipeline after an upload (RFC 9112, section 9.3.2), so that is believed only of
    /// one that has pipelined, or once there is a response too many.
    pub(super) fn request_reappeared(&mut self, lost: MonoNanos) {
        if self.trust.has_pipelined() {
            self.degrade(Some(lost));
        }
        self.requests_hazy = true;
    }

    /// An unknown number of requests may have gone by unseen until `lost`. Those seen before are still answered in order.
    pub(super) fn requests_lost(&mut self, lost: MonoNanos) {
        self.degrade(Some(lost));
    }

    /// An unknown number of responses may have gone by unseen until `until`, so no request sent before is certain to get
    /// its own any more; but one whose response has begun keeps it.
    pub(super) fn responses_lost(&mut self, until: MonoNanos) {
        self.settled_until = self.settled_until.max(until);
        let keep = usize::from(self.reply == Reply::Paired);
        self.drop_pending(keep, Loss::UnansweredRequest);
        self.skip = 0;
        self.degrade(Some(until));
    }

    /// Octets of a response went by whose beginning was not seen.
    pub(super) fn response_overlooked(&mut self, at: MonoNanos) {
        // A client that waits for its responses has asked for this one with the first of its outstanding requests, so
        // none is to come for that. Of a client that does not wait, nothing is certain any more.
        if self.awaits_response() && self.pending.front().is_some_and(|front| front.exchange.start <= at) {
            self.responses_lost(at);
        }
    }

    /// Octets went by in which requests may have begun.
    pub(super) fn request_overlooked(&mut self) {
        self.trust.note_overlooked();
    }

    /// Something of the message being read was not seen.
    pub(super) fn mark_partial(&mut self, kind: Option<Kind>) {
        let pending = match kind {
            Some(Kind::Request) if self.request_open => self.pending.back_mut(),
            Some(Kind::Response) if self.reply == Reply::Paired => self.pending.front_mut(),
            _ => None,
        };
        if let Some(pending) = pending {
            pending.exchange.partial = true;
        }
    }

    /// Everything outstanding ends at `at` by `failure`, but what is complete apart from its request. When responses
    /// may have been overlooked since `overlooked`, the requests before that may have succeeded, so they are only
    /// counted.
    pub(super) fn fail(
        &mut self,
        failure: Failure,
        at: MonoNanos,
        overlooked: Option<MonoNanos>,
        out: &mut impl FnMut(Exchange),
    ) {
        self.confirm(out);
        self.reply = Reply::None;
        while let Some(front) = self.pending.front_mut() {
            let exchange = &mut front.exchange;
            if front.answered {
                exchange.partial = true;
            } else if exchange.response_start.is_none() && overlooked.is_some_and(|last| exchange.start <= last) {
                self.drop_pending(0, Loss::UnansweredRequest);
                return;
            } else {
                exchange.failure = Some(failure);
                exchange.end = at;
                exchange.partial |= front.request == Progress::Unknown;
            }
            self.emit(out);
        }
    }

    /// The connection is no longer followed.
    pub(super) fn abandon(&mut self) {
        self.drop_pending(0, Loss::UncertainRequest);
    }

    fn emit(&mut self, out: &mut impl FnMut(Exchange)) {
        let Some(front) = self.pending.pop_front() else { return };
        self.weight = self.weight.saturating_sub(front.weight);
        if self.pending.is_empty() {
            self.request_open = false;
        }
        let Exchange { course: Course { failure, .. }, message: http } = &front.exchange;
        self.exchanged |= failure.is_none();
        let last = http.status == Some(101) || http.method == Method::Connect || failure.is_some();
        self.confirm(out);
        if last || !self.trust.is_unconfirmed() {
            self.stats.exchanges += 1;
            out(front.exchange);
        } else {
            self.unconfirmed = Some(Box::new(front.exchange));
        }
    }

    fn drop_pending(&mut self, keep: usize, loss: Loss) {
        if keep == 0 && self.reply == Reply::Paired {
            self.reply = Reply::Unmatched;
        }
        while self.pending.len() > keep {
            // The newest was the one being received.
            self.request_open = false;
            if let Some(dropped) = self.pending.pop_back() {
                self.weight = self.weight.saturating_sub(dropped.weight);
                self.stats.lose(loss);
                self.notices.push(Notice::Dropped { number: dropped.exchange.number });
            }
        }
    }

    /// Messages were lost.
    fn degrade(&mut self, lost: Option<MonoNanos>) {
        self.hazy_until = None;
        self.requests_hazy = false;
        self.trust.degrade(lost);
    }

    /// Requests of which no complete response was seen.
    fn unanswered(&self) -> u64 {
        self.pending.iter().filter(|pending| !pending.answered).count() as u64
    }

    /// What was assumed has proved wrong, so what is outstanding is uncertain.
    fn doubt(&mut self, unanswered: u64) {
        if let Some(exchange) = self.unconfirmed.take() {
            self.stats.lose(Loss::UncertainRequest);
            self.notices.push(Notice::Dropped { number: exchange.number });
        }
        self.drop_pending(0, Loss::UncertainRequest);
        self.skip = 0;
        self.hazy_until = None;
        self.requests_hazy = false;
        self.trust.doubt(unanswered);
    }
}
