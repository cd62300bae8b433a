use super::*;
use crate::MachineState as S;
use Command as C;

/// Design section 14.10, typed in by hand: the function must say exactly this and refuse all else.
// tidy: table
const COMMANDS: &[(S, C, S)] = &[
    (S::Unprotected, C::Protect, S::Protecting),
    (S::Protecting, C::Disable, S::Unprotected),
    (S::Protected, C::TestFailover, S::Protected),
    (S::Protected, C::Failover, S::FailingOver),
    (S::Protected, C::Pause, S::Protected),
    (S::Protected, C::Resume, S::Protected),
    (S::Protected, C::Mark, S::Protected),
    (S::Protected, C::Disable, S::Unprotected),
    (S::FailedOver, C::ChangePoint, S::FailedOver),
    (S::FailedOver, C::Commit, S::Committed),
    (S::FailedOver, C::Disable, S::Unprotected),
    (S::Committed, C::Reprotect, S::Reprotecting),
    (S::Committed, C::Disable, S::Unprotected),
    (S::Reprotecting, C::Cancel, S::Committed),
    (S::Reprotected, C::TestFailover, S::Reprotected),
    (S::Reprotected, C::Failback, S::FailingBack),
    (S::Reprotected, C::Pause, S::Reprotected),
    (S::Reprotected, C::Resume, S::Reprotected),
    (S::Reprotected, C::Disable, S::Unprotected),
    (S::FailedBack, C::ChangePoint, S::FailedBack),
    (S::FailedBack, C::Commit, S::Protecting),
];

const EVENTS: &[(S, Event, S)] = &[
    (S::Protecting, Event::WindowClosed, S::Protected),
    (S::Reprotecting, Event::WindowClosed, S::Reprotected),
    (S::FailingOver, Event::FailoverDone, S::FailedOver),
    (S::FailingOver, Event::FailoverGivenUp, S::Protected),
    (S::FailingBack, Event::FailbackDone, S::FailedBack),
    (S::FailingBack, Event::FailbackGivenUp, S::Reprotected),
];

#[test]
fn every_state_and_command_is_as_the_table_says() {
    for state in S::ALL {
        for command in C::ALL {
            let expected = COMMANDS.iter().find(|row| row.0 == state && row.1 == command);
            let expected = expected.map(|row| row.2).ok_or(Refused { state, command });
            assert_eq!(on_command(state, command), expected, "{state} × {command}");
        }
    }
}

#[test]
fn every_state_and_event_is_as_the_table_says() {
    for state in S::ALL {
        for event in Event::ALL {
            let expected = EVENTS.iter().find(|row| row.0 == state && row.1 == event);
            let expected = expected.map(|row| row.2).ok_or(IllegalEvent { state, event });
            assert_eq!(on_event(state, event), expected, "{state} × {event:?}");
        }
    }
}

#[test]
fn a_refusal_names_what_is_accepted_and_where_to_begin() {
    let refused = on_command(S::Protected, C::Commit).expect_err("protected is not failed over");
    assert_eq!(
        refused.cure(),
        "accepted now: test-failover, failover, pause, resume, mark, disable; \
         the way to commit begins with failover"
    );
    let refused = on_command(S::Committed, C::Failback).expect_err("nothing goes home yet");
    assert!(refused.cure().ends_with("the way to failback begins with reprotect"));
    let refused = on_command(S::FailingOver, C::Commit).expect_err("the job runs");
    assert!(refused.cure().starts_with("wait for the running job"));
}

#[test]
fn names_are_those_of_the_api() {
    for command in C::ALL {
        let json = serde_json::to_string(&command).expect("a command is plain");
        assert_eq!(json, format!("{:?}", command.name()));
    }
    for state in S::ALL {
        let json = serde_json::to_string(&state).expect("a state is plain");
        assert_eq!(json, format!("{:?}", state.name()));
    }
}
