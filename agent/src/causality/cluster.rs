//! Requests that compete for calls, and the readings of the events that are still possible for them.
//!
//! A reading says for every call which request caused it. Each has a weight: the probability that the model gives to
//! all events of the cluster read that way. A call is decided when all readings agree, or nothing more can be learnt
//! about it; so that a later event (the next call, the answer) may still overturn what looked best at first.

mod branch;
pub(super) mod trust;

use super::load::READINGS;
use super::model::{Model, Next, QUEUES};
use super::track::{Track, mix};
use trust::{account, weights};

/// Readings less probable than the best by this factor are dropped.
pub(super) const NEGLIGIBLE: f64 = 1e-6;

/// The cause of a call in one reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    /// The place of the request in the cluster, or [`NOBODY`].
    pub(super) member: u16,
    /// Probability of being out of turn by mere chance: above zero when other requests of the operation were about as
    /// likely to make the call next.
    pub(super) contested: f32,
    /// One of those came before, by each of the orders of [`Queue`].
    pub(super) overtook: [bool; QUEUES],
    /// Its share when the call was made: before anything later spoke for or against it, and before any was dropped.
    pub(super) first: f32,
    /// How far its share among the readings is believed ([`trust`]).
    pub(super) trust: f32,
}

impl Choice {
    const fn of(member: u16) -> Self {
        Self { member, contested: 0.0, overtook: [false; QUEUES], first: 1.0, trust: 1.0 }
    }
}

/// A request competes for its turn when it is at least by this factor as likely to make the call next.
const COMPARABLE: f64 = 0.1;

/// The call had no request as its cause.
pub(super) const NOBODY: u16 = u16::MAX;

#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) weight: f64,
    /// In the order of [`Cluster::members`].
    pub(super) tracks: Vec<Track>,
    /// In the order of [`Cluster::calls`].
    pub(super) choices: Vec<Choice>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) request: u32,
    pub(super) open: bool,
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) members: Vec<Member>,
    /// Calls that are undecided or have not returned.
    pub(super) calls: Vec<u32>,
    /// Never empty; the weights sum to one.
    pub(super) readings: Vec<Reading>,
    /// As many are kept.
    limit: usize,
}

/// A call that looks for its cause.
pub(super) struct Seeker<'a> {
    pub(super) key: u32,
    pub(super) operation: u32,
    pub(super) at: u64,
    pub(super) max_children: usize,
    /// How much else speaks for a request (its thread); `None` when it cannot be the cause.
    pub(super) affinity: &'a dyn Fn(u32) -> Option<f64>,
}

/// What speaks for a call coming from a cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// Probability per nanosecond.
    pub(super) density: f64,
    /// Requests that could have made it.
    pub(super) able: usize,
    /// Since when the likeliest of them waits for its turn.
    pub(super) since: u64,
}

impl Cluster {
    pub(super) fn new(request: u32, track: Track) -> Self {
        Self {
            members: vec![Member { request, open: true }],
            calls: Vec::new(),
            readings: vec![Reading { weight: 1.0, tracks: vec![track], choices: Vec::new() }],
            limit: READINGS,
        }
    }

    pub(super) fn place_of(&self, request: u32) -> Option<usize> {
        self.members.iter().position(|member| member.request == request)
    }

    /// What speaks for the call coming from this cluster; `each` takes what speaks for each of its requests.
    pub(super) fn evidence(&self, seeker: &Seeker, model: &Model, each: &mut Vec<(f64, u32)>) -> Evidence {
        let (mut sum, mut able) = (0.0, 0);
        let (mut most, mut since) = (0.0, u64::MAX);
        for (place, member) in self.members.iter().enumerate() {
            if !member.open {
                continue;
            }
            let Some(affinity) = (seeker.affinity)(member.request) else { continue };
            able += 1;
            let others = sum;
            let mut known: Vec<(Track, f64)> = Vec::new();
            for reading in &self.readings {
                let track = &reading.tracks[place];
                if usize::from(track.calls) >= seeker.max_children {
                    continue;
                }
                let likelihood = match known.iter().find(|(other, _)| other == track) {
                    Some(&(_, likelihood)) => likelihood,
                    None => {
                        let likelihood = affinity * model.likelihood(track, Next::Call(seeker.operation), seeker.at);
                        known.push((*track, likelihood));
                        likelihood
                    }
                };
                sum += reading.weight * likelihood;
                if reading.weight * likelihood > most {
                    (most, since) = (reading.weight * likelihood, track.done_at);
                }
            }
            each.push((sum - others, member.request));
        }
        Evidence { density: sum, able, since }
    }

