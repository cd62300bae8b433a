//! Policies, pins, names, what is kept, and alerts.

use super::Remote;
use crate::args::{AlertCommand, PointCommand, PolicyCommand, PolicyValues};
use crate::failure::Failure;
use crate::output::{self, bytes, facts, seconds, table, time};
use landfall_api_types::alert::{Alert, AlertFilter, Severity};
use landfall_api_types::resource::Point;
use landfall_api_types::retention::{
    Hold, Note, NotePoint, Outlook, Policy, PutPolicy, RPO_S_DEFAULT, RetentionStatus,
};
use landfall_types::RetentionPolicy;

/// `landfall policy`.
pub(super) async fn policy(remote: &Remote, command: PolicyCommand) -> Result<(), Failure> {
    let client = &remote.client;
    let policy = match command {
        PolicyCommand::List => {
            output::print(remote.format, &client.policies().await?, |all| policies(all));
            return Ok(());
        }
        PolicyCommand::Remove { name } => return Ok(client.remove_policy(&name).await?),
        PolicyCommand::Show { name } => client.policy(&name).await?,
        PolicyCommand::Assign { machine, policy } => {
            client.assign_policy(&machine, &policy).await?
        }
        PolicyCommand::Create { name, values } => {
            let base = PutPolicy {
                retention: RetentionPolicy::default(),
                rpo_s: RPO_S_DEFAULT,
                new: true,
            };
            client.put_policy(&name, &changed(base, values)).await?
        }
        PolicyCommand::Set { name, values } => {
            let Policy { retention, rpo_s, .. } = client.policy(&name).await?;
            let base = PutPolicy { retention, rpo_s, new: false };
            client.put_policy(&name, &changed(base, values)).await?
        }
    };
    output::print(remote.format, &policy, |policy| policies(std::slice::from_ref(policy)));
    Ok(())
}

fn changed(mut base: PutPolicy, values: PolicyValues) -> PutPolicy {
    base.retention.keep_s = values.retention.unwrap_or(base.retention.keep_s);
    if let Some(limit) = values.size {
        base.retention.size_bytes = limit.0;
    }
    if let Some(tiers) = values.thinning {
        base.retention.thinning = tiers.0;
    }
    base.rpo_s = values.rpo.unwrap_or(base.rpo_s);
    base
}

/// `landfall point`.
pub(super) async fn point(remote: &Remote, command: PointCommand) -> Result<(), Failure> {
    let (machine, point, note) = match command {
        PointCommand::Create(args) => return super::point::mark(remote, args).await,
        PointCommand::Pin { machine, point, for_s } => (machine, point, Note::Pin { for_s }),
        PointCommand::Unpin { machine, point } => (machine, point, Note::Unpin),
        PointCommand::Name { machine, new_name, point, .. } => {
            (machine, point, Note::Name { name: new_name })
        }
    };
    let ask = NotePoint { point: point.choice(), note };
    let point = remote.client.note_point(&machine, &ask).await?;
    output::print(remote.format, &point, noted);
    Ok(())
}

fn noted(point: &Point) -> String {
    let name = point.name.as_ref().map_or_else(String::new, |name| format!(", named {name:?}"));
    let pinned = if point.pinned { ", pinned" } else { "" };
    format!("LSN {} of {}{name}{pinned}", point.lsn, time(point.time))
}

/// `landfall points --holds`.
pub(super) async fn holds(remote: &Remote, machine: &str) -> Result<(), Failure> {
    output::print(remote.format, &remote.client.holds(machine).await?, |all| held(all));
    Ok(())
}

fn held(all: &[Hold]) -> String {
    let rows = all.iter().map(|hold| {
        vec![hold.lsn.to_string(), hold.kind.clone(), hold.name.clone(), hold.until.clone()]
    });
    table(&["kept from LSN", "because of", "whose", "until"], rows)
}

/// `landfall alert`.
pub(super) async fn alert(remote: &Remote, command: AlertCommand) -> Result<(), Failure> {
    let AlertCommand::List { machine, code, all, before, limit } = command;
    let filter = AlertFilter { cleared: all, machine, code, before, limit };
    output::print(remote.format, &remote.client.alerts(&filter).await?, |all| alerts(all));
    Ok(())
}

