//! Captures split, robbed of octets and changed at random.

use proptest::prelude::*;
use proptest::sample::Index;

use super::vectors::{Script, names, run, vector};
use super::wire::everything;
use super::*;

/// A capture, or what was made by hand.
fn script(index: Index) -> Script {
    let names = names();
    let index = index.index(names.len() * 2);
    names.get(index).map_or_else(everything, |name| vector(name))
}

fn scripts() -> impl Iterator<Item = (String, Script)> {
    let captures = names().into_iter().map(|name| {
        let script = vector(&name);
        (name, script)
    });
    captures.chain([("everything".into(), everything())])
}

/// `None`, or the same.
fn at_most<T: PartialEq + std::fmt::Debug>(part: &Option<T>, whole: &Option<T>) -> bool {
    part.is_none() || part == whole
}

/// What is told is right: nothing in it that the whole does not say.
fn transfer_at_most(part: &Exchange, whole: &Exchange) -> bool {
    let failure = at_most(&part.failure, &whole.failure);
    let (part, whole) = (&part.message, &whole.message);
    let (some, all) = (&part.properties, &whole.properties);
    (part.kind, part.side, part.channel, part.mandatory) == (whole.kind, whole.side, whole.channel, whole.mandatory)
        && failure
        && (part.settled == Settled::Unknown || part.settled == whole.settled)
        && part.envelope_size <= whole.envelope_size
        && at_most(&part.exchange, &whole.exchange)
        && at_most(&part.routing_key, &whole.routing_key)
        && at_most(&part.queue, &whole.queue)
        && at_most(&part.consumer_tag, &whole.consumer_tag)
        && at_most(&part.delivery_tag, &whole.delivery_tag)
        && at_most(&part.redelivered, &whole.redelivered)
        && at_most(&part.context, &whole.context)
        && at_most(&part.body_size, &whole.body_size)
        && at_most(&part.content, &whole.content)
        && at_most(&part.virtual_host, &whole.virtual_host)
        && at_most(&part.cluster, &whole.cluster)
        && at_most(&part.error, &whole.error)
        && at_most(&some.message_id, &all.message_id)
        && at_most(&some.correlation_id, &all.correlation_id)
        && at_most(&some.reply_to, &all.reply_to)
        && at_most(&some.content_type, &all.content_type)
        && at_most(&some.message_type, &all.message_type)
        && at_most(&some.app_id, &all.app_id)
        && at_most(&some.persistent, &all.persistent)
}

/// Positions are the same in both.
pub(super) fn is_part_of(part: &Bench, whole: &Bench) -> Result<(), TestCaseError> {
    for exchange in &part.out {
        let of = |whole: &&Exchange| {
            (whole.request_direction, whole.position) == (exchange.request_direction, exchange.position)
        };
        let found = whole.out.iter().find(of);
        prop_assert!(found.is_some_and(|whole| transfer_at_most(exchange, whole)), "{exchange:#?}\n{found:#?}");
    }
    Ok(())
}

/// What happens to a call.
#[derive(Clone, Debug)]
enum Fate {
    Whole,
    /// Octets from here on are missing, so many of them at most.
    Missing(Index, Index),
    Gap,
    /// Nobody knows how many.
    Lost,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let missing = any::<(Index, Index)>().prop_map(|(from, to)| Fate::Missing(from, to));
    let fate = prop_oneof![12 => Just(Fate::Whole), 3 => missing, 1 => Just(Fate::Gap), 1 => Just(Fate::Lost)];
    prop::collection::vec(fate, 60)
}

