//! Which messages belong to which exchange. The stream's number says it, so nothing is ever paired wrongly; what a loss
//! leaves open is only whether a stream has ended meanwhile.

use std::collections::BTreeMap;

use agent_common::ids::{Direction, MonoNanos};

use super::error::ErrorCode;
use super::frames::Content;
use super::headers::ResponseHead;
use super::stream::{Progress, Stream};
use crate::protocol::grpc::Messages;
use crate::protocol::http::{HttpMessage, Limits, Loss, Method, Stats, Version, operation, target, weight};
use crate::protocol::piece::Start;
use crate::protocol::{Begun, Coroutine, Course, Exchange, Failure, Notice};

/// How long a stream that may have ended unseen is kept after its last octet, in nanoseconds.
const PATIENCE: u64 = 10 * super::SECOND;

/// A request that begins.
pub(super) struct Request {
    pub(super) message: HttpMessage,
    pub(super) start: Start,
    pub(super) direction: Direction,
    pub(super) at: MonoNanos,
    pub(super) size: u64,
    /// Some of its fields are not known.
    pub(super) partial: bool,
    /// Its response may go by unseen.
    pub(super) doubtful: bool,
}

/// The streams of a connection that have not ended.
#[derive(Debug)]
pub(super) struct Streams {
    open: BTreeMap<u32, Stream>,
    /// How many of them have no request yet.
    early: usize,
    weight: usize,
    limits: Limits,
    /// The first and the newest stream that a request was seen on; 0 for none.
    first: u32,
    highest: u32,
    /// Counts requests.
    number: u32,
    /// Some of them are calls of gRPC.
    calls: bool,
    /// When to look for streams that have ended unseen.
    check: Option<MonoNanos>,
    /// Streams that have ended unseen.
    overdue: Vec<u32>,
    pub(super) notices: Vec<Notice>,
    pub(super) stats: Stats,
}

