//! Every hook: which program goes to which tracepoint, and what is lost without it.

/// What the agent can do without a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// No capture without it.
    Required,
    /// Capture works; what is said here is missing.
    Optional(&'static str),
}

/// A program and the tracepoint it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    pub program: &'static str,
    pub category: &'static str,
    pub tracepoint: &'static str,
    pub need: Need,
}

const fn hook(program: &'static str, category: &'static str, tracepoint: &'static str, need: Need) -> Hook {
    Hook { program, category, tracepoint, need }
}

const ENTRY: Need = Need::Optional("sent octets carry the time of the call's return instead of its entry");

/// In the order of attaching: connections and processes first, then what moves octets, entries before returns.
pub const HOOKS: &[Hook] = &[
    hook("inet_sock_set_state", "sock", "inet_sock_set_state", Need::Required),
    hook("sched_process_exec", "sched", "sched_process_exec", Need::Optional("names of short-lived processes")),
    hook("sched_process_exit", "sched", "sched_process_exit", Need::Optional("ended processes are noticed later")),
    hook("exit_connect", "syscalls", "sys_exit_connect", Need::Optional("connections refused before a packet is sent")),
    hook("enter_write", "syscalls", "sys_enter_write", ENTRY),
    hook("enter_writev", "syscalls", "sys_enter_writev", ENTRY),
    hook("enter_sendto", "syscalls", "sys_enter_sendto", ENTRY),
    hook("enter_sendmsg", "syscalls", "sys_enter_sendmsg", ENTRY),
    hook("enter_sendmmsg", "syscalls", "sys_enter_sendmmsg", ENTRY),
    hook("enter_sendfile64", "syscalls", "sys_enter_sendfile64", ENTRY),
    hook("enter_splice", "syscalls", "sys_enter_splice", ENTRY),
    hook("exit_read", "syscalls", "sys_exit_read", Need::Required),
    hook("exit_readv", "syscalls", "sys_exit_readv", Need::Required),
    hook("exit_recvfrom", "syscalls", "sys_exit_recvfrom", Need::Required),
    hook("exit_recvmsg", "syscalls", "sys_exit_recvmsg", Need::Required),
    hook("exit_recvmmsg", "syscalls", "sys_exit_recvmmsg", Need::Optional("octets received by recvmmsg")),
    hook("exit_write", "syscalls", "sys_exit_write", Need::Required),
    hook("exit_writev", "syscalls", "sys_exit_writev", Need::Required),
    hook("exit_sendto", "syscalls", "sys_exit_sendto", Need::Required),
    hook("exit_sendmsg", "syscalls", "sys_exit_sendmsg", Need::Required),
    hook("exit_sendmmsg", "syscalls", "sys_exit_sendmmsg", Need::Optional("octets sent by sendmmsg")),
    hook("exit_sendfile64", "syscalls", "sys_exit_sendfile64", Need::Optional("the time of octets sent by sendfile")),
    hook("exit_splice", "syscalls", "sys_exit_splice", Need::Optional("the time of octets moved by splice")),
];
