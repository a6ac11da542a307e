//! Hooks at functions of TLS libraries: by file, for all processes that map it, as long as one does that is traced.

use std::collections::hash_map::Entry;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use agent_common::ids::Tgid;
use agent_common::tls::RETURN;
use agent_common::tls::function::{GO, GO_WRITE, RUSTLS_READ};
use anyhow::Context as _;
use aya::Ebpf;
use aya::programs::UProbe;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use rustc_hash::{FxHashMap, FxHashSet};

use super::hooks::{GO_TLS_ENTRY, GO_TLS_RET, GO_TLS_WRITE, RUSTLS_TAKEN, TLS_ENTRY, TLS_RETURN};
use crate::process::programs::{FileId, Library};
use crate::process::tls::{Kind, Place};

/// Files hooked at the same time.
const FILES: usize = 512;
/// How long a file stays hooked after its last process has ended: short-lived programs come again.
const LINGER: Duration = Duration::from_secs(30);

/// The files that are hooked.
#[derive(Default)]
pub(super) struct Libraries {
    files: FxHashMap<FileId, Hooked>,
    loaded: bool,
    /// Why the kernel takes none.
    refused: Option<String>,
}

struct Hooked {
    links: Vec<UProbeLink>,
    users: FxHashSet<Tgid>,
    unused_since: Option<Instant>,
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
                    match hook(ebpf, &file) {
                        Ok(links) => {
                            tracing::debug!(file = %file.path.display(), hooks = links.len(), "TLS library hooked");
                            place.insert(Hooked { links, users: FxHashSet::from_iter([tgid]), unused_since: None });
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
        if !gone.is_empty() {
            // The kernel waits for programs that run with each: nobody has to wait for that.
            let _ = std::thread::Builder::new().name("remora-unhook".to_owned()).spawn(move || drop(gone));
        }
    }

    /// How many files are hooked, and at how many places.
    pub(super) fn count(&self) -> (u64, u64) {
        (self.files.len() as u64, self.files.values().map(|hooked| hooked.links.len() as u64).sum())
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut UProbe> {
    Ok(ebpf.program_mut(name).with_context(|| format!("the kernel side has no program {name}"))?.try_into()?)
}

fn load(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    for name in [TLS_ENTRY, TLS_RETURN, RUSTLS_TAKEN, GO_TLS_ENTRY, GO_TLS_WRITE, GO_TLS_RET] {
        program(ebpf, name)?.load().with_context(|| format!("the kernel refuses the program {name}"))?;
    }
    Ok(())
}

/// Hooks the places of a file. The kernel refuses some instructions; the others are of use without those: a call that is seen
/// to begin or to return alone shows nothing.
fn hook(ebpf: &mut Ebpf, file: &Library) -> anyhow::Result<Vec<UProbeLink>> {
    let mut links = Vec::with_capacity(file.places.len());
    let path = format!("/proc/self/fd/{}", file.file.as_raw_fd());
    let mut refused = None;
    for place in &*file.places {
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
