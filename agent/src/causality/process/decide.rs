//! How a process decides: which requests compete for a call, when that is settled, and what is learnt from it.

use super::super::cluster::{Choice, Cluster, NEGLIGIBLE, NOBODY, Seeker};
use super::super::exact::Finding;
use super::super::model::QUEUES;
use super::super::track::Track;
use super::super::{Facts, Link, Method, Outgoing, Reason, Shared};
use super::confidence::{confidence, wary_confidence};
use super::{ASIDE, Call, Past, Process, learner};

/// Clusters asked whether a call may be theirs; those with the newest requests first.
const MAX_CANDIDATES: usize = 128;
/// Clusters, and members of them all, that are joined for one call.
const MAX_JOINED: usize = 8;
const MAX_MEMBERS: usize = 32;
/// A call without competitors may still be none of the request's.
const UNCONTESTED: f64 = 0.9999;
/// Where times do not tell which request makes a call.
const NOT_TOLD: f64 = 0.5;
/// How much of the model's grasp of an event loop holds for calls of other threads than the one that reads the requests.
const ELSEWHERE: f64 = 0.5;
/// Below this rate of overtaking in proportion to chance, requests in the same state are said to be served in order.
const IN_ORDER: f64 = 0.1;

/// A call that can be decided, with what the readings say of it before any of them is dropped.
struct Ripe {
    /// In the cluster.
    place: usize,
    /// Of the readings that agree with the best one.
    share: f64,
    contested: f32,
    overtook: [f64; QUEUES],
}

impl Process {
    /// Decides about a new call what can be decided at once.
    pub(super) fn look_for_cause(&mut self, key: u32, outgoing: &Outgoing, shared: &mut Shared) {
        let thread = outgoing.facts.thread;
        let idle = self.request_keys.is_empty();
        self.model.plenty.called();
        learner(&mut self.draft, &mut self.model).background.call(outgoing.operation, thread, idle);
        let background = &self.model.background;
        let unasked = background.explains_operation(outgoing.operation)
            || thread.is_some_and(|thread| background.explains_thread(thread));
        // What may be an event loop has its own calls on the thread of its requests.
        let thread_tells = background.is_always_caused(outgoing.operation) || background.has_several_readers();
        let among = match self.exact.find(outgoing) {
            Finding::One(_, Method::Thread) if unasked || !thread_tells => None,
            Finding::One(_, Method::BornIn) if !background.has_several_readers() => None,
            Finding::One(request, method) if self.has_room(request, shared) => {
                self.assign(key, request, method, shared);
                return;
            }
            Finding::Several(keys) => Some(keys),
            _ => None,
        };
        if unasked && !idle && among.is_none() {
            // The task that makes it may yet answer a request.
            if outgoing.facts.tasks[0].is_none() || !self.tasks.are_worth_waiting_for() {
                self.leave_without_cause(key, Reason::Unlikely, shared);
            }
        } else {
            self.seek(key, among.as_deref(), shared);
        }
    }

    /// The cause is known from exact facts.
    pub(super) fn assign(&mut self, key: u32, request: u32, method: Method, shared: &mut Shared) {
        let (Some(call), Some(owner)) = (self.calls.get_mut(key), self.requests.get(request)) else { return };
        call.exact = Some(method);
        call.alone = self.request_keys.len() == 1;
        call.cluster = owner.cluster;
        let number = owner.cluster;
        if let Some(same) = same_thread(call.thread, &owner.facts) {
            learner(&mut self.draft, &mut self.model).learn_thread(same, 1.0);
        }
        if let Some(cluster) = self.clusters.get_mut(number)
            && let Some(place) = cluster.place_of(request)
        {
            let seeker = seeker(key, call, &|_| None, shared);
            cluster.assign(&seeker, place as u16);
        }
        self.settle(number, None, shared);
    }

