//! The mesh's quote service: axum on tokio's work-stealing threads, calling on by hyper's pooled client. With
//! `BACKGROUND_MS` a task calls on its own as well.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::get;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

struct Service {
    client: Client<HttpConnector, Body>,
    rates: String,
}

impl Service {
    /// Asks the leaf because of the request called `parent`; the headers are the truth that traces are compared with.
    async fn rate(&self, name: &str, truth: Option<&str>, parent: Option<&str>) -> Result<Bytes> {
        let mut request = Request::get(format!("{}/rate/{name}", self.rates));
        for (header, value) in [("x-truth", truth), ("x-truth-parent", parent)] {
            if let Some(value) = value {
                request = request.header(header, value);
            }
        }
        let answer = self.client.request(request.body(Body::empty())?).await?;
        Ok(answer.into_body().collect().await?.to_bytes())
    }
}

async fn quote(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> (StatusCode, Bytes) {
    let parent = headers.get("x-truth").and_then(|value| value.to_str().ok());
    let truth = parent.map(|parent| format!("{parent}.1"));
    match service.rate(&name, truth.as_deref(), parent).await {
        Ok(rate) => (StatusCode::OK, rate),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string().into()),
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> Result<()> {
    let rates = std::env::var("RATES_URL").context("RATES_URL names the leaf")?;
    let service = Arc::new(Service { client: Client::builder(TokioExecutor::new()).build_http(), rates });
    if let Ok(interval) = std::env::var("BACKGROUND_MS") {
        let interval = Duration::from_millis(interval.parse()?);
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            for count in 0_u64.. {
                tokio::time::sleep(interval).await;
                // Whether it succeeds is no matter: that it calls is.
                let _ = service.rate("background", Some(&format!("quotes_background-{count}")), None).await;
            }
        });
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", serde_json::json!({ "pid": std::process::id(), "port": listener.local_addr()?.port() }));
    let routes = Router::new().route("/quote/{name}", get(quote)).with_state(service);
    axum::serve(listener, routes).await.context("cannot serve")
}
