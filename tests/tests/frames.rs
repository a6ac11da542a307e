//! `--propagate headers` over HTTP/2, by frames made by hand: what is written to, and what is left alone. `--unsafe` as in
//! `headers.rs`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::agent::{Agent, Builder};
use tests::chain::count;
use tests::needs;
use tests::wire::{Pair, find};

const HEADERS: &[&str] = &["--propagate", "headers", "--unsafe"];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const DATA: u8 = 0;
const CONTINUATION: u8 = 9;
const WHOLE: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: a`.
const BLOCK: &[u8] = b"\x82\x86\x84\x41\x01a";
const BEFORE: &[u8] = b"\x10\x0btraceparent\x3700-";
/// Octets that are put in.
const LITERAL: usize = 69;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(1, WHOLE | flags, stream, payload)
}

fn preface() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// Sends `octets` in one call and receives them with as many contexts as `frames` says, each in a frame of header fields that
/// begins there and whose block ends so many octets before its end.
fn sends(pair: &mut Pair, what: &str, octets: &[u8], frames: &[(usize, usize)]) -> Result<()> {
    pair.client.write_all(octets)?;
    let mut received = vec![0; octets.len() + LITERAL * frames.len()];
    pair.received.read_exact(&mut received).with_context(|| what.to_owned())?;
    for (at, padding) in frames.iter().rev() {
        let length = |octets: &[u8]| usize::from(octets[at + 1]) << 8 | usize::from(octets[at + 2]);
        let before = length(octets);
        let place = at + 9 + before - padding;
        // Those of the frames before are there still.
        let earlier = LITERAL * frames.iter().filter(|(other, _)| other < at).count();
        let found = received.get(place + earlier..place + earlier + BEFORE.len());
        ensure!(found == Some(BEFORE), "{what}: no context at {place}: {}", String::from_utf8_lossy(&received));
        received.drain(place + earlier..place + earlier + LITERAL);
        let now = usize::from(received[at + earlier + 1]) << 8 | usize::from(received[at + earlier + 2]);
        ensure!(now == before + LITERAL, "{what}: a frame of {now} octets");
        received[at + earlier + 1..at + earlier + 3].copy_from_slice(&octets[at + 1..at + 3]);
    }
    ensure!(received == octets, "{what}: not the same: {}", String::from_utf8_lossy(&received));
    Ok(())
}

fn own() -> Result<Agent> {
    Builder::new()?.args(HEADERS).args(&["--pid", &std::process::id().to_string()]).start()
}

/// Frames made by hand: only a whole block of header fields of a new stream is written to.
#[test]
fn only_what_is_proven_is_written_to() -> Result<()> {
    needs!("root", "python");
    let agent = own()?;
    let mut pair = Pair::new()?;
    let first = [preface(), headers(1, 0, BLOCK)].concat();
    let at = first.len() - 9 - BLOCK.len();
    sends(&mut pair, "a request after the preface", &first, &[(at, 0)])?;
    sends(&mut pair, "trailers", &headers(1, 1, b"\x00\x01a\x01b"), &[])?;
    sends(&mut pair, "a request", &headers(3, 0, BLOCK), &[(0, 0)])?;
    let padded = [&[5][..], &[0, 0, 0, 0, 9], BLOCK, &[0; 5]].concat();
    sends(&mut pair, "with padding and a priority", &headers(5, PADDED | PRIORITY, &padded), &[(0, 5)])?;
    let request = headers(7, 1, BLOCK);
    let two = [&request[..], &headers(9, 0, BLOCK), &frame(DATA, 0, 9, &headers(11, 0, BLOCK))].concat();
    sends(&mut pair, "two, and content like a third", &two, &[(0, 0), (request.len(), 0)])?;
    let large = frame(DATA, 0, 9, &headers(11, 0, BLOCK).repeat(1000));
    for (number, part) in large.chunks(1500).enumerate() {
        sends(&mut pair, &format!("part {number} of content"), part, &[])?;
    }
    // A value of 16,315 octets: 127 and 126 * 128 and 60 (RFC 7541, section 5.1).
    let long = [BLOCK, b"\x00\x01a\x7f\xbc\x7e", &[b'x'; 16_315]].concat();
    sends(&mut pair, "no room in the frame", &headers(11, 0, &long), &[])?;
    let many: Vec<u8> = (0..20).flat_map(|i| headers(13 + 2 * i, 0, BLOCK)).collect();
    let places: Vec<(usize, usize)> = (0..16).map(|i| (i * (9 + BLOCK.len()), 0)).collect();
    sends(&mut pair, "twenty in one call", &many, &places)?;
    sends(&mut pair, "of a server's stream", &headers(54, 0, BLOCK), &[])?;
    sends(&mut pair, "an unknown frame", &frame(0x42, 0xff, 0, b"abc"), &[])?;
    sends(&mut pair, "after all that", &headers(101, 0, BLOCK), &[(0, 0)])?;
    ensure!(count(&agent, "header_not_ready")? == 4.0 && count(&agent, "header_no_room")? == 1.0, "counted otherwise");
    ensure!(count(&agent, "header_frames_lost")? == 0.0, "frames were lost");

    let request = headers(3, 0, BLOCK);
    let (half, rest) = request.split_at(12);
    let literal = |name: &[u8]| [BLOCK, &[0x40, u8::try_from(name.len()).unwrap_or(0)], name, b"\x01x"].concat();
    let cases: [(&str, Vec<Vec<u8>>); 7] = [
        ("a block in two calls", vec![half.to_vec(), rest.to_vec()]),
        ("a block in two frames", vec![[frame(1, 0, 3, BLOCK), frame(CONTINUATION, WHOLE, 3, b"\x84")].concat()]),
        ("no block", vec![headers(3, 0, b"\x82\x86\x84\x41\x09a")]),
        ("padding as long as the frame", vec![headers(3, PADDED, b"\x06\x82\x86\x84\x41\x01a")]),
        ("no frame", vec![b"\x00\x00\x02\x08\x00\x00\x00\x00\x00ab".to_vec()]),
        ("a head in two calls", vec![request[..5].to_vec(), request[5..].to_vec()]),
        ("another protocol", vec![b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()]),
    ];
    for (number, (what, calls)) in cases.iter().enumerate() {
        let mut pair = Pair::new()?;
        sends(&mut pair, what, &first, &[(at, 0)])?;
        for call in calls {
            sends(&mut pair, what, call, &[])?;
        }
        sends(&mut pair, &format!("what follows {what}"), &headers(5, 0, BLOCK), &[])?;
        ensure!(count(&agent, "header_frames_lost")? == number as f64 + 1.0, "{what}");
    }
    for name in [&b"traceparent"[..], b"tracestate", b"b3", b"x-b3-traceid"] {
        let mut pair = Pair::new()?;
        let what = String::from_utf8_lossy(name).into_owned();
        sends(&mut pair, &what, &first, &[(at, 0)])?;
        sends(&mut pair, &what, &headers(3, 0, &literal(name)), &[])?;
        sends(&mut pair, &format!("after {what}"), &headers(5, 0, &[BLOCK, b"\xbe"].concat()), &[])?;
    }
    for (what, begins) in [("no preface", &first[24..]), ("half a preface", &PREFACE[..12])] {
        let mut pair = Pair::new()?;
        sends(&mut pair, what, begins, &[])?;
        sends(&mut pair, what, &first, &[])?;
    }
    Ok(())
}

/// While the kernel's buffer is full it takes parts of what is sent: what arrives is the same octets.
#[test]
fn full_buffers_stay_whole() -> Result<()> {
    needs!("root", "python");
    let agent = own()?;
    let mut pair = Pair::new()?;
    rustix::net::sockopt::set_socket_send_buffer_size(&pair.client, 20_000)?;
    pair.client.set_nonblocking(true)?;
    // Longer than the buffer, so that the kernel takes a part.
    let content = vec![b'y'; 60_000];
    let step = |i: u32| [headers(1 + 2 * i, 0, BLOCK), frame(DATA, 1, 1 + 2 * i, &content)].concat();
    let calls: Vec<Vec<u8>> = std::iter::once(preface()).chain((0..60).map(step)).collect();
    let all = calls.concat();
    let (parts, mut received) = pair.crowded(2000, |client| send_all(client, &calls))?;
    let mut fields = 0;
    while let Some(at) = find(&received, BEFORE) {
        received.drain(at..at + LITERAL);
        let length = at - BLOCK.len() - 9;
        received[length + 2] -= u8::try_from(LITERAL)?;
        fields += 1;
    }
    ensure!(received == all, "{} octets arrived of {}, {fields} fields", received.len(), all.len());
    let (left, lost) = (count(&agent, "header_not_ready")?, count(&agent, "header_frames_lost")?);
    println!("{fields} fields, {left} requests left alone, {parts} parts");
    ensure!(parts > 0 && fields > 0 && lost == 0.0, "{parts} parts, {fields} fields, {lost} connections lost");
    ensure!(f64::from(fields) + left == 60.0, "{fields} fields and {left} left alone");
    Ok(())
}

/// Sends what each call has; how often the kernel took a part of it alone.
fn send_all(client: &mut TcpStream, calls: &[Vec<u8>]) -> Result<u32> {
    let mut parts = 0;
    for call in calls {
        let mut sent = 0;
        while sent < call.len() {
            match client.write(&call[sent..]) {
                Ok(octets) => {
                    sent += octets;
                    parts += u32::from(sent < call.len());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_micros(100));
                }
                Err(error) => bail!("after {sent} octets: {error}"),
            }
        }
    }
    Ok(parts)
}
