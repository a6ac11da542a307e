//! Vectors split, robbed of octets and changed at random.

use proptest::prelude::*;
use proptest::sample::Index;

use super::vectors::{Script, names, topics, vector};
use super::*;

fn script(index: Index) -> Script {
    let names = names();
    vector(&names[index.index(names.len())])
}

fn bench(fresh: bool) -> Bench {
    Bench::with(fresh, config(), topics())
}

fn whole(script: &Script) -> Bench {
    let mut whole = bench(true);
    script.iter().for_each(|(direction, octets)| _ = whole.feed(*direction, octets));
    whole.close();
    whole
}

/// `None`, or the same.
fn at_most<T: PartialEq + std::fmt::Debug>(part: &Option<T>, whole: &Option<T>) -> bool {
    part.is_none() || part == whole
}

fn records_at_most(part: &Records, whole: &Records) -> bool {
    part.size == whole.size
        && at_most(&part.left_out, &whole.left_out)
        && at_most(&part.count, &whole.count)
        && at_most(&part.first_offset, &whole.first_offset)
        && at_most(&part.last_offset, &whole.last_offset)
        && at_most(&part.compression, &whole.compression)
        && at_most(&part.producer, &whole.producer)
        && at_most(&part.transactional, &whole.transactional)
        && at_most(&part.max_timestamp, &whole.max_timestamp)
        && at_most(&part.first_key, &whole.first_key)
        && part.batches <= whole.batches
        && part.read <= whole.read
        && part.contexts.iter().all(|context| whole.contexts.contains(context))
}

/// What is told is right: nothing in it that the whole does not say.
fn call_at_most(part: &Call, whole: &Call) -> bool {
    let (facts, all) = (&part.facts, &whole.facts);
    let partition = |part: &Partition| {
        all.partitions.iter().any(|whole| {
            part.index == whole.index
                && part.topic == whole.topic
                && at_most(&part.error, &whole.error)
                && at_most(&part.offset, &whole.offset)
                && at_most(&part.high_watermark, &whole.high_watermark)
                && at_most(&part.last_stable_offset, &whole.last_stable_offset)
                && at_most(&part.log_start_offset, &whole.log_start_offset)
                && part
                    .records
                    .as_ref()
                    .zip(whole.records.as_ref())
                    .is_none_or(|(part, whole)| records_at_most(part, whole))
        })
    };
    // What was asked for is not what would have come.
    let unanswered = part.api == ApiKey::FETCH && part.response_body == Body::Absent;
    let renewed = part.response_body == Body::Absent;
    part.version == whole.version
        && at_most(&part.client_id, &whole.client_id)
        && part.request_size <= whole.request_size
        && at_most(&facts.error, &all.error)
        && at_most(&facts.throttle, &all.throttle)
        && at_most(&facts.acks, &all.acks)
        && at_most(&facts.transactional_id, &all.transactional_id)
        && at_most(&facts.group, &all.group)
        && at_most(&facts.instance, &all.instance)
        && at_most(&facts.mechanism, &all.mechanism)
        && at_most(&facts.cluster_id, &all.cluster_id)
        && (renewed || at_most(&facts.generation, &all.generation))
        && (renewed || at_most(&facts.member, &all.member))
        && (renewed || at_most(&facts.producer_id, &all.producer_id))
        && (renewed || at_most(&facts.producer_epoch, &all.producer_epoch))
        && (unanswered || facts.partitions.iter().all(partition))
}

fn is_part_of(part: &Bench, whole: &Bench) -> Result<(), TestCaseError> {
    for exchange in &part.out {
        let part = &exchange.message;
        let of =
            |whole: &&Exchange| (whole.message.api, whole.message.correlation_id) == (part.api, part.correlation_id);
        let candidates: Vec<_> = whole.out.iter().filter(of).collect();
        prop_assert!(candidates.iter().any(|whole| call_at_most(part, &whole.message)), "{part:#?}\n{candidates:#?}");
    }
    Ok(())
}

/// What happens to a message.
#[derive(Clone, Debug)]
enum Fate {
    Whole,
    /// Octets from here on are missing, so many of them at most.
    Missing(Index, Index),
    Gap,
    Lost,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let missing = any::<(Index, Index)>().prop_map(|(from, to)| Fate::Missing(from, to));
    let fate = prop_oneof![6 => Just(Fate::Whole), 3 => missing, 1 => Just(Fate::Gap), 1 => Just(Fate::Lost)];
    prop::collection::vec(fate, 40)
}

proptest! {
    #[test]
    fn any_split_gives_the_same(index: Index, cuts in prop::collection::vec(any::<(Index, Index)>(), 0..60)) {
        let script = script(index);
        let whole = whole(&script);
        let mut split = bench(true);
        for (number, (direction, octets)) in script.iter().enumerate() {
            let here = cuts.iter().filter(|(message, _)| message.index(script.len()) == number);
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
        let whole = whole(&script);
        let mut part = bench(fresh);
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
                Fate::Lost => part.gap(*direction, None),
            };
        }
        part.close();
        is_part_of(&part, &whole)?;
    }

    /// From any octet on, and cut into calls there.
    #[test]
    fn a_late_observer_tells_nothing_wrong(index: Index, from: Index, place: Index) {
        let script = script(index);
        let whole = whole(&script);
        let from = from.index(script.len());
        let mut part = bench(false);
        let (direction, octets) = &script[from];
        part.feed(*direction, &octets[place.index(octets.len())..]);
        script[from + 1..].iter().for_each(|(direction, octets)| _ = part.feed(*direction, octets));
        part.close();
        is_part_of(&part, &whole)?;
    }

    #[test]
    fn changed_octets_do_not_panic(index: Index, changes in prop::collection::vec(any::<(Index, Index, u8)>(), 1..20)) {
        let mut script = script(index);
        for (message, place, value) in changes {
            let message = message.index(script.len());
            let octets = &mut script[message].1;
            let place = place.index(octets.len());
            octets[place] = value;
        }
        whole(&script);
    }

    #[test]
    fn nothing_panics(fresh: bool, chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..80), 0_u64..40), 0..40)) {
        let mut bench = bench(fresh);
        for (number, (direction, octets, missing)) in chunks.iter().enumerate() {
            bench.at(if *direction { Q } else { R }, number as u64 * MS, octets, *missing);
        }
        bench.close();
    }
}
