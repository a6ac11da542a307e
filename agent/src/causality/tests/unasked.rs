//! Event loops with too much to do, and calls that no request causes.

use std::collections::VecDeque;

use super::scene::{Played, Scene, Step, errors};
use super::*;

#[test]
fn timers_are_told_from_requests() {
    // Every ten milliseconds a call without a cause; now and then a request, with a call of another kind.
    let mut causality = Causality::new(Settings::default());
    let mut random = Random(3);
    let mut links = Vec::new();
    for tick in 0..2000u64 {
        let at = 1000 * MS + tick * 10 * MS;
        causality.outgoing(Outgoing { operation: 9, ..outgoing(tick, at, Facts::default()) });
        causality.returned(tick, at + MS);
        if tick % 10 == 3 {
            let at = at + random.below(10 * MS);
            causality.incoming(incoming(tick, at, Facts::default()));
            causality.outgoing(outgoing(10_000 + tick, at + MS, Facts::default()));
            causality.returned(10_000 + tick, at + 7 * MS);
            causality.answered(tick, at + 8 * MS);
        }
        causality.poll(at, &mut links);
    }
    causality.finish(&mut links);
    let wrong = links.iter().filter(|link| link.parent.is_some() != (link.child >= 10_000)).count();
    assert!(wrong <= 20, "{wrong} of {}", links.len());
}

#[test]
fn calls_of_a_timer_have_no_parent() {
    // The timer calls what requests never call, on the thread of the loop, on one of its own, or on one unknown.
    // The thread that the timer calls from, and how many read requests, from which one on.
    for (name, timer, first, readers) in [("loop", 1, 1, 1), ("pool", 9, 1, 4), ("unknown", 0, 0, 1)] {
        let (mut scene, mut random) = (Scene::default(), Random(5));
        for tick in 0..3000 {
            let at = 1000 * MS + tick * 10 * MS + random.below(MS);
            scene.call(at, at + 2 * MS, 7, timer, None);
        }
        for id in 0..1500 {
            scene.request(id, 1000 * MS + id * 20 * MS + random.below(14 * MS), first + id as u32 % readers, 2);
        }
        let links = scene.play();
        assert_eq!(errors(&links), (0, 0), "{name}");
    }
}

#[test]
fn a_thread_of_its_own_may_call_what_requests_call() {
    let (mut scene, mut random) = (Scene::default(), Random(6));
    for tick in 0..3000 {
        let at = 1000 * MS + tick * 10 * MS + random.below(MS);
        scene.call(at, at + 2 * MS, 2, 9, None);
    }
    for id in 0..1500 {
        scene.request(id, 1000 * MS + id * 20 * MS + random.below(14 * MS), 1 + id as u32 % 4, 2);
    }
    assert_eq!(errors(&scene.play()), (0, 0));
}

#[test]
fn on_a_loop_a_thread_proves_nothing_about_what_it_also_calls_unasked() {
    let (mut scene, mut random) = (Scene::default(), Random(6));
    for tick in 0..300 {
        let at = 1000 * MS + tick * 100 * MS + random.below(MS);
        scene.call(at, at + 2 * MS, 2, 1, None);
    }
    for id in 0..1500 {
        scene.request(id, 1000 * MS + id * 20 * MS + random.below(14 * MS), 1, 2);
    }
    let links = scene.play();
    let unasked_but_certain = |(_, link, cause): &&Played| {
        cause.is_none() && link.parent.is_some() && (link.method == Method::Thread || link.confidence > 0.999)
    };
    assert_eq!(links.iter().filter(unasked_but_certain).count(), 0);
    let (_, none) = errors(&links);
    assert!(none < 15, "{none} calls of requests have lost them");
}

