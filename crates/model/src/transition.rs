//! The one transition function of protected machines (design section 14.10).

use crate::MachineState;
use std::fmt;

/// What an operator can ask of a machine.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Begin the first copy.
    Protect,
    /// Make and serve a test branch; changes no state.
    TestFailover,
    /// Give a branch at the recovery site authority.
    Failover,
    /// Another branch instead.
    ChangePoint,
    /// The branch is the machine from now on.
    Commit,
    /// Turn replication around.
    Reprotect,
    /// Give a reprotect up.
    Cancel,
    /// Bring the machine home.
    Failback,
    /// Stop sending for a while.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Put a named marker into the log; changes no state.
    Mark,
    /// End protection.
    Disable,
}

impl Command {
    /// Every command, in the order of the cycle.
    pub const ALL: [Self; 12] = [
        Self::Protect,
        Self::TestFailover,
        Self::Failover,
        Self::ChangePoint,
        Self::Commit,
        Self::Reprotect,
        Self::Cancel,
        Self::Failback,
        Self::Pause,
        Self::Resume,
        Self::Mark,
        Self::Disable,
    ];

    /// As it stands in the API and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::TestFailover => "test-failover",
            Self::Failover => "failover",
            Self::ChangePoint => "change-point",
            Self::Commit => "commit",
            Self::Reprotect => "reprotect",
            Self::Cancel => "cancel",
            Self::Failback => "failback",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Mark => "mark",
            Self::Disable => "disable",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a job or a reconciler has found to be so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The target reports a durable legal point: the window of the first copy, or of the way home, is closed.
    WindowClosed,
    /// A failover's branch has authority and is served.
    FailoverDone,
    /// A failover was given up before anything was promoted.
    FailoverGivenUp,
    /// Home has authority.
    FailbackDone,
    /// A failback was given up before home was promoted.
    FailbackGivenUp,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 5] = [
        Self::WindowClosed,
        Self::FailoverDone,
        Self::FailoverGivenUp,
        Self::FailbackDone,
        Self::FailbackGivenUp,
    ];
}

/// A command that the state does not accept.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a machine that is {state} does not accept {command}")]
pub struct Refused {
    /// Where the machine stands.
    pub state: MachineState,
    /// What was asked.
    pub command: Command,
}

impl Refused {
    /// What to do instead, in a sentence for an operator.
    #[must_use]
    pub fn cure(&self) -> String {
        let accepted: Vec<_> = accepts(self.state).map(Command::name).collect();
        if accepted.is_empty() {
            return "wait for the running job (`landfall jobs`); it ends succeeded, rolled back, \
                    or waiting for you"
                .to_owned();
        }
        let hint = first_step(self.state, self.command).map_or_else(String::new, |step| {
            format!("; the way to {} begins with {step}", self.command)
        });
        format!("accepted now: {}{hint}", accepted.join(", "))
    }
}

/// An event that can't happen in this state: a defect, never an operator's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("event {event:?} can't happen to a machine that is {state}")]
pub struct IllegalEvent {
    /// Where the machine stands.
    pub state: MachineState,
    /// What was claimed.
    pub event: Event,
}

/// The state after an accepted command.
///
/// # Errors
/// [`Refused`], with the cure in [`Refused::cure`].
// tidy: table
pub const fn on_command(state: MachineState, command: Command) -> Result<MachineState, Refused> {
    use Command as C;
    use MachineState as S;
    Ok(match (state, command) {
        (S::Unprotected, C::Protect) => S::Protecting,

        (S::Protecting, C::Disable) => S::Unprotected,

        (S::Protected, C::TestFailover | C::Pause | C::Resume | C::Mark) => S::Protected,
        (S::Protected, C::Failover) => S::FailingOver,
        (S::Protected, C::Disable) => S::Unprotected,

        (S::FailedOver, C::ChangePoint) => S::FailedOver,
        (S::FailedOver, C::Commit) => S::Committed,
        (S::FailedOver, C::Disable) => S::Unprotected,

        (S::Committed, C::Reprotect) => S::Reprotecting,
        (S::Committed, C::Disable) => S::Unprotected,

        (S::Reprotecting, C::Cancel) => S::Committed,

        (S::Reprotected, C::TestFailover | C::Pause | C::Resume) => S::Reprotected,
        (S::Reprotected, C::Failback) => S::FailingBack,
        (S::Reprotected, C::Disable) => S::Unprotected,

        // A change of point after failback is accepted by the state, and refused by trap T-13 where the
        // home disks have been written without a snapshot.
        (S::FailedBack, C::ChangePoint) => S::FailedBack,
        // Protected again without a first copy: by way of protecting, until the target reports a legal point.
        (S::FailedBack, C::Commit) => S::Protecting,

        (state, command) => return Err(Refused { state, command }),
    })
}

/// The state after an event.
///
/// # Errors
/// [`IllegalEvent`]: a defect.
pub const fn on_event(state: MachineState, event: Event) -> Result<MachineState, IllegalEvent> {
    use Event as E;
    use MachineState as S;
    Ok(match (state, event) {
        (S::Protecting, E::WindowClosed) => S::Protected,
        (S::Reprotecting, E::WindowClosed) => S::Reprotected,
        (S::FailingOver, E::FailoverDone) => S::FailedOver,
        (S::FailingOver, E::FailoverGivenUp) => S::Protected,
        (S::FailingBack, E::FailbackDone) => S::FailedBack,
        (S::FailingBack, E::FailbackGivenUp) => S::Reprotected,
        (state, event) => return Err(IllegalEvent { state, event }),
    })
}

/// The commands that a state accepts.
pub fn accepts(state: MachineState) -> impl Iterator<Item = Command> {
    Command::ALL.into_iter().filter(move |command| on_command(state, *command).is_ok())
}

/// True while a job alone moves the machine on.
#[must_use]
pub const fn is_transient(state: MachineState) -> bool {
    matches!(state, MachineState::FailingOver | MachineState::FailingBack)
}

/// The first command on the shortest way from `state` to one that accepts `wanted`, if commands lead there.
fn first_step(state: MachineState, wanted: Command) -> Option<Command> {
    let mut queue = std::collections::VecDeque::from([(state, None)]);
    let mut seen = vec![state];
    while let Some((at, first)) = queue.pop_front() {
        if on_command(at, wanted).is_ok() {
            return first;
        }
        // Ending protection leads everywhere, and is never the advice.
        let commands = accepts(at).filter(|command| *command != Command::Disable);
        let by_command =
            commands.map(|command| (on_command(at, command).ok(), first.or(Some(command))));
        let by_event = Event::ALL.map(|event| (on_event(at, event).ok(), first));
        for (next, first) in by_command.chain(by_event) {
            if let Some(next) = next.filter(|next| !seen.contains(next)) {
                seen.push(next);
                queue.push_back((next, first));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
