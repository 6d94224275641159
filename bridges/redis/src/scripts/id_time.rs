//! The time in an event's id, by which its entry is found without an index: UUIDs of version 7 have one.

use std::time::Duration;

/// The most time between the time in an id and the time of its entry: clocks differ, and a buffer may hold events back. An event beyond it
/// has an index entry, and is listed by the time of its entry.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(5);

/// An id that tells when it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdTime {
    pub(crate) at: Duration,
    /// The id, last byte first: the last bytes differ most.
    pub(crate) bytes: [u8; 16],
}

impl IdTime {
    /// The bucket of known ids that the id is in: the ids of 4 ms.
    pub(crate) fn bucket(&self) -> u128 {
        self.at.as_millis() >> 2
    }
}

/// The time in an id, if it has one.
pub(crate) fn id_time(id: &str) -> Option<IdTime> {
    let text = id.as_bytes();
    let is_seven = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text[*at] == b'-') && text[14] == b'7';
    let mut digits = text.iter().filter(|it| **it != b'-').map(|it| (*it as char).to_digit(16));
    let mut bytes = [0; 16];
    if !is_seven {
        return None;
    }
    for byte in bytes.iter_mut().rev() {
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    let millis = bytes[10..].iter().rev().fold(0, |millis, byte| millis << 8 | u64::from(*byte));
    Some(IdTime { at: Duration::from_millis(millis), bytes })
}
