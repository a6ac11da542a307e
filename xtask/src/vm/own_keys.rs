//! A server and a client that speak TLS 1.2 by the kernel alone, with keys that both know: no handshake, no library.
//! `own-keys server PORT` serves one connection after the other; `own-keys client PORT N` makes N requests on one.

use std::{
    env,
    ffi::{c_int, c_void},
    io::{Error, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd,
};

unsafe extern "C" {
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: u32) -> c_int;
}

/// `SOL_TCP`, `TCP_ULP` (include/uapi/linux/tcp.h); `SOL_TLS`, `TLS_TX`, `TLS_RX` (include/uapi/linux/tls.h).
const SOL_TCP: c_int = 6;
const TCP_ULP: c_int = 31;
const SOL_TLS: c_int = 282;
const TLS_TX: c_int = 1;
const TLS_RX: c_int = 2;

/// `struct tls12_crypto_info_aes_gcm_128`.
#[repr(C)]
struct Keys {
    version: u16,
    cipher: u16,
    iv: [u8; 8],
    key: [u8; 16],
    salt: [u8; 4],
    number: [u8; 8],
}

/// The keys of one direction.
fn keys(name: u8) -> Keys {
    Keys { version: 0x303, cipher: 51, iv: [name; 8], key: [name; 16], salt: [name; 4], number: [0; 8] }
}

fn set(socket: &TcpStream, level: c_int, name: c_int, value: *const c_void, len: usize) {
    // SAFETY: the value has that length.
    if unsafe { setsockopt(socket.as_raw_fd(), level, name, value, len as u32) } != 0 {
        panic!("setsockopt {level} {name}: {}", Error::last_os_error());
    }
}

fn secure(socket: &TcpStream, sends: u8, receives: u8) {
    set(socket, SOL_TCP, TCP_ULP, b"tls".as_ptr().cast(), 3);
    for (name, keys) in [(TLS_TX, keys(sends)), (TLS_RX, keys(receives))] {
        set(socket, SOL_TLS, name, (&raw const keys).cast(), size_of::<Keys>());
    }
}

/// Reads up to an empty line and so many octets more; whether there was something.
fn message(socket: &mut TcpStream, content: usize) -> bool {
    let mut octets = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = socket.read(&mut buffer).expect("cannot read");
        octets.extend_from_slice(&buffer[..n]);
        if n == 0 {
            return false;
        }
        let end = octets.windows(4).position(|four| four == b"\r\n\r\n");
        if end.is_some_and(|end| octets.len() >= end + 4 + content) {
            return true;
        }
    }
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let port: u16 = args[2].parse().expect("no port");
    if args[1] == "server" {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("cannot listen");
        for socket in listener.incoming() {
            let mut socket = socket.expect("cannot accept");
            secure(&socket, b's', b'c');
            while message(&mut socket, 0) {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nown\n").expect("cannot write");
            }
        }
    } else {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("cannot connect");
        secure(&socket, b'c', b's');
        for i in 0..args[3].parse().expect("no number") {
            let request = format!("GET /own/{i} HTTP/1.1\r\nHost: vm\r\n\r\n");
            socket.write_all(request.as_bytes()).expect("cannot write");
            assert!(message(&mut socket, 4), "no response");
            println!("200 4");
        }
    }
}
