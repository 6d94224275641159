//! Look-ups while the trie changes: fixed interleavings first, then racing threads.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::{hint, thread};

use super::{event_type, pattern};
use crate::event::matches;
use crate::router::Router;

// --- Fixed interleavings ---

type OnClone = Box<dyn FnOnce() + Send>;

/// A target that runs a function the first time it is cloned. A walk clones it, so the function runs during the walk.
struct Hooked {
    id: u64,
    on_clone: Arc<Mutex<Option<OnClone>>>,
}

impl Hooked {
    fn new(id: u64) -> Self {
        Self { id, on_clone: Arc::default() }
    }
}

impl Clone for Hooked {
    fn clone(&self) -> Self {
        let on_clone = self.on_clone.lock().expect("no function panicked").take();
        if let Some(on_clone) = on_clone {
            on_clone();
        }
        Self { id: self.id, on_clone: Arc::clone(&self.on_clone) }
    }
}

fn ids(router: &Router<Hooked>, text: &str) -> Vec<u64> {
    router.route(&event_type(text)).targets().iter().map(|target| target.id).collect()
}

/// A router with these patterns, numbered from 0, that calls `change` when a walk reaches the target of the last one.
fn router_changed_during_walk(patterns: &[&str], change: fn(&Router<Hooked>)) -> Arc<Router<Hooked>> {
    let router = Arc::new(Router::new());
    let last = Hooked::new(patterns.len() as u64 - 1);
    let (weak, slot) = (Arc::downgrade(&router), Arc::clone(&last.on_clone));
    for (id, text) in (0..).zip(&patterns[..patterns.len() - 1]) {
        router.insert(&pattern(text), id, Hooked::new(id));
    }
    router.insert(&pattern(patterns[patterns.len() - 1]), last.id, last);
    *slot.lock().expect("no function panicked") = Some(Box::new(move || {
        change(&weak.upgrade().expect("the test holds the router"));
    }));
    router
}

#[test]
fn a_removal_during_a_walk_leaves_no_stale_route_in_the_cache() {
    // The walk collects `**` first. `**` is removed when the walk reaches `a.**`.
    let router = router_changed_during_walk(&["**", "a.**"], |router| {
        assert!(router.remove(&pattern("**"), 0).is_some());
    });
    assert_eq!(ids(&router, "a.b"), [0, 1], "this walk began before the removal");
    assert_eq!(router.cache.filled(), 0, "its route must not stay");
    assert_eq!(ids(&router, "a.b"), [1]);
}

#[test]
fn a_walk_finds_no_targets_at_a_removed_node() {
    // The walk has reached `*.x` and `a.x` when the second node is removed and others are added.
    let router = router_changed_during_walk(&["a.x.b", "*.x.**"], |router| {
        assert!(router.remove(&pattern("a.x.b"), 0).is_some());
        router.insert(&pattern("z.y.b"), 2, Hooked::new(2));
    });
    assert_eq!(ids(&router, "a.x.b"), [1]);
    assert_eq!(ids(&router, "z.y.b"), [2]);
}

// --- Threads ---

struct Probe {
    pattern: &'static str,
    /// Whether it is never removed.
    fixed: bool,
    /// The reading of the shared clock after its removal returned.
    removed_at: AtomicU64,
}

const FIXED: [&str; 4] = ["a.b", "a.*", "*.b", "**"];
const CHANGING: [&str; 8] = ["a.b", "a.c", "a.*", "*.c", "a.b.c", "a.**", "b.**", "*"];
const TYPES: [&str; 6] = ["a.b", "a.c", "b.b", "a.b.c", "b.c.a", "c"];

#[test]
fn concurrent_changes_affect_only_routes_that_they_match() {
    let router: Router<Arc<Probe>> = Router::new();
    let clock = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let removed = Mutex::new(Vec::new());
    let probe = |pattern, fixed| Arc::new(Probe { pattern, fixed, removed_at: AtomicU64::new(u64::MAX) });
    for (id, text) in FIXED.iter().enumerate() {
        router.insert(&pattern(text), id as u64, probe(text, true));
    }

    thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (router, clock, removed) = (&router, &clock, &removed);
                scope.spawn(move || {
                    for n in 0..4_000_u64 {
                        let id = 1_000 + n * 2 + writer;
                        let target = probe(CHANGING[(n * 5 + writer) as usize % CHANGING.len()], false);
                        let text = pattern(target.pattern);
                        router.insert(&text, id, Arc::clone(&target));
                        let taken = router.remove(&text, id).expect("inserted just now");
                        target.removed_at.store(clock.fetch_add(1, SeqCst) + 1, SeqCst);
                        assert!(Arc::ptr_eq(&taken, &target));
                        removed.lock().expect("no writer panicked").push(target);
                    }
                })
            })
            .collect();
        for reader in 0..2 {
            let (router, clock, stop) = (&router, &clock, &stop);
            let types = TYPES.map(event_type);
            scope.spawn(move || {
                for turn in reader.. {
                    if stop.load(SeqCst) {
                        break;
                    }
                    let event_type = &types[turn % types.len()];
                    let began = clock.load(SeqCst);
                    let route = router.route(event_type);
                    let fixed = FIXED.iter().filter(|text| matches(text, event_type.as_str())).count();
                    let mut seen = 0;
                    for target in route.targets() {
                        assert!(matches(target.pattern, event_type.as_str()), "{}", target.pattern);
                        assert!(target.removed_at.load(SeqCst) > began, "{} was removed", target.pattern);
                        seen += usize::from(target.fixed);
                    }
                    assert_eq!(seen, fixed, "a target that stays is missing");
                }
            });
        }
        let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stop.store(true, SeqCst);
        assert!(outcomes.iter().all(Result::is_ok));
    });

    assert_eq!(router.len(), FIXED.len());
    for target in removed.into_inner().expect("no writer panicked") {
        assert_eq!(Arc::strong_count(&target), 1, "{} is still held", target.pattern);
    }
}

#[test]
fn a_target_removed_during_a_lookup_is_released() {
    const ROUNDS: usize = 20_000;
    let router: Router<Arc<usize>> = Router::new();
    let (text, of_type) = (pattern("a.b"), event_type("a.b"));
    // More targets, to make a walk take longer.
    for id in 1..50 {
        router.insert(&pattern("a.*"), id, Arc::new(0));
    }
    // Both threads count their steps and wait for each other, so the look-up and the removal of a round begin together.
    // The removal starts a little later in each round, over 200 rounds.
    let (router_step, remover_step) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let meet = |mine: &AtomicUsize, other: &AtomicUsize| {
        let step = mine.fetch_add(1, SeqCst) + 1;
        let mut turns = 0;
        while other.load(SeqCst) < step {
            turns += 1;
            if turns % 1_000 == 0 { thread::yield_now() } else { hint::spin_loop() }
        }
    };

    let mut held = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                meet(&router_step, &remover_step);
                drop(router.lookup(&of_type));
                meet(&router_step, &remover_step);
            }
        });
        for round in 0..ROUNDS {
            let target = Arc::new(round);
            router.insert(&text, 1_000, Arc::clone(&target));
            meet(&remover_step, &router_step);
            for _ in 0..round % 200 {
                hint::spin_loop();
            }
            drop(router.remove(&text, 1_000));
            meet(&remover_step, &router_step);
            held += usize::from(Arc::strong_count(&target) > 1);
            let found = router.lookup(&of_type).targets().iter().any(|t| Arc::ptr_eq(t, &target));
            held += usize::from(found);
        }
    });
    assert_eq!(held, 0, "targets were held or found after their removal");
}
