use crate::exit::Status;
use crate::output::Format;
use landfall_api_types::ApiError;
use landfall_api_types::resource::{Job, JobState};
use std::fmt::Write as _;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Refused or failed, with code, cause and cure (promise P9).
    #[error("{0}")]
    Api(#[from] ApiError),
    /// A job did not succeed.
    #[error("the job {} did not succeed", .0.kind)]
    Job(Box<Job>),
    /// This machine lacks something.
    #[error("something is missing: {0:?}")]
    Missing(Vec<landfall_demo::Missing>),
    /// The demo's checks failed; its report was printed.
    #[error("a check of the demo failed")]
    Checks,
    /// Anything else: files, programs, roles that could not start.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// What a script sees.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Api(error) => Status::of(error),
            Self::Job(job) if job.state == JobState::NeedsOperator => Status::NeedsOperator,
            Self::Job(_) | Self::Checks | Self::Other(_) => Status::Failed,
            Self::Missing(_) => Status::Missing,
        }
    }

    /// What a person sees on standard error: code, cause, cure.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Json => self.json().to_string(),
            Format::Table => self.text(),
        }
    }

    fn json(&self) -> serde_json::Value {
        let status = self.status() as u8;
        match self {
            Self::Api(error) => serde_json::json!({ "status": status, "error": error }),
            Self::Job(job) => {
                serde_json::json!({ "status": status, "error": job.error, "job": job.id })
            }
            Self::Missing(missing) => serde_json::json!({ "status": status, "missing": missing }),
            Self::Checks | Self::Other(_) => {
                serde_json::json!({ "status": status, "error": { "cause": self.to_string() } })
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Api(error) => refusal(error),
            Self::Job(job) => {
                let state = match job.state {
                    JobState::NeedsOperator => "waits for an operator",
                    JobState::RolledBack => "failed and was undone",
                    JobState::Running | JobState::Succeeded => "has not ended",
                };
                let mut text =
                    format!("job {} ({} of {}) {state}", job.id, job.kind, job.machine_name);
                if let Some(error) = &job.error {
                    let _ = write!(text, "\n{}", refusal(error));
                }
                if job.state == JobState::NeedsOperator {
                    let _ = write!(text, "\n  then:  landfall jobs retry {}", job.id);
                }
                text
            }
            Self::Missing(missing) => {
                let lines = missing.iter().map(ToString::to_string);
                let lines = lines.collect::<Vec<_>>().join("\n");
                format!("{lines}\nnothing was changed")
            }
            Self::Checks | Self::Other(_) => format!("error: {self}"),
        }
    }
}

fn refusal(error: &ApiError) -> String {
    let mut text =
        format!("error [{}]\n  cause: {}\n  cure:  {}", error.code, error.cause, error.cure);
    for (name, value) in &error.details {
        let _ = write!(text, "\n  {name}: {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_api_types::codes;

    fn refused() -> Failure {
        let error = ApiError::new(&codes::WRONG_STATE, "commit is not accepted while protected");
        Failure::Api(error.cure("fail over first").detail("state", "protected"))
    }

    #[test]
    fn a_refusal_shows_code_cause_cure_and_facts() {
        let expected = "error [wrong-state]\n  cause: commit is not accepted while protected\n  \
                        cure:  fail over first\n  state: protected";
        assert_eq!(refused().render(Format::Table), expected);
        assert_eq!(refused().status(), Status::Refused);
    }

    #[test]
    fn a_refusal_in_json_has_the_same_and_the_status() {
        let value: serde_json::Value =
            serde_json::from_str(&refused().render(Format::Json)).unwrap();
        assert_eq!(value["status"], 3);
        assert_eq!(value["error"]["code"], "wrong-state");
        assert_eq!(value["error"]["cure"], "fail over first");
        assert_eq!(value["error"]["details"]["state"], "protected");
    }

    #[test]
    fn a_job_that_waits_says_how_to_go_on() {
        let job = crate::sample::job(JobState::NeedsOperator);
        let failure = Failure::Job(Box::new(job.clone()));
        let text = failure.render(Format::Table);
        assert!(text.contains("waits for an operator"), "{text}");
        assert!(text.contains(&format!("landfall jobs retry {}", job.id)), "{text}");
        assert!(text.contains("error [node-failed]"), "{text}");
        assert_eq!(failure.status(), Status::NeedsOperator);
        let undone = Failure::Job(Box::new(crate::sample::job(JobState::RolledBack)));
        assert_eq!(undone.status(), Status::Failed);
    }

    #[test]
    fn what_is_missing_is_named_with_its_cure() {
        let missing = landfall_demo::Missing { what: "root".into(), cure: "use sudo".into() };
        let failure = Failure::Missing(vec![missing]);
        assert_eq!(failure.render(Format::Table), "missing: root (use sudo)\nnothing was changed");
        assert_eq!(failure.status(), Status::Missing);
    }
}
