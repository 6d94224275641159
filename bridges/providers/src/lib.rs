//! Configuration of an event broker, and the factory that opens the configured back end.
//!
//! A program that builds its broker in code needs only `eventbroker`. This package is for programs that configure it: from a
//! YAML file ([`Loader`]), from the environment, or as a part of their own configuration ([`Config`] is plain serde). The
//! keys, their defaults and the names of the variables are those of the ResolveSpec event broker, so its files are
//! accepted as they are; `eventbroker config init` prints all of them with their meaning.
//!
//! ```
//! use eventbroker_providers::Loader;
//!
//! let loaded = Loader::new()
//!     .yaml("shop.yaml", "event_broker: { enabled: true, worker_count: 4, retry_policy: { max_retries: 0 } }")
//!     .load()?;
//! let broker = eventbroker_providers::start(&loaded.config)?;
//! assert_eq!(broker.stats().workers, 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! As a part of the configuration of the program that it is embedded in, read with any serde format:
//!
//! ```
//! #[derive(serde::Deserialize)]
//! struct Settings {
//!     listen: String,
//!     event_broker: eventbroker_providers::Config,
//! }
//!
//! let text = r#"{ "listen": ":8080", "event_broker": { "enabled": true, "buffer_size": 500 } }"#;
//! let settings: Settings = serde_json::from_str(text)?;
//! assert_eq!(settings.event_broker.broker.buffer_size, 500);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod config;
mod error;
mod expand;
mod keys;
mod load;
mod open;
mod render;
mod yaml;

pub use config::{Config, Confirm, ProviderKind, RedisServer};
pub use error::{ConfigError, ConfigProblem, Place};
pub use eventbroker_bridge_kit::settings::{Secret, Status, Url};
pub use eventbroker_nats::{Nats, Storage};
pub use eventbroker_redis::Redis;
pub use eventbroker_sql::{Connections, Notifications, Pooler, Settings as DatabaseSettings};
pub use load::{Entry, Loaded, Loader, Origin};
pub use open::{OpenError, init, open, repartition, shutdown, sql_schema, start};
pub use render::{schema, template};
