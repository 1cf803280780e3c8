//! The one table that a run prints.

use crate::record::{Record, three_digits};
use crate::results::Results;

/// The heads of the columns; the ratio is ours by the peer's, and lower is better.
const HEADS: [&str; 8] = ["bench", "case", "ours", "peer", "", "ratio", "quartiles", "goal"];

/// Everything, for a terminal.
pub(crate) fn of_all(results: &Results) -> String {
    let rows: Vec<Vec<String>> =
        results.records().map(|record| [vec![record.bench.clone()], row(record)].concat()).collect();
    let mut text = aligned(&HEADS, &rows);
    text.push_str("ratio: ours / peer, the median over the rounds; lower is better\n");
    for (bench, why) in results.skipped() {
        text.push_str(&format!("skipped in {bench}: {why}\n"));
    }
    for bench in &results.failed {
        text.push_str(&format!("FAILED: {bench}\n"));
    }
    text
}

/// The records of one bench, in Markdown.
pub(crate) fn markdown(records: &[&Record]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heads: Vec<String> = HEADS[1..].iter().map(|head| (*head).to_owned()).collect();
    let rule = "|---|---|---|---|---|---|---|\n".to_owned();
    [line(&heads), rule].into_iter().chain(records.iter().map(|record| line(&row(record)))).collect()
}

fn row(record: &Record) -> Vec<String> {
    let case = match record.ours_name.strip_prefix("ours") {
        Some("") | None => record.case.clone(),
        Some(how) => format!("{} ({})", record.case, how.trim_start_matches([',', ' '])),
    };
    let [low, high] = record.quartiles;
    let spread =
        if record.rounds > 1 { format!("{}–{}", three_digits(low), three_digits(high)) } else { String::new() };
    vec![
        case,
        record.unit.show(record.ours),
        record.unit.show(record.peer),
        record.peer_name.clone(),
        three_digits(record.ratio),
        spread,
        goal(record),
    ]
}

pub(crate) fn goal(record: &Record) -> String {
    match (record.goal, record.is_held) {
        (Some(goal), Some(is_held)) => format!("{} ≤ {}", if is_held { "✓" } else { "✗" }, three_digits(goal)),
        _ => String::new(),
    }
}

fn aligned(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut heads.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}
