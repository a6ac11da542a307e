//! The families of system calls, the ways in which a descriptor comes to a process, and what HTTP/1.x allows besides.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent::{Agent, Builder};
use tests::expect::{Clock, Side, expect_pairs, undisturbed};
use tests::fixture::{Client, Language, Server};
use tests::needs;
use tests::plan::{self, Step};
use tests::scenario::Peer;
use tests::span::{CLIENT, SERVER};
use tests::wait;

/// Exactly one client and one server span for each step, by a Python client with these arguments.
fn pairs(server: &Server, steps: &[Step], args: &[&str]) -> Result<()> {
    pairs_with(Agent::on(server.port)?, server, steps, args)
}

fn pairs_with(agent: Agent, server: &Server, steps: &[Step], args: &[&str]) -> Result<()> {
    let done = Client::run(Language::Python, &server.base(), steps, args)?;
    let served = server.truth(steps.len())?;
    let spans = agent.stop_after(2 * steps.len())?;
    expect_pairs(&[Side::client(&done, server.port), Side::server(&served, server.port)], &spans)
        .with_context(|| format!("client with {args:?}"))
}

#[test]
fn ways_to_send() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        for (hooks, send) in at_both(&["send", "write", "writev", "sendmsg"], "sendmmsg") {
            let server = Server::start(Language::Python)?;
            let args = ["--mode", "raw", "--send", send];
            pairs_with(hooked(hooks, &server)?, &server, &plan::mixed("s", 40), &args).context(hooks)?;
        }
        Ok(())
    })
}

#[test]
fn ways_to_receive() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        for (hooks, recv) in at_both(&["recv", "read", "readv", "recvmsg", "peek"], "recvmmsg") {
            let server = Server::start(Language::Python)?;
            let args = ["--mode", "raw", "--recv", recv];
            pairs_with(hooked(hooks, &server)?, &server, &plan::mixed("r", 40), &args).context(hooks)?;
        }
        Ok(())
    })
}

/// Each way with the hooks of choice and with those of system calls; the last only with these, since at the sockets
/// it is hooked from its first use on.
fn at_both<'a>(ways: &'a [&'a str], batch: &'a str) -> impl Iterator<Item = (&'static str, &'a str)> {
    let at = |hooks| move |way: &&'a str| (hooks, *way);
    ways.iter().map(at("auto")).chain(ways.iter().map(at("calls"))).chain([("calls", batch)])
}

fn hooked(hooks: &str, server: &Server) -> Result<Agent> {
    Builder::new()?.args(&["--hooks", hooks]).port(server.port).start()
}

/// Calls that hand over several messages have no hook until the first is seen, and are seen whole then.
#[test]
fn batches_are_hooked_from_their_first_use_on() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        for (call, args) in [
            ("sys_exit_sendmmsg", ["--mode", "raw", "--send", "sendmmsg"]),
            ("sys_exit_recvmmsg", ["--mode", "raw", "--recv", "recvmmsg"]),
        ] {
            let first = Server::start(Language::Python)?;
            let second = Server::start(Language::Python)?;
            let agent = Builder::new()?.start()?;
            if agent.stderr().contains("at the system calls") {
                println!("SKIPPED: the kernel has no tracepoints at the sockets");
                return Ok(());
            }
            Client::run(Language::Python, &first.base(), &plan::mixed("first", 5), &args)?;
            let attached = || Ok(agent.stderr().contains(call).then_some(()));
            wait::until(Duration::from_secs(5), "the hook of a call in use", attached)?;
            let steps = plan::mixed("then", 40);
            let done = Client::run(Language::Python, &second.base(), &steps, &args)?;
            let served = second.truth(steps.len())?;
            // The first client's requests are seen in part.
            let of_second = || -> Result<Option<Vec<_>>> {
                let port = Some(i64::from(second.port));
                let spans = agent.spans()?.into_iter().filter(|span| span.int("server.port") == port);
                Ok(Some(spans.collect()).filter(|spans: &Vec<_>| spans.len() >= 2 * steps.len()))
            };
            let spans = wait::until(Duration::from_secs(10), "the spans", of_second)?;
            expect_pairs(&[Side::client(&done, second.port), Side::server(&served, second.port)], &spans)
                .context(call)?;
        }
        Ok(())
    })
}

