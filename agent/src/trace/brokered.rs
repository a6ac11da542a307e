//! Messages that go through a broker as parts of traces: what was sent, what came, and what is done with it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Tgid};

use super::messages::{Batch, By, LINKS, Sent, SpanLink};
use super::place::{Link, Method};
use super::sdk::Beginning;
use super::work::{Brought, Changes, Stretch};
use super::{MOST_PROCESSES, Open, PATIENCE, Placed, Subject, Traces};
use crate::conn::{ExchangeId, Finished};
use crate::protocol::kafka::{ApiKey, BatchHead, Call, Partition};
use crate::protocol::{Exchange, Thread};
use crate::sampling::Origin;
use crate::signal::resource::Resource;
use crate::signal::span::Kind;

/// A batch of messages of one topic and partition: one that a request has sent, or that a response has brought.
#[derive(Clone, Debug)]
pub struct Message {
    pub call: Arc<Finished<Call>>,
    /// Which of the call's partitions it is about.
    pub part: usize,
    /// Nanoseconds since its first record was sent, when that was seen.
    pub queued: Option<u64>,
    /// The spans that it comes from, when these are several, or there is another parent.
    pub links: Vec<SpanLink>,
}

impl Message {
    fn new(call: &Arc<Finished<Call>>, part: usize) -> Self {
        Self { call: Arc::clone(call), part, queued: None, links: Vec::new() }
    }

    /// `None` when what was sent could not be read.
    #[must_use]
    pub fn partition(&self) -> Option<&Partition> {
        self.call.exchange.message.facts.partitions.get(self.part)
    }

    /// It was sent; otherwise it came.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.call.exchange.message.api == ApiKey::PRODUCE
    }
}

/// The batches of a partition as their heads have them, and what names each. None whose topic or offset is not known.
fn batches(partition: &Partition, sent: bool) -> impl Iterator<Item = (Batch, BatchHead)> {
    let known = partition
        .topic
        .name
        .as_ref()
        .zip(partition.index)
        .filter(|_| partition.error.is_none_or(|error| error.is_none()));
    // What is sent counts from 0, and the answer tells where that is.
    let base = if sent { partition.offset.filter(|&offset| offset >= 0) } else { Some(0) };
    let heads = partition.records.iter().flat_map(|records| &records.heads);
    known.zip(base).into_iter().flat_map(move |((topic, index), base)| {
        heads.clone().filter_map(move |head| {
            let offset = base.checked_add(head.first_offset)?;
            Some((Batch { topic: Arc::clone(topic), partition: index, offset, checksum: head.checksum }, *head))
        })
    })
}

impl Traces {
    /// A call of a messaging client has finished.
    pub fn called(&mut self, finished: Finished<Call>, resource: &Arc<Resource>, out: &mut Vec<Placed>) {
        if finished.exchange.request_direction != Direction::Egress {
            return;
        }
        match finished.exchange.message.api {
            ApiKey::PRODUCE => self.produced(Arc::new(finished), resource, out),
            ApiKey::OFFSET_COMMIT => self.committed(&finished.exchange, out),
            ApiKey::FETCH if finished.exchange.message.facts.partitions.iter().any(Partition::has_brought) => {
                self.fetched(&Arc::new(finished), resource, out);
            }
            _ => {}
        }
    }

