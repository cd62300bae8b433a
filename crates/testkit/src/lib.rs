//! What tests of several crates share: capabilities of the machine, seeds.
//!
//! A test that needs more than a plain machine asks for it with [`require`]; where it is missing
//! the test says so and is skipped, unless `LANDFALL_REQUIRE` lists the capability: then the
//! missing part is a failure.

mod capability;
mod seed;

pub use capability::{
    ALL, Capability, GUEST_KERNELS, guest_kernels, guest_system, missing, postgresql, require,
};
pub use seed::{Rng, seed};
