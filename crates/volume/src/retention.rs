//! How long history is kept: which markers stay listed, what has expired, and how long what there
//! is will last. The caller brings the clock.
//!
//! An image plus an ordered log has any position between its windows, as long as the records are
//! kept. So there are two questions, and two answers:
//!
//! * *Which records are kept?* All of the last `keep_s` seconds, fewer only when the volume or the
//!   limit of size says so. What expires is folded into the image, up to a listed marker, so that
//!   the oldest content that can still be had is a point with a time.
//! * *Which markers are listed?* [`thinning`]. A marker that is not listed any more frees nothing:
//!   its position can still be chosen by its LSN.
//!
//! Age is counted on the master target's own clock of running time (trap T-6): time in which it did
//! not run does not count, so history is kept longer than asked for, never shorter.

mod listing;
mod meter;
mod projection;
mod table;
mod thinning;

pub(crate) use listing::Listing;
pub use listing::{ShortenCause, Shortened};
pub use meter::{Meter, Rates};
pub use projection::{Outlook, Projection, Room, project};
pub(crate) use table::Table;
