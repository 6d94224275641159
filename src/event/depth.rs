//! Measures the nesting depth of JSON whose grammar has been checked. Works on bit masks of 64 bytes, because a loop
//! over bytes takes longer than the check of the grammar. The technique is that of simdjson (Langdale and Lemire,
//! "Parsing Gigabytes of JSON per Second", 2019): a prefix XOR of the mask of quotes yields the bytes inside strings.

use wide::i8x16;

const BLOCK: usize = 64;

/// Whether valid JSON is nested more than `max` levels deep. One open bracket is depth 1.
pub(super) fn is_deeper_than(json: &str, max: usize) -> bool {
    // Each level takes two bytes, an opening and a closing bracket.
    if json.len() <= 2 * max {
        return false;
    }
    let (blocks, rest) = json.as_bytes().as_chunks::<BLOCK>();
    let mut last = [b' '; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    let mut nesting = Nesting { depth: 0, max: max as u32, in_string: 0, escapes: false };
    blocks.iter().chain([&last]).any(|block| nesting.exceeds_in(&Masks::of(block)))
}

/// The positions of the relevant bytes in a block: bit `n` stands for byte `n`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Masks {
    quotes: u64,
    backslashes: u64,
    opening: u64,
    closing: u64,
}

/// The state carried from block to block.
struct Nesting {
    depth: u32,
    max: u32,
    /// All ones inside a string, else 0.
    in_string: u64,
    /// The first byte of the next block is escaped.
    escapes: bool,
}

impl Nesting {
    /// Processes a block. True if the depth exceeds `max` in it.
    fn exceeds_in(&mut self, masks: &Masks) -> bool {
        let quotes = masks.quotes & !self.escaped(masks.backslashes);
        let in_string = prefix_xor(quotes) ^ self.in_string;
        self.in_string = (in_string.cast_signed() >> 63).cast_unsigned();
        let (opening, closing) = (masks.opening & !in_string, masks.closing & !in_string);
        if opening | closing == 0 {
            return false;
        }
        if self.depth + opening.count_ones() > self.max && self.exceeds_among(opening, closing) {
            return true;
        }
        self.depth = (self.depth + opening.count_ones()).saturating_sub(closing.count_ones());
        false
    }

    /// Whether the depth exceeds `max`, following the brackets of a block in their order.
    fn exceeds_among(&self, opening: u64, closing: u64) -> bool {
        let mut depth = self.depth;
        (0..BLOCK).any(|bit| {
            depth = (depth + (opening >> bit & 1) as u32).saturating_sub((closing >> bit & 1) as u32);
            depth > self.max
        })
    }

    /// The mask of the escaped bytes: those after a backslash that is not itself escaped.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        let mut escaped = u64::from(std::mem::take(&mut self.escapes));
        let mut left = backslashes & !escaped;
        while left != 0 {
            let behind = left.trailing_zeros() + 1;
            if behind == BLOCK as u32 {
                self.escapes = true;
                break;
            }
            escaped |= 1 << behind;
            left &= (!1 << (behind - 1)) & !(1 << behind);
        }
        escaped
    }
}

/// Each bit becomes the XOR of all bits up to it: ones from an opening quote to just before its closing one.
fn prefix_xor(bits: u64) -> u64 {
    [1, 2, 4, 8, 16, 32].into_iter().fold(bits, |bits, distance| bits ^ bits << distance)
}

impl Masks {
    fn of(block: &[u8; BLOCK]) -> Self {
        let find = |bytes: i8x16, byte: u8| u64::from(bytes.simd_eq(i8x16::splat(byte.cast_signed())).to_bitmask());
        let mut masks = Self::default();
        for (number, lane) in block.as_chunks::<16>().0.iter().enumerate() {
            let bytes = i8x16::new(lane.map(u8::cast_signed));
            // `[` and `{` differ in this bit, and so do `]` and `}`.
            let folded = bytes | i8x16::splat(0x20);
            let at = 16 * number;
            masks.quotes |= find(bytes, b'"') << at;
            masks.backslashes |= find(bytes, b'\\') << at;
            masks.opening |= find(folded, b'{') << at;
            masks.closing |= find(folded, b'}') << at;
        }
        masks
    }
}
