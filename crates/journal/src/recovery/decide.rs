//! What recovery concludes from what it found: pure, and as tables whose rows
//! `docs/formats/journal.md` lists.
//!
//! Every function looks at a handful of facts and picks the one row that matches; the tests go
//! through all facts and prove that it is always exactly one. Where facts are ambiguous the answer
//! is *corrupt*: nothing is cut on a guess.

/// A row: its label in the document, when it matches, what follows.
pub(super) struct Row<Facts: 'static, Verdict: 'static> {
    pub(super) label: &'static str,
    pub(super) matches: fn(&Facts) -> bool,
    pub(super) verdict: Verdict,
}

/// The first row that matches; that there is one, and only one, is tested.
fn pick<Facts, Verdict: Copy>(
    rows: &'static [Row<Facts, Verdict>],
    facts: &Facts,
) -> (&'static str, Verdict) {
    let row =
        rows.iter().find(|row| (row.matches)(facts)).expect("the tables cover all facts: tested");
    (row.label, row.verdict)
}

/// What one superblock copy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CopyState {
    /// Never written.
    Blank,
    /// Torn or rotten.
    Invalid,
    /// Intact.
    Valid,
}

/// How two intact copies relate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CopyRelation {
    /// Equal in all.
    Same,
    /// Of one log; the first has the higher sequence number.
    FirstNewer,
    /// Of one log; the second has the higher sequence number.
    SecondNewer,
    /// Of two logs, or different with one sequence number.
    Conflict,
}

/// What is known about the superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SuperblockFacts {
    pub(crate) first: CopyState,
    pub(crate) second: CopyState,
    /// Means something only where both are valid.
    pub(crate) relation: CopyRelation,
    /// Some segment file holds a record.
    pub(crate) records_seen: bool,
}

impl SuperblockFacts {
    fn is(&self, first: CopyState, second: CopyState) -> bool {
        self.first == first && self.second == second
    }
    fn both(&self, relation: CopyRelation) -> bool {
        self.is(CopyState::Valid, CopyState::Valid) && self.relation == relation
    }
}

/// What to do with the superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SuperblockVerdict {
    /// Creation never finished.
    NotALog,
    /// The first copy holds; `true`: write the second one again.
    First(bool),
    /// The second copy holds; write the first one again.
    Second,
    /// Neither can be trusted.
    Corrupt,
}

use CopyState::{Blank, Invalid, Valid};

pub(super) const SUPERBLOCK: &[Row<SuperblockFacts, SuperblockVerdict>] = &[
    // tidy: table
    Row {
        label: "S1 creation never finished",
        matches: |f| f.first != Valid && f.second == Blank && !f.records_seen,
        verdict: SuperblockVerdict::NotALog,
    },
    Row {
        label: "S2 records without a superblock",
        matches: |f| f.first != Valid && f.second == Blank && f.records_seen,
        verdict: SuperblockVerdict::Corrupt,
    },
    Row {
        label: "S3 first copy only",
        matches: |f| f.first == Valid && f.second != Valid,
        verdict: SuperblockVerdict::First(true),
    },
    Row {
        label: "S4 second copy only",
        matches: |f| f.first != Valid && f.second == Valid,
        verdict: SuperblockVerdict::Second,
    },
    Row {
        label: "S5 both equal",
        matches: |f| f.both(CopyRelation::Same),
        verdict: SuperblockVerdict::First(false),
    },
    Row {
        label: "S6 update cut between the copies",
        matches: |f| f.both(CopyRelation::FirstNewer),
        verdict: SuperblockVerdict::First(true),
    },
    Row {
        label: "S7 first copy stale",
        matches: |f| f.both(CopyRelation::SecondNewer),
        verdict: SuperblockVerdict::Second,
    },
    Row {
        label: "S8 copies contradict each other",
        matches: |f| f.both(CopyRelation::Conflict),
        verdict: SuperblockVerdict::Corrupt,
    },
    Row {
        label: "S9 no copy is intact",
        matches: |f| f.first != Valid && f.second == Invalid,
        verdict: SuperblockVerdict::Corrupt,
    },
];

