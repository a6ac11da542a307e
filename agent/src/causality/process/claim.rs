//! Calls that are known to be a request's own when that is answered.

use super::super::tasks::Waiting;
use super::super::{Link, Method, Shared};
use super::Process;

impl Process {
    /// A task answers a request: what it has called since that came, or what it waited for, was called for that.
    pub(super) fn claim(&mut self, request: u32, task: u64, shared: &mut Shared) {
        let Some((arrived, connection)) = self.requests.get(request).map(|one| (one.at, one.facts.connection)) else {
            return;
        };
        for Waiting { key, id, .. } in self.tasks.answers(task, connection, arrived, self.now) {
            let waits = self.calls.get(key).is_some_and(|call| call.id == id && !call.decided);
            if waits && self.has_room(request, shared) {
                self.give(key, request, shared);
            }
        }
    }

    /// Gives a call that was looked for, or left aside, to a request.
    fn give(&mut self, key: u32, request: u32, shared: &mut Shared) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let number = call.cluster;
        let Some(cluster) = self.clusters.get_mut(number) else {
            self.assign(key, request, Method::Coroutine, shared);
            return;
        };
        let Some(place) = cluster.calls.iter().position(|&other| other == key) else { return };
        call.exact = Some(Method::Coroutine);
        let owner = cluster.place_of(request).and_then(|owner| u16::try_from(owner).ok());
        let is_its = |member: u16| owner == Some(member);
        if cluster.readings.iter().any(|reading| is_its(reading.choices[place].member)) {
            cluster.keep(|reading| is_its(reading.choices[place].member));
        } else if let Some(owner) = self.requests.get_mut(request) {
            // No reading that is left has it so. They are wrong in more than this, and nothing is to be learnt from them.
            let best = cluster.readings[cluster.best()].choices[place].member;
            cluster.keep(|reading| reading.choices[place].member == best);
            cluster.doubt(1.0);
            call.decided = true;
            owner.calls += 1;
            shared.link(Link { child: call.id, parent: Some(owner.id), method: Method::Coroutine, confidence: 1.0 });
        }
        self.settle(number, None, shared);
    }
}
