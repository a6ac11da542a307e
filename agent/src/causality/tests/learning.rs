//! What the model tells of requests from what it has learnt of others.

use super::super::model::{Model, Next};
use super::super::track::Track;
use super::MS;

/// A model that has seen requests of an operation make the same call so many nanoseconds after their arrival.
fn learn(model: &mut Model, operation: u32, delay: u64) {
    for _ in 0..100 {
        let mut track = Track::new(operation, MS);
        model.learn(&track, Next::Call(9), MS + delay, 1.0);
        track.call(9, 0, MS + delay);
        track.returned(9, 2 * MS + delay);
        model.learn(&track, Next::Answer, 3 * MS + delay, 1.0);
    }
}

#[test]
fn an_operation_never_seen_is_foretold_from_the_others() {
    let mut model = Model::new();
    learn(&mut model, 1, MS);
    learn(&mut model, 2, MS);
    let track = Track::new(3, MS);
    let likelihood = |model: &Model, delay: u64| model.likelihood(&track, Next::Call(9), MS + delay);
    assert!(likelihood(&model, MS) > 20.0 * likelihood(&model, 5 * MS));
    assert!(model.chance(&track, Next::Call(9)) > 10.0 * model.chance(&track, Next::Answer));
    // What it does itself counts more, once that was seen.
    learn(&mut model, 3, 5 * MS);
    assert!(likelihood(&model, 5 * MS) > 20.0 * likelihood(&model, MS));
}
