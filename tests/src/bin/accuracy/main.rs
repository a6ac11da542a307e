//! `cargo xtask accuracy`: how right the traces of the mesh are, per service and concurrency. Prints tables in Markdown,
//! the body of `docs/ACCURACY.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::accuracy::{Report, Tally};
use tests::load::Level;
use tests::mesh::Mesh;
use tests::run::{self, Run};
use tests::span::Span;
use tests::topic::Topic;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: usize| -> Result<usize> {
        let value = arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
        Ok(value.map_or(Ok(default), |value| value.parse())?)
    };
    let requests = number("--requests", 5000)?;
    let background = number("--background", 0)?;
    let mesh = Mesh::start((background > 0).then(|| Duration::from_millis(background as u64)))?;
    let wanted = |name: &str| arguments.iter().any(|argument| argument == name);
    let levels = run::levels(requests);
    let run = run::of_levels(&mesh, &levels)?;
    println!("{}", by_service(&mesh, &run, &levels));
    println!("{}", by_method(&run, &levels));
    println!("{}", blame(&run));
    if let Some(file) = arguments.iter().position(|argument| argument == "--dump").and_then(|at| arguments.get(at + 1))
    {
        std::fs::write(file, dump(&run.spans)).with_context(|| format!("cannot write {file}"))?;
    }
    if wanted("--wrong") {
        for level in &levels {
            for wrong in &run.report(&level.tag()).wrong {
                println!("{wrong:?}");
            }
        }
    }
    drop(mesh);
    if let Some(topic) = Topic::if_possible()? {
        let mesh = Mesh::start_with(None, Some(topic))?;
        let run = run::of_levels(&mesh, &levels)?;
        println!("{}", over_topic(&run, &levels));
        let wrong = levels.iter().flat_map(|level| run.report_of_messages(&level.tag()).wrong);
        wrong.filter(|_| wanted("--wrong")).for_each(|span| println!("{span:?}"));
    }
    Ok(())
}

fn by_service(mesh: &Mesh, run: &Run, levels: &[Level]) -> String {
    let runtimes: BTreeMap<_, _> = mesh.services().iter().map(|service| (service.name, service.runtime)).collect();
    let mut lines = vec![
        "| service | concurrency | spans | wrong parent | no parent | traces wholly right |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for level in levels {
        let report = run.report(&level.tag());
        let concurrency = level.concurrency;
        for (name, tally) in &report.services {
            let service = runtimes.get(name.as_str()).map_or(name.clone(), |runtime| format!("{name} ({runtime})"));
            let (wrong, none) = (tally.percent(tally.wrong), tally.percent(tally.none));
            lines.push(format!("| {service} | {concurrency} | {} | {wrong:.2} % | {none:.2} % | |", tally.spans));
        }
        let (all, whole) = (report.all, report.whole_percent());
        let (wrong, none) = (all.percent(all.wrong), all.percent(all.none));
        lines.push(format!(
            "| **all** | {concurrency} | {} | {wrong:.2} % | {none:.2} % | {whole:.1} % of {} |",
            all.spans, report.traces
        ));
    }
    lines.join("\n") + "\n"
}

/// What went over the order topic, right / wrong / without a parent: who sends below the order, who receives below that or
/// linked with it, and the call made because of it below that.
fn over_topic(run: &Run, levels: &[Level]) -> String {
    let mut lines = vec![
        "| concurrency | records | send | receive | by a link | call because of it | traces wholly right |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for level in levels {
        let report = run.report_of_messages(&level.tag());
        let of = |tally: Tally| format!("{} / {} / {}", tally.right, tally.wrong + tally.cut_off, tally.none);
        let [sent, received, calls] = [report.sent, report.received, report.calls].map(of);
        let whole = 100.0 * report.whole as f64 / report.records.max(1) as f64;
        lines.push(format!(
            "| {} | {} | {sent} | {received} | {} | {calls} | {whole:.1} % |",
            level.concurrency, report.records, report.linked
        ));
    }
    lines.join("\n") + "\n"
}

fn by_method(run: &Run, levels: &[Level]) -> String {
    let mut lines = vec![
        "| `remora.link.method` | concurrency | spans | right | wrong | should have a parent |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for level in levels {
        for (method, tally) in &run.report(&level.tag()).methods {
            let (concurrency, none) = (level.concurrency, tally.none);
            lines.push(format!(
                "| {method} | {concurrency} | {} | {} | {} | {none} |",
                tally.spans, tally.right, tally.wrong
            ));
        }
    }
    lines.join("\n") + "\n"
}

/// Where wrong parents come from, those of calls without a cause included.
fn blame(run: &Run) -> String {
    let report = run.report("");
    let mut lines = vec!["| service | `remora.link.method` | wrong |".to_owned(), "|---|---|---|".to_owned()];
    lines.extend(report.blame.iter().map(|((service, method), wrong)| format!("| {service} | {method} | {wrong} |")));
    lines.push(format!("\nCalls without a cause, wrong of all: {}.", own(&report)));
    lines.push(format!("Server spans whose parent never came out: {}.", report.all.cut_off));
    lines.push(format!("Largest trace: {} spans.", report.largest));
    lines.join("\n") + "\n"
}

fn own(report: &Report) -> String {
    let own = report.services.iter().filter(|(name, _)| name.ends_with(", background"));
    let texts: Vec<_> = own.map(|(name, tally)| format!("{name} {} of {}", tally.wrong, tally.spans)).collect();
    if texts.is_empty() { "none made".to_owned() } else { texts.join("; ") }
}

/// One line a span, for looking into what went wrong.
fn dump(spans: &[Span]) -> String {
    let mut text = String::from("start\tend\tkind\tpid\ttrace\tspan\tparent\tattributes\n");
    for span in spans {
        let Span { start, end, kind, trace_id, span_id, parent_span_id, .. } = span;
        let pid = span.pid().unwrap_or(0);
        let attributes: Vec<_> = span.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let attributes = attributes.join(" ");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{start}\t{end}\t{kind}\t{pid}\t{trace_id}\t{span_id}\t{parent_span_id}\t{attributes}");
    }
    text
}
