//! The newest spans, kept for people who look at the live page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::Exchange;
use crate::protocol::http::{CapturedHeader, HttpMessage};
use crate::signal::span::{Batch, Detail, Span};

/// How much a [`Store`] may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Once so many newer spans are held, older batches go.
    pub spans: usize,
    /// Memory that the held batches may take together, in octets.
    pub octets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { spans: 2_000, octets: 8 << 20 }
    }
}

/// From a batch that cannot be held as it is, at most so many spans are copied: what that costs stays small.
const COPIED: usize = 256;

/// Holds the newest spans, within its [`Limits`]. Shared batches are held as they are: nothing is copied, filtered or
/// written out before somebody looks.
///
/// Every span has a number, counted from 0 in the order of [`Store::push`]; a *cursor* is the number of the next span.
#[derive(Debug)]
pub struct Store {
    limits: Limits,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    runs: VecDeque<Run>,
    spans: usize,
    octets: usize,
    cursor: u64,
    skipped: u64,
}

/// Spans with consecutive numbers.
#[derive(Debug)]
struct Run {
    /// The number of the first one.
    first: u64,
    batch: Batch,
    octets: usize,
}

/// What a [`Store`] holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    pub spans: usize,
    pub octets: usize,
    /// Spans since the start that were not held, not even for a moment, since their batch alone was too large.
    pub skipped: u64,
}

/// The spans from a cursor on, as far as they are still held.
#[derive(Debug, Default)]
pub struct Tail {
    runs: Vec<(Batch, usize)>,
    /// Spans from the cursor asked for on that are no longer held.
    pub missed: u64,
    /// Where to go on from.
    pub cursor: u64,
}

impl Tail {
    /// Oldest first; from the back, newest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Span> {
        self.runs.iter().flat_map(|(batch, from)| batch.get(*from..).unwrap_or_default())
    }
}

