//! `config`: template, check, effective values, JSON Schema, and the path of the file in use. The keys themselves are
//! defined in `eventbroker-providers`.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use eventbroker_providers::{Loaded, Loader};

use crate::exit::{Exit, Failure};
use crate::print;

const EXAMPLES: &str = "\
Examples:
  eventbroker config init
  eventbroker config check --file config.yaml
  eventbroker config show --json";

/// Options of `config`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a commented template; fail if the file exists
    Init {
        /// File to create; `-` for standard output
        #[arg(default_value = "eventbroker.yaml")]
        file: PathBuf,
    },
    /// Check a configuration, and report every error with its line
    Check(File),
    /// Print the effective values with the source of each; secrets are hidden
    Show(File),
    /// Print the JSON Schema of a configuration file, for editors
    Schema,
    /// Print the path of the file in use
    Path(File),
}

#[derive(Debug, Args)]
struct File {
    /// Configuration file [default: the first of ./eventbroker.yaml, ./config.yaml,
    /// $XDG_CONFIG_HOME/eventbroker/config.yaml]
    #[arg(long, env = "EVENTBROKER_CONFIG")]
    file: Option<PathBuf>,
}

impl File {
    /// The paths to search for a file, in order of precedence.
    fn candidates() -> Vec<PathBuf> {
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
        let user = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
        let mut candidates = vec![PathBuf::from("eventbroker.yaml"), PathBuf::from("config.yaml")];
        candidates.extend(user.map(|folder| folder.join("eventbroker").join("config.yaml")));
        candidates
    }

    /// The file in use: the one given, or the first candidate that exists.
    fn find(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| Self::candidates().into_iter().find(|it| it.is_file()))
    }

    /// Loads the configuration. Without a file: the defaults and the environment.
    fn load(&self) -> Result<Loaded, Failure> {
        let loader = match self.find() {
            Some(path) => Loader::new().file(path),
            None => Loader::new(),
        };
        Ok(loader.load()?)
    }
}

/// Runs the subcommand.
///
/// # Errors
/// The configuration is invalid, or a file cannot be written.
pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    match &options.verb {
        Verb::Init { file } => init(file),
        Verb::Check(file) => check(file, json),
        Verb::Show(file) => show(&file.load()?, json),
        Verb::Schema => print_json(&eventbroker_providers::schema()),
        Verb::Path(file) => path(file),
    }
}

fn init(file: &Path) -> Result<Exit, Failure> {
    let template = eventbroker_providers::template();
    if file == Path::new("-") {
        return print(template.as_bytes());
    }
    let name = file.display();
    let mut out = OpenOptions::new().write(true).create_new(true).open(file).map_err(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            Failure::new(format_args!("{name} already exists; not overwritten"))
        } else {
            Failure::new(format_args!("cannot create {name}: {error}"))
        }
    })?;
    out.write_all(template.as_bytes()).map_err(|error| {
        // A partial template would make the next `init` fail.
        let _ = fs::remove_file(file);
        Failure::new(format_args!("cannot write {name}: {error}"))
    })?;
    print(format!("{name}\n").as_bytes())
}

fn check(file: &File, json: bool) -> Result<Exit, Failure> {
    file.load()?;
    let checked = file.find().map(|path| path.display().to_string());
    if json {
        return print_json(&serde_json::json!({ "ok": true, "file": checked }));
    }
    print(format!("{}: ok\n", checked.as_deref().unwrap_or("defaults and environment")).as_bytes())
}

fn show(loaded: &Loaded, json: bool) -> Result<Exit, Failure> {
    let entries = loaded.entries();
    if json {
        let entry = |it: &eventbroker_providers::Entry| serde_json::json!({ "key": it.key, "value": it.value, "source": it.origin.to_string() });
        return print_json(&entries.iter().map(entry).collect());
    }
    let keys = entries.iter().map(|it| it.key.len()).max().unwrap_or(0);
    let values = entries.iter().map(|it| it.value.len()).max().unwrap_or(0);
    let line = |it: &eventbroker_providers::Entry| format!("{:keys$}  {:values$}  {}\n", it.key, it.value, it.origin);
    print(entries.iter().map(line).collect::<String>().as_bytes())
}

fn path(file: &File) -> Result<Exit, Failure> {
    if let Some(path) = file.find().filter(|path| path.is_file()) {
        return print(format!("{}\n", path.display()).as_bytes());
    }
    let looked = file.file.clone().map_or_else(File::candidates, |file| vec![file]);
    let names: Vec<_> = looked.iter().map(|it| it.display().to_string()).collect();
    Err(Failure { exit: Exit::NotFound, message: format!("no configuration file; searched {}", names.join(", ")) })
}

pub(crate) fn print_json(value: &serde_json::Value) -> Result<Exit, Failure> {
    print(format!("{value:#}\n").as_bytes())
}
