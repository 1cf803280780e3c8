//! The rows of a run as a table: aligned for a terminal, or in Markdown.

use benches::statistics::three_digits;

use crate::record::Record;
use crate::results::Results;

const HEADINGS: [&str; 8] = ["bench", "case", "ours", "peer", "", "ratio", "quartiles", "goal"];

/// A whole run, for a terminal.
pub(crate) fn for_terminal(results: &Results) -> String {
    let rows: Vec<Vec<String>> =
        results.records().map(|record| [vec![record.bench.clone()], row(record)].concat()).collect();
    let mut text = results.warning().map_or_else(String::new, |warning| format!("{warning}\n\n"));
    text.push_str(&aligned(&HEADINGS, &rows));
    text.push_str("ratio: ours / peer, the median over the rounds; lower is better\n\n");
    text.push_str(&format!("idle states of the processors: {}\n", results.machine.idle_states));
    for (bench, conditions) in results.conditions() {
        let mark = if conditions.are_quiet() { "" } else { "NOT QUIET: " };
        text.push_str(&format!("{bench}: {mark}{conditions}\n"));
    }
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
    let headings: Vec<String> = HEADINGS[1..].iter().map(|heading| (*heading).to_owned()).collect();
    let rule = "|---|---|---|---|---|---|---|\n".to_owned();
    [line(&headings), rule].into_iter().chain(records.iter().map(|record| line(&row(record)))).collect()
}

fn row(record: &Record) -> Vec<String> {
    let how = record.ours_name.strip_prefix("ours").unwrap_or(&record.ours_name).trim_start_matches([',', ' ']);
    let case = if how.is_empty() { record.case.clone() } else { format!("{} ({how})", record.case) };
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

/// The goal of a row with its mark; empty where there is none.
pub(crate) fn goal(record: &Record) -> String {
    match (record.goal, record.is_met) {
        (Some(goal), Some(is_met)) => format!("{} ≤ {}", if is_met { "✓" } else { "✗" }, three_digits(goal)),
        _ => String::new(),
    }
}

fn aligned(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut headings.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}
