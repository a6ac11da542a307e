//! What the clients are to do: the JSON object that each of their programs takes.

use std::path::PathBuf;

use serde::Serialize;

use super::{PASSWORD, USER};

/// How a client says who it is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sasl {
    /// `PLAIN` or `SCRAM-SHA-256`.
    pub mechanism: &'static str,
    user: &'static str,
    password: &'static str,
}

/// Records to send to a topic, in turn to its partitions. Their keys are `{key}-{number}`.
#[derive(Clone, Debug, Serialize)]
pub struct Produce {
    pub topic: String,
    /// `client.id`; set by [`super::Producer::start`] when it is empty.
    pub client: String,
    pub key: String,
    pub count: usize,
    /// So many are given to the client before the acknowledgement of any is awaited.
    pub batch: usize,
    /// Octets of each value.
    pub size: usize,
    pub partitions: usize,
    /// `0`, `1` or `all`.
    pub acks: &'static str,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: &'static str,
    pub idempotent: bool,
    /// The transactional id, of one transaction around all.
    pub transaction: Option<String>,
    /// Each record has a header `traceparent`, of a trace of its own.
    pub traceparent: bool,
    /// Pause after each batch.
    pub interval_ms: u64,
    /// The client's own limit to the size of what it sends, in octets.
    pub max_size: Option<u32>,
    /// It is given up in the end, not committed. Librdkafka alone.
    pub abort: bool,
    /// How it says who it is: [`super::USER`].
    pub sasl: Option<Sasl>,
    /// It takes the broker for one of this version, and does not ask it. Kcat alone.
    pub taken_for: Option<&'static str>,
    /// Speaks TLS, with whom the certificate in this file vouches for.
    pub(super) authority: Option<PathBuf>,
    pub(super) bootstrap: String,
    pub(super) log: PathBuf,
}

impl Produce {
    /// 100 records of 100 octets in batches of 10, acknowledged by all, to a topic of two partitions.
    #[must_use]
    pub fn to(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            client: String::new(),
            key: "k".to_owned(),
            count: 100,
            batch: 10,
            size: 100,
            partitions: 2,
            acks: "all",
            compression: "none",
            idempotent: false,
            transaction: None,
            traceparent: false,
            interval_ms: 0,
            max_size: None,
            abort: false,
            sasl: None,
            taken_for: None,
            authority: None,
            bootstrap: String::new(),
            log: PathBuf::new(),
        }
    }

    #[must_use]
    pub fn count(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    #[must_use]
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    #[must_use]
    pub fn acks(mut self, acks: &'static str) -> Self {
        self.acks = acks;
        self
    }

    #[must_use]
    pub fn compression(mut self, compression: &'static str) -> Self {
        self.compression = compression;
        self
    }

    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    #[must_use]
    pub fn transaction(mut self, id: &str) -> Self {
        self.transaction = Some(id.to_owned());
        self
    }

    #[must_use]
    pub fn sasl(mut self, mechanism: &'static str) -> Self {
        self.sasl = Some(Sasl { mechanism, user: USER, password: PASSWORD });
        self
    }

    #[must_use]
    pub fn traceparent(mut self) -> Self {
        self.traceparent = true;
        self
    }

    #[must_use]
    pub fn interval_ms(mut self, interval: u64) -> Self {
        self.interval_ms = interval;
        self
    }

    /// One record of `size` octets, sent whatever the client's own limit is.
    #[must_use]
    pub fn oversized(mut self, size: u32) -> Self {
        self.size = size as usize;
        self.max_size = Some(2 * size);
        self.count(1).batch(1)
    }
}

/// A topic to read from its beginning on, as a member of a group.
#[derive(Clone, Debug, Serialize)]
pub struct Consume {
    pub topic: String,
    /// `client.id`; set by [`super::Consumer::start`] when it is empty.
    pub client: String,
    pub group: String,
    /// The program commits what it has received, not the client from time to time.
    pub manual: bool,
    /// The base of a service that is asked `/stock/{key}` because of each record, before the next one is looked at.
    pub next: Option<String>,
    /// By the group protocol of KIP-848: the brokers assign the partitions. Librdkafka and Java alone.
    pub new_protocol: bool,
    /// The most that it asks for of a partition at once, in octets, and only when it has nothing left. Librdkafka and Kafkajs alone.
    pub sip: Option<u32>,
    /// It commits what it has received, and asks for no more of partition 0 when that was so much, of partition 1 when it was twice as
    /// much, and so on. Kafkajs alone.
    pub most: Option<usize>,
    /// As [`Produce`] has them.
    pub sasl: Option<Sasl>,
    pub taken_for: Option<&'static str>,
    pub(super) authority: Option<PathBuf>,
    pub(super) bootstrap: String,
    pub(super) log: PathBuf,
}

impl Consume {
    #[must_use]
    pub fn from(topic: &str, group: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            client: String::new(),
            group: group.to_owned(),
            manual: false,
            next: None,
            new_protocol: false,
            sip: None,
            most: None,
            sasl: None,
            taken_for: None,
            authority: None,
            bootstrap: String::new(),
            log: PathBuf::new(),
        }
    }

    #[must_use]
    pub fn manual(mut self) -> Self {
        self.manual = true;
        self
    }

    #[must_use]
    pub fn next(mut self, base: &str) -> Self {
        self.next = Some(base.to_owned());
        self
    }

    #[must_use]
    pub fn sasl(mut self, mechanism: &'static str) -> Self {
        self.sasl = Some(Sasl { mechanism, user: USER, password: PASSWORD });
        self
    }

    #[must_use]
    pub fn sip(mut self, octets: u32) -> Self {
        self.sip = Some(octets);
        self
    }

    #[must_use]
    pub fn most(mut self, count: usize) -> Self {
        (self.most, self.manual) = (Some(count), true);
        self
    }

    #[must_use]
    pub fn new_protocol(mut self) -> Self {
        self.new_protocol = true;
        self
    }
}
