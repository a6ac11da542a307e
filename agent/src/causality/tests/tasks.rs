//! Calls of tasks, which tell for whom they were made when their task answers.

use super::*;

/// Requests come on so many connections in turns, each when the one before was answered.
const CONNECTIONS: u64 = 101;

/// An event loop with requests whose calls overtake each other by chance, so that nothing but the tasks tells them apart.
struct Loop {
    steps: Vec<(u64, Step)>,
    truth: FxHashMap<Ref, Option<Ref>>,
}

#[derive(Clone, Copy)]
enum Step {
    Incoming(Ref, u64),
    Answered(Ref, Option<u64>),
    Outgoing(Ref, [Option<u64>; 3]),
    Returned(Ref),
}

/// How a request is worked on.
struct Work {
    /// The task that makes the calls with those that wait for it, and the one that answers.
    calls: [Option<u64>; 3],
    answers: Option<u64>,
}

impl Loop {
    fn new() -> Self {
        Self { steps: Vec::new(), truth: FxHashMap::default() }
    }

    /// A request every 2 ms that makes two calls at random times of the 60 to 100 ms that it takes.
    fn of(requests: u64, work: impl Fn(Ref) -> Work) -> Self {
        let (mut new, mut random) = (Self::new(), Random(11));
        for id in 0..requests {
            let at = 1000 * MS + id * 2 * MS;
            let Work { calls, answers } = work(id);
            let mut now = at;
            for _ in 0..2 {
                now += MS + random.below(30 * MS);
                let end = now + MS + random.below(10 * MS);
                new.call(now, end, calls, Some(id));
                now = end;
            }
            new.steps.extend([
                (at, Step::Incoming(id, id % CONNECTIONS)),
                (now + MS + random.below(10 * MS), Step::Answered(id, answers)),
            ]);
        }
        new
    }

    fn call(&mut self, at: u64, end: u64, tasks: [Option<u64>; 3], cause: Option<Ref>) -> Ref {
        let call = self.truth.len() as Ref;
        self.steps.extend([(at, Step::Outgoing(call, tasks)), (end, Step::Returned(call))]);
        self.truth.insert(call, cause);
        call
    }

    /// Each link with the truth.
    fn play(mut self) -> Vec<(Link, Option<Ref>)> {
        self.steps.sort_by_key(|step| step.0);
        let mut causality = Causality::new(Settings { floor: 0.7, ..Settings::default() });
        let mut links = Vec::new();
        let thread = Facts { thread: Some(1), ..Facts::default() };
        for (at, step) in self.steps {
            match step {
                Step::Incoming(id, connection) => {
                    let facts = Facts { connection: Some(connection), ..thread };
                    causality.incoming(incoming(id, at, facts));
                }
                Step::Answered(id, task) => causality.answered_in(id, at, task),
                Step::Outgoing(id, tasks) => causality.outgoing(outgoing(id, at, Facts { tasks, ..thread })),
                Step::Returned(id) => causality.returned(id, at),
            }
            causality.poll(at, &mut links);
        }
        causality.finish(&mut links);
        assert_eq!(links.len(), self.truth.len());
        links.into_iter().map(|link| (link, self.truth[&link.child])).collect()
    }
}

fn right(links: &[(Link, Option<Ref>)]) -> usize {
    links.iter().filter(|(link, truth)| link.parent == *truth).count()
}

fn by_task(links: &[(Link, Option<Ref>)]) -> usize {
    links.iter().filter(|(link, _)| link.method == Method::Coroutine).count()
}

/// A task for which nobody waits.
fn alone(task: Option<u64>) -> [Option<u64>; 3] {
    [task, None, None]
}

/// Where tasks stand in memory is used again once they have ended.
fn place(id: Ref) -> Option<u64> {
    Some(1 + id % 64)
}

#[test]
fn a_task_that_answers_has_called_for_what_it_answers() {
    let links = Loop::of(1000, |id| Work { calls: alone(place(id)), answers: place(id) }).play();
    assert_eq!(right(&links), links.len());
    // The first requests come before their thread is known to serve in turns.
    assert!(by_task(&links) > links.len() - 20, "{} of {}", by_task(&links), links.len());
    let without = Loop::of(300, |_| Work { calls: [None; 3], answers: None }).play();
    assert!(right(&without) < without.len() / 2, "only tasks tell: {}", right(&without));
}

#[test]
fn a_task_that_answers_has_waited_for_its_own_tasks() {
    let links =
        Loop::of(1000, |id| Work { calls: [Some(1000 + id), Some(5000 + id), place(id)], answers: place(id) }).play();
    assert_eq!(right(&links), links.len());
    assert!(by_task(&links) > links.len() - 20, "{} of {}", by_task(&links), links.len());
}

