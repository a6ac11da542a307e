//! How sure a decision is, from the share of the readings that agree with it.

use super::super::cluster::NEGLIGIBLE;

/// Power of the odds that makes a confidence of the model's share. Events of requests that compete are less independent
/// than the model takes them for, so its shares are too sure of themselves; measured on recorded traces.
const TRUST: f64 = 0.4;
/// The same where delays are not believed much, the power for the share that a request had at first, a factor for all
/// of the odds, and the largest share believed. Measured on event loops with far too much to do.
const WARY_TRUST: f64 = 0.2;
const FIRST_TRUST: f64 = 0.5;
const DOUBT: f64 = 0.5;
const BELIEVED: f64 = 0.98;

/// The odds of a share, taken less seriously; the more so, the less `grasp` ([`super::super::grasp`]). A share of one only
/// says that other readings are negligible.
pub(super) fn confidence(share: f64, grasp: f64) -> f64 {
    let odds = odds(share).powf(TRUST * grasp);
    odds / (1.0 + odds)
}

/// The same for a server that is slowed down, where readings that were dropped early may have been right: the share at
/// first, before anything was dropped, counts as well.
pub(super) fn wary_confidence(share: f64, first: f64, grasp: f64) -> f64 {
    let odds = odds(share.min(BELIEVED)).powf(WARY_TRUST * grasp) * odds(first).powf(FIRST_TRUST * grasp) * DOUBT;
    odds / (1.0 + odds)
}

fn odds(share: f64) -> f64 {
    let share = share.clamp(NEGLIGIBLE, 1.0 - NEGLIGIBLE);
    share / (1.0 - share)
}
