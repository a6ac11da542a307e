//! What a process is seen to do, with the truth about it.

use super::*;

/// A link, with the time and the cause of its call.
pub(super) type Played = (u64, Link, Option<Ref>);

/// Steps by time, and the cause of each call.
#[derive(Default)]
pub(super) struct Scene {
    pub(super) steps: Vec<(u64, Step)>,
    truth: FxHashMap<Ref, Option<Ref>>,
}

pub(super) enum Step {
    Incoming(Ref, u32),
    Answered(Ref),
    Outgoing(Ref, u32, u32),
    Returned(Ref),
}

impl Scene {
    pub(super) fn call(&mut self, at: u64, end: u64, operation: u32, thread: u32, cause: Option<Ref>) -> Ref {
        let call = self.truth.len() as Ref;
        self.steps.extend([(at, Step::Outgoing(call, operation, thread)), (end, Step::Returned(call))]);
        self.truth.insert(call, cause);
        call
    }

    /// A request of 5 ms with one call, on a thread.
    pub(super) fn request(&mut self, id: Ref, at: u64, thread: u32, operation: u32) {
        self.steps.extend([(at, Step::Incoming(id, thread)), (at + 5 * MS, Step::Answered(id))]);
        self.call(at + MS, at + 4 * MS, operation, thread, Some(id));
    }

    pub(super) fn play(self) -> Vec<Played> {
        self.play_with(Settings::default())
    }

    pub(super) fn play_with(mut self, settings: Settings) -> Vec<Played> {
        self.steps.sort_by_key(|step| step.0);
        let mut causality = Causality::new(settings);
        let (mut links, mut times) = (Vec::new(), FxHashMap::default());
        let facts = |thread| Facts { thread: (thread > 0).then_some(thread), ..Facts::default() };
        for (at, step) in self.steps {
            match step {
                Step::Incoming(id, thread) => causality.incoming(incoming(id, at, facts(thread))),
                Step::Answered(id) => causality.answered(id, at),
                Step::Outgoing(id, operation, thread) => {
                    times.insert(id, at);
                    causality.outgoing(Outgoing { operation, ..outgoing(id, at, facts(thread)) });
                }
                Step::Returned(id) => causality.returned(id, at),
            }
            causality.poll(at, &mut links);
        }
        causality.finish(&mut links);
        links.iter().map(|link| (times[&link.child], *link, self.truth[&link.child])).collect()
    }
}

/// Links with a wrong parent, and without the one they should have.
pub(super) fn errors(links: &[Played]) -> (usize, usize) {
    let wrong = links.iter().filter(|(_, link, cause)| link.parent.is_some() && link.parent != *cause).count();
    let none = links.iter().filter(|(_, link, cause)| link.parent.is_none() && cause.is_some()).count();
    (wrong, none)
}