pub(crate) fn superblock(facts: &SuperblockFacts) -> (&'static str, SuperblockVerdict) {
    pick(SUPERBLOCK, facts)
}

/// What is known about the set of segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentsFacts {
    /// The oldest kept segment of the superblock is there.
    pub(crate) first_present: bool,
    /// It begins where the superblock says.
    pub(crate) base_fits: bool,
    /// No two files claim one sequence number.
    pub(crate) unique: bool,
    /// No sequence number is missing up to the highest.
    pub(crate) contiguous: bool,
    /// Another file holds a frame of a kept segment: its header was durable once, and is lost.
    pub(crate) header_lost: bool,
}

/// What to do with the set of segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentsVerdict {
    /// They are the log.
    Complete,
    /// They can't be.
    Corrupt,
}

pub(super) const SEGMENTS: &[Row<SegmentsFacts, SegmentsVerdict>] = &[
    // tidy: table
    Row {
        label: "G1 complete",
        matches: |f| f.unique && f.first_present && f.base_fits && f.contiguous && !f.header_lost,
        verdict: SegmentsVerdict::Complete,
    },
    Row {
        label: "G2 one sequence number twice",
        matches: |f| !f.unique,
        verdict: SegmentsVerdict::Corrupt,
    },
    Row {
        label: "G3 the oldest segment is missing",
        matches: |f| f.unique && !f.first_present,
        verdict: SegmentsVerdict::Corrupt,
    },
    Row {
        label: "G4 the oldest segment begins elsewhere",
        matches: |f| f.unique && f.first_present && !f.base_fits,
        verdict: SegmentsVerdict::Corrupt,
    },
    Row {
        label: "G5 a segment in between is missing",
        matches: |f| f.unique && f.first_present && f.base_fits && !f.contiguous,
        verdict: SegmentsVerdict::Corrupt,
    },
    Row {
        label: "G6 a segment header is lost",
        matches: |f| f.unique && f.first_present && f.base_fits && f.contiguous && f.header_lost,
        verdict: SegmentsVerdict::Corrupt,
    },
];

pub(crate) fn segments(facts: &SegmentsFacts) -> (&'static str, SegmentsVerdict) {
    pick(SEGMENTS, facts)
}

/// What is known about a segment that has a successor: the successor's header proves that it was
/// durable up to there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InnerFacts {
    /// Its index is intact and ends where the successor begins.
    pub(crate) index_joins: bool,
    /// Its frames lead there.
    pub(crate) frames_join: bool,
}

/// What to do with a segment that has a successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InnerVerdict {
    /// Take the index.
    UseIndex,
    /// Take what the frames say.
    UseFrames,
    /// Records are missing that were durable.
    Corrupt,
}

pub(super) const INNER: &[Row<InnerFacts, InnerVerdict>] = &[
    // tidy: table
    Row { label: "I1 index", matches: |f| f.index_joins, verdict: InnerVerdict::UseIndex },
    Row {
        label: "I2 index lost, frames complete",
        matches: |f| !f.index_joins && f.frames_join,
        verdict: InnerVerdict::UseFrames,
    },
    Row {
        label: "I3 durable records are missing",
        matches: |f| !f.index_joins && !f.frames_join,
        verdict: InnerVerdict::Corrupt,
    },
];

pub(crate) fn inner(facts: &InnerFacts) -> (&'static str, InnerVerdict) {
    pick(INNER, facts)
}

/// What is known about the last segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastFacts {
    /// It has an intact index.
    pub(crate) sealed: bool,
    /// All records that are known to have been durable are intact and in place.
    pub(crate) floor_reached: bool,
    /// Behind its last good frame there is something that this log has written there in this use of
    /// the file.
    pub(crate) leftovers: bool,
}

