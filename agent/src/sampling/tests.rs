use proptest::prelude::*;

use super::*;

const ORIGIN: Origin<'_> = Origin { service: "shop", target: Some("/cart?item=1") };

fn sampler(name: &str, arg: Option<&str>) -> Result<Sampler, SamplerError> {
    Sampler::from_env(&|variable| match variable {
        SAMPLER => Some(name.to_owned()),
        SAMPLER_ARG => arg.map(str::to_owned),
        _ => None,
    })
}

fn threshold(ratio: &str) -> Option<String> {
    // The largest randomness there is is kept by every ratio but 0.
    sampler("traceidratio", Some(ratio)).unwrap().decide([0xff; 16], None, ORIGIN).threshold.map(encode_threshold)
}

fn parent(sampled: bool) -> Option<ParentDecision> {
    Some(ParentDecision { sampled: Some(sampled), ..ParentDecision::default() })
}

#[test]
fn samplers_by_name() {
    let deferred = Some(ParentDecision::default());
    // What is decided for: no parent, a parent that keeps, one that does not, one that left it open.
    for (name, arg, expected) in [
        ("", None, [true, true, false, true]),
        ("parentbased_always_on", None, [true, true, false, true]),
        ("parentbased_always_off", None, [false, true, false, false]),
        ("always_on", None, [true, true, true, true]),
        (" always_off ", None, [false, false, false, false]),
        ("traceidratio", None, [true, true, true, true]),
        ("traceidratio", Some("0"), [false, false, false, false]),
        ("parentbased_traceidratio", Some("0.0"), [false, true, false, false]),
        ("parentbased_traceidratio", Some("1"), [true, true, false, true]),
        ("always_on", Some("nonsense"), [true, true, true, true]),
    ] {
        let sampler = sampler(name, arg).unwrap();
        let decided =
            [None, parent(true), parent(false), deferred].map(|parent| sampler.decide([7; 16], parent, ORIGIN).sampled);
        assert_eq!(decided, expected, "{name} {arg:?}");
    }
    assert_eq!(Sampler::from_env(&|_| None).unwrap(), Sampler::default());
}

#[test]
fn bad_values_are_named() {
    for name in ["on", "ALWAYS_ON", "parentbased_", "jaeger_remote", "parentbased_parentbased_always_on"] {
        assert_eq!(sampler(name, None), Err(SamplerError::Name(name.to_owned())));
    }
    for ratio in ["2", "-0.1", "NaN", "inf", "10%", "0,5"] {
        let error = sampler("traceidratio", Some(ratio)).unwrap_err();
        assert_eq!(error.to_string(), format!("OTEL_TRACES_SAMPLER_ARG: expected a ratio from 0 to 1, not '{ratio}'"));
    }
}

#[test]
fn thresholds_as_the_specification_rounds_and_writes_them() {
    for (ratio, expected) in [
        ("1", "0"),
        ("0.5", "8"),
        ("0.25", "c"),
        ("0.1", "e666"),
        ("0.01", "fd70a"),
        ("0.001", "ffbe77"),
        ("0.3333333333333333", "aaab"),
        ("0.999", "004189"),
        ("1e-17", "ffffffffffffff"),
    ] {
        assert_eq!(threshold(ratio).as_deref(), Some(expected), "{ratio}");
    }
    assert_eq!(threshold("0"), None);
    assert_eq!(threshold("1e-18"), None, "less than 2^-57 keeps nothing");
}

#[test]
fn a_parents_decision_leaves_its_threshold_alone() {
    assert_eq!(Sampler::default().decide([1; 16], parent(true), ORIGIN), Decision { sampled: true, threshold: None });
    assert_eq!(Sampler::default().decide([1; 16], None, ORIGIN), Decision { sampled: true, threshold: Some(0) });
}

