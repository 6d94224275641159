//! `config`: a template, a check, the effective values, the JSON Schema, and which file is used. What the keys are is told by
//! `eventbroker-providers`.

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

/// What `config` can be told.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a commented template; an existing file is left alone
    Init {
        /// Where to; `-` is standard output
        #[arg(default_value = "eventbroker.yaml")]
        file: PathBuf,
    },
    /// Tell everything that is wrong with a configuration, each with its line
    Check(File),
    /// Print the effective values, and where each came from; secrets are hidden
    Show(File),
    /// Print the JSON Schema of a configuration file, for editors
    Schema,
    /// Print which file is used
    Path(File),
}

#[derive(Debug, Args)]
struct File {
    /// The configuration file; without it ./eventbroker.yaml, ./config.yaml and the user's own are looked for
    #[arg(long, env = "EVENTBROKER_CONFIG")]
    file: Option<PathBuf>,
}

impl File {
    /// Where a file is looked for, the first one counts.
    fn candidates() -> Vec<PathBuf> {
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
        let user = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
        let mut candidates = vec![PathBuf::from("eventbroker.yaml"), PathBuf::from("config.yaml")];
        candidates.extend(user.map(|folder| folder.join("eventbroker").join("config.yaml")));
        candidates
    }

    /// The file that is used, if there is one.
    fn find(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| Self::candidates().into_iter().find(|it| it.is_file()))
    }

    /// The configuration; without a file the defaults and the environment.
    fn load(&self) -> Result<Loaded, Failure> {
        let loader = match self.find() {
            Some(path) => Loader::new().file(path),
            None => Loader::new(),
        };
        Ok(loader.load()?)
    }
}

/// Does what is asked for.
///
/// # Errors
/// The configuration is wrong, or a file cannot be written.
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
            Failure::new(format_args!("{name} is there already and is left as it is"))
        } else {
            Failure::new(format_args!("cannot create {name}: {error}"))
        }
    })?;
    out.write_all(template.as_bytes()).map_err(|error| {
        // Half a template would be in the way of the next try.
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
    Err(Failure { exit: Exit::NotFound, message: format!("no configuration file; looked for {}", names.join(", ")) })
}

pub(crate) fn print_json(value: &serde_json::Value) -> Result<Exit, Failure> {
    print(format!("{value:#}\n").as_bytes())
}