fn alerts(all: &[Alert]) -> String {
    if all.is_empty() {
        return "no alerts".to_owned();
    }
    let rows = all.iter().map(|alert| {
        let severity = match alert.severity {
            Severity::Warning => "warning",
            Severity::Critical => "CRITICAL",
        };
        vec![
            alert.id.to_string(),
            severity.to_owned(),
            alert.code.clone(),
            alert.machine.clone().or_else(|| alert.server.clone()).unwrap_or_default(),
            time(alert.raised),
            alert.cleared.map_or_else(|| "holds".to_owned(), time),
            alert.cause.clone(),
        ]
    });
    table(&["id", "severity", "code", "of", "raised", "cleared", "cause"], rows)
}

fn policies(all: &[Policy]) -> String {
    let rows = all.iter().map(|policy| {
        let RetentionPolicy { keep_s, size_bytes, thinning } = &policy.retention;
        let tiers: Vec<String> = thinning.iter().map(ToString::to_string).collect();
        vec![
            policy.name.clone(),
            seconds(*keep_s as f64),
            size_bytes.map_or_else(|| "–".to_owned(), bytes),
            tiers.join(", "),
            seconds(policy.rpo_s as f64),
            policy.machines.join(", "),
        ]
    });
    table(&["policy", "retention", "size", "thinning", "RPO", "machines"], rows)
}

/// What `status` says about history: "about 9 h left of 24 h" where it will not fit.
pub(super) fn kept(policy: &str, kept: &RetentionStatus) -> String {
    let wanted = seconds(kept.policy.keep_s as f64);
    let mut text = format!(
        "{} of {wanted} (policy {policy}), {} points listed, {} thinned, {} pinned",
        seconds(kept.history_s.min(kept.policy.keep_s) as f64),
        kept.listed,
        kept.thinned,
        kept.pinned
    );
    if kept.outlook != Outlook::Enough {
        let fits = seconds(kept.fits_s as f64);
        text.push_str(&format!("; there is room for about {fits}"));
        if let Some(left) = kept.left_s {
            text.push_str(&format!(", older history begins to go in {}", seconds(left as f64)));
        }
    }
    if let Some(why) = &kept.shortened {
        text.push_str(&format!("; SHORTENED: {why}"));
    }
    text
}

/// Space that history takes, and what there is.
pub(super) fn space(kept: &RetentionStatus) -> String {
    facts(&[(
        "volume",
        format!("{} free of {}", bytes(kept.volume_free_bytes), bytes(kept.volume_bytes)),
    )])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn history_that_will_not_fit_says_so() {
        let text = kept("default", &sample::retention());
        for part in ["of 24", "policy default", "7 points listed", "room for about 9", "in 7"] {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
        let enough = RetentionStatus { outlook: Outlook::Enough, ..sample::retention() };
        assert!(!kept("default", &enough).contains("room"));
        let shortened = Some("volume-full".to_owned());
        let text = kept("default", &RetentionStatus { shortened, ..sample::retention() });
        assert!(text.contains("SHORTENED: volume-full"), "{text}");
    }

    #[test]
    fn a_change_of_policy_leaves_what_is_not_named() {
        let retention = RetentionPolicy { size_bytes: Some(1 << 40), ..Default::default() };
        let base = PutPolicy { retention, rpo_s: 60, new: false };
        let values = PolicyValues { retention: Some(7), size: None, thinning: None, rpo: None };
        let put = changed(base.clone(), values);
        assert_eq!(
            (put.retention.keep_s, put.retention.size_bytes, put.rpo_s),
            (7, Some(1 << 40), 60)
        );
        let none = Some(crate::args::SizeLimit(None));
        let values = PolicyValues { retention: None, size: none, thinning: None, rpo: Some(5) };
        let put = changed(base, values);
        assert_eq!((put.retention.keep_s, put.retention.size_bytes, put.rpo_s), (86_400, None, 5));
    }

    #[test]
    fn alerts_stand_out_by_severity_and_whether_they_hold() {
        assert_eq!(alerts(&[]), "no alerts");
        let text = alerts(&[sample::alert()]);
        for part in ["CRITICAL", "retention-shortened", "web-1", "holds"] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }
}
