//! The stored form of a dead letter where a back end keeps it as one JSON text, and that of the errors in it.

use std::time::SystemTime;

use eventbroker::dead_letter::{AttemptError, DeadLetter};
use eventbroker::provider::LeaseOutcome;
use eventbroker::{Event, Status};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The errors of a delivery's attempts: the attempt, the time and the message of each.
pub type StoredErrors = Vec<(u32, Timestamp, String)>;

/// A dead letter as it is stored. The order of the fields is that of the JSON text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredDeadLetter {
    /// The subscription, by the name that it has at the server.
    #[serde(rename = "unit")]
    pub subscription: String,
    /// The subscription, by its own name.
    pub name: String,
    /// The id of the event.
    pub id: String,
    /// The event as JSON.
    pub event: String,
    /// Why the delivery is dead.
    pub reason: String,
    /// The number of calls of the handler.
    pub attempts: u32,
    /// The errors of the attempts, oldest first.
    pub errors: StoredErrors,
    /// When the delivery died.
    pub dead_at: Timestamp,
    /// How often the letter was requeued before.
    pub requeues: u32,
}

impl StoredDeadLetter {
    /// The letter of a delivery that dies now; `None` if its outcome is another one.
    pub fn new(subscription: &str, name: &str, event: &Event, outcome: &LeaseOutcome, requeues: u32) -> Option<Self> {
        let LeaseOutcome::Dead { reason, attempts, errors, .. } = outcome else { return None };
        Some(Self {
            subscription: subscription.to_owned(),
            name: name.to_owned(),
            id: event.id().to_string(),
            event: String::from_utf8(event.to_json()).unwrap_or_default(),
            reason: reason.as_str().to_owned(),
            attempts: *attempts,
            errors: to_stored(errors),
            dead_at: Timestamp::now(),
            requeues,
        })
    }

    /// The dead letter with its number; `None` if the event or the reason can't be read.
    pub fn into_dead_letter(self, number: u64) -> Option<DeadLetter> {
        let event = Event::from_json(self.event.as_bytes()).ok()?;
        let error = self.errors.last().map(|(_, _, message)| message.clone());
        let event = event.with_progress(Status::Failed, self.attempts.saturating_sub(1), None, None, error);
        let mut letter = DeadLetter::new(number, event, self.name, self.reason.parse().ok()?);
        letter.attempts = self.attempts;
        letter.dead_at = self.dead_at.into();
        letter.errors = from_stored(self.errors);
        letter.first_failed_at = letter.errors.first().map_or(letter.dead_at, |first| first.at);
        letter.requeues = self.requeues;
        Some(letter)
    }
}

/// The errors of attempts in their stored form.
pub fn to_stored(errors: &[AttemptError]) -> StoredErrors {
    let time = |time: SystemTime| Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    errors.iter().map(|it| (it.attempt, time(it.at), it.message.clone())).collect()
}

/// The errors of attempts from their stored form.
pub fn from_stored(errors: StoredErrors) -> Vec<AttemptError> {
    errors.into_iter().map(|(attempt, at, message)| AttemptError::new(attempt, at.into(), message)).collect()
}

#[cfg(test)]
mod tests {
    use eventbroker::Source;
    use eventbroker::dead_letter::DeadReason;

    use super::*;

    const STORED: &str = r#"{"unit":"workers==mail","name":"mail","id":"order-7","event":"EVENT","reason":"exhausted","attempts":2,"errors":[[1,"2026-01-02T03:04:05Z","no route"],[2,"2026-01-02T03:04:06.5Z","still none"]],"dead_at":"2026-01-02T03:04:07Z","requeues":1}"#;

    fn event() -> Event {
        let event = Event::builder(Source::System, "shop.orders.create").id("order-7");
        event.created_at(SystemTime::UNIX_EPOCH).build().expect("an event")
    }

    fn stored() -> StoredDeadLetter {
        let mut letter: StoredDeadLetter = serde_json::from_str(STORED).expect("a letter");
        letter.event = String::from_utf8(event().to_json()).expect("text");
        letter
    }

    #[test]
    fn the_stored_bytes_never_change() {
        let letter: StoredDeadLetter = serde_json::from_str(STORED).expect("a letter");
        assert_eq!(serde_json::to_string(&letter).expect("text"), STORED);
    }

    #[test]
    fn a_stored_letter_is_read_whole() {
        let letter = stored().into_dead_letter(9).expect("a dead letter");
        assert_eq!((letter.id, &*letter.name, letter.attempts, letter.requeues), (9, "mail", 2, 1));
        assert_eq!(letter.event.id().to_string(), "order-7");
        assert_eq!(letter.event.status(), Status::Failed);
        assert_eq!(letter.errors.len(), 2);
        assert_eq!(letter.first_failed_at, letter.errors[0].at);
        assert_eq!(to_stored(&letter.errors), stored().errors);
    }

    #[test]
    fn only_a_dead_outcome_makes_a_letter() {
        let errors = from_stored(stored().errors);
        let outcome = LeaseOutcome::Dead { reason: DeadReason::Exhausted, attempts: 2, error: String::new(), errors };
        let mut letter = StoredDeadLetter::new("workers==mail", "mail", &event(), &outcome, 1).expect("a letter");
        letter.dead_at = stored().dead_at;
        assert_eq!(serde_json::to_string(&letter).expect("text"), serde_json::to_string(&stored()).expect("text"));
        assert!(StoredDeadLetter::new("", "mail", &event(), &LeaseOutcome::Done { attempts: 1 }, 0).is_none());
    }

    #[test]
    fn a_letter_without_an_event_is_left_out() {
        assert!(StoredDeadLetter { event: String::new(), ..stored() }.into_dead_letter(1).is_none());
        assert!(StoredDeadLetter { reason: String::new(), ..stored() }.into_dead_letter(1).is_none());
    }
}
