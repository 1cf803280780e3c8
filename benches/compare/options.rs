//! The arguments of `cargo bench -p benches -- …`.

#[derive(Default)]
pub(crate) struct Options {
    /// Parts of the names of benches; none means all benches.
    filters: Vec<String>,
    /// A few rounds of everything, to see that it works.
    pub(crate) is_quick: bool,
    /// Writes `BENCHMARKS.md` and its plots.
    pub(crate) writes_document: bool,
    /// Measures nothing, and shows the results of the last run again.
    pub(crate) shows_last: bool,
    /// Started by `cargo test`, which wants no measurement.
    pub(crate) is_test: bool,
}

const USAGE: &str = "usage: cargo bench -p benches -- [--quick] [--document] [--last] [NAME…]

NAME        only benches whose name contains this
--quick     a few rounds with small sizes, to see that everything works
--document  writes BENCHMARKS.md and its plots
--last      measures nothing; shows (or documents) the results of the last run";

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options { is_test: true, ..Options::default() };
        for argument in arguments {
            match argument.as_str() {
                // `cargo bench` adds this; `cargo test` does not.
                "--bench" => options.is_test = false,
                "--quick" => options.is_quick = true,
                "--document" => options.writes_document = true,
                "--last" => options.shows_last = true,
                other if other.starts_with('-') => return Err(USAGE.to_owned()),
                name => options.filters.push(name.to_owned()),
            }
        }
        Ok(options)
    }

    pub(crate) fn selects(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}
