//! What `cargo bench -- …` takes.

/// How this run is meant.
#[derive(Default)]
pub(crate) struct Options {
    /// Benches by parts of their names; none means all.
    filters: Vec<String>,
    /// A few rounds of everything, to see that it works.
    pub(crate) is_quick: bool,
    /// Writes `BENCHMARKS.md` and its plots.
    pub(crate) is_document: bool,
    /// Measures nothing, and shows the results of the last run again.
    pub(crate) is_last: bool,
    /// Started by `cargo test`, which wants no measurement.
    pub(crate) is_a_test: bool,
}

const USAGE: &str = "usage: cargo bench -- [--quick] [--document] [--last] [NAME…]

NAME        only benches whose name has this in it
--quick     a few rounds of small sizes: shows that all of it works, and no more
--document  writes BENCHMARKS.md and the plots beside it
--last      measures nothing, and shows (or documents) the results of the last run";

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options { is_a_test: true, ..Options::default() };
        for argument in arguments {
            match argument.as_str() {
                // cargo's own word, which it leaves out in `cargo test`.
                "--bench" => options.is_a_test = false,
                "--quick" => options.is_quick = true,
                "--document" => options.is_document = true,
                "--last" => options.is_last = true,
                other if other.starts_with('-') => return Err(USAGE.to_owned()),
                name => options.filters.push(name.to_owned()),
            }
        }
        if options.is_quick && options.is_document {
            return Err("a quick run shows nothing that is worth a document".to_owned());
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}
