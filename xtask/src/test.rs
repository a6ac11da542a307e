//! `cargo xtask test`: unit tests, a short fuzz run, whole-system tests, and one line that sums them up.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, Profile},
    exec,
    setup::{self, Toolchain},
    workspace,
};

/// Shared out among the fuzz targets: enough to find what a change broke plainly, not a search.
const FUZZ_SECONDS: u64 = 15;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains one of these; leaves out the fuzz run
    filters: Vec<String>,
    /// Only unit tests and the fuzz run: needs no root
    #[arg(long, conflicts_with = "system")]
    unit: bool,
    /// Only the whole-system tests
    #[arg(long)]
    system: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = setup::for_build()?;
    if args.unit {
        setup::for_unit_tests()?;
    } else {
        setup::for_run()?;
        setup::for_tests()?;
    }
    let mut books = Books::default();
    if !args.system {
        unit(&toolchain, args, &mut books)?;
        if args.filters.is_empty() {
            fuzz(&toolchain, &mut books)?;
        }
    }
    if !args.unit {
        let binary = build::agent(&toolchain, Profile::Release)?;
        system(&toolchain, &binary, args, &mut books)?;
    }
    books.close()
}

fn unit(toolchain: &Toolchain, args: &Args, books: &mut Books) -> Result<()> {
    heading("unit tests");
    let mut cargo = exec::cargo();
    toolchain.name_to(&mut cargo).args(["test", "--no-fail-fast", "--"]).args(&args.filters);
    books.cargo_test(&mut cargo)
}

fn system(toolchain: &Toolchain, binary: &Path, args: &Args, books: &mut Books) -> Result<()> {
    heading("whole-system tests");
    let mut cargo = exec::cargo();
    toolchain.name_to(&mut cargo).env("REMORA_BIN", binary).arg("test");
    if !exec::is_root() {
        // Built as the caller, run as root: cargo puts this before each test binary. `env`, because sudo resets PATH.
        let path = std::env::var("PATH").unwrap_or_default();
        let runner = serde_json::json!(["sudo", "--preserve-env", "env", format!("PATH={path}")]);
        cargo.args(["--config", &format!("target.'cfg(all())'.runner={runner}")]);
    }
    // One at a time: they load the machine, and each looks at all of it.
    cargo.args(["--no-fail-fast", "--package", "tests", "--", "--test-threads=1"]).args(&args.filters);
    books.cargo_test(&mut cargo)
}

/// Runs every target of `fuzz/` for a short while; each counts as one test.
fn fuzz(toolchain: &Toolchain, books: &mut Books) -> Result<()> {
    let targets = fuzz_targets(&workspace::root().join("fuzz/fuzz_targets"))?;
    if targets.is_empty() {
        return Ok(());
    }
    heading("fuzz run");
    if !setup::has_cargo_fuzz() {
        println!("skipped: cargo-fuzz could not be installed (see the set-up above)");
        books.tally.skipped += targets.len() as u64;
        return Ok(());
    }
    let seconds = (FUZZ_SECONDS / targets.len() as u64).max(3);
    for target in targets {
        let mut cargo = exec::cargo();
        // Without a sanitizer: what is fuzzed is safe Rust, where a fault is a panic, and any toolchain can build it.
        toolchain.name_to(&mut cargo).args(["fuzz", "run", "--sanitizer", "none", &target, "--"]);
        cargo.args([&format!("-max_total_time={seconds}"), "-timeout=5", "-verbosity=0", "-print_final_stats=1"]);
        let dictionary = workspace::root().join(format!("fuzz/{target}.dict"));
        if dictionary.exists() {
            cargo.arg(format!("-dict={}", dictionary.display()));
        }
        match exec::run(&mut cargo) {
            Ok(()) => {
                println!("fuzz target {target} ... ok ({seconds} s)");
                books.tally.passed += 1;
            }
            Err(error) => {
                println!("fuzz target {target} ... FAILED");
                books.tally.failed += 1;
                books.failures.push(format!("{error:#}"));
            }
        }
    }
    Ok(())
}

fn fuzz_targets(folder: &Path) -> Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut targets = Vec::new();
    for entry in folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    targets.sort();
    Ok(targets)
}

fn heading(what: &str) {
    eprintln!("\n== {what}");
}

/// What all runs came to.
#[derive(Default)]
struct Books {
    tally: Tally,
    /// Tests with the last that they said, and commands that ended badly.
    failures: Vec<String>,
}

impl Books {
    /// Runs `cargo test`, shows its output as it comes and counts what it says.
    fn cargo_test(&mut self, cargo: &mut Command) -> Result<()> {
        let mut child = cargo.stdout(Stdio::piped()).spawn().with_context(|| exec::cannot_start(cargo))?;
        let (mut tally, mut told) = (Tally::default(), Told::default());
        if let Some(mut output) = child.stdout.take() {
            let mut lines = Lines::default();
            let mut buffer = [0; 8192];
            loop {
                // By what is there, not by line: the name of a running test stands before its line is complete.
                let (chunk, _) = match output.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => buffer.split_at(length),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error).context("cannot read what the tests print"),
                };
                let mut stdout = io::stdout().lock();
                stdout.write_all(chunk)?;
                stdout.flush()?;
                lines.feed(chunk, |line| {
                    tally.read(line);
                    told.read(line);
                });
            }
            lines.finish(|line| tally.read(line));
        }
        let status = child.wait()?;
        self.failures.extend(told.finish());
        if !status.success() {
            // A test that does not compile, or a test binary that dies, leaves no count of its own.
            tally.failed = tally.failed.max(1);
            self.failures.push(format!("{status} from: {}", exec::show(cargo)));
        }
        self.tally.add(tally);
        Ok(())
    }

    /// Prints the sum, alone on its line and last on standard output.
    fn close(self) -> Result<()> {
        println!();
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        println!("{}", self.tally.summary());
        if self.tally.failed > 0 {
            bail!("not all tests passed");
        }
        Ok(())
    }
}

