//! Writes the progress of an event (status, attempts, times, error) into a copy of it.

use std::time::SystemTime;

use super::{Event, Rare, Status};
use crate::base::wall_nanos_of;

impl Event {
    /// Returns the event with this progress, for stores of back ends.
    /// Nothing else changes.
    #[must_use]
    pub fn with_progress(
        mut self,
        status: Status,
        retry_count: u32,
        processed_at: Option<SystemTime>,
        completed_at: Option<SystemTime>,
        error: Option<String>,
    ) -> Self {
        self.track(status, retry_count, processed_at.map(wall_nanos_of), completed_at.map(wall_nanos_of), error);
        self
    }

    /// Returns the event with this status and error, for stores of back ends.
    /// Nothing else changes.
    #[must_use]
    pub fn with_status(mut self, status: Status, error: Option<String>) -> Self {
        let (processed, completed) = (self.processed_nanos(), self.completed_nanos());
        self.track(status, self.retry_count, processed, completed, error);
        self
    }

    /// A copy of the event with this progress.
    pub(crate) fn tracked(
        &self,
        status: Status,
        retry_count: u32,
        processed_nanos: Option<u64>,
        completed_nanos: Option<u64>,
        error: Option<String>,
    ) -> Self {
        let mut copy = self.clone();
        copy.track(status, retry_count, processed_nanos, completed_nanos, error);
        copy
    }

    /// Sets the progress in place, on an event that is not shared yet.
    pub(crate) fn track(
        &mut self,
        status: Status,
        retry_count: u32,
        processed_nanos: Option<u64>,
        completed_nanos: Option<u64>,
        error: Option<String>,
    ) {
        self.status = status;
        self.retry_count = retry_count;
        let mut rare = self.rare.take().map_or_else(Rare::default, |rare| *rare);
        rare.processed = processed_nanos;
        rare.completed = completed_nanos;
        rare.error = error.filter(|error| !error.is_empty()).map(String::into_boxed_str);
        self.rare = rare.boxed();
    }
}
