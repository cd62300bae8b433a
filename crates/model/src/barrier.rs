//! A point of several machines at once (trap T-19): which member is asked what, and whether the
//! point is one.
//!
//! ```text
//!   Freeze ─► all: freeze, take the moment, stay frozen
//!   Confirm ─► all, when the last one has taken its moment: still frozen? then thaw
//!   Keep ─► all, when every one was; else Void: no marker is put anywhere
//! ```
//!
//! At the moment when the last member has answered `Freeze`, every member that will say *still
//! frozen* is frozen, and has taken its moment. Nothing was written between a member's moment and
//! that one, so the moments together are a cut that no effect crosses without its cause.

use std::collections::BTreeMap;

/// What a member is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ask {
    /// Freeze everything, take the moment of the marker, stay frozen.
    Freeze,
    /// Say whether everything is frozen still; thaw.
    Confirm,
    /// Put the marker into the log.
    Keep,
    /// Put no marker into the log; thaw what is frozen.
    Void,
}

/// What became of the point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome<M> {
    /// Every member has its marker.
    Point,
    /// There is no point, because of this member.
    NoPoint(M),
    /// Every marker is true, but this member could not put its own: the members together have no
    /// such point.
    Incomplete(M),
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct Barrier<M> {
    /// What each member was asked last, and whether it has answered.
    members: BTreeMap<M, bool>,
    ask: Ask,
    failed: Option<M>,
}

impl<M: Ord + Copy> Barrier<M> {
    /// For these members; the first question goes to all of them.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = M>) -> Self {
        let members = members.into_iter().map(|member| (member, false)).collect();
        Self { members, ask: Ask::Freeze, failed: None }
    }

    /// What every member is asked now.
    #[must_use]
    pub const fn ask(&self) -> Ask {
        self.ask
    }

    /// A member has answered the present question; no answer within its time is a no. True when the
    /// question has changed: it goes to every member.
    ///
    /// Answers to a question that is over, or of nobody we know, change nothing.
    pub fn answered(&mut self, member: M, ask: Ask, yes: bool) -> bool {
        let Some(answered) = self.members.get_mut(&member) else { return false };
        if ask != self.ask || *answered {
            return false;
        }
        *answered = true;
        if !yes && self.ask != Ask::Void {
            self.failed.get_or_insert(member);
        }
        let next = match self.ask {
            // At once: the others stay frozen no longer than they must.
            Ask::Freeze | Ask::Confirm if !yes => Ask::Void,
            _ if !self.members.values().all(|answered| *answered) => return false,
            Ask::Freeze => Ask::Confirm,
            Ask::Confirm => Ask::Keep,
            Ask::Keep | Ask::Void => return false,
        };
        self.ask = next;
        self.members.values_mut().for_each(|answered| *answered = false);
        true
    }

    /// What became of it, when the last member has answered the last question.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome<M>> {
        if !self.members.values().all(|answered| *answered) {
            return None;
        }
        match (self.ask, self.failed) {
            (Ask::Keep, None) => Some(Outcome::Point),
            (Ask::Keep, Some(member)) => Some(Outcome::Incomplete(member)),
            (Ask::Void, Some(member)) => Some(Outcome::NoPoint(member)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_answers_each_question_before_the_next() {
        let mut barrier = Barrier::new([1, 2]);
        for (ask, next) in [(Ask::Freeze, Ask::Confirm), (Ask::Confirm, Ask::Keep)] {
            assert!(!barrier.answered(1, ask, true));
            assert!(!barrier.answered(1, ask, true), "once");
            assert!(!barrier.answered(3, ask, true), "a stranger");
            assert!(barrier.answered(2, ask, true));
            assert!(!barrier.answered(2, ask, true), "late");
            assert_eq!((barrier.ask(), barrier.outcome()), (next, None));
        }
        barrier.answered(2, Ask::Keep, true);
        assert_eq!(barrier.outcome(), None);
        barrier.answered(1, Ask::Keep, true);
        assert_eq!(barrier.outcome(), Some(Outcome::Point));
    }

    #[test]
    fn one_no_makes_it_void_and_a_marker_that_is_missing_makes_it_incomplete() {
        for ask in [Ask::Freeze, Ask::Confirm] {
            let mut barrier = Barrier::new([1, 2, 3]);
            while barrier.ask() != ask {
                (1..=3).for_each(|member| _ = barrier.answered(member, barrier.ask(), true));
            }
            assert!(barrier.answered(2, ask, false), "at once");
            assert_eq!(barrier.ask(), Ask::Void);
            assert_eq!(barrier.outcome(), None);
            (1..=3).for_each(|member| _ = barrier.answered(member, Ask::Void, member != 1));
            assert_eq!(barrier.outcome(), Some(Outcome::NoPoint(2)));
        }
        let mut barrier = Barrier::new([1, 2]);
        for ask in [Ask::Freeze, Ask::Confirm, Ask::Keep] {
            barrier.answered(1, ask, true);
            barrier.answered(2, ask, ask != Ask::Keep);
        }
        assert_eq!(barrier.outcome(), Some(Outcome::Incomplete(2)));
    }
}
