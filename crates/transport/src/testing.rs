//! What tests of this crate and of its users share: certificates, a source and a sink in memory, a
//! network that breaks.

mod fleet;
mod memory;
mod proxy;

pub use fleet::{Fleet, MemberTls};
pub use memory::{MemorySink, MemorySource, identity, lock, record};
pub use proxy::{Fault, Proxy};
