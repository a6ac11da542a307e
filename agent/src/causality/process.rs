//! One process: its events in order of time, its open exchanges, and the clusters they form.

mod bounds;
mod claim;
mod confidence;
mod decide;
mod learn;
mod rivals;

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::cluster::Cluster;
use super::exact::Exact;
use super::model::Model;
use super::slab::Slab;
use super::tasks::{Tasks, Waiting};
use super::track::Track;
use super::{Facts, Incoming, Method, Outgoing, Ref, Shared, Unborn};
use rivals::Rival;

/// Events kept back for the sake of their order; more are looked at early.
const MAX_QUEUE: usize = 1 << 14;
/// Times that the first events are gone through before they are decided on.
const REHEARSALS: usize = 5;
/// The cluster of a call that is in none.
const ASIDE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Incoming(Incoming),
    Answered(Ref, Option<u64>),
    Outgoing(Outgoing),
    Returned(Ref),
    GaveUp,
    AskedUnseen,
    Unborn(Unborn),
    Born { thread: u32, parent: u32 },
}

/// When an event was looked at: the time, and its number, which tells the order where times are equal.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: u64,
    number: u64,
}

/// An incoming request that is open, or on which a decision still depends.
#[derive(Debug)]
struct Request {
    id: Ref,
    operation: u32,
    at: u64,
    answered: Option<Moment>,
    cluster: u32,
    facts: Facts,
    /// Calls decided to be caused by it.
    calls: usize,
    /// Those of them that have left their cluster.
    past: Vec<Past>,
    /// Probability that they are just those, or of the cause of the least certain call that might be one of them.
    certainty: f32,
}

/// What is kept of a call for its request to learn from.
#[derive(Clone, Copy, Debug)]
struct Past {
    operation: u32,
    began: Moment,
    returned: Option<Moment>,
}

/// An outgoing request that is undecided, or has not returned to an open request.
#[derive(Debug)]
struct Call {
    id: Ref,
    operation: u32,
    began: Moment,
    returned: Option<Moment>,
    thread: Option<u32>,
    tasks: [Option<u64>; 3],
    /// [`ASIDE`] when no request was asked.
    cluster: u32,
    /// Given by exact facts.
    exact: Option<Method>,
    /// No other request could be the cause.
    alone: bool,
    /// The link has been given.
    decided: bool,
    /// Requests that are about as likely to have made it, if several.
    rivals: Vec<Rival>,
}

/// Something to look at when its time has come, by key and name: the key may be in use again by then.
type Alarm = (u64, u32, Ref);

#[derive(Debug)]
pub(super) struct Process {
    queue: VecDeque<(u64, Event)>,
    newest: u64,
    /// Events are kept back no longer than for their order.
    warm: bool,
    /// Latest time that has been worked on; no event is looked at as earlier.
    now: u64,
    events: u64,
    requests: Slab<Request>,
    calls: Slab<Call>,
    clusters: Slab<Cluster>,
    request_keys: FxHashMap<Ref, u32>,
    call_keys: FxHashMap<Ref, u32>,
    /// Open requests by arrival, for bounds. May hold some that are gone.
    arrivals: VecDeque<Alarm>,
    /// Calls by their beginning, for bounds. May hold some that are gone.
    starts: VecDeque<Alarm>,
    /// Calls that have returned undecided, with the time by which they must be.
    deadlines: VecDeque<Alarm>,
    exact: Exact,
    tasks: Tasks,
    model: Model,
    /// Takes what is learnt in place of `model`, while events are only rehearsed.
    draft: Option<Box<Model>>,
}

impl Process {
    pub(super) fn new(at: u64) -> Self {
        Self {
            queue: VecDeque::new(),
            newest: at,
            warm: false,
            now: 0,
            events: 0,
            requests: Slab::new(),
            calls: Slab::new(),
            clusters: Slab::new(),
            request_keys: FxHashMap::default(),
            call_keys: FxHashMap::default(),
            arrivals: VecDeque::new(),
            starts: VecDeque::new(),
            deadlines: VecDeque::new(),
            exact: Exact::default(),
            tasks: Tasks::default(),
            model: Model::new(),
            draft: None,
        }
    }

