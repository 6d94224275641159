//! `config`: the template, the check, the effective values, the schema and the path.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// A temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("eventbroker-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// Runs `config` in the folder, without the environment of the test.
    fn run(&self, arguments: &[&str]) -> crate::support::Run {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> crate::support::Run {
        let output = Command::new(env!("CARGO_BIN_EXE_eventbroker"))
            .arg("config")
            .args(arguments)
            .current_dir(&self.0)
            .env_clear()
            .env("HOME", &self.0)
            .envs(variables.iter().copied())
            .output()
            .expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        crate::support::Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("written");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn init_writes_a_template_that_checks_and_leaves_an_existing_file_alone() {
    let folder = Folder::new("init");
    assert_eq!(folder.run(&["init"]).stdout, "eventbroker.yaml\n");
    assert_eq!(folder.run(&["check"]).stdout, "eventbroker.yaml: ok\n");
    folder.write("eventbroker.yaml", "mine");
    let again = folder.run(&["init"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""));
    assert!(again.stderr.contains("eventbroker.yaml already exists"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(folder.0.join("eventbroker.yaml")).expect("it is there"), "mine");
}

#[test]
fn check_tells_everything_that_is_wrong_and_is_exit_code_1() {
    let folder = Folder::new("check");
    folder.write("app.yaml", "event_broker:\n  worker_cuont: 3\n  buffer_size: -1\n");
    let run = folder.run(&["check", "--file", "app.yaml"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    for expected in ["app.yaml:2:3", "did you mean worker_count?", "app.yaml:3:16", "\"-1\""] {
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
    }
}

#[test]
fn show_prints_each_value_with_its_source_and_no_secret() {
    let folder = Folder::new("show");
    folder.write("config.yaml", "event_broker:\n  worker_count: 3\n  redis:\n    password: hunter2\n");
    let run = folder.run_with(&["show", "--json"], &[("RESOLVESPEC_EVENT_BROKER_REDIS_DB", "5")]);
    let entries: Vec<Value> = serde_json::from_str(&run.stdout).expect("JSON");
    let of = |key: &str| {
        let entry = entries.iter().find(|it| it["key"] == key).expect("every key is shown");
        (entry["value"].as_str().expect("text"), entry["source"].as_str().expect("text"))
    };
    assert_eq!(of("event_broker.worker_count"), ("3", "config.yaml:2"));
    assert_eq!(of("event_broker.redis.db"), ("5", "$RESOLVESPEC_EVENT_BROKER_REDIS_DB"));
    assert_eq!(of("event_broker.redis.password"), ("***", "config.yaml:4"));
    assert_eq!(of("event_broker.buffer_size"), ("1000", "default"));
    let text = folder.run(&["show"]).stdout;
    assert_eq!(text.lines().count(), entries.len());
    assert!(!text.contains("hunter2") && text.contains("***"));
}

#[test]
fn schema_prints_the_committed_schema() {
    let printed: Value = serde_json::from_str(&Folder::new("schema").run(&["schema"]).stdout).expect("JSON");
    let committed = include_str!("../../../bridges/providers/config.schema.json");
    assert_eq!(printed, serde_json::from_str::<Value>(committed).expect("JSON"));
}

#[test]
fn path_prints_the_file_that_is_used() {
    let folder = Folder::new("path");
    let none = folder.run(&["path"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(3), ""));
    assert!(none.stderr.contains("eventbroker.yaml, config.yaml, "), "{}", none.stderr);
    folder.write("config.yaml", "");
    assert_eq!(folder.run(&["path"]).stdout, "config.yaml\n");
    folder.write("eventbroker.yaml", "");
    assert_eq!(folder.run(&["path"]).stdout, "eventbroker.yaml\n");
    folder.write("other.yaml", "");
    let named = folder.run_with(&["path"], &[("EVENTBROKER_CONFIG", "other.yaml")]);
    assert_eq!(named.stdout, "other.yaml\n");
}
