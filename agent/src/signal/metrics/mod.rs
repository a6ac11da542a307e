//! Metrics of all exchanges, whatever the sampling of spans, by the semantic conventions: the stable ones for HTTP, those
//! for RPC and for messaging.
//!
//! A series belongs to a **service**, not to a process: forking servers and restarts neither multiply series nor set
//! them back. Prometheus gets the service's name as a label on each series, since that is what people select by, and
//! `target_info` with the attributes that all processes of the service share; OTLP gets one resource per service.

mod exposition;
mod histogram;
mod instrument;
mod labels;
mod levels;
mod messaging;
mod otlp;
pub mod own;
mod prometheus;
mod series;
mod service;
mod window;

use std::sync::{Arc, Weak};

use agent_common::ids::UnixNanos;
use rustc_hash::FxHashMap;

pub use self::exposition::{Exposition, Family, Format, Labels, MetricKind, Number};
pub use self::labels::Server;
pub use self::levels::Connection;
pub use self::messaging::{Lag, Messages, MessagingCall, Queued};
pub use self::series::Observation;
pub use self::window::Recent;

use self::levels::Level;
use self::service::{Identity, KINDS, Room, Service};
use super::resource::Resource;
use super::span::Kind;

/// How much the registry may take: a set of attributes 0.4 KiB, of HTTP with sizes 0.6 KiB, up to 1.4 KiB with exemplars in all
/// buckets, and a service with both its sides in use 25 KiB. With the defaults that is at most 3 MiB for the series and 3 MiB
/// for the services. What is dear is the text of a scrape, of HTTP 11 KiB for a set of attributes or 22 MiB in all, so that is
/// what the default is made for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sets of attributes in all. Of HTTP each is a series of three histograms, 47 samples in a scrape; of messaging one of a
    /// histogram, 17 or 23 samples, or a number.
    pub series: usize,
    /// The same of one service, so that one cannot take the room of all others.
    pub series_per_service: usize,
    pub services: usize,
    /// Servers that a service's client side tells apart.
    pub servers_per_service: usize,
    /// Processes remembered by their resource's id; beyond, a look-up by name takes a little longer.
    pub processes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { series: 2_000, series_per_service: 1_000, services: 128, servers_per_service: 64, processes: 8_192 }
    }
}

/// How long a service whose processes are all gone keeps its series after it was last seen, in nanoseconds: several
/// scrapes, so that the last values arrive.
const KEPT: u64 = 5 * 60 * 1_000_000_000;

/// All metrics of what is observed. One owner; time comes in as an argument.
pub struct Registry {
    services: Vec<Service>,
    by_identity: FxHashMap<Identity, usize>,
    /// By `Resource::id`. A process counts as gone once nobody else holds its resource.
    processes: FxHashMap<u64, (Weak<Resource>, usize)>,
    /// Stands for the services that found no room.
    others: Service,
    room: Room,
}

/// What the registry holds and what its limits cost since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryStats {
    pub services: u64,
    /// Sets of attributes.
    pub series: u64,
    /// Exchanges, calls and batches of messages counted without their attributes.
    pub series_overflow: u64,
    /// The same, and connections, counted without their server.
    pub server_overflow: u64,
    /// Lags of partitions left out.
    pub lag_overflow: u64,
}

/// The requests that one service answered (server) or made (client).
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceStats {
    /// `service.name`.
    pub service: Box<str>,
    pub kind: Kind,
    /// Since the service was first seen.
    pub requests: u64,
    /// Those of them with an `error.type`.
    pub errors: u64,
    pub recent: Recent,
}

impl Registry {
    /// `start` is when the agent began to observe.
    #[must_use]
    pub fn new(limits: Limits, start: UnixNanos) -> Self {
        Self {
            services: Vec::new(),
            by_identity: FxHashMap::default(),
            processes: FxHashMap::default(),
            others: Service::new(None, None, start),
            room: Room::new(limits),
        }
    }

