//! The bounded queue in front of each exporter, and its books.
//!
//! When it is full the newest spans are refused: those already queued are the older part of traces of which more has
//! been exported, refusing costs nothing, and it is what the batch processors of OpenTelemetry's SDKs do. The bounds
//! include what is in flight, so that a dead endpoint holds no more memory than a slow one.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::books::{Books, DropReason};
use crate::protocol::Exchange;
use crate::signal::span::{Batch, Detail, Span};

/// Losses for the same reason are logged once in this time; they are always counted.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// How much an exporter may hold, and how much it hands on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Spans queued and in flight.
    pub spans: usize,
    /// Octets of memory of spans queued and in flight, by [`weight`].
    pub bytes: usize,
    /// Spans taken at once: of one request, or of one write.
    pub batch_spans: usize,
    /// Octets taken at once, by [`weight`]; a single span may be heavier.
    pub batch_bytes: usize,
    /// How long a span may wait for others to make up a batch.
    pub delay: Duration,
}

/// The memory of a span in octets, estimated from its own size and its longer texts. An encoded span is rarely more
/// than twice as long: its target may appear in `url.path`, `url.query` and again in `url.full`.
#[must_use]
pub fn weight(span: &Span) -> usize {
    /// The allocator's own cost of the handful of small texts that are not looked at.
    const SMALL_TEXTS: usize = 64;
    let texts = match &span.detail {
        Detail::Connect(_) => 0,
        Detail::Message(detail) => detail.weight(),
        Detail::Moved(moved) => moved.weight(),
        Detail::Http(detail) => {
            let http = &detail.exchange.message;
            let long =
                [&http.host, &http.user_agent, &http.method_original].map(|text| text.as_ref().map_or(0, |t| t.len()));
            let headers = http.request_headers.iter().chain(&http.response_headers);
            let headers =
                headers.map(|(name, values)| 64 + name.len() + values.iter().map(|v| 24 + v.len()).sum::<usize>());
            size_of::<Exchange>() + http.target.len() + long.iter().sum::<usize>() + headers.sum::<usize>()
        }
    };
    size_of::<Span>() + SMALL_TEXTS + span.name.len() + span.trace_state.as_ref().map_or(0, |s| s.len()) + texts
}

/// Spans queued: a range of a batch that is shared with other exporters.
struct Entry {
    batch: Batch,
    range: Range<usize>,
}

impl Entry {
    fn spans(&self) -> &[Span] {
        self.batch.get(self.range.clone()).unwrap_or(&[])
    }
}

struct State {
    entries: VecDeque<Entry>,
    /// Spans in `entries`: pending, but not in flight.
    queued: usize,
    /// When the oldest span of `entries` came, as far as that is known: the last time the queue ceased to be empty or
    /// something was taken.
    since: Instant,
    books: Books,
    logged: [Option<Instant>; DropReason::COUNT],
    closed: bool,
}

/// The queue of one exporter; see the module's text.
pub(super) struct Queue {
    /// Which exporter this is, for log lines.
    name: &'static str,
    limits: Limits,
    state: Mutex<State>,
}

/// What [`Queue::poll`] found.
pub(super) enum Poll {
    Ready(Taken),
    /// Nothing to do before something is pushed or, if given, before that moment.
    Wait(Option<Instant>),
    /// Empty, and nothing will come any more.
    Closed,
}

impl Queue {
    pub(super) fn new(name: &'static str, limits: Limits) -> Self {
        let state = State {
            entries: VecDeque::new(),
            queued: 0,
            since: Instant::now(),
            books: Books::new(&limits),
            logged: [None; DropReason::COUNT],
            closed: false,
        };
        Self { name, limits, state: Mutex::new(state) }
    }

    /// Nothing that holds the lock can panic half-way through a change, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what fits of `batch` and drops the rest. True when the consumer should look: the first spans of an empty
    /// queue have come, or enough for a batch.
    pub(super) fn push(&self, batch: Batch) -> bool {
        let count = batch.len();
        if count == 0 {
            return false;
        }
        let bytes: usize = batch.iter().map(weight).sum();
        let mut guard = self.lock();
        let state = &mut *guard;
        let books = &mut state.books;
        books.accepted += count as u64;
        if state.closed {
            books.drop(DropReason::Shutdown, count as u64);
            return false;
        }
        let room = Room {
            spans: self.limits.spans.saturating_sub(to_usize(books.pending)),
            bytes: self.limits.bytes.saturating_sub(to_usize(books.pending_bytes)),
        };
        if count <= room.spans && bytes <= room.bytes {
            books.pending += count as u64;
            books.pending_bytes += bytes as u64;
            return self.append(state, Entry { range: 0..count, batch });
        }
        let (fits, fits_bytes) = room.fits(&batch);
        let lost = (count - fits) as u64;
        // The room is reserved first and the copy made outside the lock.
        books.pending += fits as u64;
        books.pending_bytes += fits_bytes as u64;
        books.drop(DropReason::QueueFull, lost);
        let log = state.due_to_log(DropReason::QueueFull);
        drop(guard);
        if log {
            self.log(DropReason::QueueFull, lost, "the queue is full");
        }
        if fits == 0 {
            return false;
        }
        // A copy, so that the spans refused do not stay in memory with those taken.
        let copy = batch.get(..fits).unwrap_or(&[]).to_vec();
        let mut state = self.lock();
        if state.closed {
            state.settle(0, &[(DropReason::Shutdown, fits as u64)], fits_bytes);
            return false;
        }
        self.append(&mut state, Entry { range: 0..copy.len(), batch: Arc::new(copy) })
    }

