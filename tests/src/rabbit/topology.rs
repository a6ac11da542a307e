//! What a broker has.

use serde::Serialize;
use serde_json::json;

/// Exchanges, queues, and which of the queues get what is sent to which of the exchanges.
#[derive(Default, Serialize)]
pub struct Topology {
    exchanges: Vec<serde_json::Value>,
    queues: Vec<serde_json::Value>,
    bindings: Vec<serde_json::Value>,
}

impl Topology {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `direct`, `fanout` or `topic`.
    #[must_use]
    pub fn exchange(mut self, name: &str, kind: &str) -> Self {
        self.exchanges.push(json!({ "name": name, "kind": kind }));
        self
    }

    #[must_use]
    pub fn queue(mut self, name: &str) -> Self {
        self.queues.push(json!({ "name": name, "durable": false, "arguments": {} }));
        self
    }

    /// A queue that counts in a header how often it has handed a message out again.
    #[must_use]
    pub fn quorum(mut self, name: &str) -> Self {
        let arguments = json!({ "x-queue-type": "quorum" });
        self.queues.push(json!({ "name": name, "durable": true, "arguments": arguments }));
        self
    }

    /// A queue that holds `length` messages, and does this with others: `reject-publish`, or `drop-head` with its oldest.
    #[must_use]
    pub fn limited(mut self, name: &str, length: usize, overflow: &str) -> Self {
        let arguments = json!({ "x-max-length": length, "x-overflow": overflow });
        self.queues.push(json!({ "name": name, "durable": false, "arguments": arguments }));
        self
    }

    /// The queue gets what is sent to the exchange with this key.
    #[must_use]
    pub fn binding(mut self, queue: &str, exchange: &str, key: &str) -> Self {
        self.bindings.push(json!({ "queue": queue, "exchange": exchange, "key": key }));
        self
    }
}