    /// Time of the newest event fed.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.requests.len() == 0 && self.calls.len() == 0
    }

    /// Puts an event in its place and works on those that are old enough.
    pub(super) fn feed(&mut self, at: u64, event: Event, shared: &mut Shared) {
        let place = self.queue.iter().rev().position(|(other, _)| *other <= at).unwrap_or(self.queue.len());
        self.queue.insert(self.queue.len() - place, (at, event));
        self.newest = self.newest.max(at);
        self.warm_up(self.newest, shared);
        self.work_until(self.newest.saturating_sub(shared.settings.disorder), shared);
        while self.queue.len() > MAX_QUEUE {
            self.work_on_next(shared);
        }
    }

    pub(super) fn poll(&mut self, now: u64, shared: &mut Shared) {
        let until = now.saturating_sub(shared.settings.disorder);
        self.warm_up(now, shared);
        self.work_until(until, shared);
        self.enforce_times(until, shared);
    }

    /// Works on all events and decides all calls.
    pub(super) fn finish(&mut self, shared: &mut Shared) {
        self.warm_up(u64::MAX, shared);
        while !self.queue.is_empty() {
            self.work_on_next(shared);
        }
        let undecided: Vec<u32> = self.calls.iter().filter(|(_, call)| !call.decided).map(|(key, _)| key).collect();
        for key in undecided {
            self.force(key, shared);
        }
        shared.forgotten_incoming.extend(self.request_keys.drain().map(|(id, _)| id));
        shared.forgotten_outgoing.extend(self.call_keys.drain().map(|(id, _)| id));
        *self = Self { warm: true, model: std::mem::replace(&mut self.model, Model::new()), ..Self::new(self.newest) };
    }

    /// That of the event being worked on.
    fn moment(&self) -> Moment {
        Moment { at: self.now, number: self.events }
    }

    /// Nothing is known of a new process, so its first events are kept back for a while and gone through several times
    /// only to learn from them, each time with what was learnt the time before. They are decided on after that.
    fn warm_up(&mut self, now: u64, shared: &Shared) {
        let Some(&(first, _)) = self.queue.front() else { return };
        let full = self.queue.len() >= MAX_QUEUE;
        if self.warm || !(full || now.saturating_sub(first) >= shared.settings.warm_up) {
            return;
        }
        self.warm = true;
        let mut unheard = Shared::new(shared.settings);
        for _ in 0..REHEARSALS {
            let model = std::mem::replace(&mut self.model, Model::new());
            let draft = Some(Box::new(Model::new()));
            let mut rehearsal = Self { warm: true, model, draft, ..Self::new(first) };
            for &(at, event) in &self.queue {
                rehearsal.work_on(at, event, &mut unheard);
                unheard.clear();
            }
            self.model = rehearsal.draft.take().map_or_else(Model::new, |draft| *draft);
            self.model.take_counts(&rehearsal.model);
        }
        self.model.rehearsed();
    }

    fn work_until(&mut self, until: u64, shared: &mut Shared) {
        while self.warm && self.queue.front().is_some_and(|(at, _)| *at <= until) {
            self.work_on_next(shared);
        }
    }

    fn work_on_next(&mut self, shared: &mut Shared) {
        if let Some((at, event)) = self.queue.pop_front() {
            self.work_on(at, event, shared);
        }
    }

    fn work_on(&mut self, at: u64, event: Event, shared: &mut Shared) {
        let before = self.now;
        self.now = before.max(at);
        self.events += 1;
        let at = self.now;
        self.model.note_time(at);
        if let Some(draft) = &mut self.draft {
            draft.note_time(at);
        }
        if before > 0 {
            self.model.load.pass(at - before);
            self.model.pool.pass(at - before, self.request_keys.len(), self.call_keys.len());
            let idle = self.request_keys.is_empty();
            learner(&mut self.draft, &mut self.model).background.pass(at - before, idle);
        }
        self.enforce_times(at, shared);
        match event {
            Event::Incoming(incoming) => self.open(&incoming, at, shared),
            Event::Answered(id, task) => {
                if let Some(key) = self.request_keys.remove(&id) {
                    if let Some(task) = task {
                        self.claim(key, task, shared);
                    }
                    self.close(key, Some(at), shared);
                }
            }
            Event::Outgoing(outgoing) => self.call(&outgoing, at, shared),
            Event::Returned(id) => {
                if let Some(key) = self.call_keys.remove(&id) {
                    self.call_returned(key, at, shared);
                }
            }
            Event::Unborn(unborn) => self.exact.offspring.unborn(unborn),
            Event::Born { thread, parent } => self.exact.born(thread, parent),
            Event::GaveUp => self.exact.offspring.gave_up(at),
            Event::AskedUnseen => learner(&mut self.draft, &mut self.model).background.fade(0.0),
        }
    }

    fn open(&mut self, incoming: &Incoming, at: u64, shared: &mut Shared) {
        while self.request_keys.len() >= shared.settings.max_open.max(1)
            && let Some((_, key, id)) = self.arrivals.pop_front()
        {
            self.give_up_request(key, id, shared);
        }
        let cluster = self.clusters.insert(Cluster::new(0, Track::new(incoming.operation, at)));
        let key = self.requests.insert(Request {
            id: incoming.id,
            operation: incoming.operation,
            at,
            answered: None,
            cluster,
            facts: incoming.facts,
            calls: 0,
            past: Vec::new(),
            certainty: 1.0,
        });
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            cluster.members[0].request = key;
        }
        self.request_keys.insert(incoming.id, key);
        self.model.plenty.arrived();
        self.exact.open(key, &Incoming { at, ..*incoming });
        self.model.load.takes_turns = self.exact.takes_turns();
        if let Some(thread) = incoming.facts.thread {
            learner(&mut self.draft, &mut self.model).background.reads(thread);
        }
        self.arrivals.push_back((at, key, incoming.id));
        if self.arrivals.len() > 2 * self.request_keys.len() + 64 {
            self.arrivals.retain(|(_, key, id)| self.request_keys.get(id) == Some(key));
        }
    }

    /// The request was answered, or is given up when `at` is `None`.
    fn close(&mut self, key: u32, at: Option<u64>, shared: &mut Shared) {
        let number = self.events;
        let Some(request) = self.requests.get_mut(key) else { return };
        request.answered = at.map(|at| Moment { at, number });
        self.exact.close(key, &request.facts);
        if let Some(at) = at {
            let (operation, took) = (request.operation, at.saturating_sub(request.at));
            self.model.load.note(operation, took);
            if let Some(draft) = &mut self.draft {
                draft.load.note(operation, took);
            }
        }
        let number = request.cluster;
        if let Some(cluster) = self.clusters.get_mut(number)
            && let Some(place) = cluster.place_of(key)
        {
            cluster.closed(place, at, &self.model);
        }
        self.settle(number, None, shared);
    }

    fn call(&mut self, outgoing: &Outgoing, at: u64, shared: &mut Shared) {
        while self.calls.len() >= shared.settings.max_calls.max(1)
            && let Some((_, key, id)) = self.starts.pop_front()
        {
            self.give_up_call(key, id, shared);
        }
        let key = self.calls.insert(Call {
            id: outgoing.id,
            operation: outgoing.operation,
            began: self.moment(),
            returned: None,
            thread: outgoing.facts.thread,
            tasks: outgoing.facts.tasks,
            cluster: ASIDE,
            exact: None,
            alone: false,
            decided: false,
            rivals: Vec::new(),
        });
        self.call_keys.insert(outgoing.id, key);
        self.starts.push_back((at, key, outgoing.id));
        if self.starts.len() > 2 * self.calls.len() + 64 {
            self.starts.retain(|(_, key, id)| self.calls.get(*key).is_some_and(|call| call.id == *id));
        }
        self.tasks.call(&outgoing.facts.tasks, Waiting { key, id: outgoing.id, at });
        self.look_for_cause(key, &Outgoing { at, ..*outgoing }, shared);
    }

    pub(super) fn has_room(&self, request: u32, shared: &Shared) -> bool {
        self.requests.get(request).is_some_and(|request| request.calls < shared.settings.max_children)
    }

    fn call_returned(&mut self, key: u32, at: u64, shared: &mut Shared) {
        let moment = self.moment();
        let Some(call) = self.calls.get_mut(key) else { return };
        call.returned = Some(moment);
        let (number, id) = (call.cluster, call.id);
        if !call.decided {
            self.deadlines.push_back((at.saturating_add(shared.settings.hold_back), key, id));
        }
        if let Some(cluster) = self.clusters.get_mut(number)
            && let Some(place) = cluster.calls.iter().position(|&other| other == key)
        {
            cluster.returned(place, call.operation, at, &self.model);
        }
        self.settle(number, None, shared);
    }

    fn drop_call(&mut self, key: u32, shared: &mut Shared) {
        self.forget_task(key);
        if let Some(call) = self.calls.remove(key)
            && self.call_keys.get(&call.id) == Some(&key)
        {
            self.call_keys.remove(&call.id);
            shared.forgotten_outgoing.push(call.id);
        }
    }
}

/// The model that learns: the draft where there is one.
fn learner<'a>(draft: &'a mut Option<Box<Model>>, model: &'a mut Model) -> &'a mut Model {
    draft.as_deref_mut().unwrap_or(model)
}
