//! A guess of `http.route`: which paths of a service belong together.
//!
//! Nothing outside a process tells which route its framework took, so the path has to do. Two rules make it one of a
//! few: a segment that looks like an identifier becomes a placeholder at once ([`segment`]), and a position that
//! shows too many different words becomes one once that is known ([`Tree`]). What the rules let through meets hard
//! limits, so that the number of routes is bounded whatever the peers ask for.
//!
//! Requests that the server knows no route for must not shape the guess: a scanner that tries thousands of paths would
//! otherwise wear out the service's routes. So a path answered by such a status is looked up and teaches nothing.

mod segment;
mod tree;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};

use self::tree::{Found, Tree};
use super::resource::Resource;
use super::span::Kind;

/// How much the routes may take. With the defaults a service has at most 800 tree nodes and 200 routes, with the longest
/// words 180 KiB (a few KiB in practice), so 128 services at most 22 MiB; and the 4,096 remembered paths take 224 KiB and
/// at most 1 MiB of text.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Services followed, server and client side apart; the least recently used one is forgotten first.
    pub services: usize,
    /// Routes of a service, ever. The last quarter is kept for routes that add no new word.
    pub routes: usize,
    /// Different words at one position under one prefix, beyond which the position is a parameter.
    pub words: usize,
    /// The same for the first position, where a service's own parts stand rather than names of things.
    pub first_words: usize,
    /// Paths whose route is remembered, over all services. Rounded up to a power of two.
    pub paths: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { services: 128, routes: 200, words: 20, first_words: 40, paths: 4096 }
    }
}

/// The longest path that is remembered, in octets. Longer ones are worked out each time.
const REMEMBERED: usize = 256;

/// Routes by service. Deterministic: the same paths in the same order give the same routes.
pub struct Routes {
    limits: Limits,
    trees: Vec<Tree>,
    by_service: FxHashMap<u64, usize>,
    /// Two places for each hash of service and path, the newer one first: a new path takes the place of the older one,
    /// which costs less than keeping an order of use and cannot grow.
    paths: Box<[Option<Remembered>]>,
    /// The number of look-ups, as a clock.
    now: u64,
    /// The last generation given out.
    generation: u64,
    overflows: u64,
}

struct Remembered {
    service: u64,
    tree: usize,
    /// The tree's generation at that time: another one means that the route may be another by now.
    generation: u64,
    path: Box<str>,
    /// `None` when the limits left no route for it.
    route: Option<Arc<str>>,
}

impl Routes {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut paths = Vec::new();
        paths.resize_with(limits.paths.max(2).next_power_of_two(), || None);
        Self {
            limits,
            trees: Vec::new(),
            by_service: FxHashMap::default(),
            paths: paths.into_boxed_slice(),
            now: 0,
            generation: 0,
            overflows: 0,
        }
    }

    /// The route of a request that `resource` answered (server) or made (client): `http.route` or `url.template`.
    ///
    /// `path` is the path without its query, as `http::path_and_query` gives it; `status` that of the response. `None`
    /// for what is no path (`*`), when the status says that the server has no route for the path and nothing else
    /// told that it has, and when the limits leave no room, which [`Routes::overflows`] counts.
    ///
    /// Processes of one `service.name` share their routes.
    pub fn route(&mut self, resource: &Resource, kind: Kind, path: &str, status: Option<u16>) -> Option<Arc<str>> {
        let path = memchr::memchr2(b'?', b'#', path.as_bytes()).and_then(|end| path.get(..end)).unwrap_or(path);
        if !path.starts_with('/') {
            return None;
        }
        self.now += 1;
        let service = hash(&(&*resource.service_name, kind as u8));
        // The multiplication's high bits are its best ones, and the hasher has brought them down.
        let slot = usize::try_from(hash(&(service, path)) & (self.paths.len() as u64 - 1)).unwrap_or(0);
        for slot in [slot, slot ^ 1] {
            if let Some(Some(known)) = self.paths.get(slot)
                && known.service == service
                && let Some(tree) = self.trees.get_mut(known.tree)
                && tree.generation == known.generation
                && *known.path == *path
            {
                tree.used = self.now;
                self.overflows += u64::from(known.route.is_none() && teaches(status));
                return known.route.clone();
            }
        }
        let index = self.tree(service);
        let tree = self.trees.get_mut(index)?;
        tree.used = self.now;
        let (found, reshaped) = tree.find(path, teaches(status), &self.limits);
        if reshaped {
            self.generation += 1;
            tree.generation = self.generation;
        }
        let route = match found {
            Found::Route(route) => Some(route),
            Found::Unknown => return None,
            Found::Full => {
                self.overflows += 1;
                None
            }
        };
        if path.len() <= REMEMBERED {
            let generation = tree.generation;
            let new = Remembered { service, tree: index, generation, path: path.into(), route: route.clone() };
            let older = self.paths.get_mut(slot).and_then(|place| place.replace(new));
            if let Some(place) = self.paths.get_mut(slot ^ 1) {
                *place = older;
            }
        }
        route
    }

    /// How many requests got no route since the limits left no room.
    #[must_use]
    pub const fn overflows(&self) -> u64 {
        self.overflows
    }

    /// The index of a service's tree, made if need be.
    fn tree(&mut self, service: u64) -> usize {
        if let Some(index) = self.by_service.get(&service) {
            return *index;
        }
        self.generation += 1;
        let tree = Tree::new(service, self.generation);
        let index = if self.trees.len() < self.limits.services.max(1) {
            self.trees.push(tree);
            self.trees.len() - 1
        } else {
            let oldest = self.trees.iter().enumerate().min_by_key(|(_, tree)| tree.used).map_or(0, |(index, _)| index);
            if let Some(place) = self.trees.get_mut(oldest) {
                self.by_service.remove(&place.service);
                *place = tree;
            }
            oldest
        };
        self.by_service.insert(service, index);
        index
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// Whether a response shows that the server knows the path. Bad requests, unknown paths, methods and targets do not.
const fn teaches(status: Option<u16>) -> bool {
    !matches!(status, Some(400 | 404 | 405 | 414 | 501))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