/// Two chunked uploads, each in one call that is longer than what is captured of a call. Requests behind the first in the
/// same call are not seen; those of later calls are, and the second hides none.
#[test]
fn uploads_longer_than_what_is_captured() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        let step = |i: usize| match i {
            21 | 35 => Step::post(format!("/echo?id={i}"), 100_000).chunked(),
            _ => Step::get(format!("/item/{i}?id={i}")),
        };
        let steps: Vec<_> = (0..48).map(step).collect();
        let server = Server::start(Language::Python)?;
        let agent = Agent::on(server.port)?;
        let done = Client::run(Language::Python, &server.base(), &steps, &["--mode", "pipeline", "--depth", "4"])?;
        let served = server.truth(steps.len())?;
        let seen: Vec<_> =
            done.into_iter().filter(|e| !["/item/22?id=22", "/item/23?id=23"].contains(&&*e.target)).collect();
        ensure!(seen.len() == steps.len() - 2, "{} requests were answered", seen.len());
        let spans = agent.stop_after(seen.len() + served.len())?;
        expect_pairs(&[Side::client(&seen, server.port).unsized_bodies(), Side::server(&served, server.port)], &spans)
    })
}

/// Octets that the process never holds: their number is known, what they say is not.
#[test]
fn receiving_by_splice() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        let server = Server::start(Language::Python)?;
        let agent = Agent::on(server.port)?;
        let steps = plan::mixed("splice", 40);
        let done = Client::run(Language::Python, &server.base(), &steps, &["--mode", "raw", "--recv", "splice"])?;
        let served = server.truth(steps.len())?;
        let spans = agent.stop_after(2 * steps.len())?;
        // The server's side is whole; of the client's, nothing wrong may be said.
        expect_pairs(
            &[
                Side::client(&done, server.port).lossy().clocks(Clock::NONE, Clock::NONE),
                Side::server(&served, server.port),
            ],
            &spans,
        )
    })
}

#[test]
fn ways_to_answer() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        let step = |i: usize| match i % 5 {
            0 => Step::get(format!("/sendfile/{}?id={i}", 1 + 30_000 * i)),
            1 => Step::get(format!("/splice/{}?id={i}", 1 + 30_000 * i)),
            2 => Step::get(format!("/writev/{}?id={i}", 2 + 50 * i)),
            3 => Step::get(format!("/sendmsg/{}?id={i}", 1 + 50 * i)),
            _ => Step::get(format!("/item/{i}?id={i}")),
        };
        let steps: Vec<_> = (0..50).map(step).collect();
        pairs(&Server::start(Language::Python)?, &steps, &["--mode", "raw"])
    })
}

#[test]
fn ways_of_descriptors() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        for case in ["dup", "inherited", "accepted", "passed"] {
            let server = Server::descriptors(case)?;
            pairs(&server, &plan::mixed(case, 40), &[]).context(case)?;
        }
        Ok(())
    })
}

#[test]
fn ipv6() -> Result<()> {
    needs!("root", "python", "node", "go");
    undisturbed(|| {
        for language in [Language::Python, Language::Node, Language::Go] {
            let server = Server::start_with(language, &["--host", "::1"])?;
            let agent = Agent::on(server.port)?;
            let base = format!("http://[::1]:{}", server.port);
            let done = Client::run(Language::Go, &base, &plan::mixed("6", 40), &[])?;
            let served = server.truth(40)?;
            let spans = agent.stop_after(80)?;
            expect_pairs(&[Side::client(&done, server.port), Side::server(&served, server.port)], &spans)
                .with_context(|| format!("{language:?}"))?;
            for span in &spans {
                ensure!(
                    span.str("network.peer.address") == Some("::1") && span.str("server.address") == Some("::1"),
                    "{span:?}"
                );
                let url = span.str("url.full").unwrap_or("http://[::1]:");
                ensure!(url.starts_with("http://[::1]:"), "{url}");
            }
        }
        Ok(())
    })
}

#[test]
fn what_http_allows() -> Result<()> {
    needs!("root", "python");
    undisturbed(|| {
        let mut steps = vec![
            Step::post("/echo?id=chunked", 950).chunked(),
            Step::post("/echo?id=chunked-empty", 0).chunked(),
            Step::post("/echo?id=continue", 2000).expect(),
            Step::get("/continue/?id=early-hints"),
            Step::get("/status/204?id=204"),
            Step::get("/status/304?id=304"),
            Step::get("/big/400000?id=head").method("HEAD"),
            Step::get("/chunked/500?id=many-chunks"),
            Step::get("/item/1?id=purge").method("PURGE"),
            Step::get("/item/2?id=options").method("OPTIONS"),
            Step::post("/echo?id=delete", 10).method("DELETE"),
            Step::post("/echo?id=big-upload", 3_000_000),
            Step::get("/close/1000?id=by-close"),
            Step::get(format!("/item/3?id=long-{}", "q".repeat(7000))),
        ];
        let long = "h".repeat(4000);
        steps.push(
            (0..14).fold(Step::get("/item/4?id=long-head"), |step, i| step.header(&format!("X-Long-{i}"), &long)),
        );
        steps.push(Step::get("/item/5?id=afterwards"));
        pairs(&Server::start(Language::Python)?, &steps, &["--mode", "raw"])
    })
}

