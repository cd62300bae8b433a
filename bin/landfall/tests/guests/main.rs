//! Promise: a protected machine that restarts, in good order or not, ends up with a replica that is
//! its disks, and everything that was acknowledged as durable stays.
//!
//! The machine is a guest with the real agent; configuration server, process server and master
//! target run beside it, outside.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop there and then")]

mod reboot;
mod restart;
mod site;
