//! The settings as plain data, with the defaults of the original. The bridges declare their own; `keys` says how each is read.

use std::time::Duration;

pub use eventbroker::Confirm;
use eventbroker_bridge_kit::settings::{Secret, Url};
use eventbroker_nats::Nats;
use eventbroker_redis::Redis;
use eventbroker_sql::{Connections, Notifications, Settings};
use serde::{Deserialize, Deserializer, de};

use crate::apply::apply;
use crate::error::ConfigError;
use crate::expand::Variables;
use crate::yaml::Node;

/// The settings of an event broker and its back end: the section `event_broker` of a configuration file.
///
/// It is deserialised strictly: every unknown key and every value outside its bounds is an error, and one error lists them
/// all. `${NAME}`, `${NAME:-default}` and `${NAME:?message}` in a value are expanded from the environment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Whether a broker runs. Default false.
    pub enabled: bool,
    /// The kind of the back end. Default [`ProviderKind::Memory`].
    pub provider: ProviderKind,
    /// The time that a stopping broker may drain: for [`shutdown`](crate::shutdown), and for programs that stop a broker
    /// themselves. Default 30 s; at most 7 days.
    pub shutdown_timeout: Duration,
    /// The settings of the broker itself, for [`BrokerBuilder::config`](eventbroker::BrokerBuilder::config).
    pub broker: eventbroker::Config,
    /// Redis Streams, for `provider: redis`.
    pub redis: Redis,
    /// The Redis server, if `redis.url` is empty.
    pub redis_server: RedisServer,
    /// NATS JetStream, for `provider: nats`. An event is held for 24 h, as in the original.
    pub nats: Nats,
    /// The subjects of the JetStream stream: one, of the form `PREFIX.>`. Default `events.>`.
    pub nats_subjects: Vec<String>,
    /// SQLite or PostgreSQL, for `provider: database`.
    pub database: Settings,
    /// `sqlite:PATH` or `postgres://…`; required by `provider: database`.
    pub database_url: Url,
    /// The notifications of PostgreSQL.
    pub notifications: Notifications,
    /// The connections to PostgreSQL.
    pub connections: Connections,
}

/// The kind of back end that holds events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ProviderKind {
    /// In this process only.
    #[default]
    Memory,
    /// In a Redis stream.
    Redis,
    /// In a NATS JetStream stream.
    Nats,
    /// In a table of SQLite or PostgreSQL.
    Database,
}

eventbroker_bridge_kit::words!(
    ProviderKind: "memory" = Self::Memory, "redis" = Self::Redis, "nats" = Self::Nats, "database" = Self::Database
);

eventbroker_bridge_kit::settings! {
    /// The parts of a Redis server's address.
    pub struct RedisServer {
        /// The host.
        host(into): String = "localhost", 1 ..= 255 bytes;
        /// The port.
        port: u16 = 6_379, 1 ..= 65_535;
        /// The password.
        password(into): Secret, secret;
        /// The number of the database.
        db: u32 = 0, 0 ..= 2_147_483_647;
    }
}

impl RedisServer {
    /// The address of these parts.
    pub fn url(&self) -> Url {
        let encoded: String = self.password.expose().bytes().map(|byte| format!("%{byte:02X}")).collect();
        let login = if encoded.is_empty() { String::new() } else { format!(":{encoded}@") };
        Url::new(format!("redis://{login}{}:{}/{}", self.host, self.port, self.db))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            provider: ProviderKind::default(),
            shutdown_timeout: Duration::from_secs(30),
            broker: eventbroker::Config::default(),
            redis: Redis::default(),
            redis_server: RedisServer::default(),
            nats: Nats::default().max_age(Duration::from_secs(24 * 3600)),
            nats_subjects: vec!["events.>".to_owned()],
            database: Settings::default(),
            database_url: Url::default(),
            notifications: Notifications::default(),
            connections: Connections::default(),
        }
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Node::from_value(serde_json::Value::deserialize(deserializer)?);
        let mut config = Self::default();
        let (mut problems, mut origins) = (Vec::new(), Default::default());
        apply(&mut config, &node, None, &Variables::of_process(), &mut problems, &mut origins);
        if problems.is_empty() {
            crate::apply::check(&config, None, &origins, &mut problems);
        }
        if problems.is_empty() { Ok(config) } else { Err(de::Error::custom(ConfigError::new(problems))) }
    }
}
