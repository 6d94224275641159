//! The factory: from a configuration to a provider, a broker, or the global broker.

use eventbroker::error::StartError;
use eventbroker::provider::Provider;
use eventbroker::{Broker, global};

use crate::config::{Config, ProviderKind};

/// Why what a configuration names could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// `enabled` is false, so there is nothing to start.
    #[error("event_broker.enabled is false")]
    Disabled,
    /// The back end is not part of this program.
    #[error(
        "event_broker.provider: {provider} is not compiled in: build eventbroker-providers with the feature `{feature}`"
    )]
    NotCompiledIn {
        /// What was asked for.
        provider: &'static str,
        /// What would bring it.
        feature: &'static str,
    },
    /// The broker could not be built or started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is a global broker already; it stays as it is.
    #[error(transparent)]
    Global(#[from] global::InitError),
}

/// Opens the back end that the configuration names. Connects to nothing by itself with `provider: memory`.
///
/// # Errors
/// [`OpenError::NotCompiledIn`] names the feature that is missing.
pub fn open(config: &Config) -> Result<Provider, OpenError> {
    let missing = |provider, feature| Err(OpenError::NotCompiledIn { provider, feature });
    match config.provider {
        ProviderKind::Memory => Ok(Provider::memory()),
        ProviderKind::Redis => missing("redis", "redis"),
        ProviderKind::Nats => missing("nats", "nats"),
        ProviderKind::Database if config.database.url.expose().starts_with("sqlite:") => missing("database", "sqlite"),
        ProviderKind::Database => missing("database", "postgres"),
    }
}

/// Opens the back end and starts a broker on it.
///
/// # Errors
/// [`OpenError::Disabled`] if the configuration says so, else as [`open`] and
/// [`BrokerBuilder::start`](eventbroker::BrokerBuilder::start).
pub fn start(config: &Config) -> Result<Broker, OpenError> {
    if !config.enabled {
        return Err(OpenError::Disabled);
    }
    Ok(Broker::builder().config(config.broker()).provider(open(config)?).start()?)
}

/// Makes the [global broker](eventbroker::global) what the configuration says: one that runs, or none.
///
/// # Errors
/// [`OpenError::Global`] if there is one already, which stays; nothing is opened then. Else as [`start`].
pub fn init(config: &Config) -> Result<(), OpenError> {
    if !config.enabled {
        return Ok(global::disable()?);
    }
    global::init_with(|| start(config))
}
