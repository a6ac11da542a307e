//! Compressed content and batches made by hand.

use std::io::Write as _;

use super::*;
use crate::protocol::kafka::tests::wire::batch;

const LIMIT: usize = 64 << 10;

fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

fn lz4(octets: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

fn zstd(octets: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(octets, ruzstd::encoding::CompressionLevel::Fastest)
}

fn snappy(octets: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(octets).unwrap()
}

/// The framing of snappy-java, in blocks of 32 KiB.
fn xerial(octets: &[u8]) -> Vec<u8> {
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in octets.chunks(32 << 10) {
        let block = snappy(block);
        framed.extend((block.len() as u32).to_be_bytes());
        framed.extend(block);
    }
    framed
}

type Encode = fn(&[u8]) -> Vec<u8>;

const CODECS: [(Compression, Encode); 5] = [
    (Compression::Gzip, gzip),
    (Compression::Lz4, lz4),
    (Compression::Zstd, zstd),
    (Compression::Snappy, snappy),
    (Compression::Snappy, xerial),
];

#[test]
fn content_comes_out_as_it_was() {
    let octets: Vec<u8> = (0..LIMIT as u32).flat_map(|number| (number / 7).to_be_bytes()).take(LIMIT).collect();
    for (codec, encode) in CODECS {
        let content = codec.decompress(&encode(&octets), LIMIT);
        assert!(content.whole && content.octets == octets, "{codec:?}");
        let content = codec.decompress(&encode(&[]), LIMIT);
        assert!(content.octets.is_empty(), "{codec:?}");
    }
}

/// What is much larger than it looks ends at the limit, and of what is cut off comes no more than a beginning.
#[test]
fn bombs_end_at_the_limit() {
    let large = vec![0; 64 << 20];
    for (codec, encode) in CODECS {
        let bomb = encode(&large);
        let content = codec.decompress(&bomb, LIMIT);
        assert!(
            !content.whole && content.octets.len() <= LIMIT && content.octets.iter().all(|octet| *octet == 0),
            "{codec:?}"
        );
    }
    let octets = batch(100, 30);
    for (codec, encode) in CODECS {
        let compressed = encode(&octets);
        for length in (0..compressed.len()).step_by(7) {
            let content = codec.decompress(&compressed[..length], LIMIT);
            assert!(!content.whole || content.octets.is_empty(), "{codec:?} {length}");
            assert!(octets.starts_with(&content.octets), "{codec:?} {length}");
        }
    }
}

fn limits() -> RecordLimits {
    RecordLimits { content: 1 << 20, decompressed: 1 << 20, contexts: 5, key: 4 }
}

/// Batches end where they say, whatever the pieces are; contexts over the limit are counted.
#[test]
fn batches_follow_each_other() {
    let octets = [batch(3, 5), batch(4, 300), batch(1, 0)].concat();
    for piece in [1, 7, 61, octets.len()] {
        let mut reader = RecordReader::new(octets.len() as u32, true, limits(), Aborted::default());
        octets.chunks(piece).for_each(|piece| reader.octets(piece));
        let records = reader.finish();
        assert_eq!((records.count, records.batches, records.read), (Some(8), 3, 7));
        assert_eq!((records.contexts.len(), records.contexts_left_out), (5, 2));
        assert_eq!(records.last_offset, Some(0));
    }
}

/// A broker cuts off what does not fit; a producer does not.
#[test]
fn the_last_batch_may_be_cut_off_when_fetched() {
    let whole = [batch(3, 5), batch(4, 300)].concat();
    let first = batch(3, 5).len();
    for length in first..whole.len() {
        let fetched = |fetched| {
            let mut reader = RecordReader::new(length as u32, fetched, limits(), Aborted::default());
            reader.octets(&whole[..length]);
            reader.finish()
        };
        assert_eq!((fetched(true).count, fetched(true).batches), (Some(3), 1), "{length}");
        assert_eq!(fetched(false).count, (length == first).then_some(3), "{length}");
    }
}

/// Octets that are missing inside of a batch's content cost its headers, others the count.
#[test]
fn gaps_cost_what_they_hit() {
    let octets = [batch(3, 200), batch(4, 5)].concat();
    let first = batch(3, 200).len();
    for from in 0..octets.len() {
        let mut reader = RecordReader::new(octets.len() as u32, false, limits(), Aborted::default());
        let to = (from + 50).min(octets.len());
        reader.octets(&octets[..from]);
        reader.lost((to - from) as u64);
        reader.octets(&octets[to..]);
        let records = reader.finish();
        let inside = |begin: usize, end: usize| from >= begin + 61 && to <= end;
        let known = inside(0, first) || inside(first, octets.len());
        assert_eq!(records.count, known.then_some(7), "{from}");
        assert!(records.read < 7, "{from}");
    }
}

/// A batch of so many records from this offset on, of a producer's transaction; `marks` ends one.
fn of_transaction(producer: i64, base: i64, records: u8, marks: bool) -> Vec<u8> {
    let mut batch = batch(records, 0);
    batch[..8].copy_from_slice(&base.to_be_bytes());
    batch[22] |= if marks { 0x30 } else { 0x10 };
    batch[43..51].copy_from_slice(&producer.to_be_bytes());
    batch
}

/// What a consumer leaves out, and markers, are no records, and nothing else is told of them.
#[test]
fn aborted_transactions_are_left_out() {
    let batches = [
        of_transaction(1, 9, 1, true),
        of_transaction(1, 10, 2, false),
        of_transaction(2, 12, 3, false),
        of_transaction(1, 15, 1, true),
        of_transaction(1, 16, 4, false),
        of_transaction(2, 20, 1, true),
        of_transaction(1, 21, 1, true),
    ];
    let octets = batches.concat();
    let read = |aborted: &[(i64, i64)], octets: &[u8]| {
        let mut all = Aborted::default();
        for &(producer, from) in aborted {
            all.producer = Some(producer);
            all.add(from);
        }
        let mut reader = RecordReader::new(octets.len() as u32, true, limits(), all);
        octets.chunks(5).for_each(|piece| reader.octets(piece));
        reader.finish()
    };
    let counted = |aborted| {
        let Records { count, first_offset, last_offset, end_offset, heads, .. } = read(aborted, &octets);
        assert_eq!(end_offset, Some(21));
        (count, first_offset.zip(last_offset), heads.len())
    };
    assert_eq!(counted(&[]), (Some(9), Some((10, 19)), 3), "to one who wants all");
    assert_eq!(counted(&[(1, 10)]), (Some(7), Some((12, 19)), 2), "the next of the same producer was not");
    assert_eq!(counted(&[(1, 10), (1, 16)]), (Some(3), Some((12, 14)), 1));
    assert_eq!(counted(&[(1, 16), (2, 12)]), (Some(2), Some((10, 11)), 1));
    assert_eq!(counted(&[(1, 10), (2, 12), (1, 16)]), (Some(0), None, 0));
    let size = |aborted, kept: &[usize]| {
        let octets_of: usize = kept.iter().map(|&number| batches[number].len()).sum();
        assert_eq!(read(aborted, &octets).body_size(), Some(octets_of as u32), "{kept:?} are not left out");
    };
    size(&[], &[1, 2, 4]);
    size(&[(1, 10)], &[2, 4]);
    size(&[(1, 10), (2, 12), (1, 16)], &[]);
    let ends = read(&[(1, 10)], &batches[1..4].concat());
    assert_eq!(ends.first_key.as_deref(), read(&[], &batches[2]).first_key.as_deref());
    let many: Vec<_> = (100..400).map(|from| (7, from)).collect();
    let unknown = read(&many, &octets);
    assert_eq!((unknown.count, unknown.body_size()), (None, None), "too many to tell");
}
