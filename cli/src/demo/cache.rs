//! A cache of products, invalidated by events.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::shop::{Product, Undone};

/// Products as they were read. An event of a newer version removes them.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Mutex<HashMap<i64, Entry>>,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) invalidations: AtomicU64,
}

#[derive(Debug, Default)]
struct Entry {
    /// The newest version known from events. A concurrent reader may return with an older one, which is not cached.
    newest: i64,
    product: Option<Product>,
}

impl Cache {
    /// Returns the product from the cache, or loads it.
    pub(super) fn read(&self, id: i64, load: impl FnOnce() -> Result<Product, Undone>) -> Result<Product, Undone> {
        let cached = self.entries().get(&id).and_then(|entry| entry.product.clone());
        if let Some(product) = cached {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(product);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let product = load()?;
        let mut entries = self.entries();
        let entry = entries.entry(id).or_default();
        if product.version >= entry.newest {
            entry.product = Some(product.clone());
        }
        Ok(product)
    }

    /// Records the version of a product, and removes an older cached one.
    pub(super) fn invalidate(&self, id: i64, version: i64) {
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.entries();
        let entry = entries.entry(id).or_default();
        entry.newest = entry.newest.max(version);
        entry.product.take_if(|product| product.version < version);
    }

    /// All cached products.
    pub(super) fn products(&self) -> Vec<Product> {
        self.entries().values().filter_map(|entry| entry.product.clone()).collect()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<i64, Entry>> {
        // A panic cannot leave the map inconsistent, so a poisoned lock is safe to use.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(version: i64) -> Product {
        Product { id: 1, name: "tea".to_owned(), price: 100, stock: 5, version }
    }

    fn versions(cache: &Cache) -> Vec<i64> {
        cache.products().iter().map(|product| product.version).collect()
    }

    #[test]
    fn a_product_older_than_the_last_event_is_not_cached() {
        let cache = Cache::default();
        let late = cache.read(1, || {
            cache.invalidate(1, 2);
            Ok(product(1))
        });
        assert_eq!(late.expect("it was read").version, 1);
        assert_eq!(versions(&cache), [0; 0]);
        cache.read(1, || Ok(product(2))).expect("it was read");
        assert_eq!(versions(&cache), [2]);
    }

    #[test]
    fn an_event_removes_only_an_older_product() {
        let cache = Cache::default();
        cache.read(1, || Ok(product(3))).expect("it was read");
        cache.invalidate(1, 3);
        assert_eq!(versions(&cache), [3]);
        cache.read(1, || Err("it is cached".into())).expect("it is cached");
        cache.invalidate(1, 4);
        assert_eq!(versions(&cache), [0; 0]);
    }
}
