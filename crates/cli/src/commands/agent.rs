//! The agent, and what can be asked of a machine that has one or is to get one.

use super::roles::{begin, enrolment};
use crate::args::{AgentArgs, AgentCommand, AgentRunArgs, NodeArgs};
use crate::failure::Failure;
use crate::output::{self, Format, facts, table};
use anyhow::Context as _;
use landfall_agent::doctor::{Diagnosis, diagnose};
use landfall_agent::{AgentConfig, Limits, Settings, freeze};
use landfall_api_types::node::Report;
use landfall_api_types::resource::NodeRole;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// `landfall agent`.
pub(super) async fn agent(args: AgentArgs, format: Format) -> Result<(), Failure> {
    match (args.command, args.node.zip(args.run)) {
        (Some(AgentCommand::Doctor { disks }), _) => doctor(disks, format).await,
        (Some(AgentCommand::Probe { disks, json: _ }), _) => doctor(disks, Format::Json).await,
        (Some(AgentCommand::Status { instance_file }), _) => status(&instance_file, format),
        (Some(AgentCommand::Thaw { instance_file }), _) => thaw(&instance_file, format),
        (Some(AgentCommand::Restart(command)), _) => super::restart::restart(&command),
        (Some(AgentCommand::Guard), _) => guard(),
        (None, Some((node, run))) => protect(node, run).await,
        (None, None) => Err(anyhow::anyhow!("--state and --instance-file are needed").into()),
    }
}

async fn protect(node: NodeArgs, args: AgentRunArgs) -> Result<(), Failure> {
    let shutdown = begin(&node.state)?;
    let config = AgentConfig {
        enrolment: enrolment(&node, NodeRole::Agent)?,
        settings: settings(&node, &args)?,
        state_dir: node.state,
        instance_file: args.instance_file,
    };
    let run = landfall_agent::run(config, shutdown);
    Ok(run.await.map_err(anyhow::Error::new)?)
}

fn settings(node: &NodeArgs, args: &AgentRunArgs) -> anyhow::Result<Settings> {
    let program = std::env::current_exe().context("find this program")?;
    let mut settings = Settings::of_installation(&program, &node.state, &args.instance_file);
    settings.capture.ring_bytes = args.ring * MIB;
    settings.queue_bytes_max = usize::try_from(args.queue * MIB).context("--queue")?;
    settings.points.hooks_dir.clone_from(&args.hooks);
    settings.points.frozen_max = Duration::from_millis(args.frozen_max);
    settings.points.hook_max = Duration::from_millis(args.hook_max);
    let bytes_per_s = args.rate_max.map(|mib| mib * MIB);
    settings.limits = Limits { bytes_per_s, cpu_percent: args.cpu_max };
    if args.unpinned {
        settings.end_with_process();
    }
    Ok(settings)
}

async fn doctor(disks: Vec<std::path::PathBuf>, format: Format) -> Result<(), Failure> {
    let diagnosis = tokio::task::spawn_blocking(move || diagnose(&disks));
    let diagnosis = diagnosis.await.context("look at the machine")?;
    output::print(format, &diagnosis, told);
    Ok(())
}

fn told(diagnosis: &Diagnosis) -> String {
    let checks = diagnosis.checks.iter().map(|check| {
        let sign = if check.good { "ok" } else { "LACKING" };
        vec![check.name.clone(), sign.to_owned(), check.found.clone(), check.cure.clone()]
    });
    let disks = diagnosis.disks.iter().map(|disk| {
        vec![disk.path.clone(), disk.mode.clone(), disk.reason.clone(), disk.mounts.join(" ")]
    });
    let machine =
        facts(&[("machine", diagnosis.host.clone()), ("kernel", diagnosis.kernel.clone())]);
    let checks = table(&["check", "", "found", "what would improve it"], checks);
    let disks = table(&["disk", "mode", "reason", "file systems, in the order of freezing"], disks);
    format!("{machine}\n\n{checks}\n\n{disks}")
}

fn status(instance_file: &Path, format: Format) -> Result<(), Failure> {
    let path = Settings::status_file(instance_file);
    let text = std::fs::read(&path);
    let text = text.with_context(|| format!("read {}: does the agent run?", path.display()))?;
    let report: Report = serde_json::from_slice(&text).context("understand the agent's report")?;
    output::print(format, &report, reported);
    Ok(())
}

fn reported(report: &Report) -> String {
    let Some(agent) = &report.agent else { return "nothing is known yet".to_owned() };
    let disks = agent.disks.iter();
    let disks = disks.map(|one| format!("{}: {:?} ({})", one.disk, one.mode, one.reason));
    let losses = agent.losses.iter().map(|(code, count)| format!("{code} ×{count}"));
    let mut text = facts(&[
        ("instance", agent.instance.to_string()),
        ("machine", agent.machine.map_or_else(|| "none".to_owned(), |id| id.to_string())),
        ("fenced", if agent.fenced { "yes" } else { "no" }.to_owned()),
        ("disks", disks.collect::<Vec<_>>().join(", ")),
        ("data mode left", losses.collect::<Vec<_>>().join(", ")),
        ("data mode again", agent.returns.to_string()),
        (
            "LSNs",
            format!(
                "captured {}, sent {}, durable {} here, {} at the target",
                agent.captured, agent.sent, agent.durable_here, agent.durable_at_target
            ),
        ),
        ("waiting", output::bytes(agent.queued_bytes)),
    ]);
    for problem in &report.problems {
        text = format!("{text}\nproblem {problem}\n  cure: {}", problem.cure);
    }
    text
}

fn thaw(instance_file: &Path, format: Format) -> Result<(), Failure> {
    let record = Settings::frozen_record(instance_file);
    let thawed = freeze::thaw_left_behind(&record).context("thaw what was left frozen")?;
    output::print(format, &thawed, |thawed| match thawed.len() {
        0 => "nothing was left frozen".to_owned(),
        _ => format!("thawed: {thawed:?}"),
    });
    Ok(())
}

/// The channel is standard input: the agent made it so.
fn guard() -> Result<(), Failure> {
    let channel = std::io::stdin().as_fd().try_clone_to_owned().context("take the channel")?;
    Ok(freeze::guard(UnixStream::from(channel)).context("guard frozen file systems")?)
}
