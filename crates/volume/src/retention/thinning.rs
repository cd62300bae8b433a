//! Thinning: which markers stay listed. Pure.

use landfall_types::{MarkerKind, ThinningTier};

/// How many grades of consistency there are, see [`grade`].
const GRADES: usize = 3;

/// A marker with the time at which it was first seen here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamped {
    /// Milliseconds of the target's clock of running time.
    pub(crate) stamp_ms: u64,
    /// What it promises: a better point does not give way to a lesser one.
    pub(crate) kind: MarkerKind,
    /// Named or pinned: it stays, and no other marker gives way to it, so that taking name or pin
    /// away leaves no hole.
    pub(crate) exempt: bool,
}

const fn grade(kind: MarkerKind) -> usize {
    match kind {
        MarkerKind::CrashConsistent | MarkerKind::User => 0,
        MarkerKind::FileSystemConsistent => 1,
        MarkerKind::ApplicationConsistent => 2,
    }
}

/// Which of `markers` (oldest first) stay listed: true where one stays.
///
/// In each tier a marker goes when the ones before and after it that stay are no further apart than
/// the tier's distance; both must promise at least as much as it does. So a hole is never made
/// wider than the distance, and no three neighbors stay within it. The newest marker always stays:
/// it is what the RPO is shown by.
///
/// Finer tiers are thinned first. To thin again what was thinned changes nothing, and what runs
/// often makes no wider holes than what runs once.
pub(crate) fn thin(markers: &[Stamped], now_ms: u64, tiers: &[ThinningTier]) -> Vec<bool> {
    let mut stays = vec![true; markers.len()];
    let mut from_age_ms = 0;
    for tier in tiers {
        let born_by = now_ms.checked_sub(from_age_ms);
        if let Some(born_by) = born_by {
            pass(markers, &mut stays, born_by, tier.every_s.saturating_mul(1_000));
        }
        from_age_ms = tier.until_age_s.saturating_mul(1_000);
    }
    stays
}

/// Thins those that were first seen at `born_by` or before.
fn pass(markers: &[Stamped], stays: &mut [bool], born_by: u64, every_ms: u64) {
    let next = next_of_each_grade(markers, stays);
    let mut before: [Option<u64>; GRADES] = [None; GRADES];
    for (at, marker) in markers.iter().enumerate() {
        if !stays[at] || marker.exempt {
            continue;
        }
        let own = grade(marker.kind);
        let surrounded = before[own].zip(next[at]).is_some_and(|(b, n)| n - b <= every_ms);
        if marker.stamp_ms <= born_by && surrounded {
            stays[at] = false;
            continue;
        }
        for seen in &mut before[..=own] {
            *seen = Some(marker.stamp_ms);
        }
    }
}

