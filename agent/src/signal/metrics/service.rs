//! The metrics of one service, over all its processes.

use std::sync::Arc;

use agent_common::ids::UnixNanos;
use hashbrown::HashTable;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Limits;
use super::levels::Level;
use super::series::{self, Labels, Observation, Series, Server};
use super::window::Window;
use crate::signal::resource::{Resource, Value};
use crate::signal::span::Kind;

/// Both kinds, in the order of [`side`].
pub(super) const KINDS: [Kind; 2] = [Kind::Server, Kind::Client];

/// What tells one service from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) name: Box<str>,
    /// `service.namespace`.
    pub(super) namespace: Option<Box<str>>,
}

impl Identity {
    pub(super) fn of(resource: &Resource) -> Self {
        let namespace = resource.attributes.iter().find_map(|(key, value)| match value {
            Value::Str(value) if **key == *"service.namespace" => Some(value.clone()),
            _ => None,
        });
        Self { name: resource.service_name.clone(), namespace }
    }
}

/// Which of two places a kind has.
pub(super) const fn side(kind: Kind) -> usize {
    match kind {
        Kind::Server => 0,
        Kind::Client => 1,
    }
}

/// What one side of a service did since the service was first seen.
#[derive(Default)]
pub(super) struct Side {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) window: Option<Box<Window>>,
    /// What found no room among the series.
    pub(super) overflow: Option<Box<Series>>,
}

pub(super) struct Service {
    /// `None` for what stands for the services that found no room.
    pub(super) identity: Option<Identity>,
    /// The attributes of its first process that do not tell processes apart.
    pub(super) attributes: Vec<(Box<str>, Value)>,
    /// When it was first seen: where its cumulative values begin.
    pub(super) start: UnixNanos,
    /// When it was last seen.
    pub(super) last: UnixNanos,
    pub(super) sides: [Side; 2],
    series: Vec<Series>,
    /// Indexes of `series` by labels.
    table: HashTable<u32>,
    /// The servers that have series, and so may be labels.
    servers: FxHashSet<Arc<Server>>,
    pub(super) levels: FxHashMap<Level, u64>,
}

/// Counts of what the limits cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overflows {
    /// Observations that went to an overflow series.
    pub(super) series: u64,
    /// Observations and connections whose server was left out.
    pub(super) servers: u64,
}

impl Service {
    pub(super) fn new(identity: Option<Identity>, resource: Option<&Resource>, start: UnixNanos) -> Self {
        let attributes = resource.map_or_else(Vec::new, |resource| {
            resource.attributes.iter().filter(|(key, _)| is_shared(key)).cloned().collect()
        });
        Self {
            identity,
            attributes,
            start,
            last: start,
            sides: Default::default(),
            series: Vec::new(),
            table: HashTable::new(),
            servers: FxHashSet::default(),
            levels: FxHashMap::default(),
        }
    }

    /// Counts an exchange. `room` is the number of series that may still be made in all; it goes down with each.
    pub(super) fn observe(
        &mut self,
        observation: &Observation<'_>,
        limits: &Limits,
        room: &mut usize,
        overflows: &mut Overflows,
    ) {
        self.last = self.last.max(observation.at);
        let known = self.identity.is_some();
        if let Some(side) = self.sides.get_mut(side(observation.kind)) {
            let error = observation.error_type.is_some();
            side.requests += 1;
            side.errors += u64::from(error);
            if known {
                side.window.get_or_insert_with(|| Box::new(Window::new())).observe(
                    observation.at,
                    observation.duration_nanos,
                    error,
                );
            }
        }
        if let Some(series) = self.series(observation, limits, room, overflows) {
            series.observe(observation);
            return;
        }
        overflows.series += 1;
        if let Some(side) = self.sides.get_mut(side(observation.kind)) {
            side.overflow
                .get_or_insert_with(|| Box::new(Series::new(Labels::Overflow { kind: observation.kind })))
                .observe(observation);
        }
    }

    /// The series of an observation, made if there is room.
    fn series(
        &mut self,
        observation: &Observation<'_>,
        limits: &Limits,
        room: &mut usize,
        overflows: &mut Overflows,
    ) -> Option<&mut Series> {
        let mut server = observation.server.filter(|_| observation.kind == Kind::Client);
        let mut found = self.find(observation, server);
        if found.is_none() && server.is_some_and(|server| !self.admits(server, limits)) {
            overflows.servers += 1;
            server = None;
            found = self.find(observation, None);
        }
        if found.is_none() && *room > 0 && self.series.len() < limits.series_per_service && self.identity.is_some() {
            *room -= 1;
            let index = self.series.len();
            self.series.push(Series::new(Labels::of(observation, server)));
            if let Some(server) = server {
                self.servers.insert(Arc::clone(server));
            }
            let (series, hash) = (&self.series, series::hash(observation, server));
            // The limit on series is far below what an index holds.
            self.table.insert_unique(hash, u32::try_from(index).ok()?, |index| rehash(series, *index));
            found = Some(index);
        }
        self.series.get_mut(found?)
    }

    fn find(&self, observation: &Observation<'_>, server: Option<&Arc<Server>>) -> Option<usize> {
        let is_it = |index: &u32| {
            self.series.get(*index as usize).is_some_and(|series| series.labels.matches(observation, server))
        };
        self.table.find(series::hash(observation, server), is_it).map(|index| *index as usize)
    }

    /// Whether a server may be a label.
    pub(super) fn admits(&self, server: &Arc<Server>, limits: &Limits) -> bool {
        self.servers.len() < limits.servers_per_service || self.servers.contains(server)
    }

    /// Notes a server that became a label.
    pub(super) fn admit(&mut self, server: &Arc<Server>) {
        self.servers.insert(Arc::clone(server));
    }

    /// All series of one kind, that of the overflow last.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Series> {
        let overflow = self.sides.get(side(kind)).and_then(|side| side.overflow.as_deref());
        self.series.iter().filter(move |series| series.labels.kind() == kind).chain(overflow)
    }

    /// The number of series that count against the limits.
    pub(super) const fn len(&self) -> usize {
        self.series.len()
    }
}

fn rehash(series: &[Series], index: u32) -> u64 {
    series.get(index as usize).map_or(0, |series| series::hash_labels(&series.labels))
}

/// Whether an attribute is the same for all processes of a service on a host. What tells processes, containers and pods
/// apart is not: metrics of a service are sums over these, and their resource must not change when one of them goes.
fn is_shared(key: &str) -> bool {
    !["process.", "container.", "k8s.pod.", "k8s.container.", "service.instance."]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}
