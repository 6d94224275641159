//! The store against a model of its rule, under random sequences of publish, get, settle and republish.
//!
//! The rule: events leave the ring in publish order while more than `max_events` are terminal, in the ring and in the
//! older generation together. If one is open, failed, or was read by `get` since its publication, it moves to the older
//! generation, an LRU in which `get` is the use and whose terminal part holds at most half of `max_events`; else it is
//! evicted. Open events are never evicted.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};

use eventbroker::query::Filter;
use eventbroker::{
    Broker, Delivery, Event, EventId, EventStream, HandlerError, Source, Status, StreamItem, SubscribeOptions,
};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::support::{Settlements, event};

/// How the deliveries of an event end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Without a subscription: completed immediately.
    Plain,
    /// Fails permanently at the first attempt, and causes a notice.
    Failing,
    /// Open until `Step::OpenGate`.
    Open,
}

/// The origin of an event's id.
#[derive(Debug, Clone)]
enum IdForm {
    New,
    /// Generated in this process long before the publish.
    Early(usize),
    Text(u8),
    OtherUuid(u128),
}

#[derive(Debug, Clone)]
enum Step {
    Publish(Kind, IdForm),
    /// Publishes one of the events so far again, the `n`th from the end.
    Republish(usize),
    Get(usize),
    OpenGate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![3 => Just(Kind::Plain), 2 => Just(Kind::Failing), 2 => Just(Kind::Open)];
    let id = prop_oneof![
        6 => Just(IdForm::New),
        2 => (0..EARLY_IDS).prop_map(IdForm::Early),
        1 => any::<u8>().prop_map(IdForm::Text),
        1 => any::<u128>().prop_map(IdForm::OtherUuid),
    ];
    let step = prop_oneof![
        8 => (kind, id).prop_map(|(kind, id)| Step::Publish(kind, id)),
        3 => (0..30_usize).prop_map(Step::Republish),
        4 => (0..30_usize).prop_map(Step::Get),
        2 => Just(Step::OpenGate),
    ];
    prop::collection::vec(step, 1..90)
}

const EARLY_IDS: usize = 150;

/// The rule in its plainest form. An event is identified by its index in `Run::events`.
struct Model {
    max_events: usize,
    /// In publish order.
    ring: VecDeque<Entry>,
    aged_open: Vec<Entry>,
    /// Least recently used first.
    aged_terminal: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    event: usize,
    state: State,
    read: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Open,
    Completed,
    Failed,
}

impl Model {
    fn new(max_events: usize) -> Self {
        Self { max_events, ring: VecDeque::new(), aged_open: Vec::new(), aged_terminal: Vec::new() }
    }

    fn publish(&mut self, event: usize, state: State) {
        self.ring.push_back(Entry { event, state, read: false });
        self.shorten();
    }

    fn shorten(&mut self) {
        let terminal = |ring: &VecDeque<Entry>| ring.iter().filter(|entry| entry.state != State::Open).count();
        while terminal(&self.ring) + self.aged_terminal.len() > self.max_events {
            let entry = self.ring.pop_front().expect("the older generation holds at most half");
            if entry.state == State::Open {
                self.aged_open.push(entry);
            } else if entry.state == State::Failed || entry.read {
                self.age(entry);
            }
        }
    }

    fn age(&mut self, entry: Entry) {
        self.aged_terminal.push(entry);
        if self.aged_terminal.len() > self.max_events / 2 {
            self.aged_terminal.remove(0);
        }
    }

    fn settle(&mut self, event: usize, state: State) {
        if let Some(entry) = self.ring.iter_mut().find(|entry| entry.event == event) {
            entry.state = state;
            self.shorten();
        } else {
            let place = self.aged_open.iter().position(|entry| entry.event == event).expect("open events stay");
            let entry = self.aged_open.remove(place);
            self.age(Entry { state, ..entry });
            self.shorten();
        }
    }

    fn get(&mut self, event: usize) -> Option<State> {
        if let Some(place) = self.aged_terminal.iter().position(|entry| entry.event == event) {
            let entry = self.aged_terminal.remove(place);
            self.aged_terminal.push(entry);
            return Some(entry.state);
        }
        let entry = self.ring.iter_mut().chain(&mut self.aged_open).find(|entry| entry.event == event)?;
        entry.read = true;
        Some(entry.state)
    }

    fn all(&self) -> impl Iterator<Item = &Entry> {
        self.ring.iter().chain(&self.aged_open).chain(&self.aged_terminal)
    }

    fn holds(&self, event: usize) -> bool {
        self.all().any(|entry| entry.event == event)
    }
}

fn state_of(event: &Event) -> State {
    match event.status() {
        Status::Pending | Status::Processing => State::Open,
        Status::Completed => State::Completed,
        Status::Failed => State::Failed,
    }
}

/// A broker beside its model.
struct Run {
    model: Model,
    events: Vec<(Event, Kind)>,
    /// Open events, in publish order.
    open: VecDeque<usize>,
    early: Vec<EventId>,
    notices: EventStream,
    settlements: Settlements,
    // Dropped before the broker, so that no handler waits for it when a test fails.
    gate: Sender<()>,
    broker: Broker,
}