#[test]
fn what_was_called_because_of_something_unseen_makes_no_habit() {
    // Two calls whose causes were not seen; then requests follow each other without a pause, so that no other call is idle.
    let mut causality = Causality::new(Settings::default());
    for call in 0..2 {
        causality.outgoing(outgoing(call, (1000 + call) * MS, Facts::default()));
        causality.returned(call, (1000 + call) * MS + MS / 2);
    }
    causality.incoming(incoming(2, 1005 * MS, Facts::default()));
    causality.asked_unseen(1, 1005 * MS);
    for id in 2..1000 {
        let at = 1005 * MS + (id - 2) * 50 * MS;
        causality.outgoing(outgoing(id, at + 2 * MS, Facts::default()));
        causality.returned(id, at + 7 * MS);
        causality.answered(id, at + 50 * MS);
        causality.incoming(incoming(id + 1, at + 50 * MS, Facts::default()));
    }
    let mut links = Vec::new();
    causality.finish(&mut links);
    let right = links.iter().filter(|link| link.child >= 2 && link.parent == Some(link.child)).count();
    assert_eq!((links.len(), right), (1000, 998));
}

/// What a loop has to do for a request, in the order of [`busy_loop`]'s callbacks.
#[derive(Clone, Copy)]
enum Callback {
    Read,
    /// Two calls side by side.
    First,
    /// One more.
    Then,
    Answer,
}

/// One thread with a queue of callbacks, first in, first out; each takes a while. Requests come every `spacing`
/// nanoseconds of each of the phases, which have so many.
pub(super) fn busy_loop(phases: &[(u64, u64)]) -> Scene {
    let (mut scene, mut random) = (Scene::default(), Random(11));
    let mut due = BinaryHeap::new();
    let mut at = 1000 * MS;
    let mut id = 0;
    for &(requests, spacing) in phases {
        for _ in 0..requests {
            at += random.below(2 * spacing);
            due.push(Reverse((at, id, Callback::Read as u8)));
            id += 1;
        }
    }
    let mut queue = VecDeque::new();
    let mut now = 0;
    loop {
        while let Some(&Reverse((at, id, callback))) = due.peek()
            && (at <= now || queue.is_empty())
        {
            due.pop();
            now = now.max(at);
            queue.push_back((id, callback));
        }
        let Some((id, callback)) = queue.pop_front() else { break };
        now += random.delay(MS / 2);
        let mut calls = |scene: &mut Scene, operations: &[u32]| {
            let mut last = 0;
            for &operation in operations {
                now += random.delay(MS / 10);
                let end = now + random.delay(u64::from(operation) * MS);
                scene.call(now, end, operation, 1, Some(id));
                last = last.max(end);
            }
            last
        };
        match callback {
            callback if callback == Callback::Read as u8 => {
                scene.steps.push((now, Step::Incoming(id, 1)));
                queue.push_back((id, Callback::First as u8));
            }
            callback if callback == Callback::First as u8 => {
                due.push(Reverse((calls(&mut scene, &[2, 3]), id, Callback::Then as u8)));
            }
            callback if callback == Callback::Then as u8 => {
                due.push(Reverse((calls(&mut scene, &[4]), id, Callback::Answer as u8)));
            }
            _ => scene.steps.push((now, Step::Answered(id))),
        }
    }
    scene
}

#[test]
fn a_loop_with_too_much_to_do_is_not_misread_with_confidence() {
    // Little to do at first, then slightly more than can be done, then little again.
    let links = busy_loop(&[(300, 10 * MS), (1200, 26 * MS / 10), (300, 10 * MS)]).play();
    let (wrong, none) = errors(&links);
    let sure = links.iter().filter(|(_, link, cause)| link.parent != *cause && link.confidence > 0.9).count();
    println!("{wrong} wrong, {sure} of them sure, {none} without, of {}", links.len());
    assert!(wrong + none < links.len() / 5, "{wrong} wrong, {none} without, of {}", links.len());
    assert!(sure < links.len() / 50, "{sure} of {}", links.len());
    let mut children: FxHashMap<Ref, usize> = FxHashMap::default();
    links.iter().filter_map(|(_, link, _)| link.parent).for_each(|parent| *children.entry(parent).or_default() += 1);
    assert!(children.values().all(|&count| count <= 4), "{:?}", children.values().max());
}
