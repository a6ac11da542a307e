//! Loads the kernel side and attaches it. Only this module and `source` know aya.

pub mod btf;
pub mod hooks;
mod libraries;
pub mod propagation;
mod rehearsal;
pub mod sys;

use std::collections::BTreeMap;

use agent_common::counter::Counter;
use agent_common::ids::Tgid;
use agent_common::layout::{Layout, PORT_KEEP, PORT_LEAVE, PROCESS_IGNORE, PROCESS_TRACE, Setup};
use agent_common::limits;
use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use aya::programs::{Program, TracePoint};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned};

use self::btf::Kernel;
use self::hooks::{HOOKS, Hook, Hooks, Need, Use};
use self::libraries::Libraries;
pub use self::propagation::{Carrier, Propagation};
use self::sys::{Hints, RareCalls, ReaderFlag};
use crate::process::programs::{Coroutines, Library};
use crate::source::Rings;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/remora-ebpf"));

/// How the kernel side is to be set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Octets of the ring of segments: a power of two, at least a page.
    pub segment_ring: u32,
    pub hooks: Hooks,
    /// User space decides which processes are traced.
    pub choose_processes: bool,
    pub keep_ports: Vec<u16>,
    pub leave_ports: Vec<u16>,
    /// TLS libraries are looked for.
    pub tls: bool,
    /// Contexts of requests are decided and sent.
    pub propagate: Option<Propagation>,
}

impl Options {
    /// Entries of each of the maps of propagation.
    fn propagated(&self) -> u32 {
        if self.propagate.is_some() { limits::PROPAGATED } else { 1 }
    }

    /// `entries` of a map for contexts that are put into requests.
    fn with_fields(&self, entries: u32) -> u32 {
        let fields = matches!(self.propagate, Some(Propagation { carrier: Carrier::Fields { .. }, .. }));
        if fields { entries } else { 1 }
    }
}

/// The kernel side, attached as long as this lives: the kernel detaches the programs when their descriptors close, so
/// also when the agent is killed.
pub struct Probe {
    ebpf: Ebpf,
    processes: HashMap<MapData, u32, u8>,
    go: HashMap<MapData, u32, sys::GoValue>,
    asyncio: HashMap<MapData, u32, sys::AsyncioValue>,
    counters: PerCpuArray<MapData, u64>,
    rare: RareCalls,
    libraries: Libraries,
    /// Transfers are seen at the sockets, not at the system calls.
    pub at_sockets: bool,
    /// Optional hooks that could not be attached, and why.
    pub missing: Vec<(Hook, String)>,
    /// Their descriptors are needed as long as a program may be loaded.
    _maps: [Map; 3],
}

/// What the reader of the rings needs.
pub struct Attached {
    pub probe: Probe,
    pub rings: Rings,
    pub hints: Hints,
    pub waiting: ReaderFlag,
}

/// Loads and attaches everything.
///
/// # Errors
/// When the kernel refuses a map, a program or a required hook; the error names which one and why.
pub fn attach(kernel: &Kernel, options: &Options) -> anyhow::Result<Attached> {
    if let Some(propagation) = options.propagate {
        // What a request belongs to is decided at the entry of the call that sends it.
        anyhow::ensure!(
            options.hooks != Hooks::Sockets,
            "--propagate needs the hooks of system calls: leave out --hooks sockets"
        );
        rehearsal::rehearse(&kernel.layout, propagation.carrier)?;
        return attach_at(kernel, options, false);
    }
    match options.hooks {
        Hooks::Calls => attach_at(kernel, options, false),
        Hooks::Sockets => {
            anyhow::ensure!(
                kernel.socket_hooks,
                "--hooks sockets needs Linux 6.16 to 6.18 on x86-64: leave it out, and capture is at the system calls"
            );
            attach_at(kernel, options, true)
        }
        Hooks::Auto if !kernel.socket_hooks => attach_at(kernel, options, false),
        Hooks::Auto => attach_at(kernel, options, true).or_else(|error| {
            tracing::warn!("capture is at the system calls instead of the sockets: {error:#}");
            attach_at(kernel, options, false)
        }),
    }
}

