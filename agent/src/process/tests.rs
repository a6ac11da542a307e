//! Real processes, read through the real `/proc`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use agent_common::ids::{MonoNanos, Tgid};

use proptest::prelude::*;

use super::container::Container;
use super::filter::Filter;
use super::read::{Gone, Identity};
use super::resource::Common;
use super::table::Processes;
use crate::signal::resource::{Resource, Value};

const SECOND: u64 = 1_000_000_000;

/// A directory of its own, removed on drop.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("remora-process-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child that has written its first line, so that it runs what it was told to; ended on drop.
struct Running(Child);

impl Running {
    /// `None`, with the reason printed, when the program is not there.
    fn start(command: &mut Command) -> Option<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        // Whatever the tests themselves run under must not name their children.
        for variable in ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "npm_package_name", "pm_id"] {
            if !command.get_envs().any(|(name, _)| name == variable) {
                command.env_remove(variable);
            }
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            println!("skipped: {program} is not installed");
            return None;
        };
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let running = Self(child);
        assert!(!line.is_empty(), "{program} said nothing");
        Some(running)
    }

    fn tgid(&self) -> Tgid {
        Tgid(self.0.id())
    }

    fn identity(&self) -> Identity {
        Identity::read(self.tgid()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const PYTHON: &str = "import sys\nprint('up', flush=True)\nsys.stdin.read()\n";
const SHELL: &str = "echo up\nread line\n";
const NODE: &str = "console.log('up')\nprocess.stdin.resume()\n";

fn processes(exe: &[&str], pids: &[u32]) -> Processes {
    let exe: Vec<String> = exe.iter().map(|&glob| glob.to_owned()).collect();
    Processes::new(Filter::new(&exe, pids, &[]).unwrap(), Common::detect(None), Tgid(std::process::id()))
}

fn get<'a>(resource: &'a Resource, key: &str) -> Option<&'a Value> {
    resource.attributes.iter().find(|(known, _)| &**known == key).map(|(_, value)| value)
}

fn text(value: &str) -> Value {
    Value::Str(value.into())
}

#[test]
fn a_script_of_python() {
    let directory = Directory::new();
    let script = directory.file("orders/app.py", PYTHON);
    let mut command = Command::new("python3");
    command.arg("-u").arg(&script).args(["--db-password", "hunter2"]);
    let Some(child) = Running::start(&mut command) else { return };
    let identity = child.identity();
    assert_eq!(identity.service_name(), "orders");
    assert_eq!(identity.program.script.as_deref(), script.to_str());
    assert_eq!(identity.launch.parent, Some(Tgid(std::process::id())));

    let resource = processes(&[], &[]).of(child.tgid(), MonoNanos(1)).unwrap();
    assert_eq!(&*resource.service_name, "orders");
    assert_eq!(get(&resource, "service.name"), Some(&text("orders")));
    assert_eq!(get(&resource, "process.pid"), Some(&Value::Int(child.0.id().into())));
    assert_eq!(get(&resource, "telemetry.sdk.language"), Some(&text("python")));
    assert_eq!(get(&resource, "os.type"), Some(&text("linux")));
    assert!(matches!(get(&resource, "host.name"), Some(Value::Str(name)) if !name.is_empty()));
    let Some(Value::Strs(args)) = get(&resource, "process.command_args") else { panic!("no arguments") };
    assert_eq!(args.last().map(AsRef::as_ref), Some("REDACTED"));
    let exe = fs::read_link(format!("/proc/{}/exe", child.0.id())).unwrap();
    assert_eq!(get(&resource, "process.executable.path"), Some(&text(exe.to_str().unwrap())));
    let Some(Value::Str(created)) = get(&resource, "process.creation.time") else { panic!("no time of creation") };
    let created = humantime::parse_rfc3339(created).unwrap();
    let age = SystemTime::now().duration_since(created).unwrap_or_default().as_secs();
    assert!(age < 60, "created {age} s ago");
}

