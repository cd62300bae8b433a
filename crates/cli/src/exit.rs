//! Exit statuses: what a script can go by without reading texts. `docs/operate/cli.md` has the same
//! table.

use landfall_api_types::{ApiError, codes};
use landfall_types::Class;

/// How the program ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line is not understood.
    Usage = 2,
    /// Refused before anything was changed, with a code.
    Refused = 3,
    /// A job waits for a person.
    NeedsOperator = 4,
    /// Somebody does not answer; nothing is known to be wrong otherwise.
    Unreachable = 5,
    /// This machine lacks something.
    Missing = 6,
    /// Stored data is not what was written.
    Corrupt = 7,
}

impl Status {
    /// Every status with what it means.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Ok, "done"),
        (Self::Failed, "it was tried and failed, or a check failed"),
        (Self::Usage, "the command line is not understood"),
        (Self::Refused, "refused before anything was changed; the code says why"),
        (
            Self::NeedsOperator,
            "a job waits for a person; mend what it says, then `landfall jobs retry ID`",
        ),
        (Self::Unreachable, "a server does not answer; try again"),
        (Self::Missing, "this machine lacks something; nothing was changed"),
        (Self::Corrupt, "stored data is not what was written"),
    ];

    /// Of a refusal or failure of the API.
    #[must_use]
    pub fn of(error: &ApiError) -> Self {
        let code = error.registered();
        if [codes::SERVER_UNREACHABLE.name, codes::NODE_SILENT.name].contains(&code.name) {
            return Self::Unreachable;
        }
        match code.class {
            Class::Corrupt => Self::Corrupt,
            Class::Bug => Self::Failed,
            Class::Transient | Class::Permanent | Class::Fenced => match code.status {
                400..500 => Self::Refused,
                _ => Self::Failed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_that_is_not_success() {
        for code in codes::ALL {
            let status = Status::of(&ApiError::new(code, "cause"));
            assert!(![Status::Ok, Status::Usage].contains(&status), "{}", code.name);
        }
    }

    #[test]
    fn refusals_and_silence_are_told_apart() {
        let status = |code| Status::of(&ApiError::new(code, "cause"));
        assert_eq!(status(&codes::WRONG_STATE), Status::Refused);
        assert_eq!(status(&codes::FENCED), Status::Refused);
        assert_eq!(status(&codes::SERVER_UNREACHABLE), Status::Unreachable);
        assert_eq!(status(&codes::NODE_SILENT), Status::Unreachable);
        assert_eq!(status(&codes::NODE_FAILED), Status::Failed);
        assert_eq!(status(&codes::INTERNAL), Status::Failed);
        assert_eq!(status(&codes::VERIFY_FAILED), Status::Corrupt);
    }
}
