//! Names of topics by their ids, which newer clients send in place of them (KIP-516).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// The id of a topic: random, so no two topics of any clusters share one, not even one that is deleted and made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// `None` for the id that stands for none.
    #[must_use]
    pub fn new(id: [u8; 16]) -> Option<Self> {
        (id != [0; 16]).then_some(Self(id))
    }
}

/// What responses to `Metadata` have told, shared by all connections that the caller wants to: one is enough for a host.
///
/// An id for which two names were told is unknown for good, since one of them is wrong. The oldest are forgotten first.
#[derive(Debug)]
pub struct Topics {
    limit: usize,
    inner: Mutex<Inner>,
}

/// Names kept by default: some 4 MiB at most.
const MOST: usize = 16 * 1024;

impl Default for Topics {
    fn default() -> Self {
        Self::new(MOST)
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// `None`: told with different names.
    names: HashMap<TopicId, Option<Arc<str>>>,
    order: VecDeque<TopicId>,
    forgotten: u64,
}

impl Topics {
    /// Keeps so many at most, each some 64 octets and its name (249 at most).
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, inner: Mutex::default() }
    }

    /// The name, when it was told and never differently.
    #[must_use]
    pub fn name(&self, id: TopicId) -> Option<Arc<str>> {
        self.lock().names.get(&id).cloned().flatten()
    }

    /// How many names were dropped since there were too many.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.lock().forgotten
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().names.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn learn(&self, id: TopicId, name: &Arc<str>) {
        let mut inner = self.lock();
        if let Some(known) = inner.names.get_mut(&id) {
            if known.as_ref().is_some_and(|known| known != name) {
                *known = None;
            }
            return;
        }
        if self.limit == 0 {
            inner.forgotten += 1;
            return;
        }
        while inner.names.len() >= self.limit {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.names.remove(&oldest);
            inner.forgotten += 1;
        }
        inner.order.push_back(id);
        inner.names.insert(id, Some(Arc::clone(name)));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_what_is_told_differently_is_unknown() {
        let topics = Topics::new(2);
        let ids = [1, 2, 3].map(|id| TopicId([id; 16]));
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        topics.learn(ids[0], &a);
        topics.learn(ids[1], &b);
        topics.learn(ids[1], &b);
        assert_eq!(topics.name(ids[0]), Some(a.clone()));
        topics.learn(ids[2], &a);
        assert_eq!((topics.name(ids[0]), topics.len(), topics.forgotten()), (None, 2, 1));
        topics.learn(ids[1], &a);
        topics.learn(ids[1], &b);
        assert_eq!(topics.name(ids[1]), None);
        assert_eq!(TopicId::new([0; 16]), None);
    }
}
