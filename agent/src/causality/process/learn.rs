//! What a request teaches when it is over.

use super::super::model::Next;
use super::super::track::Track;
use super::{Moment, Process, learner};

/// From this certainty on the number of calls that a request has made is beyond doubt.
const PROOF: f32 = 0.99;

impl Process {
    /// Learns from a request that was answered and whose calls are all decided, and forgets it.
    pub(super) fn learn(&mut self, key: u32) {
        let Some(request) = self.requests.remove(key) else { return };
        let Some(Moment { at: answered, number }) = request.answered else { return };
        let weight = request.certainty.powi(3);
        if request.certainty > PROOF {
            self.model.plenty.prove(request.past.len());
        }
        let mut steps: Vec<(Moment, Next, u32)> = Vec::with_capacity(2 * request.past.len());
        for past in &request.past {
            steps.push((past.began, Next::Call(past.operation), past.operation));
            steps.extend(past.returned.map(|moment| (moment, Next::Return, past.operation)));
        }
        steps.retain(|(moment, ..)| moment.number < number);
        steps.sort_unstable_by_key(|(moment, ..)| moment.number);
        let mut track = Track::new(request.operation, request.at);
        for (Moment { at, .. }, next, operation) in steps {
            if next != Next::Return {
                self.model.grasp.step(self.model.chance(&track, next) as f32);
            }
            learner(&mut self.draft, &mut self.model).learn(&track, next, at, weight);
            match next {
                Next::Call(_) => track.call(operation, 0, at),
                Next::Return | Next::Answer => track.returned(operation, at),
            }
        }
        self.model.grasp.step(self.model.chance(&track, Next::Answer) as f32);
        learner(&mut self.draft, &mut self.model).learn(&track, Next::Answer, answered, weight);
    }
}
