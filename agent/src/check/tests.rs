use std::collections::HashMap;
use std::io;

use agent_common::layout::Layout;
use anyhow::{anyhow, bail};

use super::*;
use crate::probe::hooks::HOOKS;

/// A host by what it answers; what is not named is not there.
#[derive(Clone)]
struct Fake {
    files: HashMap<&'static str, Result<String, io::ErrorKind>>,
    links: HashMap<&'static str, &'static str>,
    layout: Result<Layout, String>,
    hooks: fn(&Hook) -> anyhow::Result<()>,
    load: fn() -> anyhow::Result<()>,
    sockets: HashMap<u32, Sockets>,
}

const MOUNTS: &str = "proc /proc proc rw 0 0\nnodev /sys/kernel/tracing tracefs rw,relatime 0 0\n\
                      none /sys/kernel/security securityfs rw 0 0\n";

/// Root on a current kernel under integrity lockdown.
fn good() -> Fake {
    Fake {
        files: [
            ("/proc/sys/kernel/osrelease", "6.12.43+deb13-cloud-amd64\n"),
            ("/proc/self/status", "Name:\tremora\nCapEff:\t000001fffeffffff\n"),
            ("/proc/self/mounts", MOUNTS),
            ("/proc/cmdline", "quiet\n"),
            ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("/sys/kernel/tracing/events/sock/inet_sock_set_state/id", "1234\n"),
        ]
        .map(|(path, text)| (path, Ok(text.to_owned())))
        .into(),
        links: [("/proc/self/ns/pid", HOST_PID_NAMESPACE)].into(),
        layout: Ok(Layout::default()),
        hooks: |_| Ok(()),
        load: || Ok(()),
        sockets: HashMap::new(),
    }
}

impl Fake {
    fn file(mut self, path: &'static str, text: &str) -> Self {
        self.files.insert(path, Ok(text.to_owned()));
        self
    }

    fn no_file(mut self, path: &'static str, kind: io::ErrorKind) -> Self {
        self.files.insert(path, Err(kind));
        self
    }

    fn report(mut self) -> Report {
        report(&mut self, Vec::new())
    }
}

