//! `eventbroker demo`: a shop on a real SQLite database whose changes are published by hooks. This file sets the shop
//! up, runs it and ends it; the parts are in `demo/`.

mod cache;
mod live;
mod reconcile;
mod report;
mod shop;
mod subscribers;
mod writers;

use std::fs::{self, DirBuilder};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io, process};

use eventbroker::Broker;
use eventbroker::hooks::{CrudHooksConfig, HookRegistry, HookUser, Operation, register_crud_hooks};
use eventbroker::provider::Provider;
use eventbroker::stats::Stats;
use eventbroker_providers::{ProviderKind, Url};

use crate::exit::{Exit, Failure};
use crate::signals;
use cache::Cache;
use live::LiveLine;
use reconcile::{Account, Books};
use report::{CacheUse, Events, Report, Subscription, Transactions};
use shop::{Shop, Undone};
use subscribers::{AuditLog, Subscribers};
use writers::{Clerk, Store, Tally};

/// Options of `demo`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker demo
  eventbroker demo --seconds 30 --threads 8
  eventbroker demo --provider sqlite
  eventbroker demo --provider postgres --url postgres://me@localhost/shop
  eventbroker demo --provider redis --url redis://localhost
  eventbroker demo --provider nats --url nats://localhost
  eventbroker demo --seconds 5 --json | jq '.checks[] | select(.ok | not)'")]
pub(crate) struct Options {
    /// Duration of the run in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Number of threads that write to the database
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Provider that holds the events
    #[arg(long, value_enum, default_value_t = Where::Memory)]
    provider: Where,
    /// PostgreSQL database, Redis or NATS server. The run creates tables or a stream under a new name and leaves them
    #[arg(long, value_name = "URL", required_if_eq_any([("provider", "postgres"), ("provider", "redis"), ("provider", "nats")]))]
    url: Option<String>,
}

/// The provider that holds the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Where {
    /// In memory, in this process
    Memory,
    /// In an SQLite file of its own, beside that of the shop
    Sqlite,
    /// In a PostgreSQL database
    Postgres,
    /// In a Redis stream
    Redis,
    /// In a NATS JetStream stream
    Nats,
}

/// The maximum number of changes in one transaction.
const MAX_CHANGES: u64 = 16;

/// The bounds of the broker. The clerks pause before they are reached.
const QUEUES: Queues =
    Queues { least_capacity: 1_000, waiting_per_place: 4, max_in_flight: 100_000, max_backlog: 10_000 };

struct Queues {
    least_capacity: usize,
    /// `max_waiting` per place in a queue: enough for a whole queue of failing deliveries.
    waiting_per_place: usize,
    max_in_flight: usize,
    /// Events that wait for the mirror.
    max_backlog: u64,
}

/// Deadline for handling the open events at the end, and for the broker's stop.
const STOP: Duration = Duration::from_secs(30);
/// Poll interval of the main thread.
const TICK: Duration = Duration::from_millis(20);

/// Runs the demonstration.
pub(crate) fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    let report = demonstrate(options).map_err(|error| Failure::new(format_args!("the demo failed: {error}")))?;
    let text = if json { format!("{}\n", serde_json::to_string(&report)?) } else { report.to_string() };
    let printed = crate::print(text.as_bytes())?;
    Ok(match signals::received() {
        _ if !report.reconciled => Exit::Failed,
        Some(signal) => Exit::Signal(signal),
        None => printed,
    }
    .into())
}

