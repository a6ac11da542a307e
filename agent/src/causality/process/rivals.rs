//! Requests that are about as likely as each other to have made a call.
//!
//! What requests did is learnt from, weighed by how sure it is; and that the same for those that were given a call as for
//! their rivals, which were not. Else the model would learn from each of many rivals, and for certain, that it has made
//! no call, and next to nothing from the one that was said to have made it.

use super::super::Ref;
use super::Process;

/// A request is a rival of the likeliest one when it is by this factor as likely.
const RIVAL: f64 = 0.1;
/// Rivals remembered for each call.
const MOST: usize = 64;

/// A request by its key and name: the key may be in use again later.
pub(super) type Rival = (u32, Ref);

impl Process {
    /// `each`: how likely each request is to have made the call.
    pub(super) fn note_rivals(&mut self, call: u32, each: &[(f64, u32)]) {
        let most = each.iter().map(|one| one.0).fold(0.0, f64::max);
        let alike = each.iter().filter(|one| one.0 >= RIVAL * most);
        let rivals: Vec<Rival> =
            alike.filter_map(|&(_, key)| Some((key, self.requests.get(key)?.id))).take(MOST).collect();
        if let Some(call) = self.calls.get_mut(call).filter(|_| rivals.len() > 1) {
            call.rivals = rivals;
        }
    }

    /// The call that these requests might have made was decided, with this probability of being right.
    pub(super) fn settle_rivals(&mut self, rivals: Vec<Rival>, probability: f32) {
        for (key, id) in rivals {
            if let Some(request) = self.requests.get_mut(key).filter(|request| request.id == id) {
                request.certainty = request.certainty.min(probability);
            }
        }
    }
}
