//! What the clients say they sent and received, message by message.

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One message as the client was told of it, or one delivery of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// `producer` or `consumer`.
    pub role: String,
    pub client: String,
    /// Empty for the default exchange.
    pub exchange: String,
    pub routing_key: String,
    /// A consumer's.
    pub queue: Option<String>,
    /// The delivery tag, in a consumer's channel.
    pub tag: Option<i64>,
    pub redelivered: Option<bool>,
    /// The first word of its body, which no other message has.
    pub message: String,
    /// Octets of the body.
    pub size: i64,
    /// What it put into the headers.
    pub traceparent: Option<String>,
    /// A producer's: `ok`, `nack`, or the broker's name of what is wrong. A consumer's, what it did with the message: `ack`,
    /// `nack` (it goes back to the queue), `reject` (it does not), `recover` (it goes back with all others), or `none`.
    pub result: String,
    /// Nanoseconds since the epoch.
    pub at: u64,
}

/// What a span calls the place of this message: exchange and routing key, of a delivery the queue as well if it has another
/// name than the key; without what is empty.
#[must_use]
pub fn destination(message: &Message) -> String {
    let Message { exchange, routing_key, queue, .. } = message;
    let queue = queue.as_deref().filter(|queue| queue != routing_key);
    let parts: Vec<&str> =
        [exchange, routing_key, queue.unwrap_or_default()].into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "amq.default".to_owned() } else { parts.join(":") }
}

impl Message {
    /// Its number within its plan.
    pub fn number(&self) -> Result<usize> {
        let number = self.message.rsplit('-').next().unwrap_or_default();
        number.parse().with_context(|| format!("a message without a number: {self:?}"))
    }
}