    /// Counts a finished exchange.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        // What is cumulative begins before its first value.
        let begin = UnixNanos(observation.at.0.saturating_sub(observation.duration_nanos));
        let (service, room) = self.service(observation.resource, begin);
        service.observe(observation, room);
    }

    /// Sets what is going on at the moment. Called before a scrape or an export with all connections that are open.
    pub fn set_connections<'a>(&mut self, now: UnixNanos, connections: impl IntoIterator<Item = Connection<'a>>) {
        for service in self.services.iter_mut().chain([&mut self.others]) {
            // What was there once stays with 0: a gauge that ends would keep its last value for minutes elsewhere.
            service.levels.values_mut().for_each(|level| *level = 0);
        }
        for connection in connections {
            let (service, room) = self.service(connection.resource, now);
            if let Some((method, requests)) = connection.in_flight {
                let level = Level::requests(connection.kind, method, connection.scheme);
                *service.levels.entry(level).or_default() += u64::from(requests);
            }
            let active = connection.in_flight.is_some();
            let level = match connection.kind {
                Kind::Server => Level::ServerConnections { active },
                Kind::Client => {
                    let server = connection.server.filter(|server| service.admits(server, &room.limits));
                    room.overflows.servers += u64::from(server.is_none() && connection.server.is_some());
                    if let Some(server) = server {
                        service.admit(server);
                    }
                    Level::ClientConnections { active, server: server.cloned() }
                }
            };
            *service.levels.entry(level).or_default() += 1;
        }
    }

    /// Forgets the services whose processes are all gone and that were idle for five minutes, and lags that were not heard
    /// of for that long. Worth a call a minute.
    pub fn sweep(&mut self, now: UnixNanos) {
        for service in &mut self.services {
            service.forget_lags(UnixNanos(now.0.saturating_sub(KEPT)));
        }
        self.forget_services(now);
        self.room.left_by(&self.services);
    }

    fn forget_services(&mut self, now: UnixNanos) {
        self.processes.retain(|_, (resource, _)| resource.strong_count() > 0);
        let mut alive = vec![false; self.services.len()];
        for (_, index) in self.processes.values() {
            if let Some(alive) = alive.get_mut(*index) {
                *alive = true;
            }
        }
        let stays = |service: &Service, alive: bool| alive || now.0.saturating_sub(service.last.0) < KEPT;
        if self.services.iter().zip(&alive).all(|(service, alive)| stays(service, *alive)) {
            return;
        }
        let mut moved = Vec::with_capacity(alive.len());
        let mut flags = alive.iter();
        let mut next = 0;
        self.services.retain(|service| {
            let stays = stays(service, flags.next().copied().unwrap_or(true));
            moved.push(stays.then_some(next));
            next += usize::from(stays);
            stays
        });
        let new = |index: &mut usize| match moved.get(*index) {
            Some(Some(new)) => {
                *index = *new;
                true
            }
            _ => false,
        };
        self.processes.retain(|_, (_, index)| new(index));
        self.by_identity.retain(|_, index| new(index));
    }

    #[must_use]
    pub fn stats(&self) -> RegistryStats {
        RegistryStats {
            services: self.services.len() as u64,
            series: self.services.iter().map(|service| service.len() as u64).sum(),
            series_overflow: self.room.overflows.series,
            server_overflow: self.room.overflows.servers,
            lag_overflow: self.room.overflows.lags,
        }
    }

    /// Each service and kind with its totals and the last `seconds` (1 to 60) before `now`.
    #[must_use]
    pub fn services(&self, now: UnixNanos, seconds: u64) -> Vec<ServiceStats> {
        let mut all = Vec::new();
        for service in &self.services {
            let Some(identity) = &service.identity else { continue };
            for (kind, side) in KINDS.into_iter().zip(&service.sides) {
                let Some(window) = &side.window else { continue };
                all.push(ServiceStats {
                    service: identity.name.clone(),
                    kind,
                    requests: side.requests,
                    errors: side.errors,
                    recent: window.recent(now, seconds),
                });
            }
        }
        all
    }

    /// A resource's service, made if need be, or what stands for it when there is no room; and what services may take.
    fn service(&mut self, resource: &Arc<Resource>, now: UnixNanos) -> (&mut Service, &mut Room) {
        let index = self.index(resource, now);
        let service = index.and_then(|index| self.services.get_mut(index)).unwrap_or(&mut self.others);
        (service, &mut self.room)
    }

    /// The index of a resource's service, made if need be; `None` when there is no room for it.
    fn index(&mut self, resource: &Arc<Resource>, now: UnixNanos) -> Option<usize> {
        if let Some((_, index)) = self.processes.get(&resource.id) {
            return Some(*index);
        }
        let identity = Identity::of(resource);
        let index = match self.by_identity.get(&identity) {
            Some(index) => *index,
            None if self.services.len() >= self.room.limits.services => return None,
            None => {
                let index = self.services.len();
                self.services.push(Service::new(Some(identity.clone()), Some(resource), now));
                self.by_identity.insert(identity, index);
                index
            }
        };
        if self.processes.len() < self.room.limits.processes {
            self.processes.insert(resource.id, (Arc::downgrade(resource), index));
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests;