    fn append(&self, state: &mut State, entry: Entry) -> bool {
        let before = state.queued;
        state.queued += entry.range.len();
        state.entries.push_back(entry);
        if before == 0 {
            state.since = Instant::now();
        }
        before == 0 || (before < self.limits.batch_spans && state.queued >= self.limits.batch_spans)
    }

    /// Takes the next batch if one is due at `now`: enough spans have come, the oldest has waited long enough, or the
    /// queue is closed.
    pub(super) fn poll(self: &Arc<Self>, now: Instant) -> Poll {
        let mut state = self.lock();
        if state.queued == 0 {
            return if state.closed { Poll::Closed } else { Poll::Wait(None) };
        }
        let due = state.since + self.limits.delay;
        if state.queued < self.limits.batch_spans && now < due && !state.closed {
            return Poll::Wait(Some(due));
        }
        let mut taken = Taken { queue: Arc::clone(self), entries: Vec::new(), count: 0, bytes: 0, settled: false };
        let mut room = Room { spans: self.limits.batch_spans, bytes: self.limits.batch_bytes };
        while let Some(entry) = state.entries.front_mut() {
            let (mut fits, mut bytes) = room.fits(entry.spans());
            if fits == 0 && taken.count == 0 {
                // Heavier than a batch may be: it goes alone.
                (fits, bytes) = (1, entry.spans().first().map_or(0, weight));
            }
            if fits == 0 {
                break;
            }
            let middle = entry.range.start + fits;
            taken.entries.push(Entry { batch: Arc::clone(&entry.batch), range: entry.range.start..middle });
            taken.count += fits;
            taken.bytes += bytes;
            room = Room { spans: room.spans.saturating_sub(fits), bytes: room.bytes.saturating_sub(bytes) };
            if middle < entry.range.end {
                entry.range.start = middle;
                break;
            }
            state.entries.pop_front();
        }
        state.queued = state.queued.saturating_sub(taken.count);
        state.since = now;
        Poll::Ready(taken)
    }

    /// From now on everything pushed is dropped, and what is queued is due at once.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Drops what is queued; what is in flight is not touched.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        let entries = std::mem::take(&mut state.entries);
        let bytes = entries.iter().flat_map(Entry::spans).map(weight).sum();
        let lost = state.queued as u64;
        state.queued = 0;
        state.settle(0, &[(DropReason::Shutdown, lost)], bytes);
        drop(state);
        if lost > 0 {
            self.log(DropReason::Shutdown, lost, "not sent in time");
        }
    }

    pub(super) fn books(&self) -> Books {
        self.lock().books
    }

    pub(super) fn count_retry(&self) {
        self.lock().books.retries += 1;
    }

    /// `why` must hold nothing of the payload and no header values.
    fn log(&self, reason: DropReason, spans: u64, why: &str) {
        let total = self.books().dropped(reason);
        tracing::warn!(exporter = self.name, reason = reason.as_str(), spans, total, why, "spans dropped");
    }
}

impl State {
    fn settle(&mut self, exported: u64, dropped: &[(DropReason, u64)], bytes: usize) {
        let books = &mut self.books;
        let mut spans = exported;
        for &(reason, count) in dropped {
            books.drop(reason, count);
            spans += count;
        }
        books.exported += exported;
        books.pending = books.pending.saturating_sub(spans);
        books.pending_bytes = books.pending_bytes.saturating_sub(bytes as u64);
    }

    fn due_to_log(&mut self, reason: DropReason) -> bool {
        let now = Instant::now();
        match self.logged.get_mut(reason as usize) {
            Some(last) if last.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL) => {
                *last = Some(now);
                true
            }
            _ => false,
        }
    }
}

/// What may still be taken.
struct Room {
    spans: usize,
    bytes: usize,
}

impl Room {
    /// How many of the first of `spans` fit, and their weight.
    fn fits(&self, spans: &[Span]) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for span in spans.iter().take(self.spans) {
            let next = bytes + weight(span);
            if next > self.bytes {
                break;
            }
            (count, bytes) = (count + 1, next);
        }
        (count, bytes)
    }
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Spans taken from the queue. They count as pending until settled; dropping it unsettled (a worker that is stopped)
/// counts them as lost at shutdown, so that the books balance whatever happens.
pub(super) struct Taken {
    queue: Arc<Queue>,
    entries: Vec<Entry>,
    count: usize,
    bytes: usize,
    settled: bool,
}

impl Taken {
    /// The spans, until [`Self::release`].
    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.entries.iter().flat_map(Entry::spans)
    }

    /// How many spans were taken.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Lets go of the spans themselves, once encoded; they stay pending, with their encoded size as weight.
    pub(super) fn release(&mut self, encoded: usize) {
        self.entries = Vec::new();
        let books = &mut self.queue.lock().books;
        books.pending_bytes = (books.pending_bytes + encoded as u64).saturating_sub(self.bytes as u64);
        self.bytes = encoded;
    }

    /// All were exported, but for `dropped` of them. `why` goes to the log; it holds nothing of the payload.
    pub(super) fn settle(mut self, dropped: Option<(DropReason, u64, &str)>) {
        self.settled = true;
        let all = self.count as u64;
        let Some((reason, lost, why)) = dropped else {
            self.queue.lock().settle(all, &[], self.bytes);
            return;
        };
        let lost = lost.min(all);
        let mut state = self.queue.lock();
        state.settle(all - lost, &[(reason, lost)], self.bytes);
        let log = lost > 0 && state.due_to_log(reason);
        drop(state);
        if log {
            self.queue.log(reason, lost, why);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.settled {
            self.queue.lock().settle(0, &[(DropReason::Shutdown, self.count as u64)], self.bytes);
        }
    }
}

#[cfg(test)]
mod tests;
