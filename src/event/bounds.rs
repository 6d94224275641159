//! The bounds that several fields share: text length, control characters, nesting depth. Bounds of a single field are
//! beside that field's type.

use super::invalid::Problem;

/// The longest id, type, key, session id, instance id, schema, entity or operation, in bytes.
pub(super) const MAX_TEXT_BYTES: usize = 255;

/// The deepest nesting of a payload and of a metadata value. One open bracket is depth 1.
pub(super) const MAX_DEPTH: usize = 64;

/// Checks that a text has at most [`MAX_TEXT_BYTES`] bytes and no control characters.
pub(super) fn check_text(text: &str) -> Result<(), Problem> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Problem::TooLong { max: MAX_TEXT_BYTES, actual: text.len() });
    }
    // Nearly every text is printable ASCII, for which checking bytes is enough.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    match text.char_indices().find(|(_, character)| character.is_control()) {
        Some((offset, character)) => Err(Problem::Forbidden { character, offset }),
        None => Ok(()),
    }
}
