use super::{Remote, keeping};
use crate::args::{BandwidthArgs, StatusArgs};
use crate::failure::Failure;
use crate::output::{self, Format, bytes, facts, line, seconds, table, time};
use crate::screen::describe;
use landfall_api_types::request::SetBandwidth;
use landfall_api_types::resource::{CaptureMode, Health, Machine, NodeRole, Server};
use landfall_model::most;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Lines of history that `status MACHINE` shows.
const HISTORY_LINES: usize = 5;
/// What would help is said when so many seconds are spent in one stage.
const HELP_FROM_S: f64 = 30.0;
/// Time between two looks with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// `landfall status`.
pub(super) async fn status(remote: &Remote, args: StatusArgs) -> Result<(), Failure> {
    loop {
        if args.watch && remote.format == Format::Table && std::io::stdout().is_terminal() {
            // Clears the screen (ECMA-48: CUP, ED).
            let _ = write!(std::io::stdout(), "\x1b[H\x1b[2J");
        }
        match &args.machine {
            Some(name) => {
                let machine = remote.client.machine(name).await?;
                output::print(remote.format, &machine, detail);
            }
            None => {
                let machines = remote.client.machines().await?;
                output::print(remote.format, &machines, |machines| overview(machines));
            }
        }
        if !args.watch {
            return Ok(());
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(WATCH_INTERVAL) => line(""),
        }
    }
}

/// `landfall servers`.
pub(super) async fn servers(remote: &Remote) -> Result<(), Failure> {
    let servers = remote.client.servers().await?;
    output::print(remote.format, &servers, |servers| registered(servers));
    Ok(())
}

/// `landfall bandwidth`.
pub(super) async fn bandwidth(remote: &Remote, args: BandwidthArgs) -> Result<(), Failure> {
    let ask = SetBandwidth { plan: args.plan.to_string() };
    let set = remote.client.set_bandwidth(&args.server, &ask).await?;
    output::print(remote.format, &set, |set| format!("{}: {}", set.server, set.plan));
    Ok(())
}

fn overview(machines: &[Machine]) -> String {
    let rows = machines.iter().map(|machine| {
        let problem = machine.problems.first().map_or(String::new(), ToString::to_string);
        vec![
            machine.name.clone(),
            machine.state.to_string(),
            health(machine.health).to_owned(),
            rpo(machine),
            progress(machine).unwrap_or_default(),
            problem,
        ]
    });
    table(&["machine", "state", "health", "RPO", "progress", "problem"], rows)
}

fn detail(machine: &Machine) -> String {
    let disks = machine.disks.iter().map(|disk| {
        let mode = machine.disk_capture.iter().find(|one| one.disk == disk.index);
        let mode = mode.map_or(String::new(), |one| format!(", {}", mode_name(one.mode)));
        let size = bytes(disk.geometry.size_bytes);
        format!("{} ({size}, sectors of {}{mode})", disk.path, disk.geometry.sector_bytes)
    });
    let capture = machine.capture.as_ref();
    let point = machine.newest_point.as_ref();
    let marks = &machine.watermarks;
    let mut text = facts(&[
        ("machine", machine.name.clone()),
        ("state", format!("{} (accepts: {})", machine.state, machine.accepts.join(", "))),
        ("health", health(machine.health).to_owned()),
        ("RPO", rpo(machine)),
        ("RPO by stage", stages(machine)),
        (
            "newest point",
            point.map_or("none".to_owned(), |point| {
                format!("LSN {} of {}", point.lsn, time(point.time))
            }),
        ),
        ("epoch", machine.epoch.number.to_string()),
        ("path", path(machine)),
        (
            "capture",
            capture
                .map_or("none".to_owned(), |(mode, why)| format!("{} ({why})", mode_name(*mode))),
        ),
        ("data mode", changes(machine)),
        ("disks", disks.collect::<Vec<_>>().join(", ")),
        (
            "LSNs",
            format!(
                "captured {}, sent {}, received {}, durable {}, folded {}",
                marks.captured, marks.sent, marks.received, marks.durable, marks.folded
            ),
        ),
        (
            "journal",
            format!("{} records, {}", machine.journal_records, bytes(machine.journal_bytes)),
        ),
        (
            "encrypted",
            machine.encryption.as_ref().map_or("no".to_owned(), |key| format!("yes, with {key}")),
        ),
        ("catch-up", progress(machine).unwrap_or_else(|| "none runs".to_owned())),
    ]);
    if let Some(retention) = &machine.retention {
        let history = keeping::kept(&machine.policy, retention);
        let _ = write!(text, "\nhistory {history}\n{}", keeping::space(retention));
    }
    for branch in &machine.branches {
        let what = if branch.authority { "runs the machine" } else { "test or divergence" };
        let (fork, written) = (branch.fork, bytes(branch.written_bytes));
        let _ = write!(text, "\nbranch {} at LSN {fork}: {what}, {written} written", branch.name);
        for export in &branch.exports {
            let _ = write!(text, "\n  disk {}: {}", export.disk, export.uri);
        }
    }
    for problem in &machine.problems {
        let _ = write!(text, "\nproblem {problem}\n  cure: {}", problem.cure);
    }
    for entry in machine.history.iter().rev().take(HISTORY_LINES).rev() {
        let _ = write!(text, "\n{} {} ({})", time(entry.time), entry.event, entry.by);
    }
    text
}

