//! The pattern trie: every pattern with its targets, walked segment by segment.
//!
//! What lives here: three flat concurrent maps (a map inside each node would cost far more memory), and the two
//! directions through them: a walk that follows all patterns at once, and changes, made by one thread at a time.
//! What does not: remembering answers (`cache`).
//!
//! A walk waits for nobody but a shard's short lock: each look-up copies what it needs and lets go before the
//! next one. It may therefore see a change half made. That does no harm: a node or symbol number is never given
//! out twice, so a walk that holds an old one ends nowhere instead of at another pattern; and a change to one
//! pattern takes away nothing that another one needs.

use std::hash::{BuildHasherDefault, RandomState};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::base::NumberHasher;
use crate::event::{self, Pattern};

/// Shards of each map. More than the default, so that the growth of one holds up fewer walks, and shorter.
const SHARDS: usize = 64;

/// The symbols of the wildcards; those of literal segments follow.
const ONE: u64 = 0;
const REST: u64 = 1;
const FIRST_LITERAL: u64 = 2;

/// Where the root node is kept: under a parent that does not exist, as node numbers start at 1.
const ROOT: Edge = Edge { parent: 0, symbol: 0 };

pub(super) struct Trie<T> {
    /// The literal segments in use.
    symbols: DashMap<Box<str>, Symbol, RandomState>,
    /// The nodes, each under the edge that leads to it.
    nodes: DashMap<Edge, Node, BuildHasherDefault<NumberHasher>>,
    /// The targets of the patterns that end at a node, by its number, in the order of their ids.
    targets: DashMap<u64, Vec<Target<T>>, BuildHasherDefault<NumberHasher>>,
    /// Held by whoever changes the trie; walks never take it.
    numbers: Mutex<Numbers>,
}

#[derive(Clone, Copy)]
struct Symbol {
    number: u64,
    /// How many edges carry it.
    edges: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Edge {
    parent: u64,
    symbol: u64,
}

/// What a walk must know of a node, so that it looks up only what is there.
#[derive(Clone, Copy, Default)]
struct Node {
    number: u64,
    /// How many children have a literal segment.
    literals: u32,
    /// Whether there is a child for `*`.
    one: bool,
    /// Whether there is a child for `**`.
    rest: bool,
    /// Whether patterns end here.
    ends: bool,
}

#[derive(Clone)]
struct Target<T> {
    id: u64,
    value: T,
}

/// The next numbers to give out.
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

    /// Adds a target, and gives back the one that had this id before.
    pub(super) fn insert(&self, pattern: &Pattern, id: u64, value: T) -> Option<T> {
        let mut numbers = self.numbers.lock();
        let mut edge = ROOT;
        let mut node = match self.node(edge) {
            Some(root) => root.number,
            None => self.grow(edge, &mut numbers),
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
                    let symbol = self.acquire(segment, &mut numbers);
                    let child = Edge { parent: node, symbol };
                    let number = self.grow(child, &mut numbers);
                    self.change(edge, |parent| parent.attach(symbol));
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
        self.change(edge, |node| node.ends = true);
        replaced
    }

    /// Takes a target out, and with it every node and symbol that served it alone.
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

    /// Takes everything out and returns it, so that the caller drops it when no lock is held.
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
    /// All patterns are followed at once, one segment at a time: `level` holds the nodes that the segments so far
    /// lead to. Each node is reached on one path only, so nothing is found twice, and the work is bounded by the
    /// nodes that match a prefix of the type.
    pub(super) fn find(&self, event_type: &str) -> Vec<T> {
        let mut found = Vec::new();
        let mut level: Vec<Node> = self.node(ROOT).into_iter().collect();
        let mut next = Vec::new();
        for segment in event_type.split('.') {
            let mut literal = None;
            for node in level.drain(..) {
                let child = |symbol| self.node(Edge { parent: node.number, symbol });
                if node.rest {
                    // At least this segment remains, and that is all that `**` asks.
                    self.collect(child(REST), &mut found);
                }
                if node.one {
                    next.extend(child(ONE));
                }
                if node.literals > 0 {
                    // Looked up once for the whole level, and only if a node asks.
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
            && node.ends
            && let Some(list) = self.targets.get(&node.number)
        {
            found.extend_from_slice(&list);
        }
    }

    /// Makes the node at the end of `edge`.
    fn grow(&self, edge: Edge, numbers: &mut Numbers) -> u64 {
        let number = numbers.node;
        numbers.node += 1;
        self.nodes.insert(edge, Node { number, ..Node::default() });
        number
    }

    /// Takes away the nodes that nothing needs any more, from the end of the path upwards.
    fn prune(&self, path: &[(Edge, &str)]) {
        let mut gone = None;
        for &(edge, segment) in path.iter().rev() {
            let node = self.change(edge, |node| match gone {
                None => node.ends = false,
                Some(symbol) => node.detach(symbol),
            });
            if !node.is_some_and(Node::is_bare) {
                break;
            }
            self.nodes.remove(&edge);
            if edge != ROOT {
                self.release(segment);
            }
            gone = Some(edge.symbol);
        }
    }

    fn node(&self, edge: Edge) -> Option<Node> {
        self.nodes.get(&edge).map(|node| *node)
    }

    /// Changes a node in place, and returns it as it is now.
    fn change(&self, edge: Edge, change: impl FnOnce(&mut Node)) -> Option<Node> {
        let mut node = self.nodes.get_mut(&edge)?;
        change(&mut node);
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

    /// The symbol of an event type's segment. If there is none, no pattern holds it.
    fn symbol_of_literal(&self, segment: &str) -> Option<u64> {
        self.symbols.get(segment).map(|symbol| symbol.number)
    }

    /// The symbol of a pattern's segment, for one more edge.
    fn acquire(&self, segment: &str, numbers: &mut Numbers) -> u64 {
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

    /// One edge fewer carries this segment. Wildcards have fixed symbols and are in no map.
    fn release(&self, segment: &str) {
        self.symbols.remove_if_mut(segment, |_, symbol| {
            symbol.edges -= 1;
            symbol.edges == 0
        });
    }

    /// How many symbols, nodes and lists of targets there are.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.symbols.len(), self.nodes.len(), self.targets.len())
    }
}

impl Node {
    fn attach(&mut self, symbol: u64) {
        match symbol {
            ONE => self.one = true,
            REST => self.rest = true,
            _ => self.literals += 1,
        }
    }

    fn detach(&mut self, symbol: u64) {
        match symbol {
            ONE => self.one = false,
            REST => self.rest = false,
            _ => self.literals -= 1,
        }
    }

    fn is_bare(self) -> bool {
        self.literals == 0 && !self.one && !self.rest && !self.ends
    }
}

/// The segments under which a pattern is filed. A lone `*` means what a lone `**` means.
fn segments(pattern: &Pattern) -> std::str::Split<'_, char> {
    let text = if pattern.is_match_all() { event::REST } else { pattern.as_str() };
    text.split('.')
}
