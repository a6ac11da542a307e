//! Conversations made at random by a client and a broker that know what becomes of each message.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::vectors::Script;
use super::wire::*;
use super::*;

/// What a message is known by: the way it goes, and where it begins.
type Place = (Direction, u32);

#[derive(Default)]
struct Channel {
    confirms: bool,
    published: u64,
    /// Those that are not confirmed yet; the body of one that no queue takes.
    waiting: BTreeMap<u64, (Place, Option<u8>)>,
    delivered: u64,
    open: BTreeMap<u64, Place>,
}

struct Model {
    script: Script,
    positions: [u32; 2],
    channels: [Channel; 2],
    truth: HashMap<Place, (Settled, Option<String>)>,
    openings: u32,
}

impl Model {
    fn new() -> Self {
        let (script, positions) = (Vec::new(), [100, 200]);
        let mut model = Self { script, positions, channels: Default::default(), truth: HashMap::new(), openings: 0 };
        handshake().into_iter().for_each(|(direction, octets)| model.say(direction, octets));
        model.open(1, 1);
        model.open(2, 3);
        model
    }

    fn say(&mut self, direction: Direction, octets: Vec<u8>) {
        self.positions[direction as usize] += octets.len() as u32;
        self.script.push((direction, octets));
    }

    fn channel(&mut self, id: u16) -> &mut Channel {
        &mut self.channels[usize::from(id) - 1]
    }

    fn open(&mut self, id: u16, choice: u8) {
        self.openings += 1;
        *self.channel(id) = Channel { confirms: choice & 1 == 1, ..Channel::default() };
        self.say(Q, open(id));
        self.say(R, open_ok(id));
        if choice & 1 == 1 {
            self.say(Q, select(id));
            self.say(R, select_ok(id));
        }
        for (consumer, bits) in [("c", 0), ("d", 2)] {
            self.say(Q, consume(id, &format!("{consumer}-{}", self.openings), consumer, bits));
            self.say(R, consume_ok(id, consumer));
        }
    }

    fn publish(&mut self, id: u16, gone: Option<u8>) {
        let place = (Q, self.positions[Q as usize]);
        let channel = self.channel(id);
        let settled = if channel.confirms { Settled::ConnectionClosed } else { Settled::Unconfirmed };
        if channel.confirms {
            channel.published += 1;
            channel.waiting.insert(channel.published, (place, gone));
        }
        self.truth.insert(place, (settled, None));
        let octets = gone.map_or_else(|| publish(id, "x", "k", 1), |body| mandatory(id, "gone", &[body]));
        self.say(Q, octets);
    }

    fn confirm(&mut self, id: u16, which: u8, multiple: bool, nacked: bool) {
        let channel = self.channel(id);
        let Some(&tag) = channel.waiting.keys().nth(usize::from(which) % channel.waiting.len().max(1)) else { return };
        let from = if multiple { 0 } else { tag };
        let covered: Vec<u64> = channel.waiting.range(from..=tag).map(|(&tag, _)| tag).collect();
        for tag in covered {
            let Some((place, gone)) = self.channel(id).waiting.remove(&tag) else { continue };
            let settled = match gone {
                _ if nacked => Settled::Nacked { requeue: false },
                Some(body) => {
                    self.say(R, returned(id, "gone", &[body]));
                    Settled::Returned { code: 312, text: "NO_ROUTE".into() }
                }
                None => Settled::Confirmed,
            };
            self.truth.insert(place, (settled, None));
        }
        self.say(R, if nacked { nack(id, tag, multiple.into()) } else { ack(id, tag, multiple) });
    }

    fn deliver(&mut self, id: u16, consumer: &str) {
        let place = (R, self.positions[R as usize]);
        // The channel's consumers are as old as itself.
        let queue = self.queue(id, consumer);
        let channel = self.channel(id);
        channel.delivered += 1;
        let tag = channel.delivered;
        let settled = if consumer == "d" {
            Settled::Automatic
        } else {
            channel.open.insert(tag, place);
            Settled::Open
        };
        self.truth.insert(place, (settled, queue));
        self.say(R, deliver(id, consumer, tag, "k", 1));
    }

    fn queue(&self, id: u16, consumer: &str) -> Option<String> {
        self.script.iter().rev().find_map(|(_, octets)| {
            (1..=self.openings)
                .map(|opening| format!("{consumer}-{opening}"))
                .find(|queue| [0, 2].iter().any(|bits| *octets == consume(id, queue, consumer, *bits)))
        })
    }

