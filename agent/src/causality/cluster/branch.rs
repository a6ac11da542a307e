//! A call looks for its cause: every reading becomes as many as there are causes possible in it.

use super::super::model::{Model, Next, QUEUES};
use super::super::track::Track;
use super::trust::{Change, account};
use super::{COMPARABLE, Choice, Cluster, NOBODY, Seeker, keep_best};

/// A cause of the call in one of the readings.
struct Offer {
    weight: f64,
    /// Its place.
    reading: usize,
    choice: Choice,
}

/// How well a request could make the call.
#[derive(Clone, Copy)]
struct Able {
    chance: f64,
    likelihood: f64,
}

impl Cluster {
    /// Adds a call of unknown cause. `asked` is the share of what speaks for any request that speaks for these members.
    /// Gives the number of readings dropped for being too many.
    pub(in super::super) fn branch(&mut self, seeker: &Seeker, model: &Model, uncaused: f64, asked: f32) -> usize {
        self.limit = model.load.readings();
        let mut offers = self.offers(seeker, model, uncaused);
        let all = self.weights_of(&offers);
        let dropped = keep_best(&mut offers, self.limit, |offer| offer.weight);
        let kept = self.weights_of(&offers);
        let change = Change::of(all.sum, kept.sum).filter(|_| dropped > 0);
        if change.is_some() {
            account(&mut self.readings, &all.by_reading, &kept.by_reading);
        }
        let contested = self.members.len() > 1 || asked < 1.0;
        self.calls.push(seeker.key);
        self.readings = offers
            .iter()
            .map(|offer| {
                let mut reading = self.readings[offer.reading].clone();
                reading.weight = offer.weight;
                let member = usize::from(offer.choice.member).min(self.members.len());
                let mut choice =
                    Choice { first: (all.by_member[member] / all.sum) as f32, trust: asked, ..offer.choice };
                if let Some(change) = change {
                    choice.trust *= change.factor(all.by_member[member], kept.by_member[member]);
                    for (place, track) in reading.tracks.iter_mut().enumerate().filter(|(place, _)| *place != member) {
                        track.trust *= change.factor_of_rest(all.by_member[place], kept.by_member[place]);
                    }
                }
                if let Some(track) = reading.tracks.get_mut(member) {
                    if contested {
                        choice.trust *= model.plenty.doubt(track.calls);
                    }
                    track.trust *= choice.trust;
                    choice.trust = track.trust;
                    track.call(seeker.operation, u64::from(seeker.key), seeker.at);
                }
                reading.choices.push(choice);
                reading
            })
            .collect();
        self.normalise();
        dropped
    }

    /// All causes possible in all readings.
    fn offers(&self, seeker: &Seeker, model: &Model, uncaused: f64) -> Vec<Offer> {
        let next = Next::Call(seeker.operation);
        let affinities: Vec<f64> = self
            .members
            .iter()
            .map(|member| if member.open { (seeker.affinity)(member.request).unwrap_or(0.0) } else { 0.0 })
            .collect();
        // Readings mostly share their tracks.
        let mut known: Vec<Vec<(Track, Able)>> = vec![Vec::new(); self.members.len()];
        let mut offers = Vec::new();
        let mut able: Vec<Able> = Vec::new();
        for (number, reading) in self.readings.iter().enumerate() {
            able.clear();
            for (place, track) in reading.tracks.iter().enumerate() {
                if affinities[place] <= 0.0 || usize::from(track.calls) >= seeker.max_children {
                    able.push(Able { chance: 0.0, likelihood: 0.0 });
                    continue;
                }
                let found = known[place].iter().find(|(other, _)| other.set == track.set && other == track);
                able.push(found.map(|known| known.1).unwrap_or_else(|| {
                    let chance = model.chance(track, next);
                    let likelihood = affinities[place] * chance * model.density(track, next, seeker.at);
                    known[place].push((*track, Able { chance, likelihood }));
                    Able { chance, likelihood }
                }));
            }
            for (place, (track, own)) in reading.tracks.iter().zip(&able).enumerate() {
                if own.likelihood <= 0.0 {
                    continue;
                }
                let (mut rivals, mut overtook) = (0, [false; QUEUES]);
                for (other, (rival, its)) in reading.tracks.iter().zip(&able).enumerate() {
                    if other != place && rival.operation == track.operation && its.chance >= COMPARABLE * own.chance {
                        rivals += 1;
                        overtook[0] |= rival.done_at < track.done_at;
                        overtook[1] |= rival.arrived < track.arrived;
                    }
                }
                let contested = rivals as f32 / (rivals + 1) as f32;
                let turn = if rivals > 0 { model.turn(seeker.operation, overtook, rivals) } else { 1.0 };
                offers.push(Offer {
                    weight: reading.weight * own.likelihood * turn,
                    reading: number,
                    choice: Choice { contested, overtook, ..Choice::of(place as u16) },
                });
            }
            offers.push(Offer { weight: reading.weight * uncaused, reading: number, choice: Choice::of(NOBODY) });
        }
        offers
    }

    fn weights_of(&self, offers: &[Offer]) -> Weights {
        let mut weights = Weights {
            sum: 0.0,
            by_reading: vec![0.0; self.readings.len()],
            by_member: vec![0.0; self.members.len() + 1],
        };
        for offer in offers {
            weights.sum += offer.weight;
            weights.by_reading[offer.reading] += offer.weight;
            weights.by_member[usize::from(offer.choice.member).min(self.members.len())] += offer.weight;
        }
        weights
    }
}

/// Sums over offers.
struct Weights {
    sum: f64,
    by_reading: Vec<f64>,
    /// By the member that is the cause; last for none.
    by_member: Vec<f64>,
}
