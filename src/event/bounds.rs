//! The bounds that several fields share: the length of a text, control characters in it, and how deeply JSON is
//! nested. The bounds of one field alone stand beside that field's type.

use crate::error::Problem;

/// The longest id, type, key, session id, instance id, schema, entity or operation, in bytes.
pub(super) const MAX_TEXT_BYTES: usize = 255;

/// The deepest nesting of a payload and of a metadata value. One open bracket is depth 1.
pub(super) const MAX_DEPTH: usize = 64;

/// At most [`MAX_TEXT_BYTES`] bytes, and no control characters.
pub(super) fn check_text(text: &str) -> Result<(), Problem> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Problem::TooLong { max: MAX_TEXT_BYTES, actual: text.len() });
    }
    // Nearly every text is plain ASCII, and a look at its bytes is enough.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    match text.char_indices().find(|(_, character)| character.is_control()) {
        Some((offset, character)) => Err(Problem::Forbidden { character, offset }),
        None => Ok(()),
    }
}

/// Whether this text, which is known to be JSON, is nested more than `max` levels deep.
pub(super) fn is_deeper_than(json: &str, max: usize) -> bool {
    // Every bracket that is opened is closed too. `[` and `{` differ in one bit; counting them costs little, and only a
    // text with many of them is worth a walk.
    if json.len() <= 2 * max || json.bytes().filter(|byte| byte | 0x20 == b'{').count() <= max {
        return false;
    }
    let mut depth = 0_usize;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    false
}

/// Goes on behind the string's closing quote.
fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}