impl Store {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, held: Mutex::default() }
    }

    /// Takes a share of a batch. Never waits for a reader longer than it takes to copy a few pointers; what had to go
    /// is freed outside the lock.
    pub fn push(&self, batch: &Batch) {
        let given = batch.len();
        if given == 0 {
            return;
        }
        let (batch, octets) = self.fitting(batch);
        {
            let mut held = self.lock();
            let skipped = (given - batch.len()) as u64;
            held.skipped += skipped;
            let first = held.cursor + skipped;
            held.cursor += given as u64;
            held.spans += batch.len();
            held.octets += octets;
            if !batch.is_empty() {
                held.runs.push_back(Run { first, batch, octets });
            }
        }
        while let Some(run) = self.evict() {
            drop(run);
        }
    }

    /// Everything that is held.
    #[must_use]
    pub fn newest(&self) -> Tail {
        let held = self.lock();
        let runs = held.runs.iter().map(|run| (Arc::clone(&run.batch), 0)).collect();
        Tail { runs, missed: 0, cursor: held.cursor }
    }

    /// The spans from `cursor` on. A cursor from before the agent's last start counts as the current one.
    #[must_use]
    pub fn since(&self, cursor: u64) -> Tail {
        let held = self.lock();
        let mut tail = Tail { cursor: held.cursor, ..Tail::default() };
        let mut wanted = held.cursor.saturating_sub(cursor);
        for run in held.runs.iter().rev() {
            let end = run.first + run.batch.len() as u64;
            if end <= cursor {
                break;
            }
            let from = usize::try_from(cursor.saturating_sub(run.first)).unwrap_or(usize::MAX);
            wanted -= (run.batch.len() - from) as u64;
            tail.runs.push((Arc::clone(&run.batch), from));
        }
        drop(held);
        tail.runs.reverse();
        tail.missed = wanted;
        tail
    }

    /// The cursor behind the newest span.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.lock().cursor
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        let held = self.lock();
        Usage { spans: held.spans, octets: held.octets, skipped: held.skipped }
    }

    /// The batch with the memory it takes, or a copy of its newest spans where holding it would waste memory.
    fn fitting(&self, batch: &Batch) -> (Batch, usize) {
        let octets = (batch.capacity() - batch.len()) * size_of::<Span>() + batch.iter().map(weight).sum::<usize>();
        // A few spans in a vector made for thousands would push everything else out.
        let sparse = batch.len() <= COPIED && batch.capacity() > 2 * batch.len();
        if octets <= self.limits.octets && !sparse {
            return (Arc::clone(batch), octets);
        }
        let mut octets = 0;
        let fits = |span: &&Span| {
            octets += weight(span);
            octets <= self.limits.octets
        };
        let kept = batch.iter().rev().take(COPIED).take_while(fits).count();
        let copy = batch.get(batch.len() - kept..).unwrap_or_default().to_vec();
        let octets = copy.iter().map(weight).sum();
        (Arc::new(copy), octets)
    }

    /// Takes the oldest run out when it must go.
    fn evict(&self) -> Option<Run> {
        let mut held = self.lock();
        let oldest = held.runs.front()?;
        if held.octets <= self.limits.octets && held.spans - oldest.batch.len() < self.limits.spans {
            return None;
        }
        let run = held.runs.pop_front()?;
        held.spans -= run.batch.len();
        held.octets -= run.octets;
        Some(run)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing in here can panic half-way through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The octets a span takes. Its resource is not counted: that is shared with the process table and other spans.
fn weight(span: &Span) -> usize {
    let detail = match &span.detail {
        Detail::Http(detail) => size_of::<Exchange>() + http_weight(&detail.exchange.message),
        Detail::Connect(_) => 0,
        Detail::Message(detail) => detail.weight(),
        Detail::Moved(moved) => moved.weight(),
    };
    size_of::<Span>() + span.name.len() + text(span.trace_state.as_deref()) + detail
}

fn http_weight(http: &HttpMessage) -> usize {
    http.target.len()
        + text(http.method_original.as_deref())
        + text(http.host.as_deref())
        + text(http.user_agent.as_deref())
        + http.context.as_ref().map_or(0, |context| text(context.trace_state.as_deref()))
        + headers_weight(&http.request_headers)
        + headers_weight(&http.response_headers)
}

fn text(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}

fn headers_weight(headers: &Vec<CapturedHeader>) -> usize {
    let values = |values: &Vec<Box<str>>| -> usize {
        values.capacity() * size_of::<Box<str>>() + values.iter().map(|value| value.len()).sum::<usize>()
    };
    let contents: usize = headers.iter().map(|(name, list)| name.len() + values(list)).sum();
    headers.capacity() * size_of::<CapturedHeader>() + contents
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::sample;

    fn store(spans: usize, octets: usize) -> Store {
        Store::new(Limits { spans, octets })
    }

    fn batch(ids: std::ops::Range<u64>) -> Batch {
        Arc::new(ids.map(|id| sample::span(id).build()).collect())
    }

    fn ids(tail: &Tail) -> Vec<u64> {
        tail.iter().map(|span| u64::from_be_bytes(span.span_id.0)).collect()
    }

    #[test]
    fn the_newest_spans_are_held_whole_batches_at_a_time() {
        let store = store(10, usize::MAX);
        for start in (1..=97).step_by(4) {
            store.push(&batch(start..start + 4));
            assert!(store.usage().spans < 14, "{:?}", store.usage());
        }
        assert_eq!(ids(&store.newest()), (89..=100).collect::<Vec<_>>());
        assert_eq!(store.cursor(), 100);
        assert_eq!(store.usage().skipped, 0);
    }

    #[test]
    fn an_empty_batch_changes_nothing() {
        let store = store(10, usize::MAX);
        store.push(&batch(1..1));
        assert_eq!((store.cursor(), store.usage()), (0, Usage::default()));
        assert_eq!(ids(&store.since(0)), Vec::<u64>::new());
    }

    #[test]
    fn batches_are_shared_not_copied() {
        let store = store(10, usize::MAX);
        let given = batch(1..5);
        store.push(&given);
        assert_eq!(Arc::strong_count(&given), 2);
        store.push(&batch(5..25));
        assert_eq!(Arc::strong_count(&given), 1, "evicted");
    }

    #[test]
    fn octets_are_bounded_whatever_the_spans_hold() {
        const LIMIT: usize = 64 << 10;
        let store = store(1_000, LIMIT);
        for id in 1..200 {
            let long = "x".repeat((id as usize * 37) % 20_000);
            store.push(&Arc::new(vec![sample::span(id).target(&format!("/{long}")).build()]));
            let usage = store.usage();
            assert!(usage.octets <= LIMIT, "{usage:?}");
            assert!(usage.spans >= 2 || id == 1, "{usage:?}");
        }
    }

    #[test]
    fn of_a_batch_larger_than_the_limit_the_newest_are_copied() {
        let limit = 100 * (size_of::<Span>() + size_of::<Exchange>());
        let store = store(1_000, limit);
        store.push(&batch(1..5));
        let large = batch(5..1_005);
        store.push(&large);
        assert_eq!(Arc::strong_count(&large), 1);
        let usage = store.usage();
        assert!(usage.spans > 50 && usage.octets <= limit, "{usage:?}");
        assert_eq!(usage.spans as u64 + usage.skipped, 1_000);
        assert_eq!(store.newest().iter().next_back().map(|span| span.span_id.0), Some(1_004_u64.to_be_bytes()));
        let tail = store.since(4);
        assert_eq!((tail.missed, tail.cursor), (usage.skipped, 1_004));
    }

    #[test]
    fn a_single_span_beyond_the_limit_is_skipped_and_counted() {
        let store = store(10, 16 << 10);
        store.push(&Arc::new(vec![sample::span(1).target(&"x".repeat(20_000)).build()]));
        assert_eq!(store.usage(), Usage { spans: 0, octets: 0, skipped: 1 });
        store.push(&batch(2..4));
        assert_eq!(ids(&store.since(0)), [2, 3]);
        assert_eq!(store.since(0).missed, 1);
    }

    #[test]
    fn a_few_spans_in_a_large_vector_are_copied() {
        let store = store(10, 32 << 10);
        for id in 1..=10 {
            let mut spans = Vec::with_capacity(4_096);
            spans.push(sample::span(id).build());
            store.push(&Arc::new(spans));
        }
        assert_eq!(ids(&store.newest()), (1..=10).collect::<Vec<_>>());
    }

    #[test]
    fn a_tail_starts_inside_a_batch_and_counts_what_is_gone() {
        let store = store(4, usize::MAX);
        for start in [1, 5, 9] {
            store.push(&batch(start..start + 4));
        }
        // Cursor, ids from there on, missed.
        let cases: [(u64, &[u64], u64); 5] =
            [(12, &[], 0), (11, &[12], 0), (8, &[9, 10, 11, 12], 0), (0, &[9, 10, 11, 12], 8), (99, &[], 0)];
        for (cursor, expected, missed) in cases {
            let tail = store.since(cursor);
            assert_eq!((ids(&tail).as_slice(), tail.missed, tail.cursor), (expected, missed, 12), "{cursor}");
        }
    }

    #[test]
    fn readers_and_writers_agree_on_the_count() {
        let store = Arc::new(store(100, usize::MAX));
        let writer = std::thread::spawn({
            let store = Arc::clone(&store);
            move || (0..2_000_u64).for_each(|id| store.push(&batch(id * 5 + 1..id * 5 + 6)))
        });
        let (mut cursor, mut seen) = (0, 0);
        while cursor < 10_000 {
            let tail = store.since(cursor);
            seen += tail.iter().count() as u64 + tail.missed;
            cursor = tail.cursor;
            assert_eq!(seen, cursor);
        }
        writer.join().unwrap();
    }
}
