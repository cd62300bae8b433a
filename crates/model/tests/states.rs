//! Every pair of state and input against the literal table in `docs/states.md`.

use landfall_model::{Command, Illegal, Input, MachineState, NextStep, accepts, next};
use std::fmt::Write as _;
use std::path::PathBuf;

const BEGIN: &str = "<!-- table: begin -->\n";
const END: &str = "<!-- table: end -->";

fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/states.md")
}

fn table() -> String {
    let mut text = String::from("| | ");
    for state in MachineState::ALL {
        let _ = write!(text, "{state} | ");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(MachineState::ALL.len()));
    text.push('\n');
    for input in Input::all() {
        let kind = if matches!(input, Input::Command(_)) { "`" } else { "*" };
        let _ = write!(text, "| {kind}{input}{kind} | ");
        for state in MachineState::ALL {
            let cell = match next(state, input) {
                Ok(same) if same == state => "✓".to_owned(),
                Ok(other) => format!("→ {other}"),
                Err(_) => "·".to_owned(),
            };
            let _ = write!(text, "{cell} | ");
        }
        text.push('\n');
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Guards P9: what the documents say a state accepts is what it accepts. `UPDATE=1` writes the
/// table anew.
#[test]
fn the_literal_table_names_every_pair() {
    let path = document();
    let text = std::fs::read_to_string(&path).expect("docs/states.md");
    let (before, rest) = text.split_once(BEGIN).expect("begin of the table");
    let (found, after) = rest.split_once(END).expect("end of the table");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table())).expect("write");
        return;
    }
    assert_eq!(found, table(), "run with UPDATE=1 after a wanted change");
}

/// The design's table (section 14.10), literally; `mark`, clean-up, discarding and cancelling are
/// added to it.
#[test]
fn the_designs_commands_are_accepted_where_it_says() {
    use Command::*;
    let design: [(MachineState, &[Command]); 10] = [
        (MachineState::Unprotected, &[Protect]),
        (MachineState::Protecting, &[Disable]),
        (MachineState::Protected, &[TestFailover, Failover, Pause, Disable]),
        (MachineState::FailingOver, &[]),
        (MachineState::FailedOver, &[ChangePoint, Commit, Disable]),
        (MachineState::Committed, &[Reprotect, Disable]),
        (MachineState::Reprotecting, &[Cancel]),
        (MachineState::Reprotected, &[TestFailover, Failback, Pause, Disable]),
        (MachineState::FailingBack, &[]),
        (MachineState::FailedBack, &[ChangePoint, Commit]),
    ];
    let of_the_design =
        [Protect, TestFailover, Failover, ChangePoint, Commit, Reprotect, Failback, Pause, Disable];
    for (state, expected) in design {
        for command in of_the_design {
            let found = next(state, command.into()).is_ok();
            assert_eq!(found, expected.contains(&command), "{state} × {command}");
        }
        for command in expected {
            assert!(accepts(state).contains(command), "{state} × {command}");
        }
    }
}

/// Guards P9: every refusal names the state, what it accepts, and where to go from there.
#[test]
fn every_refusal_says_what_is_accepted_and_what_leads_there() {
    for state in MachineState::ALL {
        for command in Command::ALL {
            let Err(refusal) = next(state, (*command).into()) else { continue };
            assert!(refusal.to_string().contains(state.name()), "{refusal}");
            let cure = refusal.cure();
            for accepted in accepts(state) {
                assert!(cure.contains(accepted.name()), "{state} × {command}: {cure}");
            }
            // Whoever follows the advice gets there.
            if let NextStep::Use(next_command) = refusal.next_step() {
                assert!(next(state, next_command.into()).is_ok(), "{state} × {command}");
            }
            // What is protected already can't be protected; everything else can be reached from
            // everywhere.
            let nowhere = refusal.next_step() == NextStep::Nothing;
            assert_eq!(nowhere, *command == Command::Protect, "{state} × {command}");
        }
    }
    let step = |state, command: Command| Illegal { state, input: command.into() }.next_step();
    use MachineState as S;
    assert_eq!(step(S::Protected, Command::Commit), NextStep::Use(Command::Failover));
    assert_eq!(step(S::FailedOver, Command::Failback), NextStep::Use(Command::Commit));
    assert_eq!(step(S::Committed, Command::Failback), NextStep::Use(Command::Reprotect));
    assert_eq!(step(S::Reprotecting, Command::Failback), NextStep::Wait);
    assert_eq!(step(S::Unprotected, Command::Failover), NextStep::Use(Command::Protect));
}
