//! Requests that wait for their response.

use std::collections::VecDeque;

use agent_common::ids::MonoNanos;

use super::api::ApiKey;
use super::message::{Body, Facts, Partition, Topic};
use crate::protocol::piece::Start;

#[derive(Debug)]
pub(super) struct Request {
    pub(super) number: u32,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    pub(super) client_id: Option<Box<str>>,
    pub(super) start: Start,
    pub(super) end: MonoNanos,
    pub(super) size: u64,
    pub(super) body: Body,
    pub(super) facts: Facts,
    /// Its response may have gone by unseen.
    pub(super) doubtful: bool,
}

impl Request {
    /// Whether a response is due; `None` when that was not seen.
    pub(super) fn expects_response(&self) -> Option<bool> {
        if self.api == ApiKey::PRODUCE { self.facts.acks.map(|acks| acks != 0) } else { Some(true) }
    }

    /// About how many octets of memory it takes.
    fn weight(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let facts = &self.facts;
        let texts = [&self.client_id, &facts.transactional_id, &facts.group, &facts.member, &facts.instance];
        size_of::<Self>()
            + texts.into_iter().map(text).sum::<usize>()
            + facts.partitions.iter().map(weight).sum::<usize>()
    }
}

fn weight(partition: &Partition) -> usize {
    let contexts = partition.records.iter().flat_map(|records| &records.contexts);
    let states = contexts.map(|context| 96 + context.context.trace_state.as_ref().map_or(0, |state| state.len()));
    // The name is shared by the partitions of a topic, but may be of one alone.
    let Partition { topic: Topic { name, .. }, .. } = partition;
    let heads = partition.records.as_ref().map_or(0, |records| size_of_val(&*records.heads));
    size_of::<Partition>() + heads + name.as_ref().map_or(0, |name| name.len()) + states.sum::<usize>()
}

/// In the order in which they were sent: a broker answers in that order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<(Request, usize)>,
    octets: usize,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    pub(super) fn push(&mut self, request: Request) {
        let weight = request.weight();
        self.octets += weight;
        self.queue.push_back((request, weight));
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<Request> {
        let (request, weight) = self.queue.pop_front()?;
        self.octets -= weight;
        Some(request)
    }

    /// Takes the one of this number.
    pub(super) fn take(&mut self, number: u32) -> Option<Request> {
        let place = self.queue.iter().rposition(|(request, _)| request.number == number)?;
        let (request, weight) = self.queue.remove(place)?;
        self.octets -= weight;
        Some(request)
    }

    /// The oldest with this id.
    pub(super) fn find(&self, correlation_id: i32) -> Option<&Request> {
        self.iter().find(|request| request.correlation_id == correlation_id)
    }

    pub(super) fn has(&self, number: u32) -> bool {
        self.iter().any(|request| request.number == number)
    }

    pub(super) fn doubt_all(&mut self) {
        self.queue.iter_mut().for_each(|(request, _)| request.doubtful = true);
    }

    pub(super) fn oldest(&self) -> Option<&Request> {
        self.queue.front().map(|(request, _)| request)
    }

    pub(super) fn newest(&self) -> Option<&Request> {
        self.queue.back().map(|(request, _)| request)
    }

    fn iter(&self) -> impl Iterator<Item = &Request> {
        self.queue.iter().map(|(request, _)| request)
    }
}

/// Puts what the response has told to what the request has.
pub(super) fn merge(api: ApiKey, facts: &mut Facts, response: Facts, body: Body) {
    if body != Body::Whole
        && matches!(api, ApiKey::JOIN_GROUP | ApiKey::INIT_PRODUCER_ID | ApiKey::CONSUMER_GROUP_HEARTBEAT)
    {
        // The response would have told what they are from now on.
        (facts.member, facts.generation, facts.producer_id, facts.producer_epoch) = (None, None, None, None);
    }
    if body == Body::Invalid {
        return;
    }
    let Facts { error, throttle, producer_id, producer_epoch, member, generation, cluster_id, partitions, .. } =
        response;
    facts.error = error;
    facts.throttle = throttle;
    facts.cluster_id = cluster_id;
    facts.producer_id = producer_id.or(facts.producer_id);
    facts.producer_epoch = producer_epoch.or(facts.producer_epoch);
    facts.member = member.or(facts.member.take());
    facts.generation = generation.or(facts.generation);
    if api == ApiKey::FETCH {
        let asked = std::mem::replace(&mut facts.partitions, partitions);
        facts.partitions_left_out = response.partitions_left_out;
        let mut at = 0;
        for partition in &mut facts.partitions {
            if let Some(asked) = find(&asked, partition, &mut at).and_then(|at| asked.get(at)) {
                partition.offset = asked.offset;
            }
        }
    } else {
        let mut at = 0;
        for answered in partitions {
            let Some(place) = find(&facts.partitions, &answered, &mut at) else { continue };
            if let Some(partition) = facts.partitions.get_mut(place) {
                partition.error = answered.error;
                partition.offset = answered.offset.or(partition.offset);
                partition.log_start_offset = answered.log_start_offset;
            }
        }
    }
}

/// Where the same partition stands, beginning behind the one found before: both are in the same order, as a rule.
fn find(all: &[Partition], wanted: &Partition, at: &mut usize) -> Option<usize> {
    let is = |partition: &Partition| partition.index == wanted.index && partition.topic == wanted.topic;
    let place = (*at..all.len()).chain(0..*at).find(|&place| all.get(place).is_some_and(is))?;
    *at = place + 1;
    Some(place)
}