/// What to do with the end of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LastVerdict {
    /// Full: the next record begins a new segment.
    Sealed,
    /// The next record follows in place.
    Ends,
    /// What lies behind was never acknowledged: the next record begins a new segment, whose header
    /// makes the cut durable.
    Torn,
    /// Records are missing that were durable.
    Corrupt,
}

pub(super) const LAST: &[Row<LastFacts, LastVerdict>] = &[
    // tidy: table
    Row {
        label: "T1 sealed",
        matches: |f| f.floor_reached && f.sealed,
        verdict: LastVerdict::Sealed,
    },
    Row {
        label: "T2 ends",
        matches: |f| f.floor_reached && !f.sealed && !f.leftovers,
        verdict: LastVerdict::Ends,
    },
    Row {
        label: "T3 torn tail",
        matches: |f| f.floor_reached && !f.sealed && f.leftovers,
        verdict: LastVerdict::Torn,
    },
    Row {
        label: "T4 durable records are missing",
        matches: |f| !f.floor_reached,
        verdict: LastVerdict::Corrupt,
    },
];

pub(crate) fn last(facts: &LastFacts) -> (&'static str, LastVerdict) {
    pick(LAST, facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOLS: [bool; 2] = [false, true];

    fn exactly_one<Facts: std::fmt::Debug, Verdict>(rows: &[Row<Facts, Verdict>], facts: &Facts) {
        let labels: Vec<_> =
            rows.iter().filter(|row| (row.matches)(facts)).map(|row| row.label).collect();
        assert_eq!(labels.len(), 1, "{facts:?} matches {labels:?}");
    }

    /// Reliability rule 4: no input without a row, none with two.
    #[test]
    fn every_input_matches_exactly_one_row() {
        let states = [Blank, Invalid, Valid];
        let relations = [
            CopyRelation::Same,
            CopyRelation::FirstNewer,
            CopyRelation::SecondNewer,
            CopyRelation::Conflict,
        ];
        for first in states {
            for second in states {
                for relation in relations {
                    for records_seen in BOOLS {
                        let facts = SuperblockFacts { first, second, relation, records_seen };
                        exactly_one(SUPERBLOCK, &facts);
                    }
                }
            }
        }
        for a in BOOLS {
            for b in BOOLS {
                exactly_one(INNER, &InnerFacts { index_joins: a, frames_join: b });
                for c in BOOLS {
                    let last = LastFacts { sealed: a, floor_reached: b, leftovers: c };
                    exactly_one(LAST, &last);
                    for d in BOOLS {
                        for header_lost in BOOLS {
                            let segments = SegmentsFacts {
                                first_present: a,
                                base_fits: b,
                                unique: c,
                                contiguous: d,
                                header_lost,
                            };
                            exactly_one(SEGMENTS, &segments);
                        }
                    }
                }
            }
        }
    }

    /// A missing durable record is never cut off, whatever else is found (promise P2).
    #[test]
    fn missing_durable_records_are_always_corrupt() {
        for sealed in BOOLS {
            for leftovers in BOOLS {
                let facts = LastFacts { sealed, floor_reached: false, leftovers };
                assert_eq!(last(&facts).1, LastVerdict::Corrupt);
            }
        }
    }

    /// The document lists each row by its label.
    #[test]
    fn the_document_lists_every_row() {
        let document = include_str!("../../../../docs/formats/journal.md");
        let labels = SUPERBLOCK
            .iter()
            .map(|row| row.label)
            .chain(SEGMENTS.iter().map(|row| row.label))
            .chain(INNER.iter().map(|row| row.label))
            .chain(LAST.iter().map(|row| row.label));
        for label in labels {
            let (id, text) = label.split_once(' ').expect("a label has an ID and a text");
            assert!(
                document.contains(&format!("| {id} | {text} |")),
                "docs/formats/journal.md lacks the row {label:?}"
            );
        }
    }
}
