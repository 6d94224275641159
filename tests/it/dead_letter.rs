//! Dead letters: how they are kept, announced and requeued.

mod kept;
mod notices;
mod requeue;
