use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::Duration;

/// Environment variable that every process of a run carries, with the run's ID as its value.
///
/// It comes with the process, so whenever the demo is killed, the next start finds every process of
/// it. A PID file leaves a gap between the start and the writing of the file.
pub(crate) const RUN_VARIABLE: &str = "LANDFALL_DEMO_RUN";

/// A process, named so that another one with the same PID is not taken for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Process {
    /// Its PID.
    pub(crate) pid: u32,
    /// Clock ticks from the boot to its start (field 22 of `/proc/PID/stat`).
    pub(crate) start: u64,
}

impl Process {
    /// True while this very process runs (a zombie does not).
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

/// When a process started; none when there is no such process, or only what a dead one left to its
/// parent.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may itself contain both spaces and
    // parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    // Field 3 was the state; field 22 is the 19th of what is left.
    (state != "Z" && state != "X").then(|| fields.nth(18)?.parse().ok()).flatten()
}

/// The processes of a run, the caller left out.
///
/// # Errors
/// When `/proc` can't be read.
pub(crate) fn processes_of(run: &str) -> Result<Vec<Process>> {
    let wanted = format!("{RUN_VARIABLE}={run}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let name = entry.context("read /proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that ended meanwhile, or a kernel thread, has no environment.
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        let is_ours = environment.split(|byte| *byte == 0).any(|item| item == wanted.as_bytes());
        if is_ours && pid != std::process::id() {
            found.extend(start_time(pid).map(|start| Process { pid, start }));
        }
    }
    Ok(found)
}

/// Ends a process at once.
///
/// # Errors
/// When it does not end within ten seconds (it hangs in the kernel).
pub(crate) fn kill(process: Process) -> Result<()> {
    signal(process, Signal::KILL);
    gone(process, Duration::from_secs(10))
}

/// Asks a process to end, and ends it when it does not within `patience`. True when it ended by
/// itself.
///
/// # Errors
/// As [`kill`].
pub(crate) fn terminate(process: Process, patience: Duration) -> Result<bool> {
    signal(process, Signal::TERM);
    if gone(process, patience).is_ok() {
        return Ok(true);
    }
    kill(process).map(|()| false)
}

/// Nothing is sent to a process that is not the one that is meant.
fn signal(process: Process, signal: Signal) {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid.filter(|_| process.is_alive()) {
        // Fails only when it ended in between, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

fn gone(process: Process, patience: Duration) -> Result<()> {
    crate::wait::until_blocking(&format!("process {} ends", process.pid), patience, || {
        Ok((!process.is_alive()).then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn processes_are_found_by_their_run_and_killed() {
        let run = format!("test-{}-{:?}", std::process::id(), std::thread::current().id());
        let mut child =
            Command::new("sleep").arg("100").env(RUN_VARIABLE, &run).spawn().expect("sleep");
        let found = crate::wait::until_blocking("it is listed", Duration::from_secs(5), || {
            // The kernel shows the environment of a new process a moment after its start.
            Ok(processes_of(&run)?.first().copied())
        })
        .unwrap();
        assert_eq!(found.pid, child.id());
        assert!(processes_of("no such run").unwrap().is_empty());
        kill(found).unwrap();
        child.wait().unwrap();
        assert!(!found.is_alive());
        assert!(processes_of(&run).unwrap().is_empty());
    }

    #[test]
    fn another_process_with_the_same_pid_is_left_alone() {
        let start = start_time(std::process::id()).unwrap();
        let impostor = Process { pid: std::process::id(), start: start + 1 };
        assert!(!impostor.is_alive());
        kill(impostor).unwrap();
    }
}
