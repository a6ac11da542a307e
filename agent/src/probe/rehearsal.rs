//! Whether a trace context comes through at all: one request of the agent's own over loopback, before anything is
//! attached for good, under a kernel side that looks at this process alone.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use agent_common::counter::Counter;
use agent_common::layout::{Layout, PROCESS_TRACE};
use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, PerCpuArray};

use super::hooks::HOOKS;
use super::{Options, Propagation, attach_one, load, map, propagation};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// What the request may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// The programs that it needs, beside the one for packets: that of connections, and that of the call `send`.
const PROGRAMS: [&str; 2] = ["inet_sock_set_state", "enter_sendto"];
/// No process has this number: the kernel side is to look at the agent's own sockets.
const NOBODY: u32 = 0;

/// Sends a request and looks whether its context arrived.
///
/// # Errors
/// When it did not, and why.
pub(super) fn rehearse(layout: &Layout) -> anyhow::Result<()> {
    let options = Options {
        segment_ring: 64 * 1024,
        choose_processes: true,
        propagate: Some(Propagation::default()),
        ..Options::default()
    };
    let mut ebpf = load(layout, &options, NOBODY, false)?;
    let mut processes: HashMap<_, u32, u8> = HashMap::try_from(map(&mut ebpf, "PROCESSES")?)?;
    processes.insert(std::process::id(), PROCESS_TRACE, 0)?;
    let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map(&mut ebpf, "COUNTERS")?)?;
    for hook in HOOKS.iter().filter(|hook| PROGRAMS.contains(&hook.program)) {
        attach_one(&mut ebpf, hook)?;
    }
    propagation::attach(&mut ebpf, layout)?;
    request().context("cannot try --propagate on a connection over loopback")?;
    let count = |counter: Counter| -> anyhow::Result<u64> { Ok(counters.get(&(counter as u32), 0)?.iter().sum()) };
    judge(count(Counter::OptionSent)?, count(Counter::OptionReceived)?)
}

fn request() -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect_timeout(&listener.local_addr()?, DEADLINE)?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(DEADLINE))?;
    client.write_all(REQUEST)?;
    server.read_exact(&mut [0; REQUEST.len()])
}

fn judge(sent: u64, received: u64) -> anyhow::Result<()> {
    ensure!(sent > 0, "--propagate tcp does not work here: the kernel did not put the TCP option on a packet");
    ensure!(received > 0, "--propagate tcp does not work here: the TCP option (kind 25) was sent and did not arrive");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_among_the_hooks() {
        for program in PROGRAMS {
            assert!(HOOKS.iter().any(|hook| hook.program == program), "{program}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let said = |sent, received| judge(sent, received).map_err(|error| error.to_string());
        assert_eq!(said(1, 1), Ok(()));
        assert!(said(0, 0).unwrap_err().ends_with("did not put the TCP option on a packet"));
        assert!(said(1, 0).unwrap_err().ends_with("was sent and did not arrive"));
    }
}
