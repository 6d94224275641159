//! The time in an event's id, by which a back end finds the event without an index: UUIDs of version 7 have one.

use std::time::Duration;

/// An id that tells when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdTime {
    /// The time since 1970.
    pub at: Duration,
    /// The id, last byte first: the last bytes differ most.
    pub bytes: [u8; 16],
}

/// The time in an id, if it has one.
pub fn id_time(id: &str) -> Option<IdTime> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_of_version_7_has_its_time_in_front() {
        let time = id_time("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").expect("the example of RFC 9562");
        assert_eq!(time.at, Duration::from_millis(1_645_557_742_000));
        assert_eq!(time.bytes, 0x017f_22e2_79b0_7cc3_98c4_dc0c_0c07_398f_u128.to_le_bytes());
        assert_eq!(id_time("017F22E2-79B0-7CC3-98C4-DC0C0C07398F"), Some(time));
    }

    #[test]
    fn other_ids_have_no_time() {
        for id in [
            "",
            "order-7",
            "919108f7-52d1-4320-9bac-f847db4148a8",
            "017f22e279b07cc398c4dc0c0c07398f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
            "017f22e2-79b0-7cc3-98c4-dc0c0c0739-f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c073é",
        ] {
            assert_eq!(id_time(id), None, "{id}");
        }
    }
}
