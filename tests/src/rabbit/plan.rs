//! What the clients are to do: the JSON object that each of their programs takes.

use std::path::PathBuf;

use serde::Serialize;

/// Messages to publish. The body of each begins with its own name, `{name}-{number}`.
#[derive(Clone, Debug, Serialize)]
pub struct Produce {
    /// Empty for the default exchange.
    pub exchange: String,
    /// The routing key.
    pub key: String,
    /// Of the connection; set by [`super::Producer::start`] when it is empty.
    pub client: String,
    pub name: String,
    pub count: usize,
    /// So many are sent before the confirm of any is awaited.
    pub batch: usize,
    /// Octets of each body.
    pub size: usize,
    /// The broker confirms each message.
    pub confirms: bool,
    /// A message that no queue gets comes back.
    pub mandatory: bool,
    /// Each message has a header `traceparent`, of a trace of its own.
    pub traceparent: bool,
    /// Neither a message id (its name) nor a correlation id (`for-` and its name).
    pub bare: bool,
    /// The name stands at the end of the body, not at its beginning, behind more than what the agent tells messages apart by. Pika alone.
    pub tailed: bool,
    /// Used in turn.
    pub channels: usize,
    /// Pause after each batch.
    pub interval_ms: u64,
    /// Seconds; 0 for none.
    pub heartbeat: u16,
    pub(super) port: u16,
    pub(super) log: PathBuf,
}

impl Produce {
    /// 20 messages of 100 octets, each confirmed before the next one is sent.
    #[must_use]
    pub fn to(exchange: &str, key: &str) -> Self {
        Self {
            exchange: exchange.to_owned(),
            key: key.to_owned(),
            client: String::new(),
            name: format!("{exchange}.{key}"),
            count: 20,
            batch: 1,
            size: 100,
            confirms: true,
            mandatory: false,
            traceparent: false,
            bare: false,
            tailed: false,
            channels: 1,
            interval_ms: 0,
            heartbeat: 0,
            port: 0,
            log: PathBuf::new(),
        }
    }

    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
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
    pub fn size(mut self, octets: usize) -> Self {
        self.size = octets;
        self
    }

    #[must_use]
    pub fn unconfirmed(mut self) -> Self {
        self.confirms = false;
        self
    }

    #[must_use]
    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    #[must_use]
    pub fn traceparent(mut self) -> Self {
        self.traceparent = true;
        self
    }

    #[must_use]
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Messages of 5,000 octets that are alike for everybody who looks at their first 4 KiB.
    #[must_use]
    pub fn alike(mut self) -> Self {
        (self.bare, self.tailed, self.size) = (true, true, 5000);
        self
    }

    #[must_use]
    pub fn channels(mut self, count: usize) -> Self {
        self.channels = count;
        self
    }

    #[must_use]
    pub fn interval_ms(mut self, interval: u64) -> Self {
        self.interval_ms = interval;
        self
    }

    #[must_use]
    pub fn heartbeat(mut self, seconds: u16) -> Self {
        self.heartbeat = seconds;
        self
    }
}

/// How messages are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ack {
    /// Delivered, and acknowledged.
    Each,
    /// Delivered; there is nothing to acknowledge.
    None,
    /// Asked for one by one, and acknowledged.
    Get,
    /// Asked for one by one; there is nothing to acknowledge.
    GetNone,
}

/// A queue to take messages from.
#[derive(Clone, Debug, Serialize)]
pub struct Consume {
    pub queue: String,
    /// Instead of a queue: an exchange. The broker then makes one for it, names it, and removes it with its consumer. Pika alone.
    pub exchange: String,
    /// Of the connection; set by [`super::Consumer::start`] when it is empty.
    pub client: String,
    pub ack: Ack,
    /// So many are acknowledged at once, by the last of them.
    pub every: usize,
    /// Of the messages' numbers each multiple of this goes back to the queue when it first comes; 0 for none.
    pub requeue: usize,
    /// Of the messages' numbers each that is one more than a multiple of this is rejected; 0 for none.
    pub reject: usize,
    /// So many that come for the first time are left alone, and then all given back at once (`basic.recover`); 0 for none.
    pub recover: usize,
    /// So many may be delivered and not yet acknowledged.
    pub prefetch: u16,
    /// The base of a service that is asked `/stock/{name}` because of each message, before that is acknowledged.
    pub next: String,
    /// Seconds; 0 for none.
    pub heartbeat: u16,
    pub(super) port: u16,
    pub(super) log: PathBuf,
}

impl Consume {
    /// Each message is acknowledged; ten may be under way.
    #[must_use]
    pub fn from(queue: &str) -> Self {
        Self {
            queue: queue.to_owned(),
            exchange: String::new(),
            client: String::new(),
            ack: Ack::Each,
            every: 1,
            requeue: 0,
            reject: 0,
            recover: 0,
            prefetch: 10,
            next: String::new(),
            heartbeat: 0,
            port: 0,
            log: PathBuf::new(),
        }
    }

    /// What an exchange copies to all.
    #[must_use]
    pub fn copies(exchange: &str) -> Self {
        Self { exchange: exchange.to_owned(), ..Self::from("") }
    }

    #[must_use]
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    #[must_use]
    pub fn every(mut self, count: usize) -> Self {
        self.every = count;
        self
    }

    #[must_use]
    pub fn requeue(mut self, nth: usize) -> Self {
        self.requeue = nth;
        self
    }

    #[must_use]
    pub fn reject(mut self, nth: usize) -> Self {
        self.reject = nth;
        self
    }

    /// No more may be under way, since what comes behind is given back as well.
    #[must_use]
    pub fn recover(mut self, count: u16) -> Self {
        (self.recover, self.prefetch) = (count.into(), count);
        self
    }

    #[must_use]
    pub fn prefetch(mut self, count: u16) -> Self {
        self.prefetch = count;
        self
    }

    #[must_use]
    pub fn next(mut self, base: &str) -> Self {
        base.clone_into(&mut self.next);
        self
    }
}
