//! The state of a module that was imported: from Python's `_PyRuntime`, by its interpreters, to `sys.modules`.

use super::program::Program;
use super::symbols;
use crate::process::memory::Memory;

/// The most modules of a process that are gone through.
const MODULES: u64 = 64 * 1024;
/// `PyModuleObject.md_def` and `md_state`, `PyModuleDef.m_size` (CPython, Include/internal/pycore_moduleobject.h).
const DEFINITION: u64 = 24;
const STATE: u64 = 32;
const STATE_SIZE: u64 = 56;

/// Where the state of the module is whose definition stands in `program`: address and octets. `None` when it is not imported by the
/// first interpreter, or by more than one.
pub(super) fn state(tgid: u32, memory: &Memory, minor: u32, program: &Program) -> Option<(u64, u64)> {
    let runtime = symbols::address(tgid, memory, minor, b"_PyRuntime")?;
    let offsets = Offsets::of(memory, runtime, minor)?;
    let interpreter = memory.word(runtime.checked_add(offsets.head)?)?;
    // Each interpreter has tasks of its own, and nothing tells whose a thread's are.
    if memory.word(interpreter.checked_add(offsets.next)?)? != 0 {
        return None;
    }
    let modules = memory.word(interpreter.checked_add(offsets.modules)?).filter(|modules| memory.is_dict(*modules))?;
    values(memory, modules)?.into_iter().find_map(|module| {
        let [definition, state] = [DEFINITION, STATE].map(|offset| memory.word(module.checked_add(offset)?));
        let definition = definition.filter(|definition| program.range().contains(definition))?;
        Some((state.filter(|state| *state != 0)?, memory.word(definition.checked_add(STATE_SIZE)?)?))
    })
}

/// Where the runtime and its interpreters keep what leads to the modules, in octets.
struct Offsets {
    /// `_PyRuntimeState.interpreters.head`
    head: u64,
    /// `PyInterpreterState.next`
    next: u64,
    /// `PyInterpreterState.imports.modules`
    modules: u64,
}

impl Offsets {
    /// From Python 3.13 on the runtime begins with them (`_Py_DebugOffsets`, Include/internal/pycore_runtime.h): a cookie, its release,
    /// whether it has no global lock; then sizes and offsets of one structure after the other.
    fn of(memory: &Memory, runtime: u64, minor: u32) -> Option<Self> {
        const COOKIE: [u8; 8] = *b"xdebugpy";
        if minor == 12 {
            return Some(Self { head: 40, next: 0, modules: 944 });
        }
        let [cookie, release, without_lock, _, _, head, _, _, next, _, _, modules] =
            *memory.words(runtime, 12 * 8)?.first_chunk()?;
        let known = cookie == u64::from_le_bytes(COOKIE) && release >> 16 == 0x0300 | u64::from(minor);
        (known && without_lock == 0).then_some(Self { head, next, modules })
    }
}

/// The values of a dict whose keys are strings, as in Python 3.12 and 3.13.
fn values(memory: &Memory, dict: u64) -> Option<Vec<u64>> {
    const KEYS: u64 = 32;
    let keys = memory.word(dict.checked_add(KEYS)?)?;
    let [_, sizes, _, count] = *memory.words(keys, 32)?.first_chunk()?;
    let (log2, kind) = (sizes >> 8 & 0xff, sizes >> 16 & 0xff);
    // Entries of strings alone need no hash.
    let (words, value) = if kind == 0 { (3, 2) } else { (2, 1) };
    if log2 > 32 || count > MODULES {
        return None;
    }
    let entries = memory.words(keys.checked_add(32 + (1 << log2))?, count * words * 8)?;
    Some(entries.chunks_exact(words as usize).map(|entry| entry[value]).filter(|value| *value != 0).collect())
}
