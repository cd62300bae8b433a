//! The configuration server: inventory, authority, jobs, certificates and the REST API.
//!
//! It asks, the others act: nodes poll for *orders* over HTTPS, carry them out and answer; what
//! they must know to go on without this server they keep themselves. Everything here that must
//! survive is in the store; memory holds only what nodes say again every second.
//!
//! ```text
//!  operators ──► http::operator ──► jobs::start ─┐  one transaction: state, event, job
//!                                                ▼
//!                                  jobs::engine: step after step ──► orders ──► http::node ──► nodes
//!                                                ▲                      results ◄──────────────┘
//!  nodes' reports ──► fleet ──► reconcile ───────┘  what must always hold; takes no input
//! ```
//!
//! # Invariants
//! * Intent before effect: an order is durable before a node sees it, and the same step gives the
//!   same order again after a crash (idempotency key *job, step, attempt*).
//! * A machine has at most one job; its state changes by [`landfall_model::next`], authority by
//!   [`landfall_model::authority::next`], both by compare-and-set.
//! * An epoch is reserved durably before the order to promote is given; the same epoch is ordered
//!   again after a crash (trap T-17). What can't be taken back is never given up silently: the job
//!   waits for an operator.
//! * Silence is never proof: a node out of contact is waited for, or named with what is unknown.
//!
//! Start with [`run`], then `jobs`. Not here: replication, which goes on while this server is away.

mod alerts;
mod app;
mod bootstrap;
mod config;
mod error;
mod fleet;
mod groups;
mod http;
mod jobs;
mod points;
mod policies;
mod reconcile;
mod record;
mod run;
mod stages;
mod view;

pub use bootstrap::{Ready, passphrase};
pub use config::{Config, Timing};
pub use error::ServerError;
pub use run::run;
