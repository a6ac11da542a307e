//! What is accounted for of messages that went through a broker.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::agent::Agent;
use tests::metrics::Metrics;
use tests::names::{
    EXCHANGES_LOST, KERNEL_DROPS, MESSAGES_CONSUMED, MESSAGES_SENT, OTLP, SPANS, SPANS_DROPPED, SPANS_EXPORTED,
};
use tests::wait;

/// What an agent has made of some runs.
#[derive(Default)]
pub(crate) struct Books {
    messages: f64,
    sent: f64,
    received: f64,
    /// Sent, but not taken by the broker: the client sends them again.
    refused: f64,
    spans: f64,
    exported: f64,
    /// By reason.
    losses: BTreeMap<String, f64>,
}

impl Books {
    /// Adds a run of so many messages, when the agent has seen them all or nothing more comes.
    pub(crate) fn add(&mut self, agent: &Agent, messages: u32) -> Result<()> {
        let messages = f64::from(messages);
        let all = wait::until(Duration::from_secs(5), "all is told of", || {
            let metrics = agent.metrics()?;
            let told = [MESSAGES_SENT, MESSAGES_CONSUMED].iter().all(|name| succeeded(&metrics, name) >= messages);
            let exported = exported(&metrics) + metrics.sum(SPANS_DROPPED, &[]) >= metrics.sum(SPANS, &[]);
            Ok((told && exported).then_some(metrics))
        });
        let metrics = all.or_else(|_| agent.metrics())?;
        self.messages += messages;
        self.sent += succeeded(&metrics, MESSAGES_SENT);
        self.received += succeeded(&metrics, MESSAGES_CONSUMED);
        self.refused += metrics.total(MESSAGES_SENT, &[])? - succeeded(&metrics, MESSAGES_SENT);
        self.spans += metrics.total(SPANS, &[])?;
        self.exported += exported(&metrics);
        for name in [KERNEL_DROPS, SPANS_DROPPED, EXCHANGES_LOST, "remora_connection_observations_total"] {
            for sample in metrics.with(name, &[]).filter(|sample| sample.value > 0.0) {
                let reason = ["reason", "what"].iter().find_map(|label| sample.labels.get(*label));
                *self.losses.entry(reason.context("a loss without a reason")?.clone()).or_default() += sample.value;
            }
        }
        Ok(())
    }

    /// Messages in metrics, of those sent and of those received.
    pub(crate) fn told(&self) -> String {
        format!("{:.2} and {:.2} %", self.sent / self.messages * 100.0, self.received / self.messages * 100.0)
    }

    pub(crate) fn say(&self) -> String {
        let losses: Vec<_> = self.losses.iter().map(|(reason, count)| format!("{reason} {count:.0}")).collect();
        let losses = if losses.is_empty() { "none".to_owned() } else { losses.join(", ") };
        let Self { spans, exported, refused, .. } = self;
        format!(
            "{refused:.0} refused and sent again; {spans:.0} spans made, {exported:.0} exported; losses counted: {losses}"
        )
    }
}

/// The sum of all series without an error.
fn succeeded(metrics: &Metrics, name: &str) -> f64 {
    let right = metrics.with(name, &[]).filter(|sample| !sample.labels.contains_key("error_type"));
    right.map(|sample| sample.value).sum()
}

fn exported(metrics: &Metrics) -> f64 {
    metrics.sum(SPANS_EXPORTED, &[("exporter", OTLP)])
}
