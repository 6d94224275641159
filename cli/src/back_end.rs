//! The options that name a back end, and opening it. No back end is known here: `eventbroker-providers` opens them all.

use std::path::PathBuf;
use std::time::Duration;

use eventbroker::provider::{BackendError, Provider};
use eventbroker::{Broker, error::StartError};
use eventbroker_providers::{Config, Loader, OpenError, ProviderKind, Url};

use crate::exit::Failure;

/// Deadline of the broker's stop at the end of a command.
pub(crate) const STOP: Duration = Duration::from_secs(10);

/// The options that name the back end.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// Back end: `sqlite:FILE`, `postgres://USER@HOST/DATABASE`, `redis://HOST` or `nats://HOST`
    #[arg(long, value_name = "URL", required_unless_present = "config", conflicts_with = "config")]
    url: Option<String>,
    /// Configuration file of a broker, which names the back end
    #[arg(long, value_name = "FILE", env = "EVENTBROKER_CONFIG")]
    config: Option<PathBuf>,
    /// Consumer group [default: that of the configuration, or resolvespec-workers]
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Table in SQLite or PostgreSQL [default: that of the configuration, or events]
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Stream in Redis or NATS [default: that of the configuration, or resolvespec:events (Redis), RESOLVESPEC_EVENTS
    /// (NATS)]
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
}

impl Target {
    /// The options as a configuration.
    pub(crate) fn configuration(&self) -> Result<Config, Failure> {
        let mut config = match &self.config {
            Some(file) => Loader::new().file(file).load()?.config,
            None => Config::default(),
        };
        if let Some(url) = &self.url {
            config.provider = match url.split(':').next() {
                Some("sqlite" | "postgres" | "postgresql") => ProviderKind::Database,
                Some("redis" | "redis+unix" | "rediss") => ProviderKind::Redis,
                Some("nats" | "tls") => ProviderKind::Nats,
                // Only the scheme is printed: the rest may hold a password.
                scheme => {
                    return Err(Failure::usage(format_args!(
                        "--url {}: unknown scheme; give sqlite:FILE, postgres://USER@HOST/DATABASE, redis://HOST or nats://HOST",
                        scheme.unwrap_or_default()
                    )));
                }
            };
            config.database_url = Url::new(url);
            config.redis.url = Url::new(url);
            config.nats.url = Url::new(url);
        }
        if config.provider == ProviderKind::Memory {
            return Err(Failure::usage(
                "the configuration names no durable back end; give --url sqlite:FILE, postgres:…, redis:… or nats:…",
            ));
        }
        if let Some(group) = &self.group {
            for name in
                [&mut config.database.consumer_group, &mut config.redis.consumer_group, &mut config.nats.consumer_group]
            {
                name.clone_from(group);
            }
        }
        if let Some(table) = &self.table {
            config.database.table_name.clone_from(table);
        }
        // The command adopts the stream's own number of partitions.
        config.redis.adopt_partitions = true;
        config.nats.adopt_partitions = true;
        if let Some(stream) = &self.stream {
            config.redis.stream_name.clone_from(stream);
            config.nats.stream_name.clone_from(stream);
        }
        Ok(config)
    }

    /// Opens the back end.
    pub(crate) fn open(&self) -> Result<Provider, Failure> {
        self.configuration().and_then(|config| open(&config))
    }

    /// Opens the back end and starts a broker on it, without subscriptions and with an instance name of its own.
    pub(crate) fn start(&self) -> Result<Broker, Failure> {
        let config = self.configuration()?;
        let provider = open(&config)?;
        let mut core = config.broker;
        core.mode = eventbroker::Mode::Async;
        (core.worker_count, core.max_workers) = (1, None);
        core.instance_id = Some(format!("eventbroker-cli-{}", std::process::id()));
        Broker::builder().config(core).provider(provider).start().map_err(|error| match error {
            StartError::Invalid(_) => Failure::usage(error),
            other => Failure::new(other),
        })
    }
}

fn open(config: &Config) -> Result<Provider, Failure> {
    eventbroker_providers::open(config).map_err(unopened)
}

/// Maps an error of opening a back end: exit code 2 if the arguments are wrong, else 4.
pub(crate) fn unopened(error: OpenError) -> Failure {
    match error {
        OpenError::NotCompiledIn { .. } | OpenError::NoPartitions(_) => Failure::usage(error),
        other => Failure::unreachable(other),
    }
}

/// Maps an error of a back end: exit code 4 if it is unavailable, else 1.
pub(crate) fn failure(error: BackendError) -> Failure {
    match error {
        BackendError::Unavailable(_) => Failure::unreachable(error),
        _ => Failure::new(error),
    }
}
