use std::sync::Mutex;

use serde_json::Value;

use super::*;
use crate::export::fixture;

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn spans_in(text: &str) -> usize {
    let spans = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        value["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len()
    };
    text.lines().map(spans).sum()
}

#[test]
fn a_file_gets_every_span_within_a_second_and_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spans.jsonl");
    for run in 1..=2 {
        let (exporter, handle) = LineExporter::start(&Target::File(path.clone()), Format::OtlpJson).unwrap();
        let start = Instant::now();
        handle.push(fixture::batch(0, 3));
        eventually("exported", || handle.books().exported == 3);
        assert!(start.elapsed() < Duration::from_secs(1));
        assert_eq!(spans_in(&std::fs::read_to_string(&path).unwrap()), run * 1003 - 1000);
        handle.push(fixture::batch(10, 1000));
        let books = exporter.shutdown(Duration::from_secs(5));
        assert_eq!((books.exported, books.pending, books.dropped_total()), (1003, 0, 0));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(spans_in(&text), run * 1003);
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    let target = Target::File("/does/not/exist/spans".into());
    assert!(LineExporter::start(&target, Format::OtlpJson).is_err());
    assert_eq!(Target::parse("-"), Target::StandardOutput);
}

#[test]
fn a_full_disk_is_counted_and_survived() {
    let target = Target::File("/dev/full".into());
    let (exporter, handle) = LineExporter::start(&target, Format::Text { colour: false }).unwrap();
    handle.push(fixture::batch(0, 10));
    eventually("dropped", || handle.books().dropped(DropReason::WriteFailed) == 10);
    handle.push(fixture::batch(0, 10));
    let books = exporter.shutdown(Duration::from_secs(5));
    assert_eq!((books.dropped(DropReason::WriteFailed), books.exported, books.pending), (20, 0, 0));
}

/// Takes so many octets, then fails, until given more room.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

impl Write for Disk {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().unwrap();
        let room = disk.1.min(octets.len()).min(1000);
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.1 -= room;
        disk.0.extend_from_slice(&octets[..room]);
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_cut_short_spoils_no_other() {
    let disk = Disk::default();
    let mut writer = Writer::new(Box::new(disk.clone()), Format::Text { colour: false });
    let batch = fixture::batch(0, 10);
    let spans: Vec<&Span> = batch.iter().collect();
    let mut line = String::new();
    text::line(spans[0], false, &mut line);
    disk.0.lock().unwrap().1 = line.len() * 4 + 3;
    assert_eq!(writer.write(&spans), 4);
    assert_eq!(writer.write(&spans), 0);
    disk.0.lock().unwrap().1 = 100_000;
    assert_eq!(writer.write(&spans), 10);
    assert_eq!(writer.write(&spans), 10);
    let text = String::from_utf8(disk.0.lock().unwrap().0.clone()).unwrap();
    let (whole, cut): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.ends_with("127.0.0.1:51442"));
    assert_eq!((whole.len(), cut.len()), (24, 1));
}

#[test]
fn a_reader_that_does_not_read_costs_spans_but_not_the_shutdown() {
    let (reader, writer) = io::pipe().unwrap();
    let limits = Limits { delay: Duration::ZERO, ..LIMITS };
    let (exporter, handle) = LineExporter::start_with(Box::new(writer), Format::OtlpJson, limits).unwrap();
    for round in 0..20 {
        handle.push(fixture::batch(round * 1000, 1000));
    }
    let start = Instant::now();
    let books = exporter.shutdown(Duration::from_millis(100));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(books.accepted, 20_000);
    assert!(books.dropped(DropReason::QueueFull) > 0 && books.dropped(DropReason::Shutdown) > 0);
    assert_eq!(books.accepted, books.exported + books.dropped_total() + books.pending);
    drop(reader);
    eventually("settled", || handle.books().pending == 0);
}