fn attach_at(kernel: &Kernel, options: &Options, at_sockets: bool) -> anyhow::Result<Attached> {
    let mut ebpf = load(&kernel.layout, options, std::process::id(), at_sockets)?;
    let mut missing = Vec::new();
    let (hints, reader, mut ports) = (map(&mut ebpf, "HINTS")?, map(&mut ebpf, "READER")?, map(&mut ebpf, "PORTS")?);
    let mut port_filter: HashMap<_, u16, u8> = HashMap::try_from(&mut ports)?;
    for (list, value) in [(&options.keep_ports, PORT_KEEP), (&options.leave_ports, PORT_LEAVE)] {
        for port in list {
            port_filter.insert(port, value, 0).with_context(|| format!("cannot add port {port} to the filter"))?;
        }
    }
    let processes = HashMap::try_from(map(&mut ebpf, "PROCESSES")?)?;
    let go = HashMap::try_from(map(&mut ebpf, "GO")?)?;
    let asyncio = HashMap::try_from(map(&mut ebpf, "ASYNCIO")?)?;
    let counters = PerCpuArray::try_from(map(&mut ebpf, "COUNTERS")?)?;
    let maps = [hints, reader, ports];
    let [hints, reader, _] = &maps;
    let hints = Hints::map(hints)?;
    let rare = RareCalls::map(reader)?;
    let waiting = ReaderFlag::map(reader)?;
    let rings = Rings::new(map(&mut ebpf, "SEGMENTS")?, map(&mut ebpf, "LIFECYCLE")?)?;
    let wanted = |hook: &&Hook| match hook.used {
        Use::Always => true,
        Use::AtSockets => at_sockets,
        Use::AtCalls(_) => !at_sockets,
        Use::AtFunctions => false,
    };
    // All are loaded before any is attached: the kernel takes its time to look at each, and in between one end of an
    // exchange would be seen without the other.
    let mut loaded = Vec::new();
    for hook in HOOKS.iter().filter(wanted) {
        match load_one(&mut ebpf, hook) {
            Ok(()) => loaded.push(hook),
            Err(error) => give_up_or_go_on(hook, error, &mut missing)?,
        }
    }
    for hook in loaded {
        if let Err(error) = attach_loaded(&mut ebpf, hook) {
            give_up_or_go_on(hook, error, &mut missing)?;
        }
    }
    if let Some(propagation) = options.propagate {
        propagation::attach(&mut ebpf, &kernel.layout, propagation.carrier)?;
    }
    Ok(Attached {
        probe: Probe {
            ebpf,
            processes,
            go,
            asyncio,
            counters,
            rare,
            libraries: Libraries::default(),
            at_sockets,
            missing,
            _maps: maps,
        },
        rings,
        hints,
        waiting,
    })
}

/// Loads the object's maps and relocates its programs, without attaching any. Sockets of the process `agent` are left
/// alone.
fn load(layout: &Layout, options: &Options, agent: u32, at_sockets: bool) -> anyhow::Result<Ebpf> {
    let cpus = u32::try_from(aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?)?;
    let setup = Setup {
        agent,
        cpus,
        choose_processes: options.choose_processes.into(),
        keep_ports: (!options.keep_ports.is_empty()).into(),
        leave_ports: (!options.leave_ports.is_empty()).into(),
        at_sockets: at_sockets.into(),
        tls: options.tls.into(),
        ..options.propagate.map(Propagation::setup).unwrap_or_default()
    };
    let layout = sys::LayoutGlobal(*layout);
    let setup = sys::SetupGlobal(setup);
    let mut loader = EbpfLoader::new();
    for (map, _) in propagation::MAPS {
        loader.map_max_entries(map, options.propagated());
    }
    for (map, entries, _) in propagation::FIELD_MAPS {
        loader.map_max_entries(map, options.with_fields(entries));
    }
    loader
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global("LAYOUT", &layout, true)
        .override_global("SETUP", &setup, true)
        .map_max_entries("SEGMENTS", options.segment_ring)
        .map_max_entries("SCRATCH", 2 * cpus + 1)
        .load(OBJECT)
        .context("cannot load the kernel side (CAP_BPF and CAP_PERFMON, or root, are needed)")
}

