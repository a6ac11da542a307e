//! Kafka: what the agent takes at 50,000 messages a second through one broker, and what a producer at full speed loses by
//! it, while a consumer group reads along.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::agent::Agent;
use tests::kafka::{Broker, VERSIONS};
use tests::process::Process;
use tests::{env, wait};

use crate::books::Books;
use crate::report::{Report, median};
use crate::throughput::{Sink, exporting};

/// Messages per second at the steady load.
const RATE: u32 = 50_000;
/// At full speed a run has so many messages for each second that runs are to take.
const FULL: u32 = 300_000;
/// Octets of a message, without a key.
const SIZE: usize = 150;
/// What a client may take to join its group, or to end.
const DEADLINE: Duration = Duration::from_secs(60);

/// The steady load, then full speed.
pub fn through_one_broker(report: &mut Report, rounds: u32, seconds: u32) -> Result<()> {
    let mut load = Load { broker: Broker::start(VERSIONS[0])?, runs: 0 };
    let sink = Sink::start()?;
    // The broker's code gets compiled.
    load.run(RATE, Some(RATE))?;
    steady(report, &mut load, &sink, rounds, seconds.max(4))?;
    full_speed(report, &mut load, &sink, rounds, seconds)
}

/// A broker; each run has a topic and a group of its own.
struct Load {
    broker: Broker,
    runs: u32,
}

impl Load {
    /// Sends so many messages, `rate` of them a second or as fast as can be; gives the seconds until all were acknowledged.
    /// Ends when the group has received them all.
    fn run(&mut self, count: u32, rate: Option<u32>) -> Result<f64> {
        self.runs += 1;
        let topic = format!("load-{}", self.runs);
        self.broker.create(&topic, 2)?;
        let consumer =
            Process::spawn(kcat(&self.broker)?.args(["-c", &count.to_string(), "-f", "", "-G", "readers", &topic]))?;
        wait::until(DEADLINE, "the consumer has its partitions", || {
            Ok(consumer.stderr().contains(" assigned: ").then_some(()))
        })?;
        let mut command = kcat(&self.broker)?;
        command.args(["-P", "-t", &topic, "-X", "acks=1", "-X", "linger.ms=5"]);
        let begin = Instant::now();
        let mut producer = Process::spawn(&mut command)?;
        feed(&mut producer, count, rate)?;
        producer.tell_no_more();
        producer.succeed(DEADLINE)?;
        let took = begin.elapsed().as_secs_f64();
        consumer.succeed(DEADLINE)?;
        Ok(took)
    }
}

/// A client on librdkafka, in C, so that most of what the machine has is left to the broker.
fn kcat(broker: &Broker) -> Result<Command> {
    let mut command = Command::new(env::which("kcat").context("kcat is not installed")?);
    command.args(["-b", &broker.bootstrap(), "-X", "auto.offset.reset=earliest"]);
    Ok(command)
}

/// Gives the producer its messages: as many as are due each millisecond, or as it takes them.
fn feed(producer: &mut Process, count: u32, rate: Option<u32>) -> Result<()> {
    let lines = |count: u32| vec!["x".repeat(SIZE); count as usize].join("\n");
    let step = rate.unwrap_or(400_000) / 1000;
    let (chunk, begin) = (lines(step), Instant::now());
    for number in 0..count / step {
        producer.tell(&chunk)?;
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(f64::from((number + 1) * step) / f64::from(rate));
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
    }
    match count % step {
        0 => Ok(()),
        rest => producer.tell(&lines(rest)),
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
        let took = load.run(count, Some(RATE))?;
        cpu.push((used(&agent)? - before) / took * 100.0);
        resident.push(agent.peak()? as f64 / f64::from(1 << 20));
        books.add(&agent, count)?;
        agent.kill()?;
    }
    let how = format!(
        "median of {rounds} runs of {seconds} s, messages of {SIZE} octets without a key, acks 1, linger 5 ms, 2 partitions"
    );
    let what = "Kafka at 50,000 message/s, sent and received: CPU of the agent";
    report.row(what, format!("{:.1} % of a core", median(&mut cpu)), "–", "–", how);
    let how = format!("the highest of the same runs, start left out; median {:.0} MiB", median(&mut resident));
    let most = resident.last().copied().unwrap_or(f64::NAN);
    report.row("the same: resident memory at most", format!("{most:.0} MiB"), "64 MiB", "32 MiB", how);
    let what = "the same: messages in metrics ÷ sent, ÷ received";
    report.row(what, books.told(), "99.9 %", "100 %", books.say());
    Ok(())
}

/// What a producer loses that sends as fast as it can, off and on in turn.
fn full_speed(report: &mut Report, load: &mut Load, sink: &Sink, rounds: u32, seconds: u32) -> Result<()> {
    let (mut ratios, mut offs, mut books) = (Vec::new(), Vec::new(), Books::default());
    let count = FULL * seconds;
    load.run(count, None)?;
    for _ in 0..rounds {
        let off = f64::from(count) / load.run(count, None)?;
        let agent = exporting(sink, load.broker.port, None)?;
        let on = f64::from(count) / load.run(count, None)?;
        books.add(&agent, count)?;
        agent.kill()?;
        ratios.push(1.0 - on / off);
        offs.push(off);
    }
    let how = format!(
        "median of {rounds} pairs of {count} messages, {:.0} k message/s without; messages in metrics ÷ sent, ÷ received: {}; {}",
        median(&mut offs) / 1000.0,
        books.told(),
        books.say()
    );
    let what = "Kafka: throughput that a producer at full speed loses while a group reads along";
    report.row(what, format!("{:.1} %", median(&mut ratios) * 100.0), "–", "–", how);
    Ok(())
}
