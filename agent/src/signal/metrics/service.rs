//! The metrics of one service, over all its processes.

use std::sync::Arc;

use agent_common::ids::UnixNanos;
use hashbrown::HashTable;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Limits;
use super::labels::{Key, Labels, Server, Sort};
use super::levels::Level;
use super::series::{Observation, Series, Values};
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
    /// The exchanges of HTTP and gRPC.
    pub(super) sides: [Side; 2],
    series: Vec<Series>,
    /// Indexes of `series` by labels.
    table: HashTable<u32>,
    /// How many of the series are lags.
    lags: usize,
    /// What found no room among the series, by [`side`] and sort.
    overflow: FxHashMap<(usize, Sort), Series>,
    /// The servers that have series, and so may be labels.
    servers: FxHashSet<Arc<Server>>,
    pub(super) levels: FxHashMap<Level, u64>,
}

/// What all services together may still take, and what was counted without for lack of it.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) limits: Limits,
    /// Series that may still be made.
    series: usize,
    /// Those of them that may be lags.
    lags: usize,
    pub(super) overflows: Overflows,
}

/// Counts of what the limits cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overflows {
    /// What went to an overflow series.
    pub(super) series: u64,
    /// What was counted without its server.
    pub(super) servers: u64,
    /// Lags that were left out.
    pub(super) lags: u64,
}

/// Lags may have half of the series: there is one for each partition, and what tells of a service most must not have to
/// give way to them.
const fn lags(series: usize) -> usize {
    series / 2
}

impl Room {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, series: limits.series, lags: lags(limits.series), overflows: Overflows::default() }
    }

    /// Sets what is free, now that some of what there was is not.
    pub(super) fn left_by(&mut self, services: &[Service]) {
        let used = |of: fn(&Service) -> usize| services.iter().map(of).sum::<usize>();
        self.series = self.limits.series.saturating_sub(used(Service::len));
        self.lags = lags(self.limits.series).saturating_sub(used(|service| service.lags));
    }
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
            lags: 0,
            overflow: FxHashMap::default(),
            servers: FxHashSet::default(),
            levels: FxHashMap::default(),
        }
    }

    /// Counts an exchange.
    pub(super) fn observe(&mut self, observation: &Observation<'_>, room: &mut Room) {
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
        observation.count(self.count(observation.key(), observation.at, room));
    }

    /// The values of a series to count in, of that of the overflow if there is no room.
    pub(super) fn count(&mut self, key: Key<'_>, at: UnixNanos, room: &mut Room) -> &mut Values {
        self.last = self.last.max(at);
        if let Some(index) = self.find_or_make(key, room)
            && let Some(series) = self.series.get_mut(index)
        {
            return &mut series.values;
        }
        room.overflows.series += 1;
        let sort = key.what.sort();
        let overflow = self.overflow.entry((side(key.kind), sort));
        &mut overflow.or_insert_with(|| Series::new(Labels::overflow(key.kind, sort))).values
    }

    /// The values of a series to set; `None` if there is no room.
    pub(super) fn set(&mut self, key: Key<'_>, at: UnixNanos, room: &mut Room) -> Option<&mut Values> {
        self.last = self.last.max(at);
        let index = self.find_or_make(key, room);
        room.overflows.lags += u64::from(index.is_none());
        self.series.get_mut(index?).map(|series| &mut series.values)
    }

    /// The index of a series, made if there is room.
    fn find_or_make(&mut self, mut key: Key<'_>, room: &mut Room) -> Option<usize> {
        key.server = key.server.filter(|_| key.kind == Kind::Client);
        let mut found = self.find(key);
        if found.is_none() && key.server.is_some_and(|server| !self.admits(server, &room.limits)) {
            room.overflows.servers += 1;
            key.server = None;
            found = self.find(key);
        }
        found.or_else(|| self.make(key, room))
    }

    fn make(&mut self, key: Key<'_>, room: &mut Room) -> Option<usize> {
        let (index, most) = (self.series.len(), room.limits.series_per_service);
        if room.series == 0 || index >= most || self.identity.is_none() {
            return None;
        }
        if key.what.sort() == Sort::Lag {
            if room.lags == 0 || self.lags >= lags(most) {
                return None;
            }
            room.lags -= 1;
            self.lags += 1;
        }
        room.series -= 1;
        self.series.push(Series::new(key.labels()));
        if let Some(server) = key.server {
            self.servers.insert(Arc::clone(server));
        }
        self.enter(index);
        Some(index)
    }

    /// Enters a series into the table.
    fn enter(&mut self, index: usize) {
        let Self { series, table, .. } = self;
        let hash = |index: &u32| series.get(*index as usize).map_or(0, |series| series.labels.key().hash());
        // The limit on series is far below what an index holds.
        if let Ok(index) = u32::try_from(index) {
            table.insert_unique(hash(&index), index, hash);
        }
    }

    fn find(&self, key: Key<'_>) -> Option<usize> {
        let is_it = |index: &u32| self.series.get(*index as usize).is_some_and(|series| series.labels.key() == key);
        self.table.find(key.hash(), is_it).map(|index| *index as usize)
    }

    /// Forgets the lags that were not heard of since `then`.
    pub(super) fn forget_lags(&mut self, then: UnixNanos) {
        let is_old = |series: &Series| matches!(series.values, Values::Lag { at, .. } if at <= then);
        if self.lags == 0 || !self.series.iter().any(is_old) {
            return;
        }
        self.series.retain(|series| !is_old(series));
        self.lags = self.series.iter().filter(|series| series.labels.what.sort() == Sort::Lag).count();
        self.table.clear();
        (0..self.series.len()).for_each(|index| self.enter(index));
    }

    /// Whether a server may be a label.
    pub(super) fn admits(&self, server: &Arc<Server>, limits: &Limits) -> bool {
        self.servers.len() < limits.servers_per_service || self.servers.contains(server)
    }

    /// Notes a server that became a label.
    pub(super) fn admit(&mut self, server: &Arc<Server>) {
        self.servers.insert(Arc::clone(server));
    }

    /// All series of one kind, those of the overflow last.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Series> {
        self.series.iter().chain(self.overflow.values()).filter(move |series| series.labels.kind == kind)
    }

    /// The number of series that count against the limits.
    pub(super) const fn len(&self) -> usize {
        self.series.len()
    }
}

/// Whether an attribute is the same for all processes of a service on a host. What tells processes, containers and pods
/// apart is not: metrics of a service are sums over these, and their resource must not change when one of them goes.
fn is_shared(key: &str) -> bool {
    !["process.", "container.", "k8s.pod.", "k8s.container.", "service.instance."]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}
