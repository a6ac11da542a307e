//! Calls of gRPC-Web.

use super::*;
use crate::protocol::grpc::{Coding, Grpc};

fn message(flags: u8, content: &str) -> Vec<u8> {
    [&[flags][..], &(content.len() as u32).to_be_bytes(), content.as_bytes()].concat()
}

fn ask(kind: &str, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head =
        format!("POST /a.B/C HTTP/1.1\r\nContent-Type: {kind}\r\ngrpc-timeout: 1S\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), content].concat()
}

fn chunked(kind: &str, chunks: &[&[u8]]) -> Vec<u8> {
    let mut octets =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in chunks.iter().chain(&[&b""[..]]) {
        octets.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    octets
}

fn call(requests: &[u8], responses: &[u8]) -> Grpc {
    let mut bench = Bench::new(true);
    requests.chunks(7).for_each(|octets| _ = bench.feed(Q, octets));
    responses.chunks(7).for_each(|octets| _ = bench.feed(R, octets));
    bench.out.pop().unwrap().message.grpc.unwrap()
}

#[test]
fn the_status_stands_behind_the_messages() {
    let kind = "application/grpc-web+proto";
    let trailers = message(0x80, "grpc-status: 5\r\n");
    let (first, second) = trailers.split_at(9);
    let answer = chunked(kind, &[&message(0, "abc"), &message(0, ""), first, second]);
    let expected = Grpc {
        status: Some(5),
        timeout: Some(1_000_000_000),
        requests: Some(1),
        responses: Some(2),
        ..Grpc::new(Coding::Web)
    };
    assert_eq!(call(&ask(kind, &message(0, "abc")), &answer), expected);
}

#[test]
fn the_status_stands_in_the_head_of_an_answer_without_messages() {
    let kind = "application/grpc-web-text";
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\ngrpc-status: 12\r\nContent-Length: 0\r\n\r\n");
    let told = call(&ask(kind, b"AAAAAAA="), answer.as_bytes());
    assert_eq!((told.status, told.requests, told.responses), (Some(12), Some(1), Some(0)));
    assert_eq!(told.coding, Coding::WebText);
}

#[test]
fn large_messages_are_left_out_up_to_the_next_head() {
    let kind = "application/grpc-web";
    let content = [message(0, &"x".repeat(9000)), message(0x80, "grpc-status:0\r\n")].concat();
    let mut bench = Bench::new(true);
    bench.feed(Q, ask(kind, &message(0, "")));
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", content.len());
    bench.feed(R, head).feed(R, &content[..100]);
    assert_eq!(bench.follower.want(R).skip.map(u64::from), Some(9005 - 100));
    bench.gap(R, Some(9005 - 100)).feed(R, &content[9005..]);
    let told = bench.out[0].message.grpc.unwrap();
    assert_eq!((told.status, told.responses), (Some(0), Some(1)));
}

/// gRPC itself needs HTTP/2, so this is something else.
#[test]
fn other_content_is_no_call() {
    for kind in ["application/grpc", "application/json"] {
        let mut bench = Bench::new(true);
        bench.feed(Q, ask(kind, b"")).feed(R, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(bench.out[0].message.grpc, None);
    }
}
