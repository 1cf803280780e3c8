//! Medians, quartiles, and the comparison of two series that were measured in turns.

/// Two contenders, compared round by round.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The median of our values.
    pub ours: f64,
    /// The median of the peer's values.
    pub peer: f64,
    /// The median of the rounds' ratios, ours divided by the peer's.
    pub ratio: f64,
    /// The lower and the upper quartile of these ratios.
    pub quartiles: [f64; 2],
    /// How many rounds there were.
    pub rounds: usize,
}

impl Pair {
    /// Compares two series. Values at the same index are of the same round.
    pub fn new(ours: &[f64], peer: &[f64]) -> Pair {
        let mut ratios: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| ratio(*ours, *peer)).collect();
        ratios.sort_by(f64::total_cmp);
        Pair {
            ours: median(ours),
            peer: median(peer),
            ratio: quantile(&ratios, 0.5),
            quartiles: [quantile(&ratios, 0.25), quantile(&ratios, 0.75)],
            rounds: ratios.len(),
        }
    }
}

/// Zero to zero is a tie. Anything to zero is the largest ratio, since JSON has no infinity.
fn ratio(ours: f64, peer: f64) -> f64 {
    const LARGEST: f64 = 1e6;
    match (ours, peer) {
        (0.0, 0.0) => 1.0,
        (_, 0.0) => LARGEST,
        _ => (ours / peer).min(LARGEST),
    }
}

/// The median; NaN without values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// A quantile of sorted values, interpolated between neighbors.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = last as f64 * share;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

/// Three significant digits.
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 3,
        _ => 5,
    };
    format!("{value:.decimals$}")
}

/// The order of the contenders in a round. Each comes first equally often, and every other round runs backwards.
pub fn order(round: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.rotate_left(round / 2 % count.max(1));
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_rounds() {
        // The machine was ten times slower in the second round, for both.
        let pair = Pair::new(&[2.0, 20.0, 3.0], &[1.0, 10.0, 1.0]);
        assert_eq!((pair.ours, pair.peer, pair.ratio, pair.rounds), (3.0, 1.0, 2.0, 3));
        assert_eq!(pair.quartiles, [2.0, 2.5]);
    }

    #[test]
    fn zero_has_ratios() {
        assert_eq!(Pair::new(&[0.0], &[0.0]).ratio, 1.0);
        assert_eq!(Pair::new(&[1.0], &[0.0]).ratio, 1e6);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn everybody_is_first_equally_often() {
        let firsts: Vec<usize> = (0..6).map(|round| order(round, 3)[0]).collect();
        assert!((0..3).all(|one| firsts.iter().filter(|first| **first == one).count() == 2), "{firsts:?}");
        assert_eq!((order(0, 2), order(1, 2)), (vec![0, 1], vec![1, 0]));
    }
}
