//! Tests of the router: routes against a reference model, the cache, memory after removals, and calls from a target's
//! destructor. Concurrent changes are in `concurrent`.

mod concurrent;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use proptest::prelude::*;

use super::Router;
use super::cache::SLOTS;
use crate::event::{EventType, Pattern, matches};

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("a valid pattern")
}

fn event_type(text: &str) -> EventType {
    EventType::parse(text).expect("a valid event type")
}

fn ids(router: &Router<u64>, text: &str) -> Vec<u64> {
    router.route(&event_type(text)).targets().to_vec()
}

// --- Against the reference ---

#[derive(Debug, Clone)]
enum Step {
    Insert(String),
    Remove(usize),
    Route(String),
    Clear,
}

/// Two letters and up to four segments, so that patterns share prefixes and types match several of them.
fn any_pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![Just("a"), Just("b"), Just("*")];
    (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(mut segments, rest)| {
        if rest || segments.is_empty() {
            segments.push("**");
        }
        segments.join(".")
    })
}

fn any_type() -> impl Strategy<Value = String> {
    let segment = prop_oneof![4 => Just("a"), 4 => Just("b"), 1 => Just("c")];
    prop::collection::vec(segment, 1..6).prop_map(|segments| segments.join("."))
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => any_pattern().prop_map(Step::Insert),
        8 => any::<usize>().prop_map(Step::Remove),
        20 => any_type().prop_map(Step::Route),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #[test]
    fn a_route_holds_exactly_the_targets_whose_patterns_match(
        steps in prop::collection::vec(any_step(), 1..80),
        warm in any::<bool>(),
    ) {
        let router = Router::new();
        let mut model = BTreeMap::new();
        let mut next_id = 0;
        for step in steps {
            match step {
                Step::Insert(text) => {
                    router.insert(&pattern(&text), next_id, next_id);
                    model.insert(next_id, text);
                    next_id += 1;
                }
                Step::Remove(nth) if model.is_empty() => {
                    prop_assert_eq!(router.remove(&pattern("a"), nth as u64), None);
                }
                Step::Remove(nth) => {
                    let id = *model.keys().nth(nth % model.len()).expect("within bounds");
                    let text = model.remove(&id).expect("the key was just seen");
                    prop_assert_eq!(router.remove(&pattern("x.y"), id), None, "another pattern");
                    prop_assert_eq!(router.remove(&pattern(&text), id), Some(id));
                    prop_assert_eq!(router.remove(&pattern(&text), id), None, "a second time");
                }
                Step::Route(text) => {
                    let expected: Vec<u64> =
                        model.iter().filter(|(_, p)| matches(p, &text)).map(|(id, _)| *id).collect();
                    for _ in 0..=usize::from(warm) {
                        prop_assert_eq!(&ids(&router, &text), &expected, "type {}", &text);
                        let inside = router.lookup(&event_type(&text)).targets().to_vec();
                        prop_assert_eq!(&inside, &expected, "type {}", &text);
                    }
                }
                Step::Clear => {
                    router.clear();
                    model.clear();
                }
            }
            prop_assert_eq!(router.len(), model.len());
            prop_assert_eq!(router.is_empty(), model.is_empty());
        }
        for (id, text) in &model {
            router.remove(&pattern(text), *id);
        }
        prop_assert_eq!(router.trie.sizes(), (0, 0, 0));
    }
}

