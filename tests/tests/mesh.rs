//! Whole traces through services in different runtimes, against the truth that the requests carry.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value as Json;
use tests::accuracy::Report;
use tests::load::Level;
use tests::mesh::{Mesh, Route};
use tests::process::Process;
use tests::{env, http, needs, run, wait};

/// Wrong parents that are still acceptable, in percent of all spans.
const WRONG: f64 = 0.5;

/// Traces wholly right at up to 10 at a time, in percent.
const WHOLE_TO_10: f64 = 99.0;
/// Traces wholly right at 50 and more at a time, in percent.
const WHOLE_BUSY: f64 = 95.0;
/// Calls of a service's own with a parent, in percent. The bar is 0.5, and holds for all but the thread pool, whose
/// thread that calls on its own is told from those that work for requests only once it was seen to call while no request is served.
const WRONG_OWN: [(&str, f64); 7] = [
    ("users", 60.0),
    ("quotes", WRONG),
    ("profiles", WRONG),
    ("accounts", WRONG),
    ("orders", WRONG),
    ("price", WRONG),
    ("stock", WRONG),
];

/// What does not hold, all of it, so that one run tells everything.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }

    /// What holds of every run: each request has all its spans, proofs prove, few parents are wrong.
    fn check(&mut self, report: &Report) {
        let (some, lacking) = (report.incomplete.iter().take(5).collect::<Vec<_>>(), report.incomplete.len());
        self.unless(lacking == 0, || format!("{lacking} requests lack spans or have too many: {some:?}"));
        let (by_proof, wrong, spans) = (report.wrong_by_proof(), report.all.wrong, report.all.spans);
        let blame = &report.blame;
        self.unless(by_proof == 0, || format!("{by_proof} parents are wrong under methods that prove: {blame:?}"));
        let some: Vec<_> = report.wrong.iter().take(5).collect();
        let share = report.all.percent(wrong);
        self.unless(share <= WRONG, || {
            format!("{share:.2} % of {spans} spans, {wrong}, have a wrong parent: {blame:?}, such as {some:?}")
        });
    }

    fn result(self) -> Result<()> {
        ensure!(self.0.is_empty(), "{}", self.0.join("\n"));
        Ok(())
    }
}

/// Repeats a run once when it falls short, and says so: what a saturated loop does differs from run to run by a factor of
/// two, and a fault shows in both.
fn twice(run: fn() -> Result<()>) -> Result<()> {
    run().or_else(|error| {
        eprintln!("again, since this fell short: {error:#}");
        run()
    })
}

/// 5,000 requests at rising concurrency; the first of them find an agent that knows nothing of the services yet.
#[test]
fn traces_are_whole() -> Result<()> {
    needs!("root", "mesh");
    twice(|| {
        let mesh = Mesh::start(None)?;
        let levels = run::levels(5000);
        let run = run::of_levels(&mesh, &levels)?;
        let mut failures = Failures::default();
        failures.check(&run.report("c"));
        for level in &levels {
            let bar = if level.concurrency <= 10 { WHOLE_TO_10 } else { WHOLE_BUSY };
            let (whole, concurrency) = (run.report(&level.tag()).whole_percent(), level.concurrency);
            failures.unless(whole >= bar, || {
                format!("{whole:.1} % of traces are wholly right at {concurrency} at a time, not {bar} %")
            });
        }
        failures.result()
    })
}

/// Each service also calls on its own, every 10 ms, by a thread, task, timer, ticker or interval beside those that serve.
#[test]
fn calls_of_its_own_join_no_trace() -> Result<()> {
    needs!("root", "mesh");
    twice(|| {
        let mesh = Mesh::start(Some(Duration::from_millis(10)))?;
        let levels = [Level { concurrency: 1, requests: 200 }, Level { concurrency: 10, requests: 800 }];
        let run = run::of_levels(&mesh, &levels)?;
        let mut failures = Failures::default();
        failures.check(&run.report("c"));
        // Their truth begins with the service's name.
        let report = run.report("");
        let (by_proof, blame) = (report.wrong_by_proof(), &report.blame);
        failures.unless(by_proof == 0, || format!("{by_proof} parents are wrong under methods that prove: {blame:?}"));
        for (service, most) in WRONG_OWN {
            let tally = report.services.get(&format!("{service}, background")).copied().unwrap_or_default();
            ensure!(tally.spans >= 100, "{service} has made only {} calls of its own", tally.spans);
            let share = tally.percent(tally.wrong);
            failures.unless(share <= most, || {
                format!("{share:.2} % of {} calls that {service} made on its own have a parent", tally.spans)
            });
        }
        // Each service may have had a call or two under way when the agent was stopped.
        let (cut_off, services) = (report.all.cut_off, 7);
        failures
            .unless(cut_off <= 2 * services, || format!("{cut_off} server spans have a parent that never came out"));
        // Some of those calls at most join a request's trace; none goes on without end.
        let most = 6 * Route::ALL.iter().map(|route| route.hops()).max().unwrap_or(0);
        failures.unless(report.largest <= most, || format!("a trace has {} spans, not {most}", report.largest));
        failures.result()
    })
}

