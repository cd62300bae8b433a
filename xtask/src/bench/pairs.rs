use anyhow::Result;

/// The middle and the ends of a set of numbers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Of these numbers.
    ///
    /// # Panics
    /// When there are none.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self { median, least: values[0], most: values[values.len() - 1] }
    }
}

/// What comparing two sides gave.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Comparison {
    /// Ours ÷ the peer's, pair by pair.
    pub(super) ratio: Spread,
    /// Ours alone.
    pub(super) ours: Spread,
    /// The peer's alone.
    pub(super) peer: Spread,
}

/// Measures both sides `pairs` times, alternating who comes first: whatever else the machine does
/// in the meantime hits both.
///
/// # Errors
/// What either side returns.
pub(super) fn compare(
    pairs: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut peer: impl FnMut() -> Result<f64>,
) -> Result<Comparison> {
    let mut both = Vec::new();
    for pair in 0..pairs {
        if pair % 2 == 0 {
            let theirs = peer()?;
            both.push((ours()?, theirs));
        } else {
            let mine = ours()?;
            both.push((mine, peer()?));
        }
    }
    let pick = |of: fn(&(f64, f64)) -> f64| Spread::of(both.iter().map(of).collect());
    Ok(Comparison {
        ratio: pick(|(ours, peer)| ours / peer),
        ours: pick(|(ours, _)| *ours),
        peer: pick(|(_, peer)| *peer),
    })
}

#[cfg(test)]
mod tests {
    use super::{Spread, compare};
    use std::cell::RefCell;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert!((Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median - 2.5).abs() < 1e-9);
    }

    #[test]
    fn pairs_swap_who_comes_first_and_ratios_stay_within_a_pair() {
        let order = RefCell::new(String::new());
        let step = |side: char, value: f64| {
            order.borrow_mut().push(side);
            Ok(value)
        };
        let mut slowing = [2.0, 20.0, 200.0].into_iter();
        let mut slow = [1.0, 10.0, 100.0].into_iter();
        let found = compare(
            3,
            || step('o', slowing.next().expect("three pairs")),
            || step('p', slow.next().expect("three pairs")),
        )
        .expect("no side fails");
        assert_eq!(order.into_inner(), "pooppo");
        assert_eq!(found.ratio, Spread { median: 2.0, least: 2.0, most: 2.0 });
    }
}
