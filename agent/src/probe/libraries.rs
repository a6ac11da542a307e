//! Hooks at functions of TLS libraries: by file, for all processes that map it, as long as one does that is traced.

use std::collections::hash_map::Entry;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use agent_common::ids::Tgid;
use agent_common::tls::RETURN;
use agent_common::tls::function::{GO, GO_WRITE, HPACK_DECODE, HPACK_ENCODE, HPACK_INFLATE, RUSTLS_READ};
use anyhow::Context as _;
use aya::Ebpf;
use aya::programs::UProbe;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use rustc_hash::{FxHashMap, FxHashSet};

use super::hooks::{
    self, GO_HPACK_DECODE, GO_HPACK_ENCODE, GO_TLS_ENTRY, GO_TLS_RET, GO_TLS_WRITE, RUSTLS_TAKEN, TLS_ENTRY, TLS_RETURN,
};
use crate::process::programs::{FileId, Library};
use crate::process::tls::{Kind, Place};

/// Files hooked at the same time.
const FILES: usize = 512;
/// How long a file stays hooked after its last process has ended: short-lived programs come again.
const LINGER: Duration = Duration::from_secs(30);

/// How long functions that decode or encode header fields stay hooked in a row, and how long not after that: each call costs its process a
/// breakpoint. Three requests tell what there is to know.
const WATCHED: Duration = Duration::from_secs(3);
const RESTING: Duration = Duration::from_secs(20);
/// Files hooked at them at the same time.
const WATCHES: usize = 8;

/// The files that are hooked.
#[derive(Default)]
pub(super) struct Libraries {
    files: FxHashMap<FileId, Hooked>,
    loaded: bool,
    /// Some are hooked where they decode and encode header fields, or were.
    watching: bool,
    /// Why the kernel takes none.
    refused: Option<String>,
}

struct Hooked {
    links: Vec<UProbeLink>,
    users: FxHashSet<Tgid>,
    unused_since: Option<Instant>,
    /// It has functions that decode or encode header fields.
    codes: Option<Library>,
    watch: Watch,
}

/// Whether those functions are hooked.
enum Watch {
    No,
    Since(Instant, #[expect(dead_code, reason = "hooked as long as this lives")] Vec<UProbeLink>),
    /// They were, and are not again for a while.
    Rests(Instant),
}

impl Libraries {
    /// Hooks the files that a process has mapped, unless they are.
    pub(super) fn hook(&mut self, ebpf: &mut Ebpf, tgid: Tgid, files: Vec<Library>) {
        for file in files {
            let full = self.files.len() >= FILES;
            match self.files.entry(file.id) {
                Entry::Occupied(hooked) => {
                    let hooked = hooked.into_mut();
                    hooked.users.insert(tgid);
                    hooked.unused_since = None;
                }
                Entry::Vacant(_) if full || self.refused.is_some() => {
                    tracing::debug!(file = %file.path.display(), "TLS library not hooked");
                }
                Entry::Vacant(place) => {
                    if !self.loaded {
                        if let Err(error) = load(ebpf) {
                            tracing::warn!("plaintext of TLS is not seen: {error:#}");
                            self.refused = Some(format!("{error:#}"));
                            continue;
                        }
                        self.loaded = true;
                    }
                    match hook(ebpf, &file, |place| !codes_fields(place)) {
                        Ok(links) => {
                            tracing::debug!(file = %file.path.display(), hooks = links.len(), "TLS library hooked");
                            let users = FxHashSet::from_iter([tgid]);
                            let codes = file.places.iter().any(codes_fields).then_some(file);
                            place.insert(Hooked { links, users, unused_since: None, codes, watch: Watch::No });
                        }
                        Err(error) => tracing::warn!("TLS of {} is not seen: {error:#}", file.path.display()),
                    }
                }
            }
        }
    }

    /// A process has ended, or runs another file.
    pub(super) fn leave(&mut self, tgid: Tgid) {
        for hooked in self.files.values_mut() {
            if hooked.users.remove(&tgid) && hooked.users.is_empty() {
                hooked.unused_since = Some(Instant::now());
            }
        }
    }

    /// Lets go of files that no process has used for a while.
    pub(super) fn sweep(&mut self) {
        let unused = |hooked: &Hooked| hooked.unused_since.is_some_and(|since| since.elapsed() > LINGER);
        let gone: Vec<_> = self.files.extract_if(|_, hooked| unused(hooked)).collect();
        unhook(gone);
    }

    /// Hooks the functions that decode and encode header fields in what these processes run, for a moment, and lets go of all others.
    pub(super) fn watch(&mut self, ebpf: &mut Ebpf, wanted: &[Tgid]) {
        if wanted.is_empty() && !self.watching {
            return;
        }
        let mut watched = 0;
        let mut gone = Vec::new();
        for hooked in self.files.values_mut() {
            let wanted = wanted.iter().any(|tgid| hooked.users.contains(tgid));
            match hooked.watch {
                Watch::Since(since, _) if !wanted || since.elapsed() > WATCHED => {
                    let rests = if wanted { Watch::Rests(Instant::now()) } else { Watch::No };
                    gone.push(std::mem::replace(&mut hooked.watch, rests));
                }
                Watch::Since(..) => watched += 1,
                Watch::Rests(since) if since.elapsed() > RESTING => hooked.watch = Watch::No,
                Watch::No | Watch::Rests(_) => {}
            }
        }
        unhook(gone);
        self.watching = watched > 0;
        for hooked in self.files.values_mut() {
            let Some(file) = hooked.codes.as_ref().filter(|_| matches!(hooked.watch, Watch::No)) else { continue };
            if watched >= WATCHES || !wanted.iter().any(|tgid| hooked.users.contains(tgid)) {
                continue;
            }
            hooked.watch = match hook(ebpf, file, codes_fields) {
                Ok(links) => {
                    tracing::debug!(file = %file.path.display(), "header tables are looked for");
                    watched += 1;
                    self.watching = true;
                    Watch::Since(Instant::now(), links)
                }
                Err(error) => {
                    tracing::debug!(file = %file.path.display(), "header tables are not looked for: {error:#}");
                    Watch::Rests(Instant::now())
                }
            };
        }
    }