fn demonstrate(options: &Options) -> Result<Report, Undone> {
    let folder = Folder::create()
        .map_err(|error| format!("cannot create a folder in {}: {error}", env::temp_dir().display()))?;
    let database = folder.path.join("shop.db");
    shop::found(&database)?;

    let threads = usize::from(options.threads);
    let provider = open(options, &folder.path)?;
    let held = provider.store.clone();
    let broker = Broker::builder().config(config(threads)).provider(provider).start()?;
    let hooks = HookRegistry::new();
    hooks.before(Operation::Create, "largest-order", refuse_large_orders);
    let published = register_crud_hooks(&broker, &hooks, CrudHooksConfig::default());
    let cache = Arc::new(Cache::default());
    let audit = AuditLog::open(&folder.path.join("audit.db"))?;
    let subscribers = Subscribers::subscribe(&broker, audit, &cache)?;

    let store = Store { broker: broker.clone(), cache, tally: Tally::default(), closing: AtomicBool::new(false) };
    let seconds = open_hours(options, &store, &database, &hooks)?;
    if held.is_some() {
        wait_until_handled(&broker)?;
    }
    let stop = broker.stop(STOP);

    let stats = broker.stats();
    let account = Account::of(&broker, &stats, held.as_deref())?;
    let shop = Shop::open(&database, &hooks, HookUser::default())?;
    let changes = reconcile::committed_changes(&shop)?;
    let books = Books {
        broker: &broker,
        stats: &stats,
        account: &account,
        stop: &stop,
        published: &published,
        changes: &changes,
        tally: &store.tally,
        subscribers: &subscribers,
        cache: &store.cache,
        shop: &shop,
    };
    let checks = books.check()?;
    Ok(Report {
        reconciled: checks.iter().all(|check| check.ok),
        interrupted: signals::stop_requested(),
        seconds: seconds.as_secs_f64(),
        threads,
        provider: options.provider.name(),
        transactions: transactions(&store.tally),
        events: Events {
            accepted: account.accepted,
            refused: published.refused(),
            completed: account.completed,
            failed: account.failed,
            dead_letters: stats.deliveries.dead,
            retries: stats.retries,
            stored: account.store.events,
            max_stored: held.is_none().then(|| config(threads).max_events as u64),
        },
        subscriptions: subscriptions(&stats),
        cache: cache_use(&store.cache),
        changes,
        checks,
    })
}

impl Where {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Nats => "nats",
        }
    }
}

/// Opens the provider.
fn open(options: &Options, folder: &Path) -> Result<Provider, Undone> {
    let mut config = eventbroker_providers::Config::default();
    let url = match (options.provider, &options.url) {
        (Where::Memory, _) => None,
        (Where::Sqlite, _) => Some(format!("sqlite:{}", folder.join("events.db").display())),
        (Where::Postgres | Where::Redis | Where::Nats, url) => url.clone(),
    };
    if let Some(url) = url {
        // A new table or stream, so that no events of an earlier run are counted.
        let name = format!("demo_{}_{}", jiff::Timestamp::now().as_millisecond(), process::id());
        if options.provider == Where::Redis {
            config.provider = ProviderKind::Redis;
            (config.redis.url, config.redis.stream_name, config.redis.max_len) = (Url::new(url), name, 0);
        } else if options.provider == Where::Nats {
            config.provider = ProviderKind::Nats;
            config.nats_subjects = vec![format!("{name}.>")];
            (config.nats.url, config.nats.stream_name) = (Url::new(url), name);
        } else {
            config.provider = ProviderKind::Database;
            (config.database_url, config.database.table_name) = (Url::new(url), name);
        }
    }
    Ok(eventbroker_providers::open(&config)?)
}

/// Waits until the back end has no open deliveries. `stop` drains only the queues of the broker, not the back end.
fn wait_until_handled(broker: &Broker) -> Result<(), Undone> {
    let deadline = Instant::now() + STOP;
    loop {
        let lag = broker.back_end_stats()?.subscriptions;
        let unflushed = broker.stats().bridge.map_or(0, |bridge| bridge.mirror_backlog);
        if unflushed == 0 && lag.iter().all(|lag| lag.ready + lag.leased + lag.deferred == 0) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            // The report shows what is left.
            return Ok(());
        }
        thread::sleep(TICK);
    }
}

