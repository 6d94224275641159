//! The store: status, retention, queries.

mod backlog;
mod beyond_the_ring;
mod clean_up;
mod eviction;
mod list_filters;
mod list_paging;
mod many_publishers;
mod model;
mod small_store_races;
mod status;
