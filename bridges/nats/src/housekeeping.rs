//! What nobody else sees to: subscriptions that nobody serves, notes that nobody needs, messages that everybody has handled.

use std::time::{Duration, SystemTime};

use eventbroker::provider::BackendError;
use serde_json::json;

use crate::jetstream::kv::read;
use crate::jetstream::message::{self as js, Which};
use crate::jetstream::stream;
use crate::membership::{BOOT, FORGET_AFTER};
use crate::provider::backend::Database;
use crate::query::status::{FAILED, STATUS};
use crate::query::store::{self, AT};
use crate::subscriptions::{self as registry, DEAD, LEASE, SUBSCRIPTION, USED};
use crate::transport::runtime::Session;

/// Notes of a kind that one look removes.
const REMOVED: usize = 500;

/// Removes what nobody asks for any more.
pub(crate) async fn clean_up(session: &Session, database: &Database) -> Result<(), BackendError> {
    let state = &database.state;
    let now = database.look_at_clock(session).await?;
    let age = |at: SystemTime| now.duration_since(at).unwrap_or_default();
    let known = registry::all(session, database).await?;
    let used = state.get_all(session, known.iter().map(|(unit, _)| state.key(USED, unit)).collect()).await?;
    let owner = |(_, info): &(String, registry::Info)| {
        // Of those that belong to nobody, this provider is as good as any.
        let owner = if info.owner.is_empty() { &database.boot } else { &info.owner };
        state.key(BOOT, owner)
    };
    let boots = state.get_all(session, known.iter().map(owner).collect()).await?;
    let is_dead = database.settings.lease_time.saturating_mul(FORGET_AFTER);
    for (((unit, info), used), boot) in known.iter().zip(used).zip(boots) {
        let is_gone = !info.owner.is_empty() && boot.is_none_or(|boot| age(boot.stored_at) > is_dead);
        let is_unused = used.is_some_and(|used| age(used.stored_at) > database.settings.idle_expiry);
        if is_unused {
            let idle_expiry = database.settings.idle_expiry;
            tracing::warn!(unit, ?idle_expiry, "nobody used a subscription: it is removed");
            state.count(session, "subscriptions", 1).await?;
        }
        if is_gone || is_unused {
            registry::forget(session, database, unit).await?;
        } else if database.served.lock().values().any(|served| served.unit == *unit) {
            registry::retire(session, database, unit, info).await?;
            // Another member may have changed its pattern.
            if let Some(info) = state.get(session, &state.key(SUBSCRIPTION, unit)).await?.as_ref().and_then(read) {
                database.learn(unit, info);
            }
        }
    }
    let kept = database.settings.retention;
    for kind in [STATUS, FAILED, AT, LEASE] {
        expire(session, database, kind, now, kept).await?;
    }
    for kind in [BOOT, "clock"] {
        expire(session, database, kind, now, is_dead).await?;
    }
    let gone = expire(session, database, DEAD, now, kept).await?;
    if gone > 0 {
        tracing::warn!(dead = gone, retention = ?kept, "dead letters were too old");
        state.count(session, "dead_letters", gone).await?;
    }
    trim(session, database).await
}

/// Removes notes of a kind that are too old.
async fn expire(
    session: &Session,
    database: &Database,
    kind: &str,
    now: SystemTime,
    kept: Duration,
) -> Result<u64, BackendError> {
    let state = &database.state;
    let filter = state.key(kind, ">");
    let mut count = 0;
    for _ in 0..REMOVED {
        let Some(oldest) = js::get(session, &state.stream, Which::NextOf(filter.clone(), 1)).await? else { break };
        if now.duration_since(oldest.stored_at).unwrap_or_default() <= kept {
            break;
        }
        count += u64::from(js::delete(session, &state.stream, oldest.sequence).await?);
    }
    Ok(count)
}

/// Removes messages that everybody has handled, if the stream has a bound and comes near it.
async fn trim(session: &Session, database: &Database) -> Result<(), BackendError> {
    let settings = &database.settings;
    let Some(info) = stream::info(session, database.stream()).await? else { return Ok(()) };
    let number = |name: &str| info["state"][name].as_u64().unwrap_or(0);
    let is_near = |is: u64, bound: u64| bound > 0 && is >= bound - bound / 4;
    if !is_near(number("messages"), settings.max_messages) && !is_near(number("bytes"), settings.max_bytes) {
        return Ok(());
    }
    let (first, last) = (number("first_seq"), number("last_seq"));
    let handled = store::first_open(session, database).await?.unwrap_or(last + 1);
    // Half of what was handled stays, to be looked at.
    let before = handled.min(first + (last + 1 - first) / 2 + 1);
    if before > first {
        let request = json!({ "seq": before });
        js::api(session, &format!("STREAM.PURGE.{}", database.stream()), &request).await??;
    }
    Ok(())
}
