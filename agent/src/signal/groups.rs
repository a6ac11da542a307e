//! The consumer groups of clients: `Fetch` names none, other calls of the same client do.

use std::sync::Arc;

use agent_common::ids::Tgid;
use rustc_hash::FxHashMap;

use crate::protocol::Exchange;
use crate::protocol::kafka::Call;

/// Clients remembered; past it all are forgotten, and known again by their next heartbeat.
const MOST: usize = 16 * 1024;

/// By process and client id. `None`: the calls of one client id have named several, so nothing tells which one fetches.
#[derive(Debug, Default)]
pub(super) struct Groups {
    known: FxHashMap<Tgid, FxHashMap<Box<str>, Option<Arc<str>>>>,
    clients: usize,
}

impl Groups {
    pub(super) fn learn(&mut self, exchange: &Exchange<Call>) {
        let call = &exchange.message;
        let Some(group) = call.facts.group.as_deref().filter(|group| !group.is_empty() && call.api.is_of_consumer())
        else {
            return;
        };
        let client_id = call.client_id.as_deref().unwrap_or_default();
        let clients = self.known.entry(exchange.request_thread.tgid).or_default();
        if let Some(known) = clients.get_mut(client_id) {
            if known.as_deref().is_some_and(|known| known != group) {
                *known = None;
            }
            return;
        }
        if self.clients >= MOST {
            (self.known, self.clients) = (FxHashMap::default(), 0);
            return self.learn(exchange);
        }
        clients.insert(client_id.into(), Some(group.into()));
        self.clients += 1;
    }

    /// The group of the client that made a call.
    pub(super) fn of(&self, exchange: &Exchange<Call>) -> Option<Arc<str>> {
        let client_id = exchange.message.client_id.as_deref().unwrap_or_default();
        self.known.get(&exchange.request_thread.tgid)?.get(client_id)?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_two_groups_have_none() {
        let mut groups = Groups::default();
        let call = |client_id: &str, group: Option<&str>| {
            let mut exchange = crate::protocol::kafka::sample();
            exchange.message.client_id = Some(client_id.into());
            exchange.message.facts.group = group.map(Into::into);
            exchange
        };
        for (client_id, group) in [("a", "g"), ("a", "g"), ("b", "g"), ("b", "h"), ("b", "g")] {
            groups.learn(&call(client_id, Some(group)));
        }
        let of = |client_id| groups.of(&call(client_id, None));
        assert_eq!((of("a").as_deref(), of("b"), of("c")), (Some("g"), None, None));
    }
}
