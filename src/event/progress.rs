//! How far the handling of an event has come, as it is written into a copy of it. Who knows that is not told here.

use std::time::SystemTime;

use super::{Event, Rare, Status};
use crate::base::wall_nanos_of;

impl Event {
    /// The event with the progress that a store of a back end knows. Everything else stays.
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

    /// The event with another status and error, for stores of back ends. Everything else stays.
    #[must_use]
    pub fn with_status(mut self, status: Status, error: Option<String>) -> Self {
        let (processed, completed) = (self.processed_nanos(), self.completed_nanos());
        self.track(status, self.retry_count, processed, completed, error);
        self
    }

    /// A copy that tells how far the handling has come.
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

    /// The same in place, for an event that nobody shares yet.
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
