//! Whether a trace context comes through at all, and whether that harms: a request or two of the agent's own over loopback,
//! before anything is attached for good, under a kernel side that looks at this process alone.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use agent_common::context::field;
use agent_common::counter::Counter;
use agent_common::http2::{self, PREFACE};
use agent_common::layout::{Layout, PROCESS_TRACE};
use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, PerCpuArray};

use super::hooks::HOOKS;
use super::{Carrier, Options, Propagation, attach_one, load, map, propagation};

const HEAD: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n";
const CONTENT: &str = "\r\nping";
/// `:method: GET`, `:scheme: http`, `:path: /` (RFC 7541, appendix A).
const BLOCK: &[u8] = b"\x82\x86\x84";
const RESPONSE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// What the request may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// The programs that it needs, beside those of propagation: that of connections, and that of the call `send`.
const PROGRAMS: [&str; 2] = ["inet_sock_set_state", "enter_sendto"];
/// No process has this number: the kernel side is to look at the agent's own sockets.
const NOBODY: u32 = 0;

/// What was seen of the request.
struct Seen {
    /// As the server received it.
    request: Vec<u8>,
    /// What `FIONREAD` said on the client's socket when the response had come.
    readable: u64,
}

/// Sends a request and looks whether its context arrived.
///
/// # Errors
/// When it did not, or when the kernel misleads the client then, and why.
pub(super) fn rehearse(layout: &Layout, carrier: Carrier) -> anyhow::Result<()> {
    let options = Options {
        segment_ring: 64 * 1024,
        choose_processes: true,
        propagate: Some(Propagation { carrier, parent_based: true, sample_from: 0 }),
        ..Options::default()
    };
    let mut ebpf = load(layout, &options, NOBODY, false)?;
    let mut processes: HashMap<_, u32, u8> = HashMap::try_from(map(&mut ebpf, "PROCESSES")?)?;
    processes.insert(std::process::id(), PROCESS_TRACE, 0)?;
    let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map(&mut ebpf, "COUNTERS")?)?;
    for hook in HOOKS.iter().filter(|hook| PROGRAMS.contains(&hook.program)) {
        attach_one(&mut ebpf, hook)?;
    }
    propagation::attach(&mut ebpf, layout, carrier)?;
    const WHAT: &str = "cannot try --propagate on a connection over loopback";
    let seen = request(format!("{HEAD}{CONTENT}").as_bytes()).context(WHAT)?;
    let count = |counter: Counter| -> anyhow::Result<u64> { Ok(counters.get(&(counter as u32), 0)?.iter().sum()) };
    match carrier {
        Carrier::TcpOption => judge_option(count(Counter::OptionSent)?, count(Counter::OptionReceived)?),
        Carrier::Fields { allow_unsafe } => {
            judge_fields(&seen, allow_unsafe)?;
            judge_frames(&request(&frames(BLOCK)).context(WHAT)?.request)
        }
    }
}

/// What a client of HTTP/2 sends in its first call: its settings, none, and a request with these header fields.
fn frames(block: &[u8]) -> Vec<u8> {
    let length = u8::try_from(block.len()).unwrap_or(u8::MAX);
    let settings = [0, 0, 0, http2::kind::SETTINGS, 0, 0, 0, 0, 0];
    let flags = http2::flag::END_HEADERS | http2::flag::END_STREAM;
    let head = [0, 0, length, http2::kind::HEADERS, flags, 0, 0, 0, 1];
    [&PREFACE[..], &settings, &head, block].concat()
}

fn request(octets: &[u8]) -> std::io::Result<Seen> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect_timeout(&listener.local_addr()?, DEADLINE)?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(DEADLINE))?;
    client.set_read_timeout(Some(DEADLINE))?;
    client.write_all(octets)?;
    client.shutdown(Shutdown::Write)?;
    let mut request = Vec::new();
    server.read_to_end(&mut request)?;
    server.write_all(RESPONSE)?;
    // It has come when there is something to peek at.
    client.peek(&mut [0; RESPONSE.len()])?;
    let readable = rustix::io::ioctl_fionread(&client)?;
    let mut response = [0; RESPONSE.len()];
    client.read_exact(&mut response)?;
    Ok(Seen { request, readable })
}