/// A request that is answered at once and leaves its call to a thread that works through a queue: that call may have the
/// right parent or none, and what is in the queue is never one trace.
#[test]
fn a_message_pump_is_no_endless_trace() -> Result<()> {
    needs!("root", "mesh");
    twice(|| {
        let mesh = Mesh::start(None)?;
        let requests = |tag: &str, count: usize| (0..count).map(|i| (format!("{tag}-{i}"), Route::Queue)).collect();
        let run = run::of_loads(&mesh, &[(1, requests("one", 200)), (10, requests("ten", 800))])?;
        let report = run.report("");
        let mut failures = Failures::default();
        failures.check(&report);
        let most = 2 * Route::Queue.hops();
        failures.unless(report.largest <= most, || format!("a trace has {} spans, a request {most}", report.largest));
        failures.result()
    })
}

/// `cargo xtask demo` without the building: it says where to look, runs, and leaves nothing behind.
#[test]
fn the_demo_runs_and_cleans_up() -> Result<()> {
    needs!("root", "mesh");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.args(["--listen", "127.0.0.1:0", "--seconds", "3"]).env("REMORA_BIN", env::remora());
    let lines = Process::spawn(&mut demo)?.succeed(Duration::from_secs(60))?;
    let addresses = addresses(&lines)?;
    // Each service, page, metrics, the example, and the broker.
    let expected = 12 + usize::from(env::missing(&["topic"]).is_none());
    ensure!(addresses.len() == expected, "{lines:?}");
    let still = addresses.iter().find(|address| TcpStream::connect(address).is_ok());
    ensure!(still.is_none(), "something still listens on {still:?}");
    Ok(())
}

/// All addresses that are named in these lines.
fn addresses(lines: &[String]) -> Result<Vec<SocketAddr>> {
    let after = lines.iter().filter_map(|line| line.split_once("127.0.0.1:"));
    after.map(|(_, rest)| Ok(([127, 0, 0, 1], rest.split('/').next().unwrap_or(rest).parse()?).into())).collect()
}

/// Orders of the demo go on over the topic, in the same trace on the page; an interrupt ends the broker as well.
#[test]
fn the_demo_shows_what_goes_over_its_topic() -> Result<()> {
    needs!("root", "mesh", "topic");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.args(["--listen", "127.0.0.1:0"]).env("REMORA_BIN", env::remora());
    let mut demo = Process::spawn(&mut demo)?;
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.starts_with("Ctrl-C")) {
        lines.push(demo.line(Duration::from_secs(60))?);
    }
    let of_line = |word: &str| lines.iter().filter(|line| line.contains(word)).cloned().collect::<Vec<_>>();
    let (page, broker) = (addresses(&of_line("traces "))?[0], addresses(&of_line("broker"))?[0]);
    let get = |path: &str| -> Result<Json> { Ok(serde_json::from_str(&http::get(page, path, "*/*")?.body)?) };
    wait::until(Duration::from_secs(60), "ten traces over the topic", || {
        let mut traces = 0;
        for span in get("/api/spans?kind=consumer&limit=30")?["spans"].as_array().into_iter().flatten() {
            let trace = get(&format!("/api/traces/{}", span["trace_id"].as_str().unwrap_or_default()))?;
            traces += usize::from(trace["spans"].as_array().is_some_and(|spans| goes_over_topic(spans)));
        }
        Ok((traces >= 10).then_some(()))
    })?;
    demo.signal(Signal::SIGINT)?;
    let (status, stderr) = demo.wait(Duration::from_secs(30))?;
    ensure!(status.success(), "the demo ended with {status}: {stderr}");
    ensure!(TcpStream::connect(broker).is_err(), "the broker still listens");
    Ok(())
}

/// Whether a trace leads from the load's request to the order service, over the topic, and on to the stock service.
fn goes_over_topic(trace: &[Json]) -> bool {
    const UP: [(&str, &str); 4] =
        [("client", "shipping"), ("consumer", "shipping"), ("producer", "orders"), ("server", "orders")];
    let above = |span: &&Json| trace.iter().find(|other| other["span_id"] == span["parent"]);
    trace.iter().filter(|span| span["kind"] == "server").any(|stock| {
        let path: Vec<_> = std::iter::successors(above(&stock), above).collect();
        let starts = path.len() > UP.len()
            && path.iter().zip(UP).all(|(span, (kind, service))| span["kind"] == kind && span["service"] == service);
        starts && path.last().is_some_and(|root| root["kind"] == "client" && root["parent"].is_null())
    })
}

/// The demo ends well when it is told to stop.
#[test]
fn the_demo_stops_when_interrupted() -> Result<()> {
    needs!("root", "mesh");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.args(["--listen", "127.0.0.1:0"]).env("REMORA_BIN", env::remora());
    let mut demo = Process::spawn(&mut demo)?;
    while !demo.line(Duration::from_secs(60))?.starts_with("Ctrl-C") {}
    demo.signal(Signal::SIGINT)?;
    let (status, stderr) = demo.wait(Duration::from_secs(30))?;
    ensure!(status.success(), "the demo ended with {status}: {stderr}");
    Ok(())
}