/// For each marker the stamp of the next one that stays and promises at least as much.
fn next_of_each_grade(markers: &[Stamped], stays: &[bool]) -> Vec<Option<u64>> {
    let mut after: [Option<u64>; GRADES] = [None; GRADES];
    let mut out = vec![None; markers.len()];
    for (at, marker) in markers.iter().enumerate().rev() {
        let own = grade(marker.kind);
        out[at] = after[own];
        if stays[at] && !marker.exempt {
            for seen in &mut after[..=own] {
                *seen = Some(marker.stamp_ms);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_testkit::Rng;

    fn tiers(all: &[(u64, u64)]) -> Vec<ThinningTier> {
        let tier = |(every_s, until_age_s): &(u64, u64)| ThinningTier {
            every_s: *every_s,
            until_age_s: *until_age_s,
        };
        all.iter().map(tier).collect()
    }

    fn crash(stamp_s: u64) -> Stamped {
        let kind = MarkerKind::CrashConsistent;
        Stamped { stamp_ms: stamp_s * 1_000, kind, exempt: false }
    }

    fn left(markers: &[Stamped], now_s: u64, all: &[(u64, u64)]) -> Vec<u64> {
        let stays = thin(markers, now_s * 1_000, &tiers(all));
        markers
            .iter()
            .zip(stays)
            .filter(|(_, stays)| *stays)
            .map(|(m, _)| m.stamp_ms / 1000)
            .collect()
    }

    #[test]
    fn markers_at_the_tiers_own_distance_all_stay() {
        let markers: Vec<Stamped> = (0..20).map(|n| crash(n * 5)).collect();
        assert_eq!(left(&markers, 100, &[(5, 3600)]).len(), 20);
        // Looked at by a clock that ticks every 2 s, they seem 4 or 6 s apart.
        let seen: Vec<Stamped> = (0..20).map(|n| crash((n * 5_u64).next_multiple_of(2))).collect();
        assert_eq!(left(&seen, 102, &[(5, 3600)]).len(), 20);
    }

    #[test]
    fn older_ones_are_sparser_and_the_ends_stay() {
        let markers: Vec<Stamped> = (0..=60).map(|n| crash(n * 5)).collect();
        assert_eq!(
            left(&markers, 300, &[(5, 60), (60, 600)])[..6],
            [0, 60, 120, 180, 240, 245],
            "up to a minute ago each minute, then all"
        );
        assert_eq!(left(&markers, 10_000, &[(5, 60), (60, 600)]), [0, 60, 120, 180, 240, 300]);
    }

    /// A better point does not give way to a lesser one; an exempt one stays and holds no other's
    /// place.
    #[test]
    fn better_points_outlast_lesser_ones() {
        let mut markers: Vec<Stamped> = (0..=12).map(|n| crash(n * 10)).collect();
        markers[5].kind = MarkerKind::ApplicationConsistent;
        markers[7].exempt = true;
        assert_eq!(left(&markers, 1_000, &[(60, 600)]), [0, 50, 70, 110, 120]);
    }

    fn random_markers(rng: &mut Rng, count: u64) -> Vec<Stamped> {
        let mut stamp_ms = 0;
        let one = |_| {
            // Outages now and then; several markers in one look share a stamp.
            stamp_ms += if rng.one_in(40) { rng.below(2_000_000) } else { rng.below(9_000) };
            let kind = match rng.below(12) {
                0 => MarkerKind::ApplicationConsistent,
                1 => MarkerKind::FileSystemConsistent,
                _ => MarkerKind::CrashConsistent,
            };
            Stamped { stamp_ms, kind, exempt: rng.one_in(30) }
        };
        (0..count).map(one).collect()
    }

    fn random_tiers(rng: &mut Rng) -> Vec<ThinningTier> {
        let mut tier = ThinningTier { every_s: 1 + rng.below(10), until_age_s: 30 };
        let more = |_| {
            let this = tier;
            tier.every_s = this.every_s + 1 + rng.below(this.every_s * 20);
            tier.until_age_s = this.until_age_s.max(tier.every_s) + 1 + rng.below(20_000);
            ThinningTier { until_age_s: this.until_age_s.max(this.every_s + 1), ..this }
        };
        (0..=2).map(more).collect()
    }

    /// The rule by its words, quadratic: again and again the oldest marker that may go goes, tier
    /// by tier.
    fn naive(markers: &[Stamped], now_ms: u64, tiers: &[ThinningTier]) -> Vec<bool> {
        let mut stays = vec![true; markers.len()];
        let mut from_age_ms = 0;
        for tier in tiers {
            for at in 0..markers.len() {
                let this = markers[at];
                let as_good = |n: &usize| {
                    stays[*n] && !markers[*n].exempt && grade(markers[*n].kind) >= grade(this.kind)
                };
                let before = (0..at).rev().find(as_good);
                let after = (at + 1..markers.len()).find(as_good);
                let of_age = this.stamp_ms + from_age_ms <= now_ms;
                if let (true, Some(b), Some(n)) = (of_age && !this.exempt, before, after)
                    && markers[n].stamp_ms - markers[b].stamp_ms <= tier.every_s * 1_000
                {
                    stays[at] = false;
                }
            }
            from_age_ms = tier.until_age_s * 1_000;
        }
        stays
    }

    /// Model test: random markers, schedules, exemptions and times, against the naive rule; and
    /// nothing is thinned into a hole wider than its tier's distance.
    #[test]
    fn thinning_agrees_with_the_naive_rule() {
        let mut rng = Rng::new(landfall_testkit::seed("thinning_agrees_with_the_naive_rule"));
        for round in 0..200 {
            let count = 1 + rng.below(150);
            let markers = random_markers(&mut rng, count);
            let tiers = random_tiers(&mut rng);
            let now_ms = markers.last().map_or(0, |last| last.stamp_ms) + rng.below(30_000_000);
            let stays = thin(&markers, now_ms, &tiers);
            assert_eq!(stays, naive(&markers, now_ms, &tiers), "round {round}: {tiers:?}");
            assert!(stays.last().is_none_or(|last| *last), "round {round}: the newest stays");
            let coarsest = tiers.iter().map(|tier| tier.every_s * 1_000).max().unwrap_or(0);
            let plain: Vec<usize> = (0..markers.len()).filter(|at| !markers[*at].exempt).collect();
            let kept: Vec<usize> = plain.iter().copied().filter(|at| stays[*at]).collect();
            for pair in kept.windows(2) {
                let hole = markers[pair[1]].stamp_ms - markers[pair[0]].stamp_ms;
                let neighbors = !plain.iter().any(|at| pair[0] < *at && *at < pair[1]);
                assert!(neighbors || hole <= coarsest, "round {round}: a hole of {hole} ms");
            }
        }
    }

    /// Thinned as each marker comes, or a second time: no wider holes, and nothing new goes.
    #[test]
    fn thinning_often_makes_no_wider_holes() {
        let mut rng = Rng::new(landfall_testkit::seed("thinning_often_makes_no_wider_holes"));
        for round in 0..100 {
            let count = 1 + rng.below(120);
            let mut all = random_markers(&mut rng, count);
            all.iter_mut().for_each(|marker| marker.exempt = false);
            let tiers = random_tiers(&mut rng);
            let thinned = |markers: &[Stamped], now_ms| {
                let stays = thin(markers, now_ms, &tiers);
                let left = markers.iter().zip(stays).filter(|(_, stays)| *stays);
                left.map(|(marker, _)| *marker).collect::<Vec<_>>()
            };
            let mut often: Vec<Stamped> = Vec::new();
            for marker in &all {
                often.push(*marker);
                often = thinned(&often, marker.stamp_ms);
            }
            let now_ms = all.last().map_or(0, |last| last.stamp_ms) + 50_000_000;
            let left = thinned(&often, now_ms);
            assert_eq!(thinned(&left, now_ms), left, "round {round}: {tiers:?}");
            let coarsest = tiers.last().map_or(0, |tier| tier.every_s * 1_000);
            for pair in left.windows(2) {
                let (from, to) = (pair[0].stamp_ms, pair[1].stamp_ms);
                let between = all.iter().any(|m| from < m.stamp_ms && m.stamp_ms < to);
                assert!(!between || to - from <= coarsest, "round {round}: {from} to {to}");
            }
        }
    }
}