    fn settle(&mut self, id: u16, which: u8, how: u8) {
        let channel = self.channel(id);
        let Some(&tag) = channel.open.keys().nth(usize::from(which) % channel.open.len().max(1)) else { return };
        let (multiple, settled, octets) = match how {
            0 => (false, Settled::Acknowledged, ack(id, tag, false)),
            1 => (true, Settled::Acknowledged, ack(id, tag, true)),
            2 => (true, Settled::Nacked { requeue: true }, nack(id, tag, 3)),
            _ => (false, Settled::Rejected { requeue: false }, reject(id, tag, false)),
        };
        let from = if multiple { 0 } else { tag };
        let places: Vec<Place> = channel.open.range(from..=tag).map(|(_, &place)| place).collect();
        channel.open.retain(|other, _| *other > tag || (!multiple && *other != tag));
        places.iter().for_each(|place| self.truth.get_mut(place).unwrap().0 = settled.clone());
        self.say(Q, octets);
    }

    /// Everything is over on a channel: it is closed by one side.
    fn close(&mut self, id: u16, by: Direction, choice: u8) {
        let lost: Vec<Place> = self.channel(id).waiting.values().map(|&(place, _)| place).collect();
        lost.iter().for_each(|place| self.truth.get_mut(place).unwrap().0 = Settled::ChannelClosed);
        self.say(by, close(id, 406, "PRECONDITION_FAILED"));
        self.say(by.opposite(), close_ok(id));
        self.open(id, choice);
    }

    fn step(&mut self, (what, which): (u8, u8)) {
        let id = 1 + u16::from(which >> 7);
        match what % 16 {
            0 | 1 => self.publish(id, None),
            2 => self.publish(id, Some(b'a' + which % 8)),
            3 | 4 => self.confirm(id, which, false, false),
            5 => self.confirm(id, which, true, false),
            6 => self.confirm(id, which, false, true),
            7 | 8 => self.deliver(id, "c"),
            9 => self.deliver(id, "d"),
            10 | 11 => self.settle(id, which, 0),
            12 => self.settle(id, which, 1),
            13 => self.settle(id, which, 2),
            14 => self.settle(id, which, 3),
            _ if which % 4 == 0 => self.close(id, if which & 8 == 0 { Q } else { R }, which >> 4),
            _ => self.say(Q, frame(8, 0, b"")),
        }
    }

    fn end(&mut self) {
        self.say(Q, close(0, 200, "bye"));
        self.say(R, close_ok(0));
    }
}

proptest! {
    /// What is told is what happened; only which of two that are alike came back may be unknown, and with losses anything.
    #[test]
    fn what_is_told_is_what_happened(
        steps in prop::collection::vec(any::<(u8, u8)>(), 0..120),
        losses in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        known: bool,
    ) {
        let mut model = Model::new();
        steps.into_iter().for_each(|step| model.step(step));
        model.end();
        let mut whole = Bench::new(true);
        model.script.iter().for_each(|(direction, octets)| _ = whole.feed(*direction, octets));
        prop_assert_eq!(whole.out.len(), model.truth.len());
        prop_assert_eq!(whole.losses(), []);
        let mut part = Bench::new(true);
        for (number, (direction, octets)) in model.script.iter().enumerate() {
            match losses.iter().any(|lost| lost.index(model.script.len()) == number) {
                false => part.feed(*direction, octets),
                true if known => part.gap(*direction, Some(octets.len() as u64)),
                true => part.lose(*direction, octets.len() as u64),
            };
        }
        part.close();
        for (exchange, all) in whole.out.iter().map(|one| (one, true)).chain(part.out.iter().map(|one| (one, false))) {
            let message = &exchange.message;
            let found = model.truth.get(&(exchange.request_direction, exchange.position.0));
            prop_assert!(found.is_some(), "{:#?}", exchange);
            let (settled, queue) = found.unwrap();
            let unknown = message.settled == Settled::Unknown && (!all || message.mandatory);
            prop_assert!(unknown || message.settled == *settled, "{:?} is told of {:#?}", settled, exchange);
            prop_assert!(message.queue.as_deref() == queue.as_deref() || (!all && message.queue.is_none()));
        }
    }
}
