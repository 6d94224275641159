//! The tasks on the bridge thread that take the messages which were asked for: one for each consumer.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subject;
use eventbroker::provider::BackendError;
use futures_channel::oneshot;
use futures_util::future::{Either, select};

use crate::consume::floors;
use crate::consume::pull_buffer::{Begun, Pull};
use crate::consume::pull_state::{Arrived, Unwanted};
use crate::consume::recovery as holds;
use crate::jetstream::message as js;
use crate::jetstream::message::{Entry, Standing};
use crate::membership as members;
use crate::provider::backend::Database;
use crate::settle::lease_record::{self as leases, Known};
use crate::subscriptions::{self as registry, Leg};
use crate::transport::consume_conn::Tapped;
use crate::transport::frame::Incoming;
use crate::transport::runtime::Session;

/// How long a request lasts: a member that is frozen gets for so long what another one could handle. With partitions it ends before another one
/// takes over.
pub(crate) fn expires(database: &Database) -> Duration {
    let (lease, longest) = (database.settings.lease_time, Duration::from_secs(5));
    if database.partitions() > 0 { (lease / 2).min(longest) } else { lease.clamp(Duration::from_secs(1), longest) }
}

/// Asks consumers for messages.
pub(crate) fn ask(database: &Arc<Database>, pulls: Vec<Pull>) {
    let on_thread = Arc::clone(database);
    database.runtime.post(move |session| match session {
        Ok(session) => Some(Box::pin(async move {
            for (at, pull) in pulls.iter().enumerate() {
                if let Err(error) = ask_one(&session, &on_thread, pull).await {
                    on_thread.intake.is_not_asked(&pulls[at..], error);
                    return;
                }
            }
        })),
        Err(error) => {
            on_thread.intake.is_not_asked(&pulls, error);
            None
        }
    });
}

async fn ask_one(session: &Session, database: &Arc<Database>, pull: &Pull) -> Result<(), BackendError> {
    let Some((inbox, begun)) = database.intake.reader(session, &pull.key) else { return Ok(()) };
    if let Some(begun) = begun {
        let begun = begin(session, database, pull, inbox.clone(), begun).await;
        if begun.is_err() {
            database.intake.is_not_read(&pull.key);
        }
        begun?;
        // It was dropped meanwhile, and nobody listens: a server of 2.9 would hand out something all the same.
        if !database.intake.is_read(&pull.key, &inbox) {
            return Ok(());
        }
    }
    send(session, database, &pull.leg, pull.batch, &inbox)
}

/// Begins to take the messages of a consumer on this connection.
async fn begin(
    session: &Session,
    database: &Arc<Database>,
    pull: &Pull,
    inbox: Subject,
    begun: Begun,
) -> Result<(), BackendError> {
    let Begun { stopped, was_read } = begun;
    let subscriber = session.tap.subscribe(&inbox).await.ok_or_else(js::cut_off)?;
    let (next, on_thread) = (session.clone(), Arc::clone(database));
    floors::compare(session, database, &pull.leg).await?;
    Session::spawn(read(next, on_thread, pull.key.clone(), Arc::clone(&pull.leg), inbox, subscriber, stopped));
    if pull.leg.partition.is_some() {
        return holds::begin(session, database, &pull.leg, was_read).await;
    }
    if was_read {
        // From now on nothing is lost any more, so that what is missing was lost before.
        let lost = members::recover(session, database, &pull.leg).await?;
        database.intake.expect(&pull.key, lost);
    }
    Ok(())
}

fn send(session: &Session, database: &Database, leg: &Leg, batch: usize, inbox: &str) -> Result<(), BackendError> {
    let (verb, request) = registry::pull(leg, batch, expires(database));
    session.tap.publish(&verb, inbox, &request);
    session.tap.send().map_err(js::unavailable)
}

/// Takes the messages of a consumer until it is stopped; what comes then goes back.
async fn read(
    session: Session,
    database: Arc<Database>,
    key: Arc<str>,
    leg: Arc<Leg>,
    inbox: Subject,
    mut tapped: Tapped,
    mut stopped: oneshot::Receiver<()>,
) {
    let (unit, lease) = (leg.unit.clone(), database.settings.lease_time);
    let mut is_stopped = false;
    loop {
        let together = if is_stopped {
            tapped.next().await
        } else {
            let next = pin!(tapped.next());
            match select(next, &mut stopped).await {
                Either::Left((together, _)) => together,
                Either::Right(_) => {
                    is_stopped = true;
                    Some(Vec::new())
                }
            }
        };
        let Some(together) = together else { return };
        if together.is_empty() {
            // What is on its way still comes.
            tapped.end();
            continue;
        }
        let is_status = |it: &mut Incoming| it.headers.status().is_some();
        let mut messages = together;
        let statuses: Vec<Incoming> = messages.extract_if(.., is_status).collect();
        for message in statuses.iter().filter(|_| !is_stopped) {
            if let Some(batch) = database.intake.ended(&key, &message.headers, expires(&database))
                && send(&session, &database, &leg, batch, &inbox).is_err()
            {
                session.give_up("messages could not be asked for");
            }
        }
        let arrived = match look_at(&session, &database, &key, &leg, messages).await {
            Ok(arrived) => arrived,
            Err(error) => {
                // All of it comes again when its lease has ended.
                database.intake.hold(&key);
                database.intake.fail(error);
                continue;
            }
        };
        if arrived.is_empty() {
            continue;
        }
        let back = if is_stopped { arrived } else { database.intake.put(&key, arrived, lease, session.generation) };
        let unwanted = |arrived| Unwanted { unit: unit.clone(), again: leg.again, consumer: leg.ack_name(), arrived };
        let back: Vec<Unwanted> = back.into_iter().map(unwanted).collect();
        if !back.is_empty()
            && let Err(error) = leases::give_back(&session, &database, back).await
        {
            database.intake.fail(error);
        }
    }
}

/// What is known of messages that were delivered.
async fn look_at(
    session: &Session,
    database: &Database,
    key: &str,
    leg: &Leg,
    messages: Vec<Incoming>,
) -> Result<Vec<Arrived>, BackendError> {
    let fresh = Instant::now();
    let mut arrived = Vec::with_capacity(messages.len());
    let mut again = Vec::new();
    for message in messages {
        let Some(reply) = message.reply else { continue };
        let Some(standing) = Standing::of(&reply) else { continue };
        if standing.delivered > 1 {
            again.push(standing);
        }
        let entry = Entry {
            sequence: standing.sequence,
            stored_at: standing.stored_at,
            subject: message.subject,
            headers: message.headers,
            payload: message.payload,
        };
        let known = Known::default();
        let (delivered, delivery, generation) = (standing.delivered, standing.delivery, session.generation);
        arrived.push(Arrived { entry, reply, delivered, delivery, known, fresh, generation });
    }
    let begun = database.intake.begun_before(key, again);
    if !begun.is_empty() {
        // Only this takes long.
        database.intake.note_arriving(key, arrived.iter().map(|it| it.entry.sequence).collect());
        let known = leases::look_up(session, database, leg, &begun).await?;
        let known: HashMap<u64, Known> = begun.iter().map(|it| it.sequence).zip(known).collect();
        for it in &mut arrived {
            it.known = known.get(&it.entry.sequence).copied().unwrap_or_default();
        }
    }
    Ok(arrived)
}