fn map(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the kernel side has no map {name}"))
}

/// What a hook that could not be attached means: not much, or that capture is not possible so.
fn give_up_or_go_on(hook: &Hook, error: anyhow::Error, missing: &mut Vec<(Hook, String)>) -> anyhow::Result<()> {
    match hook.need {
        Need::Optional(_) if hook.used != Use::AtSockets => missing.push((*hook, format!("{error:#}"))),
        _ => return Err(error),
    }
    Ok(())
}

/// Loads and attaches one program.
fn attach_one(ebpf: &mut Ebpf, hook: &Hook) -> anyhow::Result<()> {
    load_one(ebpf, hook)?;
    attach_loaded(ebpf, hook)
}

fn program<'a>(ebpf: &'a mut Ebpf, hook: &Hook) -> anyhow::Result<&'a mut Program> {
    ebpf.program_mut(hook.program).with_context(|| format!("the kernel side has no program {}", hook.program))
}

fn load_one(ebpf: &mut Ebpf, hook: &Hook) -> anyhow::Result<()> {
    let program = program(ebpf, hook)?;
    let loaded = match program {
        Program::RawTracePoint(program) => program.load(),
        Program::UProbe(program) => program.load(),
        program => <&mut TracePoint>::try_from(program)?.load(),
    };
    loaded.with_context(|| format!("the kernel refuses the program {}", hook.program))
}

fn attach_loaded(ebpf: &mut Ebpf, hook: &Hook) -> anyhow::Result<()> {
    let program = program(ebpf, hook)?;
    let attached = match program {
        Program::RawTracePoint(program) => program.attach(hook.tracepoint).map(drop),
        Program::UProbe(program) => return libraries::try_on_self(program),
        program => <&mut TracePoint>::try_from(program)?.attach(hook.category, hook.tracepoint).map(drop),
    };
    attached.with_context(|| format!("cannot attach to {}:{}", hook.category, hook.tracepoint))
}

/// Tries each hook by itself, as `remora check` shows them: loads its program, attaches it, and lets go at once.
///
/// # Errors
/// When the maps cannot be made, so that no hook can be tried.
pub fn try_hooks(layout: &Layout) -> anyhow::Result<Vec<(Hook, anyhow::Result<()>)>> {
    let options = Options { segment_ring: 64 * 1024, ..Options::default() };
    let mut ebpf = load(layout, &options, std::process::id(), false)?;
    Ok(HOOKS.iter().map(|hook| (*hook, attach_one(&mut ebpf, hook))).collect())
}

/// What the kernel says a program has cost; only counted while `kernel.bpf_stats_enabled` is set.
#[derive(Clone, Debug, Default)]
pub struct ProgramCost {
    pub runs: u64,
    pub nanos: u64,
}

impl Probe {
    /// The kernel side's counters, summed over the CPUs.
    #[must_use]
    pub fn counters(&self) -> Vec<(Counter, u64)> {
        Counter::ALL
            .iter()
            .map(|counter| {
                let sum = self.counters.get(&(*counter as u32), 0).map_or(0, |values| values.iter().sum());
                (*counter, sum)
            })
            .collect()
    }

    /// Tells the kernel side whether a process is traced; `habits` are further bits about one that is.
    pub fn decide(&mut self, tgid: u32, trace: bool, habits: u8) {
        // A full map forgets the oldest decision; the process is then captured and left out by user space.
        let _ = self.processes.insert(tgid, if trace { PROCESS_TRACE | habits } else { PROCESS_IGNORE }, 0);
    }

    /// Tells the kernel side where a process keeps what tells its coroutines apart; before [`Probe::decide`] says that it has
    /// such.
    pub fn read_coroutines(&mut self, tgid: u32, layout: Coroutines) {
        // A full map forgets the oldest.
        let _ = match layout {
            Coroutines::Go(layout) => self.go.insert(tgid, sys::GoValue(layout), 0),
            Coroutines::Asyncio(layout) => self.asyncio.insert(tgid, sys::AsyncioValue(layout), 0),
        };
    }