fn judge_option(sent: u64, received: u64) -> anyhow::Result<()> {
    ensure!(sent > 0, "--propagate tcp does not work here: the kernel did not put the TCP option on a packet");
    ensure!(received > 0, "--propagate tcp does not work here: the TCP option (kind 25) was sent and did not arrive");
    Ok(())
}

fn judge_fields(seen: &Seen, allow_unsafe: bool) -> anyhow::Result<()> {
    let request = String::from_utf8_lossy(&seen.request);
    let field = request.strip_prefix(HEAD).and_then(|rest| rest.strip_suffix(CONTENT));
    ensure!(field != Some(""), "--propagate headers does not work here: the kernel put no field into a request");
    ensure!(
        field.is_some_and(|field| field.starts_with("traceparent: 00-") && field.ends_with("\r\n")),
        "--propagate headers does not work here: the kernel made {request:?} of a request"
    );
    ensure!(
        allow_unsafe || seen.readable != 0,
        "--propagate headers is refused: on this kernel a socket that may be written to tells its program that there is \
         nothing to read (FIONREAD is 0, a fault of some versions of Linux), so that nginx, Java and .NET can stall; use --propagate tcp, or --unsafe where no traced program asks"
    );
    Ok(())
}

fn judge_frames(request: &[u8]) -> anyhow::Result<()> {
    let block = request.get(frames(&[]).len()..).unwrap_or_default();
    let field = block.strip_prefix(BLOCK).and_then(|rest| rest.strip_prefix(field::LITERAL_NAME));
    ensure!(block != BLOCK, "--propagate headers does not work here: the kernel put no field into a request of HTTP/2");
    ensure!(
        field.is_some_and(|value| value.starts_with(b"00-") && value.len() == field::VALUE) && request == frames(block),
        "--propagate headers does not work here: the kernel made {:?} of a request of HTTP/2",
        request.escape_ascii().to_string()
    );
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
        let said = |sent, received| judge_option(sent, received).map_err(|error| error.to_string());
        assert_eq!(said(1, 1), Ok(()));
        assert!(said(0, 0).unwrap_err().ends_with("did not put the TCP option on a packet"));
        assert!(said(1, 0).unwrap_err().ends_with("was sent and did not arrive"));
    }

    #[test]
    fn a_request_that_is_not_what_it_should_be_is_refused() {
        let said = |field: &str, readable, allow_unsafe| {
            let seen = Seen { request: format!("{HEAD}{field}{CONTENT}").into_bytes(), readable };
            judge_fields(&seen, allow_unsafe).map_err(|error| error.to_string())
        };
        let field = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
        assert_eq!(said(field, 10, false), Ok(()));
        assert_eq!(said(field, 0, true), Ok(()));
        assert!(said(field, 0, false).unwrap_err().contains("FIONREAD"));
        assert!(said("", 10, true).unwrap_err().ends_with("put no field into a request"));
        assert!(said("\0\0", 10, true).unwrap_err().contains("made"));
    }

    #[test]
    fn a_request_of_http2_that_is_not_what_it_should_be_is_refused() {
        let said = |octets: &[u8]| judge_frames(octets).map_err(|error| error.to_string());
        let value = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let whole = frames(&[BLOCK, field::LITERAL_NAME, value].concat());
        assert_eq!(said(&whole), Ok(()));
        assert!(said(&frames(BLOCK)).unwrap_err().ends_with("put no field into a request of HTTP/2"));
        assert!(said(&whole[..whole.len() - 1]).unwrap_err().contains("made"));
        let mut length = whole;
        length[PREFACE.len() + 9 + 2] -= 1;
        assert!(said(&length).unwrap_err().contains("made"));
    }
}