#[test]
fn targets_come_in_the_order_of_their_ids() {
    let router = Router::new();
    for (id, text) in [(5, "a.*"), (1, "**"), (4, "a.b"), (2, "a.**"), (3, "*"), (0, "a.b")] {
        router.insert(&pattern(text), id, id);
    }
    assert_eq!(ids(&router, "a.b"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(ids(&router, "a"), [1, 3]);
}

#[test]
fn a_wildcard_in_one_pattern_does_not_match_the_literals_of_another() {
    let router = Router::new();
    router.insert(&pattern("*.b"), 1, 1);
    router.insert(&pattern("a.*"), 2, 2);
    assert_eq!(ids(&router, "a.b"), [1, 2]);
    assert_eq!(ids(&router, "b.a"), [0; 0]);
    assert_eq!(ids(&router, "b"), [0; 0]);
}

#[test]
fn inserting_the_same_id_again_replaces_its_target() {
    let router = Router::new();
    let (first, second) = (Arc::new(1), Arc::new(2));
    let first_is_alive = Arc::downgrade(&first);
    router.insert(&pattern("a"), 7, first);
    assert_eq!(*router.route(&event_type("a")).targets()[0], 1);
    router.insert(&pattern("a"), 7, second);
    assert!(first_is_alive.upgrade().is_none());
    assert_eq!(*router.route(&event_type("a")).targets()[0], 2);
    assert_eq!(router.len(), 1);
}

// --- The cache ---

#[test]
fn a_cached_type_yields_the_same_route_until_a_target_is_added() {
    let router = Router::new();
    router.insert(&pattern("a"), 1, 1);
    let first = router.route(&event_type("a"));
    assert!(Arc::ptr_eq(&first, &router.route(&event_type("a"))));
    router.insert(&pattern("z"), 2, 2);
    assert!(!Arc::ptr_eq(&first, &router.route(&event_type("a"))));
}

#[test]
fn many_types_do_not_fill_the_cache_beyond_its_slots() {
    let router = Router::new();
    let types: Vec<_> = (0..10 * SLOTS as u64).map(|n| (n, format!("t{n}.x"))).collect();
    for (n, text) in &types {
        router.insert(&pattern(text), *n, *n);
    }
    // Several types share each slot, and each must still get its own route.
    for (n, text) in &types {
        assert_eq!(ids(&router, text), [*n]);
    }
    let filled = router.cache.filled();
    assert!((SLOTS / 2..=SLOTS).contains(&filled), "{filled} slots");
}

#[test]
fn types_without_targets_share_one_route() {
    let router = Router::new();
    router.insert(&pattern("a"), 1, 1);
    assert!(Arc::ptr_eq(&router.route(&event_type("x")), &router.route(&event_type("y.z"))));
}

#[test]
fn a_removed_target_is_released_at_once() {
    let router = Router::new();
    let removed = Arc::new("removed");
    router.insert(&pattern("a"), 1, Arc::clone(&removed));
    router.insert(&pattern("*"), 2, Arc::new("stays"));
    // Two cached routes hold it, one of them stale.
    router.route(&event_type("a"));
    router.insert(&pattern("b"), 3, Arc::new("stays"));
    drop(router.lookup(&event_type("a")));
    assert!(Arc::strong_count(&removed) > 2);

    drop(router.remove(&pattern("a"), 1));
    assert_eq!(Arc::strong_count(&removed), 1);
}

#[test]
fn clear_releases_every_target() {
    let router = Router::new();
    let target = Arc::new(());
    for id in 0..100 {
        router.insert(&pattern(&format!("a.n{}", id % 7)), id, Arc::clone(&target));
    }
    router.route(&event_type("a.n3"));
    router.clear();
    assert_eq!(Arc::strong_count(&target), 1);
    assert_eq!(router.trie.sizes(), (0, 0, 0));
    assert!(router.is_empty());
    assert!(router.route(&event_type("a.n3")).targets().is_empty());
    router.insert(&pattern("a.n3"), 1, target);
    assert_eq!(router.route(&event_type("a.n3")).targets().len(), 1);
}

// --- Memory after removals ---

#[test]
fn removed_patterns_leave_no_nodes_behind() {
    let router = Router::new();
    for n in 0..50_000 {
        let text = pattern(&format!("s{n}.*.e{n}.**"));
        router.insert(&text, n, n);
        assert_eq!(router.trie.sizes(), (2, 5, 1));
        assert_eq!(router.remove(&text, n), Some(n));
    }
    assert_eq!(router.trie.sizes(), (0, 0, 0));
}

#[test]
fn removing_a_pattern_keeps_the_nodes_that_others_need() {
    let router = Router::new();
    for (id, text) in [(1, "a.b"), (2, "a.b.a"), (3, "a.*"), (4, "a.**"), (5, "b.b")] {
        router.insert(&pattern(text), id, id);
    }
    for (id, text, left) in [
        (2, "a.b.a", [1, 3, 4].as_slice()),
        (3, "a.*", &[1, 4]),
        (5, "b.b", &[1, 4]),
        (4, "a.**", &[1]),
        (1, "a.b", &[]),
    ] {
        assert_eq!(router.remove(&pattern(text), id), Some(id));
        assert_eq!(ids(&router, "a.b"), left);
    }
    assert_eq!(router.trie.sizes(), (0, 0, 0));
}

// --- Reentrant calls ---

#[test]
fn the_router_may_be_changed_while_a_route_is_held() {
    let router = Router::new();
    router.insert(&pattern("a"), 1, 1);
    for _ in 0..2 {
        let route = router.lookup(&event_type("a"));
        router.insert(&pattern("*"), 2, 2);
        assert_eq!(ids(&router, "a"), [1, 2]);
        assert_eq!(router.remove(&pattern("*"), 2), Some(2));
        assert_eq!(route.targets(), [1], "a snapshot");
    }
}

/// A target whose destructor calls the router, like a handler that captures values which unsubscribe when dropped.
struct Caller {
    router: Weak<Router<Arc<Caller>>>,
    ended: Arc<AtomicU64>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(router) = self.router.upgrade() {
            router.remove(&pattern("x.y"), 99);
            router.route(&event_type("a"));
            router.clear();
        }
        self.ended.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_target_may_call_the_router_when_it_is_dropped() {
    let ended = Arc::new(AtomicU64::new(0));
    let router = Arc::new(Router::new());
    let insert = |id| {
        let target = Caller { router: Arc::downgrade(&router), ended: Arc::clone(&ended) };
        router.insert(&pattern("a"), id, Arc::new(target));
    };
    insert(1);
    insert(1);
    router.route(&event_type("a"));
    drop(router.remove(&pattern("a"), 1));
    // Two targets that the cache holds as well, and two that only the trie holds.
    insert(2);
    insert(3);
    router.route(&event_type("a"));
    router.clear();
    insert(4);
    insert(5);
    router.clear();
    assert_eq!(ended.load(SeqCst), 6);
}
