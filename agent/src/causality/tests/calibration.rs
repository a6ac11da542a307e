//! A confidence is a promise: of the links given with one, about that share or more are right, whatever the load.

use std::collections::VecDeque;

use super::scene::{Played, Scene, Step};
use super::unasked::busy_loop;
use super::*;

/// Below it no parent is set by default.
const FLOOR: f32 = 0.7;

/// How the requests of a load call on, all of them alike.
#[derive(Clone, Copy)]
struct Calling {
    calls: u64,
    /// All at once instead of one after the other.
    beside: bool,
    /// Before each call: about as long each time, or anything from ten microseconds to ten milliseconds.
    steady: bool,
}

impl Calling {
    /// A request that arrives at `at`, served by a thread or a goroutine of its own; when it was answered.
    fn serve(self, scene: &mut Scene, random: &mut Random, id: Ref, at: u64) -> u64 {
        let (mut now, mut end) = (at, at);
        for _ in 0..self.calls {
            let wait = if self.steady { random.delay(MS) } else { 10_000 << random.below(11) };
            let call = now + wait + random.below(wait);
            let returned = call + random.delay(4 * MS);
            scene.call(call, returned, 2, 0, Some(id));
            end = end.max(returned);
            now = if self.beside { at } else { returned };
        }
        end += random.delay(MS / 4);
        scene.steps.extend([(at, Step::Incoming(id, 0)), (end, Step::Answered(id))]);
        end
    }
}

/// Clients that each ask again as soon as they are answered, in bursts of three requests each.
fn bursts(calling: Calling, clients: u64) -> Scene {
    let (mut scene, mut random) = (Scene::default(), Random(13));
    let mut id = 0;
    for burst in 0..3 {
        for _ in 0..clients {
            let mut at = (1000 + 1200 * burst) * MS + random.below(MS);
            for _ in 0..3 {
                at = calling.serve(&mut scene, &mut random, id, at) + random.below(MS / 5);
                id += 1;
            }
        }
    }
    scene
}

/// Requests that come at random, one in `spacing` nanoseconds on average.
fn pool(calling: Calling, spacing: u64) -> Scene {
    let (mut scene, mut random) = (Scene::default(), Random(17));
    let mut at = 1000 * MS;
    for id in 0..1000 {
        at += random.below(2 * spacing);
        calling.serve(&mut scene, &mut random, id, at);
    }
    scene
}

/// Links that would be given with the default floor: how many, how many of them right, and the sum of their confidences.
fn given(links: &[Played], least: f32) -> (f64, f64, f64) {
    let given = links.iter().filter(|(_, link, _)| link.parent.is_some() && link.confidence >= least);
    given.fold((0.0, 0.0, 0.0), |(count, right, sum), (_, link, cause)| {
        (count + 1.0, right + f64::from(u8::from(link.parent == *cause)), sum + f64::from(link.confidence))
    })
}

#[test]
fn links_are_right_as_often_as_they_say() {
    let calling = |calls, beside, steady| Calling { calls, beside, steady };
    // With the default floor: the share of calls that must get a right parent, and that may get a wrong one.
    let loads = [
        ("pool, steady, rarely together", pool(calling(3, false, true), 40 * MS), 0.95, 0.01),
        ("pool, steady, four at once", pool(calling(3, false, true), 5 * MS), 0.6, 0.06),
        ("pool, any delay, two at once", pool(calling(2, false, false), 8 * MS), 0.2, 0.06),
        ("loop with time to spare", busy_loop(&[(800, 10 * MS)]), 0.9, 0.01),
        ("loop, overloaded for a while", busy_loop(&[(300, 10 * MS), (900, 26 * MS / 10), (200, 10 * MS)]), 0.2, 0.06),
        ("burst of 50, one call", bursts(calling(1, false, false), 50), 0.0, 0.02),
        ("burst of 50, two calls in a row", bursts(calling(2, false, false), 50), 0.0, 0.02),
        ("burst of 50, three calls at once", bursts(calling(3, true, false), 50), 0.0, 0.02),
        ("burst of 50, steady", bursts(calling(2, false, true), 50), 0.0, 0.02),
        ("burst of 10, two calls in a row", bursts(calling(2, false, false), 10), 0.0, 0.02),
    ];
    for (name, scene, least_found, most_wrong) in loads {
        let links = scene.play_with(Settings { floor: 0.0, ..Settings::default() });
        let calls = links.len() as f64;
        for least in [FLOOR, 0.8, 0.9, 0.99] {
            let (count, right, sum) = given(&links, least);
            println!(
                "{name}: of {calls}, {count} from {least} on; {:.3} right, {:.3} said",
                right / count,
                sum / count
            );
            // A few more wrong ones than said may be chance.
            let wrong = count - right;
            assert!(wrong <= count - sum + 0.05 * count + 5.0, "{name}: {wrong} of {count} wrong from {least} on");
        }
        let (count, right, _) = given(&links, FLOOR);
        assert!(count - right <= most_wrong * calls, "{name}: {} of {calls} wrong", count - right);
        assert!(right >= least_found * calls, "{name}: only {right} of {calls} found");
    }
}

