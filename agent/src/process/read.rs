//! Reads what `/proc` tells of a process, once, with a bound on everything.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use agent_common::ids::Tgid;
use procfs::process::Process;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use super::container::Container;
use super::environment::Environment;
use super::filter::Subject;
use super::name::{self, CommandLine, Hints, Program};

/// The most octets read of a command line. Class paths of tens of kilobytes stand before the class that matters.
const CMDLINE: u64 = 128 * 1024;
/// The most octets read of an environment.
const ENVIRON: u64 = 128 * 1024;
/// The most octets read of control groups and of mounts.
const LISTS: u64 = 64 * 1024;
/// How far up a nameless program's own kind is looked for.
const GENERATIONS: usize = 4;
/// The longest `package.json` looked into.
const MANIFEST: u64 = 64 * 1024;

/// There is no such process any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("process {} is gone", .0.0)]
pub struct Gone(pub Tgid);

/// How a process was started: what a filter needs, and nothing dearer to read than that.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    pub tgid: Tgid,
    pub parent: Option<Tgid>,
    /// The start, in clock ticks since boot: with the id it names one process for good.
    pub started: Option<u64>,
    pub comm: Option<String>,
    /// The executable's path as the process sees it, without the mark of a deleted one.
    pub exe: Option<String>,
    pub args: Vec<String>,
    pub cwd: Option<String>,
}

/// All that is known of a process.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub launch: Launch,
    pub environment: Environment,
    pub container: Container,
    pub program: Program,
}

impl Launch {
    fn read(process: &Process, tgid: Tgid) -> Self {
        let stat = process.stat().ok();
        let link = |link: procfs::ProcResult<std::path::PathBuf>| {
            let path = link.ok()?.to_string_lossy().into_owned();
            Some(path.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(path))
        };
        let (parent, started, comm) = match stat {
            Some(stat) => (u32::try_from(stat.ppid).ok().map(Tgid), Some(stat.starttime), Some(stat.comm)),
            None => (None, None, None),
        };
        Self {
            tgid,
            parent,
            started,
            comm,
            exe: link(process.exe()),
            args: arguments(process),
            cwd: link(process.cwd()),
        }
    }

    /// Whether it tells more than that the process was there: of a zombie it does not.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.exe.is_some() || !self.args.is_empty()
    }

    /// What the process runs, judged without its environment and its files.
    #[must_use]
    pub fn program(&self) -> Program {
        self.program_with(&Hints::default(), &|_| None)
    }

    /// An interpreter that runs nameless code for a parent of the same executable runs the parent's program: workers of
    /// Python's `multiprocessing`, and so of uvicorn, are started as `python3 -c …`.
    fn program_with(&self, hints: &Hints, manifest: &dyn Fn(&str) -> Option<String>) -> Program {
        let own = self.own_program(hints, manifest);
        let mut next = self.parent.filter(|_| own.name.is_none() && self.exe.is_some());
        for _ in 0..GENERATIONS {
            let Some(parent) = next.and_then(|parent| launch(parent).ok()).filter(|parent| parent.exe == self.exe)
            else {
                break;
            };
            let program = parent.own_program(hints, manifest);
            if program.name.is_some() {
                return program;
            }
            next = parent.parent;
        }
        own
    }

    fn own_program(&self, hints: &Hints, manifest: &dyn Fn(&str) -> Option<String>) -> Program {
        let exe = self.exe.as_deref().or(self.args.first().map(String::as_str)).or(self.comm.as_deref());
        let line = CommandLine {
            exe: exe.unwrap_or_default(),
            args: &self.args,
            cwd: self.cwd.as_deref().filter(|cwd| cwd.starts_with('/')),
            hints,
            manifest,
        };
        name::program(&line)
    }

    /// What a filter looks at.
    #[must_use]
    pub fn subject<'a>(&'a self, program: &'a Program) -> Subject<'a> {
        Subject {
            exe: self.exe.as_deref(),
            script: program.script.as_deref(),
            called: self.args.first().map(String::as_str),
            comm: self.comm.as_deref(),
        }
    }
}

/// What a filter needs to know of the process `tgid`.
///
/// # Errors
/// When there is no such process.
pub fn launch(tgid: Tgid) -> Result<Launch, Gone> {
    open(tgid).map(|process| Launch::read(&process, tgid))
}

/// The processes that there are; none when `/proc` cannot be read.
#[must_use]
pub fn all() -> Vec<Tgid> {
    let all = procfs::process::all_processes().into_iter().flatten();
    all.filter_map(|process| u32::try_from(process.ok()?.pid).ok().map(Tgid)).collect()
}

/// The parent of a process, while it lives.
#[must_use]
pub fn parent(tgid: Tgid) -> Option<Tgid> {
    let stat = open(tgid).ok()?.stat().ok()?;
    u32::try_from(stat.ppid).ok().filter(|parent| *parent != 0).map(Tgid)
}

fn open(tgid: Tgid) -> Result<Process, Gone> {
    let pid = i32::try_from(tgid.0).map_err(|_| Gone(tgid))?;
    Process::new(pid).map_err(|_| Gone(tgid))
}