impl Run {
    fn new(max_events: usize) -> Self {
        // More than a run publishes, and no more, because the store allocates a slot for each when it starts.
        let builder = Broker::builder().worker_count(1).max_events(max_events).max_in_flight(256);
        let broker = builder.start().expect("valid settings");
        let (gate, passes) = channel();
        let passes = Mutex::new(passes);
        let wait =
            move |_: &Delivery<'_>| passes.lock().recv().map_err(|_| HandlerError::permanent("the test has ended"));
        broker.subscribe_with(SubscribeOptions::new("model.open").ordered(), wait).expect("valid options");
        let fail = |_: &Delivery<'_>| Err::<(), _>(HandlerError::permanent("always"));
        broker.subscribe("model.failing", fail).expect("a valid pattern");
        Self {
            model: Model::new(max_events),
            events: Vec::new(),
            open: VecDeque::new(),
            early: (0..EARLY_IDS).map(|_| event("early").id().clone()).collect(),
            notices: broker.stream("eventbroker.dead_letter").expect("a valid pattern"),
            settlements: Settlements::of(&broker),
            broker,
            gate,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish(kind, id) => self.publish_new(*kind, id),
            Step::Republish(back) => {
                if let Some(index) = self.events.len().checked_sub(1 + back) {
                    self.publish(index);
                }
            }
            Step::Get(back) => {
                if let Some(index) = self.events.len().checked_sub(1 + back) {
                    let held = self.broker.get(self.events[index].0.id()).expect("no back end");
                    assert_eq!(held.as_ref().map(state_of), self.model.get(index), "get of event {index}");
                }
            }
            Step::OpenGate => {
                if let Some(index) = self.open.pop_front() {
                    self.gate.send(()).expect("the handler lives");
                    assert_eq!(self.settlements.next().id, *self.events[index].0.id());
                    self.model.settle(index, State::Completed);
                }
            }
        }
        self.compare();
    }

    fn publish_new(&mut self, kind: Kind, id: &IdForm) {
        let event_type = match kind {
            Kind::Plain => "model.plain",
            Kind::Failing => "model.failing",
            Kind::Open => "model.open",
        };
        let builder = Event::builder(Source::System, event_type);
        let builder = match id {
            IdForm::New => builder,
            IdForm::Early(index) => builder.id(self.early[*index].clone()),
            IdForm::Text(number) => builder.id(format!("text-{number}")),
            IdForm::OtherUuid(bits) => {
                let hex = format!("{bits:032x}");
                builder.id(format!("{}-{}-7{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..]))
            }
        };
        let event = builder.build().expect("valid");
        if self.events.iter().all(|(other, _)| other.id() != event.id()) {
            self.events.push((event, kind));
            self.publish(self.events.len() - 1);
        }
    }

    fn publish(&mut self, index: usize) {
        let (event, kind) = self.events[index].clone();
        let known = self.model.holds(index);
        let duplicate = match kind {
            Kind::Failing => self.broker.publish_sync(event).expect("room").duplicate,
            Kind::Plain | Kind::Open => self.broker.publish(event).expect("room").duplicate,
        };
        assert_eq!(duplicate, known, "publish of event {index}");
        if known {
            return;
        }
        match kind {
            Kind::Plain => self.model.publish(index, State::Completed),
            Kind::Open => {
                self.model.publish(index, State::Open);
                self.open.push_back(index);
            }
            Kind::Failing => {
                self.model.publish(index, State::Open);
                let Ok(StreamItem::Event(notice)) = self.notices.try_recv() else { panic!("a notice is due") };
                self.events.push((notice, Kind::Plain));
                self.model.publish(self.events.len() - 1, State::Completed);
                assert_eq!(self.settlements.next().id, *self.events[index].0.id());
                self.model.settle(index, State::Failed);
            }
        }
        if kind != Kind::Failing {
            // The stream also yields a notice that is published again.
            while self.notices.try_recv().is_ok() {}
        }
    }

    /// Compares everything that the store holds. `list` does not count as use.
    fn compare(&self) {
        let filter = Filter { limit: Some(Filter::MAX_LIMIT), ..Filter::default() };
        let page = self.broker.list(&filter).expect("no back end");
        let listed: Vec<_> = page.events.iter().map(|event| (event.id().clone(), state_of(event))).collect();
        let mut held: Vec<_> =
            self.model.all().map(|entry| (self.events[entry.event].0.id().clone(), entry.state)).collect();
        held.sort_by(|(left, _), (right, _)| left.cmp(right));
        assert_eq!(listed, held);
        let stats = self.broker.store_stats();
        let count = |state| held.iter().filter(|(_, it)| *it == state).count() as u64;
        assert_eq!(stats.events, held.len() as u64);
        assert_eq!(stats.pending + stats.processing, count(State::Open));
        assert_eq!((stats.completed, stats.failed), (count(State::Completed), count(State::Failed)));
        assert!(stats.completed + stats.failed <= self.model.max_events as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    // Three tests, so that they run in parallel.
    #[test]
    fn a_store_of_at_most_five_events_follows_its_rule(max_events in 1..=5_usize, steps in steps()) {
        follow(max_events, &steps);
    }

    #[test]
    fn a_store_of_six_to_ten_events_follows_its_rule(max_events in 6..=10_usize, steps in steps()) {
        follow(max_events, &steps);
    }

    #[test]
    fn a_store_of_eleven_to_sixteen_events_follows_its_rule(max_events in 11..=16_usize, steps in steps()) {
        follow(max_events, &steps);
    }
}

fn follow(max_events: usize, steps: &[Step]) {
    let mut run = Run::new(max_events);
    for step in steps {
        run.step(step);
    }
    // Settles the events that are still open.
    while !run.open.is_empty() {
        run.step(&Step::OpenGate);
    }
    let stats = run.broker.stats();
    assert_eq!((stats.in_flight, stats.accepted), (0, stats.completed + stats.failed));
}
