//! What is given up, and decided for being too old.

use super::super::{Reason, Ref, Shared};
use super::{ASIDE, Process};

impl Process {
    /// Gives the links that may wait no longer, and gives up what is too old.
    pub(super) fn enforce_times(&mut self, now: u64, shared: &mut Shared) {
        while let Some(&(at, key, id)) = self.deadlines.front()
            && at <= now
        {
            self.deadlines.pop_front();
            if self.calls.get(key).is_some_and(|call| call.id == id && !call.decided) {
                self.force(key, shared);
            }
        }
        let age = shared.settings.max_age;
        while let Some(&(at, key, id)) = self.arrivals.front()
            && (self.request_keys.get(&id) != Some(&key) || at.saturating_add(age) < now)
        {
            self.arrivals.pop_front();
            self.give_up_request(key, id, shared);
        }
        while let Some(&(at, key, id)) = self.starts.front()
            && (self.calls.get(key).is_none_or(|call| call.id != id) || at.saturating_add(age) < now)
        {
            self.starts.pop_front();
            self.give_up_call(key, id, shared);
        }
    }

    pub(super) fn force(&mut self, key: u32, shared: &mut Shared) {
        match self.calls.get(key).map(|call| call.cluster) {
            Some(ASIDE) => self.leave_without_cause(key, Reason::Unlikely, shared),
            Some(number) => self.settle(number, Some(key), shared),
            None => {}
        }
    }

    pub(super) fn give_up_request(&mut self, key: u32, id: Ref, shared: &mut Shared) {
        if self.request_keys.get(&id) == Some(&key) {
            self.request_keys.remove(&id);
            shared.forgotten_incoming.push(id);
            shared.stats.lost_incoming += 1;
            self.close(key, None, shared);
        }
    }

    pub(super) fn give_up_call(&mut self, key: u32, id: Ref, shared: &mut Shared) {
        if self.calls.get(key).is_none_or(|call| call.id != id) {
            return;
        }
        self.force(key, shared);
        let Some(call) = self.calls.get(key).filter(|call| call.id == id) else { return };
        shared.stats.lost_outgoing += 1;
        if let Some(cluster) = self.clusters.get_mut(call.cluster)
            && let Some(place) = cluster.calls.iter().position(|&other| other == key)
        {
            cluster.remove_call(place);
        }
        self.drop_call(key, shared);
    }
}
