use std::ops::Range;

/// How many runs of about one size are merged into one.
pub const FAN_OUT: usize = 8;

/// Which neighboring runs to merge next; `sizes` are pieces per run, oldest run first, and `unit`
/// is the size of a new one. `None` when there are few enough: below [`FAN_OUT`] of each power of
/// it.
///
/// Small runs between larger ones go with them. Each piece is written once per power of
/// [`FAN_OUT`], so that ten million records are written about four times.
#[must_use]
pub fn plan(sizes: &[u32], unit: u32) -> Option<Range<usize>> {
    let levels: Vec<u32> = sizes.iter().map(|size| level(*size, unit)).collect();
    let top = levels.iter().copied().max()?;
    (0..=top).find_map(|wanted| {
        let mut from = 0;
        while from < levels.len() {
            let stretch = levels[from..].iter().take_while(|level| **level <= wanted).count();
            let stretch = from..from + stretch;
            let mut of_level = stretch.clone().filter(|at| levels[*at] == wanted);
            let first = of_level.next();
            let count = 1 + of_level.clone().count();
            if let (Some(first), Some(last)) = (first, of_level.nth(FAN_OUT - 2)) {
                debug_assert!(count >= FAN_OUT);
                return Some(first..last + 1);
            }
            from = stretch.end + 1;
        }
        None
    })
}

/// The power of [`FAN_OUT`] that a size is nearest to, in units.
fn level(size: u32, unit: u32) -> u32 {
    let mut level = 0;
    // Half of the next power counts as it: runs shrink a little when what the image has is dropped.
    let mut next = u64::from(unit) * FAN_OUT as u64 / 2;
    while u64::from(size) >= next {
        level += 1;
        next = next.saturating_mul(FAN_OUT as u64);
    }
    level
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stay_few_and_each_piece_is_written_a_few_times() {
        const UNIT: u32 = 16;
        let mut runs: Vec<u32> = Vec::new();
        let mut written = 0_u64;
        for _ in 0..5000 {
            runs.push(UNIT);
            written += u64::from(UNIT);
            while let Some(range) = plan(&runs, UNIT) {
                assert!(range.len() >= FAN_OUT, "{range:?}");
                let sum: u32 = runs[range.clone()].iter().sum();
                written += u64::from(sum);
                runs.splice(range, [sum]);
            }
            assert!(runs.len() <= 5 * (FAN_OUT - 1), "{runs:?}");
        }
        let total: u64 = runs.iter().map(|size| u64::from(*size)).sum();
        assert_eq!(total, 5000 * u64::from(UNIT));
        assert!(written <= 6 * total, "{written} of {total}");
        assert_eq!(plan(&[], UNIT), None);
    }

    #[test]
    fn small_runs_between_larger_ones_go_with_them() {
        let mut sizes = vec![128; 4];
        sizes.push(1);
        sizes.extend([128; 4]);
        assert_eq!(plan(&sizes, 16), Some(0..9));
    }
}
