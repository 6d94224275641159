//! The pattern trie: all patterns with their targets, walked segment by segment.
//!
//! It consists of three flat concurrent maps; a map inside each node would cost far more memory. Walks follow all
//! patterns at once, from any thread. One thread at a time changes the trie.
//!
//! A walk waits only for the short lock of a shard: each look-up copies what it needs and releases the lock before the
//! next one. A walk may therefore see half of a change, which is harmless. Node and symbol numbers are never reused, so
//! a walk with an old number finds no node instead of one of another pattern; and a change to one pattern removes
//! nothing that another one needs.

use std::hash::{BuildHasherDefault, RandomState};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::base::NumberHasher;
use crate::event::{self, Pattern};

/// Shards of each map. More than the default, so that the growth of a shard delays fewer walks, and for less time.
const SHARDS: usize = 64;

/// The symbols of the wildcards; those of literal segments follow.
const ONE: u64 = 0;
const REST: u64 = 1;
const FIRST_LITERAL: u64 = 2;

/// The edge to the root node. Its parent does not exist: node numbers start at 1.
const ROOT: Edge = Edge { parent: 0, symbol: 0 };

pub(super) struct Trie<T> {
    /// The literal segments in use.
    symbols: DashMap<Box<str>, Symbol, RandomState>,
    /// The nodes, by the edge that leads to them.
    nodes: DashMap<Edge, Node, BuildHasherDefault<NumberHasher>>,
    /// The targets of the pattern that ends at a node, by node number, in the order of their ids.
    targets: DashMap<u64, Vec<Target<T>>, BuildHasherDefault<NumberHasher>>,
    /// Locked during each change of the trie. Walks never lock it.
    numbers: Mutex<Numbers>,
}

