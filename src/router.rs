//! The router: finds the subscriptions whose patterns match an event type.
//!
//! [`Router`] returns a [`Route`]. The `trie` computes it, at a cost that does not grow with the patterns that do not
//! match; the `cache` keeps the routes of recent types. The room `event` defines patterns, and `engine` enqueues
//! deliveries for the targets of a route.

mod cache;
#[cfg(test)]
mod tests;
mod trie;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::event::{EventType, Pattern};

use cache::{Hit, RouteCache};
use trie::Trie;

/// Maps event types to the targets of all matching patterns.
///
/// `route` and `lookup` never wait for user code, and any method may be called while a `Found` exists. Targets are
/// dropped without a lock held, so a target's `Drop` may call the router too.
pub struct Router<T> {
    trie: Trie<T>,
    cache: RouteCache<T>,
    /// The number of targets.
    /// Raised before a target enters the trie and lowered after it has left, so that it is never 0 while a target is in
    /// the trie.
    len: AtomicUsize,
    /// The route of every type without subscriptions.
    empty_route: Arc<Route<T>>,
}

/// The targets for one event type, in the order of their ids.
/// A snapshot: it never changes.
pub struct Route<T> {
    targets: Box<[T]>,
}

/// A route that a caller keeps for its next event of the same type.
/// Keeps targets alive that were removed since.
#[derive(Clone)]
pub struct CachedRoute<T> {
    event_type: EventType,
    generation: u64,
    route: Arc<Route<T>>,
}

/// The route that [`Router::lookup`] returns; dereferences to it.
pub struct Found<'a, T>(Lookup<'a, T>);

enum Lookup<'a, T> {
    Empty(&'a Route<T>),
    Cached(Hit<T>),
    Computed(Arc<Route<T>>),
}

impl<T> Deref for Found<'_, T> {
    type Target = Route<T>;

    fn deref(&self) -> &Route<T> {
        match &self.0 {
            Lookup::Empty(route) => route,
            Lookup::Cached(hit) => hit.route(),
            Lookup::Computed(route) => route,
        }
    }
}

impl<T> Route<T> {
    /// The targets, in the order of their ids, which is the order of subscription.
    pub fn targets(&self) -> &[T] {
        &self.targets
    }
}

impl<T: Clone + Send + Sync + 'static> Router<T> {
    /// Creates a router without targets.
    pub fn new() -> Self {
        Self {
            trie: Trie::new(),
            cache: RouteCache::new(),
            len: AtomicUsize::new(0),
            empty_route: Arc::new(Route { targets: Box::default() }),
        }
    }

    /// Whether the router has no targets. One relaxed load.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of targets.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Adds a target. Look-ups that start after this returns include it.
    ///
    /// A pattern has one target per id: inserting the same id again replaces its target.
    pub fn insert(&self, pattern: &Pattern, id: u64, target: T) {
        self.len.fetch_add(1, Ordering::Relaxed);
        let replaced = self.trie.insert(pattern, id, target);
        self.cache.invalidate();
        if replaced.is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
            self.cache.sweep();
        }
    }

    /// Removes a target and returns it.
    /// Look-ups that start after this returns do not include it.
    ///
    /// The router keeps no reference to it; routes that callers still hold do.
    pub fn remove(&self, pattern: &Pattern, id: u64) -> Option<T> {
        let target = self.trie.remove(pattern, id)?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.cache.invalidate();
        self.cache.sweep();
        Some(target)
    }

    /// Removes and drops every target.
    pub fn clear(&self) {
        let targets = self.trie.clear();
        self.len.fetch_sub(targets.len(), Ordering::Relaxed);
        self.cache.invalidate();
        self.cache.sweep();
    }

    /// The route of an event type.
    pub fn route(&self, event_type: &EventType) -> Arc<Route<T>> {
        if self.is_empty() {
            return Arc::clone(&self.empty_route);
        }
        // Read the generation before the trie: see `cache`.
        let generation = self.cache.generation();
        match self.cache.get(event_type, generation) {
            Some(hit) => Arc::clone(hit.route()),
            None => self.compute(event_type, generation),
        }
    }

    /// Like [`Router::route`], but cheaper for a cached type.
    ///
    /// It changes no reference count, so threads that look up the same type do not contend. Hold the result briefly.
    pub fn lookup(&self, event_type: &EventType) -> Found<'_, T> {
        if self.is_empty() {
            return Found(Lookup::Empty(&self.empty_route));
        }
        let generation = self.cache.generation();
        match self.cache.get(event_type, generation) {
            Some(hit) => Found(Lookup::Cached(hit)),
            None => Found(Lookup::Computed(self.compute(event_type, generation))),
        }
    }

    /// Returns the caller's cached route.
    /// Replaces it first if it is stale or of another type.
    pub fn renew<'a>(&self, cached: &'a mut Option<CachedRoute<T>>, event_type: &EventType) -> &'a Route<T> {
        let generation = self.cache.generation();
        let is_current = |it: &CachedRoute<T>| it.generation == generation && it.event_type == *event_type;
        let current = cached.take().filter(is_current);
        let look_up = || CachedRoute { event_type: event_type.clone(), generation, route: self.route(event_type) };
        &cached.insert(current.unwrap_or_else(look_up)).route
    }

    /// Walks the trie and caches the route.
    #[cold]
    fn compute(&self, event_type: &EventType, generation: u64) -> Arc<Route<T>> {
        let targets = self.trie.find(event_type.as_str());
        let route = if targets.is_empty() {
            Arc::clone(&self.empty_route)
        } else {
            Arc::new(Route { targets: targets.into() })
        };
        self.cache.put(event_type, generation, &route);
        route
    }
}

impl<T: Clone + Send + Sync + 'static> Default for Router<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Router<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Found<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T> fmt::Debug for CachedRoute<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedRoute")
            .field("event_type", &self.event_type)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Route<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("targets", &self.targets.len()).finish()
    }
}