#[test]
fn the_environment_has_the_first_word() {
    let directory = Directory::new();
    let script = directory.file("orders.sh", SHELL);
    let start = |service: &str, attributes: &str| {
        let mut command = Command::new("sh");
        command.arg(&script).env("OTEL_SERVICE_NAME", service).env("OTEL_RESOURCE_ATTRIBUTES", attributes);
        Running::start(&mut command).unwrap()
    };
    let cases = [
        ("till", "service.name=x,service.version=2", "till"),
        ("", "service.name=the%20till,service.version=2", "the till"),
        ("", "service.name=x,broken", "orders"),
        (" ", "", "orders"),
    ];
    for (service, attributes, expected) in cases {
        let child = start(service, attributes);
        let resource = processes(&[], &[]).of(child.tgid(), MonoNanos(1)).unwrap();
        assert_eq!(&*resource.service_name, expected);
        let version = attributes.contains("version").then(|| text("2"));
        assert_eq!(get(&resource, "service.version"), version.as_ref());
    }
}

#[test]
fn workers_of_multiprocessing_are_called_as_their_parent() {
    let directory = Directory::new();
    let script = directory.file(
        "orders.py",
        "import multiprocessing, time\n\
         def work(pipe):\n    pipe.send('up')\n    time.sleep(60)\n\
         if __name__ == '__main__':\n    \
             context = multiprocessing.get_context('spawn')\n    \
             ours, theirs = context.Pipe()\n    \
             worker = context.Process(target=work, args=(theirs,), daemon=True)\n    \
             worker.start()\n    \
             ours.recv()\n    \
             print(worker.pid, flush=True)\n    \
             time.sleep(60)\n",
    );
    let mut command = Command::new("python3");
    let Ok(mut child) = command.arg(&script).stdout(Stdio::piped()).spawn() else {
        println!("skipped: python3 is not installed");
        return;
    };
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = Running(child);
    let worker = Tgid(line.trim().parse().unwrap());
    let resource = processes(&["orders.py"], &[]).of(worker, MonoNanos(1)).unwrap();
    assert_eq!(&*resource.service_name, "orders");
    drop(child);
    // The worker of a parent that was killed goes on for its minute.
    let _ = Command::new("kill").arg(worker.0.to_string()).status();
}

#[test]
fn a_package_of_node() {
    let directory = Directory::new();
    directory.file("shop/package.json", r#"{"name": "@acme/till", "version": "1.0.0"}"#);
    let script = directory.file("shop/dist/index.js", NODE);
    let mut command = Command::new("node");
    command.arg("dist/index.js").current_dir(directory.0.join("shop"));
    let Some(child) = Running::start(&mut command) else { return };
    let identity = child.identity();
    assert_eq!(identity.service_name(), "till");
    assert_eq!(identity.program.script.as_deref(), script.to_str());
    assert_eq!(identity.program.language, Some("nodejs"));
}

#[test]
fn a_manifest_cannot_make_the_agent_wait_or_read_elsewhere() {
    let directory = Directory::new();
    let script = directory.file("web/app.js", NODE);
    let manifest = script.with_file_name("package.json");
    let start = || {
        let mut command = Command::new("node");
        command.arg("app.js").current_dir(directory.0.join("web"));
        Running::start(&mut command)
    };
    // node itself reads the manifest when it starts.
    let Some(child) = start() else { return };
    assert!(Command::new("mkfifo").arg(&manifest).status().unwrap().success());
    assert_eq!(child.identity().service_name(), "web");
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, vec![b' '; 1 << 20]).unwrap();
    assert_eq!(child.identity().service_name(), "web");
    fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink("/proc/self/environ", &manifest).unwrap();
    assert_eq!(child.identity().service_name(), "web");
}

#[test]
fn an_executable_that_was_deleted() {
    let directory = Directory::new();
    let copy = directory.0.join("orders");
    fs::copy("/bin/cat", &copy).unwrap();
    let mut command = Command::new(&copy);
    let mut child = command.arg("/proc/version").arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = Running(child);
    fs::remove_file(&copy).unwrap();
    let identity = child.identity();
    assert_eq!(identity.launch.exe.as_deref(), copy.to_str());
    assert_eq!(identity.service_name(), "orders");
}

