//! `remora check`: what this host allows, why not, and what would be traced.
//!
//! With `--json` one object is printed, whose form is stable (a change that is no addition raises `schema`):
//! ```text
//! { "schema": 1,
//!   "version": "0.1.0",                  the agent's
//!   "ready": true,                       capture can work; exit status 0, else 1
//!   "first": null,                       what to do first when it cannot, in words
//!   "kernel": "6.12.0", "arch": "x86_64",
//!   "host": [ITEM…],                     id: kernel | arch | btf | lockdown | tracefs | pid_namespace
//!   "capabilities": [ITEM…],             id: CAP_BPF …
//!   "hooks": [ITEM…],                    id: syscalls:sys_exit_read …; a single item "hooks" when none could be tried
//!   "processes": [{ "pid": 1, "service": "orders", "executable": "/usr/bin/python3"?, "language": "python"?,
//!                   "traced": true, "reason": "…"?,     why it is not traced
//!                   "listening": [8080], "connections": 3 }] }      TCP; null where they cannot be read
//! ITEM: { "id": "…", "outcome": "ok" | "missing" | "unknown",
//!         "needed": true,                capture cannot work while it is missing
//!         "detail": "…",                 what was found, and what it is for
//!         "advice": "…"? }               what to do about it
//! ```
//! A key with `?` is left out where there is nothing to say. Processes with TCP sockets come first.

mod host;
mod list;
mod sockets;
mod text;

use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

pub use self::host::{Host, ThisHost};
pub use self::sockets::Sockets;
use crate::config::Config;
use crate::probe::hooks::{Hook, Need};

/// The oldest kernel that capture is made for: the first with `bpf_loop`.
const KERNEL_MIN: (u32, u32) = (5, 17);
/// The inode of the host's pid namespace, the same on every kernel (`PROC_PID_INIT_INO`).
const HOST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// A file that attaching reads; only root may, or who has `CAP_DAC_READ_SEARCH`.
const TRACEPOINT_ID: &str = "events/sock/inet_sock_set_state/id";
/// Where tracefs is looked for.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// A process that is there.
#[derive(Clone, Debug)]
pub struct Row {
    pub pid: u32,
    pub service: String,
    pub executable: Option<String>,
    pub language: Option<String>,
    /// Why it would not be traced; `None` when it would.
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub version: &'static str,
    pub ready: bool,
    pub first: Option<String>,
    pub kernel: String,
    pub arch: &'static str,
    pub host: Vec<Item>,
    pub capabilities: Vec<Item>,
    pub hooks: Vec<Item>,
    pub processes: Vec<Process>,
}

/// One thing that capture needs or likes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    pub id: String,
    pub outcome: Outcome,
    pub needed: bool,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Ok,
    Missing,
    Unknown,
}

#[derive(Clone, Debug, Serialize)]
pub struct Process {
    pub pid: u32,
    pub service: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    pub traced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Ports, ascending.
    pub listening: Option<Vec<u16>>,
    pub connections: Option<usize>,
}

