//! Machines whose agents are real processes on this one.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop there and then")]

mod databases;
mod groups;
mod member;
#[path = "../guests/site.rs"]
#[allow(dead_code, reason = "the guests use more of it")]
mod site;
