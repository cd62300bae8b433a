use super::Remote;
use super::job::{finished, see_to_its_end, text};
use crate::args::{DivergenceArgs, MachineArgs, ProtectArgs, ReprotectArgs};
use crate::failure::Failure;
use crate::output::{self, bytes, facts, table, time};
use crate::screen::TerminalScreen;
use landfall_api_types::ApiError;
use landfall_api_types::request::{DiscardDivergence, Protect, Reprotect, ReprotectEstimate};
use landfall_api_types::resource::{Divergence, Job};
use landfall_demo::Screen as _;
use landfall_model::MachineState;
use std::time::Duration;

/// How often a machine is looked at while a window of it is open.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// `landfall protect`.
pub(super) async fn protect(remote: &Remote, args: ProtectArgs) -> Result<(), Failure> {
    let request = Protect {
        name: args.machine.clone(),
        agent: args.agent,
        process_server: args.process_server,
        master_target: args.master_target,
        disks: args.disks,
        images: args.images,
        marker_interval_ms: args.marker_interval,
        policy: args.policy,
        encrypt: args.encrypt.as_ref().map(ToString::to_string),
    };
    if let Some(key) = &request.encrypt {
        // At the moment when it can still be thought over.
        crate::screen::write_line(&format!(
            "the replica can be read with {key} on its master target only: keep a copy elsewhere"
        ));
    }
    let job = remote.client.protect(&request).await;
    with_its_window(remote, job, args.wait.no_wait, MachineState::Protecting).await
}

/// `landfall reprotect`.
pub(super) async fn reprotect(remote: &Remote, args: ReprotectArgs) -> Result<(), Failure> {
    let request = Reprotect {
        process_server: args.process_server,
        master_target: args.master_target,
        disks: args.disks.iter().map(|path| path.display().to_string()).collect(),
        discard_divergence: args.discard_divergence,
        dry_run: args.dry_run,
    };
    if args.dry_run {
        let estimate = remote.client.reprotect_estimate(&args.machine, &request).await?;
        output::print(remote.format, &estimate, estimated);
        return Ok(());
    }
    let job = remote.client.reprotect(&args.machine, &request).await;
    with_its_window(remote, job, args.wait.no_wait, MachineState::Reprotecting).await
}

/// `landfall commit`.
pub(super) async fn commit(remote: &Remote, args: MachineArgs) -> Result<(), Failure> {
    see_to_its_end(remote, remote.client.commit(&args.machine).await, args.wait.no_wait).await
}

/// `landfall failback`.
pub(super) async fn failback(remote: &Remote, args: MachineArgs) -> Result<(), Failure> {
    see_to_its_end(remote, remote.client.failback(&args.machine).await, args.wait.no_wait).await
}

/// `landfall cancel`.
pub(super) async fn cancel(remote: &Remote, args: MachineArgs) -> Result<(), Failure> {
    see_to_its_end(remote, remote.client.cancel(&args.machine).await, args.wait.no_wait).await
}

/// `landfall disable`.
pub(super) async fn disable(remote: &Remote, args: MachineArgs) -> Result<(), Failure> {
    see_to_its_end(remote, remote.client.disable(&args.machine).await, args.wait.no_wait).await
}

/// `landfall divergence`.
pub(super) async fn divergence(remote: &Remote, args: DivergenceArgs) -> Result<(), Failure> {
    if args.discard.is_empty() {
        let divergence = remote.client.divergence(&args.machine).await?;
        output::print(remote.format, &divergence, |divergence| diverged(divergence));
        return Ok(());
    }
    let ask = DiscardDivergence { names: args.discard };
    let job = remote.client.discard_divergence(&args.machine, &ask).await;
    see_to_its_end(remote, job, args.wait.no_wait).await
}

/// A job that opens a window: its end is not the end of the copy, so the machine is followed until
/// it has left the state in which the window is open.
async fn with_its_window(
    remote: &Remote,
    job: Result<Job, ApiError>,
    no_wait: bool,
    open: MachineState,
) -> Result<(), Failure> {
    let job = finished(remote, job?, no_wait).await?;
    if !no_wait {
        let mut screen = TerminalScreen::new();
        loop {
            let machine = remote.client.machine(&job.machine_name).await?;
            if machine.state != open {
                break;
            }
            if let Some(catch_up) = &machine.catch_up {
                screen.progress(&job.kind, &catch_up.progress);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        screen.progress_end();
    }
    output::print(remote.format, &job, text);
    Ok(())
}

fn estimated(estimate: &ReprotectEstimate) -> String {
    let facts = facts(&[
        ("to be sent, about", bytes(estimate.estimate_bytes)),
        ("size of all disks", bytes(estimate.total_bytes)),
        ("not known", estimate.uncertainty.clone()),
    ]);
    let lost = match estimate.divergence.is_empty() {
        true => "nothing diverged".to_owned(),
        false => format!("what would be lost at home:\n{}", diverged(&estimate.divergence)),
    };
    format!("{facts}\n{lost}")
}

fn diverged(all: &[Divergence]) -> String {
    let when = |time_or_none: Option<_>| time_or_none.map_or_else(|| "–".to_owned(), time);
    let rows = all.iter().map(|one| {
        vec![
            one.name.clone(),
            one.server.clone(),
            format!("{}..{}", one.after.next(), one.through),
            bytes(one.written_bytes),
            when(one.first_time),
            when(one.last_time),
            if one.discarded { "discarded" } else { "kept" }.to_owned(),
            one.description.clone(),
        ]
    });
    table(&["name", "server", "LSNs", "written", "first", "last", "", "what"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn an_estimate_shows_what_would_be_lost_by_name() {
        let estimate = ReprotectEstimate {
            estimate_bytes: 5 << 20,
            total_bytes: 1 << 30,
            uncertainty: "what home wrote after the disaster".into(),
            divergence: vec![sample::divergence()],
        };
        let text = estimated(&estimate);
        for part in ["5.00 MiB", "1.00 GiB", "would be lost", "home-disks", "kept"] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        let none = ReprotectEstimate { divergence: Vec::new(), ..estimate };
        assert!(estimated(&none).contains("nothing diverged"));
    }
}
