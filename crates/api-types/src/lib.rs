//! What goes over the configuration server's REST API: the only types that server, roles and CLI
//! share.
//!
//! * [`resource`]: machines, points, servers, jobs, divergence, as people see them.
//! * [`request`]: what people ask for.
//! * [`node`]: enrolment, reports, orders' envelope: what roles say.
//! * [`order`]: what the configuration server tells roles to do.
//! * [`retention`]: policies, what they keep; [`alert`]: what needs somebody's attention.
//! * [`codes`]: the registry of stable error codes; [`ApiError`] carries one.

pub mod alert;
pub mod codes;
mod error;
pub mod node;
pub mod order;
pub mod request;
pub mod resource;
pub mod retention;

pub use error::ApiError;
