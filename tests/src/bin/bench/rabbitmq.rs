//! RabbitMQ: what the agent takes at 5,000 messages a second through one broker, each with spans of its own, and what a publisher at full
//! speed loses by it, while a consumer reads along.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::agent::Agent;
use tests::fixture;
use tests::process::Process;
use tests::rabbit::{Broker, Topology};

use crate::books::Books;
use crate::report::{Report, median};
use crate::throughput::{Sink, exporting};

/// Messages per second at the steady load.
const RATE: u32 = 5_000;
/// At full speed a run has so many messages for each second that runs are to take.
const FULL: u32 = 10_000;
/// Octets of a message's body.
const SIZE: usize = 150;
/// What a client may take to start, or to end.
const DEADLINE: Duration = Duration::from_secs(120);

/// The steady load, then full speed.
pub fn through_one_broker(report: &mut Report, rounds: u32, seconds: u32) -> Result<()> {
    let mut load = Load { broker: Broker::start()?, runs: 0 };
    let sink = Sink::start()?;
    // The broker's code gets compiled.
    load.run(RATE, RATE)?;
    steady(report, &mut load, &sink, rounds, seconds.max(4))?;
    full_speed(report, &mut load, &sink, rounds, seconds)
}

/// A broker; each run has a queue of its own.
struct Load {
    broker: Broker,
    runs: u32,
}

impl Load {
    /// Publishes so many messages, `rate` of them a second or with 0 as fast as can be; gives the seconds until all were confirmed. Ends
    /// when the consumer has acknowledged them all.
    fn run(&mut self, count: u32, rate: u32) -> Result<f64> {
        self.runs += 1;
        let queue = format!("load-{}", self.runs);
        self.broker.declare(&Topology::new().queue(&queue))?;
        let client = |role: &str, numbers: &[u32]| {
            let mut command = fixture::python("rabbit_load");
            command.args([role, &self.broker.port.to_string(), &queue]);
            Process::spawn(command.args(numbers.iter().map(u32::to_string)))
        };
        let consumer = client("consume", &[count])?;
        consumer.announcement(DEADLINE)?;
        let lines = client("publish", &[count, u32::try_from(SIZE)?, rate])?.succeed(DEADLINE)?;
        let took = lines.first().context("the publisher tells no time")?.trim().parse()?;
        consumer.succeed(DEADLINE)?;
        Ok(took)
    }
}

/// CPU and memory of the agent at the steady load.
fn steady(report: &mut Report, load: &mut Load, sink: &Sink, rounds: u32, seconds: u32) -> Result<()> {
    let (mut cpu, mut resident, mut books) = (Vec::new(), Vec::new(), Books::default());
    let count = RATE * seconds;
    for _ in 0..rounds {
        let agent = exporting(sink, load.broker.port, None)?;
        agent.forget_peak()?;
        let used =
            |agent: &Agent| Ok::<_, anyhow::Error>(agent.metrics()?.sum("remora_process_cpu_seconds_total", &[]));
        let before = used(&agent)?;
        let took = load.run(count, RATE)?;
        cpu.push((used(&agent)? - before) / took * 100.0);
        resident.push(agent.peak()? as f64 / f64::from(1 << 20));
        books.add(&agent, count)?;
        agent.kill()?;
    }
    let how = format!(
        "median of {rounds} runs of {seconds} s, messages of {SIZE} octets, each confirmed, acknowledged by hundreds, one queue"
    );
    let what = "RabbitMQ at 5,000 message/s, published and delivered: CPU of the agent";
    report.row(what, format!("{:.1} % of a core", median(&mut cpu)), "–", "–", how);
    let how = format!("the highest of the same runs, start left out; median {:.0} MiB", median(&mut resident));
    let most = resident.last().copied().unwrap_or(f64::NAN);
    report.row("the same: resident memory at most", format!("{most:.0} MiB"), "64 MiB", "32 MiB", how);
    let what = "the same: messages in metrics ÷ sent, ÷ received";
    report.row(what, books.told(), "99.9 %", "100 %", books.say());
    Ok(())
}

/// What a publisher loses that sends as fast as it can, off and on in turn.
fn full_speed(report: &mut Report, load: &mut Load, sink: &Sink, rounds: u32, seconds: u32) -> Result<()> {
    let (mut ratios, mut offs, mut books) = (Vec::new(), Vec::new(), Books::default());
    let count = FULL * seconds;
    load.run(count, 0)?;
    for _ in 0..rounds {
        let off = f64::from(count) / load.run(count, 0)?;
        let agent = exporting(sink, load.broker.port, None)?;
        let on = f64::from(count) / load.run(count, 0)?;
        books.add(&agent, count)?;
        agent.kill()?;
        ratios.push(1.0 - on / off);
        offs.push(off);
    }
    let how = format!(
        "median of {rounds} pairs of {count} messages, {:.1} k message/s without; messages in metrics ÷ sent, ÷ received: {}; {}",
        median(&mut offs) / 1000.0,
        books.told(),
        books.say()
    );
    let what = "RabbitMQ: throughput that a publisher at full speed loses while a consumer reads along";
    report.row(what, format!("{:.1} %", median(&mut ratios) * 100.0), "–", "–", how);
    Ok(())
}
