//! Which task the event loop of a Python process runs: the one entry of `_asyncio`'s `current_tasks`, a dict from loops to their
//! tasks (CPython, Modules/_asynciomodule.c, `enter_task`); and which tasks wait for it. Both sides walk there the same way, each with
//! its own reads.
//!
//! A task waits for another one, or for several by `asyncio.gather` or `asyncio.wait`, when what is to be called at their end wakes it
//! up: `TaskWakeup`, a method in C of the task that is woken; or a function in Python, among whose variables is the future that the task
//! waits for, which in turn has its `TaskWakeup`. What has several to call is left alone.

/// Where a Python process keeps its running task, and what leads from it to those that wait for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsyncioLayout {
    /// Address of the pointer to the dict.
    pub current_tasks: u64,
    /// One of [`keys`].
    pub keys: u64,
    /// Addresses of the module `_asyncio` in memory, from the first to before the second: where `TaskWakeup` is defined.
    pub module: [u64; 2],
    /// Address of the type of functions; 0 where it is not known.
    pub function: u64,
    /// `PyFunctionObject.func_closure`, in octets.
    pub closure: u64,
    /// `TaskObj.task_name`, in octets, and where the text of a string begins.
    pub name: u64,
    pub text: u64,
}

/// How a dict keeps its keys (CPython, `struct _dictkeysobject`).
pub mod keys {
    /// Before Python 3.11: `dk_size` at 8, `dk_nentries` at 32, `dk_indices` at 40.
    pub const SIZED: u64 = 1;
    /// From Python 3.11 on: `dk_log2_index_bytes` at 9, `dk_kind` at 10, `dk_nentries` at 24, `dk_indices` at 32.
    pub const LOGARITHMIC: u64 = 2;
}

/// `PyDictObject.ma_used` and `ma_keys`.
const USED: u64 = 16;
const KEYS: u64 = 32;
/// An entry of a dict with keys of any type: hash, key, value.
const ENTRY: u64 = 24;
const VALUE: u64 = 16;
/// A dict of loops is the smallest there is; this many slots would be more loops than a process has.
const MOST_SLOTS: u64 = 128;

/// The address of the task that runs. `None` where no loop runs a task, where several do, as nothing tells the thread of each, and
/// where what is read does not add up. `read` reads eight octets of the process's memory.
#[inline(always)]
pub fn current_task(layout: &AsyncioLayout, read: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let dict = read(layout.current_tasks)?;
    if read(dict.wrapping_add(USED))? != 1 {
        return None;
    }
    let keys = read(dict.wrapping_add(KEYS))?;
    let at_8 = read(keys.wrapping_add(8))?;
    let (indices, slots, count_at) = if layout.keys == keys::LOGARITHMIC {
        let (log2, kind) = (at_8 >> 8 & 0xff, at_8 >> 16 & 0xff);
        if log2 > 7 || kind != 0 {
            return None;
        }
        (32, 1 << log2, 24)
    } else {
        // Of so few slots each index is one octet.
        (40, at_8, 32)
    };
    let count = read(keys.wrapping_add(count_at))?;
    if slots > MOST_SLOTS || count == 0 || count > slots {
        return None;
    }
    // Entries are appended, and what is taken out leaves a hole: the only one there is stands last.
    let entry = keys.wrapping_add(indices + slots + (count - 1) * ENTRY);
    read(entry.wrapping_add(VALUE)).filter(|task| *task != 0)
}

/// `PyObject.ob_type`.
const TYPE: u64 = 8;
/// `FutureObj.fut_callback0` and `fut_callbacks`, which holds those after the first (CPython 3.8 to 3.13).
const CALLBACK: u64 = 24;
const CALLBACKS: u64 = 40;
/// `PyCFunctionObject.m_ml` and `m_self`.
const DEFINITION: u64 = 16;
const OWNER: u64 = 24;
/// `PyTupleObject.ob_size` and `ob_item`, `PyCellObject.ob_ref`.
const COUNT: u64 = 16;
const ITEMS: u64 = 24;
const CONTENT: u64 = 16;
/// Variables of a function that are looked at: those of `gather` are six.
pub const VARIABLES: u32 = 8;