fn registered(servers: &[Server]) -> String {
    let rows = servers.iter().map(|server| {
        let last = server.last_report.map_or_else(|| "never".to_owned(), time);
        let contact = if server.in_contact { "in contact" } else { "SILENT" };
        let problems: Vec<_> = server.problems.iter().map(ToString::to_string).collect();
        vec![
            server.name.clone(),
            role(server.role).to_owned(),
            server.address.clone().unwrap_or_default(),
            contact.to_owned(),
            last,
            server.version.clone(),
            server.bandwidth.clone().unwrap_or_default(),
            problems.join("; "),
        ]
    });
    table(
        &[
            "server",
            "role",
            "address",
            "contact",
            "last report",
            "version",
            "bandwidth",
            "problems",
        ],
        rows,
    )
}

fn rpo(machine: &Machine) -> String {
    machine.rpo_s.map_or_else(|| "no point".to_owned(), seconds)
}

/// Where the RPO is spent, and what would help.
fn stages(machine: &Machine) -> String {
    let Some(blamed) = most(&machine.rpo_stages) else { return "not known".to_owned() };
    let times = machine.rpo_stages.iter().map(|one| format!("{} {:.1} s", one.stage.name(), one.s));
    let mut text = times.collect::<Vec<_>>().join(", ");
    if blamed.s >= HELP_FROM_S {
        let _ = write!(text, "\n  most in the {}: {}", blamed.stage.name(), blamed.stage.help());
    }
    text
}

/// The servers on the way, with the round trips between them (RQ-PS-5).
fn path(machine: &Machine) -> String {
    let mut text = machine.path.first().cloned().unwrap_or_default();
    for (name, rtt) in machine.path.iter().skip(1).zip(machine.rtt_ms) {
        let rtt = rtt.map_or_else(String::new, |ms| format!(" ({ms:.1} ms)"));
        let _ = write!(text, "{rtt} ► {name}");
    }
    text
}

fn progress(machine: &Machine) -> Option<String> {
    let running = machine.catch_up.as_ref().filter(|catch_up| !catch_up.finished)?;
    Some(format!("{:?}: {}", running.reason, describe(&running.progress)))
}

const fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::CatchingUp => "catching up",
        Health::NoContact => "NO CONTACT",
        Health::Idle => "idle",
        Health::Paused => "paused",
    }
}

/// How often data mode ended, and why.
fn changes(machine: &Machine) -> String {
    if machine.capture_losses.is_empty() {
        return "never left".to_owned();
    }
    let losses = machine.capture_losses.iter().map(|(code, count)| format!("{code} ×{count}"));
    let losses = losses.collect::<Vec<_>>().join(", ");
    format!("left: {losses}; returned ×{}", machine.capture_returns)
}

const fn mode_name(mode: CaptureMode) -> &'static str {
    match mode {
        CaptureMode::Data => "data",
        CaptureMode::Bitmap => "bitmap",
        CaptureMode::Compare => "compare",
        CaptureMode::Served => "served",
    }
}

const fn role(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Agent => "agent",
        NodeRole::ProcessServer => "process server",
        NodeRole::MasterTarget => "master target",
        NodeRole::Operator => "operator",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use landfall_model::{Stage, StageTime};

    #[test]
    fn the_overview_has_state_health_and_rpo() {
        let text = overview(&[sample::machine()]);
        for part in ["web-1", "protected", "catching up", "1.2 s", "25 %"] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn the_detail_has_watermarks_branches_problems_and_history() {
        let text = detail(&sample::machine());
        for part in [
            "accepts: test-failover, failover",
            "captured 50, sent 40, received 30, durable 20, folded 10",
            "bitmap (ring-overflow)",
            "capture 0.2 s, spool 1.0 s",
            "web-1 (0.3 ms) ► ps-home (41.5 ms) ► mt-recovery",
            "left: ring-overflow ×3; returned ×2",
            "sectors of 512, bitmap",
            "branch test-1 at LSN 17: test or divergence",
            "nbd+unix:///",
            "problem [node-failed]",
            "cure:",
            "protected (operator)",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    /// The stage that is to blame is named with what would help.
    #[test]
    fn a_slow_stage_is_named_with_what_helps() {
        let slow = StageTime { stage: Stage::Spool, s: 95.0 };
        let text = stages(&Machine { rpo_stages: vec![slow], ..sample::machine() });
        assert!(text.contains("most in the spool") && text.contains("bandwidth"), "{text}");
        let unknown = Machine { rpo_stages: vec![], ..sample::machine() };
        assert_eq!(stages(&unknown), "not known");
    }

    #[test]
    fn a_silent_server_stands_out() {
        let text = registered(&[sample::server()]);
        assert!(text.contains("SILENT") && text.contains("never"), "{text}");
    }

    #[test]
    fn a_machine_without_a_point_has_no_rpo() {
        let machine = Machine { rpo_s: None, ..sample::machine() };
        assert_eq!(rpo(&machine), "no point");
    }
}
