//! Messages whose content is under way, or that wait to be settled.

use std::collections::BTreeMap;

use agent_common::ids::MonoNanos;

use super::message::{Kind, Properties, Transfer};
use super::method::Sender;
use crate::protocol::piece::Start;

/// From whose side octets were lost since something began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) client: bool,
    pub(super) broker: bool,
}

impl Doubt {
    pub(super) fn add(&mut self, sender: Sender) {
        match sender {
            Sender::Client => self.client = true,
            Sender::Broker => self.broker = true,
            Sender::Either => *self = Self { client: true, broker: true },
        }
    }

    /// From both.
    pub(super) const fn is_total(self) -> bool {
        self.client && self.broker
    }
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) start: Start,
    /// Its last octet, once `whole`.
    pub(super) end: MonoNanos,
    pub(super) transfer: Transfer,
    /// No more of its content is to come.
    pub(super) whole: bool,
    pub(super) partial: bool,
    pub(super) doubt: Doubt,
    /// Of a delivery: no acknowledgement is due.
    pub(super) no_ack: Option<bool>,
    /// Of a delivery: it may be one of those that were settled at once before it was seen.
    pub(super) swept: bool,
    /// Of a publish: it is returned when it cannot be delivered (`mandatory`, `immediate`).
    pub(super) returnable: bool,
    /// A message that came back may be this one.
    pub(super) suspect: bool,
    /// So many did, or those that are like it and still wait.
    pub(super) returns: usize,
    /// What the returned message said.
    pub(super) returned: Option<(u16, Box<str>)>,
    weight: usize,
}

impl Open {
    pub(super) fn new(start: Start, transfer: Transfer, doubt: Doubt) -> Self {
        Self {
            start,
            end: start.at,
            transfer,
            whole: false,
            partial: false,
            doubt,
            no_ack: None,
            swept: false,
            returnable: false,
            suspect: false,
            returns: 0,
            returned: None,
            weight: 0,
        }
    }

    /// Of a delivery: it may have been settled unseen.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.doubt.client || self.swept
    }

    /// About how many octets of text it has.
    fn weight(&self) -> usize {
        let Transfer { exchange, routing_key, properties, context, .. } = &self.transfer;
        let Properties { message_id, correlation_id, reply_to, content_type, message_type, app_id, .. } = properties;
        let texts = [message_id, correlation_id, reply_to, content_type, message_type, app_id];
        let state = context.as_ref().and_then(|context| context.trace_state.as_ref());
        let shared = [exchange, routing_key].into_iter().flatten();
        texts.into_iter().flatten().chain(state).map(|text| text.len()).sum::<usize>()
            + shared.map(|text| text.len()).sum::<usize>()
    }
}

/// By number, so in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Pending {
    all: BTreeMap<u64, Open>,
    octets: usize,
    publishes: usize,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) const fn octets(&self) -> usize {
        self.octets
    }

    /// How many go the same way.
    pub(super) fn count(&self, kind: Kind) -> usize {
        if kind == Kind::Publish { self.publishes } else { self.all.len() - self.publishes }
    }

    pub(super) fn push(&mut self, number: u64, open: Open) {
        self.publishes += usize::from(open.transfer.kind == Kind::Publish);
        self.all.insert(number, open);
        self.weigh(number);
    }

    /// Notes how much its texts take by now.
    pub(super) fn weigh(&mut self, number: u64) {
        if let Some(open) = self.all.get_mut(&number) {
            self.octets -= open.weight;
            open.weight = open.weight();
            self.octets += open.weight;
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<&Open> {
        self.all.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Open> {
        self.all.get_mut(&number)
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Open> {
        let open = self.all.remove(&number)?;
        self.octets -= open.weight;
        self.publishes -= usize::from(open.transfer.kind == Kind::Publish);
        Some(open)
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.all.first_key_value().map(|(&number, _)| number)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Open)> {
        self.all.iter_mut().map(|(&number, open)| (number, open))
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.all.keys().copied().collect()
    }
}