proptest! {
    #[test]
    fn any_split_gives_the_same(index: Index, cuts in prop::collection::vec(any::<(Index, Index)>(), 0..60)) {
        let script = script(index);
        let whole = run(&script);
        let mut split = Bench::new(true);
        for (number, (direction, octets)) in script.iter().enumerate() {
            let here = cuts.iter().filter(|(call, _)| call.index(script.len()) == number);
            let mut places: Vec<usize> = here.map(|(_, place)| place.index(octets.len())).collect();
            places.push(octets.len());
            places.sort_unstable();
            let mut from = 0;
            for to in places {
                split.at(*direction, (number as u64 + 1) * MS, &octets[from..to], 0);
                from = to;
            }
        }
        split.close();
        prop_assert_eq!(format!("{:?}", whole.out), format!("{:?}", split.out));
        prop_assert_eq!(whole.stats, split.stats);
    }

    #[test]
    fn losses_make_nothing_wrong(fresh: bool, index: Index, fates in fates()) {
        let script = script(index);
        let whole = run(&script);
        let mut part = Bench::new(fresh);
        for ((direction, octets), fate) in script.iter().zip(fates.iter().cycle()) {
            match fate {
                Fate::Whole => part.feed(*direction, octets),
                Fate::Missing(from, to) => {
                    let from = from.index(octets.len());
                    let to = from + to.index(octets.len() - from) + 1;
                    part.at(*direction, part.at + MS, &octets[..from], (to - from) as u64);
                    part.at(*direction, part.at, &octets[to..], 0)
                }
                Fate::Gap => part.gap(*direction, Some(octets.len() as u64)),
                Fate::Lost => part.lose(*direction, octets.len() as u64),
            };
        }
        part.close();
        is_part_of(&part, &whole)?;
    }

    /// From any octet on, and cut into calls there.
    #[test]
    fn a_late_observer_tells_nothing_wrong(index: Index, from: Index, place: Index) {
        let script = script(index);
        let whole = run(&script);
        let from = from.index(script.len());
        let mut part = Bench::new(false);
        script[..from].iter().for_each(|(direction, octets)| _ = part.advance(*direction, octets.len() as u64));
        let (direction, octets) = &script[from];
        let place = place.index(octets.len());
        part.advance(*direction, place as u64);
        part.feed(*direction, &octets[place..]);
        script[from + 1..].iter().for_each(|(direction, octets)| _ = part.feed(*direction, octets));
        part.close();
        is_part_of(&part, &whole)?;
    }

    #[test]
    fn changed_octets_do_not_panic(index: Index, changes in prop::collection::vec(any::<(Index, Index, u8)>(), 1..20)) {
        let mut script = script(index);
        for (call, place, value) in changes {
            let call = call.index(script.len());
            let octets = &mut script[call].1;
            let place = place.index(octets.len());
            octets[place] = value;
        }
        run(&script);
    }

    #[test]
    fn nothing_panics(fresh: bool, chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..80), 0_u64..40), 0..40)) {
        let mut bench = Bench::new(fresh);
        for (number, (direction, octets, missing)) in chunks.iter().enumerate() {
            bench.at(if *direction { Q } else { R }, number as u64 * MS, octets, *missing);
        }
        bench.close();
    }
}

/// One call lost, at every place of every capture: what is told then is what the whole tells, or less.
#[test]
fn a_loss_anywhere_makes_nothing_wrong() {
    for (name, script) in scripts() {
        let whole = run(&script);
        for lost in 0..script.len() {
            for known in [true, false] {
                let mut part = Bench::new(true);
                for (number, (direction, octets)) in script.iter().enumerate() {
                    match known {
                        _ if number != lost => part.feed(*direction, octets),
                        true => part.gap(*direction, Some(octets.len() as u64)),
                        false => part.lose(*direction, octets.len() as u64),
                    };
                }
                part.close();
                is_part_of(&part, &whole).unwrap_or_else(|error| panic!("{name} without {lost}: {error}"));
                // Only the one that was lost is not told at all, and what cannot be told from it.
                assert!(part.out.len() + 2 >= whole.out.len(), "{name} without {lost}: {} messages", part.out.len());
            }
        }
    }
}

/// A call of each side lost, at any two places of what was made by hand.
#[test]
fn two_losses_make_nothing_wrong() {
    let script = everything();
    let whole = run(&script);
    for first in 0..script.len() {
        for second in first + 1..script.len() {
            let mut part = Bench::new(true);
            for (number, (direction, octets)) in script.iter().enumerate() {
                match number == first || number == second {
                    true => part.lose(*direction, octets.len() as u64),
                    false => part.feed(*direction, octets),
                };
            }
            part.close();
            is_part_of(&part, &whole).unwrap_or_else(|error| panic!("without {first} and {second}: {error}"));
        }
    }
}

/// Whoever comes late tells all messages that begin from then on.
#[test]
fn captures_are_told_from_any_call_on() {
    for (name, script) in scripts() {
        let whole = run(&script);
        for from in 1..script.len() {
            let mut late = Bench::new(false);
            script[..from].iter().for_each(|(direction, octets)| _ = late.advance(*direction, octets.len() as u64));
            let begins = late.positions;
            script[from..].iter().for_each(|(direction, octets)| _ = late.feed(*direction, octets));
            late.close();
            is_part_of(&late, &whole).unwrap_or_else(|error| panic!("{name} from {from}: {error}"));
            let behind = |one: &&Exchange| one.position.ahead_of(begins[one.request_direction as usize]) >= 0;
            assert_eq!(late.out.len(), whole.out.iter().filter(behind).count(), "{name} from {from}");
        }
    }
}
