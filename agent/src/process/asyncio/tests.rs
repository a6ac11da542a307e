use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use agent_common::asyncio::{VARIABLES, current_task, name, waiter, waiting_in};

use super::*;

/// Runs a task that says where it is, then waits inside of it.
const RUNS: &str = "
import asyncio, sys
async def main():
    await asyncio.sleep(0)
    await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(20)))
    print('%016x' % id(asyncio.current_task()), end='', flush=True)
    sys.stdin.read(1)
asyncio.new_event_loop().run_until_complete(main())
";
/// Says which task runs, and which waits for it, from inside of a task that is started in one of the ways given.
const WAITED_FOR: &str = "
import asyncio, sys
outer = None
async def inner():
    await asyncio.sleep(0)
    print('%016x' % id(asyncio.current_task()), end='')
    print('%016x' % id(outer), end='', flush=True)
    sys.stdin.read(1)
async def main():
    global outer
    outer = asyncio.current_task()
    HOW
asyncio.new_event_loop().run_until_complete(main())
";
const WAYS: [&str; 4] = [
    "await asyncio.get_running_loop().create_task(inner())",
    "await asyncio.gather(asyncio.sleep(600), inner(), asyncio.sleep(600))",
    "await asyncio.wait([asyncio.ensure_future(inner()), asyncio.ensure_future(asyncio.sleep(600))])",
    "await asyncio.wait_for(asyncio.gather(inner()), None)",
];
/// Nobody waits for it, not only one does, or what is to be done at its end is something else.
const NOBODY_WAITS: [&str; 3] = [
    "asyncio.ensure_future(inner()); await asyncio.sleep(600)",
    "task = asyncio.ensure_future(inner()); asyncio.ensure_future(asyncio.wait([task])); await task",
    "asyncio.ensure_future(inner()).add_done_callback(print); await asyncio.sleep(600)",
];

/// A loop that has a task, but runs none.
const WAITS: &str = "
import asyncio, sys
print('%016x' % 0, end='', flush=True)
async def main():
    asyncio.get_running_loop().call_soon(sys.stdin.read, 1)
    await asyncio.sleep(600)
asyncio.new_event_loop().run_until_complete(main())
";
/// Two loops, each in the middle of a task.
const TWICE: &str = "
import asyncio, sys, threading
both = threading.Barrier(2)
async def main(first):
    both.wait()
    if first:
        print('%016x' % 0, end='', flush=True)
    sys.stdin.read(1) if first else threading.Event().wait(600)
def run(first):
    asyncio.new_event_loop().run_until_complete(main(first))
threading.Thread(target=run, args=(False,), daemon=True).start()
run(True)
";

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// What is found in the memory of a program.
struct Found {
    layout: Option<AsyncioLayout>,
    task: Option<u64>,
    waiter: Option<u64>,
    name: u32,
}