    /// Attaches the hooks of rare calls that were seen on a TCP socket since the last look.
    pub fn follow_rare_calls(&mut self) {
        let seen = self.rare.unhooked();
        if seen == 0 {
            return;
        }
        for hook in HOOKS.iter().filter(|hook| matches!(hook.used, Use::AtCalls(rare) if rare & seen != 0)) {
            match attach_one(&mut self.ebpf, hook) {
                Ok(()) => tracing::info!(hook = hook.tracepoint, "attached: the call is in use"),
                Err(error) => tracing::warn!(hook = hook.tracepoint, "not attached: {error:#}"),
            }
        }
        // Also those that failed: trying again and again would not help.
        self.rare.hook(seen);
    }

    /// Hooks the files with functions of TLS libraries that a process has mapped.
    pub fn hook_libraries(&mut self, tgid: Tgid, files: Vec<Library>) {
        self.libraries.hook(&mut self.ebpf, tgid, files);
    }

    /// Hooks the functions that decode header fields in what these processes run, for a moment, and no others.
    pub fn watch_tables(&mut self, wanted: &[Tgid]) {
        self.libraries.watch(&mut self.ebpf, wanted);
    }

    /// Files that are hooked for that now.
    #[must_use]
    pub fn tables_watched(&self) -> u64 {
        self.libraries.watched()
    }

    /// Files that are hooked for their functions of TLS libraries, and at how many places.
    #[must_use]
    pub fn libraries(&self) -> (u64, u64) {
        self.libraries.count()
    }

    /// A process has ended, or runs another file.
    pub fn forget(&mut self, tgid: Tgid) {
        self.libraries.leave(tgid);
    }

    /// Lets go of what nobody has used for a while. To be called every few seconds.
    pub fn sweep(&mut self) {
        self.libraries.sweep();
    }

    /// The cost of each program so far.
    #[must_use]
    pub fn costs(&self) -> BTreeMap<&'static str, ProgramCost> {
        let mut costs = BTreeMap::new();
        for hook in HOOKS {
            let Some(program) = self.ebpf.program(hook.program) else { continue };
            let Ok(info) = program.info() else { continue };
            let nanos = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
            costs.insert(hook.program, ProgramCost { runs: info.run_count(), nanos });
        }
        costs
    }
}

/// The memory of the maps in octets, by what it is for. All are preallocated.
#[must_use]
pub fn map_octets(options: &Options) -> Vec<(&'static str, u64)> {
    let cpus = aya::util::nr_cpus().unwrap_or(1) as u64;
    // Keys and values as the kernel side declares them; an entry of a hash table has about 64 octets of the kernel's.
    let hash = |entries: u32, octets: u64| u64::from(entries) * (octets + 64);
    let contexts: u64 = propagation::MAPS.iter().map(|(_, octets)| hash(options.propagated(), *octets)).sum();
    let fields: u64 =
        propagation::FIELD_MAPS.iter().map(|(_, entries, octets)| hash(options.with_fields(*entries), *octets)).sum();
    vec![
        ("segments", options.segment_ring.into()),
        ("lifecycle", limits::LIFECYCLE_RING.into()),
        ("sockets", hash(limits::SOCKETS, 72)),
        (
            "processes",
            hash(limits::PROCESSES, 16) + hash(limits::GO_PROCESSES, 48) + hash(limits::ASYNCIO_PROCESSES, 72),
        ),
        ("entered", u64::from(limits::ENTERED) * 16),
        ("hints", u64::from(limits::HINTS) * 24),
        ("scratch", (2 * cpus + 1) * (2 * limits::CAPTURE as u64 + 264)),
        (
            "tls",
            hash(limits::TLS_CALLS, 56)
                + hash(limits::TLS_SESSIONS, 48)
                + hash(limits::TLS_THREADS, 40)
                + hash(limits::TLS_KEEPING, 2 * limits::TLS_KEPT as u64 + 40),
        ),
        ("contexts", contexts + fields),
    ]
}
