//! The factory: opens the provider, the broker or the global broker of a configuration.

use eventbroker::error::StartError;
use eventbroker::provider::Provider;
use eventbroker::{Broker, StopReport, global};

use crate::config::{Config, ProviderKind};

/// The reason why a configured back end or broker could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// `enabled` is false.
    #[error("event_broker.enabled is false")]
    Disabled,
    /// The back end is not part of this program.
    #[error(
        "event_broker.provider: {provider} is not compiled in: build eventbroker-providers with the feature `{feature}`"
    )]
    NotCompiledIn {
        /// The configured back end.
        provider: &'static str,
        /// The feature that adds it.
        feature: &'static str,
    },
    /// The back end could not be opened; its own words, which hold no secret.
    #[error("event_broker.database: {0}")]
    Database(String),
    /// Redis could not be used; its own words, which hold no secret.
    #[error("event_broker.redis: {0}")]
    Redis(String),
    /// The back end has no partitions.
    #[error("event_broker.provider: {0:?} has no partitions")]
    NoPartitions(ProviderKind),
    /// NATS could not be used; its own words, which hold no secret.
    #[error("event_broker.nats: {0}")]
    Nats(String),
    /// The broker could not be built or started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is a global broker already; it stays as it is.
    #[error(transparent)]
    Global(#[from] global::InitError),
}

/// Opens the configured back end. `provider: memory` connects to nothing; opening an SQLite file blocks for at
/// most 5 seconds while another process holds it, a PostgreSQL server for 75 seconds, and a Redis or NATS server for 10
/// seconds.
///
/// # Errors
/// [`OpenError::NotCompiledIn`] names the feature that is missing; [`OpenError::Database`], [`OpenError::Redis`] and
/// [`OpenError::Nats`] say why the back end could not be opened.
pub fn open(config: &Config) -> Result<Provider, OpenError> {
    match config.provider {
        ProviderKind::Memory => Ok(Provider::memory()),
        #[cfg(feature = "redis")]
        ProviderKind::Redis => redis(config).open().map_err(|error| OpenError::Redis(error.to_string())),
        #[cfg(not(feature = "redis"))]
        ProviderKind::Redis => Err(OpenError::NotCompiledIn { provider: "redis", feature: "redis" }),
        #[cfg(feature = "nats")]
        ProviderKind::Nats => nats(config)?.open().map_err(|error| OpenError::Nats(error.to_string())),
        #[cfg(not(feature = "nats"))]
        ProviderKind::Nats => Err(OpenError::NotCompiledIn { provider: "nats", feature: "nats" }),
        ProviderKind::Database => match config.database_url.expose().strip_prefix("sqlite:") {
            #[cfg(feature = "sqlite")]
            Some(path) => open_sqlite(config, path),
            #[cfg(not(feature = "sqlite"))]
            Some(_) => Err(OpenError::NotCompiledIn { provider: "database", feature: "sqlite" }),
            #[cfg(feature = "postgres")]
            None => open_postgres(config),
            #[cfg(not(feature = "postgres"))]
            None => Err(OpenError::NotCompiledIn { provider: "database", feature: "postgres" }),
        },
    }
}

/// The settings of a provider on Redis.
#[cfg(feature = "redis")]
fn redis(config: &Config) -> eventbroker_redis::Redis {
    let mut redis = config.redis.clone();
    if redis.url.is_empty() {
        redis.url = config.redis_server.url();
    }
    redis
}

/// Divides the stream of a configuration into a number of partitions; 0 is one stream for all. All instances must have stopped, and all
/// events must be handled. Blocks as long as the back end's own limits allow.
///
/// # Errors
/// [`OpenError`]: the back end has no partitions or is not compiled in, a member uses the stream, events wait in it, or the server can't be
/// reached.
pub fn repartition(config: &Config, partitions: u32) -> Result<(), OpenError> {
    match config.provider {
        #[cfg(feature = "redis")]
        ProviderKind::Redis => {
            redis(config).partitions(partitions).repartition().map_err(|error| OpenError::Redis(error.to_string()))
        }
        #[cfg(feature = "nats")]
        ProviderKind::Nats => {
            nats(config)?.partitions(partitions).repartition().map_err(|error| OpenError::Nats(error.to_string()))
        }
        ProviderKind::Memory | ProviderKind::Database => Err(OpenError::NoPartitions(config.provider)),
        #[cfg(not(all(feature = "redis", feature = "nats")))]
        ProviderKind::Redis | ProviderKind::Nats => {
            let _ = partitions;
            open(config).map(drop)
        }
    }
}

