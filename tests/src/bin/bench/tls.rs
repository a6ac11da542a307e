//! HTTPS: throughput lost at saturation, and what a call of a TLS library costs more.

use anyhow::Result;
use tests::secure::Service;
use tests::tls::Credentials;

use crate::calls::STATISTICS;
use crate::report::Report;
use crate::throughput::{Nginx, Pairs, Sink, exporting_tls, wrk};

/// nginx by OpenSSL with a small file, and a server of Go; the client, wrk, by OpenSSL too.
pub fn saturated(report: &mut Report, rounds: u32, seconds: u32) -> Result<()> {
    let credentials = Credentials::new()?;
    let nginx = Nginx::with(Some(&credentials))?;
    let go = Service::start("go-stripped", &credentials)?;
    let sink = Sink::start()?;
    let servers = [("nginx", nginx.url(), nginx.port), ("Go", format!("{}/item/1", go.base()), go.port())];
    for (name, url, port) in servers {
        wrk(&url, 1)?;
        let what = format!("HTTPS throughput of {name} lost at saturation, a client and a server span each");
        let pairs = Pairs {
            what: &what,
            load: &|| wrk(&url, seconds),
            protocol: "http1",
            rounds,
            seconds,
            bar: "–",
            goal: "–",
        };
        pairs.run(report, || exporting_tls(&sink, port))?;
    }
    calls(report, [&nginx.url(), &format!("{}/item/1", go.base())], seconds)
}

/// The kernel's own count of what the programs take.
fn calls(report: &mut Report, urls: [&str; 2], seconds: u32) -> Result<()> {
    let agent = tests::agent::Builder::new()?.tls().no_spans_file().start()?;
    let before = std::fs::read_to_string(STATISTICS)?;
    std::fs::write(STATISTICS, "1")?;
    let loads = urls.map(|url| wrk(url, seconds));
    let metrics = agent.metrics();
    std::fs::write(STATISTICS, before.trim())?;
    for load in loads {
        load?;
    }
    let metrics = metrics?;
    for (program, what) in [
        ("tls_entry", "a call of OpenSSL, entry"),
        ("tls_return", "a call of OpenSSL, return"),
        ("go_tls_entry", "a call of Go's crypto/tls, entry"),
        ("go_tls_ret", "a call of Go's crypto/tls, return"),
    ] {
        let of = |name| metrics.sum(name, &[("program", program)]);
        let (runs, seconds) = (of("remora_program_runs_total"), of("remora_program_seconds_total"));
        if runs > 1000.0 {
            let nanos = seconds / runs * 1e9;
            let how =
                format!("{runs:.0} runs of `{program}`, kernel's program statistics; the hook itself comes on top");
            report.row(what, format!("{nanos:.0} ns"), "–", "–", how);
        }
    }
    Ok(())
}