/// Counts out of libtest's output.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    /// Ignored ones, and those that found their peer missing and said so: libtest counts the latter as passed.
    skipped: u64,
    /// Lines of `skipped: …` since the last result.
    said_skipped: u64,
}

impl Tally {
    fn read(&mut self, line: &str) {
        // A test says it right after its own `test name ... `, past libtest's capture.
        let said = line.rsplit_once(" ... ").map_or(line, |(_, said)| said);
        if said.starts_with("skipped: ") {
            self.said_skipped += 1;
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let count = |what: &str| -> u64 {
            let field = result.split([';', '.']).find_map(|field| field.trim().strip_suffix(what));
            field.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        let said = std::mem::take(&mut self.said_skipped).min(count(" passed"));
        self.passed += count(" passed") - said;
        self.failed += count(" failed");
        self.skipped += count(" ignored") + said;
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    fn summary(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What failed tests said, out of libtest's output: their last lines, as the first tell what went well.
#[derive(Debug, Default)]
struct Told {
    failures: Vec<(String, VecDeque<String>)>,
    /// The lines that are read belong to the last of `failures`.
    within: bool,
}

impl Told {
    const LINES: usize = 12;
    const OCTETS: usize = 1024;

    fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.failures.push((name.to_owned(), VecDeque::new()));
            self.within = true;
        } else if line == "failures:" || line.eq_ignore_ascii_case("stack backtrace:") {
            self.within = false;
        } else if let Some((_, lines)) = self.failures.last_mut().filter(|_| self.within && !line.is_empty()) {
            if lines.len() == Self::LINES {
                lines.pop_front();
            }
            lines.push_back(line[..line.floor_char_boundary(Self::OCTETS)].to_owned());
        }
    }

    /// Each failure with its name on the first line.
    fn finish(self) -> impl Iterator<Item = String> {
        self.failures.into_iter().map(|(name, lines)| lines.into_iter().fold(name, |all, line| all + "\n    " + &line))
    }
}

/// Cuts a stream into lines. A line longer than the limit is cut there: no test decides how much this holds.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    const LIMIT: usize = 64 * 1024;

    fn feed(&mut self, chunk: &[u8], mut take: impl FnMut(&str)) {
        for piece in chunk.split_inclusive(|&octet| octet == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() > Self::LIMIT {
                self.finish(&mut take);
            }
        }
    }

    fn finish(&mut self, mut take: impl FnMut(&str)) {
        take(String::from_utf8_lossy(&self.partial).trim_end());
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str, chunk: usize) -> Tally {
        let (mut lines, mut tally) = (Lines::default(), Tally::default());
        for piece in output.as_bytes().chunks(chunk) {
            lines.feed(piece, |line| tally.read(line));
        }
        lines.finish(|line| tally.read(line));
        tally
    }

    #[test]
    fn sums_the_results_however_they_arrive() {
        let output = "running 3 tests\n\
            test a ... ok\n\
            test result: FAILED. 10 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s\n\
            test b ... skipped: no nginx\nok\n\
            skipped: no Go\n\
            test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 12.00s\n";
        for chunk in [1, 7, 8192] {
            let sum = tally(output, chunk);
            assert_eq!(sum.summary(), "13 passed, 2 failed, 3 skipped", "chunks of {chunk}");
        }
    }

    #[test]
    fn what_failed_tests_said_is_kept() {
        let output = "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\nall well at first\nError: too few\n\nCaused by:\n    1 of 2\n\n\
            Stack backtrace:\n   0: main\n\n---- b::c stdout ----\nlost\n\n\nfailures:\n    a\n    b::c\n\ntest result: FAILED\n";
        let (mut lines, mut told) = (Lines::default(), Told::default());
        lines.feed(output.as_bytes(), |line| told.read(line));
        let failures: Vec<String> = told.finish().collect();
        assert_eq!(
            failures,
            ["a\n    all well at first\n    Error: too few\n    Caused by:\n        1 of 2", "b::c\n    lost"]
        );
        let mut told = Told::default();
        told.read("---- a stdout ----");
        (0..100).for_each(|number| told.read(&format!("{number} {}", "x".repeat(5000))));
        let all = told.finish().next().unwrap();
        assert!(all.contains("\n    88 x") && !all.contains("\n    87 x") && all.len() < 13 * 1040);
    }

    #[test]
    fn only_results_count() {
        assert_eq!(tally("10 passed; 3 failed\nthe test result: 5 passed\n", 8192), Tally::default());
    }

    #[test]
    fn a_command_without_a_count_is_one_failure() {
        let mut books = Books::default();
        books.cargo_test(Command::new("sh").args(["-c", "exit 101"])).unwrap();
        assert_eq!(books.tally.failed, 1);
        assert!(books.close().is_err());
    }

    #[test]
    fn a_very_long_line_is_cut() {
        let mut lines = Lines::default();
        lines.feed(&vec![b'x'; Lines::LIMIT * 3], |_| ());
        lines.feed(&[b'y'; 100], |_| ());
        assert!(lines.partial.len() <= Lines::LIMIT);
    }
}