    /// Finds the cluster that the call belongs to, joining those that compete for it.
    pub(super) fn seek(&mut self, key: u32, among: Option<&[u32]>, shared: &mut Shared) {
        let Some(call) = self.calls.get(key) else { return };
        let (requests, model, thread) = (&self.requests, &self.model, call.thread);
        let affinity = |request: u32| {
            let facts = &requests.get(request)?.facts;
            let able = among.is_none_or(|among| among.contains(&request));
            able.then(|| same_thread(thread, facts).map_or(1.0, |same| model.thread(same)))
        };
        let seeker = seeker(key, call, &affinity, shared);
        let (mut candidates, mut able) = (Vec::new(), 0);
        let (mut asked, mut waiting, mut each) = (Vec::new(), Vec::new(), Vec::new());
        for &(_, request, id) in self.arrivals.iter().rev() {
            if self.request_keys.get(&id) != Some(&request) {
                continue;
            }
            let Some(number) = self.requests.get(request).map(|request| request.cluster) else { continue };
            if asked.contains(&number) {
                continue;
            }
            if asked.len() >= MAX_CANDIDATES {
                shared.stats.skipped_candidates += 1;
                break;
            }
            asked.push(number);
            let Some(cluster) = self.clusters.get(number) else { continue };
            let evidence = cluster.evidence(&seeker, model, &mut each);
            able += evidence.able;
            if evidence.density > 0.0 {
                waiting.push(evidence.since);
                candidates.push((evidence.density, number));
            }
        }
        if model.load.is_wary() {
            model.prefer_first(call.operation, &waiting, &mut candidates);
        }
        candidates.sort_unstable_by(|one, two| two.0.total_cmp(&one.0));
        let best = candidates.first().map_or(0.0, |first| first.0);
        let uncaused = model.uncaused(call.operation);
        let mut members = 0;
        let mut joined = 0;
        for &(evidence, number) in candidates.iter().take(MAX_JOINED) {
            members += self.clusters.get(number).map_or(0, |cluster| cluster.members.len());
            if evidence < best.max(uncaused) * NEGLIGIBLE || (joined > 0 && members > MAX_MEMBERS) {
                break;
            }
            joined += 1;
        }
        if joined == 0 {
            let reason = if able == 0 { Reason::NoneOpen } else { Reason::Unlikely };
            self.leave_without_cause(key, reason, shared);
            return;
        }
        let sum: f64 = candidates.iter().map(|candidate| candidate.0).sum();
        for &(evidence, number) in &candidates[joined..] {
            if let Some(cluster) = self.clusters.get_mut(number) {
                cluster.doubt((evidence / sum) as f32 / cluster.members.len() as f32);
            }
        }
        let asked = candidates[..joined].iter().map(|candidate| candidate.0).sum::<f64>() / sum;
        let mut dropped = 0;
        let number = candidates[0].1;
        let mut cluster = self.clusters.remove(number).unwrap_or_else(|| Cluster::new(0, Track::new(0, 0)));
        for &(_, other) in &candidates[1..joined] {
            if let Some(other) = self.clusters.remove(other) {
                dropped += cluster.absorb(other);
            }
        }
        dropped += cluster.branch(&seeker, model, uncaused, asked as f32);
        shared.stats.pruned += dropped as u64;
        let number = self.clusters.insert(cluster);
        self.rename(number);
        if let Some(call) = self.calls.get_mut(key) {
            call.alone = able == 1;
        }
        self.note_rivals(key, &each);
        self.settle(number, None, shared);
    }

    /// Tells the requests and calls of a cluster which one they belong to.
    pub(super) fn rename(&mut self, number: u32) {
        let Some(cluster) = self.clusters.get(number) else { return };
        for member in &cluster.members {
            if let Some(request) = self.requests.get_mut(member.request) {
                request.cluster = number;
            }
        }
        for &key in &cluster.calls {
            if let Some(call) = self.calls.get_mut(key) {
                call.cluster = number;
            }
        }
    }

    /// Gives links where nothing competes any more, or for `force` in any case, and forgets what no decision needs.
    pub(super) fn settle(&mut self, number: u32, force: Option<u32>, shared: &mut Shared) {
        let Some(mut cluster) = self.clusters.remove(number) else { return };
        self.release(&mut cluster, shared);
        loop {
            // Dropping readings may settle further calls.
            shared.stats.pruned += cluster.tidy() as u64;
            let best = cluster.best();
            let ripe = self.ripe(&cluster, best, force);
            if ripe.is_empty() {
                break;
            }
            // Decisions drop readings, and with them what is known of certainty.
            (0..cluster.members.len()).for_each(|place| self.note_certainty(&cluster, best, place));
            for ripe in ripe {
                self.decide(&mut cluster, &ripe, shared);
            }
            self.release(&mut cluster, shared);
        }
        if cluster.members.is_empty() {
            self.set_aside(&cluster);
            return;
        }
        if cluster.readings.len() == 1 && cluster.members.len() > 1 {
            self.set_aside(&cluster);
            self.split(&cluster);
        } else {
            let number = self.clusters.insert(cluster);
            self.rename(number);
        }
    }