#[test]
fn attributes_and_resource() -> Result<()> {
    needs!("root", "python", "curl");
    let server = Server::start_in(
        Language::Python,
        &[("OTEL_SERVICE_NAME", "checkout"), ("OTEL_RESOURCE_ATTRIBUTES", "service.version=1.2.3,team=blue")],
    )?;
    let agent = Agent::on(server.port)?;
    let step = Step::get("/item/42?a=b&token=hush&c=d").header("User-Agent", "test/1.0");
    tests::scenario::call("curl", "keepalive", &server.base(), &[step, Step::get("/item/43").method("PURGE")])?;
    let spans = agent.stop_after(4)?;
    ensure!(spans.len() == 4, "{spans:#?}");
    let port = Some(i64::from(server.port));
    for span in &spans {
        ensure!(
            span.str("network.protocol.version") == Some("1.1") && span.str("url.scheme") == Some("http"),
            "{span:?}"
        );
        ensure!(span.str("server.address") == Some("127.0.0.1") && span.int("server.port") == port, "{span:?}");
        ensure!(span.str("network.peer.address") == Some("127.0.0.1"), "{span:?}");
        ensure!(span.resource_str("host.name").is_some_and(|name| !name.is_empty()), "{:?}", span.resource);
        ensure!(span.resource_str("telemetry.sdk.name").is_some(), "{:?}", span.resource);
        let executable = span.resource_str("process.executable.path").unwrap_or("");
        let name = span.resource_str("process.executable.name").unwrap_or("?");
        ensure!(executable.starts_with('/') && executable.ends_with(&format!("/{name}")), "{executable} and {name}");
        ensure!(span.resource.contains_key("process.command_args"), "{:?}", span.resource);
        if span.str("http.request.method") == Some("_OTHER") {
            ensure!(span.str("http.request.method_original") == Some("PURGE"), "{span:?}");
            continue;
        }
        ensure!(span.str("user_agent.original") == Some("test/1.0"), "{span:?}");
        let query = span.str("url.query").unwrap_or("");
        ensure!(query == "a=b&token=REDACTED&c=d", "{query}");
        ensure!(!format!("{span:?}").contains("hush"), "the secret leaves by another attribute: {span:?}");
        if span.kind == CLIENT {
            let url = format!("http://127.0.0.1:{}/item/42?a=b&token=REDACTED&c=d", server.port);
            ensure!(span.str("url.full") == Some(&url), "{:?}", span.str("url.full"));
            ensure!(name == "curl" && span.resource_str("service.name") == Some("curl"), "{:?}", span.resource);
        } else {
            ensure!(span.kind == SERVER && span.str("client.address") == Some("127.0.0.1"), "{span:?}");
            ensure!(span.int("client.port") == span.int("network.peer.port"), "{span:?}");
            ensure!(span.resource_str("service.name") == Some("checkout"), "{:?}", span.resource);
            ensure!(span.resource_str("service.version") == Some("1.2.3"), "{:?}", span.resource);
            ensure!(span.resource_str("team") == Some("blue"), "{:?}", span.resource);
            let route = span.str("http.route").unwrap_or("");
            ensure!(route.starts_with("/item/") && !route.contains("42"), "{route}");
            ensure!(span.name == format!("GET {route}"), "{}", span.name);
        }
    }
    Ok(())
}

/// A process that names no service is called what a person would call it: not after its interpreter, not `server`.
#[test]
fn services_are_named_as_people_name_them() -> Result<()> {
    needs!("root", "python", "node", "go", "nginx");
    let cases = [
        (Language::Python, "work", "billing.py", "billing"),
        (Language::Python, "inventory", "server.py", "inventory"),
        (Language::Node, "work", "catalogue.js", "catalogue"),
        (Language::Node, "shipping", "server.js", "shipping"),
        (Language::Go, "bin", "pricing", "pricing"),
    ];
    let named = |base: &str, port: u16| -> Result<String> {
        let agent = Agent::on(port)?;
        tests::scenario::call("go", "keepalive", base, &plan::items("n", 1))?;
        let spans = agent.stop_after(2)?;
        let served = tests::span::of_kind(&spans, SERVER);
        let name = served.first().and_then(|span| span.resource_str("service.name"));
        name.map(str::to_owned).context("no service.name")
    };
    for (language, folder, file, expected) in cases {
        let server = Server::renamed(language, folder, file)?;
        let name = named(&server.base(), server.port)?;
        ensure!(name == expected, "{folder}/{file} is called {name}, not {expected}");
    }
    let nginx = Peer::start("nginx")?;
    let name = named(&nginx.base(), nginx.port())?;
    ensure!(name == "nginx", "nginx is called {name}");
    Ok(())
}
