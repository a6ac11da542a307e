use super::*;

const MS: u64 = 1_000_000;
const CONSUMER: Tgid = Tgid(7);

/// A consumer, by what happens to it at which millisecond: `m` a message of one record (`2` of two, `2+1` of two and of one from
/// another partition), `c` a call, `r` its return, `.` nothing. What begins and ends then, by the messages' numbers.
fn told(script: &[(u64, &str)]) -> Vec<String> {
    told_of(false, script)
}

fn told_of(in_order: bool, script: &[(u64, &str)]) -> Vec<String> {
    let (mut works, mut number) = (Works::default(), 0);
    works.takes_in_order(CONSUMER, in_order);
    let mut told = Vec::new();
    for (at, what) in script {
        let (at, mut changes) = (MonoNanos(at * MS), Changes::default());
        match *what {
            "c" => works.calls(CONSUMER, at, &mut changes),
            "r" => works.returned(CONSUMER, at, &mut changes),
            "." => works.poll(at, &mut changes),
            messages => {
                let messages = messages.split('+').map(|message| {
                    number += 1;
                    let records = if message == "m" { 1 } else { message.parse().unwrap() };
                    Brought { id: ExchangeId(number), records: Some(records), from: None }
                });
                works.got(CONSUMER, &messages.collect::<Vec<_>>(), at, &mut changes);
            }
        }
        let list = |ids: Vec<ExchangeId>, sign: char| ids.into_iter().map(move |id| format!("{sign}{}", id.0));
        let all: Vec<String> = list(changes.done, '-').chain(list(changes.begun, '+')).collect();
        told.push(all.concat());
    }
    told
}

/// Messages far apart, each with so many calls.
fn apart(messages: u64, calls: u64) -> Vec<(u64, &'static str)> {
    let one = |message: u64| {
        let at = 1 + message * 100;
        let pairs = (0..calls).flat_map(move |call| [(at + 1 + call * 10, "c"), (at + 2 + call * 10, "r")]);
        std::iter::once((at, "m")).chain(pairs)
    };
    (0..messages).flat_map(one).collect()
}

#[test]
fn a_message_is_done_with_when_nothing_was_called_for_a_second() {
    let script = [(1, "m"), (2, "c"), (900, "r"), (1500, "."), (1899, "."), (1901, ".")];
    assert_eq!(told(&script), ["+1", "", "", "", "", "-1"]);
    let script = [(1, "m"), (2, "c"), (59_000, "."), (60_002, ".")];
    assert_eq!(told(&script), ["+1", "", "", "-1"], "a call without an end");
}

#[test]
fn the_next_one_ends_it_after_a_moment_of_quiet() {
    let script = [(1, "m"), (2, "c"), (3, "r"), (6, "m"), (7, "c")];
    assert_eq!(told(&script), ["+1", "", "", "-1+2", ""]);
    for script in [
        [(1, "m"), (2, "c"), (3, "r"), (4, "m")],
        [(1, "m"), (2, "c"), (3, "."), (50, "m")],
        [(1, "m"), (2, "."), (3, "."), (50, "m")],
    ] {
        assert_eq!(told(&script), ["+1", "", "", "+2"], "not quiet, under way, without a call: {script:?}");
    }
}

#[test]
fn what_came_in_a_crowd_is_over_when_each_had_a_call_and_it_is_calm() {
    let crowd = [(1, "m"), (2, "m"), (3, "c"), (4, "r"), (5, "c"), (6, "r")];
    let after = |at| told(&[&crowd[..], &[(at, "m")]].concat()).pop().unwrap();
    assert_eq!((after(55), after(57)), ("+3".to_owned(), "-1-2+3".to_owned()));
    let few = [&crowd[..4], &[(100, "m")]].concat();
    assert_eq!(told(&few).pop().unwrap(), "+3", "one of them may still call");
}

#[test]
fn messages_are_taken_up_one_by_one_when_their_calls_are_known() {
    let mut script = apart(4, 2);
    let known = script.len();
    // Three at once, of one and two records.
    script.extend([(501, "m"), (501, "2"), (501, "m")]);
    for at in 0..8 {
        script.extend([(510 + at * 10, "c"), (511 + at * 10, "r")]);
    }
    let told = told(&script);
    let changes: Vec<&str> = told[known..].iter().map(String::as_str).filter(|all| !all.is_empty()).collect();
    assert_eq!(changes, ["-4+5", "-5+6", "-6+7"]);
    // After two calls each, at the return of the second.
    assert_eq!((told[known + 6].as_str(), told[known + 14].as_str()), ("-5+6", "-6+7"));
}

#[test]
fn partitions_are_taken_up_in_their_order_where_that_is_known() {
    let mut script = apart(4, 1);
    let known = script.len();
    script.push((501, "2+m"));
    script.extend((0..3).flat_map(|call| [(510 + call * 10, "c"), (511 + call * 10, "r")]));
    script.extend([(550, "m"), (560, "c"), (561, "r")]);
    let changes = |in_order| told_of(in_order, &script).split_off(known);
    assert_eq!(changes(true), ["-4+5", "", "", "", "-5+6", "", "", "-6+7", "", ""]);
    assert_eq!(changes(false), ["-4+5+6", "", "", "", "", "", "", "-5-6+7", "", ""]);
}

