//! Typed HTTPS clients of the configuration server: [`NodeClient`] for roles, [`Client`] for
//! people's programs.
//!
//! A role enrols once, then runs two loops for its whole life: it reports about once a second, and
//! it carries out orders. [`OrderLoop`] is the second one: it long-polls, runs each order in a task
//! of its own, remembers the results durably and answers a repeated order with its result instead
//! of carrying it out again.
//!
//! # Invariants
//! * Nothing here can stop replication: when the configuration server is away, calls fail with
//!   `server-unreachable` and loops try again, with a bounded back-off, for ever.
//! * Requests that could do something twice are never sent a second time by this crate.
//! * Every failure is an [`ApiError`](landfall_api_types::ApiError) with code, cause and cure.
//!
//! Start with [`NodeClient::open_or_enroll`] or [`Client::open`].

mod backoff;
mod error;
mod http;
mod ledger;
mod node;
mod operator;
mod orders;
mod url;

pub use backoff::Backoff;
pub use error::{from_pki, node_role};
pub use ledger::{LEDGER_RESULTS_MAX, LedgerError, OrderLedger};
pub use node::{Enrolment, NodeClient};
pub use operator::{Client, JOB_WAIT};
pub use orders::{OrderHandler, OrderLoop};