impl Streams {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            open: BTreeMap::new(),
            early: 0,
            weight: 0,
            limits,
            first: 0,
            highest: 0,
            number: 0,
            calls: false,
            check: None,
            overdue: Vec::new(),
            notices: Vec::new(),
            stats: Stats::default(),
        }
    }

    pub(super) fn outstanding(&self) -> usize {
        self.open.len() - self.early
    }

    pub(super) fn oldest_method(&self) -> Option<Method> {
        self.open.values().find_map(|stream| stream.exchange.as_ref()).map(|exchange| exchange.message.method)
    }

    pub(super) const fn highest(&self) -> u32 {
        self.highest
    }

    /// A request begins on a stream above [`Self::highest`].
    pub(super) fn request(&mut self, id: u32, request: Request) {
        let Request { mut message, start, direction, at, size, partial, doubtful } = request;
        self.highest = id;
        self.first = if self.first == 0 { id } else { self.first };
        self.purge_early(id);
        self.stats.requests += 1;
        self.number = self.number.wrapping_add(1);
        // Two targets that are not known are hardly the same.
        let unknown = u64::from(self.number) << 32 | u64::from(start.position.0);
        self.notices.push(Notice::Begun(Begun {
            number: self.number,
            direction,
            thread: start.thread,
            at: start.at,
            position: start.position,
            stream: Some(id),
            pipelined: false,

            collected: false,
            brokered: None,
            operation: operation(&message),
            target: if message.target.is_empty() { unknown } else { target(&message) },
            target_text: message.target.clone(),
            request_id: message.request_id,
            context: message.context.clone(),
            // What reads and writes frames serves all streams.
            coroutine: Coroutine::default(),
            dialler: Coroutine::default(),
            head_end: at,
        }));
        message.request_size = size;
        message.request_body = Some(0);
        let weight = weight(&message);
        self.weight += weight;
        // Its response may have been read before it.
        self.early -= usize::from(self.open.contains_key(&id));
        let stream = self.open.entry(id).or_insert_with(|| Stream::new(at));
        stream.weight = weight;
        stream.messages = message.grpc.map(|grpc| Messages::new(grpc.coding));
        self.calls |= stream.messages.is_some();
        stream.last = at;
        stream.exchange = Some(Exchange {
            course: Course {
                number: self.number,
                request_direction: direction,
                request_thread: start.thread,
                start: start.at,
                position: start.position,
                request_end: at,
                response_start: None,
                response_thread: None,
                end: at,
                failure: None,
                partial,
            },
            message,
        });
        if doubtful {
            stream.doubtful = true;
            stream.response.partial = true;
            stream.response.content = None;
            stream.lose_messages(true);
            self.check_from(at);
        }
        while self.outstanding() > self.limits.outstanding.max(1)
            || (self.weight > self.limits.outstanding_octets && self.outstanding() > 1)
        {
            let Some(oldest) = self.oldest() else { break };
            self.drop(oldest, Loss::PipelineLimit);
        }
    }

    /// The first stream of a connection, whose request came by HTTP/1 and was told already; `complete`: all of it was seen.
    pub(super) fn resume(&mut self, mut exchange: Exchange, complete: bool) {
        exchange.message.version = Version::Http2;
        (self.first, self.highest, self.number) = (1, 1, exchange.number);
        let mut stream = Stream::new(exchange.request_end);
        stream.weight = weight(&exchange.message);
        stream.request = if complete { Progress::Complete } else { Progress::Unknown };
        self.weight += stream.weight;
        stream.exchange = Some(exchange);
        self.open.insert(1, stream);
    }

    /// The oldest stream with a request.
    fn oldest(&self) -> Option<u32> {
        self.open.iter().find(|(_, stream)| stream.exchange.is_some()).map(|(id, _)| *id)
    }

    /// More octets of a request, of which `content` are content when that is known.
    pub(super) fn request_octets(&mut self, id: u32, size: u64, content: Option<u64>, at: MonoNanos) {
        let Some(stream) = self.open.get_mut(&id) else { return };
        stream.last = at;
        let Some(exchange) = &mut stream.exchange else { return };
        exchange.request_end = at;
        exchange.message.request_size = exchange.message.request_size.saturating_add(size);
        exchange.message.request_body = sum(exchange.message.request_body, content);
    }

    /// A request has ended.
    pub(super) fn request_done(&mut self, id: u32, out: &mut impl FnMut(Exchange)) {
        if let Some(stream) = self.open.get_mut(&id) {
            if stream.request == Progress::Receiving {
                stream.request = Progress::Complete;
            }
            self.settle(id, out);
        }
    }

    /// The head of a response, interim ones included, or trailers.
    pub(super) fn response(&mut self, id: u32, start: Start, size: u64, head: ResponseHead, partial: bool) {
        if head.status.is_some_and(|status| status < 200) {
            return;
        }
        if !self.open.contains_key(&id) {
            // Its request may be on its way to us; of one that was seen and has ended nothing more is wanted.
            if id <= self.highest {
                return;
            }
            if self.early >= self.limits.outstanding.max(1)
                && let Some(oldest) = self.open.iter().find(|(_, stream)| stream.exchange.is_none()).map(|(id, _)| *id)
            {
                self.forget_early(oldest);
            }
            self.early += 1;
        }
        let stream = self.open.entry(id).or_insert_with(|| Stream::new(start.at));
        stream.last = start.at;
        let response = &mut stream.response;
        response.size = response.size.saturating_add(size);
        response.partial |= partial;
        response.grpc_status = head.grpc_status.or(response.grpc_status);
        let trailers = response.status.is_some() || (response.start.is_some() && head.status.is_none());
        if !trailers {
            response.start.get_or_insert((start.at, start.thread));
            response.status = head.status;
            response.headers = head.headers;
            response.coding = head.coding;
            // What went before is not counted.
            response.messages = head.coding.filter(|_| response.content == Some(0)).map(Messages::new);
            self.calls |= head.coding.is_some();
        }
    }

    /// The messages of a stream that is a call of gRPC, as long as they can be counted.
    pub(super) fn messages(&self, id: u32, of_response: bool) -> Option<&Messages> {
        let stream = self.open.get(&id).filter(|_| self.calls)?;
        if of_response { stream.response.messages.as_ref() } else { stream.messages.as_ref() }
    }

    /// Content of a stream: its octets, where they were captured.
    pub(super) fn content(&mut self, id: u32, of_response: bool, content: &Content<'_>) {
        if !self.calls {
            return;
        }
        let Some(stream) = self.open.get_mut(&id) else { return };
        let messages = if of_response { &mut stream.response.messages } else { &mut stream.messages };
        match (messages, content) {
            (Some(messages), Content::Seen(octets)) => messages.feed(octets),
            (Some(messages), Content::Unseen(octets)) => messages.pass(*octets),
            (_, Content::Uncounted) => stream.lose_messages(of_response),
            (None, _) => {}
        }
    }

    /// More octets of a response.
    pub(super) fn response_octets(&mut self, id: u32, size: u64, content: Option<u64>, at: MonoNanos) {
        let Some(stream) = self.open.get_mut(&id) else { return };
        stream.last = at;
        stream.response.size = stream.response.size.saturating_add(size);
        stream.response.content = sum(stream.response.content, content);
    }

    /// A response has ended.
    pub(super) fn response_done(&mut self, id: u32, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if let Some(stream) = self.open.get_mut(&id) {
            stream.response.end.get_or_insert(at);
            self.settle(id, out);
        }
    }

    /// Either side has ended a stream (RFC 9113, section 6.4). A server that has answered does so to be sent no more.
    pub(super) fn reset(&mut self, id: u32, code: ErrorCode, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let Some(stream) = self.open.get_mut(&id) else { return };
        if stream.exchange.is_none() {
            return;
        }
        if stream.response.end.is_some() {
            if stream.request == Progress::Receiving {
                // Nothing of it is missing: what was sent is all that there is.
                stream.request = Progress::Cut;
            }
            return self.settle(id, out);
        }
        self.cut(id, code, at, out);
    }

    /// The server has not looked at streams above `last`, and will not (section 6.8).
    pub(super) fn refused_above(&mut self, last: u32, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let refused: Vec<u32> = self
            .open
            .range(last.saturating_add(1)..)
            .filter(|(_, stream)| stream.exchange.is_some() && stream.response.start.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in refused {
            self.cut(id, ErrorCode::REFUSED_STREAM, at, out);
        }
    }

    /// Frames of requests went by unseen.
    pub(super) fn requests_lost(&mut self, out: &mut impl FnMut(Exchange)) {
        let mut answered = Vec::new();
        for (id, stream) in &mut self.open {
            if stream.request == Progress::Receiving && stream.exchange.is_some() {
                stream.request = Progress::Unknown;
                stream.lose_messages(false);
                answered.push(*id);
            }
        }
        for id in answered {
            self.settle(id, out);
        }
    }

    /// Frames of responses went by unseen until `at`.
    pub(super) fn responses_lost(&mut self, at: MonoNanos) {
        for stream in self.open.values_mut().filter(|stream| stream.response.end.is_none()) {
            stream.doubtful = true;
            stream.response.partial = true;
            stream.response.content = None;
            stream.lose_messages(true);
        }
        self.check_from(at);
    }

    /// Gives up streams that may have ended unseen, some time after their last octet.
    pub(super) fn poll(&mut self, now: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if self.check.is_none_or(|check| now < check) {
            return;
        }
        let doubtful = self.open.iter().filter(|(_, stream)| stream.doubtful);
        let (overdue, waiting): (Vec<_>, Vec<_>) =
            doubtful.map(|(id, stream)| (*id, stream.last)).partition(|(_, last)| now.since(*last) >= PATIENCE);
        for (id, _) in overdue {
            self.conclude(id, out);
        }
        self.check = (!waiting.is_empty()).then(|| MonoNanos(now.0.saturating_add(super::SECOND)));
    }

    /// Responses were read up to where the connection's other end has read them: what has ended there has ended.
    pub(super) fn compare(&mut self, other: &Self) {
        let ended = |id: &u32| (other.first..=other.highest).contains(id) && !other.open.contains_key(id);
        let unseen = |stream: &Stream| stream.doubtful && stream.response.start.is_some();
        let overdue = self.open.iter().filter(|(id, stream)| unseen(stream) && ended(id));
        self.overdue.extend(overdue.map(|(id, _)| *id));
    }

    /// Whether [`Self::settle_overdue`] has something to give out.
    pub(super) const fn is_overdue(&self) -> bool {
        !self.overdue.is_empty()
    }

    /// Gives out those that have ended unseen.
    pub(super) fn settle_overdue(&mut self, out: &mut impl FnMut(Exchange)) {
        for id in std::mem::take(&mut self.overdue) {
            if self.open.get(&id).is_some_and(|stream| stream.doubtful) {
                self.conclude(id, out);
            }
        }
    }

    /// Nothing more comes: everything ends at `at`, by `failure` where it has not ended otherwise.
    pub(super) fn close(&mut self, failure: Failure, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        while let Some((&id, stream)) = self.open.first_key_value() {
            if stream.exchange.is_none() {
                self.forget_early(id);
            } else if stream.doubtful || stream.response.end.is_some() {
                self.conclude(id, out);
            } else {
                self.fail(id, failure, at, out);
            }
        }
    }

    /// Ends a stream of which nothing more will be known.
    fn conclude(&mut self, id: u32, out: &mut impl FnMut(Exchange)) {
        let Some(stream) = self.open.get_mut(&id) else { return };
        if stream.exchange.is_none() {
            return self.forget_early(id);
        }
        if stream.response.start.is_none() {
            return self.drop(id, Loss::UnansweredRequest);
        }
        if stream.request == Progress::Receiving {
            stream.request = Progress::Unknown;
        }
        let end = stream.response.end.unwrap_or(stream.last);
        self.emit(id, end, out);
    }

    /// Gives out the exchange when both of its messages have ended.
    fn settle(&mut self, id: u32, out: &mut impl FnMut(Exchange)) {
        let Some(stream) = self.open.get_mut(&id) else { return };
        let Some(end) = stream.response.end.filter(|_| stream.exchange.is_some()) else { return };
        if stream.request == Progress::Receiving {
            // The server has not waited for all of it. What comes of it still may be the rest, or nothing.
            stream.doubtful = true;
            let last = stream.last;
            return self.check_from(last);
        }
        self.emit(id, end, out);
    }

    /// A stream was ended by `code` alone.
    fn cut(&mut self, id: u32, code: ErrorCode, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if let Some(stream) = self.open.get_mut(&id)
            && let Some(exchange) = &stream.exchange
            && let Some(grpc) = &exchange.message.grpc
        {
            let status = code.grpc_status(grpc, at.since(exchange.start));
            stream.response.grpc_status = stream.response.grpc_status.or(status);
        }
        self.fail(id, Failure::Stream(code), at, out);
    }

    fn fail(&mut self, id: u32, failure: Failure, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if let Some(exchange) = self.open.get_mut(&id).and_then(|stream| stream.exchange.as_mut()) {
            exchange.failure = Some(failure);
        }
        self.emit(id, at, out);
    }

    fn emit(&mut self, id: u32, end: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let Some(stream) = self.open.remove(&id) else { return };
        self.weight = self.weight.saturating_sub(stream.weight);
        if let Some(exchange) = stream.finish(end) {
            self.stats.exchanges += 1;
            out(exchange);
        }
    }

    fn drop(&mut self, id: u32, loss: Loss) {
        let Some(stream) = self.open.remove(&id) else { return };
        self.weight = self.weight.saturating_sub(stream.weight);
        self.stats.lose(loss);
        self.notices.extend(stream.exchange.map(|exchange| Notice::Dropped { number: exchange.number }));
    }

    /// Requests begin in the order of their streams, so those below `id` that have none will have none.
    fn purge_early(&mut self, id: u32) {
        if self.early == 0 {
            return;
        }
        let early = self.open.range(..id).filter(|(_, stream)| stream.exchange.is_none());
        for id in early.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget_early(id);
        }
    }

    fn forget_early(&mut self, id: u32) {
        if self.open.remove(&id).is_some() {
            self.early = self.early.saturating_sub(1);
            self.stats.lose(Loss::UnmatchedResponse);
        }
    }

    fn check_from(&mut self, at: MonoNanos) {
        let check = MonoNanos(at.0.saturating_add(PATIENCE));
        self.check = Some(self.check.map_or(check, |earlier| earlier.min(check)));
    }
}

fn sum(content: Option<u64>, more: Option<u64>) -> Option<u64> {
    Some(content?.saturating_add(more?))
}
