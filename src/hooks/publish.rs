//! The after-hooks that publish an event for each operation. When hooks run is in `hooks.rs`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{HookContext, HookRegistry, Operation};
use crate::broker::{Broker, WeakBroker};
use crate::event::{Event, EventType, Invalid, Payload, Problem, Source};

/// The name under which the hooks are registered.
const HOOK_NAME: &str = "eventbroker";
/// The payload in place of one that could not be serialized.
const NOT_SERIALIZED: &str = r#"{"error":"failed to serialize payload"}"#;

/// The operations that publish events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrudHooksConfig {
    /// Rows that were created. Default: true.
    pub after_create: bool,
    /// Rows that were read. Default: false; programs read far more than they write.
    pub after_read: bool,
    /// Rows that were updated. Default: true.
    pub after_update: bool,
    /// Rows that were deleted. Default: true.
    pub after_delete: bool,
}

impl Default for CrudHooksConfig {
    fn default() -> Self {
        Self { after_create: true, after_read: false, after_update: true, after_delete: true }
    }
}

impl CrudHooksConfig {
    fn includes(&self, operation: Operation) -> bool {
        match operation {
            Operation::Create => self.after_create,
            Operation::Read => self.after_read,
            Operation::Update => self.after_update,
            Operation::Delete => self.after_delete,
        }
    }
}

/// The counts of the publishing hooks. Dropping it does not remove the hooks.
#[derive(Debug, Clone)]
pub struct CrudHooks {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl CrudHooks {
    /// Events that the broker accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Events that were invalid or refused: lost, and logged as warnings.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.counts.refused.load(Ordering::SeqCst)
    }
}

/// Registers after-hooks that publish an event for each operation.
///
/// A second call registers the hooks again, so each operation publishes twice.
///
/// The event's type is `schema.entity.operation`, with the operation `create`, `read`, `update` or `delete`. Without a
/// schema it is `entity.operation`; the event's fields entity and operation are set in both cases. The source is
/// [`Source::Database`], user and session are those of the context, and the metadata hold `table_name` and, if known,
/// `user_name`, `user_email` and `user_roles`. The payload depends on the operation:
///
/// - create and read: the result,
/// - update: `{"id": row id, "data": data}`,
/// - delete: `{"id": row id}`,
///
/// with the row id as text, or `{"error":"failed to serialize payload"}` if the payload has no JSON form.
///
/// A failure to publish never fails or blocks the operation: publishing does not wait, whatever the overflow policies
/// of the subscriptions. A refused event is lost, counted ([`CrudHooks::refused`]) and logged. The hooks do not keep
/// the broker alive; after it is dropped or stopped, every event is refused. A later refusal by a back end shows in the
/// broker's statistics.
///
/// ```
/// use eventbroker::Broker;
/// use eventbroker::hooks::{CrudHooksConfig, HookContext, HookRegistry, Operation, register_crud_hooks};
///
/// let broker = Broker::builder().start()?;
/// broker.subscribe("shop.orders.*", |delivery| println!("{}", delivery.event().event_type()))?;
/// let registry = HookRegistry::new();
/// let published = register_crud_hooks(&broker, &registry, CrudHooksConfig::default());
///
/// let mut transaction = registry.transaction();
/// transaction.record(Operation::Create, HookContext::new("shop", "orders").with_row_id(1).with_result(&12.50));
/// transaction.commit();
/// assert_eq!(published.accepted(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn register_crud_hooks(broker: &Broker, registry: &HookRegistry, config: CrudHooksConfig) -> CrudHooks {
    let counts = Arc::new(Counts::default());
    for operation in Operation::ALL.into_iter().filter(|operation| config.includes(*operation)) {
        let (broker, counts) = (broker.downgrade(), Arc::clone(&counts));
        registry.after(operation, HOOK_NAME, move |context| {
            publish(&broker, &counts, operation, context);
            Ok(())
        });
    }
    CrudHooks { counts }
}

fn publish(broker: &WeakBroker, counts: &Counts, operation: Operation, context: &HookContext) {
    let refusal = match event_of(operation, context) {
        // The receipt is dropped: the hook does not wait for a back end's confirmation.
        Ok(event) => broker.publish_async(event).err().map(|error| error.to_string()),
        Err(invalid) => Some(format!("invalid event: {invalid}")),
    };
    let Some(reason) = refusal else {
        counts.accepted.fetch_add(1, Ordering::SeqCst);
        return;
    };
    counts.refused.fetch_add(1, Ordering::SeqCst);
    log_failure("an operation's event was lost", operation, context, &reason);
}

fn event_of(operation: Operation, context: &HookContext) -> Result<Event, Invalid> {
    let HookContext { schema, entity, user, .. } = context;
    if entity.is_empty() {
        return Err(Invalid::new("entity", Problem::Empty));
    }
    // An empty first segment would make the type invalid.
    let event_type = if schema.is_empty() {
        EventType::parse(&format!("{entity}.{operation}"))
    } else {
        EventType::parse(&crate::event::event_type(schema, entity, operation.as_str()))
    }?;
    let mut event = Event::builder(Source::Database, event_type)
        .schema(schema)
        .entity(entity)
        .operation(operation.as_str())
        .payload_raw(payload_of(operation, context))
        .user_id(user.id)
        .metadata("table_name", context.table.as_str());
    if !user.session.is_empty() {
        event = event.session_id(&user.session);
    }
    if !user.name.is_empty() {
        event = event.metadata("user_name", user.name.as_str());
    }
    if !user.email.is_empty() {
        event = event.metadata("user_email", user.email.as_str());
    }
    if !user.roles.is_empty() {
        event = event.metadata("user_roles", user.roles.clone());
    }
    Ok(event.build()?)
}

fn payload_of(operation: Operation, context: &HookContext) -> Payload {
    serialize_payload(operation, context).unwrap_or_else(|invalid| {
        log_failure("an operation's payload could not be serialized", operation, context, &invalid);
        Payload::from_json(NOT_SERIALIZED).unwrap_or_default()
    })
}

fn serialize_payload(operation: Operation, context: &HookContext) -> Result<Payload, Invalid> {
    #[derive(Serialize)]
    struct Row<'a> {
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    }

    let id = &context.row_id;
    match operation {
        Operation::Create | Operation::Read => context.serialized_result().cloned(),
        Operation::Delete => Payload::from_serialize(&Row { id, data: None }),
        Operation::Update => {
            let data = context.serialized_data()?.parse().map_err(|error| not_serialized(&error))?;
            Payload::from_serialize(&Row { id, data: Some(data) })
        }
    }
}

fn not_serialized(error: &dyn fmt::Display) -> Invalid {
    Invalid::new("payload", Problem::NotJson(error.to_string()))
}

fn log_failure(message: &'static str, operation: Operation, context: &HookContext, reason: &dyn fmt::Display) {
    let HookContext { schema, entity, row_id, .. } = context;
    tracing::warn!(%schema, %entity, %operation, %row_id, %reason, "{message}");
}
