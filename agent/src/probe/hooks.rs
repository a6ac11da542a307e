//! Every hook: which program goes to which tracepoint or function, where it is used, and what is lost without it.

use agent_common::hint::rare;

/// Where the transfers of octets are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hooks {
    /// At the sockets where the kernel has tracepoints there (Linux 6.16), else at the system calls.
    #[default]
    Auto,
    Sockets,
    Calls,
}

/// What the agent can do without a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// No capture without it.
    Required,
    /// Capture works; what is said here is missing.
    Optional(&'static str),
}

/// When a hook is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Always,
    /// Where transfers are seen at the sockets.
    AtSockets,
    /// Where they are seen at the system calls; with bits of [`rare`] at the sockets as well, from the first such call
    /// on.
    AtCalls(u32),
    /// At functions of TLS libraries, from the first one on that is found.
    AtFunctions,
}

/// A program and the tracepoint it belongs to; `tracepoint` is the program again where it belongs to functions.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    pub program: &'static str,
    pub category: &'static str,
    pub tracepoint: &'static str,
    pub used: Use,
    pub need: Need,
}

const fn always(name: &'static str, category: &'static str, need: Need) -> Hook {
    Hook { program: name, category, tracepoint: name, used: Use::Always, need }
}

/// A raw tracepoint: its program has the tracepoint's name.
const fn socket(name: &'static str, category: &'static str) -> Hook {
    let need = Need::Optional("capture is at the system calls, which costs every call of every process some 50 ns");
    Hook { program: name, category, tracepoint: name, used: Use::AtSockets, need }
}

const fn call(program: &'static str, tracepoint: &'static str, need: Need, rare: u32) -> Hook {
    Hook { program, category: "syscalls", tracepoint, used: Use::AtCalls(rare), need }
}

/// A program for functions in user space.
const fn function(program: &'static str) -> Hook {
    let need = Need::Optional("plaintext of TLS, so HTTPS");
    Hook { program, category: "uprobe", tracepoint: program, used: Use::AtFunctions, need }
}

/// A program for functions that tell what header tables hold.
const fn table(program: &'static str) -> Hook {
    let need = Need::Optional("what header tables of HTTP/2 held before the agent came");
    Hook { program, category: "uprobe", tracepoint: program, used: Use::AtFunctions, need }
}

const ENTRY: Need = Need::Optional("sent octets carry the time of the call's return instead of its entry");

/// In the order of attaching: connections and processes first, then what moves octets, entries before returns.
pub const HOOKS: &[Hook] = &[
    always("inet_sock_set_state", "sock", Need::Required),
    always("sched_process_exec", "sched", Need::Optional("names of short-lived processes")),
    always("sched_process_exit", "sched", Need::Optional("ended processes are noticed later")),
    always(
        "task_newtask",
        "task",
        Need::Optional("calls of threads and processes that a request starts are joined to it less often"),
    ),
    socket("sock_recv_length", "sock"),
    socket("tcp_sendmsg_locked", "tcp"),
    socket("sock_send_length", "sock"),
    call("exit_connect", "sys_exit_connect", Need::Optional("connections refused before a packet is sent"), 0),
    call("enter_write", "sys_enter_write", ENTRY, 0),
    call("enter_writev", "sys_enter_writev", ENTRY, 0),
    call("enter_sendto", "sys_enter_sendto", ENTRY, 0),
    call("enter_sendmsg", "sys_enter_sendmsg", ENTRY, 0),
    call("enter_sendmmsg", "sys_enter_sendmmsg", ENTRY, rare::BATCHES),
    call("enter_sendfile64", "sys_enter_sendfile64", ENTRY, 0),
    call("enter_splice", "sys_enter_splice", ENTRY, 0),
    call("exit_read", "sys_exit_read", Need::Required, 0),
    call("exit_readv", "sys_exit_readv", Need::Required, 0),
    call("exit_recvfrom", "sys_exit_recvfrom", Need::Required, 0),
    call("exit_recvmsg", "sys_exit_recvmsg", Need::Required, 0),
    call("exit_recvmmsg", "sys_exit_recvmmsg", Need::Optional("octets received by recvmmsg"), rare::BATCHES),
    call("exit_write", "sys_exit_write", Need::Required, 0),
    call("exit_writev", "sys_exit_writev", Need::Required, 0),
    call("exit_sendto", "sys_exit_sendto", Need::Required, 0),
    call("exit_sendmsg", "sys_exit_sendmsg", Need::Required, 0),
    call("exit_sendmmsg", "sys_exit_sendmmsg", Need::Optional("octets sent by sendmmsg"), rare::BATCHES),
    call("exit_sendfile64", "sys_exit_sendfile64", Need::Optional("the time of octets sent by sendfile"), 0),
    call("exit_splice", "sys_exit_splice", Need::Optional("the time of octets moved by splice"), rare::SPLICE),
    function(TLS_ENTRY),
    function(TLS_RETURN),
    function(RUSTLS_TAKEN),
    function(GO_TLS_ENTRY),
    function(GO_TLS_WRITE),
    function(GO_TLS_RET),
    table(GO_HPACK_DECODE),
    table(GO_HPACK_ENCODE),
    table(HPACK_INFLATE),
];

/// The programs at functions of TLS libraries: where one begins, where it returns, where rustls hands over what it has
/// decrypted, and where functions of Go begin, that which sends among them, and return.
pub const TLS_ENTRY: &str = "tls_entry";
pub const TLS_RETURN: &str = "tls_return";
pub const RUSTLS_TAKEN: &str = "rustls_taken";
pub const GO_TLS_ENTRY: &str = "go_tls_entry";
pub const GO_TLS_WRITE: &str = "go_tls_write";
pub const GO_TLS_RET: &str = "go_tls_ret";
/// The programs where Go decodes header fields and encodes them, and where nghttp2 decodes them.
pub const GO_HPACK_DECODE: &str = "go_hpack_decode";
pub const GO_HPACK_ENCODE: &str = "go_hpack_encode";
pub const HPACK_INFLATE: &str = "hpack_inflate";
