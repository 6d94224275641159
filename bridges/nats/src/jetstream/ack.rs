//! Acknowledgements: done, given back, in progress.

use std::collections::HashMap;
use std::sync::Arc;

use super::api::{Result, cut_off, unavailable};
use super::consumer;
use super::message::DeliveryInfo;
use crate::transport::Session;

/// The message was handled.
pub(crate) const ACK: &[u8] = b"+ACK";
/// The message is to be delivered again at once.
pub(crate) const NAK: &[u8] = b"-NAK";
/// The delivery is extended.
pub(crate) const IN_PROGRESS: &[u8] = b"+WPI";

/// An acknowledgement of one delivery.
#[derive(Debug, Clone)]
pub(crate) struct Ack {
    /// The id of the consumer.
    pub(crate) consumer: Arc<str>,
    /// The reply subject of the delivery.
    pub(crate) to: Arc<str>,
    pub(crate) verb: &'static [u8],
    /// The session of the delivery.
    pub(crate) generation: u64,
}

/// Sends acknowledgements, and waits until the server has processed them. The server takes those of a consumer in order, so only the last one of
/// each consumer asks for an answer.
pub(crate) async fn ack_all(session: &Session, acks: &[Ack]) -> Result<()> {
    let acks = known_to_server(session, acks).await?;
    // Mostly one consumer.
    let mut last: Vec<(&str, usize)> = Vec::new();
    for (at, ack) in acks.iter().enumerate() {
        match last.iter_mut().find(|(consumer, _)| *consumer == &*ack.consumer) {
            Some((_, last)) => *last = at,
            None => last.push((&ack.consumer, at)),
        }
    }
    let mut answers = Vec::new();
    for (at, ack) in acks.iter().enumerate() {
        if last.iter().any(|(_, last)| *last == at) {
            answers.push(session.request(&ack.to, ack.verb));
        } else {
            session.publish(&ack.to, "", ack.verb);
        }
    }
    session.flush().map_err(unavailable)?;
    // For a removed consumer the server answers that the subject has no subscriber.
    for answer in answers {
        let Some(answer) = Session::in_time(answer).await else {
            session.give_up("an acknowledgement was not answered");
            return Err(unavailable("no answer in time"));
        };
        answer.map_err(|_| cut_off())?;
    }
    Ok(())
}

/// Leaves out the acknowledgements of deliveries that the server has forgotten in a crash. The server does not answer them; it delivers these
/// messages again, and the new deliveries are acknowledged.
async fn known_to_server<'a>(session: &Session, acks: &'a [Ack]) -> Result<Vec<&'a Ack>> {
    let is_early = |ack: &Ack| ack.generation != session.generation;
    let mut delivered: HashMap<&str, u64> = HashMap::new();
    for ack in acks.iter().filter(|ack| is_early(ack)) {
        if !delivered.contains_key(&*ack.consumer) {
            let (stream, name) = ack.consumer.split_once('/').unwrap_or_default();
            // A consumer that does not exist has delivered nothing.
            let info = consumer::config_and_state(session, stream, name).await?.unwrap_or_default();
            delivered.insert(&ack.consumer, info["delivered"]["stream_seq"].as_u64().unwrap_or(0));
        }
    }
    let last = |ack: &Ack| delivered.get(&*ack.consumer).copied().unwrap_or(0);
    let is_known = |ack: &&Ack| !is_early(ack) || DeliveryInfo::of(&ack.to).is_some_and(|it| it.sequence <= last(ack));
    Ok(acks.iter().filter(is_known).collect())
}
