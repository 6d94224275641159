//! The cases, by subject matter. Each is a function that panics if the provider fails it.

mod dead_letters;
mod failing;
mod instances;
mod operating;
mod order;
mod positions;
mod publishing;
mod replay;
mod status;
mod stopping;
mod subscribing;

pub use dead_letters::*;
pub use failing::*;
pub use instances::*;
pub use operating::*;
pub use order::*;
pub use positions::*;
pub use publishing::*;
pub use replay::*;
pub use status::*;
pub use stopping::*;
pub use subscribing::*;