#[test]
fn a_threshold_takes_its_place_in_the_tracestate() {
    let member = |n: usize| format!("v{n}=1");
    let full = (0..32).map(member).collect::<Vec<_>>().join(",");
    let but_the_last = (0..31).map(member).collect::<Vec<_>>().join(",");
    for (state, threshold, expected) in [
        ("", 0, ""),
        ("", RANGE / 2, "ot=th:8"),
        ("a=1, b=2", 0, "a=1,b=2"),
        ("a=1,b=2", RANGE / 2, "ot=th:8,a=1,b=2"),
        ("a=1,ot=th:c;rv:00000000000abc,b=2", RANGE / 2, "ot=th:8;rv:00000000000abc,a=1,b=2"),
        ("a=1,ot=th:c", 0, "ot=th:0,a=1"),
        ("ot=rv:00000000000abc,a=1", 0, "ot=rv:00000000000abc,a=1"),
        (full.as_str(), RANGE / 2, &format!("ot=th:8,{but_the_last}")),
    ] {
        assert_eq!(with_threshold(state, threshold), expected, "{state}");
    }
}

#[test]
fn randomness_of_the_tracestate_wins() {
    assert_eq!(explicit_randomness("vendor=1, ot=th:c;rv:00000000000abc"), Some(0xabc));
    for wrong in ["", "ot=th:c", "ot=rv:abc", "ot=rv:0000000000000G", "ot=rv:+0000000000abc", "at=rv:00000000000abc"] {
        assert_eq!(explicit_randomness(wrong), None, "{wrong}");
    }
    let half = sampler("traceidratio", Some("0.5")).unwrap();
    let kept = |randomness| half.decide([0xff; 16], Some(ParentDecision { sampled: None, randomness }), ORIGIN).sampled;
    assert!(kept(None) && kept(Some(RANGE / 2)) && !kept(Some(RANGE / 2 - 1)));
}

proptest! {
    #[test]
    fn a_ratio_keeps_its_share(ratio in 0.001f64..=1.0, seed: u64) {
        let sampler = sampler("traceidratio", Some(&ratio.to_string())).unwrap();
        let total = 20_000u32;
        let kept = (0..total).filter(|&n| sampler.decide(spread(seed, n), None, ORIGIN).sampled).count();
        let (kept, total) = (f64::from(u32::try_from(kept).unwrap()), f64::from(total));
        // Six standard deviations of a binomial distribution.
        let tolerance = 6.0 * (ratio * (1.0 - ratio) / total).sqrt() + 1e-4;
        prop_assert!((kept / total - ratio).abs() <= tolerance, "{} of {ratio}", kept / total);
    }

    #[test]
    fn a_lower_ratio_keeps_a_part_of_what_a_higher_one_keeps(id: [u8; 16], one in 0.0f64..=1.0, other in 0.0f64..=1.0) {
        let keeps = |ratio: f64| sampler("traceidratio", Some(&ratio.to_string())).unwrap().decide(id, None, ORIGIN).sampled;
        prop_assert!(!keeps(one.min(other)) || keeps(one.max(other)));
        prop_assert_eq!(keeps(one), keeps(one));
    }

    #[test]
    fn only_the_low_seven_octets_decide(id: [u8; 16], high: [u8; 9]) {
        let sampler = sampler("traceidratio", Some("0.37")).unwrap();
        let mut other = id;
        other[..9].copy_from_slice(&high);
        prop_assert_eq!(sampler.decide(id, None, ORIGIN), sampler.decide(other, None, ORIGIN));
    }

    #[test]
    fn thresholds_are_written_without_loss(threshold in 0..RANGE) {
        let text = encode_threshold(threshold);
        prop_assert!(text == "0" || !text.ends_with('0'));
        prop_assert_eq!(u64::from_str_radix(&format!("{text:0<14}"), 16).unwrap(), threshold);
    }

    #[test]
    fn any_text_is_read_without_panic(text: String) {
        let _ = explicit_randomness(&text);
        let _ = sampler("traceidratio", Some(&text));
        let _ = sampler(&text, None);
    }
}

/// Ids that look random, made from a seed (splitmix64).
fn spread(seed: u64, n: u32) -> [u8; 16] {
    let mut z = seed.wrapping_add(u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    u128::from(z).to_be_bytes()
}