/// Checks this host, prints the report to standard output, and gives the exit status: 0 when capture can work, else 1.
pub fn run(config: &Config, json: bool) -> ExitCode {
    let rows = match list::rows(&config.selection) {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("remora: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let report = report(&mut ThisHost::default(), rows);
    let text = if json {
        serde_json::to_string(&report).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")) + "\n"
    } else {
        text::render(&report, text::utf8(&|name| std::env::var(name).ok()))
    };
    // Who closes the pipe early has seen enough; the exit status tells the rest.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if report.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Capabilities that capture needs and this process lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("capture needs {}: run as root, or see what 'remora check' says", .0.join(", "))]
pub struct Unprivileged(pub Vec<String>);

/// Whether this process may capture at all, so that an agent that cannot start names what it lacks.
///
/// # Errors
/// The names of the capabilities missing.
pub fn privileges() -> Result<(), Unprivileged> {
    privileges_on(&ThisHost::default())
}

fn privileges_on(host: &impl Host) -> Result<(), Unprivileged> {
    let items = capabilities(host).into_iter().filter(Item::is_in_the_way);
    let missing: Vec<_> = items.map(|item| item.id).collect();
    if missing.is_empty() { Ok(()) } else { Err(Unprivileged(missing)) }
}

/// Asks `host` for everything.
pub fn report(host: &mut impl Host, rows: Vec<Row>) -> Report {
    let kernel = trimmed(host, "/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let layout = host.layout();
    let items = vec![
        kernel_version(&kernel),
        architecture(),
        match &layout {
            Ok(_) => Item::ok("btf", "the kernel's type information has all that capture reads"),
            Err(error) => Item::missing("btf", one_line(error))
                .advice("use a kernel with type information (CONFIG_DEBUG_INFO_BTF=y), as current distributions have"),
        },
        lockdown(host),
        tracefs(host),
        pid_namespace(host),
    ];
    let capabilities = capabilities(host);
    let hooks = match &layout {
        Ok(layout) => match host.try_hooks(layout) {
            Ok(trials) => trials.into_iter().map(|(hook, result)| Item::of_hook(&hook, result)).collect(),
            Err(error) => vec![Item::missing("hooks", one_line(format!("{error:#}")))],
        },
        Err(_) => vec![Item::missing("hooks", "not tried: the kernel's type information is missing")],
    };
    let mut processes: Vec<_> = rows.into_iter().map(|row| Process::of(row, host)).collect();
    processes.sort_by_key(|process| (!process.has_sockets(), !process.traced, process.pid));
    let in_the_way = || items.iter().chain(&capabilities).chain(&hooks).filter(|item| item.is_in_the_way());
    Report {
        schema: 1,
        version: env!("CARGO_PKG_VERSION"),
        ready: in_the_way().next().is_none(),
        first: first(in_the_way()),
        kernel,
        arch: std::env::consts::ARCH,
        host: items,
        capabilities,
        hooks,
        processes,
    }
}

/// What to do first: the earliest thing in the way whose remedy is known, since later ones often follow from it.
fn first<'a>(mut in_the_way: impl Iterator<Item = &'a Item> + Clone) -> Option<String> {
    let remedy = in_the_way.clone().find_map(|item| item.advice.clone());
    remedy.or_else(|| in_the_way.next().map(|item| format!("{}: {}", item.id, item.detail)))
}

impl Item {
    fn new(id: &str, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { id: id.to_owned(), outcome, needed: true, detail: detail.into(), advice: None }
    }

    fn ok(id: &str, detail: impl Into<String>) -> Self {
        Self::new(id, Outcome::Ok, detail)
    }

    fn missing(id: &str, detail: impl Into<String>) -> Self {
        Self::new(id, Outcome::Missing, detail)
    }

    fn unknown(id: &str, detail: impl Into<String>) -> Self {
        Self::new(id, Outcome::Unknown, detail)
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    fn needed(self, needed: bool) -> Self {
        Self { needed, ..self }
    }

    fn is_in_the_way(&self) -> bool {
        self.needed && self.outcome == Outcome::Missing
    }

    fn of_hook(hook: &Hook, result: anyhow::Result<()>) -> Self {
        let id = format!("{}:{}", hook.category, hook.tracepoint);
        let needed = hook.need == Need::Required;
        match (result, hook.need) {
            (Ok(()), _) => Self::ok(&id, "attaches"),
            (Err(error), Need::Required) => Self::missing(&id, one_line(format!("{error:#}"))),
            (Err(error), Need::Optional(lost)) => {
                Self::missing(&id, one_line(format!("{error:#}"))).advice(format!("without it: {lost}"))
            }
        }
        .needed(needed)
    }
}

impl Process {
    fn of(row: Row, host: &mut impl Host) -> Self {
        let sockets = host.sockets(row.pid);
        Self {
            pid: row.pid,
            service: row.service,
            executable: row.executable,
            language: row.language,
            traced: row.reason.is_none(),
            reason: row.reason,
            connections: sockets.as_ref().map(|sockets| sockets.connections),
            listening: sockets.map(|sockets| sockets.listening),
        }
    }

    fn has_sockets(&self) -> bool {
        self.connections.is_some_and(|count| count > 0)
            || self.listening.as_ref().is_some_and(|ports| !ports.is_empty())
    }
}

fn kernel_version(release: &str) -> Item {
    let (major, minor) = KERNEL_MIN;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(one), Some(two)) if (one, two) >= KERNEL_MIN => Item::ok("kernel", release),
        (Some(_), Some(_)) => Item::missing("kernel", format!("{release} is too old"))
            .advice(format!("use kernel {major}.{minor} or newer")),
        _ => Item::unknown(
            "kernel",
            format!("version '{release}' is not understood; {major}.{minor} or newer is needed"),
        ),
    }
}

fn architecture() -> Item {
    match std::env::consts::ARCH {
        "x86_64" => Item::ok("arch", "x86_64"),
        other => Item::unknown("arch", format!("{other}: capture is tested on x86_64 only")),
    }
    .needed(false)
}

/// Lockdown keeps even root from reading kernel memory in its mode `confidentiality`; see `kernel_lockdown(7)`.
fn lockdown(host: &impl Host) -> Item {
    const FILE: &str = "/sys/kernel/security/lockdown";
    let mode = match trimmed(host, FILE) {
        // `none [integrity] confidentiality`: the mode in brackets holds.
        Some(modes) => modes.split(['[', ']']).nth(1).map(str::to_owned),
        // Without securityfs, what the kernel was started with. The mode may have been raised since.
        None => trimmed(host, "/proc/cmdline").and_then(|line| {
            line.split_ascii_whitespace().find_map(|word| word.strip_prefix("lockdown=").map(str::to_owned))
        }),
    };
    match mode.as_deref() {
        Some("confidentiality") => Item::missing("lockdown", "confidentiality: the kernel lets no one read its memory")
            .advice("start the kernel with lockdown=integrity or without lockdown"),
        Some(mode) => Item::ok("lockdown", mode),
        None if !mounts(host, "securityfs").is_empty() => Item::ok("lockdown", "none"),
        None => Item::unknown(
            "lockdown",
            "not known, as securityfs is not mounted; the hooks below tell whether it is in the way",
        ),
    }
}

fn tracefs(host: &impl Host) -> Item {
    match tracefs_at(host) {
        Some(at) => Item::ok("tracefs", at),
        None => Item::missing("tracefs", "not mounted, so that there is nothing to attach to")
            .advice("mount it: mount -t tracefs tracefs /sys/kernel/tracing (in a container, mount the host's)"),
    }
}

/// The kernel side counts processes as the host does: elsewhere its numbers would be taken for other processes.
fn pid_namespace(host: &impl Host) -> Item {
    match host.link("/proc/self/ns/pid") {
        Ok(namespace) if namespace == HOST_PID_NAMESPACE => Item::ok("pid_namespace", "the host's"),
        Ok(_) => Item::missing("pid_namespace", "not the host's, so that processes cannot be told apart")
            .advice("run in the host's pid namespace (hostPID: true in Kubernetes, --pid=host in Docker)"),
        Err(error) => Item::unknown("pid_namespace", format!("cannot be read: {error}")),
    }
}

/// A capability, its number (`capability.h`), whether capture needs it, and what for.
const CAPABILITIES: [(&str, u32, bool, &str); 6] = [
    ("CAP_BPF", 39, true, "to load the programs and their maps"),
    ("CAP_PERFMON", 38, true, "to attach to tracepoints and to read sockets"),
    ("CAP_DAC_READ_SEARCH", 2, false, "to read tracefs and the files of other users' processes"),
    ("CAP_SYS_PTRACE", 19, false, "to learn what other users' processes are: executable, service name, sockets"),
    ("CAP_SYS_ADMIN", 21, false, "stands for CAP_BPF and CAP_PERFMON, not needed beside them"),
    ("CAP_NET_ADMIN", 12, false, "for --propagate: to attach to packets and messages"),
];
const SYS_ADMIN: u32 = 21;

fn capabilities(host: &impl Host) -> Vec<Item> {
    let status = trimmed(host, "/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) else {
        return vec![Item::unknown("capabilities", "/proc/self/status does not tell them")];
    };
    let have = |number: u32| effective >> number & 1 == 1;
    // Root without the capability may read tracefs, and on some hosts a group may.
    let tracefs_is_closed = tracefs_at(host)
        .and_then(|at| host.text(&format!("{at}/{TRACEPOINT_ID}")).err())
        .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    let mut items: Vec<_> = CAPABILITIES
        .iter()
        .map(|&(name, number, needed, purpose)| {
            let item = if have(number) {
                Item::ok(name, purpose)
            } else if needed && have(SYS_ADMIN) {
                Item::ok(name, format!("{purpose}: CAP_SYS_ADMIN stands for it"))
            } else {
                Item::missing(name, purpose)
            };
            item.needed(needed || (name == "CAP_DAC_READ_SEARCH" && tracefs_is_closed))
        })
        .collect();
    let missing: Vec<_> = items.iter().filter(|item| item.is_in_the_way()).map(|item| item.id.clone()).collect();
    let advice = format!("run remora as root, or give it the capabilities it lacks: {}", missing.join(", "));
    for item in items.iter_mut().filter(|item| item.is_in_the_way()) {
        item.advice = Some(advice.clone());
    }
    items
}

/// Where tracefs is, if where it is looked for. Within debugfs it is only mounted when someone looks.
fn tracefs_at(host: &impl Host) -> Option<&'static str> {
    let by_mount = TRACEFS.into_iter().find(|at| mounts(host, "tracefs").iter().any(|place| place == at));
    by_mount.or_else(|| TRACEFS.into_iter().find(|at| host.text(&format!("{at}/{TRACEPOINT_ID}")).is_ok()))
}

/// Where file systems of this type are mounted.
fn mounts(host: &impl Host, kind: &str) -> Vec<String> {
    let mounts = host.text("/proc/self/mounts").unwrap_or_default();
    // `device place type options …`
    let places = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == kind).then(|| place.to_owned())
    });
    places.collect()
}

fn trimmed(host: &impl Host, path: &str) -> Option<String> {
    host.text(path).ok().map(|text| text.trim().to_owned())
}

/// The verifier may have written pages.
fn one_line(text: impl AsRef<str>) -> String {
    const MAX: usize = 300;
    let line = text.as_ref().lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(MAX).collect()
}

#[cfg(test)]
mod tests;
