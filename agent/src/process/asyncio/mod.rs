//! Where a Python process keeps the task that its event loop runs.
//!
//! The kernel side reads the task from the process's memory ([`agent_common::asyncio`]), and has to know where the dict of running
//! tasks is pointed to. Up to Python 3.11 a static variable of the module `_asyncio` does, from 3.12 on the module's state. Neither has
//! a name in a stripped build, so it is found by what it points to: both places hold one pointer to a dict, and no other. Memory is
//! only read, once for each process.
//!
//! CPython 3.8 to 3.13 with the module as a file of its own, as it is built by default. Nothing is told of other loops than
//! those that run `asyncio`'s tasks in C, nor of interpreters without a global lock.

mod modules;
mod program;
mod symbols;

use agent_common::asyncio::{AsyncioLayout, keys};

use super::maps::{Mapping, mapping};
use super::memory::Memory;

/// Octets of static data, or of a module's state, that are looked through. They have some hundred.
const MOST: u64 = 4096;

/// `None` for processes that have not loaded `_asyncio`, whose release is not known, or where not just one place could be meant.
pub(super) fn layout(tgid: u32) -> Option<AsyncioLayout> {
    let Mapping { start, name, .. } = mapping(tgid, |name| minor(name).is_some())?;
    let minor = minor(&name)?;
    let memory = Memory::of(tgid)?;
    let module = memory.program(start)?;
    let current_tasks = match minor {
        8..=11 => only_dict(&memory, module.zeroed()?)?,
        12 | 13 => only_dict(&memory, modules::state(tgid, &memory, minor, &module)?)?,
        _ => return None,
    };
    let range = module.range();
    Some(AsyncioLayout {
        current_tasks,
        keys: if minor < 11 { keys::SIZED } else { keys::LOGARITHMIC },
        module: [range.start, range.end],
        function: symbols::address(tgid, &memory, minor, b"PyFunction_Type").unwrap_or_default(),
        closure: if minor < 10 { 48 } else { 72 },
        name: name_of_task(minor)?,
        text: if minor < 12 { 48 } else { 40 },
    })
}

/// `TaskObj.task_name` (Modules/_asynciomodule.c), in octets.
fn name_of_task(minor: u32) -> Option<u64> {
    Some(match minor {
        8 => 120,
        9 => 160,
        10 => 168,
        11 | 12 => 144,
        13 => 128,
        _ => return None,
    })
}

/// The minor release of Python 3 that an extension module with this file name is built for, if it is `_asyncio`:
/// `_asyncio.cpython-311-x86_64-linux-gnu.so`. Builds without a global lock (`313t`) are none of these.
fn minor(name: &str) -> Option<u32> {
    let release = name.strip_prefix("_asyncio.cpython-3")?.split('-').next()?;
    release.parse().ok()
}

/// The address of the one pointer to a dict in this memory.
fn only_dict(memory: &Memory, (start, octets): (u64, u64)) -> Option<u64> {
    let words = memory.words(start.next_multiple_of(8), octets.min(MOST))?;
    let dicts = words.iter().zip(0_u64..).filter(|(word, _)| memory.is_dict(**word));
    let mut places = dicts.map(|(_, place)| start.next_multiple_of(8) + 8 * place);
    let first = places.next()?;
    places.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests;