#[derive(Clone, Copy)]
struct Symbol {
    number: u64,
    /// The number of edges with this symbol.
    edges: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Edge {
    parent: u64,
    symbol: u64,
}

/// A node, with flags for its children, so that a walk looks up only children that exist.
#[derive(Clone, Copy, Default)]
struct Node {
    number: u64,
    /// The number of children with a literal segment.
    literals: u32,
    /// Whether it has a child for `*`.
    has_one: bool,
    /// Whether it has a child for `**`.
    has_rest: bool,
    /// Whether a pattern ends here.
    has_targets: bool,
}

#[derive(Clone)]
struct Target<T> {
    id: u64,
    value: T,
}

/// The next unused numbers.
struct Numbers {
    node: u64,
    symbol: u64,
}

impl<T: Clone + Send + Sync + 'static> Trie<T> {
    pub(super) fn new() -> Self {
        Self {
            symbols: DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
            nodes: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), SHARDS),
            targets: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), SHARDS),
            numbers: Mutex::new(Numbers { node: 1, symbol: FIRST_LITERAL }),
        }
    }

    /// Adds a target, and returns the one that had this id before.
    pub(super) fn insert(&self, pattern: &Pattern, id: u64, value: T) -> Option<T> {
        let mut numbers = self.numbers.lock();
        let mut edge = ROOT;
        let mut node = match self.node(edge) {
            Some(root) => root.number,
            None => self.add_node(edge, &mut numbers),
        };
        for segment in segments(pattern) {
            let symbol = self.symbol(segment);
            let existing = symbol.and_then(|symbol| {
                let child = Edge { parent: node, symbol };
                Some((child, self.node(child)?))
            });
            (edge, node) = match existing {
                Some((child, node)) => (child, node.number),
                None => {
                    let symbol = self.acquire_symbol(segment, &mut numbers);
                    let child = Edge { parent: node, symbol };
                    let number = self.add_node(child, &mut numbers);
                    self.update_node(edge, |parent| parent.attach(symbol));
                    (child, number)
                }
            };
        }

        let target = Target { id, value };
        let mut list = self.targets.entry(node).or_default();
        let replaced = match list.binary_search_by_key(&id, |target| target.id) {
            Ok(index) => Some(std::mem::replace(&mut list[index], target).value),
            Err(index) => {
                list.insert(index, target);
                None
            }
        };
        drop(list);
        self.update_node(edge, |node| node.has_targets = true);
        replaced
    }

    /// Removes a target, and every node and symbol that only its pattern needed.
    pub(super) fn remove(&self, pattern: &Pattern, id: u64) -> Option<T> {
        let _one_at_a_time = self.numbers.lock();
        let mut path = vec![(ROOT, "")];
        let mut node = self.node(ROOT)?.number;
        for segment in segments(pattern) {
            let edge = Edge { parent: node, symbol: self.symbol(segment)? };
            node = self.node(edge)?.number;
            path.push((edge, segment));
        }

        let mut list = self.targets.get_mut(&node)?;
        let index = list.binary_search_by_key(&id, |target| target.id).ok()?;
        let removed = list.remove(index).value;
        let is_last = list.is_empty();
        drop(list);
        if is_last {
            self.targets.remove(&node);
            self.prune(&path);
        }
        Some(removed)
    }

    /// Removes and returns all targets, so that the caller drops them without a lock held.
    pub(super) fn clear(&self) -> Vec<T> {
        let _one_at_a_time = self.numbers.lock();
        let mut removed = Vec::new();
        self.targets.retain(|_, list| {
            removed.extend(list.drain(..).map(|target| target.value));
            false
        });
        self.nodes.clear();
        self.symbols.clear();
        removed
    }

    /// The targets of every pattern that matches, in the order of their ids.
    ///
    /// Follows all patterns at once, segment by segment: `level` contains the nodes that the segments so far lead to.
    /// Each node is on one path only, so no target is found twice, and the work is bounded by the nodes that match a
    /// prefix of the type.
    pub(super) fn find(&self, event_type: &str) -> Vec<T> {
        let mut found = Vec::new();
        let mut level: Vec<Node> = self.node(ROOT).into_iter().collect();
        let mut next = Vec::new();
        for segment in event_type.split('.') {
            let mut literal = None;
            for node in level.drain(..) {
                let child = |symbol| self.node(Edge { parent: node.number, symbol });
                if node.has_rest {
                    // At least this segment remains, so `**` matches.
                    self.collect(child(REST), &mut found);
                }
                if node.has_one {
                    next.extend(child(ONE));
                }
                if node.literals > 0 {
                    // Looked up at most once per level.
                    let symbol = *literal.get_or_insert_with(|| self.symbol_of_literal(segment));
                    next.extend(symbol.and_then(child));
                }
            }
            std::mem::swap(&mut level, &mut next);
            if level.is_empty() {
                break;
            }
        }
        for node in level {
            self.collect(Some(node), &mut found);
        }
        found.sort_unstable_by_key(|target| target.id);
        found.into_iter().map(|target| target.value).collect()
    }

    fn collect(&self, node: Option<Node>, found: &mut Vec<Target<T>>) {
        if let Some(node) = node
            && node.has_targets
            && let Some(list) = self.targets.get(&node.number)
        {
            found.extend_from_slice(&list);
        }
    }

    /// Adds the node at the end of `edge`, and returns its number.
    fn add_node(&self, edge: Edge, numbers: &mut Numbers) -> u64 {
        let number = numbers.node;
        numbers.node += 1;
        self.nodes.insert(edge, Node { number, ..Node::default() });
        number
    }

    /// Removes the nodes that no pattern needs any more, from the end of the path upwards.
    fn prune(&self, path: &[(Edge, &str)]) {
        let mut removed_child = None;
        for &(edge, segment) in path.iter().rev() {
            let node = self.update_node(edge, |node| match removed_child {
                None => node.has_targets = false,
                Some(symbol) => node.detach(symbol),
            });
            if !node.is_some_and(Node::is_bare) {
                break;
            }
            self.nodes.remove(&edge);
            if edge != ROOT {
                self.release_symbol(segment);
            }
            removed_child = Some(edge.symbol);
        }
    }

    fn node(&self, edge: Edge) -> Option<Node> {
        self.nodes.get(&edge).map(|node| *node)
    }

    /// Updates a node in place, and returns the new value.
    fn update_node(&self, edge: Edge, update: impl FnOnce(&mut Node)) -> Option<Node> {
        let mut node = self.nodes.get_mut(&edge)?;
        update(&mut node);
        Some(*node)
    }

    /// The symbol of a pattern's segment.
    fn symbol(&self, segment: &str) -> Option<u64> {
        match segment {
            event::ONE => Some(ONE),
            event::REST => Some(REST),
            literal => self.symbol_of_literal(literal),
        }
    }

    /// The symbol of an event type's segment; `None` if no pattern contains the segment.
    fn symbol_of_literal(&self, segment: &str) -> Option<u64> {
        self.symbols.get(segment).map(|symbol| symbol.number)
    }

    /// The symbol of a pattern's segment, counted for one more edge.
    fn acquire_symbol(&self, segment: &str, numbers: &mut Numbers) -> u64 {
        match segment {
            event::ONE => return ONE,
            event::REST => return REST,
            _ => {}
        }
        if let Some(mut symbol) = self.symbols.get_mut(segment) {
            symbol.edges += 1;
            return symbol.number;
        }
        let number = numbers.symbol;
        numbers.symbol += 1;
        self.symbols.insert(segment.into(), Symbol { number, edges: 1 });
        number
    }

    /// Counts one edge less for a segment's symbol.
    /// Wildcards have fixed symbols and are not in the map.
    fn release_symbol(&self, segment: &str) {
        self.symbols.remove_if_mut(segment, |_, symbol| {
            symbol.edges -= 1;
            symbol.edges == 0
        });
    }

    /// The numbers of symbols, nodes and target lists.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.symbols.len(), self.nodes.len(), self.targets.len())
    }
}

impl Node {
    fn attach(&mut self, symbol: u64) {
        match symbol {
            ONE => self.has_one = true,
            REST => self.has_rest = true,
            _ => self.literals += 1,
        }
    }

    fn detach(&mut self, symbol: u64) {
        match symbol {
            ONE => self.has_one = false,
            REST => self.has_rest = false,
            _ => self.literals -= 1,
        }
    }

    fn is_bare(self) -> bool {
        self.literals == 0 && !self.has_one && !self.has_rest && !self.has_targets
    }
}

/// The segments under which a pattern is stored. A lone `*` is stored as `**`, which matches the same types.
fn segments(pattern: &Pattern) -> std::str::Split<'_, char> {
    let text = if pattern.is_match_all() { event::REST } else { pattern.as_str() };
    text.split('.')
}
