//! What was measured of each contender, round by round.

use benches::statistics::Pair;

/// The values of one measure, by the name of the contender.
pub(crate) struct Samples(Vec<(&'static str, Vec<f64>)>);

impl Samples {
    pub(crate) fn new(contenders: impl Iterator<Item = &'static str>) -> Samples {
        Samples(contenders.map(|name| (name, Vec::new())).collect())
    }

    /// Adds the value of a round for the contender with this index.
    pub(crate) fn push(&mut self, index: usize, value: f64) {
        self.0[index].1.push(value);
    }

    /// The values of a contender; none if it did not take part.
    pub(crate) fn of(&self, name: &str) -> Option<&[f64]> {
        let (_, values) = self.0.iter().find(|(other, _)| *other == name)?;
        Some(values.as_slice()).filter(|values| !values.is_empty())
    }

    pub(crate) fn pair(&self, ours: &str, peer: &str) -> Option<Pair> {
        Some(Pair::new(self.of(ours)?, self.of(peer)?))
    }

    /// Compares a contender with a constant.
    pub(crate) fn against(&self, ours: &str, limit: f64) -> Option<Pair> {
        let ours = self.of(ours)?;
        Some(Pair::new(ours, &vec![limit; ours.len()]))
    }
}
