//! `--exec`: the exit code of the command settles the event. `pipe` prints the completed events.

use crate::support::{event, run};
use serde_json::json;

#[test]
fn the_exit_code_is_the_verdict() {
    let input: String = ["ok", "later", "never"].iter().map(|id| event(id, "a.b.c", &json!(id))).collect();
    // The command succeeds, fails permanently, or asks for one retry. The folder records the first attempt.
    let memory = std::env::temp_dir().join(format!("eventbroker-exec-{}", std::process::id()));
    std::fs::create_dir_all(&memory).expect("a temporary folder");
    let command = format!(
        r#"read -r line; case "$line" in
            *'"ok"'*) exit 0;;
            *'"later"'*) mkdir '{0}/seen' 2>/dev/null && exit 75; exit 0;;
            *) echo "said on stdout"; exit 3;;
        esac"#,
        memory.display()
    );
    let out = run(&["pipe", "--pattern", "*", "--exec", &command, "--status"], &input);
    std::fs::remove_dir_all(&memory).expect("it was made");

    let (events, statuses): (Vec<_>, Vec<_>) = out.lines().into_iter().partition(|line| line.get("payload").is_some());
    let mut done: Vec<_> = events.iter().map(|line| line["id"].as_str().expect("an id").to_owned()).collect();
    done.sort();
    assert_eq!(done, ["later", "ok"]);
    let status = |id: &str| statuses.iter().find(|line| line["id"] == id).expect("each event has a status").clone();
    assert_eq!(status("ok")["status"], "completed");
    assert_eq!(status("later")["deliveries"][0]["attempts"], 2);
    assert_eq!(status("never")["status"], "failed");
    assert_eq!(
        status("never")["deliveries"],
        json!([{ "pattern": "*", "verdict": "failed", "attempts": 1, "error": "the command failed with exit code 3" }])
    );
    assert_eq!((out.code, statuses.len()), (Some(6), 3));
    // The command ran once for the failed event: the broker's dead-letter event is not part of the input.
    assert_eq!(out.stderr.matches("said on stdout").count(), 1, "{}", out.stderr);
}

#[test]
fn all_done_is_exit_code_0() {
    let input: String = (0..50).map(|id| event(&id.to_string(), "a.b.c", &json!(id))).collect();
    let out = run(&["pipe", "--pattern", "*", "--exec", "cat > /dev/null"], &input);
    assert_eq!((out.code, out.lines().len()), (Some(0), 50), "{}", out.stderr);
}

#[test]
fn a_command_may_leave_its_input_unread() {
    let input = event("1", "a.b.c", &"x".repeat(500_000).into());
    let out = run(&["pipe", "--pattern", "*", "--exec", "true"], &input);
    assert_eq!((out.code, out.lines().len()), (Some(0), 1), "{}", out.stderr);
}

#[test]
fn a_command_ended_by_a_signal_has_failed() {
    let out = run(&["pipe", "--pattern", "*", "--exec", "kill -9 $$", "--status"], &event("1", "a.b.c", &json!(1)));
    assert_eq!(out.lines()[0]["deliveries"][0]["error"], "the command was killed by signal 9");
    assert_eq!(out.code, Some(6));
}

#[test]
fn slow_commands_hold_the_input_up_and_lose_nothing() {
    let input: String = (0..24).map(|id| event(&id.to_string(), "a.b.c", &json!(id))).collect();
    // Each command takes longer than the reader waits for room in a full queue.
    let out = run(&["pipe", "--pattern", "*", "--exec", "sleep 0.3"], &input);
    assert_eq!((out.code, out.lines().len()), (Some(0), 24), "{}", out.stderr);
}
