use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// Reads a table in this process.
fn at(kind: u64, address: u64) -> Option<OwnTable> {
    read(std::process::id(), &HeaderTable { kind, address, added: 0 })
}

/// A table as Go has it, in this process.
struct Go {
    table: Box<[AtomicU64; 7]>,
    entries: Vec<[u64; 5]>,
    _texts: Vec<String>,
}

impl Go {
    /// The oldest field first.
    fn new(fields: &[(&str, &str)], evicted: u64) -> Self {
        let texts: Vec<String> = fields.iter().flat_map(|(name, value)| [*name, *value]).map(str::to_owned).collect();
        let entry = |pair: &[String]| {
            let [name, value] = [&pair[0], &pair[1]].map(|text| [text.as_ptr() as u64, text.len() as u64]);
            [name[0], name[1], value[0], value[1], 0]
        };
        let entries: Vec<[u64; 5]> = texts.chunks(2).map(entry).collect();
        let size: u64 = texts.iter().map(|text| text.len() as u64).sum::<u64>() + 32 * fields.len() as u64;
        let count = entries.len() as u64;
        let words = [entries.as_ptr() as u64, count, count, evicted, 0, 0, size | 4096 << 32];
        Self { table: Box::new(words.map(AtomicU64::new)), entries, _texts: texts }
    }

    fn read(&self) -> Option<OwnTable> {
        at(table::GO, self.table.as_ptr() as u64)
    }

    fn set(&self, word: usize, value: u64) -> &Self {
        self.table[word].store(value, Ordering::SeqCst);
        self
    }
}

const FIELDS: [(&str, &str); 3] = [(":path", "/a"), ("x-id", ""), (":path", "/b")];

#[test]
fn a_table_is_read_from_its_newest_entry_on() {
    let own = Go::new(&FIELDS, 7).read().unwrap();
    let entries: Vec<_> = own.entries.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(entries, [(&b":path"[..], &b"/b"[..]), (b"x-id", b""), (b":path", b"/a")]);
    assert_eq!((own.added, own.limit), (10, 4096));
    let empty = Go::new(&[], 3).read().unwrap();
    assert_eq!((empty.added, empty.entries.len()), (3, 0));
}

#[test]
fn what_does_not_add_up_is_no_table() {
    let table = || Go::new(&FIELDS, 7);
    let size = table().table[6].load(Ordering::SeqCst);
    for (word, value) in [
        (0, 0),
        (0, 8),
        (0, u64::MAX),
        // More or fewer entries than sizes, than there is room, and than can be.
        (1, 2),
        (1, 4),
        (1, u64::MAX),
        (1, 1 << 32),
        (2, 1),
        (3, u64::MAX),
        (6, size + 1),
        (6, 0),
        // It is larger than it may be.
        (6, (size & 0xffff_ffff) | 50 << 32),
    ] {
        assert_eq!(table().set(word, value).read(), None, "word {word}: {value:#x}");
    }
    assert_eq!(at(table::GO, u64::MAX - 8), None);
    assert_eq!(at(table::GO, 8), None);
    for (word, value) in [(0, 0), (1, 1 << 40), (2, u64::MAX), (3, 1 << 62), (1, u64::MAX), (3, 0)] {
        let mut table = table();
        table.entries[1][word] = value;
        let own = table.read();
        assert!(own.is_none() || (word, value) == (3, 0), "word {word} of an entry: {value:#x}: {own:?}");
    }
    for name in ["", "Path", "a b", "a\u{e4}"] {
        assert_eq!(Go::new(&[(name, "x")], 0).read(), None, "{name:?}");
    }
}

#[test]
fn a_table_beyond_what_is_kept_is_not_read() {
    let value = "v".repeat(60 << 10);
    let table = Go::new(&[("a", &value), ("b", &value)], 0);
    let size = table.table[6].load(Ordering::SeqCst) & 0xffff_ffff;
    assert_eq!(table.set(6, size | 1 << 52).read(), None);
}

