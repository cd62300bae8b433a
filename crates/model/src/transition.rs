//! The states of a protected machine (design section 14.10).
//!
//! ```text
//! unprotected ─ protect ─► protecting ─► protected ─ failover ─► failing-over ─► failed-over ─ commit ─► committed
//!                              ▲                                                                            │
//!                              │                                                                        reprotect
//!                            commit                                                                         ▼
//!                          failed-back ◄─ failing-back ◄─ failback ─ reprotected ◄───────────────── reprotecting
//! ```

use crate::MachineState::{
    Committed, FailedBack, FailedOver, FailingBack, FailingOver, Protected, Protecting,
    Reprotected, Reprotecting, Unprotected,
};
use crate::{Command, Event, Input, MachineState};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;

/// The only way a machine changes its state. A command that starts a job without changing the state
/// (test failover, commit, disable) gives the same state: the event at the job's end changes it.
///
/// # Errors
/// [`Illegal`] for every pair that the table does not have.
// tidy: table
pub fn next(state: MachineState, input: Input) -> Result<MachineState, Illegal> {
    let illegal = Err(Illegal { state, input });
    match input {
        Input::Command(command) => match (command, state) {
            (Command::Protect, Unprotected) => Ok(Protecting),
            (Command::TestFailover, Protected | Reprotected) => Ok(state),
            (
                Command::TestCleanUp,
                Protecting | Protected | FailedOver | Committed | Reprotecting | Reprotected
                | FailedBack,
            ) => Ok(state),
            (Command::Failover, Protected) => Ok(FailingOver),
            // At home the change is subject to trap T-13 as well.
            (Command::ChangePoint, FailedOver | FailedBack) => Ok(state),
            (Command::Commit, FailedOver | FailedBack) => Ok(state),
            (Command::Reprotect, Committed) => Ok(Reprotecting),
            (Command::Failback, Reprotected) => Ok(FailingBack),
            // Whether a failover or failback can still be given up depends on its job.
            (Command::Cancel, FailingOver | Reprotecting | FailingBack) => Ok(state),
            (Command::Pause | Command::Resume, Protected | Reprotected) => Ok(state),
            (Command::Mark, Protected) => Ok(state),
            (Command::DiscardDivergence, Protected | Committed | Reprotected) => Ok(state),
            (Command::Disable, Protecting | Protected | FailedOver | Committed | Reprotected) => {
                Ok(state)
            }
            _ => illegal,
        },
        Input::Event(event) => match (event, state) {
            (Event::PointDurable, Protecting) => Ok(Protected),
            (Event::Promoted, FailingOver) => Ok(FailedOver),
            (Event::FailoverGivenUp, FailingOver) => Ok(Protected),
            (Event::Committed, FailedOver) => Ok(Committed),
            (Event::Committed, FailedBack) => Ok(Protecting),
            (Event::HomePointDurable, Reprotecting) => Ok(Reprotected),
            (Event::ReprotectGivenUp, Reprotecting) => Ok(Committed),
            (Event::Released, FailingBack) => Ok(FailedBack),
            (Event::FailbackGivenUp, FailingBack) => Ok(Reprotected),
            (Event::Disabled, Protecting | Protected | FailedOver | Committed | Reprotected) => {
                Ok(Unprotected)
            }
            _ => illegal,
        },
    }
}

/// The commands that a state accepts, in the order of [`Command::ALL`].
#[must_use]
pub fn accepts(state: MachineState) -> Vec<Command> {
    let accepted = |command: &Command| next(state, Input::Command(*command)).is_ok();
    Command::ALL.iter().copied().filter(accepted).collect()
}

/// A pair of state and input that the table does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Illegal {
    /// Where the machine stands.
    pub state: MachineState,
    /// What was asked for or is said to have happened.
    pub input: Input,
}

/// What leads towards a refused command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextStep {
    /// An operator's command.
    Use(Command),
    /// Nothing but time: a job or a catch-up is under way.
    Wait,
    /// Nothing: the command is never accepted after this state.
    Nothing,
}

impl Illegal {
    /// The first step of the shortest way to a state that accepts the command.
    #[must_use]
    pub fn next_step(&self) -> NextStep {
        let mut seen = BTreeSet::from([self.state]);
        let mut queue: VecDeque<(MachineState, Option<NextStep>)> =
            VecDeque::from([(self.state, None)]);
        while let Some((state, first)) = queue.pop_front() {
            if let Some(first) = first
                && next(state, self.input).is_ok()
            {
                return first;
            }
            for (step, after) in steps(state) {
                if seen.insert(after) {
                    queue.push_back((after, first.or(Some(step))));
                }
            }
        }
        NextStep::Nothing
    }

    /// What an operator can do.
    #[must_use]
    pub fn cure(&self) -> String {
        let accepted: Vec<_> = accepts(self.state).iter().map(|command| command.name()).collect();
        let accepted = match accepted.as_slice() {
            [] => "it accepts no command".to_owned(),
            names => format!("it accepts {}", names.join(", ")),
        };
        let state = self.state;
        match self.next_step() {
            NextStep::Use(command) => {
                format!("{accepted}; towards `{}` use `{command}` next", self.input)
            }
            NextStep::Wait => format!("{accepted}; wait until it is no longer {state}"),
            NextStep::Nothing => accepted,
        }
    }
}

/// Where a state leads: by the command whose job ends in a new state, or by waiting. Commands that
/// end protection or give something up are no way to anything.
fn steps(state: MachineState) -> Vec<(NextStep, MachineState)> {
    let forward = [
        (Command::Protect, None),
        (Command::Failover, None),
        (Command::Commit, Some(Event::Committed)),
        (Command::Reprotect, None),
        (Command::Failback, None),
    ];
    let by_command = forward.into_iter().filter_map(|(command, end)| {
        let after = next(state, command.into()).ok()?;
        let after = end.map_or(Ok(after), |event| next(after, event.into())).ok()?;
        Some((NextStep::Use(command), after))
    });
    let waiting = [Event::PointDurable, Event::Promoted, Event::HomePointDurable, Event::Released];
    let by_waiting = waiting
        .into_iter()
        .filter_map(|event| Some((NextStep::Wait, next(state, event.into()).ok()?)));
    by_command.chain(by_waiting).collect()
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a machine that is {} does not accept `{}`", self.state, self.input)
    }
}

impl std::error::Error for Illegal {}

impl Illegal {
    /// Nothing was changed; an operator must do something else first.
    #[must_use]
    pub const fn class(&self) -> landfall_types::Class {
        match self.input {
            Input::Command(_) => landfall_types::Class::Permanent,
            // Events come from our own jobs: one that does not fit is a defect.
            Input::Event(_) => landfall_types::Class::Bug,
        }
    }
}
