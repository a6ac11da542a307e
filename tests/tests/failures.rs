//! Failures make spans: refused, reset, closed early, given up.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::agent::{Agent, Builder};
use tests::expect::{Side, expect_pairs, undisturbed};
use tests::fixture::{self, Client, Language, Server};
use tests::names::error;
use tests::needs;
use tests::plan::{self, Step};
use tests::span::{CLIENT, ERROR, SERVER, Span};

const N: usize = 5;

/// The spans of `kind`, of which there must be `count`, all failed by one of `errors`.
fn failed(spans: &[Span], kind: i32, count: usize, errors: &[&str]) -> Result<Vec<Span>> {
    let spans = tests::span::of_kind(spans, kind);
    ensure!(spans.len() == count, "{} spans of kind {kind}, not {count}: {spans:#?}", spans.len());
    for span in &spans {
        ensure!(span.status == ERROR, "not marked as failed: {span:?}");
        let error = span.str("error.type").unwrap_or("nothing");
        ensure!(errors.contains(&error), "error.type is {error}, expected one of {errors:?}: {span:?}");
    }
    Ok(spans)
}

/// `N` times `path` on the Python server, each on a connection of its own.
fn requests(path: &str, args: &[&str]) -> Result<(Server, Vec<Span>)> {
    let server = Server::start(Language::Python)?;
    let agent = Agent::on(server.port)?;
    let steps: Vec<_> = (0..N).map(|i| Step::get(format!("{path}?id={i}"))).collect();
    let done = Client::run(Language::Python, &server.base(), &steps, args)?;
    ensure!(done.iter().all(|exchange| exchange.error.is_some()), "the requests were to fail: {done:?}");
    server.truth(N)?;
    let spans = agent.stop_after(2 * N)?;
    ensure!(spans.len() == 2 * N, "{} spans, not {}: {spans:#?}", spans.len(), 2 * N);
    Ok((server, spans))
}

#[test]
fn refused_connections() -> Result<()> {
    needs!("root", "python");
    let port = fixture::free_port()?;
    let agent = Agent::on(port)?;
    let client = Client::start(Language::Python, &format!("http://127.0.0.1:{port}"), &plan::items("x", N), &[])?;
    let pid = client.pid();
    let done = client.finish()?;
    ensure!(done.iter().all(|exchange| exchange.error.is_some()), "something listens on the port: {done:?}");
    let spans = agent.stop_after(N)?;
    ensure!(spans.len() == N, "{} spans, not {N}: {spans:#?}", spans.len());
    for span in failed(&spans, CLIENT, N, &[error::REFUSED])? {
        ensure!(span.int("server.port") == Some(port.into()) && span.pid() == Some(pid.into()), "{span:?}");
        ensure!(span.status_code().is_none() && span.str("url.path").is_none(), "more than can be known: {span:?}");
    }
    Ok(())
}

#[test]
fn reset_by_the_server() -> Result<()> {
    needs!("root", "python");
    let (_, spans) = requests("/reset", &["--mode", "raw"])?;
    failed(&spans, CLIENT, N, &[error::RESET])?;
    // The server closed without an answer; that the kernel said so by a reset is the same to it.
    let served = failed(&spans, SERVER, N, &[error::SERVER_CLOSED, error::RESET])?;
    ensure!(served.iter().all(|span| span.status_code().is_none()), "{served:?}");
    Ok(())
}

#[test]
fn closed_in_the_middle_of_the_body() -> Result<()> {
    needs!("root", "python");
    let (_, spans) = requests("/early/5000", &["--mode", "raw"])?;
    for kind in [CLIENT, SERVER] {
        let spans = failed(&spans, kind, N, &[error::SERVER_CLOSED])?;
        ensure!(spans.iter().all(|span| span.status_code() == Some(200)), "the head was seen: {spans:?}");
    }
    Ok(())
}

#[test]
fn given_up_by_the_client() -> Result<()> {
    needs!("root", "python");
    let (_, spans) = requests("/hang", &["--mode", "raw", "--timeout", "0.3"])?;
    for kind in [CLIENT, SERVER] {
        for span in failed(&spans, kind, N, &[error::CLIENT_CLOSED])? {
            let lasted = (span.end - span.start) / 1_000_000;
            ensure!((250..1500).contains(&lasted) && span.status_code().is_none(), "{lasted} ms: {span:?}");
        }
    }
    Ok(())
}

/// The server is killed while it works on a request.
#[test]
fn server_killed() -> Result<()> {
    needs!("root", "python");
    let server = Server::start(Language::Python)?;
    let agent = Agent::on(server.port)?;
    let client = Client::start(Language::Python, &server.base(), &[Step::get("/hang?id=1")], &["--mode", "raw"])?;
    server.begun()?;
    kill(Pid::from_raw(i32::try_from(server.pid)?), Signal::SIGKILL)?;
    ensure!(client.finish()?.iter().all(|exchange| exchange.error.is_some()));
    let spans = agent.stop_after(2)?;
    failed(&spans, CLIENT, 1, &[error::SERVER_CLOSED, error::RESET])?;
    failed(&spans, SERVER, 1, &[error::SERVER_CLOSED])?;
    Ok(())
}

/// An idle connection that is closed is no failure, and a failed exchange does not spoil the next one.
#[test]
fn failures_among_successes() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        let server = Server::start(Language::Python)?;
        let agent = Builder::new()?.port(server.port).start()?;
        let mut steps = Vec::new();
        for i in 0..N {
            steps.extend(plan::mixed(&format!("a{i}"), 8));
            steps.push(Step::get(format!("/early/5000?id=early-{i}")));
            steps.push(Step::get(format!("/close/70?id=close-{i}")));
            steps.push(Step::get(format!("/reset?id=reset-{i}")));
        }
        let done = Client::run(Language::Python, &server.base(), &steps, &["--mode", "raw"])?;
        let served = server.truth(steps.len())?;
        ensure!(done.iter().filter(|exchange| exchange.error.is_some()).count() == 2 * N, "{done:?}");
        let spans = agent.stop_after(2 * steps.len())?;
        expect_pairs(&[Side::client(&done, server.port), Side::server(&served, server.port)], &spans)
            .context("with early ends and resets in between")
    })
}
