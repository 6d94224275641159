//! The cases, by what they are about. Each is a function that panics when the subject fails it.

mod failing;
mod instances;
mod operating;
mod order;
mod publishing;
mod status;
mod stopping;
mod subscribing;

pub use failing::*;
pub use instances::*;
pub use operating::*;
pub use order::*;
pub use publishing::*;
pub use status::*;
pub use stopping::*;
pub use subscribing::*;
