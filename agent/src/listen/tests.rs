//! The listener over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::signal::span::{Kind, Span, SpanKind, TraceId};

/// Far more than anything here takes; a test that fails says so instead of hanging.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Fake {
    ready: AtomicBool,
    asked: AtomicUsize,
}

impl Source for Fake {
    fn metrics(&self, accept: Option<&str>) -> (&'static str, String) {
        ("text/plain; version=0.0.4", format!("# accept {}\n", accept.unwrap_or("-")))
    }

    fn services(&self) -> Services {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let row = |service: &str, kind, rate| ServiceRow {
            service: service.into(),
            kind,
            requests: 100,
            errors: 1,
            rate,
            error_rate: Some(0.01),
            p50_ms: Some(1.5),
            p90_ms: Some(2.5),
            p99_ms: None,
        };
        let mut rows = vec![row("quiet", Kind::Client, 0.5), row("busy", Kind::Server, 90.0)];
        rows.extend((0..600).map(|number| row(&format!("other{number:03}"), Kind::Server, 1.0)));
        Services { window: Duration::from_secs(10), rows }
    }

    fn stats(&self) -> Stats {
        Stats { records: 7, drops: vec![Drops { stage: "kernel", reason: "ring_full", count: 3 }], ..Stats::default() }
    }

    fn ready(&self) -> Result<(), String> {
        if self.ready.load(Ordering::Relaxed) { Ok(()) } else { Err("no program is attached".to_owned()) }
    }
}

struct Server {
    address: SocketAddr,
    source: Arc<Fake>,
    store: Arc<Store>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let source = Arc::new(Fake::default());
        let store = Arc::new(Store::new(Limits::default()));
        let state = State::new(Arc::clone(&source) as Arc<dyn Source>, Arc::clone(&store), ["node1.example"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, Arc::new(state), shutdown.clone()));
        Self { address, source, store, shutdown, task }
    }

    fn push(&self, spans: Vec<Span>) {
        self.store.push(&Arc::new(spans));
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request (its target may be followed by header lines) and reads to the connection's end.
    async fn ask(&self, method: &str, target: &str, fields: &str) -> Answer {
        let host = if fields.to_ascii_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
        let head = format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{fields}\r\n");
        self.raw(head.as_bytes()).await
    }

    async fn raw(&self, octets: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(octets).await.unwrap();
        let mut answer = Vec::new();
        // A server that refuses before it has read all may reset the connection.
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
        Answer { status: head[9..12].parse().unwrap(), head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "").await
    }

    async fn watch(&self, target: &str) -> Events {
        let mut stream = self.connect().await;
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        Events { stream, text: String::new() }
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    fn ids(&self) -> Vec<u64> {
        ids(&self.json())
    }
}

fn ids(with_spans: &Value) -> Vec<u64> {
    let spans = with_spans["spans"].as_array().unwrap();
    spans.iter().map(|span| u64::from_str_radix(span["span_id"].as_str().unwrap(), 16).unwrap()).collect()
}

struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    /// The data of the next event called `name`.
    async fn next(&mut self, name: &str) -> Value {
        timeout(DEADLINE, async {
            let begin = format!("event: {name}\ndata: ");
            loop {
                if let Some(at) = self.text.find(&begin)
                    && let Some(end) = self.text[at..].find("\n\n")
                {
                    let data = serde_json::from_str(&self.text[at + begin.len()..at + end]).unwrap();
                    self.text.replace_range(at..at + end, "");
                    return data;
                }
                assert!(self.more().await, "the stream ended: {}", self.text);
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no event {name}"))
    }

    async fn more(&mut self) -> bool {
        let mut octets = vec![0; 64 << 10];
        let read = self.stream.read(&mut octets).await.unwrap();
        // Chunk heads stand between pieces, never inside one.
        self.text.push_str(&String::from_utf8_lossy(&octets[..read]));
        read > 0
    }
}

#[tokio::test]
async fn page_and_its_files_are_served_with_their_types_and_policy() {
    let server = Server::start().await;
    let files = [
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/style.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ];
    for (path, kind) in files {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains(&format!("content-type: {kind}")), "{}", answer.head);
        assert!(answer.head.contains("content-security-policy: default-src 'self'"), "{}", answer.head);
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{}", answer.head);
        // A namespace's name and the hint's example are the only addresses: nothing comes from elsewhere.
        let own = answer.body.replace("http://www.w3.org/2000/svg", "").replace("curl http://example.org/", "");
        assert!(!own.contains("://"), "{path} names another place");
        let head = server.ask("HEAD", path, "").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await.status, 200);
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "not ready: no program is attached\n"));
    server.source.ready.store(true, Ordering::Relaxed);
    assert_eq!(server.get("/readyz").await.status, 200);
    let answer = server.ask("GET", "/metrics", "Accept: application/openmetrics-text\r\n").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "# accept application/openmetrics-text\n"));
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let server = Server::start().await;
    for path in ["/nothing", "/api", "/api/", "/api/spans/", "/../etc/passwd", "/page/index.html"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    for path in ["/", "/metrics", "/api/spans", "/api/stream"] {
        let answer = server.ask("POST", path, "Content-Length: 0\r\n").await;
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.head.contains("allow: get,head"), "{}", answer.head);
    }
}

