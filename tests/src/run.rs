//! Load on the mesh with the agent beside it, and what came of it.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use crate::accuracy::{self, Report, TRUTH, header};
use crate::kafka::Record;
use crate::load::{self, Level};
use crate::mesh::{Mesh, Route};
use crate::messages;
use crate::span::{CONSUMER, PRODUCER, Span};
use crate::topic::{SHIPPED, Topic};

/// All spans of a run, and what was asked.
pub struct Run {
    pub spans: Vec<Span>,
    pub requests: Vec<(String, Route)>,
    services: HashMap<u16, &'static str>,
    /// What was sent to the topic.
    records: Vec<Record>,
    /// The spans of that and of what came of it; they are not among `spans`.
    messages: Vec<Span>,
}

/// `requests` in all, at rising concurrency. The first level is the agent's warm-up too, and counts like the others.
#[must_use]
pub fn levels(requests: usize) -> Vec<Level> {
    let level = |concurrency, percent| Level { concurrency, requests: requests * percent / 100 };
    vec![level(1, 6), level(10, 24), level(50, 30), level(100, 40)]
}

/// The agent looks on while `levels` are sent one after the other.
pub fn of_levels(mesh: &Mesh, levels: &[Level]) -> Result<Run> {
    let loads: Vec<_> = levels.iter().map(|level| (level.concurrency, level.requests())).collect();
    of_loads(mesh, &loads)
}

/// The agent looks on while `loads` are sent one after the other: concurrency and requests.
pub fn of_loads(mesh: &Mesh, loads: &[(usize, Vec<(String, Route)>)]) -> Result<Run> {
    let agent = mesh.agent()?.start()?;
    for (concurrency, requests) in loads {
        load::run(mesh.gateway(), *concurrency, requests)?;
    }
    let records = mesh.topic().map(Topic::settled).transpose()?.unwrap_or_default();
    let requests: Vec<_> = loads.iter().flat_map(|(_, requests)| requests.clone()).collect();
    // Of each record a span that sends it, and four of two calls; one may receive several.
    let expected = requests.iter().map(|(_, route)| 2 * route.hops()).sum::<usize>() + 5 * records.len();
    let drops = agent.metrics()?.sum(crate::names::KERNEL_DROPS, &[]);
    let spans = agent.stop_after(expected)?;
    ensure!(drops == 0.0, "the kernel side could not hand over {drops} records: the figures would not be of the links");
    let services = mesh.services().iter().map(|service| (service.port, service.name)).collect();
    let over_topic = |span: &Span| {
        matches!(span.kind, PRODUCER | CONSUMER) || header(span, TRUTH).is_some_and(|truth| truth.starts_with(SHIPPED))
    };
    let (messages, spans) = spans.into_iter().partition(over_topic);
    Ok(Run { spans, requests, services, records, messages })
}

impl Run {
    /// The evaluation of all requests whose truth begins with `tag`.
    #[must_use]
    pub fn report(&self, tag: &str) -> Report {
        let requests = self.requests.iter().filter(|(truth, _)| truth.starts_with(tag));
        let requests: Vec<_> = requests.map(|(truth, route)| (truth.clone(), 2 * route.hops())).collect();
        accuracy::evaluate(&self.spans, &self.services, &requests, |truth| truth.starts_with(tag))
    }

    /// The evaluation of what went over the mesh's topic because of these requests.
    #[must_use]
    pub fn report_of_messages(&self, tag: &str) -> messages::Report {
        let spans: Vec<_> = self.spans.iter().chain(&self.messages).collect();
        messages::evaluate(&spans, &self.records, |truth| truth.starts_with(tag))
    }
}
