use super::restart::RestartCommand;
use super::values::parse_millis;
use clap::{Args, Subcommand};
use landfall_crypt::KeySource;
use landfall_model::BandwidthPlan;
use landfall_types::Lsn;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `landfall server`.
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
At its first start it makes a certificate authority, a registration passphrase and operators'
credentials; STATE/ready.json says where.

Example:
  landfall server --state /var/lib/landfall/server --listen 192.0.2.10:7600"
)]
pub(crate) struct ServerArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ServerCommand>,
    /// Directory for everything it keeps
    #[arg(long, required = true, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Address of its HTTPS listener
    #[arg(long, default_value = "127.0.0.1:7600", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
}

/// What can be asked of a configuration server's state.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Print the registration passphrase
    Passphrase {
        /// Its state directory
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
}

/// What every role needs to register.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// Directory for everything it keeps
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Name to register under, unique
    #[arg(long)]
    pub(crate) name: String,
    /// The configuration server, https://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub(crate) server: String,
    /// SHA-256 of its certificate authority, as it printed it
    #[arg(long, value_name = "HEX")]
    pub(crate) fingerprint: String,
    /// File with the registration passphrase; not needed once registered
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// `landfall bandwidth`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  landfall bandwidth ps-home 5MiB/s
  landfall bandwidth ps-home '20MiB/s, mon-fri 08:00-18:00 5MiB/s, sat-sun unlimited'

Times are local to the process server. The first window that holds counts; the limit without a time
is for the rest of the week. The process server keeps the plan over restarts.")]
pub(crate) struct BandwidthArgs {
    /// Name of the process server
    pub(crate) server: String,
    /// Limits for the week: B/s, kB/s, KiB/s … or bit/s, kbit/s …, or unlimited
    pub(crate) plan: BandwidthPlan,
}

/// `landfall process-server`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  landfall process-server --state /var/lib/landfall/ps --name ps-home \\
      --server https://192.0.2.10:7600 --fingerprint 3f…9a --passphrase-file /root/passphrase \\
      --listen 192.0.2.20:7610")]
pub(crate) struct ProcessServerArgs {
    /// What replication may use of the link to the next hop, until `landfall bandwidth` sets
    /// another plan; in local time, for instance "20MiB/s, mon-fri 08:00-18:00 5MiB/s"
    #[arg(long, default_value = "unlimited", value_name = "PLAN")]
    pub(crate) bandwidth: BandwidthPlan,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Address of its replication listener
    #[arg(long, default_value = "127.0.0.1:7610", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
}

/// `landfall master-target`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  landfall master-target --state /var/lib/landfall/mt --retention /srv/retention \\
      --name mt-recovery --listen 192.0.2.30:7620 \\
      --server https://192.0.2.10:7600 --fingerprint 3f…9a --passphrase-file /root/passphrase")]
pub(crate) struct MasterTargetArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Directory for journals, on a volume of its own
    #[arg(long, value_name = "DIR")]
    pub(crate) retention: PathBuf,
    /// Address of its replication listener
    #[arg(long, default_value = "127.0.0.1:7620", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Address on which disks are served over NBD with TLS, beside the Unix socket
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) nbd_listen: Option<SocketAddr>,
    /// DNS name or IP address by which NBD clients reach it; can be repeated
    #[arg(long, value_name = "NAME", requires = "nbd_listen")]
    pub(crate) nbd_name: Vec<String>,
    /// Encrypt every new replica with this key, unless another one is named when a machine is
    /// protected: file:PATH, keyring:DESCRIPTION or command:PATH ARGUMENTS
    #[arg(long, value_name = "KEY")]
    pub(crate) encrypt: Option<KeySource>,
}

/// `landfall disk-client`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Whoever has the key can read and write every disk that the fleet's master targets serve. The
certificate holds for 90 days; the command replaces it.

Example:
  landfall disk-client /etc/landfall/disk-client
  nbdinfo 'nbds://mt-recovery:10809/web-1/0@latest?tls-certificates=/etc/landfall/disk-client'")]
pub(crate) struct DiskClientArgs {
    /// Directory for ca-cert.pem, client-cert.pem and client-key.pem
    pub(crate) dir: PathBuf,
}

/// `landfall agent`.
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
The instance file names this running copy of the machine; where there is none it is made. It must
not lie on a protected disk: a copy of the disk would then take itself for the machine. What else is
kept while the machine runs lies beside it.

Examples:
  landfall agent --state /var/lib/landfall/agent --instance-file /run/landfall/instance \\
      --name web-1 --server https://192.0.2.10:7600 --fingerprint 3f…9a \\
      --passphrase-file /root/passphrase
  landfall agent doctor /dev/vda"
)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AgentCommand>,
    // Beside each other: clap does not see that a flattened struct is there which holds another.
    #[command(flatten)]
    pub(crate) node: Option<NodeArgs>,
    #[command(flatten)]
    pub(crate) run: Option<AgentRunArgs>,
}

