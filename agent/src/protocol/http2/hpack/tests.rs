use proptest::prelude::*;

use super::*;
use crate::protocol::http2::tests::wire::number;

type Pair = (Option<String>, Option<String>);
/// A block in hexadecimal, what it says, and the table's size after it.
type Example<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);
/// The size of the table that was allowed before a block, the block, and what it says.
type Case = (Option<u32>, Vec<u8>, Vec<Pair>);

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Pair>, Invalid> {
    let mut fields = Vec::new();
    decoder.decode(block, |field| fields.push((field.name.map(text), field.value.map(text))))?;
    Ok(fields)
}

fn known(fields: &[(&str, &str)]) -> Vec<Pair> {
    fields.iter().map(|(name, value)| (Some((*name).to_owned()), Some((*value).to_owned()))).collect()
}

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |octet: u8| char::from(octet).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Blocks on one table.
fn check(table: Option<u32>, blocks: &[Example<'_>]) {
    let mut decoder = Decoder::new(true);
    if let Some(size) = table {
        decoder.table.resize(size as usize);
    }
    for (block, fields, size) in blocks {
        assert_eq!(decode(&mut decoder, &hex(block)), Ok(known(fields)), "{block}");
        assert_eq!(decoder.table.size(), *size, "{block}");
    }
}

/// RFC 7541, appendix C.2.
#[test]
fn field_representations() {
    check(
        None,
        &[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", &[("custom-key", "custom-header")], 55)],
    );
    check(None, &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], 0)]);
    check(None, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], 0)]);
    check(None, &[("82", &[(":method", "GET")], 0)]);
}

const FIRST: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
const SECOND: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const THIRD: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

/// RFC 7541, appendices C.3 and C.4.
#[test]
fn requests_on_one_connection() {
    let plain = [
        ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", FIRST, 57),
        ("8286 84be 5808 6e6f 2d63 6163 6865", SECOND, 110),
        ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", THIRD, 164),
    ];
    let coded = [
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", FIRST, 57),
        ("8286 84be 5886 a8eb 1064 9cbf", SECOND, 110),
        ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", THIRD, 164),
    ];
    check(None, &plain);
    check(None, &coded);
}

/// RFC 7541, appendices C.5 and C.6: a table of 256 octets, so that entries are evicted.
#[test]
fn responses_on_one_connection() {
    let (date, later) = ("Mon, 21 Oct 2013 20:13:21 GMT", "Mon, 21 Oct 2013 20:13:22 GMT");
    let head = |status, date| {
        [(":status", status), ("cache-control", "private"), ("date", date), ("location", "https://www.example.com")]
    };
    let (first, second) = (head("302", date), head("307", date));
    let third = [
        (":status", "200"),
        ("cache-control", "private"),
        ("date", later),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ];
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e
         1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d
         4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572
         7369 6f6e 3d31",
    ];
    let coded = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b
         97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf
         cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for [a, b, c] in [plain, coded] {
        check(Some(256), &[(a, &first, 222), (b, &second, 222), (c, &third, 215)]);
    }
}

/// Stories of other encoders; see testdata/README.md.
fn stories() -> Vec<Vec<Case>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/protocol/http2/testdata");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let stories: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|extension| extension == "json"))
        .map(|file| {
            let story: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            let cases = story["cases"].as_array().unwrap().iter().map(|case| {
                let table = case["header_table_size"].as_u64().map(|size| size as u32);
                let pair = |field: &serde_json::Value| {
                    let (name, value) = field.as_object().unwrap().iter().next().unwrap();
                    (Some(name.clone()), Some(value.as_str().unwrap().to_owned()))
                };
                let fields = case["headers"].as_array().unwrap().iter().map(pair).collect();
                (table, hex(case["wire"].as_str().unwrap()), fields)
            });
            cases.collect()
        })
        .collect();
    assert!(!stories.is_empty());
    stories
}

#[test]
fn what_other_encoders_write() {
    for story in stories() {
        let mut decoder = Decoder::new(true);
        for (table, block, fields) in story {
            if let Some(size) = table {
                decoder.allow(size);
            }
            assert_eq!(decode(&mut decoder, &block), Ok(fields));
        }
    }
}

/// Whoever comes later knows less, never something else, and in time nearly as much.
#[test]
fn what_a_late_observer_knows_is_right() {
    for story in stories() {
        for join in 1..story.len() {
            let mut decoder = Decoder::new(false);
            let (mut unknown, mut all) = (0, 0);
            for (_, block, fields) in story.iter().skip(join) {
                let seen = decode(&mut decoder, block).unwrap();
                assert_eq!(seen.len(), fields.len());
                for (seen, field) in seen.iter().zip(fields) {
                    assert!(seen.0.is_none() || seen.0 == field.0, "{seen:?} is not {field:?}");
                    assert!(seen.1.is_none() || seen.1 == field.1, "{seen:?} is not {field:?}");
                    unknown += usize::from(seen.0.is_none() || seen.1.is_none());
                    all += 1;
                }
            }
            assert!(unknown < all, "{unknown} of {all}");
        }
    }
}