#[test]
fn calls_of_other_tasks_are_left_to_the_model_in_the_end() {
    let calls = |id| Some(1000 + id);
    let links = Loop::of(250, |id| Work { calls: alone(calls(id)), answers: place(id) }).play();
    assert_eq!(by_task(&links), 0);
    let model = Loop::of(250, |_| Work { calls: [None; 3], answers: None }).play();
    let wrong = |links: &[(Link, Option<Ref>)]| {
        links.iter().filter(|(link, truth)| link.parent.is_some() && link.parent != *truth).count()
    };
    assert!(wrong(&links) <= wrong(&model) + links.len() / 50, "{} and {}", wrong(&links), wrong(&model));
}

#[test]
fn a_task_that_answers_several_at_a_time_proves_nothing() {
    let links = Loop::of(300, |_| Work { calls: alone(Some(1)), answers: Some(1) }).play();
    // The first answer comes before it is known.
    assert!(by_task(&links) <= 60, "{}", by_task(&links));
}

#[test]
fn what_a_task_calls_before_its_request_or_after_it_is_not_for_that() {
    let mut scene = Loop::of(200, |id| Work { calls: alone(place(id)), answers: place(id) });
    // A task of the program's own, which never answers, and tasks that go on after they have.
    let mut random = Random(3);
    for tick in 0..80_u64 {
        let at = 1000 * MS + tick * 10 * MS + random.below(5 * MS);
        scene.call(at, at + 2 * MS, alone(Some(7777)), None);
    }
    let answers: Vec<(u64, Option<u64>)> = scene
        .steps
        .iter()
        .filter_map(|(at, step)| if let Step::Answered(_, task) = step { Some((*at, *task)) } else { None })
        .collect();
    for (at, task) in answers {
        scene.call(at + MS / 2, at + MS, alone(task), None);
    }
    let links = scene.play();
    let wrong = links.iter().filter(|(link, truth)| link.method == Method::Coroutine && link.parent != *truth).count();
    assert_eq!(wrong, 0);
    assert!(by_task(&links) > 380, "{}", by_task(&links));
}

/// A task for each connection that calls for a request after its answer: it may seem to call for the next one.
#[test]
fn a_task_that_serves_a_connection_may_go_on_after_its_answer() {
    let of_connection = |id: Ref| Some(1 + id % CONNECTIONS);
    let mut scene = Loop::of(700, |id| Work { calls: alone(of_connection(id)), answers: of_connection(id) });
    let links = Loop { steps: scene.steps.clone(), truth: scene.truth.clone() }.play();
    assert_eq!(
        links.iter().filter(|(link, truth)| link.method == Method::Coroutine && link.parent != *truth).count(),
        0
    );
    assert!(by_task(&links) > links.len() / 2, "{} of {}", by_task(&links), links.len());
    // On most connections the next request has come by then.
    let mut random = Random(5);
    let answers: Vec<(u64, Ref)> = scene
        .steps
        .iter()
        .filter_map(|(at, step)| if let Step::Answered(id, _) = step { Some((*at, *id)) } else { None })
        .collect();
    for (answered, id) in answers {
        let next = 1000 * MS + (id + CONNECTIONS) * 2 * MS;
        let at = if random.below(10) == 0 { answered + MS } else { answered.max(next) + MS };
        scene.call(at, at + MS, alone(of_connection(id)), Some(id));
    }
    let links = scene.play();
    let (wrong, all) = (
        links.iter().filter(|(link, truth)| link.method == Method::Coroutine && link.parent != *truth),
        by_task(&links),
    );
    assert_eq!(wrong.count(), 0, "of {all}");
}

#[test]
fn a_request_that_takes_longer_than_the_hold_back_is_not_waited_for() {
    let mut causality = Causality::new(Settings { warm_up: 0, ..Settings::default() });
    let task = Facts { tasks: alone(Some(5)), ..Facts::default() };
    causality.incoming(incoming(1, MS, Facts::default()));
    causality.outgoing(outgoing(1, 2 * MS, task));
    causality.returned(1, 3 * MS);
    let mut links = Vec::new();
    causality.poll(900 * MS, &mut links);
    assert_eq!(links, []);
    causality.poll(1100 * MS, &mut links);
    assert_eq!(links.iter().map(|link| (link.parent, link.method)).collect::<Vec<_>>(), [(Some(1), Method::Only)]);
    causality.answered_in(1, 2000 * MS, Some(5));
    assert_eq!(finish(causality), []);
}
