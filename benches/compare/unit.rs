//! Values with units, as people read them.

use benches::statistics::three_digits;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Count,
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let (size, name) = steps.iter().rev().find(|(size, _)| value.abs() >= *size).unwrap_or(&steps[0]);
            format!("{} {name}", three_digits(value / size))
        };
        match self {
            Unit::Seconds => scaled(&[(1e-6, "µs"), (1e-3, "ms"), (1.0, "s")]),
            Unit::Bytes => scaled(&[(1024.0, "KiB"), (1048576.0, "MiB"), (1073741824.0, "GiB")]),
            Unit::Count => three_digits(value),
        }
    }
}
