//! Spans of records sent and received, held against the clients' own word.

use anyhow::{Context as _, Result, bail, ensure};

use super::{Broker, Kind, Offsets};
use crate::span::{CONSUMER, ERROR, PRODUCER, Span};

/// What a span says of the records of one partition.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    pub span: &'a Span,
    pub partition: i32,
    /// Of the first record.
    pub offset: Option<i64>,
    pub count: i64,
}

impl<'a> Batch<'a> {
    /// Fails unless everything that every such span has is there and right.
    pub fn of(span: &'a Span, broker: &Broker) -> Result<Self> {
        Self::read(span, broker).with_context(|| format!("{span:?}"))
    }

    fn read(span: &'a Span, broker: &Broker) -> Result<Self> {
        let operation = match span.kind {
            PRODUCER => "send",
            CONSUMER => "receive",
            other => anyhow::bail!("a span of kind {other}"),
        };
        let topic = span.str("messaging.destination.name").context("no topic")?;
        ensure!(span.name == format!("{operation} {topic}"), "another name than of {operation} and {topic}");
        for (key, expected) in [
            ("messaging.system", "kafka"),
            ("messaging.operation.name", operation),
            ("messaging.operation.type", operation),
            ("server.address", "127.0.0.1"),
        ] {
            ensure!(span.str(key) == Some(expected), "{key} is not {expected}");
        }
        let port = broker.clients_port();
        ensure!(span.int("server.port") == Some(port.into()), "another port than {port}");
        ensure!(span.int("messaging.message.body.size").is_some_and(|size| size > 0), "no size");
        ensure!(span.start <= span.end, "it ends before it begins");
        ensure!((span.status == ERROR) == span.str("error.type").is_some(), "status and error differ");
        let count = span.int("messaging.batch.message_count");
        // One message is no batch.
        ensure!(count.is_none_or(|count| count > 1), "a batch of {count:?}");
        Ok(Self {
            span,
            partition: span.str("messaging.destination.partition.id").context("no partition")?.parse()?,
            offset: span.int("messaging.kafka.offset"),
            count: count.unwrap_or(1),
        })
    }

    /// Whether the record in this place is one of them.
    #[must_use]
    pub fn has(&self, partition: i32, offset: i64) -> bool {
        self.partition == partition && self.offset.is_some_and(|first| (first..first + self.count).contains(&offset))
    }
}

/// The spans of `kind` that process `pid` has of `topic`; fails when it has one that does not say its topic.
pub fn of_topic<'a>(spans: &'a [Span], broker: &Broker, kind: i32, pid: u32, topic: &str) -> Result<Vec<Batch<'a>>> {
    let ours = |span: &&Span| {
        let name = span.str("messaging.destination.name");
        span.kind == kind && span.pid() == Some(pid.into()) && name.is_none_or(|name| name == topic)
    };
    spans.iter().filter(ours).map(|span| Batch::of(span, broker)).collect()
}

/// Those of one consumer that it has taken. A broker may send records with an end of the log that does not count them yet; librdkafka then
/// takes it that it has reached the end, leaves them and asks for the same again (its log with `-d fetch` says so), so that they come twice.
#[must_use]
pub fn taken<'a>(received: &[Batch<'a>], kind: Kind) -> Vec<Batch<'a>> {
    let again = |batch: &&Batch<'_>| {
        let later =
            received.iter().filter(|other| other.partition == batch.partition && other.span.start > batch.span.start);
        later.min_by_key(|other| other.span.start).is_some_and(|next| next.offset == batch.offset)
    };
    let leaves = matches!(kind, Kind::Kcat | Kind::Librdkafka);
    received.iter().filter(|batch| !leaves || !again(batch)).cloned().collect()
}

/// Fails unless each of these places is in one of `batches`, and none of them has any other.
pub fn exactly(batches: &[Batch<'_>], places: &Offsets) -> Result<()> {
    let mut found = Offsets::new();
    for (number, batch) in batches.iter().enumerate() {
        let first = batch.offset.with_context(|| format!("no offset: {:?}", batch.span))?;
        for offset in first..first + batch.count {
            if !found.insert((batch.partition, offset)) {
                let before = batches[..number].iter().find(|before| before.has(batch.partition, offset));
                bail!("offset {offset} is in two spans: {:?} and {:?}", before.map(|before| before.span), batch.span);
            }
        }
    }
    let missing: Offsets = places.difference(&found).copied().collect();
    let edges = (missing.first(), missing.last());
    ensure!(missing.is_empty(), "{} of {} have no span, between {edges:?}", missing.len(), places.len());
    let wrong = found.difference(places).next();
    ensure!(wrong.is_none(), "a span has what nobody has sent: {wrong:?}");
    Ok(())
}
