//! Whether a process lives, so that a new instance need not wait for the lease of a dead one. Processes are visible only within a PID
//! namespace: nothing is known of those in another container that shares the file.

use std::fs;

/// A description of this process, which no other process of the machine has. Empty if the system does not provide it.
pub(crate) fn current() -> String {
    let namespace = namespace().unwrap_or_default();
    let pid = std::process::id();
    started(pid).map_or_else(String::new, |started| format!("{namespace} {pid} {started}"))
}

/// Whether the process lives whose description `holder` begins with. `None` if the process is not visible from here.
pub(crate) fn is_alive(holder: &str) -> Option<bool> {
    let mut words = holder.split(' ');
    let (there, pid, since) = (words.next()?, words.next()?, words.next()?);
    let is_near = namespace().is_some_and(|here| here == there);
    let pid: u32 = pid.parse().ok().filter(|_| is_near)?;
    Some(started(pid).is_some_and(|started| started == since))
}

fn namespace() -> Option<String> {
    Some(fs::read_link("/proc/self/ns/pid").ok()?.to_str()?.to_owned())
}

/// When a process was started, in the clock ticks of the machine. `None` for a process that has ended, also for a zombie.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may contain anything. The state follows it, then 18 fields and the start time.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_running = !matches!(fields.next()?, "Z" | "X");
    fields.nth(18).filter(|_| is_running).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{current, is_alive};
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_runs_lives_and_one_that_has_ended_does_not() {
        assert_eq!(is_alive(&format!("{} and more", current())), Some(true));
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("a process");
        let this = current();
        let (namespace, rest) = this.split_once(' ').expect("a namespace");
        let started = super::started(child.id()).expect("it runs");
        let holder = format!("{namespace} {} {started}", child.id());
        assert_eq!(is_alive(&holder), Some(true));
        assert_eq!(is_alive(&format!("{namespace} {} 1", child.id())), Some(false), "another one had that number");
        drop(child.stdin.take());
        child.wait().expect("it ends");
        assert_eq!(is_alive(&holder), Some(false));
        assert_eq!(is_alive(&format!("pid:[1] {rest}")), None, "elsewhere nothing can be seen");
        assert_eq!(is_alive(""), None);
    }
}
