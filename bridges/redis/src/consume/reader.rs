//! Reading what is new of the one stream that all members share, many entries ahead, and matching it here.

use std::fmt;
use std::mem;
use std::sync::Arc;

use eventbroker::Pattern;
use eventbroker::provider::BackendError;

use crate::consume::batch_reply::{Answer, Entry};
use crate::consume::claimer::{Claimer, Haul, Taken};
use crate::scripts::entry::parts;
use crate::subscriptions::Info;
use crate::transport::command::{Request, exchange};
use crate::transport::link::Link;

/// The least that is read at a time, if it is not too large: most of it may not match.
const LEAST: usize = 100;
/// The most of one question: the server works on the next one while it is read.
const CHUNK: usize = 256;
/// The same of the first question, which nothing is read beside.
const FIRST: usize = 64;

/// What the server knows of the subscription, as it was last told.
#[derive(Debug, Default)]
pub(crate) struct Known {
    text: Vec<u8>,
    pattern: Option<Pattern>,
    /// Patterns of earlier times: for entries up to these.
    earlier: Vec<(Vec<String>, Pattern)>,
}

impl Known {
    /// Nothing is taken for a stranger because nobody can tell: what can't be read is an error, and so is a subscription that is not there.
    fn of(text: Vec<u8>) -> Result<Self, BackendError> {
        if text.is_empty() {
            return Err(BackendError::Unavailable("NOGROUP the subscription is not known".to_owned()));
        }
        let problem =
            |error: &dyn fmt::Display| BackendError::Unavailable(format!("what is known of it is damaged: {error}"));
        let info: Info = serde_json::from_slice(&text).map_err(|error| problem(&error))?;
        let parse = |pattern: &str| Pattern::parse(pattern).map_err(|error| problem(&error));
        let mut earlier = Vec::new();
        for it in &info.patterns {
            earlier.push((it.until_entries.clone(), parse(&it.pattern)?));
        }
        Ok(Self { pattern: Some(parse(&info.pattern)?), earlier, text })
    }

    /// Whether an entry of a stream is for the subscription.
    fn matches(&self, number: usize, entry: &str, event_type: &[u8]) -> bool {
        let is_until = |until: &Vec<String>| until.get(number - 1).is_some_and(|it| parts(entry) <= parts(it));
        let earlier = self.earlier.iter().find(|(until, _)| is_until(until)).map(|(_, pattern)| pattern);
        let (pattern, event_type) = (earlier.or(self.pattern.as_ref()), str::from_utf8(event_type));
        pattern.zip(event_type.ok()).is_some_and(|(pattern, event_type)| pattern.matches(event_type))
    }
}

impl Claimer {
    /// Reads what is new. False if there is no more of it.
    pub(crate) fn read(&mut self, link: &mut Link, haul: &mut Haul<'_>) -> Result<bool, BackendError> {
        let most = haul.left.max(LEAST).min(self.fits(haul));
        let first = most.min(FIRST);
        let mut wanted = most;
        let mut questions = Vec::new();
        while wanted > 0 {
            let count = wanted.min(if questions.is_empty() { first } else { CHUNK });
            let read = mem::take(&mut self.read);
            questions.push(self.question(count, read));
            wanted -= count;
        }
        let database = self.database();
        let stream = &*database.streams[0];
        let (mut found, mut bytes, mut damaged) = (0, 0, None);
        haul.ask();
        link.call(|connection| {
            exchange(connection, &questions, |connection| {
                let answer = match Answer::read(connection, stream)? {
                    Ok(answer) => answer,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let wanted = if found == 0 { first } else { CHUNK };
                let entries = answer.entries.len();
                found += entries;
                bytes += answer.entries.iter().map(|entry| entry.event.len()).sum::<usize>();
                let taken = self.take(haul, answer).map_err(|error| damaged = Some(error));
                // The next one is only worth its while if this one was answered in full.
                Ok(Ok(taken.is_ok() && entries >= wanted))
            })
        })?;
        self.note_size(haul, found, bytes);
        self.put_aside(link, haul)?;
        damaged.map_or(Ok(found >= most), Err)
    }

    /// Asks for so many new entries; tells how many were read before.
    fn question(&self, count: usize, read: usize) -> Request {
        let (database, unit) = (self.database(), &*self.served().unit);
        let (stream, count, read) = (&database.streams[0], count.to_string(), read.to_string());
        let mut asked = Request::default();
        asked.command(4).word("HINCRBY").word(format!("{stream}:read")).word(unit).word(read);
        asked.command(6).word("XREVRANGE").word(stream).word("+").word("-").word("COUNT").word("1");
        asked
            .command(6)
            .word("XREAD")
            .word("COUNT")
            .word("1")
            .word("STREAMS")
            .word(database.key("bell"))
            .word(&self.bell);
        asked.command(11).word("XREADGROUP").word("GROUP").word(unit).word(database.member()).word("COUNT").word(count);
        asked.word("STREAMS").word(database.key(&format!("again:{unit}"))).word(stream).word(">").word(">");
        asked.command(3).word("HGET").word(database.key("subscriptions")).word(unit);
        asked
    }

    /// Takes what was read, while the server works on the next answer.
    fn take(&mut self, haul: &mut Haul<'_>, answer: Answer) -> Result<(), BackendError> {
        let (database, unit) = (self.database(), Arc::clone(&self.served().unit));
        let stream = &database.streams[0];
        // What is given back from now on is seen by the next claim.
        self.behind |= answer.is_rung;
        if answer.info.is_empty() || answer.info != self.known.text {
            self.known = Known::of(answer.info)?;
        }
        haul.note(stream, answer.last);
        haul.note(&database.key("bell"), self.bell.clone());
        // What was given back meanwhile goes first.
        let is_overtaken = database.released.lock().contains(&unit);
        for Entry { is_again, name, event_type, event, attempts, errors } in answer.entries {
            let number = usize::from(!is_again);
            self.read += number;
            if number == 1 && !self.known.matches(number, &name, &event_type) {
                haul.strangers.entry(number).or_default().push(name);
            } else if haul.left == 0 || is_overtaken {
                haul.surplus[number].push(name);
            } else {
                let attempts = str::from_utf8(&attempts).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                let taken = Taken { number, entry: name, event, suspect: false, crashes: 0, attempts, errors };
                self.lease(haul, taken);
            }
        }
        Ok(())
    }
}