    /// The undecided calls of a cluster that need not wait: `force`, those all readings agree on, and those about which
    /// nothing more can be learnt.
    fn ripe(&self, cluster: &Cluster, best: usize, force: Option<u32>) -> Vec<Ripe> {
        let mut ripe = Vec::new();
        for (place, &key) in cluster.calls.iter().enumerate() {
            let Some(call) = self.calls.get(key).filter(|call| !call.decided) else { continue };
            let waits = call.tasks[0].is_some() && call.exact.is_none() && self.tasks.are_worth_waiting_for();
            if force == Some(key) || (!waits && (cluster.agrees(place) || cluster.is_past(place))) {
                let member = cluster.readings[best].choices[place].member;
                let overtook = |queue: usize| cluster.share(|reading| reading.choices[place].overtook[queue]);
                ripe.push(Ripe {
                    place,
                    share: cluster.share(|reading| reading.choices[place].member == member)
                        * f64::from(cluster.readings[best].choices[place].trust),
                    contested: cluster.mean(|reading| reading.choices[place].contested),
                    overtook: std::array::from_fn(overtook),
                });
            }
        }
        ripe
    }

    /// Notes for a request how sure it is that just the calls it has are its own.
    fn note_certainty(&mut self, cluster: &Cluster, best: usize, place: usize) {
        if let Some(request) = self.requests.get_mut(cluster.members[place].request) {
            request.certainty = request.certainty.min(cluster.certainty(best, place));
        }
    }

    /// Gives the link of the call at `place`: what the best reading says of it.
    fn decide(&mut self, cluster: &mut Cluster, ripe: &Ripe, shared: &mut Shared) {
        let (place, share) = (ripe.place, ripe.share);
        let key = cluster.calls[place];
        self.forget_task(key);
        let Some(call) = self.calls.get_mut(key) else { return };
        let choice = cluster.readings[cluster.best()].choices[place];
        if call.exact.is_none() {
            learner(&mut self.draft, &mut self.model).learn_order(
                call.operation,
                ripe.contested * share as f32,
                ripe.overtook.map(|overtook| (overtook * share) as f32),
            );
        }
        call.decided = true;
        let rivals = std::mem::take(&mut call.rivals);
        let confidence = match call.exact {
            Some(_) => 1.0,
            None if call.alone && choice.member != NOBODY && self.model.background.is_always_caused(call.operation) => {
                share.min(UNCONTESTED)
            }
            None if self.model.pool.is_full() => NOT_TOLD,
            None if self.model.load.is_wary() => {
                let owner = cluster.members.get(usize::from(choice.member));
                let request = owner.and_then(|owner| self.requests.get(owner.request));
                let elsewhere = request.and_then(|request| same_thread(call.thread, &request.facts)) == Some(false);
                let grasp = self.model.grasp.power() * if elsewhere { ELSEWHERE } else { 1.0 };
                wary_confidence(share, choice.first.into(), grasp)
            }
            None => confidence(share, self.model.grasp.power()),
        };
        if call.exact.is_none() || call.alone {
            self.model.grasp.found(share as f32);
        }
        let owner = cluster.members.get(usize::from(choice.member)).map(|member| member.request);
        let method = match (owner, call.exact) {
            (None, _) => Method::None(Reason::Unlikely),
            (Some(_), Some(method)) => method,
            (Some(_), None) if confidence < shared.settings.floor => Method::None(Reason::Ambiguous),
            (Some(_), None) if call.alone => Method::Only,
            (Some(_), None) if choice.contested > 0.0 && self.model.disorder(call.operation).1 < IN_ORDER => {
                Method::Order
            }
            (Some(_), None) => Method::Delay,
        };
        let named = !matches!(method, Method::None(_));
        let parent = owner.filter(|_| named).and_then(|owner| self.requests.get(owner)).map(|request| request.id);
        shared.link(Link { child: call.id, parent, method, confidence: confidence as f32 });
        if let Some(owner) = owner
            && let Some(request) = self.requests.get_mut(owner)
        {
            request.calls += 1;
            if self.model.load.is_wary() {
                request.certainty = request.certainty.min(confidence as f32);
            }
            if call.exact.is_none()
                && let Some(same) = same_thread(call.thread, &request.facts)
            {
                learner(&mut self.draft, &mut self.model).learn_thread(same, confidence as f32);
            }
        }
        self.settle_rivals(rivals, share as f32);
        cluster.keep(|reading| reading.choices[place].member == choice.member);
    }

