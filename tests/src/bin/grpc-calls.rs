//! Calls of gRPC in the clear by tonic: what `fixtures/node/grpc.js` does, in Rust.
//!
//! ```text
//! grpc-calls server               prints {"port": N}; takes gRPC-Web too, over HTTP/1 as well
//! grpc-calls client PORT COUNT    COUNT calls of each kind and of each end, ten at a time
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, BoxStream, Service, http};
use tonic::server::NamedService;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::service_fn;

/// Messages are text.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, message: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(to, message.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let octets = bytes::Buf::copy_to_bytes(from, bytes::Buf::remaining(from));
        Ok(Some(String::from_utf8_lossy(&octets).into_owned()))
    }
}

/// Service `test.v1.Echo`.
#[derive(Clone, Copy)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.v1.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Text);
            let name = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            Ok(match &*name {
                "ClientStream" => grpc.client_streaming(service_fn(gather), request).await,
                "ServerStream" => grpc.server_streaming(service_fn(scatter), request).await,
                "Bidirectional" => grpc.streaming(service_fn(echo), request).await,
                "Fail" => grpc.unary(service_fn(fail), request).await,
                "Hang" => grpc.unary(service_fn(|_: Request<String>| std::future::pending()), request).await,
                _ => grpc.unary(service_fn(answer), request).await,
            })
        })
    }
}

type Answer<T> = Result<Response<T>, Status>;

async fn answer(request: Request<String>) -> Answer<String> {
    Ok(Response::new(request.into_inner()))
}

async fn gather(request: Request<Streaming<String>>) -> Answer<String> {
    Ok(Response::new(all(request.into_inner()).await?))
}

async fn scatter(request: Request<String>) -> Answer<BoxStream<String>> {
    let parts: Vec<_> = request.into_inner().chars().map(|letter| Ok(letter.to_string())).collect();
    Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
}

async fn echo(request: Request<Streaming<String>>) -> Answer<Streaming<String>> {
    Ok(Response::new(request.into_inner()))
}

async fn fail(request: Request<String>) -> Answer<String> {
    Err(Status::new(Code::from_bytes(request.into_inner().as_bytes()), "as asked"))
}

/// The messages of a stream as one text.
async fn all(mut parts: impl Stream<Item = Result<String, Status>> + Unpin) -> Result<String, Status> {
    let mut all = String::new();
    while let Some(part) = parts.next().await {
        all.push_str(&part?);
    }
    Ok(all)
}

async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{{\"port\": {}}}", listener.local_addr()?.port());
    let server = Server::builder().accept_http1(true).layer(tonic_web::GrpcWebLayer::new()).add_service(Echo);
    Ok(server.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

/// Call `kind` of eight.
async fn call(channel: Channel, kind: usize) -> Result<()> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let path = |name: &str| PathAndQuery::try_from(format!("/test.v1.Echo/{name}"));
    let one = || Request::new("abc".to_owned());
    let parts = || Request::new(tokio_stream::iter(["a", "b", "c"].map(str::to_owned)));
    let code = |answer: Answer<String>| answer.err().map_or(Code::Ok, |status| status.code());
    match kind {
        0 => ensure!(grpc.unary(one(), path("Unary")?, Text).await?.into_inner() == "abc"),
        1 => ensure!(grpc.client_streaming(parts(), path("ClientStream")?, Text).await?.into_inner() == "abc"),
        2 => {
            ensure!(all(grpc.server_streaming(one(), path("ServerStream")?, Text).await?.into_inner()).await? == "abc")
        }
        3 => ensure!(all(grpc.streaming(parts(), path("Bidirectional")?, Text).await?.into_inner()).await? == "abc"),
        4 => ensure!(code(grpc.unary(Request::new("5".to_owned()), path("Fail")?, Text).await) == Code::NotFound),
        5 => ensure!(code(grpc.unary(Request::new("13".to_owned()), path("Fail")?, Text).await) == Code::Internal),
        6 => {
            let call = grpc.unary(one(), path("Hang")?, Text);
            let answer: Result<Answer<String>, _> = tokio::time::timeout(Duration::from_millis(50), call).await;
            ensure!(answer.is_err());
        }
        _ => {
            let mut request = one();
            request.set_timeout(Duration::from_millis(200));
            let code = code(grpc.unary(request, path("Hang")?, Text).await);
            // Tonic has the one name for both.
            ensure!(matches!(code, Code::Cancelled | Code::DeadlineExceeded), "{code:?}");
        }
    }
    Ok(())
}

async fn client(port: &str, count: usize) -> Result<()> {
    let channel = Channel::from_shared(format!("http://127.0.0.1:{port}"))?.connect().await?;
    let next = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..10)
        .map(|_| {
            let (channel, next) = (channel.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    // The last two by themselves, when everything has warmed up: one is about time.
                    let kind = match i.checked_sub(count * 6) {
                        None => i % 6,
                        Some(i) if i < count * 2 => 6 + i % 2,
                        Some(_) => return Ok(()),
                    };
                    call(channel.clone(), kind).await?;
                }
            })
        })
        .collect();
    for worker in workers {
        let done: Result<()> = worker.await?;
        done?;
    }
    // The connection's own task still has the last cancellations to send.
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server"] => serve().await,
        ["client", port, count] => client(port, count.parse()?).await,
        _ => anyhow::bail!("grpc-calls server | client PORT COUNT"),
    }
}
