use super::*;
use crate::export::fixture;
use crate::signal::span::Kind;

const LIMITS: Limits =
    Limits { spans: 10, bytes: 1 << 20, batch_spans: 4, batch_bytes: 1 << 20, delay: Duration::from_secs(1) };

fn queue(limits: Limits) -> Arc<Queue> {
    Arc::new(Queue::new("test", limits))
}

fn balanced(queue: &Queue) -> Books {
    let books = queue.books();
    assert_eq!(books.accepted, books.exported + books.dropped_total() + books.pending);
    books
}

fn take(queue: &Arc<Queue>, now: Instant) -> Taken {
    match queue.poll(now) {
        Poll::Ready(taken) => taken,
        Poll::Wait(due) => panic!("nothing due before {due:?}"),
        Poll::Closed => panic!("closed"),
    }
}

fn ids(taken: &Taken) -> Vec<u64> {
    taken.spans().map(|span| u64::from_be_bytes(span.span_id.0) & !(1 << 63)).collect()
}

#[test]
fn batches_come_when_full_or_after_the_delay_in_order() {
    let queue = queue(LIMITS);
    assert!(matches!(queue.poll(Instant::now()), Poll::Wait(None)));
    assert!(queue.push(fixture::batch(0, 1)), "the first span starts the delay");
    assert!(!queue.push(fixture::batch(1, 2)));
    let now = Instant::now();
    assert!(matches!(queue.poll(now), Poll::Wait(Some(due)) if due <= now + LIMITS.delay));
    assert!(queue.push(fixture::batch(3, 6)), "a batch is full");
    let (first, second) = (take(&queue, now), take(&queue, now));
    assert_eq!((ids(&first), ids(&second)), (vec![0, 1, 2, 3], vec![4, 5, 6, 7]));
    assert!(matches!(queue.poll(now), Poll::Wait(Some(_))));
    let last = take(&queue, now + LIMITS.delay);
    assert_eq!(ids(&last), [8]);
    assert_eq!(balanced(&queue).pending, 9);
    first.settle(None);
    second.settle(Some((DropReason::Rejected, 3, "test")));
    last.settle(Some((DropReason::GaveUp, 99, "more than there are")));
    let books = balanced(&queue);
    assert_eq!((books.exported, books.dropped(DropReason::Rejected), books.dropped(DropReason::GaveUp)), (5, 3, 1));
    assert_eq!((books.pending, books.pending_bytes), (0, 0));
}

#[test]
fn what_does_not_fit_is_dropped_and_not_kept_in_memory() {
    let queue = queue(LIMITS);
    let batch = fixture::batch(0, 100);
    queue.push(Arc::clone(&batch));
    assert_eq!(Arc::strong_count(&batch), 1);
    let books = balanced(&queue);
    assert_eq!((books.pending, books.dropped(DropReason::QueueFull)), (10, 90));
    assert!(!queue.push(fixture::batch(200, 5)));
    let taken = take(&queue, Instant::now());
    assert_eq!(ids(&taken), [0, 1, 2, 3]);
    queue.push(fixture::batch(300, 5));
    assert_eq!(balanced(&queue).pending, 10, "in flight counts");
    taken.settle(None);
    queue.push(fixture::batch(400, 5));
    let books = balanced(&queue);
    assert_eq!((books.accepted, books.pending, books.dropped(DropReason::QueueFull)), (115, 10, 101));
}

#[test]
fn octets_are_bounded_too() {
    let heavy = |id| {
        let mut http = fixture::message();
        http.target = format!("/{}", "x".repeat(60_000)).into();
        fixture::span(id, Kind::Server, &fixture::resource(1, "a"), http)
    };
    let limits = Limits { spans: 1000, bytes: 200_000, batch_spans: 1000, batch_bytes: 50_000, ..LIMITS };
    let queue = queue(limits);
    queue.push(Arc::new((0..10).map(heavy).collect()));
    let books = balanced(&queue);
    assert_eq!((books.pending, books.dropped(DropReason::QueueFull)), (3, 7));
    assert!(books.pending_bytes <= 200_000);
    let mut taken = take(&queue, Instant::now() + limits.delay);
    assert_eq!(taken.count(), 1, "heavier than a batch goes alone");
    taken.release(10);
    assert!(balanced(&queue).pending_bytes < 130_000);
    taken.settle(None);
    queue.close();
    assert_eq!(take(&queue, Instant::now()).count(), 1);
}

#[test]
fn after_closing_everything_has_a_place_in_the_books() {
    let queue = queue(LIMITS);
    queue.push(fixture::batch(0, 7));
    let taken = take(&queue, Instant::now());
    queue.close();
    assert!(!queue.push(fixture::batch(10, 2)));
    queue.abandon();
    assert!(matches!(queue.poll(Instant::now()), Poll::Closed));
    assert_eq!(balanced(&queue).pending, 4);
    drop(taken);
    let books = balanced(&queue);
    assert_eq!((books.dropped(DropReason::Shutdown), books.pending, books.pending_bytes), (9, 0, 0));
}

#[test]
fn the_books_balance_whoever_pushes_and_takes() {
    let queue = queue(Limits { spans: 500, delay: Duration::ZERO, ..LIMITS });
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let queue = Arc::clone(&queue);
            scope.spawn(move || (0..400).for_each(|id| _ = queue.push(fixture::batch(id, id % 7))));
        }
        for taker in 0..2 {
            let queue = Arc::clone(&queue);
            scope.spawn(move || {
                for turn in 0..200 {
                    match queue.poll(Instant::now()) {
                        Poll::Ready(taken) if turn % 3 == taker => drop(taken),
                        Poll::Ready(taken) => taken.settle((turn % 2 == 0).then_some((DropReason::Rejected, 1, ""))),
                        _ => std::thread::yield_now(),
                    }
                    balanced(&queue);
                }
            });
        }
    });
    queue.close();
    while let Poll::Ready(taken) = queue.poll(Instant::now()) {
        taken.settle(None);
    }
    let books = balanced(&queue);
    assert_eq!(books.accepted, 2 * (0..400_u64).map(|id| id % 7).sum::<u64>());
    assert_eq!((books.pending, books.pending_bytes), (0, 0));
}

#[test]
fn reasons_are_in_their_places() {
    for (at, reason) in DropReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, at);
    }
}
