//! The matrix as a table of the documentation.

use std::env;
use std::fs;
use std::path::Path;

use crate::escapes::Escape;
use crate::matrix::{Ending, Mechanism, refuses, survivors};

const BEGIN: &str =
    "<!-- The tables are written by `UPDATE_CONTAINMENT=1 cargo test --test containment -- documented`. -->\n";
const END: &str = "<!-- The end of the tables. -->\n";

fn title(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Cgroup => "In a cgroup",
        Mechanism::Mark => "With a mark, in an unprivileged program",
        Mechanism::MarkHidepid => "With a mark, where `/proc` is mounted with `hidepid=2`",
        Mechanism::Tree => "With the tree alone",
    }
}

fn row(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn tables() -> String {
    let mut text = String::new();
    for mechanism in Mechanism::ALL {
        text += &format!("\n{}:\n\n", title(mechanism));
        let titles = Ending::ALL.iter().map(|ending| ending.title().to_owned());
        text += &row([String::new()].into_iter().chain(titles));
        text += &format!("|{}\n", "---|".repeat(Ending::ALL.len() + 1));
        for escape in Escape::ALL {
            let numbers = Ending::ALL.iter().map(|ending| match survivors(mechanism, *ending, escape) {
                _ if refuses(mechanism, *ending) => "not started".into(),
                Some(number) => number.to_string(),
                None => "any".into(),
            });
            text += &row([escape.name().to_owned()].into_iter().chain(numbers));
        }
    }
    text + "\n"
}

/// The page says what the cases have found.
pub(crate) fn check() -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/containment.md");
    let page = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (before, rest) = page.split_once(BEGIN).ok_or("the page has no place for the tables")?;
    let (_, after) = rest.split_once(END).ok_or("the page has no end of the tables")?;
    let expected = format!("{before}{BEGIN}{}{END}{after}", tables());
    if env::var_os("UPDATE_CONTAINMENT").is_some() {
        return fs::write(&path, expected).map_err(|error| error.to_string());
    }
    let message = "the tables of src/docs/containment.md are not what is tested; `UPDATE_CONTAINMENT=1` writes them";
    if page == expected { Ok(()) } else { Err(message.into()) }
}