impl Identity {
    /// Reads the process `tgid`. What cannot be read, for want of permission or because the process ends meanwhile, is
    /// left out; all is read from one process, even if its id is given out again in between.
    ///
    /// Takes some dozen system calls: about 0.1 ms.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn read(tgid: Tgid) -> Result<Self, Gone> {
        let process = open(tgid)?;
        let launch = Launch::read(&process, tgid);
        let environment = environment(&process);
        let cgroup = text(&process, "cgroup").unwrap_or_default();
        let mut container = Container::from_cgroup(&cgroup);
        if Container::hidden(&cgroup) {
            container = container.or_mounts(&text(&process, "mountinfo").unwrap_or_default());
        }
        let manifest = |directory: &str| package_name(&process, directory);
        let program = launch.program_with(&environment.hints, &manifest);
        if launch.started.is_none() && !launch.tells() {
            return Err(Gone(tgid));
        }
        Ok(Self { launch, environment, container, program })
    }

    /// What is left of a process that was gone before it could be read: the kernel's name for it and, if its exec was
    /// seen, the path that was executed. That path may be a script's; what runs it is not known then.
    #[must_use]
    pub fn from_exec(tgid: Tgid, comm: &[u8], filename: &[u8]) -> Self {
        let text = |octets: &[u8]| {
            let until = octets.iter().position(|octet| *octet == 0).unwrap_or(octets.len());
            let text = String::from_utf8_lossy(octets.get(..until).unwrap_or_default()).into_owned();
            Some(text).filter(|text| !text.is_empty())
        };
        let launch = Launch { tgid, comm: text(comm), ..Launch::default() };
        // A relative path says nothing of directories; the name of a file in memory (`memfd:`) is a number.
        let filename = text(filename).filter(|path| !path.starts_with("/proc/") && !path.starts_with("/dev/fd/"));
        let executed = filename.or_else(|| launch.comm.clone()).unwrap_or_default();
        let args = [executed];
        let line = CommandLine {
            exe: args.first().map_or("", String::as_str),
            args: &args,
            cwd: None,
            hints: &Hints::default(),
            manifest: &|_| None,
        };
        let name = name::program(&line).name.filter(|_| !line.exe.is_empty());
        let [executed] = args;
        let program = Program { name, script: Some(executed).filter(|path| !path.is_empty()), language: None };
        Self { launch, program, ..Self::default() }
    }

    /// The base name of the executable, else of the name the process was called by, else the kernel's name.
    #[must_use]
    pub fn executable(&self) -> Option<&str> {
        let launch = &self.launch;
        let called = || launch.args.first().map(String::as_str);
        launch.exe.as_deref().or_else(called).or(launch.comm.as_deref()).map(name::base).filter(|name| !name.is_empty())
    }

    /// `service.name`: what the process itself says by `OTEL_SERVICE_NAME`, then by `service.name` in
    /// `OTEL_RESOURCE_ATTRIBUTES`; else what a person would call it; else `unknown_service`, with the executable if
    /// known. Never empty.
    #[must_use]
    pub fn service_name(&self) -> String {
        let environment = &self.environment;
        let listed = || environment.attributes.iter().find(|(key, _)| key == "service.name").map(|(_, name)| name);
        let own = environment.service_name.as_ref().or_else(listed).and_then(|name| name::clean(name));
        own.or_else(|| self.program.name.clone()).unwrap_or_else(|| match self.executable().and_then(name::clean) {
            Some(exe) => format!("unknown_service:{exe}"),
            None => "unknown_service".to_owned(),
        })
    }
}

/// A file of a process, as far as it is read.
fn limited(process: &Process, name: &str, limit: u64) -> Option<impl BufRead> {
    process.open_relative(name).ok().map(|file| BufReader::new(file.take(limit)))
}

fn text(process: &Process, name: &str) -> Option<String> {
    let mut octets = Vec::new();
    limited(process, name, LISTS)?.read_to_end(&mut octets).ok()?;
    Some(String::from_utf8_lossy(&octets).into_owned())
}

fn arguments(process: &Process) -> Vec<String> {
    let mut octets = Vec::new();
    if let Some(mut file) = limited(process, "cmdline", CMDLINE) {
        // What was read before an error is kept: the process may end meanwhile.
        let _ = file.read_to_end(&mut octets);
    }
    if octets.len() as u64 == CMDLINE && octets.last() != Some(&0) {
        // The last argument is cut.
        let whole = octets.iter().rposition(|octet| *octet == 0).unwrap_or(octets.len());
        octets.truncate(whole);
    }
    // A title that is shorter than the arguments it was written over leaves zeros behind.
    let used = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    octets.truncate(used);
    if octets.is_empty() {
        return Vec::new();
    }
    octets.split(|octet| *octet == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

fn environment(process: &Process) -> Environment {
    let Some(file) = limited(process, "environ", ENVIRON) else { return Environment::default() };
    Environment::from_variables(file.split(0).map_while(Result::ok))
}

/// The `name` of the `package.json` in a directory that is given as the process sees it.
fn package_name(process: &Process, directory: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Manifest {
        name: Option<String>,
    }
    let root = process.open_relative_flags("root", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC).ok()?;
    let path = format!("{}/package.json", directory.trim_end_matches('/'));
    let octets = read_below(&root, Path::new(&path), MANIFEST)?;
    serde_json::from_slice::<Manifest>(&octets).ok()?.name
}

/// Reads a file as somebody sees it whose root directory is `root`: links, too, stay below it. `None` for anything but
/// a regular file of at most `limit` octets; a pipe in its place cannot make the agent wait.
pub(super) fn read_below(root: &File, path: &Path, limit: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).ok()?);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > limit {
        return None;
    }
    let mut octets = Vec::new();
    file.take(limit).read_to_end(&mut octets).ok()?;
    Some(octets)
}
