//! The client: hyper's with rustls below, so many requests at a time.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::truth::{Log, Record, announce, now};
use crate::{Args, credential};

/// One request of a plan.
#[derive(Deserialize)]
struct Step {
    method: String,
    target: String,
    body: usize,
}

type Caller = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A plan that is being carried out.
struct Work {
    args: Args,
    log: Log,
    caller: Caller,
    steps: Mutex<std::iter::Enumerate<std::vec::IntoIter<String>>>,
}

pub(crate) async fn run(args: Args, log: Log) -> Result<()> {
    let caller = caller(&args.mode)?;
    let plan = args.plan.as_deref().context("no --plan")?;
    let plan = std::fs::read_to_string(plan).with_context(|| format!("cannot read {}", plan.display()))?;
    let steps: Vec<_> = plan.lines().map(str::to_owned).collect();
    let work = Arc::new(Work { args, log, caller, steps: Mutex::new(steps.into_iter().enumerate()) });
    if work.args.streams == 1 {
        return work.go_on().await;
    }
    let mut workers = JoinSet::new();
    for _ in 0..work.args.streams {
        let work = Arc::clone(&work);
        workers.spawn(async move { work.go_on().await });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

impl Work {
    fn next(&self) -> Option<(usize, String)> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// Carries out one request after the other until none is left.
    async fn go_on(&self) -> Result<()> {
        while let Some((at, line)) = self.next() {
            if self.args.gate == Some(at) {
                announce("gate", at as u64)?;
                // Other threads look after the connections meanwhile.
                std::io::stdin().read_line(&mut String::new())?;
            }
            self.carry_out(&serde_json::from_str(&line)?).await?;
        }
        Ok(())
    }

    async fn carry_out(&self, step: &Step) -> Result<()> {
        let mut record = Record {
            method: &step.method,
            target: &step.target,
            status: None,
            request_body: step.body as u64,
            response_body: 0,
            start: now(),
            error: None,
        };
        match exchange(&self.caller, &self.args, step).await {
            Ok((status, octets)) => (record.status, record.response_body) = (Some(status), octets),
            Err(error) => record.error = Some(format!("{error:#}")),
        }
        self.log.write(&record)
    }
}

fn caller(mode: &str) -> Result<Caller> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(credential("ca.pem")?)?)?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    let connector = if mode == "h2" { connector.enable_http2().build() } else { connector.enable_http1().build() };
    Ok(Client::builder(TokioExecutor::new()).http2_only(mode == "h2").build(connector))
}

/// Status, and how many octets came.
async fn exchange(caller: &Caller, args: &Args, step: &Step) -> Result<(u16, u64)> {
    let uri: Uri = format!("{}{}", args.base, step.target).parse()?;
    let mut request = Request::builder().method(step.method.as_str()).uri(uri);
    if args.mode == "close" {
        request = request.header("Connection", "close");
    }
    let response = caller.request(request.body(Full::new(Bytes::from(vec![b'x'; step.body])))?).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes().len() as u64))
}
