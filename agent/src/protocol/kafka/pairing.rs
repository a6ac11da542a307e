//! What becomes of whole messages: requests wait for their responses, and both together are exchanges.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos};

use super::api::ApiKey;
use super::follower::Follower;
use super::lane::{Content, Known, Lane, Message, RequestHead};
use super::message::{Body, Call, Exchange, Facts, Topic};
use super::pending::{Request, merge};
use crate::protocol::http::Loss;
use crate::protocol::piece::Start;
use crate::protocol::{Begun, Coroutine, Course, Failure, Notice};

/// Octets of a message's size.
const SIZE: u64 = 4;
/// So many responses that fit one behind the other prove where messages begin.
const PROOF: u32 = 2;

/// A response, or as much as there was of it.
struct Response {
    start: Start,
    size: u64,
    body: Body,
    facts: Facts,
}

impl Follower {
    /// The message that a direction is in has come to its end, or to what is known of it.
    pub(super) fn complete(&mut self, direction: Direction, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let state = std::mem::replace(&mut self.lane(direction).state, super::lane::boundary());
        let super::lane::State::Message(message) = state else { return };
        let Message { start, size, known, mut content, .. } = *message;
        let body = content.finish();
        match known {
            Known::Nothing => {}
            Known::Request(head) => {
                let substance = has_substance(&head, &content);
                let sure = self.lane(direction).proven || (body == Body::Whole && substance);
                // A response that begins with zeros may be read as a request to produce nothing.
                let odd = self.request_direction.is_none() && head.api == ApiKey::PRODUCE && !substance;
                if self.believe_request(direction, &head, if odd { Body::Invalid } else { body }, sure) {
                    let facts = facts(content, body);
                    let number = self.request(direction, head, (start, at, size), body, facts);
                    self.requested(number, sure, at, out);
                }
            }
            Known::Response(number) => {
                let before = self.lane(direction).proven;
                if !self.believe_response(direction, body, number) {
                    return;
                }
                if body != Body::Invalid && (before || body == Body::Whole) {
                    self.learn(&content);
                }
                let facts = facts(content, body);
                let size = u64::from(size) + SIZE;
                self.respond(number, Some(Response { start, size, body, facts }), None, at, out);
            }
        }
    }

    /// Whether what was read is a request. `sure`: nothing else would look so.
    fn believe_request(&mut self, direction: Direction, head: &RequestHead, body: Body, sure: bool) -> bool {
        if self.request_direction.is_none() {
            // Who speaks first is the client; in the middle of a connection a response may look like a request, but then
            // does not end where it should.
            let believed = body != Body::Invalid && (self.fresh || sure);
            if believed {
                self.decide(direction);
            } else {
                self.invalid(direction);
            }
            return believed;
        }
        let unproven = !self.lane(direction).proven;
        self.lane(direction).proven |= sure;
        match body {
            Body::Invalid if unproven => {
                self.invalid(direction);
                return false;
            }
            Body::Invalid => self.stats.lose(Loss::Invalid),
            _ => {}
        }
        // Nothing will tell whether there was such a request.
        sure || head.api != ApiKey::PRODUCE
    }

    /// Whether what was read is the response to the request of this number.
    fn believe_response(&mut self, direction: Direction, body: Body, number: u32) -> bool {
        let lane = self.lane(direction);
        if !lane.proven {
            lane.matches += 1;
            match body {
                Body::Whole => lane.proven = true,
                Body::Invalid => {
                    self.invalid(direction);
                    return false;
                }
                _ if lane.matches >= PROOF => lane.proven = true,
                _ => {
                    self.drop_until(number);
                    self.drop_oldest(Loss::UncertainRequest);
                    return false;
                }
            }
        } else if body == Body::Invalid {
            self.stats.lose(Loss::Invalid);
        }
        self.pending.has(number)
    }

    /// Requests go this way.
    fn decide(&mut self, direction: Direction) {
        self.request_direction = Some(direction);
        let fresh = self.fresh;
        self.lane(direction).proven = true;
        *self.lane(direction.opposite()) = Lane::new(fresh);
        self.trial(direction).segments.take();
        // What the other direction has brought so far is read once the request is there.
        let early = self.trial(direction.opposite()).segments.take();
        self.hold.extend(early);
    }