#[tokio::test]
async fn only_own_names_open_the_page_but_any_name_scrapes() {
    let server = Server::start().await;
    let cases = [
        ("/", "Host: evil.example\r\n", 403),
        ("/api/spans", "Host: evil.example:9464\r\n", 403),
        ("/nothing", "Host: evil.example\r\n", 403),
        ("http://evil.example/", "Host: localhost\r\n", 403),
        ("/", "Host: a\r\nHost: localhost\r\n", 400),
        ("/", "Host: node1.example:9464\r\n", 200),
        ("/", "Host: [::1]:9464\r\n", 200),
        ("/metrics", "Host: remora.monitoring.svc\r\n", 200),
        ("/healthz", "Host: remora.monitoring.svc\r\n", 200),
        ("/", "Sec-Fetch-Site: cross-site\r\n", 200),
        ("/api/spans", "Sec-Fetch-Site: cross-site\r\n", 403),
        ("/api/stream", "Sec-Fetch-Site: same-site\r\n", 403),
        ("/api/spans", "Sec-Fetch-Site: same-origin\r\n", 200),
    ];
    for (target, fields, status) in cases {
        assert_eq!(server.ask("GET", target, fields).await.status, status, "{target} {fields}");
    }
}

#[tokio::test]
async fn spans_come_newest_first_and_filtered() {
    let server = Server::start().await;
    server.push((1..=5).map(|id| sample::span(id).service("shop").target("/cart").build()).collect());
    server.push((6..=9).map(|id| sample::span(id).service("web").status(503).error().build()).collect());
    let cases: [(&str, &[u64], bool); 7] = [
        ("", &[9, 8, 7, 6, 5, 4, 3, 2, 1], false),
        ("?limit=2", &[9, 8], true),
        ("?limit=0", &[], true),
        ("?service=shop&limit=5", &[5, 4, 3, 2, 1], false),
        ("?status=5xx&path=%2F", &[9, 8, 7, 6], false),
        ("?status=errors&service=shop", &[], false),
        ("?path=%2Fcart&kind=server&limit=1", &[5], true),
    ];
    for (query, expected, more) in cases {
        let answer = server.get(&format!("/api/spans{query}")).await;
        assert_eq!((answer.ids().as_slice(), answer.json()["more"].as_bool()), (expected, Some(more)), "{query}");
        assert_eq!(answer.json()["cursor"], 9);
    }
    for query in ["?status=abc", "?kind=x", "?limit=-1", "?limit=x", "?colour=red"] {
        let answer = server.get(&format!("/api/spans{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.json()["error"].is_string());
    }
}

#[tokio::test]
async fn one_span_has_its_resource() {
    let server = Server::start().await;
    server.push(vec![sample::span(0xabc).service("shop").build()]);
    let answer = server.get("/api/spans/0000000000000abc").await;
    assert_eq!((answer.status, &answer.json()["resource"]["process.pid"]), (200, &Value::from(4_242)));
    assert_eq!(server.get("/api/spans/0000000000000abd").await.status, 404);
    for bad in ["1", "+000000000000abc", "0000000000000abcd", "zzzzzzzzzzzzzzzz"] {
        assert_eq!(server.get(&format!("/api/spans/{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_trace_has_who_sends_before_who_receives() {
    let server = Server::start().await;
    let mut received = sample::message(1, SpanKind::Consumer, "orders", &[]).build();
    let mut sent = sample::message(2, SpanKind::Producer, "orders", &[]).build();
    for span in [&mut received, &mut sent] {
        span.trace_id = TraceId([7; 16]);
    }
    server.push(vec![received, sent]);
    assert_eq!(server.get(&format!("/api/traces/{}", "07".repeat(16))).await.ids(), [2, 1]);
}

#[tokio::test]
async fn services_are_ordered_bounded_and_asked_for_once() {
    let server = Server::start().await;
    let first = server.get("/api/services").await.json();
    assert_eq!(first["services"][0]["service"], "busy");
    assert_eq!((&first["services"][0]["kind"], &first["window_seconds"]), (&Value::from("server"), &Value::from(10.0)));
    assert_eq!((first["services"].as_array().unwrap().len(), &first["omitted"]), (500, &Value::from(102)));
    for _ in 0..5 {
        server.get("/api/services").await;
    }
    assert!(server.source.asked.load(Ordering::Relaxed) <= 3);
    let stats = server.get("/api/stats").await.json();
    assert_eq!((&stats["records"], &stats["drops"][0]["count"]), (&Value::from(7), &Value::from(3)));
    assert_eq!(stats["not_ready_reason"], "no program is attached");
}

#[tokio::test]
async fn answers_with_hostile_spans_are_bounded() {
    let server = Server::start().await;
    // A control character becomes six octets of JSON.
    server.push((1..=100).map(|id| sample::span(id).target(&format!("/{}", "\u{1}".repeat(60_000))).build()).collect());
    let answer = server.get("/api/spans?limit=100000").await;
    assert!(answer.body.len() < (4 << 20) + (64 << 10), "{}", answer.body.len());
    assert!(!answer.ids().is_empty());
}

#[tokio::test]
async fn a_stream_brings_new_spans_services_and_stats() {
    let server = Server::start().await;
    server.push(vec![sample::span(1).build(), sample::span(2).build()]);
    let mut all = server.watch("/api/stream?after=1").await;
    assert_eq!(ids(&all.next("spans").await), [2]);
    assert_eq!(all.next("services").await["services"][0]["service"], "busy");
    assert_eq!(all.next("stats").await["page"]["viewers"], 1);
    let mut errors = server.watch("/api/stream?status=errors").await;
    errors.next("services").await;
    server.push(vec![sample::span(3).build(), sample::span(4).status(500).error().build()]);
    assert_eq!(ids(&all.next("spans").await), [3, 4]);
    let found = errors.next("spans").await;
    assert_eq!((ids(&found).as_slice(), &found["more"], &found["missed"]), (&[4][..], &0.into(), &0.into()));
}

#[tokio::test]
async fn a_stream_caps_and_counts_the_rest() {
    let server = Server::start().await;
    let mut events = server.watch("/api/stream").await;
    events.next("services").await;
    for start in (0..20_000).step_by(1_000) {
        server.push((start + 1..=start + 1_000).map(|id| sample::span(id).build()).collect());
    }
    let (mut sent, mut rest) = (0, 0);
    while sent + rest < 20_000 {
        let spans = events.next("spans").await;
        sent += ids(&spans).len() as u64;
        rest += spans["more"].as_u64().unwrap() + spans["missed"].as_u64().unwrap();
    }
    assert_eq!(sent + rest, 20_000);
    assert!((50..=400).contains(&sent), "{sent}");
}

#[tokio::test]
async fn viewers_are_bounded_and_leave_when_they_close() {
    let server = Server::start().await;
    let mut viewers = Vec::new();
    for _ in 0..32 {
        let mut viewer = server.watch("/api/stream").await;
        viewer.next("stats").await;
        viewers.push(viewer);
    }
    let refused = server.get("/api/stream").await;
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("retry-after: 5"), "{}", refused.head);
    assert_eq!(server.get("/healthz").await.status, 200);
    drop(viewers);
    let mut status = 503;
    for _ in 0..100 {
        let mut stream = server.connect().await;
        stream.write_all(b"HEAD /api/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        status = answer[9..12].parse().unwrap();
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_slow_viewer_holds_nothing_back() {
    let server = Server::start().await;
    let mut slow = server.watch("/api/stream").await;
    slow.next("services").await;
    // Far more than socket buffers take, while the client reads nothing.
    let fill = "x".repeat(900);
    for start in 0..3_000_u64 {
        let ids = start * 50 + 1..=start * 50 + 50;
        server.push(ids.map(|id| sample::span(id).target(&format!("/{fill}{id}")).build()).collect());
        if start % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(server.store.usage().octets <= Limits::default().octets);
    let mut seen = 0;
    while seen < 150_000 {
        let spans = slow.next("spans").await;
        seen += ids(&spans).len() as u64 + spans["more"].as_u64().unwrap() + spans["missed"].as_u64().unwrap();
    }
    assert_eq!(seen, 150_000);
}

#[tokio::test]
async fn large_heads_and_garbage_are_refused() {
    let server = Server::start().await;
    let many: String = (0..100).map(|number| format!("x{number}: y\r\n")).collect();
    assert_eq!(server.ask("GET", "/", &many).await.status, 431);
    assert_eq!(server.ask("GET", "/", &format!("x: {}\r\n", "y".repeat(40_000))).await.status, 431);
    assert_eq!(server.raw(b"\x16\x03\x01 not http\r\n\r\n").await.status, 400);
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed() {
    let server = Server::start().await;
    let mut silent = server.connect().await;
    let mut kept = server.connect().await;
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    kept.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let _ = silent.read_to_end(&mut answer).await;
}

#[tokio::test]
async fn shutdown_ends_streams_and_the_listener() {
    let server = Server::start().await;
    let mut viewer = server.watch("/api/stream").await;
    viewer.next("stats").await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    server.shutdown.cancel();
    timeout(DEADLINE, server.task).await.unwrap().unwrap();
    timeout(DEADLINE, async { while viewer.more().await {} }).await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