    /// Takes in the members of a cluster that was independent until now.
    pub(super) fn absorb(&mut self, mut other: Self) -> usize {
        let shift = self.members.len() as u16;
        self.limit = self.limit.max(other.limit);
        self.members.append(&mut other.members);
        self.calls.append(&mut other.calls);
        let mut pairs: Vec<(f64, usize, usize)> = Vec::with_capacity(self.readings.len() * other.readings.len());
        for (one, left) in self.readings.iter().enumerate() {
            for (two, right) in other.readings.iter().enumerate() {
                pairs.push((left.weight * right.weight, one, two));
            }
        }
        let dropped = keep_best(&mut pairs, self.limit, |pair| pair.0);
        if dropped > 0 {
            let mut kept = (vec![0.0; self.readings.len()], vec![0.0; other.readings.len()]);
            for &(weight, one, two) in &pairs {
                kept.0[one] += weight;
                kept.1[two] += weight;
            }
            let all = (weights(&self.readings), weights(&other.readings));
            account(&mut self.readings, &all.0, &kept.0);
            account(&mut other.readings, &all.1, &kept.1);
        }
        self.readings = pairs
            .iter()
            .map(|&(weight, one, two)| {
                let (left, right) = (&self.readings[one], &other.readings[two]);
                let moved = right.choices.iter().map(|choice| match choice.member {
                    NOBODY => *choice,
                    member => Choice { member: member + shift, ..*choice },
                });
                Reading {
                    weight,
                    tracks: left.tracks.iter().chain(&right.tracks).copied().collect(),
                    choices: left.choices.iter().copied().chain(moved).collect(),
                }
            })
            .collect();
        self.normalise();
        dropped
    }

    /// Adds a call whose cause is known: the member at `place`, or nobody.
    pub(super) fn assign(&mut self, seeker: &Seeker, place: u16) {
        self.calls.push(seeker.key);
        for reading in &mut self.readings {
            if let Some(track) = reading.tracks.get_mut(usize::from(place)) {
                track.call(seeker.operation, u64::from(seeker.key), seeker.at);
            }
            reading.choices.push(Choice::of(place));
        }
    }

    /// The call at `place` returned.
    pub(super) fn returned(&mut self, place: usize, operation: u32, at: u64, model: &Model) {
        let several = self.readings.len() > 1;
        for reading in &mut self.readings {
            let member = usize::from(reading.choices[place].member);
            if let Some(track) = reading.tracks.get_mut(member)
                && self.members[member].open
            {
                if several {
                    reading.weight *= model.chance(track, Next::Return);
                }
                track.returned(operation, at);
            }
        }
        self.normalise();
    }

    /// The request at `place` was answered; `at` is `None` when it was given up.
    pub(super) fn closed(&mut self, place: usize, at: Option<u64>, model: &Model) {
        self.members[place].open = false;
        if let Some(at) = at
            && self.readings.len() > 1
        {
            for reading in &mut self.readings {
                reading.weight *= model.likelihood(&reading.tracks[place], Next::Answer, at);
            }
            self.normalise();
        }
    }

    /// A call may be one of this cluster's with this probability, but is given to another one.
    pub(super) fn doubt(&mut self, probability: f32) {
        for track in self.readings.iter_mut().flat_map(|reading| &mut reading.tracks) {
            track.trust *= 1.0 - probability;
        }
    }

    /// Probability that the member at `place` has just the calls that the reading at `best` gives it.
    pub(super) fn certainty(&self, best: usize, place: usize) -> f32 {
        let track = self.readings[best].tracks[place];
        if self.readings.len() == 1 {
            return track.trust;
        }
        self.share(|reading| reading.tracks[place].set == track.set) as f32 * track.trust
    }

    /// The place of the most probable reading.
    pub(super) fn best(&self) -> usize {
        let better = |best: usize, next: usize| {
            if self.readings[next].weight > self.readings[best].weight { next } else { best }
        };
        (0..self.readings.len()).reduce(better).unwrap_or(0)
    }

    /// Mean of a value over the readings.
    pub(super) fn mean(&self, value: impl Fn(&Reading) -> f32) -> f32 {
        self.readings.iter().map(|reading| reading.weight as f32 * value(reading)).sum()
    }