/// Two observers that miss blocks at random tell one another what they know: that is more, and right.
#[test]
fn what_is_learnt_is_right() {
    for story in stories() {
        let mut unknown = [0; 2];
        for seed in 0..100_u32 {
            for (learns, unknown) in [false, true].into_iter().zip(&mut unknown) {
                let mut noise = seed;
                let mut one_of = |sides: u32| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (noise >> 16) % sides == 0
                };
                let mut both = [Decoder::new(true), Decoder::new(!seed.is_multiple_of(3))];
                for (table, block, fields) in &story {
                    for decoder in &mut both {
                        table.iter().for_each(|size| decoder.allow(*size));
                        if one_of(8) {
                            decoder.lose();
                            continue;
                        }
                        for (seen, field) in decode(decoder, block).unwrap().iter().zip(fields) {
                            assert!(seen.0.is_none() || seen.0 == field.0, "{seen:?} is not {field:?}");
                            assert!(seen.1.is_none() || seen.1 == field.1, "{seen:?} is not {field:?}");
                            *unknown += usize::from(seen.0.is_none() || seen.1.is_none());
                        }
                    }
                    let [one, other] = &mut both;
                    // Not always have they read up to the same octet.
                    if one_of(2) && learns {
                        one.learn(other);
                        other.learn(one);
                    }
                }
            }
        }
        // One of the encoders uses no table.
        assert!(2 * unknown[1] < unknown[0] || unknown[0] == 0, "{unknown:?}");
    }
}

#[test]
fn nothing_is_learnt_from_who_contradicts() {
    let mut ours = Decoder::new(false);
    let mut theirs = Decoder::new(true);
    decode(&mut theirs, &hex("4101 61 4101 62")).unwrap();
    decode(&mut ours, &hex("4101 63")).unwrap();
    ours.learn(&theirs);
    assert_eq!(decode(&mut ours, &hex("be bf")).unwrap(), [known(&[(":authority", "c")]).remove(0), (None, None)]);
    // Of a name that is not known the value tells.
    let mut ours = Decoder::new(false);
    decode(&mut theirs, &hex("7f00 01 64")).unwrap();
    decode(&mut ours, &hex("7f00 01 64")).unwrap();
    ours.learn(&theirs);
    assert!(ours.is_complete());
    assert_eq!(decode(&mut ours, &hex("be bf")).unwrap(), known(&[(":authority", "d"), (":authority", "b")]));
}

#[test]
fn an_entry_is_known_from_when_it_is_added() {
    let mut late = Decoder::new(false);
    let unknown = (None, None);
    assert_eq!(decode(&mut late, &hex("82 be")).unwrap()[1], unknown);
    assert_eq!(
        decode(&mut late, &hex("4101 61 be bf")).unwrap(),
        [known(&[(":authority", "a")]).remove(0), known(&[(":authority", "a")]).remove(0), unknown,]
    );
    // A value under a name that is not known is itself known.
    assert_eq!(decode(&mut late, &hex("7f01 01 62 be")).unwrap(), vec![(None, Some("b".to_owned())); 2]);
    // A size of none empties the table, so what comes after it is all.
    assert_eq!(decode(&mut late, &hex("20 3fe11f 4101 61 be")).unwrap(), known(&[(":authority", "a"); 2]));
    assert_eq!(decode(&mut late, &hex("bf")), Err(Invalid));
    // Blocks were lost.
    assert_eq!(decode(&mut late, &hex("be")).unwrap(), [(None, None)]);
}

#[test]
fn bad_blocks() {
    for block in ["80", "be", "ff80808080808001", "41", "4104 61", "3fe13f", "82 20", "40 81 06 00"] {
        assert_eq!(decode(&mut Decoder::new(true), &hex(block)), Err(Invalid), "{block}");
    }
}

proptest! {
    #[test]
    fn no_block_takes_more_memory_than_allowed(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40), late: bool) {
        let mut decoder = Decoder::new(!late);
        decoder.allow(1 << 30);
        for block in blocks {
            let _ = decoder.decode(&block, |_| ());
            prop_assert!(decoder.table.size() <= 64 << 10);
        }
    }

    /// Entries of up to 2 KiB in a table of up to 1 MiB, of which less is kept.
    #[test]
    fn a_large_table_is_kept_in_part(values in prop::collection::vec(1_usize..2000, 1..200), size in 1_u32..1 << 20) {
        let mut decoder = Decoder::new(true);
        decoder.allow(size);
        let mut block = Vec::new();
        number(&mut block, 0x20, 5, size);
        for (at, len) in values.iter().enumerate() {
            block.push(0x40);
            number(&mut block, 0, 7, 4);
            block.extend(format!("{at:04}").bytes());
            number(&mut block, 0, 7, *len as u32);
            block.extend(vec![b'v'; *len]);
        }
        decoder.decode(&block, |_| ()).unwrap();
        prop_assert!(decoder.table.size() <= 64 << 10);
        let (mut room, mut index) = (size as usize, 62);
        for (at, len) in values.iter().enumerate().rev() {
            let Some(left) = room.checked_sub(len + 4 + 32) else { break };
            room = left;
            let mut block = Vec::new();
            number(&mut block, 0x80, 7, index);
            let seen = decode(&mut decoder, &block).unwrap();
            let expected = Some(format!("{at:04}"));
            prop_assert!(seen[0].0.is_none() || seen[0].0 == expected);
            prop_assert!(seen[0].0.is_some() || size as usize > 64 << 10);
            index += 1;
        }
    }
}
