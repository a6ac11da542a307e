//! Transactions that were aborted (KIP-98): a broker sends their records also to consumers that want none of them, and names them
//! (`AbortedTransactions` in `FetchResponse.json`). It names none to those that want all.

/// Transactions kept of one partition.
const MOST: usize = 256;

/// Those of one partition of one response, as long as batches of them may follow.
#[derive(Debug, Default)]
pub(in crate::protocol::kafka) struct Aborted {
    /// Of the transaction that is being read.
    pub(in crate::protocol::kafka) producer: Option<i64>,
    /// By producer id and first offset.
    all: Vec<(i64, i64)>,
    /// There were more.
    more: bool,
}

impl Aborted {
    /// One of the producer that was named last begins at this offset.
    pub(in crate::protocol::kafka) fn add(&mut self, from: i64) {
        let Some(producer) = self.producer.take() else { return };
        if self.all.len() < MOST {
            self.all.push((producer, from));
        } else {
            self.more = true;
        }
    }

    /// Whether a batch of a transaction, which ends at this offset, is of one of these; `None` when that is not known.
    pub(super) fn has(&self, producer: i64, last: i64) -> Option<bool> {
        let found = self.all.iter().any(|&(id, from)| id == producer && from <= last);
        (found || !self.more).then_some(found)
    }

    /// The marker at this offset ends the producer's transaction: whether that was aborted or not, what follows is of another one.
    pub(super) fn end(&mut self, producer: i64, offset: i64) {
        self.all.retain(|&(id, from)| id != producer || from > offset);
    }
}