/// The settings of a provider on NATS.
#[cfg(feature = "nats")]
fn nats(config: &Config) -> Result<eventbroker_nats::Nats, OpenError> {
    // The bridge has a stream of its own beside this one, so it has to know the beginning of all subjects.
    let prefix = match &config.nats_subjects[..] {
        [subject] => subject.strip_suffix(".>"),
        _ => None,
    };
    let Some(prefix) = prefix else {
        let subjects = config.nats_subjects.join(", ");
        return Err(OpenError::Nats(format!("subjects: is {subjects}, one of the form PREFIX.> is required")));
    };
    Ok(config.nats.clone().subject_prefix(prefix))
}

#[cfg(feature = "sqlite")]
fn open_sqlite(config: &Config, path: &str) -> Result<Provider, OpenError> {
    // `sqlite:FILE` and `sqlite://FILE` mean the same, so three slashes begin an absolute path.
    let mut sqlite = eventbroker_sql::Sqlite::new(path.strip_prefix("//").unwrap_or(path));
    sqlite.shared.clone_from(&config.database);
    sqlite.open().map_err(|error| OpenError::Database(error.to_string()))
}

#[cfg(feature = "postgres")]
fn open_postgres(config: &Config) -> Result<Provider, OpenError> {
    let mut postgres = eventbroker_sql::Postgres::new(config.database_url.expose());
    postgres.shared.clone_from(&config.database);
    postgres.notifications.clone_from(&config.notifications);
    postgres.connections.clone_from(&config.connections);
    postgres.open().map_err(|error| OpenError::Database(error.to_string()))
}

/// The statements that create the tables of `provider: database`, to run them by hand.
///
/// # Errors
/// [`OpenError::NotCompiledIn`]; [`OpenError::Database`] if the name is not allowed for a table.
pub fn sql_schema(config: &Config) -> Result<String, OpenError> {
    match config.database_url.expose().split(':').next() {
        #[cfg(feature = "sqlite")]
        Some("sqlite") => eventbroker_sql::sqlite::schema(&config.database.table_name)
            .map_err(|error| OpenError::Database(error.to_string())),
        #[cfg(not(feature = "sqlite"))]
        Some("sqlite") => Err(OpenError::NotCompiledIn { provider: "database", feature: "sqlite" }),
        #[cfg(feature = "postgres")]
        _ => eventbroker_sql::postgres::schema(&config.database.table_name)
            .map_err(|error| OpenError::Database(error.to_string())),
        #[cfg(not(feature = "postgres"))]
        _ => Err(OpenError::NotCompiledIn { provider: "database", feature: "postgres" }),
    }
}

/// Opens the back end and starts a broker on it. To stop it as the configuration says, give its `shutdown_timeout` to
/// [`Broker::stop`] or `run_until_signal`.
///
/// # Errors
/// [`OpenError::Disabled`] if the configuration says so, else as [`open`] and
/// [`BrokerBuilder::start`](eventbroker::BrokerBuilder::start).
pub fn start(config: &Config) -> Result<Broker, OpenError> {
    if !config.enabled {
        return Err(OpenError::Disabled);
    }
    Ok(Broker::builder().config(config.broker.clone()).provider(open(config)?).start()?)
}

/// Starts the [global broker](eventbroker::global) if the configuration is enabled.
///
/// # Errors
/// [`OpenError::Global`] if there is one already. It stays, and nothing is opened. Else as [`start`].
pub fn init(config: &Config) -> Result<(), OpenError> {
    if !config.enabled {
        return Ok(global::disable()?);
    }
    global::init_with(|| start(config))
}

/// Stops the [global broker](eventbroker::global) as [`global::shutdown`] does, draining for at most `shutdown_timeout`. Blocks as
/// long as it does. Returns `None` if there was no global broker.
pub fn shutdown(config: &Config) -> Option<StopReport> {
    global::shutdown(config.shutdown_timeout)
}