#[test]
fn a_process_that_is_gone_is_called_as_its_exec_said() {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let tgid = Tgid(child.id());
    assert_eq!(Identity::read(tgid).unwrap_err(), Gone(tgid));
    assert_eq!(Identity::read(Tgid(u32::MAX)).unwrap_err(), Gone(Tgid(u32::MAX)));

    let mut table = processes(&[], &[]);
    assert_eq!(&*table.of(tgid, MonoNanos(1)).unwrap().service_name, "unknown_service");
    let mut table = processes(&[], &[]);
    assert_eq!(&*table.seen(tgid, b"curl\0", MonoNanos(1)).unwrap().service_name, "curl");
    assert_eq!(table.newly_decided().count(), 0);
    let comm = *b"orders-batch-ru\0";
    for (filename, expected) in [
        ("/srv/shop/orders-batch-runner.py\0", "orders-batch-runner"),
        ("/srv/shop/main.py", "shop"),
        ("/usr/bin/curl\0junk", "curl"),
        ("/usr/bin/python3", "unknown_service:orders-batch-ru"),
        ("/dev/fd/7", "orders-batch-ru"),
        ("", "orders-batch-ru"),
    ] {
        table.executed(tgid, &comm, filename.as_bytes());
        let resource = table.seen(tgid, b"x\0", MonoNanos(2)).unwrap();
        assert_eq!(&*resource.service_name, expected, "{filename}");
        assert_eq!(get(&resource, "process.pid"), Some(&Value::Int(tgid.0.into())));
    }
    let mut chosen = processes(&["orders.py"], &[]);
    assert!(chosen.of(tgid, MonoNanos(1)).is_none());
    chosen.executed(tgid, b"orders.py\0\0\0\0\0\0\0", b"./orders.py\0");
    assert!(chosen.of(tgid, MonoNanos(2)).is_some());
}

#[test]
fn a_zombie_keeps_its_name() {
    let mut child = Command::new("true").spawn().unwrap();
    let tgid = Tgid(child.id());
    let ended = || fs::read_to_string(format!("/proc/{}/stat", tgid.0)).unwrap().contains(") Z ");
    while !ended() {
        std::thread::yield_now();
    }
    let resource = processes(&[], &[]).of(tgid, MonoNanos(1)).unwrap();
    assert_eq!(&*resource.service_name, "true");
    child.wait().unwrap();
}

#[test]
fn the_table_remembers_and_forgets() {
    let directory = Directory::new();
    let script = directory.file("orders.sh", SHELL);
    let child = Running::start(Command::new("sh").arg(&script)).unwrap();
    let mut table = processes(&[], &[]);
    let first = table.of(child.tgid(), MonoNanos(1)).unwrap();
    let again = table.of(child.tgid(), MonoNanos(2)).unwrap();
    assert_eq!(first.id, again.id);
    assert_eq!(table.newly_decided().collect::<Vec<_>>(), [(child.tgid(), true)]);
    assert!(table.of(Tgid(std::process::id()), MonoNanos(2)).is_none(), "the agent traced itself");

    // Notices were lost: it is read again, and is the same.
    table.doubt();
    assert_eq!(table.of(child.tgid(), MonoNanos(3)).unwrap().id, first.id);
    // It runs something else: what is read then counts.
    table.executed(child.tgid(), &[0; 16], b"/x");
    assert_ne!(table.of(child.tgid(), MonoNanos(4)).unwrap().id, first.id);
    // It was said to have ended, but lives: it is the same, by its start.
    let before = table.of(child.tgid(), MonoNanos(4)).unwrap();
    table.exited(child.tgid(), MonoNanos(5));
    assert_eq!(table.of(child.tgid(), MonoNanos(4)).unwrap().id, before.id);
    assert_eq!(table.of(child.tgid(), MonoNanos(6)).unwrap().id, before.id);

    let tgid = child.tgid();
    drop(child);
    assert_eq!(table.of(tgid, MonoNanos(7)).unwrap().id, before.id, "late records find what they belong to");
    table.sweep(MonoNanos(31 * SECOND));
    assert_eq!(table.len(), 2);
    table.sweep(MonoNanos(32 * SECOND));
    assert_eq!(table.len(), 1, "only the test itself is left");
    assert_eq!(&*table.of(tgid, MonoNanos(33 * SECOND)).unwrap().service_name, "x", "as the last exec said");
}