    fn produced(&mut self, call: Arc<Finished<Call>>, resource: &Arc<Resource>, out: &mut Vec<Placed>) {
        let id = call.id();
        let exchange = &call.exchange;
        if self.open.get(&id).is_none_or(|open| open.over) {
            self.stats.untracked += 1;
            let open = Open::new(Kind::Client, exchange.request_thread, exchange.start, self.judge.span_id(), resource);
            self.enter(id, open, out);
            self.uproot(id, out);
        }
        let Some(open) = self.open.get_mut(&id) else { return };
        open.over = true;
        let (ending, place, left_out) = (open.ending(), open.place.clone(), open.left_out);
        let anyones = place.is_none() && !open.told;
        self.ended(id, ending, exchange.end, None, out);
        let partitions = &exchange.message.facts.partitions;
        for (part, partition) in partitions.iter().enumerate() {
            let sender = if part == 0 {
                id
            } else {
                let sender = self.messages.id();
                let span_id = self.judge.span_id();
                let open = Open {
                    over: true,
                    left_out,
                    finished: Some(Subject::Message(Message::new(&call, part))),
                    ..Open::new(Kind::Client, exchange.request_thread, exchange.start, span_id, resource)
                };
                self.begun.push_back((open.at, sender));
                self.open.insert(sender, open);
                sender
            };
            self.note_sent(sender, partition, exchange.start);
            if anyones {
                self.place_alone(sender, &call, partition, resource, out);
            } else if part > 0 {
                match (&place, self.open.get_mut(&id)) {
                    (Some(place), _) => self.settle(sender, place.clone(), out),
                    (None, Some(first)) => first.waiting.push((sender, None)),
                    (None, None) => {}
                }
            }
        }
        self.conclude(id, Subject::Message(Message::new(&call, 0)), Arc::clone(resource), out);
    }

    /// Places a batch that may come from other requests than those that were sent with it: by the context that all its records have.
    fn place_alone(
        &mut self,
        id: ExchangeId,
        call: &Finished<Call>,
        partition: &Partition,
        resource: &Resource,
        out: &mut Vec<Placed>,
    ) {
        let Some(context) = partition.records.as_ref().and_then(|records| records.common_context()) else {
            return self.uproot(id, out);
        };
        let (at, tgid) = (call.exchange.start, call.exchange.request_thread.tgid);
        let topic = partition.topic.name.as_deref().unwrap_or_default();
        let beginning = Beginning { id, kind: Kind::Client, tgid, at, target: topic, context: Some(context) };
        let own = self.sdks.begun(&beginning, |id| self.open.get(&id).is_some_and(|open| !open.over));
        if let Some(open) = self.open.get_mut(&id) {
            open.left_out = own.left_out;
        }
        match own.cause {
            Some(cause) => self.join(id, cause, Link::certain(Method::Context), out),
            None => {
                let origin = Origin { service: &resource.service_name, target: Some(topic) };
                let place = self.judge.continued(context, origin, at);
                self.settle(id, place, out);
            }
        }
    }

    /// Remembers the batches that an exchange has sent.
    fn note_sent(&mut self, id: ExchangeId, partition: &Partition, at: MonoNanos) {
        let Some(open) = self.open.get_mut(&id) else { return };
        for (batch, _) in batches(partition, true) {
            let by = match &open.place {
                Some(place) => By::Placed(open.cause(place, Some(Link::certain(Method::Offset)))),
                None => {
                    open.sent.push(batch.clone());
                    By::Open(id)
                }
            };
            self.messages.sent(batch, Sent { by, span_id: open.span_id, at });
        }
    }

    fn fetched(&mut self, call: &Arc<Finished<Call>>, resource: &Arc<Resource>, out: &mut Vec<Placed>) {
        let exchange = &call.exchange;
        // Whoever has read the response has the messages.
        let Some(thread) = exchange.response_thread else { return };
        let at = exchange.end;
        let mut messages = Vec::new();
        for (part, partition) in exchange.message.facts.partitions.iter().enumerate() {
            if !partition.has_brought() {
                continue;
            }
            let id = self.messages.id();
            let open = self.arrival(id, Message::new(call, part), thread, at, resource);
            self.begun.push_back((at, id));
            self.open.insert(id, open);
            let records = partition.count_brought().and_then(|count| u32::try_from(count).ok());
            let from =
                partition.first_brought().zip(partition.records.as_ref().and_then(|records| records.last_offset));
            let from = from.zip(log(partition)).map(|((first, last), partition)| Stretch {
                conn: call.conn,
                partition,
                first,
                last,
            });
            messages.push(Brought { id, records, from });
        }
        self.note_consumer(thread.tgid, at);
        let mut changes = Changes::default();
        self.works.got(thread.tgid, &messages, at, &mut changes);
        self.change_work(changes, at, out);
        for Brought { id, .. } in messages {
            if !self.trace_back(id, at, out) {
                self.arrived.push_back((at, id));
            }
        }
    }