    /// Forgets closed requests that no undecided call may belong to, and calls that nothing waits for.
    fn release(&mut self, cluster: &mut Cluster, shared: &mut Shared) {
        for place in (0..cluster.members.len()).rev() {
            let member = cluster.members[place];
            let needed = |(call, key): (usize, &u32)| {
                let undecided = self.calls.get(*key).is_some_and(|call| !call.decided);
                undecided && cluster.readings.iter().any(|reading| usize::from(reading.choices[call].member) == place)
            };
            if member.open || cluster.calls.iter().enumerate().any(needed) {
                continue;
            }
            for call in (0..cluster.calls.len()).rev() {
                // Decided ones only, so all readings agree.
                if usize::from(cluster.readings[0].choices[call].member) == place {
                    self.retire(cluster, call, shared);
                }
            }
            self.note_certainty(cluster, cluster.best(), place);
            cluster.remove_member(place);
            self.learn(member.request);
        }
        for place in (0..cluster.calls.len()).rev() {
            let Some(call) = self.calls.get(cluster.calls[place]) else { continue };
            if call.decided && (call.returned.is_some() || cluster.readings[0].choices[place].member == NOBODY) {
                self.retire(cluster, place, shared);
            }
        }
    }

    /// Removes a decided call from its cluster and keeps what its request may learn from.
    fn retire(&mut self, cluster: &mut Cluster, place: usize, shared: &mut Shared) {
        let (key, member) = (cluster.calls[place], cluster.readings[0].choices[place].member);
        cluster.remove_call(place);
        let Some(call) = self.calls.remove(key) else { return };
        if call.returned.is_none() {
            self.call_keys.remove(&call.id);
            shared.forgotten_outgoing.push(call.id);
        }
        if let Some(owner) = cluster.members.get(usize::from(member))
            && let Some(request) = self.requests.get_mut(owner.request)
        {
            let Call { operation, began, returned, .. } = call;
            request.past.push(Past { operation, began, returned });
        }
    }

    /// Calls that wait for what their task does, and that the one reading that is left gives to nobody, leave the cluster.
    fn set_aside(&mut self, cluster: &Cluster) {
        for (key, choice) in cluster.calls.iter().zip(&cluster.readings[0].choices) {
            if let Some(call) = self.calls.get_mut(*key).filter(|_| choice.member == NOBODY) {
                call.cluster = ASIDE;
            }
        }
    }

    /// Each member of a cluster with a single reading goes on alone.
    fn split(&mut self, cluster: &Cluster) {
        let Some(reading) = cluster.readings.first() else { return };
        for (place, (member, track)) in cluster.members.iter().zip(&reading.tracks).enumerate() {
            let mut part = Cluster::new(member.request, *track);
            part.members[0].open = member.open;
            for (&call, choice) in cluster.calls.iter().zip(&reading.choices) {
                if usize::from(choice.member) == place {
                    part.calls.push(call);
                    part.readings[0].choices.push(Choice { member: 0, ..*choice });
                }
            }
            let number = self.clusters.insert(part);
            self.rename(number);
        }
    }

    /// Nothing that its tasks do tells any more for whom a call is made.
    pub(super) fn forget_task(&mut self, key: u32) {
        if let Some(call) = self.calls.get(key) {
            self.tasks.decided(&call.tasks, key, call.exact.is_some());
        }
    }

    pub(super) fn leave_without_cause(&mut self, key: u32, reason: Reason, shared: &mut Shared) {
        let Some(call) = self.calls.get(key) else { return };
        shared.link(Link { child: call.id, parent: None, method: Method::None(reason), confidence: 0.0 });
        self.drop_call(key, shared);
    }
}

fn seeker<'a>(key: u32, call: &Call, affinity: &'a dyn Fn(u32) -> Option<f64>, shared: &Shared) -> Seeker<'a> {
    let max_children = shared.settings.max_children;
    Seeker { key, operation: call.operation, at: call.began.at, max_children, affinity }
}

/// Whether the call came from the thread that read the request, when both are known.
fn same_thread(thread: Option<u32>, facts: &Facts) -> Option<bool> {
    Some(thread? == facts.thread?)
}