/// A program that adds entries, and puts the oldest out, in the order in which Go's does.
#[test]
fn what_is_read_while_it_changes_is_never_mixed() {
    const ROOM: usize = 4;
    let texts: Vec<String> = (0..1000).map(|number| format!("{number:04}")).collect();
    let entry = |number: usize| [b"n".as_ptr() as u64, 1, texts[number % 1000].as_ptr() as u64, 4, 0];
    let store: Vec<AtomicU64> = (0..5 * (ROOM + 1)).map(|_| AtomicU64::new(0)).collect();
    let words = [store.as_ptr() as u64, 0, ROOM as u64 + 1, 0, 0, 0, 4096 << 32].map(AtomicU64::new);
    let (done, set) = (AtomicBool::new(false), |at: usize, value: u64| words[at].store(value, Ordering::SeqCst));
    let mut seen = 0_u32;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let put = |place: usize, entry: [u64; 5]| {
                for (word, value) in store[5 * place..].iter().zip(entry) {
                    word.store(value, Ordering::SeqCst);
                }
            };
            let mut added = 0;
            while !done.load(Ordering::SeqCst) {
                let count = added.min(ROOM);
                put(count, entry(added));
                set(1, count as u64 + 1);
                set(6, (37 * (count as u64 + 1)) | 4096 << 32);
                added += 1;
                if count == ROOM {
                    set(6, (37 * ROOM as u64) | 4096 << 32);
                    (0..ROOM).for_each(|place| put(place, entry(added - ROOM + place)));
                    put(ROOM, [0; 5]);
                    // Go has the count of what was put out after this, by two instructions.
                    set(3, (added - ROOM) as u64);
                    set(1, ROOM as u64);
                }
                if added % 64 == 0 {
                    std::thread::yield_now();
                }
            }
        });
        for _ in 0..20_000 {
            let Some(own) = at(table::GO, words.as_ptr() as u64) else { continue };
            seen += 1;
            for (at, (_, value)) in own.entries.iter().enumerate() {
                let number = own.added as usize - 1 - at;
                assert_eq!(&value[..], texts[number % 1000].as_bytes(), "{own:?}");
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    println!("{seen} were read");
}

/// What is changed of a table's words and of its entries'.
type Change = fn(&mut [u64; 8], &mut [[u64; 10]; 2]);

/// A table as nghttp2 has it, with two fields of which the newer one is the last one of the ring.
fn nghttp2(change: Change) -> Option<OwnTable> {
    let entry = |name: &'static str, value: &'static str, number: u64| {
        let mut entry = [0; 10];
        entry[3..7].copy_from_slice(&[
            name.as_ptr() as u64,
            value.as_ptr() as u64,
            name.len() as u64,
            value.len() as u64,
        ]);
        entry[9] = number | 0xabcd << 32;
        entry
    };
    let mut entries = [entry(":path", "/new", 6), entry("x-id", "1", 5)];
    let mut ring = [0; 4];
    let mut words = [0, 3, 3, 2, 0, 78, 4096, 7];
    change(&mut words, &mut entries);
    (ring[3], ring[0]) = (entries[0].as_ptr() as u64, entries[1].as_ptr() as u64);
    words[0] = if words[0] == 0 { ring.as_ptr() as u64 } else { words[0] };
    at(table::NGHTTP2, words.as_ptr() as u64)
}

#[test]
fn nghttp2_has_a_ring() {
    let own = nghttp2(|_, _| ()).unwrap();
    let entries: Vec<_> = own.entries.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(entries, [(&b":path"[..], &b"/new"[..]), (b"x-id", b"1")]);
    assert_eq!((own.added, own.limit), (7, 4096));
    let changes: [Change; 10] = [
        |words, _| words[0] = 8,
        |words, _| words[1] = 4,
        |words, _| words[1] = u64::MAX,
        |words, _| words[2] = 0,
        |words, _| words[3] = 3,
        |words, _| words[3] = u64::MAX,
        |words, _| words[5] = 79,
        |words, _| words[7] = 8,
        |words, _| words[7] |= 1 << 32,
        |_, entries| entries[1][9] = 4,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!(nghttp2(change), None, "{number}");
    }
}
