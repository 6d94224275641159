//! A ring: remembers the last values that were added to it, up to a fixed number.

use std::collections::VecDeque;

/// The largest number of values.
const CAPACITY: usize = 16_384;

/// The last values that were added. A search begins at the newest.
pub(crate) struct Ring<T>(VecDeque<T>);

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Ring<T> {
    pub(crate) fn add(&mut self, value: T) {
        if self.0.len() == CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &T> {
        self.0.iter().rev()
    }
}