    /// A consumer has committed offsets: it has got what is before them.
    fn committed(&mut self, exchange: &Exchange<Call>, out: &mut Vec<Placed>) {
        let mut changes = Changes::default();
        for partition in &exchange.message.facts.partitions {
            if let Some((offset, partition)) = partition.offset.zip(log(partition)) {
                let tgid = exchange.request_thread.tgid;
                self.works.committed(tgid, partition, offset, exchange.end, &mut changes);
            }
        }
        self.change_work(changes, exchange.end, out);
    }

    /// Whether a process takes up what one response has brought in the order that it has there: librdkafka does so, which puts the
    /// records of each partition in turn into one queue (`rd_kafka_fetch_reply_handle`).
    pub fn takes_in_order(&mut self, tgid: Tgid, in_order: bool) {
        self.works.takes_in_order(tgid, in_order);
    }

    /// A process gets messages. The first that is seen may not be its first: what it asked for before the agent was there came unseen.
    pub(super) fn note_consumer(&mut self, tgid: Tgid, at: MonoNanos) {
        if self.consuming.len() >= MOST_PROCESSES {
            self.consuming.clear();
        }
        if self.consuming.insert(tgid) {
            self.causality.asked_unseen(tgid.0, at.0);
        }
    }

    /// A message that came, as what a process is asked to do.
    fn arrival(
        &mut self,
        id: ExchangeId,
        message: Message,
        thread: Thread,
        at: MonoNanos,
        resource: &Arc<Resource>,
    ) -> Open {
        let partition = message.partition();
        let topic = partition.and_then(|partition| partition.topic.name.clone()).unwrap_or_default();
        let context = partition.and_then(|partition| partition.records.as_ref()?.common_context());
        let beginning = Beginning { id, kind: Kind::Server, tgid: thread.tgid, at, target: &topic, context };
        let own = self.sdks.begun(&beginning, |id| self.open.get(&id).is_some_and(|open| !open.over));
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is one")]
        let operation = hasher.finish() as u32;
        Open {
            operation,
            // No target that is passed on.
            target: id.0,
            target_text: self.judge.needs_target().then_some(topic),
            left_out: own.left_out,
            queued: true,
            finished: Some(Subject::Message(message)),
            ..Open::new(Kind::Server, thread, at, self.judge.span_id(), resource)
        }
    }

    /// Places a message that came under those who sent it, as far as they are known by `now`; `false` when more may become known.
    fn trace_back(&mut self, id: ExchangeId, now: MonoNanos, out: &mut Vec<Placed>) -> bool {
        let Some(open) = self.open.get(&id).filter(|open| open.place.is_none()) else { return true };
        let Some(Subject::Message(message)) = &open.finished else { return true };
        let Some(partition) = message.partition() else { return true };
        let at = message.call.exchange.end;
        let waited = now.since(at);
        let asked = partition.offset.unwrap_or(0);
        // A broker sends whole batches, so the first may begin before what was asked for.
        let wanted = batches(partition, false).filter(|(_, head)| head.last_offset >= asked).map(|(batch, _)| batch);
        let (mut known, mut all, mut undecided) = (Vec::<&Sent>::new(), true, false);
        for batch in wanted {
            match self.messages.find(&batch) {
                Some(sent) => {
                    undecided |= matches!(sent.by, By::Open(_));
                    known.push(sent);
                }
                None => all = false,
            }
        }
        all &= !known.is_empty() && partition.records.as_ref().is_some_and(|records| records.count.is_some());
        let single = all && known.windows(2).all(|two| matches!(two, [a, b] if a.span_id == b.span_id));
        let more = (!all && waited < PATIENCE) || (!single && undecided && waited < self.linger);
        if more {
            return false;
        }
        let queued = known.first().map(|sent| at.since(sent.at));
        let parent = known.first().filter(|_| single).map(|sent| sent.by.clone());
        let context = partition.records.as_ref().and_then(|records| records.common_context());
        let context = context.filter(|_| known.is_empty()).cloned();
        let links = if single || context.is_some() { Vec::new() } else { links(&known, partition, all) };
        let (resource, topic) = (Arc::clone(&open.resource), partition.topic.name.clone());
        if let Some(Open { finished: Some(Subject::Message(message)), .. }) = self.open.get_mut(&id) {
            (message.queued, message.links) = (queued, links);
        }
        match (parent, context) {
            (Some(By::Open(sender)), _) => self.join(id, sender, Link::certain(Method::Offset), out),
            (Some(By::Placed(place)), _) => self.settle(id, place, out),
            (None, Some(context)) => {
                let origin = Origin { service: &resource.service_name, target: topic.as_deref() };
                let place = self.judge.continued(&context, origin, at);
                self.settle(id, place, out);
            }
            (None, None) => self.uproot(id, out),
        }
        true
    }

