//! Telling whether the process that holds something still lives, so that nobody has to wait for a lease of one that has died. Other
//! processes can be seen only within a PID namespace: of those in another one (a container that shares the file) nothing is known.

use std::fs;

/// This process, told from all others of the machine. Empty where the system does not say.
pub(crate) fn this() -> String {
    let namespace = namespace().unwrap_or_default();
    let pid = std::process::id();
    started(pid).map_or_else(String::new, |started| format!("{namespace} {pid} {started}"))
}

/// Whether the process lives whose description a text begins with. `None` if that can't be told from here.
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

/// When a process was started, in the clock ticks of the machine; of one that has ended nothing, also if it was not waited for yet.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may hold anything. Behind it: the state, and 18 fields before the start time.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_running = !matches!(fields.next()?, "Z" | "X");
    fields.nth(18).filter(|_| is_running).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{is_alive, this};
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_runs_lives_and_one_that_has_ended_does_not() {
        assert_eq!(is_alive(&format!("{} and more", this())), Some(true));
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("a process");
        let me = this();
        let (namespace, rest) = me.split_once(' ').expect("a namespace");
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