/// Records of one partition, of which five came alone and were called for: their numbers are their offsets and one more.
struct Reader {
    works: Works,
    /// By which the next one comes.
    conn: ConnId,
    came: u64,
    at: u64,
}

impl Reader {
    fn new() -> Self {
        let mut reader = Self { works: Works::default(), conn: ConnId(1), came: 0, at: 0 };
        reader.works.takes_in_order(CONSUMER, true);
        for _ in 0..5 {
            reader.comes(reader.came);
            reader.calls();
        }
        reader
    }

    /// What `change` has changed 10 ms later.
    fn later(&mut self, change: impl FnOnce(&mut Works, MonoNanos, &mut Changes)) -> String {
        self.at += 10;
        let mut changes = Changes::default();
        change(&mut self.works, MonoNanos(self.at * MS), &mut changes);
        let list = |ids: Vec<ExchangeId>, sign: char| ids.into_iter().map(move |id| format!("{sign}{}", id.0));
        list(changes.done, '-').chain(list(changes.begun, '+')).collect()
    }

    fn comes(&mut self, offset: u64) -> String {
        self.came += 1;
        let offset = i64::try_from(offset).unwrap();
        let from = Some(Stretch { conn: self.conn, partition: 1, first: offset, last: offset });
        let message = Brought { id: ExchangeId(self.came), records: Some(1), from };
        self.later(|works, at, changes| works.got(CONSUMER, &[message], at, changes))
    }

    fn calls(&mut self) -> String {
        let called = self.later(|works, at, changes| works.calls(CONSUMER, at, changes));
        called + &self.later(|works, at, changes| works.returned(CONSUMER, at, changes))
    }
}

#[test]
fn what_is_asked_for_again_was_left_out() {
    let mut reader = Reader::new();
    assert_eq!([reader.comes(5), reader.comes(5), reader.calls()], ["-5+6", "-6+7", ""]);
    assert_eq!(
        [reader.comes(6), reader.comes(7), reader.comes(7), reader.calls(), reader.calls()],
        ["-7+8", "", "-9", "-8+10", ""]
    );
    assert_eq!(reader.comes(7), "-10+11", "it has called because of it: what comes again is another reading");
}

#[test]
fn what_another_consumer_of_the_process_asks_for_was_not_left_out() {
    let mut reader = Reader::new();
    assert_eq!(reader.comes(5), "-5+6");
    reader.conn = ConnId(2);
    assert_eq!([reader.comes(5), reader.calls(), reader.calls()], ["", "-6+7", ""]);
}

#[test]
fn what_was_committed_was_got() {
    let commit = |offset| {
        let mut reader = Reader::new();
        let told = [5, 6, 7].map(|offset| reader.comes(offset));
        assert_eq!(told, ["-5+6", "", ""]);
        let told = reader.later(|works, at, changes| works.committed(CONSUMER, 1, offset, at, changes));
        (told, reader.calls())
    };
    assert_eq!(commit(6), (String::new(), "-6+7".to_owned()), "as it should be");
    assert_eq!(commit(7), ("-6+7+8".to_owned(), String::new()), "out of step: either may be worked on");
    assert_eq!(commit(8), ("-6-7+8".to_owned(), String::new()), "the last of all");
}

#[test]
fn a_long_pause_with_something_to_do_is_out_of_step() {
    let after = |pause| {
        let mut reader = Reader::new();
        // One that it never calls for.
        let told = [reader.comes(5), reader.comes(6)];
        assert_eq!(told, ["-5+6", ""]);
        reader.calls();
        reader.at += pause;
        [reader.comes(7), reader.calls()]
    };
    assert_eq!(after(0), ["", "-7+8"], "it may be so");
    assert_eq!(after(90), ["+8", ""], "either may be worked on");
}

/// What came in a crowd is no reason to learn anew: a consumer of which that is known is done with it as any other.
#[test]
fn a_crowd_is_not_out_of_step() {
    let mut reader = Reader::new();
    let message = Brought { id: ExchangeId(20), records: None, from: None };
    reader.later(|works, at, changes| works.got(CONSUMER, &[message], at, changes));
    assert_eq!([reader.comes(5), reader.calls(), reader.calls()], ["+6", "", ""]);
    reader.at += 90;
    assert_eq!([reader.comes(6), reader.calls(), reader.comes(7)], ["-20-6+7", "", "-7+8"]);
}

#[test]
fn messages_without_a_number_of_records_are_worked_on_together() {
    let mut reader = Reader::new();
    let message = Brought { id: ExchangeId(20), records: None, from: None };
    let told = reader.later(|works, at, changes| works.got(CONSUMER, &[message], at, changes));
    assert_eq!([told, reader.comes(5), reader.calls()], ["-5+20", "+6", ""]);
}

#[test]
fn several_at_once_are_not_taken_one_by_one() {
    let mut script = apart(4, 1);
    let known = script.len();
    script.extend([(501, "m"), (501, "m"), (502, "c"), (503, "c"), (504, "r"), (505, "r"), (600, "m"), (600, "m")]);
    let told = told(&script);
    assert_eq!(told[known..], ["-4+5", "", "", "-5+6", "", "", "+7", "+8"]);
}
