//! The events that CRUD hooks publish: type, fields, payload, metadata.

use eventbroker::hooks::{CrudHooksConfig, HookContext, HookRegistry, HookUser, Operation, register_crud_hooks};
use eventbroker::{Broker, Event, EventStream, Source, StreamItem};
use serde_json::{Value, json};

use crate::support::PATIENCE;

/// A broker, a registry that publishes to it, and a stream of its events.
struct Shop {
    _broker: Broker,
    registry: HookRegistry,
    events: EventStream,
}

impl Shop {
    fn open(config: CrudHooksConfig) -> Self {
        let broker = Broker::builder().instance_id("here").start().expect("a running broker");
        let events = broker.stream("*").expect("a stream");
        let registry = HookRegistry::new();
        register_crud_hooks(&broker, &registry, config);
        Self { _broker: broker, registry, events }
    }

    /// The event of an operation.
    fn event(&self, operation: Operation, context: &HookContext) -> Event {
        self.registry.run_after(operation, context);
        self.next()
    }

    fn next(&self) -> Event {
        match self.events.recv_timeout(PATIENCE) {
            Ok(StreamItem::Event(event)) => event,
            other => panic!("no event: {other:?}"),
        }
    }
}

fn payload(event: &Event) -> Value {
    event.payload_as().expect("JSON")
}

fn ada() -> HookUser {
    HookUser {
        id: 7,
        name: "Ada".to_owned(),
        email: "ada@example.org".to_owned(),
        session: "s-1".to_owned(),
        roles: vec!["clerk".to_owned(), "admin".to_owned()],
    }
}

fn order() -> HookContext {
    HookContext::new("shop", "orders")
        .with_table("tbl_orders")
        .with_row_id(42)
        .with_data(&json!({"total": 12}))
        .with_result(&json!({"id": 42, "total": 12}))
}

#[test]
fn each_operation_has_its_type_and_its_payload() {
    let shop = Shop::open(CrudHooksConfig { after_read: true, ..CrudHooksConfig::default() });
    let expected = [
        (Operation::Create, "shop.orders.create", json!({"id": 42, "total": 12})),
        (Operation::Read, "shop.orders.read", json!({"id": 42, "total": 12})),
        (Operation::Update, "shop.orders.update", json!({"id": "42", "data": {"total": 12}})),
        (Operation::Delete, "shop.orders.delete", json!({"id": "42"})),
    ];
    for (operation, event_type, expected) in expected {
        let event = shop.event(operation, &order());
        assert_eq!((event.event_type().as_str(), payload(&event)), (event_type, expected));
        assert_eq!(event.source(), Source::Database);
        assert_eq!((event.schema(), event.entity()), (Some("shop"), Some("orders")));
        assert_eq!(event.operation(), Some(operation.as_str()));
        assert_eq!(event.instance_id(), Some("here"));
    }
}

#[test]
fn reads_are_off_by_default_and_each_operation_can_be_turned_off() {
    let shop = Shop::open(CrudHooksConfig::default());
    shop.registry.run_after(Operation::Read, &order());
    assert_eq!(shop.event(Operation::Delete, &order()).operation(), Some("delete"));

    let only_deletes = CrudHooksConfig { after_create: false, after_update: false, ..CrudHooksConfig::default() };
    let shop = Shop::open(only_deletes);
    shop.registry.run_after(Operation::Create, &order());
    shop.registry.run_after(Operation::Update, &order());
    assert_eq!(shop.event(Operation::Delete, &order()).operation(), Some("delete"));
}

#[test]
fn the_event_has_the_user_of_the_context_if_known() {
    let shop = Shop::open(CrudHooksConfig::default());
    let event = shop.event(Operation::Create, &order().with_user(ada()));
    assert_eq!((event.user_id(), event.session_id()), (Some(7), Some("s-1")));
    let expected = json!({
        "table_name": "tbl_orders", "user_name": "Ada", "user_email": "ada@example.org", "user_roles": ["clerk", "admin"],
    });
    assert_eq!(Value::Object(event.metadata().clone()), expected);

    let event = shop.event(Operation::Create, &order());
    assert_eq!((event.user_id(), event.session_id()), (None, None));
    assert_eq!(Value::Object(event.metadata().clone()), json!({"table_name": "tbl_orders"}));
}

#[test]
fn without_a_table_the_entity_is_the_table() {
    let shop = Shop::open(CrudHooksConfig::default());
    let event = shop.event(Operation::Delete, &HookContext::new("shop", "items"));
    assert_eq!(event.metadata()["table_name"], "items");
}

#[test]
fn without_a_schema_the_type_has_two_segments_and_the_fields_are_set() {
    let shop = Shop::open(CrudHooksConfig::default());
    let event = shop.event(Operation::Delete, &HookContext::new("", "users").with_row_id(3));
    assert_eq!(event.event_type().as_str(), "users.delete");
    assert_eq!((event.schema(), event.entity(), event.operation()), (None, Some("users"), Some("delete")));
}

#[test]
fn an_entity_with_dots_keeps_its_name() {
    let shop = Shop::open(CrudHooksConfig::default());
    let event = shop.event(Operation::Delete, &HookContext::new("shop", "orders.archive"));
    assert_eq!(event.event_type().as_str(), "shop.orders.archive.delete");
    assert_eq!((event.schema(), event.entity()), (Some("shop"), Some("orders.archive")));
}

#[test]
fn absent_results_and_data_are_null() {
    let shop = Shop::open(CrudHooksConfig::default());
    let empty = HookContext::new("shop", "orders");
    assert_eq!(payload(&shop.event(Operation::Create, &empty)), Value::Null);
    assert_eq!(payload(&shop.event(Operation::Update, &empty)), json!({"id": "", "data": null}));
}

#[test]
fn a_payload_that_cannot_be_serialised_is_replaced_by_an_error() {
    let shop = Shop::open(CrudHooksConfig::default());
    let lists_as_keys = std::collections::BTreeMap::from([(vec![1], 2)]);
    let said = json!({"error": "failed to serialize payload"});

    let context = HookContext::new("shop", "orders").with_data(&lists_as_keys).with_result(&lists_as_keys);
    assert!(context.data().is_null() && context.result().is_null());
    for operation in [Operation::Create, Operation::Update] {
        assert_eq!(payload(&shop.event(operation, &context)), said, "{operation}");
    }
    assert_eq!(payload(&shop.event(Operation::Delete, &context)), json!({"id": ""}));

    // At the depth bound of a payload, and inside an update one level deeper.
    let deep = (0..64).fold(json!(1), |inner, _| json!([inner]));
    let context = HookContext::new("shop", "orders").with_data(&deep).with_result(&deep);
    assert_eq!(payload(&shop.event(Operation::Create, &context)), deep);
    assert_eq!(payload(&shop.event(Operation::Update, &context)), said);
}

#[test]
fn the_events_of_a_transaction_are_published_at_commit_in_order() {
    let shop = Shop::open(CrudHooksConfig::default());
    let mut transaction = shop.registry.transaction();
    for row in 0..5 {
        transaction.record(Operation::Delete, order().with_row_id(row));
    }
    let mut forgotten = shop.registry.transaction();
    forgotten.record(Operation::Create, order());
    forgotten.rollback();
    transaction.commit();
    let ids: Vec<Value> = (0..5).map(|_| payload(&shop.next())["id"].clone()).collect();
    assert_eq!(ids, ["0", "1", "2", "3", "4"]);
}