#[test]
fn the_table_is_bounded() {
    let mut table = processes(&[], &[]);
    // Beyond the largest process id there is.
    let ids = (1 << 23)..;
    for (number, id) in (0..10_000).zip(ids.clone()) {
        assert!(table.seen(Tgid(id), b"curl", MonoNanos(number)).is_some());
    }
    assert!(table.len() <= 4096, "{}", table.len());
    assert_eq!(table.evicted() + table.len() as u64, 10_000);
    let mut table = processes(&["nginx"], &[]);
    for (number, id) in (0..40_000).zip(ids) {
        assert!(table.seen(Tgid(id), b"curl", MonoNanos(number)).is_none());
    }
    assert!(table.len() <= 16 * 1024, "{}", table.len());
}

#[test]
fn a_scan_decides_before_anything_is_said() {
    let directory = Directory::new();
    let script = directory.file("scanned.sh", SHELL);
    let child = Running::start(Command::new("sh").arg(&script)).unwrap();
    let own = Tgid(std::process::id());
    let mut all = processes(&[], &[]);
    all.scan(MonoNanos(1));
    assert!(all.is_empty(), "without a filter there is nothing to decide");

    let mut table = processes(&["scanned.sh"], &[]);
    table.scan(MonoNanos(1));
    let decided: Vec<(Tgid, bool)> = table.newly_decided().collect();
    assert!(decided.contains(&(child.tgid(), true)));
    assert!(decided.contains(&(own, false)));
    assert_eq!(decided.iter().filter(|(_, traced)| *traced).count(), 1);
    assert_eq!(&*table.of(child.tgid(), MonoNanos(2)).unwrap().service_name, "scanned");
    assert!(table.of(own, MonoNanos(2)).is_none());
}

#[test]
fn what_was_chosen_stays_so_when_it_is_gone() {
    let directory = Directory::new();
    let child = Running::start(Command::new("sh").arg(directory.file("orders.sh", SHELL))).unwrap();
    let tgid = child.tgid();
    let mut table = processes(&["orders.sh"], &[]);
    table.scan(MonoNanos(1));
    drop(child);
    assert!(table.of(tgid, MonoNanos(2)).is_some());
}

#[test]
fn a_process_chosen_by_its_id_brings_its_descendants() {
    let directory = Directory::new();
    // A child, whose own child tells its id and waits.
    let script = directory.file("family.sh", "sh -c 'sh -c \"echo \\$\\$; read line; exit\"; exit' <&0\nexit\n");
    let mut child = Command::new("sh").arg(&script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = Running(child);
    let descendant = Tgid(line.trim().parse().unwrap());
    assert_ne!(descendant, child.tgid());

    let stranger = Running::start(Command::new("sh").arg(directory.file("other.sh", SHELL))).unwrap();
    let mut table = processes(&[], &[child.0.id()]);
    assert!(table.of(descendant, MonoNanos(1)).is_some());
    assert!(table.of(child.tgid(), MonoNanos(1)).is_some());
    assert!(table.of(stranger.tgid(), MonoNanos(1)).is_none());
    // It stays one of them, whatever it runs, even when nobody is left above it.
    table.exited(child.tgid(), MonoNanos(2));
    table.executed(descendant, &[0; 16], b"/x");
    assert!(table.of(descendant, MonoNanos(3)).is_some());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "([0-9]{0,2}:.{0,4}:)?(/?(docker-|pod|kubepods|[0-9a-f_-]{0,70}|.{0,5})(\\.scope|\\.slice)?){0,4}|.{0,80}", args in prop::collection::vec("[a-z-]{0,4}(password|://|[=:@;& ]){0,3}.{0,6}", 0..6)) {
        let container = Container::from_cgroup(&text).or_mounts(&text);
        prop_assert!(container.id.is_none_or(|id| id.len() >= 42));
        let _ = super::environment::attributes(&text);
        prop_assert!(super::args::exported(&args).len() <= args.len());
        let identity = Identity::from_exec(Tgid(1), text.as_bytes(), args.concat().as_bytes());
        prop_assert!(!identity.service_name().trim().is_empty());
    }
}