/// `landfall agent` itself.
#[derive(Clone, Debug, Args)]
pub(crate) struct AgentRunArgs {
    /// File that names the instance, a UUID; outside the protected disks
    #[arg(long, value_name = "FILE")]
    pub(crate) instance_file: PathBuf,
    /// Memory for captured writes that wait to be read, locked; in MiB
    #[arg(long, default_value_t = 64, value_name = "MIB")]
    #[arg(value_parser = clap::value_parser!(u64).range(2..=4096))]
    pub(crate) ring: u64,
    /// Memory for records that wait to be sent, in MiB
    #[arg(long, default_value_t = 48, value_name = "MIB")]
    #[arg(value_parser = clap::value_parser!(u64).range(8..=65536))]
    pub(crate) queue: u64,
    /// Folder of programs to call around application-consistent points
    #[arg(long, default_value = landfall_agent::HOOKS_DIR, value_name = "DIR")]
    pub(crate) hooks: PathBuf,
    /// Longest time that a file system stays frozen
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = parse_millis)]
    pub(crate) frozen_max: u64,
    /// Longest time that a hook may take
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_millis)]
    pub(crate) hook_max: u64,
    /// Captured writes a second, in MiB, over two seconds; beyond it, for a while, only changed
    /// blocks are marked [default: no limit]
    #[arg(long, value_name = "MIB")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) rate_max: Option<u64>,
    /// Of one processor, in percent, over two seconds; beyond it as with --rate-max [default: no
    /// limit]
    #[arg(long, value_name = "PERCENT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) cpu_max: Option<u32>,
    /// Let capture end with this process; each start then compares the disks
    #[arg(long)]
    pub(crate) unpinned: bool,
}

/// What can be asked of an agent, or of a machine before it has one.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Say what this machine offers, the mode of each disk, and what would improve it
    Doctor {
        /// Disks that are to be protected [default: all]
        disks: Vec<PathBuf>,
    },
    /// The same for programs, as JSON
    Probe {
        /// Disks that are to be protected [default: all]
        disks: Vec<PathBuf>,
        /// As --output json, which it is in any case
        #[arg(long)]
        json: bool,
    },
    /// Show what the agent on this machine reports, without the configuration server
    Status {
        /// As the agent has it
        #[arg(long, default_value = "/run/landfall/instance", value_name = "FILE")]
        instance_file: PathBuf,
    },
    /// Thaw what a killed agent has left frozen; the unit calls it when the agent has ended
    Thaw {
        /// As the agent has it
        #[arg(long, value_name = "FILE")]
        instance_file: PathBuf,
    },
    /// Called by the system's shutdown and start: carries the bitmap over a restart
    #[command(subcommand)]
    Restart(RestartCommand),
    /// Freezes file systems for the agent
    #[command(hide = true)]
    Guard,
}

/// `landfall journal`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Print every record of a log
    Dump {
        /// Directory of the log
        path: PathBuf,
        /// Key of an encrypted replica, if not the one that its superblock names
        #[arg(long, value_name = "KEY")]
        key: Option<KeySource>,
    },
    /// Read everything and compare every checksum; changes nothing
    Verify {
        /// Directory of the log
        path: PathBuf,
        /// Key of an encrypted replica, if not the one that its superblock names
        #[arg(long, value_name = "KEY")]
        key: Option<KeySource>,
    },
    /// Read a damaged log as far as it goes, and name what is missing; changes nothing
    Salvage(SalvageArgs),
    /// Count records and bytes
    Stat {
        /// Directory of the log
        path: PathBuf,
        /// Key of an encrypted replica, if not the one that its superblock names
        #[arg(long, value_name = "KEY")]
        key: Option<KeySource>,
    },
}

/// `landfall journal salvage`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example: a copy of the image, and on it what the log still has of disk 0
  landfall journal salvage /srv/retention/replica-0198…/log-0198…
  cp --sparse=always /srv/images/web-1-0.img /srv/web-1-0.copy
  landfall vault inspect /srv/retention
  landfall journal salvage /srv/retention/replica-0198…/log-0198… --disk 0 --after 4711 \
      --onto /srv/web-1-0.copy")]
pub(crate) struct SalvageArgs {
    /// Directory of the log
    pub(crate) path: PathBuf,
    /// Write what the records of this disk say onto a copy of its image
    #[arg(long, value_name = "N", requires_all = ["onto", "after"])]
    pub(crate) disk: Option<u16>,
    /// The copy; never the image itself
    #[arg(long, value_name = "FILE", requires = "disk")]
    pub(crate) onto: Option<PathBuf>,
    /// Position of that image, see `landfall vault inspect`
    #[arg(long, value_name = "LSN", requires = "onto")]
    pub(crate) after: Option<Lsn>,
    /// Go on behind a damaged range: the copy is then no state that the disk ever had
    #[arg(long, requires = "onto")]
    pub(crate) past_damage: bool,
}
