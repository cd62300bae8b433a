//! What each command does.

mod agent;
mod demo;
mod disk_client;
mod group;
mod job;
mod journal;
mod keeping;
mod machine;
mod point;
mod restart;
mod roles;
mod status;
mod vault;

use crate::args::{Cli, Command};
use crate::exit::Status;
use crate::failure::Failure;
use crate::output::Format;
use clap::Parser as _;
use landfall_api_client::Client;
use landfall_api_types::{ApiError, codes};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// The whole program: reads the command line, does it, says what came of it.
#[must_use]
pub fn main() -> ExitCode {
    // Prints usage errors and help itself, and ends with 2 and 0.
    let cli = Cli::parse();
    let format = cli.output;
    match run(cli) {
        Ok(()) => ExitCode::from(Status::Ok as u8),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{}", failure.render(format));
            ExitCode::from(failure.status() as u8)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| anyhow::Error::new(error).context("start the runtime"))?;
    runtime.block_on(dispatch(cli))
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let format = cli.output;
    let remote = || Remote::open(cli.credentials.as_deref(), format);
    match cli.command {
        Command::Server(args) => roles::server(args, format).await,
        Command::ProcessServer(args) => roles::process_server(args).await,
        Command::MasterTarget(args) => roles::master_target(args).await,
        Command::Agent(args) => agent::agent(args, format).await,
        Command::Protect(args) => machine::protect(&remote()?, args).await,
        Command::Status(args) => status::status(&remote()?, args).await,
        Command::Servers => status::servers(&remote()?).await,
        Command::DiskClient(args) => disk_client::disk_client(&remote()?, &args).await,
        Command::Bandwidth(args) => status::bandwidth(&remote()?, args).await,
        Command::Points(args) => point::points(&remote()?, args).await,
        Command::Group(command) => group::group(&remote()?, command).await,
        Command::Point(command) => keeping::point(&remote()?, command).await,
        Command::Policy(command) => keeping::policy(&remote()?, command).await,
        Command::Alert(command) => keeping::alert(&remote()?, command).await,
        Command::Mark(args) => point::mark(&remote()?, args).await,
        Command::TestFailover(args) => point::test_failover(&remote()?, args).await,
        Command::Failover(args) => point::failover(&remote()?, args).await,
        Command::ChangePoint(args) => point::change_point(&remote()?, args).await,
        Command::Commit(args) => machine::commit(&remote()?, args).await,
        Command::Divergence(args) => machine::divergence(&remote()?, args).await,
        Command::Reprotect(args) => machine::reprotect(&remote()?, args).await,
        Command::Failback(args) => machine::failback(&remote()?, args).await,
        Command::Cancel(args) => machine::cancel(&remote()?, args).await,
        Command::Disable(args) => machine::disable(&remote()?, args).await,
        Command::Jobs(args) => job::jobs(&remote()?, args).await,
        Command::Journal(command) => journal::journal(&command, format),
        Command::Vault(command) => {
            // Reads and writes files for minutes: not on a thread that serves others.
            tokio::task::block_in_place(|| vault::vault(&command, format))
        }
        Command::Demo(options) => demo::demo(&options, format).await,
        Command::DemoWorkload(options) => Ok(landfall_demo::run_workload(options).await?),
    }
}

/// The configuration server, and how its answers are printed.
struct Remote {
    client: Client,
    format: Format,
}

impl Remote {
    fn open(credentials: Option<&Path>, format: Format) -> Result<Self, Failure> {
        let credentials = credentials.ok_or_else(|| {
            ApiError::new(&codes::NOT_AUTHORIZED, "no credentials are given").cure(
                "give --credentials DIR or set LANDFALL_CREDENTIALS; `landfall server` makes them in \
                 STATE/operator",
            )
        })?;
        Ok(Self { client: Client::open(credentials)?, format })
    }
}
