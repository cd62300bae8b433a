//! Sends home again what has rotted there (trap T-20).
//!
//! No window is opened for it: what is appended is the branch's own content of that very position,
//! which changes nothing but who holds it. Every position stays the point that it was.

use super::Reverse;
use super::compare::append_newest;
use super::source::Asked;
use landfall_volume::ContentError;

impl Reverse {
    /// Answers every question of home; ends when the branch can't be written any more.
    pub(super) async fn answer_rot(&self) {
        let mut asked = self.source.asked();
        let mut answered = Asked::default();
        loop {
            let now = asked.borrow_and_update().clone();
            // The same question of a home that our answer has not reached yet.
            let under_way = now.ranges == answered.ranges && now.at_target < answered.at_target;
            if !now.ranges.is_empty() && !under_way {
                tracing::warn!(ranges = ?now.ranges, "rotten at home: sent again");
                for (disk, range) in &now.ranges {
                    match append_newest(&self.branch, *disk, *range).await {
                        Ok(_) => {}
                        Err(ContentError::Revoked) => return,
                        // Rotten here as well: home goes on naming it.
                        Err(error) => {
                            let error = crate::errors::chain(&error);
                            tracing::error!(%disk, ?range, error, "it can't be sent to home again");
                        }
                    }
                }
                answered = Asked { at_target: self.branch.head(), ..now };
            }
            // The sender of this channel is ours: it can't be gone.
            let _ = asked.changed().await;
        }
    }
}