/// The address of the one task that waits for a task. `None` where none or several may. `search` gives the first of a function's
/// variables that is [`waiting_in`] it, or 0: it is a loop, which the kernel side does not have the verifier go through turn by turn.
#[inline(always)]
pub fn waiter(
    layout: &AsyncioLayout,
    task: u64,
    search: impl Fn(u64) -> u64,
    read: impl Fn(u64) -> Option<u64>,
) -> Option<u64> {
    let kind = read(task.wrapping_add(TYPE))?;
    let callback = only_callback(task, &read)?;
    let waiter = match woken(layout.module, callback, &read) {
        Some(waiter) => waiter,
        None if layout.function != 0 && read(callback.wrapping_add(TYPE))? == layout.function => {
            search(read(callback.wrapping_add(layout.closure))?)
        }
        None => return None,
    };
    (waiter != 0 && read(waiter.wrapping_add(TYPE))? == kind).then_some(waiter)
}

/// The task that waits for the future that is the variable of this number, among those of a function, if it is one. `module` as in
/// [`AsyncioLayout`].
#[inline(always)]
pub fn waiting_in(module: [u64; 2], variables: u64, number: u32, read: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let number = u64::from(number);
    if number >= read(variables.wrapping_add(COUNT))? {
        return None;
    }
    let cell = read(variables.wrapping_add(ITEMS + 8 * number))?;
    let future = read(cell.wrapping_add(CONTENT))?;
    woken(module, only_callback(future, &read)?, &read)
}

/// What is called at the end of a future, if it is one thing.
#[inline(always)]
fn only_callback(future: u64, read: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let more = read(future.wrapping_add(CALLBACKS))?;
    read(future.wrapping_add(CALLBACK)).filter(|callback| *callback != 0 && more == 0)
}

/// The task that a method wakes up, if it is `TaskWakeup`.
#[inline(always)]
fn woken([start, end]: [u64; 2], method: u64, read: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let is_in_module = |address: u64| start <= address && address < end;
    if is_in_module(read(method.wrapping_add(DEFINITION))?) {
        return read(method.wrapping_add(OWNER));
    }
    // Before Python 3.10 it was an object of a kind of its own, which has the task where others have their definition.
    if is_in_module(read(method.wrapping_add(TYPE))?) { read(method.wrapping_add(DEFINITION)) } else { None }
}

/// `PyLongObject.long_value`: a tag, which is 8 for a number above 0 with a single digit, and the digit.
const TAG: u64 = 16;
const DIGIT: u64 = 24;

/// What names a task: where it stands, and its number, as another task may stand there when it has ended. Never 0.
///
/// Tasks are named `Task-` with their number unless the program names them; from Python 3.12 on the number itself stands there until
/// somebody asks for the name.
#[inline(always)]
pub fn name(layout: &AsyncioLayout, task: u64, read: impl Fn(u64) -> Option<u64>) -> u32 {
    let number = number(layout, task, read).unwrap_or_default();
    let name = ((task >> 4) as u32).wrapping_mul(0x9e37_79b1) ^ number.wrapping_mul(0x85eb_ca6b);
    if name == 0 { 1 } else { name }
}

#[inline(always)]
fn number(layout: &AsyncioLayout, task: u64, read: impl Fn(u64) -> Option<u64>) -> Option<u32> {
    const PREFIX: u64 = u64::from_le_bytes(*b"Task-\0\0\0");
    const LENGTH: u32 = 5;
    let name = read(task.wrapping_add(layout.name))?;
    let text = name.wrapping_add(layout.text);
    let first = read(text)?;
    if first << 24 >> 24 != PREFIX {
        return if read(name.wrapping_add(TAG))? == 8 {
            Some(read(name.wrapping_add(DIGIT))? as u32)
        } else {
            Some(first as u32)
        };
    }
    // Its text ends with a 0.
    let digits = [first >> (8 * LENGTH), read(text.wrapping_add(8))?];
    let mut number: u32 = 0;
    for place in 0..11 {
        let octet = if place < 3 { digits[0] >> (8 * place) } else { digits[1] >> (8 * (place - 3)) } as u8;
        if !octet.is_ascii_digit() {
            break;
        }
        number = number.wrapping_mul(10).wrapping_add(u32::from(octet - b'0'));
    }
    Some(number)
}