    /// How many files are hooked, and at how many places.
    pub(super) fn count(&self) -> (u64, u64) {
        (self.files.len() as u64, self.files.values().map(|hooked| hooked.links.len() as u64).sum())
    }

    /// How many files are hooked where they decode and encode header fields.
    pub(super) fn watched(&self) -> u64 {
        self.files.values().filter(|hooked| matches!(hooked.watch, Watch::Since(..))).count() as u64
    }
}

/// Whether a place is where header fields are decoded or encoded: it is hooked only now and then.
fn codes_fields(place: &Place) -> bool {
    matches!(place.function, HPACK_DECODE | HPACK_ENCODE | HPACK_INFLATE)
}

/// Lets go of hooks. The kernel waits for programs that run with each: nobody has to wait for that.
fn unhook<T: Send + 'static>(gone: Vec<T>) {
    if !gone.is_empty() {
        let _ = std::thread::Builder::new().name("remora-unhook".to_owned()).spawn(move || drop(gone));
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut UProbe> {
    Ok(ebpf.program_mut(name).with_context(|| format!("the kernel side has no program {name}"))?.try_into()?)
}

fn load(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    for name in [
        TLS_ENTRY,
        TLS_RETURN,
        RUSTLS_TAKEN,
        GO_TLS_ENTRY,
        GO_TLS_WRITE,
        GO_TLS_RET,
        GO_HPACK_DECODE,
        GO_HPACK_ENCODE,
        hooks::HPACK_INFLATE,
    ] {
        program(ebpf, name)?.load().with_context(|| format!("the kernel refuses the program {name}"))?;
    }
    Ok(())
}

/// Hooks some places of a file. The kernel refuses some instructions; the others are of use without those: a call that is seen
/// to begin or to return alone shows nothing.
fn hook(ebpf: &mut Ebpf, file: &Library, which: impl Fn(&Place) -> bool) -> anyhow::Result<Vec<UProbeLink>> {
    let mut links = Vec::with_capacity(file.places.len());
    let path = format!("/proc/self/fd/{}", file.file.as_raw_fd());
    let mut refused = None;
    for place in file.places.iter().filter(|place| which(place)) {
        match hook_one(ebpf, place, &path) {
            Ok(link) => links.push(link),
            Err(error) => {
                tracing::debug!(file = %file.path.display(), "{error:#}");
                refused = Some(error);
            }
        }
    }
    match refused {
        Some(error) if links.is_empty() => Err(error),
        _ => Ok(links),
    }
}

fn hook_one(ebpf: &mut Ebpf, place: &Place, path: &str) -> anyhow::Result<UProbeLink> {
    let (name, cookie) = match place.kind {
        Kind::Entry if place.function == GO_WRITE => (GO_TLS_WRITE, place.function),
        Kind::Entry if GO.contains(&place.function) => (GO_TLS_ENTRY, place.function),
        Kind::Entry if place.function == HPACK_DECODE => (GO_HPACK_DECODE, place.function),
        Kind::Entry if place.function == HPACK_ENCODE => (GO_HPACK_ENCODE, place.function),
        Kind::Entry if place.function == HPACK_INFLATE => (hooks::HPACK_INFLATE, place.function),
        Kind::Entry if place.function == RUSTLS_READ => (RUSTLS_TAKEN, place.function),
        Kind::Entry => (TLS_ENTRY, place.function),
        Kind::Return => (TLS_RETURN, place.function | RETURN),
        Kind::Ret => (GO_TLS_RET, place.function | RETURN),
        Kind::Deferred(deferred) => (GO_TLS_RET, place.function | RETURN | deferred.cookie()),
    };
    let program = program(ebpf, name)?;
    let point = UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(place.at), cookie: Some(cookie) };
    let link = program
        .attach(point, path, UProbeScope::AllProcesses)
        .with_context(|| format!("the kernel refuses a hook at {:#x}", place.at))?;
    Ok(program.take_link(link)?)
}

/// Hooks a function of the agent's own, which nobody calls, and lets go: whether the kernel takes such hooks.
pub(super) fn try_on_self(program: &mut UProbe) -> anyhow::Result<()> {
    let address = try_on_self as *const () as u64;
    let maps = procfs::process::Process::myself()?.maps()?;
    let map = maps.iter().find(|map| (map.address.0..map.address.1).contains(&address)).context("no such mapping")?;
    let at = UProbeAttachLocation::AbsoluteOffset(address - map.address.0 + map.offset);
    let point = UProbeAttachPoint { location: at, cookie: Some(0) };
    let link = program
        .attach(point, "/proc/self/exe", UProbeScope::AllProcesses)
        .context("the kernel refuses a hook at a function")?;
    drop(program.take_link(link)?);
    Ok(())
}