/// The `N` addresses that a program says, and what is found in its memory then.
fn run<const N: usize>(python: &PathBuf, program: &str) -> ([u64; N], Found) {
    let mut command = Command::new(python);
    let child = command.args(["-W", "ignore", "-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = Running(child.unwrap());
    let said = std::array::from_fn(|_| {
        let mut said = [0; 16];
        child.0.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        u64::from_str_radix(std::str::from_utf8(&said).unwrap(), 16).unwrap()
    });
    let tgid = child.0.id();
    let (layout, memory) = (layout(tgid), Memory::of(tgid).unwrap());
    let read = |at| memory.word(at);
    let task = layout.and_then(|layout| current_task(&layout, read));
    let search = |variables| {
        let module = layout.unwrap_or_default().module;
        (0..VARIABLES).find_map(|number| waiting_in(module, variables, number, read)).unwrap_or_default()
    };
    let waiter = task.and_then(|task| waiter(&layout?, task, search, read));
    let name = layout.zip(task).map_or(0, |(layout, task)| name(&layout, task, read));
    (said, Found { layout, task, waiter, name })
}

/// All interpreters of Python that are installed, by release.
fn interpreters() -> Vec<(u32, PathBuf)> {
    let home = std::env::home_dir().unwrap_or_default().join(".pyenv/versions");
    let own = std::fs::read_dir(home).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = own.map(|version| version.path().join("bin/python3")).collect();
    all.extend(["/usr/bin/python3", "/usr/local/bin/python3"].map(PathBuf::from));
    let minor = |python: &PathBuf| {
        let output = Command::new(python).args(["-c", "import sys; print(sys.version_info[1])"]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
    };
    all.into_iter().filter_map(|python| Some((minor(&python)?, python))).collect()
}

#[test]
fn the_task_that_runs_is_found_in_each_release() {
    let known = interpreters().into_iter().filter(|(minor, _)| (8..=13).contains(minor));
    let mut tried = 0;
    for (minor, python) in known {
        let ([said], found) = run(&python, RUNS);
        assert!(found.layout.is_some(), "{}", python.display());
        assert_eq!((found.task, found.waiter), (Some(said), None), "{} ({minor})", python.display());
        for other in [WAITS, TWICE] {
            let ([_], found) = run(&python, other);
            assert!(found.layout.is_some(), "{}", python.display());
            assert_eq!(found.task, None, "{} {other}", python.display());
        }
        println!("{}", python.display());
        tried += 1;
    }
    if tried == 0 {
        println!("SKIPPED: no Python from 3.8 to 3.13");
    }
}

/// A task that is started after so many others, whose names are numbers.
const IN_TURNS: &str = "
import asyncio, sys
async def inner():
    pass
async def main():
    asyncio.current_task().set_name('a name of its own') if NAMED else None
    print('%016x' % id(asyncio.current_task()), end='', flush=True)
    sys.stdin.read(1)
async def start():
    for _ in range(COUNT):
        await asyncio.create_task(inner())
    task = asyncio.create_task(main())
    if ASKED:
        task.get_name()
    await task
asyncio.new_event_loop().run_until_complete(start())
";

#[test]
fn tasks_have_names_of_their_own() {
    for (minor, python) in interpreters().into_iter().filter(|(minor, _)| (8..=13).contains(minor)) {
        let name = |count: &str, named: &str, asked: &str| {
            let program = IN_TURNS.replace("COUNT", count).replace("NAMED", named).replace("ASKED", asked);
            let ([task], found) = run(&python, &program);
            assert_eq!(found.task, Some(task), "3.{minor}");
            // What the number contributes, as the place differs from process to process.
            found.name ^ ((task >> 4) as u32).wrapping_mul(0x9e37_79b1)
        };
        let number = |number: u32| number.wrapping_mul(0x85eb_ca6b);
        for (count, expected) in [("0", 2), ("5", 7), ("120", 122), ("100000", 100_002)] {
            assert_eq!(name(count, "False", "False"), number(expected), "3.{minor} after {count}");
            assert_eq!(name(count, "False", "True"), number(expected), "3.{minor} after {count}, asked for its name");
        }
        assert_ne!(name("5", "True", "False"), number(7), "3.{minor}");
    }
}

#[test]
fn the_task_that_waits_for_it_is_found() {
    for (minor, python) in interpreters().into_iter().filter(|(minor, _)| (8..=13).contains(minor)) {
        for way in WAYS {
            let ([task, waiter], found) = run(&python, &WAITED_FOR.replace("HOW", way));
            assert_eq!((found.task, found.waiter), (Some(task), Some(waiter)), "3.{minor} {way}");
        }
        for way in NOBODY_WAITS {
            let ([task, _], found) = run(&python, &WAITED_FOR.replace("HOW", way));
            assert_eq!((found.task, found.waiter), (Some(task), None), "3.{minor} {way}");
        }
    }
}

#[test]
fn other_processes_have_none() {
    assert_eq!(layout(std::process::id()), None);
    assert_eq!(layout(u32::MAX), None);
    for (_, python) in interpreters() {
        let ([_], found) = run(&python, "import sys\nprint('%016x' % 0, end='', flush=True)\nsys.stdin.read(1)");
        assert_eq!(found.layout, None, "{}", python.display());
    }
}

#[test]
fn names_tell_the_release() {
    for (name, expected) in [
        ("_asyncio.cpython-311-x86_64-linux-gnu.so", Some(11)),
        ("_asyncio.cpython-37m-x86_64-linux-gnu.so", None),
        ("_asyncio.cpython-313t-x86_64-linux-gnu.so", None),
        ("_asyncio.cpython-3.so", None),
        ("asyncio.cpython-311-x86_64-linux-gnu.so", None),
        ("_asyncio.so", None),
    ] {
        assert_eq!(minor(name), expected, "{name}");
    }
}
