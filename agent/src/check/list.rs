//! The processes there are, and whether the user's choice takes them.

use agent_common::ids::Tgid;

use super::Row;
use crate::config::Selection;
use crate::process::filter::Filter;
use crate::process::read::{self, Identity};

/// How far up a process' ancestors are looked for.
const ANCESTORS: usize = 64;

/// All processes but kernel threads and those that have ended; empty where `/proc` cannot be read.
///
/// # Errors
/// When a glob cannot be used.
pub(super) fn rows(selection: &Selection) -> anyhow::Result<Vec<Row>> {
    let filter = Filter::new(&selection.exe, &selection.pids, &selection.exclude_exe)?;
    let Ok(all) = procfs::process::all_processes() else { return Ok(Vec::new()) };
    let ids = all.filter_map(|process| u32::try_from(process.ok()?.pid).ok()).map(Tgid);
    Ok(ids.filter_map(|tgid| row(&filter, tgid)).collect())
}

fn row(filter: &Filter, tgid: Tgid) -> Option<Row> {
    let identity = Identity::read(tgid).ok().filter(|identity| identity.launch.tells())?;
    Some(Row {
        pid: tgid.0,
        service: identity.service_name(),
        executable: identity.launch.exe.clone(),
        language: identity.program.language.map(str::to_owned),
        reason: reason(filter, tgid, &identity).map(str::to_owned),
    })
}

/// Why a process would not be traced.
fn reason(filter: &Filter, tgid: Tgid, identity: &Identity) -> Option<&'static str> {
    let subject = identity.launch.subject(&identity.program);
    if tgid.0 == std::process::id() {
        Some("Remora itself")
    } else if !filter.traces(&subject, true) {
        // Not even if it were named by its id.
        Some("excluded by --exclude-exe")
    } else if !filter.traces(&subject, is_named(filter, tgid, identity.launch.parent)) {
        Some("not chosen by --exe or --pid")
    } else {
        None
    }
}

/// Whether `--pid` names the process or one it descends from.
fn is_named(filter: &Filter, tgid: Tgid, parent: Option<Tgid>) -> bool {
    let mut line = std::iter::successors(parent, |tgid| read::parent(*tgid)).take(ANCESTORS);
    filter.by_pid() && (filter.names(tgid) || line.any(|ancestor| filter.names(ancestor)))
}
