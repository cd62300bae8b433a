//! Jobs: durable steps that survive any number of crashes, and end succeeded, rolled back, or
//! asking for an operator.
//!
//! A kind of job is a list of steps ([`Kind::steps`]). A step gives orders to nodes and changes
//! records; what it changed, its own state and the next step's begin are one transaction. After a
//! crash the step is carried out again: its orders have the same idempotency keys, so they are the
//! same orders, and nodes answer what they have done with their remembered result.
//!
//! | what fails | what happens |
//! |---|---|
//! | an order, transiently | the step is repeated with new orders, for ever; the job shows why |
//! | a node is silent | the order stays; the job shows it and goes on when the node answers |
//! | an order, for good, early ([`Kind::backs_out`]) | what was done is undone: *rolled back* |
//! | an order, for good, later | *needs operator*: retry, or give up while nothing is promoted |
//! | an undo, for good | *needs operator*: retry |

mod control;
mod engine;
mod failback;
mod failover;
mod kind;
mod orders;
mod protect;
mod reprotect;
mod small;
mod start;
mod steps;
mod undo;

pub(crate) use control::{cancel, retry};
pub(crate) use engine::resume_all;
pub(crate) use kind::{Kind, Params, Step};
pub(crate) use orders::{give, question, question_within};
pub(crate) use reprotect::{check_divergence, reprotect_estimate};
pub(crate) use start::{
    check_accepts, find_machine, find_server, start, start_internal, start_protect,
};