    /// What can be decided about messages by `now`.
    pub(super) fn poll_messages(&mut self, now: MonoNanos, out: &mut Vec<Placed>) {
        let mut changes = Changes::default();
        self.works.poll(now, &mut changes);
        self.change_work(changes, now, out);
        for _ in 0..self.arrived.len() {
            let Some((at, id)) = self.arrived.pop_front() else { break };
            if !self.trace_back(id, now, out) {
                self.arrived.push_back((at, id));
            }
        }
    }

    /// A process calls: it may be done with one message, and work on another.
    pub(super) fn note_call(&mut self, tgid: Tgid, at: MonoNanos, out: &mut Vec<Placed>) {
        let mut changes = Changes::default();
        self.works.calls(tgid, at, &mut changes);
        self.change_work(changes, at, out);
    }

    /// A call of a process is over.
    pub(super) fn note_return(&mut self, tgid: Tgid, at: MonoNanos, out: &mut Vec<Placed>) {
        let mut changes = Changes::default();
        self.works.returned(tgid, at, &mut changes);
        self.change_work(changes, at, out);
    }

    /// A process is gone, with all that it worked on.
    pub(super) fn work_is_over(&mut self, tgid: Tgid, out: &mut Vec<Placed>) {
        let mut changes = Changes::default();
        self.works.exited(tgid, &mut changes);
        let newest = changes.done.iter().filter_map(|id| self.open.get(id)).map(|open| open.at).max();
        self.change_work(changes, newest.unwrap_or_default(), out);
    }

    /// Processes are done with messages, and work on others from now on.
    pub(super) fn change_work(&mut self, Changes { done, begun }: Changes, at: MonoNanos, out: &mut Vec<Placed>) {
        for id in done {
            let Some(open) = self.open.get_mut(&id) else { continue };
            open.over = true;
            let (ending, queued, placed, at) = (open.ending(), open.queued, open.place.is_some(), at.max(open.at));
            open.queued = false;
            if !queued {
                self.ended(id, ending, at, None, out);
            }
            if placed {
                self.leave(id, at);
            }
        }
        for id in begun {
            // What is over already was never worked on.
            if self.open.get(&id).is_none_or(|open| !open.queued) {
                continue;
            }
            let Some(mut open) = self.open.remove(&id) else { continue };
            (open.queued, open.at) = (false, at.max(open.at));
            self.enter(id, open, out);
        }
    }
}

/// Tells partitions of one process apart; `None` when the topic's name is not known.
fn log(partition: &Partition) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (partition.topic.name.as_deref()?, partition.index?).hash(&mut hasher);
    Some(hasher.finish())
}

/// The spans that records come from: those that sent them, and where not all of these are known, those that their headers
/// name.
fn links(known: &[&Sent], partition: &Partition, all: bool) -> Vec<SpanLink> {
    let mut links = Vec::new();
    let mut add = |link: SpanLink| {
        if links.len() < LINKS && !links.contains(&link) {
            links.push(link);
        }
    };
    for sent in known {
        if let By::Placed(place) = &sent.by {
            let span_id = place.parent.map_or(sent.span_id, |parent| parent.span_id);
            add(SpanLink { trace_id: place.trace_id, span_id });
        }
    }
    for record in partition.records.iter().filter(|_| !all).flat_map(|records| &records.contexts) {
        if let (Some(span_id), true) =
            (record.context.span_id, partition.offset.is_none_or(|asked| record.offset >= asked))
        {
            add(SpanLink { trace_id: record.context.trace_id, span_id });
        }
    }
    links
}