impl Host for Fake {
    fn text(&self, path: &str) -> io::Result<String> {
        match self.files.get(path) {
            Some(Ok(text)) => Ok(text.clone()),
            Some(Err(kind)) => Err((*kind).into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn link(&self, path: &str) -> io::Result<String> {
        self.links.get(path).map(|&target| target.to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn layout(&self) -> Result<Layout, String> {
        self.layout.clone()
    }

    fn try_hooks(&self, _: &Layout) -> anyhow::Result<Vec<(Hook, anyhow::Result<()>)>> {
        (self.load)()?;
        Ok(HOOKS.iter().map(|hook| (*hook, (self.hooks)(hook))).collect())
    }

    fn sockets(&mut self, pid: u32) -> Option<Sockets> {
        self.sockets.get(&pid).cloned()
    }
}

fn item<'a>(report: &'a Report, id: &str) -> &'a Item {
    let mut items = report.host.iter().chain(&report.capabilities).chain(&report.hooks);
    items.find(|item| item.id == id).unwrap()
}

#[track_caller]
fn check(report: &Report, id: &str, outcome: Outcome, ready: bool, first: &str) {
    assert_eq!(item(report, id).outcome, outcome, "{:?}", item(report, id));
    assert_eq!(report.ready, ready, "{report:?}");
    let said = report.first.clone().unwrap_or_default();
    assert!(said.starts_with(first) && said.is_empty() == first.is_empty(), "{said:?} begins with {first:?}");
}

#[test]
fn a_good_host_is_ready() {
    let report = good().report();
    assert!(report.ready && report.first.is_none());
    let items = || report.host.iter().chain(&report.capabilities).chain(&report.hooks);
    for item in items() {
        assert_eq!(
            item.outcome,
            if std::env::consts::ARCH == "x86_64" || item.id != "arch" { Outcome::Ok } else { Outcome::Unknown }
        );
    }
    assert_eq!(report.hooks.len(), HOOKS.len());
}

#[test]
fn kernels() {
    for (release, outcome) in [
        ("5.17.0-1-generic", Outcome::Ok),
        ("6.1.0", Outcome::Ok),
        ("10.0-rc1", Outcome::Ok),
        ("5.14.21", Outcome::Missing),
        ("4.19", Outcome::Missing),
        ("6", Outcome::Unknown),
        ("", Outcome::Unknown),
        ("99999999999.1", Outcome::Unknown),
    ] {
        let first = if outcome == Outcome::Missing { "use kernel 5.17 or newer" } else { "" };
        let report = good().file("/proc/sys/kernel/osrelease", release).report();
        check(&report, "kernel", outcome, outcome != Outcome::Missing, first);
    }
}

#[test]
fn without_type_information_no_hook_is_tried() {
    let mut host = good();
    host.layout = Err("the kernel has no type information".to_owned());
    let report = host.report();
    check(&report, "btf", Outcome::Missing, false, "use a kernel with type information (CONFIG_DEBUG_INFO_BTF=y)");
    assert_eq!(report.hooks.len(), 1);
    check(&report, "hooks", Outcome::Missing, false, "use a kernel");
}

#[test]
fn lockdown_modes() {
    const FILE: &str = "/sys/kernel/security/lockdown";
    const ADVICE: &str = "start the kernel with lockdown=integrity";
    check(&good().file(FILE, "[none] integrity confidentiality").report(), "lockdown", Outcome::Ok, true, "");
    check(&good().file(FILE, "none integrity [confidentiality]").report(), "lockdown", Outcome::Missing, false, ADVICE);
    // Not built in.
    let none = good().no_file(FILE, io::ErrorKind::NotFound);
    check(&none.clone().report(), "lockdown", Outcome::Ok, true, "");
    // securityfs is not mounted.
    let unseen = none.file("/proc/self/mounts", "nodev /sys/kernel/tracing tracefs rw 0 0");
    check(&unseen.clone().report(), "lockdown", Outcome::Unknown, true, "");
    let by_parameter = unseen.file("/proc/cmdline", "quiet lockdown=confidentiality root=/dev/sda");
    check(&by_parameter.report(), "lockdown", Outcome::Missing, false, ADVICE);
}

#[test]
fn tracefs_places() {
    let none = good()
        .file("/proc/self/mounts", "none /mnt/tracing tracefs rw 0 0\nshort\n\n")
        .no_file("/sys/kernel/tracing/events/sock/inet_sock_set_state/id", io::ErrorKind::NotFound);
    check(&none.clone().report(), "tracefs", Outcome::Missing, false, "mount it: mount -t tracefs");
    let debugfs = none.file("/sys/kernel/debug/tracing/events/sock/inet_sock_set_state/id", "1");
    check(&debugfs.report(), "tracefs", Outcome::Ok, true, "");
}

#[test]
fn a_container_with_its_own_processes() {
    let mut host = good();
    host.links.insert("/proc/self/ns/pid", "pid:[4026532000]");
    check(&host.report(), "pid_namespace", Outcome::Missing, false, "run in the host's pid namespace");
}

#[test]
fn without_root_the_missing_capabilities_are_named() {
    const ID: &str = "/sys/kernel/tracing/events/sock/inet_sock_set_state/id";
    let mut user =
        good().file("/proc/self/status", "CapEff:\t0000000000000000").no_file(ID, io::ErrorKind::PermissionDenied);
    user.load = || bail!("cannot load the kernel side: Operation not permitted");
    let report = user.clone().report();
    let advice = "run remora as root, or give it the capabilities it lacks: CAP_BPF, CAP_PERFMON, CAP_DAC_READ_SEARCH";
    check(&report, "CAP_BPF", Outcome::Missing, false, advice);
    assert_eq!(
        privileges_on(&user).unwrap_err().to_string(),
        "capture needs CAP_BPF, CAP_PERFMON, CAP_DAC_READ_SEARCH: run as root, or see what 'remora check' says"
    );
    assert_eq!(privileges_on(&good()), Ok(()));
    assert_eq!(report.first.as_deref(), Some(advice));
    assert!(!item(&report, "CAP_SYS_PTRACE").needed);
    assert_eq!(item(&report, "hooks").detail, "cannot load the kernel side: Operation not permitted");

    // Only CAP_BPF and CAP_PERFMON, and a tracefs that lets everyone read.
    let mask = format!("CapEff:\t{:016x}", (1u64 << 39) | (1 << 38));
    let enough = good().file("/proc/self/status", &mask).report();
    check(&enough, "CAP_DAC_READ_SEARCH", Outcome::Missing, true, "");
    // CAP_SYS_ADMIN stands for both.
    let admin = good().file("/proc/self/status", &format!("CapEff:\t{:016x}", 1u64 << 21)).report();
    check(&admin, "CAP_PERFMON", Outcome::Ok, true, "");
    let unreadable = good().file("/proc/self/status", "CapEff:\tnonsense").report();
    check(&unreadable, "capabilities", Outcome::Unknown, true, "");
}

#[test]
fn hooks_that_do_not_attach() {
    let mut host = good();
    host.hooks = |hook| match hook.need {
        Need::Required => Ok(()),
        Need::Optional(_) => Err(anyhow!("no such tracepoint\nverifier says a lot").context("cannot attach")),
    };
    let report = host.clone().report();
    check(&report, "syscalls:sys_enter_write", Outcome::Missing, true, "");
    let hook = item(&report, "syscalls:sys_enter_write");
    assert_eq!(hook.detail, "cannot attach: no such tracepoint");
    assert!(hook.advice.as_ref().unwrap().starts_with("without it: sent octets"));
    host.hooks = |_| Err(anyhow!("refused"));
    check(&host.report(), "syscalls:sys_exit_read", Outcome::Missing, false, "sock:inet_sock_set_state: refused");
}

fn processes() -> (Fake, Vec<Row>) {
    let mut host = good();
    host.sockets = [
        (30, Sockets { listening: vec![80, 443], connections: 2 }),
        (20, Sockets { listening: vec![], connections: 1 }),
        (10, Sockets::default()),
        (40, Sockets { listening: vec![22], connections: 0 }),
    ]
    .into();
    let row = |pid, service: &str, reason: Option<&str>| Row {
        pid,
        service: service.to_owned(),
        executable: Some("/usr/bin/python3".to_owned()),
        language: Some("python".to_owned()),
        reason: reason.map(str::to_owned),
    };
    let rows = vec![
        row(5, "unread", None),
        row(10, "cron", None),
        row(20, "orders\x1b[2J", None),
        row(30, "shop", None),
        row(40, "sshd", Some("excluded by --exclude-exe sshd")),
    ];
    (host, rows)
}

#[test]
fn processes_with_sockets_come_first() {
    let (mut host, rows) = processes();
    let report = report(&mut host, rows);
    let pids: Vec<_> = report.processes.iter().map(|process| (process.pid, process.traced)).collect();
    assert_eq!(pids, [(20, true), (30, true), (40, false), (5, true), (10, true)]);
}

#[test]
fn text_for_people() {
    let (mut host, rows) = processes();
    let mut report = report(&mut host, rows);
    report.version = "1.2.3";
    report.arch = "x86_64";
    report.hooks.truncate(2);
    report.hooks[1].outcome = Outcome::Missing;
    report.hooks[1].detail = "refused".to_owned();
    report.hooks[1].advice = Some("without it: names".to_owned());
    let expected = "\
Remora 1.2.3 on Linux 6.12.43+deb13-cloud-amd64 (x86_64)

Host
  ✓ kernel         6.12.43+deb13-cloud-amd64
  ✓ arch           x86_64
  ✓ btf            the kernel's type information has all that capture reads
  ✓ lockdown       integrity
  ✓ tracefs        /sys/kernel/tracing
  ✓ pid_namespace  the host's

Capabilities
  ✓ CAP_BPF              to load the programs and their maps
  ✓ CAP_PERFMON          to attach to tracepoints and to read sockets
  ✓ CAP_DAC_READ_SEARCH  to read tracefs and the files of other users' processes
  ✓ CAP_SYS_PTRACE       to learn what other users' processes are: executable, service name, sockets
  ✓ CAP_SYS_ADMIN        stands for CAP_BPF and CAP_PERFMON, not needed beside them
  ✓ CAP_NET_ADMIN        for --propagate: to attach to packets and messages

Hooks: 1 of 2 attach
  ✓ sock:inet_sock_set_state  attaches
  – sched:sched_process_exec  refused; without it: names

Processes: 4 traced, 1 left out
  ✓ 20  orders\\u{1b}[2J  python  1 connection                    /usr/bin/python3
  ✓ 30  shop            python  port 80 and 1 more, 2 connections  /usr/bin/python3
  – 40  sshd            python  port 22                           left out: excluded by --exclude-exe sshd
    and 2 more without TCP sockets: --json shows all

Capture can work.
";
    // Columns are compared by what stands in them and by where the last one begins.
    let text = text::render(&report, true);
    let words =
        |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(words(&text), words(expected));
    let column = |word: &str| {
        text.lines()
            .find_map(|line| line.contains(word).then(|| line[..line.find(word).unwrap()].chars().count()))
            .unwrap()
    };
    assert_eq!(column("left out: excluded"), column("/usr/bin/python3"));

    report.processes.iter_mut().for_each(|process| process.traced = false);
    assert!(text::render(&report, true).ends_with("leave no process to trace yet.\n"));
    report.ready = false;
    report.first = Some("do this".to_owned());
    let ascii = text::render(&report, false);
    assert!(
        ascii.is_ascii() && ascii.contains("\n  + kernel") && ascii.ends_with("Capture cannot work. First: do this.\n")
    );
}

#[test]
fn the_form_of_the_json_is_stable() {
    let (mut host, mut rows) = processes();
    rows.truncate(1);
    rows[0].executable = None;
    let mut report = report(&mut host, rows);
    report.host.truncate(1);
    report.capabilities.clear();
    report.hooks.truncate(1);
    report.hooks[0] = Item::missing("a:b", "refused").needed(false).advice("without it: names");
    report.version = "1.2.3";
    report.arch = "x86_64";
    let expected = r#"{"schema":1,"version":"1.2.3","ready":true,"first":null,"kernel":"6.12.43+deb13-cloud-amd64","arch":"x86_64","host":[{"id":"kernel","outcome":"ok","needed":true,"detail":"6.12.43+deb13-cloud-amd64"}],"capabilities":[],"hooks":[{"id":"a:b","outcome":"missing","needed":false,"detail":"refused","advice":"without it: names"}],"processes":[{"pid":5,"service":"unread","language":"python","traced":true,"listening":null,"connections":null}]}"#;
    assert_eq!(serde_json::to_string(&report).unwrap(), expected);
}

#[test]
fn locales() {
    for (variables, expected) in [
        (&[("LANG", "C.UTF-8")][..], true),
        (&[("LANG", "de_DE.utf8")], true),
        (&[("LC_ALL", "C"), ("LANG", "C.UTF-8")], false),
        (&[("LC_ALL", ""), ("LC_CTYPE", "en_US.UTF-8")], true),
        (&[], false),
    ] {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        assert_eq!(text::utf8(&variable), expected, "{variables:?}");
    }
}

#[test]
fn sockets_of_this_process_are_found() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap();
    let other = std::net::TcpListener::bind("[::1]:0").ok();
    let sockets = ThisHost::default().sockets(std::process::id()).unwrap();
    assert!(sockets.listening.contains(&port), "{sockets:?}");
    assert!(other.is_none_or(|other| sockets.listening.contains(&other.local_addr().unwrap().port())));
    // Other tests of this process have theirs.
    assert!(sockets.connections >= 2, "{sockets:?}");
    drop((client, server));
    assert_eq!(ThisHost::default().sockets(u32::MAX), None);
}

#[test]
fn processes_are_chosen_as_the_flags_say() {
    use crate::config::Selection;
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let own = std::process::id();
    let rows = |selection: Selection| {
        let rows = list::rows(&selection).unwrap();
        let reason = |pid| rows.iter().find(|row| row.pid == pid).and_then(|row| row.reason.clone());
        assert_eq!(reason(own).as_deref(), Some("Remora itself"));
        assert!(rows.iter().any(|row| row.pid == child.id()));
        reason(child.id())
    };
    let sleep = || vec!["sleep".to_owned()];
    assert_eq!(rows(Selection::default()), None);
    assert_eq!(rows(Selection { exe: sleep(), ..Selection::default() }), None);
    assert_eq!(rows(Selection { pids: vec![own], ..Selection::default() }), None, "a descendant");
    let others = Selection { exe: vec!["/nowhere/*".to_owned()], ..Selection::default() };
    assert_eq!(rows(others).as_deref(), Some("not chosen by --exe or --pid"));
    let excluded = Selection { exclude_exe: sleep(), pids: vec![child.id()], ..Selection::default() };
    assert_eq!(rows(excluded).as_deref(), Some("excluded by --exclude-exe"));
    assert!(list::rows(&Selection { exe: vec!["[".to_owned()], ..Selection::default() }).is_err());
    child.kill().unwrap();
    child.wait().unwrap();
}
