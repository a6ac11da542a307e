//! The report for people.

use std::fmt::Write as _;

use super::{Item, Outcome, Process, Report};

/// Processes shown; `--json` has them all.
const PROCESSES_MAX: usize = 40;
/// The longest text of a process's column, in characters.
const COLUMN_MAX: usize = 40;

struct Marks {
    ok: &'static str,
    missing: &'static str,
    optional: &'static str,
    unknown: &'static str,
}

const UTF8: Marks = Marks { ok: "✓", missing: "✗", optional: "–", unknown: "?" };
const ASCII: Marks = Marks { ok: "+", missing: "x", optional: "-", unknown: "?" };

/// Whether the locale is one of UTF-8, as the variables have it (POSIX.1-2017, section 8.2: the first that is set).
pub(super) fn utf8(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// The report as lines; with marks of ASCII alone unless `utf8`.
pub(super) fn render(report: &Report, utf8: bool) -> String {
    let marks = if utf8 { &UTF8 } else { &ASCII };
    let mut out = format!("Remora {} on Linux {} ({})\n", report.version, report.kernel, report.arch);
    let first = report.first.as_deref();
    group(&mut out, marks, first, "Host", &report.host);
    group(&mut out, marks, first, "Capabilities", &report.capabilities);
    let attached = report.hooks.iter().filter(|hook| hook.outcome == Outcome::Ok).count();
    let heading = format!("Hooks: {attached} of {} attach", report.hooks.len());
    group(&mut out, marks, first, if attached == 0 { "Hooks" } else { &heading }, &report.hooks);
    processes(&mut out, marks, &report.processes);
    out.push('\n');
    let nothing_chosen = !report.processes.is_empty() && report.processes.iter().all(|process| !process.traced);
    out.push_str(match report.ready {
        true if nothing_chosen => "Capture can work, but --exe, --pid and --exclude-exe leave no process to trace yet.",
        true => "Capture can work.",
        false => "Capture cannot work.",
    });
    if let Some(first) = &report.first {
        let _ = write!(out, " First: {}.", first.trim_end_matches('.'));
    }
    out.push('\n');
    out
}

/// `first` is said at the end, so not here.
fn group(out: &mut String, marks: &Marks, first: Option<&str>, heading: &str, items: &[Item]) {
    let _ = writeln!(out, "\n{heading}");
    let width = items.iter().map(|item| item.id.chars().count()).max().unwrap_or_default();
    for item in items {
        let mark = match item.outcome {
            Outcome::Ok => marks.ok,
            Outcome::Missing if item.needed => marks.missing,
            Outcome::Missing => marks.optional,
            Outcome::Unknown => marks.unknown,
        };
        let _ = write!(out, "  {mark} {:width$}  {}", item.id, Plain(&item.detail));
        if let Some(advice) = item.advice.as_deref().filter(|&advice| first != Some(advice)) {
            let _ = write!(out, "; {}", Plain(advice));
        }
        out.push('\n');
    }
}

fn processes(out: &mut String, marks: &Marks, processes: &[Process]) {
    let traced = processes.iter().filter(|process| process.traced).count();
    let _ = writeln!(out, "\nProcesses: {traced} traced, {} left out", processes.len() - traced);
    // Those without sockets matter where nothing is known of any.
    let known = processes.iter().any(Process::has_sockets);
    let shown: Vec<_> =
        processes.iter().filter(|process| !known || process.has_sockets()).take(PROCESSES_MAX).collect();
    let rows: Vec<[String; 5]> = shown.iter().map(|process| row(process)).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2), width(3)];
    for (process, [pid, service, language, sockets, last]) in shown.iter().zip(&rows) {
        let mark = if process.traced { marks.ok } else { marks.optional };
        let [a, b, c, d] = widths;
        let line = format!("  {mark} {pid:>a$}  {service:b$}  {language:c$}  {sockets:d$}  {last}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let hidden = processes.len() - shown.len();
    if hidden > 0 {
        let which = if known && shown.len() < PROCESSES_MAX { " without TCP sockets" } else { "" };
        let _ = writeln!(out, "    and {hidden} more{which}: --json shows all");
    }
}

/// Pid, service, language, sockets, and where it comes from or why it is left out.
fn row(process: &Process) -> [String; 5] {
    let text =
        |text: Option<&str>| -> String { Plain(text.unwrap_or("-")).to_string().chars().take(COLUMN_MAX).collect() };
    let mut sockets = Vec::new();
    if let Some([first, rest @ ..]) = process.listening.as_deref() {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        sockets.push(format!("port {first}{more}"));
    }
    match process.connections {
        Some(0) => {}
        Some(1) => sockets.push("1 connection".to_owned()),
        Some(count) => sockets.push(format!("{count} connections")),
        None => sockets.push("sockets unknown".to_owned()),
    }
    let last = match &process.reason {
        Some(reason) => format!("left out: {}", Plain(reason)),
        None => process.executable.as_ref().map(|path| Plain(path).to_string()).unwrap_or_default(),
    };
    [process.pid.to_string(), text(Some(&process.service)), text(process.language.as_deref()), sockets.join(", "), last]
}

/// Text from outside, its control characters escaped: a terminal would obey them.
struct Plain<'a>(&'a str);

impl std::fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write as _;
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}