    /// A request that was read; gives its number.
    fn request(
        &mut self,
        direction: Direction,
        head: RequestHead,
        (start, end, size): (Start, MonoNanos, u32),
        body: Body,
        facts: Facts,
    ) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.stats.requests += 1;
        let doubtful = self.lane(direction.opposite()).is_lost();
        let RequestHead { api, version, correlation_id, client_id } = head;
        let number = self.number;
        let size = u64::from(size) + SIZE;
        let request =
            Request { number, api, version, correlation_id, client_id, start, end, size, body, facts, doubtful };
        self.begin(direction, &request);
        self.raw = api == ApiKey::SASL_HANDSHAKE && version == 0;
        self.raw_responses |= self.raw;
        self.newest = Some(correlation_id);
        self.hazy = false;
        self.pending.push(request);
        number
    }

    /// What follows from a request that is there. `sure`: it is certain that it is one.
    fn requested(&mut self, number: u32, sure: bool, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let limits = self.config.limits;
        while self.pending.len() > limits.outstanding
            || (self.pending.len() > 1 && self.pending.octets() > limits.outstanding_octets)
        {
            self.drop_oldest(Loss::PipelineLimit);
        }
        if sure && self.pending.newest().is_some_and(|request| request.expects_response() == Some(false)) {
            self.respond(number, None, None, at, out);
        }
        if !self.hold.is_empty() {
            self.release(false, out);
        }
    }

    /// Tells of a request that something may have caused: messages that a client sends. Polls, heartbeats and the like are made
    /// by clients on their own.
    fn begin(&mut self, direction: Direction, request: &Request) {
        if request.api != ApiKey::PRODUCE || direction != Direction::Egress {
            return;
        }
        let first = request.facts.partitions.first();
        let topic = first.and_then(|partition| self.name(&partition.topic)).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (request.api, &topic).hash(&mut hasher);
        let target = hasher.finish();
        let Start { at, thread, position } = request.start;
        self.notices.push(Notice::Begun(Begun {
            number: request.number,
            direction,
            thread,
            coroutine: thread.coroutine,
            dialler: Coroutine::default(),
            at,
            head_end: request.end,
            position,
            stream: None,
            pipelined: self.pending.len() > 0,
            collected: !request.facts.is_one_record(),
            brokered: None,
            operation: fold(target),
            target,
            target_text: topic,
            request_id: None,
            context: request.facts.common_context().cloned(),
        }));
    }

    fn name(&self, topic: &Topic) -> Option<Arc<str>> {
        topic.name.clone().or_else(|| self.topics.name(topic.id?))
    }

    fn learn(&self, content: &Content) {
        if let Content::Walked(both) = content {
            both.1.learnt.iter().for_each(|(id, name)| self.topics.learn(*id, name));
        }
    }

    /// Ends the exchange of this number; of those before it that wait for a response, none comes any more.
    fn respond(
        &mut self,
        number: u32,
        response: Option<Response>,
        failure: Option<Failure>,
        at: MonoNanos,
        out: &mut impl FnMut(Exchange),
    ) {
        // A request without a response says nothing about those before it.
        let request = if response.is_some() {
            self.drop_until(number);
            self.pending.pop()
        } else {
            self.pending.take(number)
        };
        let (Some(mut request), Some(request_direction)) = (request, self.request_direction) else { return };
        let (mut response_start, mut response_thread, mut response_size) = (None, None, None);
        let mut response_body = Body::Absent;
        if let Some(Response { start, size, body, facts }) = response {
            (response_start, response_thread) = (Some(start.at), Some(start.thread));
            (response_size, response_body) = (Some(size), body);
            merge(request.api, &mut request.facts, facts, body);
        }
        for partition in &mut request.facts.partitions {
            partition.topic.name = self.name(&partition.topic);
        }
        let Request { api, version, correlation_id, client_id, start, end, size, body, facts, .. } = request;
        self.stats.exchanges += 1;
        out(Exchange {
            course: Course {
                number: request.number,
                request_direction,
                request_thread: start.thread,
                start: start.at,
                position: start.position,
                request_end: end,
                response_start,
                response_thread,
                end: at.max(start.at),
                failure,
                partial: [body, response_body].iter().any(|body| matches!(body, Body::Cut | Body::Invalid)),
            },
            message: Call {
                api,
                version,
                correlation_id,
                client_id,
                request_size: size,
                response_size,
                request_body: body,
                response_body,
                facts,
            },
        });
    }

    /// Requests before this one are not answered any more: brokers answer in order.
    fn drop_until(&mut self, number: u32) {
        if self.pending.has(number) {
            while let Some(oldest) = self.pending.oldest().filter(|oldest| oldest.number != number) {
                // Of some it is not known whether they are answered at all.
                let known = oldest.expects_response().is_some();
                self.drop_oldest(if known { Loss::UnansweredRequest } else { Loss::UncertainRequest });
            }
        }
    }

    fn drop_oldest(&mut self, loss: Loss) {
        if let Some(request) = self.pending.pop() {
            self.stats.lose(loss);
            self.notices.push(Notice::Dropped { number: request.number });
        }
    }

    /// The request that is under way is not sent to its end.
    pub(super) fn abort_request(&mut self, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let Some(direction) = self.request_direction else { return };
        let proven = self.lane(direction).proven;
        let Some(message) = self.message(direction) else { return };
        if let (true, Known::Request(head)) = (proven, std::mem::replace(&mut message.known, Known::Nothing)) {
            let (start, left) = (message.start, message.left);
            let size = message.size - u32::try_from(left).unwrap_or(message.size);
            let mut content = std::mem::replace(&mut message.content, Content::Passed(Body::Cut));
            if let Content::Walked(both) = &mut content {
                both.0.tear();
            }
            content.finish();
            let facts = facts(content, Body::Cut);
            let number = self.request(direction, head, (start, at, size), Body::Cut, facts);
            self.requested(number, false, at, out);
        }
    }

    /// No response comes any more.
    pub(super) fn fail(&mut self, failure: Failure, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let mut begun = None;
        if let Some(direction) = self.request_direction
            && let Some(message) = self.message(direction.opposite())
            && let Known::Response(number) = message.known
        {
            let size = u64::from(message.size) + SIZE - message.left;
            begun = Some((number, Response { start: message.start, size, body: Body::Cut, facts: Facts::default() }));
            message.skip();
            message.known = Known::Nothing;
        }
        while let Some(oldest) = self.pending.oldest() {
            let (number, unsure, doubtful) = (oldest.number, oldest.expects_response() != Some(true), oldest.doubtful);
            if let Some((_, response)) = begun.take_if(|(begun, _)| *begun == number) {
                self.respond(number, Some(response), Some(failure), at, out);
            } else if unsure && oldest.body != Body::Cut {
                self.drop_oldest(Loss::UncertainRequest);
            } else if doubtful {
                self.drop_oldest(Loss::UnansweredRequest);
            } else {
                self.respond(number, None, Some(failure), at, out);
            }
        }
    }
}

/// Whether there is something in a request that chance would not bring: a run of zeros may be read as a whole one too.
fn has_substance(head: &RequestHead, content: &Content) -> bool {
    let named = |text: &Option<Box<str>>| text.as_ref().is_some_and(|text| !text.is_empty());
    let said = match content {
        Content::Walked(both) => {
            let facts = &both.1.facts;
            !facts.partitions.is_empty() || named(&facts.group) || named(&facts.transactional_id)
        }
        Content::Passed(_) => false,
    };
    said || named(&head.client_id)
}

/// What a body tells, if it is one.
fn facts(content: Content, body: Body) -> Facts {
    match content {
        Content::Walked(both) if body != Body::Invalid => both.1.facts,
        _ => Facts::default(),
    }
}

/// The low half of a hash.
#[expect(clippy::cast_possible_truncation, reason = "half of a hash is one")]
const fn fold(hash: u64) -> u32 {
    hash as u32
}