/// Clients that ask again as soon as they are answered, of a service whose requests so many threads read. It has `CONNECTIONS` for
/// its calls, and gives each to whoever waits for the longest time. Every other request makes two calls in a row, the others
/// three at once.
fn queued(readers: u64, seed: u64) -> Scene {
    const CLIENTS: u64 = 50;
    const CONNECTIONS: usize = 10;
    let (mut scene, mut random) = (Scene::default(), Random(seed));
    // What happens when: a client asks for the so-many-th time, or a call of a request returns.
    let (mut events, mut waiting) = (BinaryHeap::new(), VecDeque::new());
    // Of each request: its turn, calls without an answer, and calls to make after those.
    let mut requests: Vec<(u64, u64, u64)> = Vec::new();
    let mut free = CONNECTIONS;
    for burst in 0..6 {
        events.extend((0..CLIENTS).map(|_| Reverse(((1000 + 1300 * burst) * MS + random.below(MS), None, 0))));
    }
    while let Some(Reverse((at, returned, turn))) = events.pop() {
        match returned {
            None => {
                let id = requests.len();
                let calls = if id.is_multiple_of(2) { 1 } else { 3 };
                requests.push((turn, calls, calls % 3));
                waiting.extend((0..calls).map(|_| id));
                scene.steps.push((at, Step::Incoming(id as Ref, 1 + random.below(readers) as u32)));
            }
            Some(id) => {
                free += 1;
                let (turn, open, more): &mut (u64, u64, u64) = &mut requests[id];
                *open -= 1;
                if *open == 0 && *more > 0 {
                    (*open, *more) = (1, 0);
                    waiting.push_back(id);
                } else if *open == 0 {
                    let end = at + 20_000 + random.below(100_000);
                    scene.steps.push((end, Step::Answered(id as Ref)));
                    if *turn < 5 {
                        events.push(Reverse((end + 50_000 + random.below(200_000), None, *turn + 1)));
                    }
                }
            }
        }
        let mut now = at;
        while free > 0
            && let Some(id) = waiting.pop_front()
        {
            free -= 1;
            now += 20_000 + random.below(30_000);
            let end = now + random.delay(300_000);
            scene.call(now, end, 2, 1 + random.below(readers) as u32, Some(id as Ref));
            events.push(Reverse((end, Some(id), 0)));
        }
    }
    scene
}

#[test]
fn calls_that_wait_for_connections_are_not_read_with_confidence() {
    // Without regard to the connections some 4,200 of one reader's are wrong, and 1,300 of four readers'.
    for (readers, seed) in
        [(1, 100), (1, 101), (1, 102), (1, 103), (4, 100), (4, 101), (4, 102), (4, 103), (4, 107), (4, 109)]
    {
        let links = queued(readers, seed).play_with(Settings { floor: f64::from(FLOOR), ..Settings::default() });
        let (count, right, _) = given(&links, FLOOR);
        println!("{readers} readers, {seed}: of {}, {count} given, {right} right", links.len());
        assert_eq!(links.len(), 4500);
        assert!(count - right < 0.1 * 4500.0, "{readers} readers, {seed}: {} wrong", count - right);
    }
}
