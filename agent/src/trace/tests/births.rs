//! Processes that are started while a request is served.

use super::*;
use crate::source::{Born, Child};

const SERVER_PROCESS: u32 = 20;
const CHILD_PROCESS: u32 = 30;

impl Bench {
    /// A request that its thread answers, so that threads are known to stay with theirs.
    fn settled() -> Self {
        let mut bench = Self::new();
        bench.begin(1, Kind::Server, SERVER_PROCESS, MS, 1);
        bench.finish(1, 2 * MS);
        bench
    }

    fn born(&mut self, at: u64, tid: u32) {
        let (tgid, child) = (Tgid(SERVER_PROCESS), Child::Process(Tgid(CHILD_PROCESS)));
        self.traces.born(&Born { at: MonoNanos(at), tgid, tid: Tid(tid), child });
    }

    fn call(&mut self, conn: u64, at: u64) {
        self.begin_with(conn, Kind::Client, CHILD_PROCESS, at, 1, "10.0.0.1:50000", None);
        self.finish(conn, at + MS);
    }

    fn end(&mut self) {
        self.poll(2_000 * MS);
        self.poll(4_000 * MS);
    }
}

#[test]
fn a_process_started_by_the_thread_that_serves_calls_for_its_request() {
    let mut bench = Bench::settled();
    // The birth is known first, though the request was read before.
    bench.born(101 * MS, SERVER_PROCESS);
    bench.begin(2, Kind::Server, SERVER_PROCESS, 100 * MS, 2);
    bench.call(3, 102 * MS);
    bench.call(4, 104 * MS);
    bench.finish(2, 110 * MS);
    bench.end();
    bench.is_child(3, 2, Method::BornIn);
    bench.is_child(4, 2, Method::BornIn);
    assert_eq!(bench.traces.stats().open, 0, "nothing is kept for ever");
}

#[test]
fn a_process_that_was_started_for_nobody_in_particular_has_no_cause() {
    for (name, at, tid, again) in [
        ("before the request", 99 * MS, SERVER_PROCESS, false),
        ("by another thread", 101 * MS, SERVER_PROCESS + 1, false),
        ("while the thread had two", 101 * MS, SERVER_PROCESS, true),
    ] {
        let mut bench = Bench::settled();
        bench.born(at, tid);
        bench.begin(2, Kind::Server, SERVER_PROCESS, 100 * MS, 2);
        if again {
            bench.begin_with(5, Kind::Server, SERVER_PROCESS, 100 * MS + 1, 2, "10.0.0.9:40001", None);
        }
        bench.call(3, 102 * MS);
        bench.finish(2, 110 * MS);
        bench.end();
        assert_eq!(bench.placed(3).place.parent, None, "{name}");
    }
}

#[test]
fn what_a_child_calls_after_the_answer_has_no_cause() {
    let mut bench = Bench::settled();
    bench.born(101 * MS, SERVER_PROCESS);
    bench.begin(2, Kind::Server, SERVER_PROCESS, 100 * MS, 2);
    bench.finish(2, 102 * MS);
    bench.call(3, 103 * MS);
    bench.end();
    assert_eq!(bench.placed(3).place.parent, None);
}
