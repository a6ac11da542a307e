//! Messages of a broker that gives them no numbers.

use super::*;
use crate::protocol::Brokered;
use crate::protocol::amqp::{self, Kind as Way, Settled};

const BROKER: &str = "10.0.0.1:5672";

impl Bench {
    fn way(&mut self, conn: u64, tgid: u32, at: u64, brokered: Option<Brokered>, context: Option<TraceContext>) {
        let (local, peer) = (CLIENT.parse().unwrap(), BROKER.parse().unwrap());
        let endpoints = Endpoints { local, peer, tls: Tls::No };
        let direction = if brokered.is_some() { Direction::Ingress } else { Direction::Egress };
        let thread = Thread { tgid: Tgid(tgid), tid: Tid(tgid), ..Thread::default() };
        let begun = Begun {
            number: 1,
            direction,
            thread,
            coroutine: Coroutine::default(),
            dialler: Coroutine::default(),
            at: MonoNanos(at),
            head_end: MonoNanos(at),
            position: Seq(conn as u32),
            stream: None,
            pipelined: false,
            collected: false,
            brokered,
            operation: 5,
            target: conn,
            target_text: "orders".into(),
            request_id: None,
            context,
        };
        let id = ExchangeId::new(ConnId(conn), 1);
        let resource = sample::resource(self.service);
        self.traces.begin(id, &begun, Some(endpoints), None, &resource, &mut self.out);
        self.begun.insert(conn, (begun, Some(endpoints)));
    }

    fn publish(&mut self, conn: u64, tgid: u32, at: u64, name: u64) {
        self.way(conn, tgid, at, None, None);
        self.traces.sent(ExchangeId::new(ConnId(conn), 1), name, 1, MonoNanos(at + 1));
        self.settle(conn, at + 2, Way::Publish, Settled::Confirmed);
    }

    fn deliver(&mut self, conn: u64, tgid: u32, at: u64, name: u64, acknowledged: bool) {
        let brokered = Brokered { name: Some(name), queue: None, consumer: 1, redelivered: false, acknowledged };
        self.way(conn, tgid, at, Some(brokered), None);
    }

    fn settle(&mut self, conn: u64, end: u64, kind: Way, settled: Settled) {
        let (begun, endpoints) = self.begun[&conn].clone();
        let mut exchange = amqp::sample(kind);
        exchange.message.settled = settled;
        exchange.course.request_direction = begun.direction;
        exchange.course.request_thread = begun.thread;
        (exchange.course.start, exchange.course.request_end) = (begun.at, begun.at);
        (exchange.course.number, exchange.course.end) = (1, MonoNanos(end));
        let finished = Finished { conn: ConnId(conn), exchange: Box::new(exchange), endpoints, session: None };
        self.traces.moved(finished, &sample::resource(self.service), &mut self.out);
    }

    fn message(&self, conn: u64) -> (&Placed, &Moved) {
        let of = |placed: &&Placed| matches!(&placed.subject, Subject::Moved(moved) if moved.transfer.conn.0 == conn);
        let placed = self.out.iter().find(of).unwrap_or_else(|| panic!("{conn} is not placed"));
        let Subject::Moved(moved) = &placed.subject else { panic!() };
        (placed, moved)
    }
}

#[test]
fn a_delivery_hangs_on_its_publish_and_its_calls_on_it() {
    for acknowledged in [true, false] {
        let mut bench = Bench::new();
        bench.publish(1, 10, MS, 7);
        bench.deliver(2, 20, 5 * MS, 7, acknowledged);
        bench.begin(3, Kind::Client, 20, 6 * MS, 7);
        bench.finish(3, 7 * MS);
        let settled = if acknowledged { Settled::Acknowledged } else { Settled::Automatic };
        bench.settle(2, if acknowledged { 8 * MS } else { 5 * MS }, Way::Deliver, settled);
        bench.poll(3_000 * MS);
        let ((publish, _), (delivery, moved)) = (bench.message(1), bench.message(2));
        let parent = delivery.place.parent.expect("a parent");
        assert_eq!((parent.span_id, parent.link.method, parent.remote), (publish.span_id, Method::Content, true));
        assert_eq!((delivery.place.trace_id, moved.queued), (publish.place.trace_id, Some(4 * MS)));
        let call = bench.placed(3).place.parent.expect("a parent");
        assert_eq!((call.span_id, call.link.method), (delivery.span_id, Method::Only));
        bench.poll(10_000 * MS);
        assert_eq!(bench.traces.stats().open, 0, "nothing is kept");
    }
}

#[test]
fn a_delivery_that_is_seen_before_its_publish_waits_for_it() {
    let mut bench = Bench::new();
    bench.deliver(2, 20, 5 * MS, 7, true);
    bench.poll(6 * MS);
    bench.settle(2, 7 * MS, Way::Deliver, Settled::Acknowledged);
    bench.publish(1, 10, MS, 7);
    bench.poll(100 * MS);
    let ((publish, _), (delivery, _)) = (bench.message(1), bench.message(2));
    assert_eq!(delivery.place.parent.unwrap().span_id, publish.span_id);
}

#[test]
fn of_publishes_alike_no_delivery_has_a_parent() {
    let mut bench = Bench::new();
    bench.publish(1, 10, MS, 7);
    bench.publish(2, 10, 2 * MS, 7);
    bench.publish(3, 10, 3 * MS, 8);
    for (conn, name) in [(4, 7), (5, 7), (6, 8)] {
        bench.deliver(conn, 20, 5 * MS, name, true);
        bench.settle(conn, 6 * MS, Way::Deliver, Settled::Acknowledged);
    }
    bench.poll(100 * MS);
    assert!([4, 5].iter().all(|&conn| bench.message(conn).0.place.parent.is_none()));
    assert_eq!(bench.message(6).0.place.parent.unwrap().span_id, bench.message(3).0.span_id);
}

#[test]
fn what_a_broker_moves_itself_is_no_span() {
    let mut bench = Bench::new();
    bench.publish(1, 10, MS, 7);
    let mut exchange = amqp::sample(Way::Publish);
    exchange.message.side = amqp::Side::Broker;
    let finished = Finished { conn: ConnId(9), exchange: Box::new(exchange), endpoints: None, session: None };
    bench.traces.moved(finished, &sample::resource("broker"), &mut bench.out);
    bench.poll(10_000 * MS);
    assert_eq!(bench.out.len(), 1);
}
