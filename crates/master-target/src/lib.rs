//! The master target: owns images and journals of replicas, takes logs from process servers, serves
//! views and branches over NBD, and sends a branch's log home after a failover.
//!
//! ```text
//!   process server ══► Sink ──► Replica (landfall-volume) ◄── Exports ◄══ NBD clients (Unix, TCP + TLS)
//!                                   ▲        │
//!        orders ──► Handler ────────┘        └─► Reverse: compare, then the branch's log ══► process server
//! ```
//!
//! # Invariants
//! * What replicas, branches and exports are is durable on the retention volume, and is served
//!   again at a restart without the configuration server.
//! * Disk I/O never runs on the reactor: every call into a replica goes through
//!   `blocking`.
//! * A session that was superseded can't append: its token is looked at under the same lock as the
//!   append.
//! * Catch-up towards home appends content that is read under the branch's append lock (trap T-2).
//!
//! # Where to start
//! [`run`], then `target.rs` (what is hosted), `orders.rs` (what can be ordered), `sink.rs`,
//! `exports.rs`, `reverse.rs`.
//!
//! # Deliberately absent
//! Decisions: which replica, when, and who has authority is the configuration server's business;
//! what may be is the replica's.

mod blocking;
mod disks;
mod errors;
mod export_name;
mod exports;
mod hosted;
mod maintenance;
mod orders;
mod outlook;
mod pace;
mod pressure;
mod relief;
mod reopening;
mod report;
mod retention_volume;
mod reverse;
mod rot;
mod service;
mod sink;
mod target;

pub use disks::DiskListener;
pub use exports::TargetExports;
pub use maintenance::run as maintain;
pub use orders::Handler;
pub use retention_volume::{RetentionUnfit, check_retention_volume, claim_retention_volume};
pub use reverse::ReverseStarter;
pub use service::{MasterTargetConfig, MasterTargetError, run};
pub use sink::Sink;
pub use target::{Target, TargetOptions};