    /// Sum of the weights of the readings for which `holds`.
    pub(super) fn share(&self, holds: impl Fn(&Reading) -> bool) -> f64 {
        self.readings.iter().filter(|reading| holds(reading)).map(|reading| reading.weight).sum()
    }

    /// Whether all readings agree about the call at `place`.
    pub(super) fn agrees(&self, place: usize) -> bool {
        let first = self.readings[0].choices[place].member;
        self.readings.iter().all(|reading| reading.choices[place].member == first)
    }

    /// Whether nothing that is still to come can tell more about the call at `place`.
    pub(super) fn is_past(&self, place: usize) -> bool {
        self.readings.iter().all(|reading| {
            let member = reading.choices[place].member;
            member == NOBODY || !self.members[usize::from(member)].open
        })
    }

    /// Drops the readings for which not `holds`; one at least has to.
    pub(super) fn keep(&mut self, holds: impl Fn(&Reading) -> bool) {
        let kept: Vec<f64> = self.readings.iter().map(|one| if holds(one) { one.weight } else { 0.0 }).collect();
        let all = weights(&self.readings);
        account(&mut self.readings, &all, &kept);
        self.readings.retain(holds);
        self.normalise();
    }

    pub(super) fn remove_call(&mut self, place: usize) {
        self.calls.swap_remove(place);
        for reading in &mut self.readings {
            reading.choices.swap_remove(place);
        }
    }

    /// Removes a member that no call in [`Cluster::calls`] refers to.
    pub(super) fn remove_member(&mut self, place: usize) {
        self.members.swap_remove(place);
        let moved = self.members.len() as u16;
        for reading in &mut self.readings {
            reading.tracks.swap_remove(place);
            for choice in &mut reading.choices {
                if choice.member == moved {
                    choice.member = place as u16;
                }
            }
        }
    }

    /// Makes one of readings that no longer differ, and drops negligible ones.
    pub(super) fn tidy(&mut self) -> usize {
        if self.readings.len() < 2 {
            return 0;
        }
        let mut merged: Vec<(u64, Reading)> = Vec::with_capacity(self.readings.len());
        for reading in self.readings.drain(..) {
            let hash = reading.tracks.iter().fold(0, |hash, track| mix(hash ^ track.set));
            let same = merged.iter_mut().find(|(other, kept)| {
                *other == hash
                    && kept.tracks == reading.tracks
                    && kept.choices.iter().zip(&reading.choices).all(|(one, two)| one.member == two.member)
            });
            match same {
                Some((_, kept)) => kept.weight += reading.weight,
                None => merged.push((hash, reading)),
            }
        }
        let mut readings: Vec<Reading> = merged.into_iter().map(|(_, reading)| reading).collect();
        let mut best: Vec<usize> = (0..readings.len()).collect();
        let dropped = keep_best(&mut best, self.limit, |&place| readings[place].weight);
        if dropped > 0 {
            let mut kept = vec![0.0; readings.len()];
            best.iter().for_each(|&place| kept[place] = readings[place].weight);
            let all = weights(&readings);
            account(&mut readings, &all, &kept);
        }
        let mut keep = vec![false; readings.len()];
        best.into_iter().for_each(|place| keep[place] = true);
        let mut keep = keep.into_iter();
        readings.retain(|_| keep.next() == Some(true));
        self.readings = readings;
        self.normalise();
        dropped
    }

    fn normalise(&mut self) {
        let sum: f64 = self.readings.iter().map(|reading| reading.weight).sum();
        let count = self.readings.len() as f64;
        for reading in &mut self.readings {
            reading.weight = if sum > 0.0 && sum.is_finite() { reading.weight / sum } else { 1.0 / count };
        }
    }
}

/// Drops what is negligible beside the best, and what is too much. Gives the number dropped for being too much.
fn keep_best<T>(items: &mut Vec<T>, limit: usize, weight: impl Fn(&T) -> f64) -> usize {
    let best = items.iter().map(&weight).fold(0.0, f64::max);
    if best > 0.0 {
        items.retain(|item| weight(item) >= best * NEGLIGIBLE);
    }
    let dropped = items.len().saturating_sub(limit);
    if dropped > 0 {
        items.select_nth_unstable_by(limit, |one, two| weight(two).total_cmp(&weight(one)));
        items.truncate(limit);
    }
    dropped
}
