//! The router: from an event's type to the subscriptions that want it.
//!
//! What lives here: [`Router`], and [`Route`], the answer. Below it: `trie` finds the answer, at a cost that does
//! not grow with the subscriptions that do not match, and `cache` remembers it for the types seen lately.
//! What does not: what a pattern means (`pattern`), and what happens to an event at its targets (`dispatch`).

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

/// The targets of every pattern.
///
/// `route` and `lookup` never wait for user code, and any method may be called while a `Found` is held.
/// Targets are dropped with no lock held, so a target's `Drop` may call the router too.
pub struct Router<T> {
    trie: Trie<T>,
    cache: RouteCache<T>,
    /// How many targets there are. Raised before the trie gets a target and lowered after it lost one, so that it
    /// is never 0 while a target is in the trie.
    len: AtomicUsize,
    /// The answer for every type that nobody wants.
    nobody: Arc<Route<T>>,
}

/// The targets that want one event type, in the order of their ids. A snapshot: it does not change.
pub struct Route<T> {
    targets: Box<[T]>,
}

/// A route that its holder keeps for the next event of the same type. It keeps targets that were removed since alive.
#[derive(Clone)]
pub struct CachedRoute<T> {
    event_type: EventType,
    generation: u64,
    route: Arc<Route<T>>,
}

/// A route that was looked up, for as long as this is held.
pub struct Found<'a, T>(Answer<'a, T>);

enum Answer<'a, T> {
    Nobody(&'a Route<T>),
    Hit(Hit<T>),
    Walked(Arc<Route<T>>),
}

impl<T> Deref for Found<'_, T> {
    type Target = Route<T>;

    fn deref(&self) -> &Route<T> {
        match &self.0 {
            Answer::Nobody(route) => route,
            Answer::Hit(hit) => hit.route(),
            Answer::Walked(route) => route,
        }
    }
}

impl<T> Route<T> {
    /// The targets, in the order of their ids, that is, in the order in which they subscribed.
    pub fn targets(&self) -> &[T] {
        &self.targets
    }
}

impl<T: Clone + Send + Sync + 'static> Router<T> {
    /// A router without targets.
    pub fn new() -> Self {
        Self {
            trie: Trie::new(),
            cache: RouteCache::new(),
            len: AtomicUsize::new(0),
            nobody: Arc::new(Route { targets: Box::default() }),
        }
    }

    /// Whether nobody is subscribed to anything. One relaxed load.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many targets there are.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Adds a target. Routes that start after this returns include it.
    ///
    /// An id stands for one target of a pattern: given again, the new target takes the place of the old one.
    pub fn insert(&self, pattern: &Pattern, id: u64, target: T) {
        self.len.fetch_add(1, Ordering::Relaxed);
        let replaced = self.trie.insert(pattern, id, target);
        self.cache.outdate();
        if replaced.is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
            self.cache.sweep();
        }
    }

    /// Takes a target out. Routes that start after this returns do not include it, and nothing in the router
    /// holds on to it: only the routes that callers still have.
    pub fn remove(&self, pattern: &Pattern, id: u64) -> Option<T> {
        let target = self.trie.remove(pattern, id)?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.cache.outdate();
        self.cache.sweep();
        Some(target)
    }

    /// Takes every target out and drops it.
    pub fn clear(&self) {
        let targets = self.trie.clear();
        self.len.fetch_sub(targets.len(), Ordering::Relaxed);
        self.cache.outdate();
        self.cache.sweep();
    }

    /// The targets that want events of this type.
    pub fn route(&self, event_type: &EventType) -> Arc<Route<T>> {
        if self.is_empty() {
            return Arc::clone(&self.nobody);
        }
        // The generation is read before the trie: see `cache`.
        let generation = self.cache.generation();
        match self.cache.get(event_type, generation) {
            Some(hit) => Arc::clone(hit.route()),
            None => self.find(event_type, generation),
        }
    }

    /// Like [`Router::route`], but cheaper when the type was seen lately: no reference count changes, so threads that
    /// route the same type do not disturb each other. To be held for a short while.
    pub fn lookup(&self, event_type: &EventType) -> Found<'_, T> {
        if self.is_empty() {
            return Found(Answer::Nobody(&self.nobody));
        }
        let generation = self.cache.generation();
        match self.cache.get(event_type, generation) {
            Some(hit) => Found(Answer::Hit(hit)),
            None => Found(Answer::Walked(self.find(event_type, generation))),
        }
    }

    /// The route that is kept, if it is of this type and no target came or went since; else it is looked up and kept.
    pub fn renew<'a>(&self, kept: &'a mut Option<CachedRoute<T>>, event_type: &EventType) -> &'a Route<T> {
        let generation = self.cache.generation();
        let kept_holds = |kept: &CachedRoute<T>| kept.generation == generation && kept.event_type == *event_type;
        let current = kept.take().filter(kept_holds);
        let lookup = || CachedRoute { event_type: event_type.clone(), generation, route: self.route(event_type) };
        &kept.insert(current.unwrap_or_else(lookup)).route
    }

    /// Walks the trie and remembers the answer.
    #[cold]
    fn find(&self, event_type: &EventType, generation: u64) -> Arc<Route<T>> {
        let targets = self.trie.find(event_type.as_str());
        let route =
            if targets.is_empty() { Arc::clone(&self.nobody) } else { Arc::new(Route { targets: targets.into() }) };
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
