//! The server: HTTP/1.1 and HTTP/2 by ALPN, with the paths of the other fixtures' servers.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::credential;
use crate::truth::{Log, Record, announce, now};

/// Content, all at once with its length or in chunks.
type Content = http_body_util::combinators::BoxBody<Bytes, Infallible>;

pub(crate) async fn run(log: Log) -> Result<()> {
    let chain = CertificateDer::pem_file_iter(credential("cert.pem")?)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(credential("key.pem")?)?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    announce("port", listener.local_addr()?.port().into())?;
    let log = Arc::new(log);
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
        tokio::spawn(async move {
            // A client that goes away is none of the server's business.
            let _ = serve(stream, &acceptor, log).await;
        });
    }
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, log: Arc<Log>) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(acceptor.accept(stream).await.context("no handshake")?);
    let answer = service_fn(move |request| answer(request, Arc::clone(&log)));
    let served = auto::Builder::new(TokioExecutor::new()).serve_connection(stream, answer).await;
    served.map_err(|error| anyhow::anyhow!(error))
}

async fn answer(request: Request<Incoming>, log: Arc<Log>) -> Result<Response<Content>> {
    let start = now();
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut path = head.uri.path().trim_start_matches('/').splitn(2, '/');
    let (name, argument) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
    let number = argument.parse::<u16>().unwrap_or_default();
    let (status, content) = match name {
        "hello" => (200, Bytes::from_static(b"hello\n")),
        "item" => (200, Bytes::from(format!("{{\"item\": \"{argument}\"}}\n"))),
        "echo" => (200, body.clone()),
        "status" => (number, Bytes::from_static(b"status\n")),
        "big" => (200, Bytes::from(vec![b'b'; argument.parse()?])),
        "chunked" => (200, Bytes::from(b"0123456789".repeat(number.into()))),
        _ => (404, Bytes::from_static(b"no such path\n")),
    };
    let sent = if head.method == Method::HEAD { 0 } else { content.len() as u64 };
    log.write(&Record {
        method: head.method.as_str(),
        target,
        status: Some(status),
        request_body: body.len() as u64,
        response_body: sent,
        start,
        error: None,
    })?;
    let response = Response::builder().status(status);
    if head.method == Method::HEAD {
        // hyper leaves it to the service to send nothing by HTTP/2.
        let response = response.header("content-length", content.len());
        return Ok(response.body(Full::new(Bytes::new()).boxed())?);
    }
    let content = if name == "chunked" {
        let pieces: Vec<_> = content.chunks(10).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        http_body_util::StreamBody::new(tokio_stream::iter(pieces)).boxed()
    } else {
        Full::new(content).boxed()
    };
    Ok(response.body(content)?)
}