/// Sizes the queues so that one transaction of each clerk fits in their upper half.
fn config(threads: usize) -> eventbroker::Config {
    let capacity = QUEUES.least_capacity.max(2 * threads * MAX_CHANGES as usize);
    let mut config = eventbroker::Config::default();
    config.buffer_size = capacity;
    config.max_waiting = capacity * QUEUES.waiting_per_place;
    config.max_in_flight = QUEUES.max_in_flight;
    config
}

/// The before-hook: rejects orders over `LARGEST_ORDER`.
fn refuse_large_orders(context: &mut eventbroker::hooks::HookContext) -> eventbroker::hooks::HookResult {
    #[derive(serde::Deserialize)]
    struct New {
        total: i64,
    }

    if context.entity != "orders" {
        return Ok(());
    }
    let New { total } = context.data().parse()?;
    if total > shop::LARGEST_ORDER {
        return Err(format!("an order of {total} cents is too large").into());
    }
    Ok(())
}

/// Runs the clerks until the time is over, a signal comes or one of them fails. Returns the time elapsed.
fn open_hours(options: &Options, store: &Store, database: &Path, hooks: &HookRegistry) -> Result<Duration, Undone> {
    let opened = Instant::now();
    let closes = Duration::from_secs(options.seconds);
    thread::scope(|scope| {
        // Stops the clerks on every return path; the scope joins them.
        let _closing = Closing(&store.closing);
        let mut clerks = Vec::new();
        for number in 0..u64::from(options.threads) {
            let clerk = Clerk::new(store, Shop::open(database, hooks, clerk_at(number))?, number);
            let builder = thread::Builder::new().name(format!("clerk-{number}"));
            clerks.push(builder.spawn_scoped(scope, move || clerk.work())?);
        }
        let mut line = LiveLine::new(closes);
        while opened.elapsed() < closes && !signals::stop_requested() && !clerks.iter().any(|it| it.is_finished()) {
            thread::sleep(TICK);
            line.show(opened.elapsed(), store);
        }
        line.clear();
        store.closing.store(true, Ordering::Relaxed);
        for clerk in clerks {
            clerk.join().map_err(|_| "a clerk's thread panicked")??;
        }
        Ok(opened.elapsed())
    })
}

struct Closing<'a>(&'a AtomicBool);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn clerk_at(till: u64) -> HookUser {
    HookUser {
        id: till as i64 + 1,
        name: format!("clerk {}", till + 1),
        email: format!("clerk{}@shop.example", till + 1),
        session: format!("till-{}", till + 1),
        roles: vec!["clerk".to_owned()],
    }
}

fn transactions(tally: &Tally) -> Transactions {
    Transactions {
        committed: tally.committed.load(Ordering::SeqCst),
        rolled_back: tally.rolled_back.load(Ordering::SeqCst),
        vetoed: tally.vetoed.load(Ordering::SeqCst),
        savepoints_rolled_back: tally.savepoints_rolled_back.load(Ordering::SeqCst),
        pauses: tally.pauses.load(Ordering::SeqCst),
    }
}

fn subscriptions(stats: &Stats) -> Vec<Subscription> {
    let of = |it: &eventbroker::stats::SubscriptionStats| Subscription {
        name: it.name.to_string(),
        pattern: it.pattern.to_string(),
        done: it.deliveries.done,
        retries: it.retries,
        dead: it.deliveries.dead,
    };
    stats.subscriptions.iter().map(of).collect()
}

fn cache_use(cache: &Cache) -> CacheUse {
    CacheUse {
        hits: cache.hits.load(Ordering::SeqCst),
        misses: cache.misses.load(Ordering::SeqCst),
        invalidations: cache.invalidations.load(Ordering::SeqCst),
    }
}

/// A temporary folder for the databases, removed on drop.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn create() -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let mut number = 0_u32;
        loop {
            let path = env::temp_dir().join(format!("eventbroker-demo-{}-{number}", process::id()));
            match builder.create(&path) {
                // The name is taken by another program: try the next number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1_000 => number += 1,
                other => return other.map(|()| Self { path }),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // On an error the files stay in the temporary folder of the system.
        let _ = fs::remove_dir_all(&self.path);
    }
}
