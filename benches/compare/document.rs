//! `BENCHMARKS.md`: a dated copy of one run.

use benches::statistics::three_digits;

use crate::record::Record;
use crate::results::Results;
use crate::table;

/// What each bench measures, written by hand.
const ABOUT: &[(&str, &str)] = &[
    ("spawn", include_str!("about/spawn.md")),
    ("resident", include_str!("about/resident.md")),
    ("stall", include_str!("about/stall.md")),
    ("streams", include_str!("about/streams.md")),
    ("exit", include_str!("about/exit.md")),
    ("signal", include_str!("about/signal.md")),
    ("crowd", include_str!("about/crowd.md")),
    ("stop", include_str!("about/stop.md")),
    ("containment", include_str!("about/containment.md")),
    ("daemon", include_str!("about/daemon.md")),
    ("counts", include_str!("about/counts.md")),
];

const TITLE: &str = "# Benchmarks\n";

const HEAD: &str = include_str!("about/head.md");

/// The known reasons for the rows that we lose, written by hand.
const LOSSES: &str = include_str!("about/losses.md");

pub(crate) fn page(results: &Results) -> String {
    let mut text = TITLE.to_owned();
    if let Some(warning) = results.warning() {
        text.push_str(&format!("\n**{warning} Do not trust the figures.**\n"));
    }
    text.push_str(&format!("\n{HEAD}\n## The machine\n\n| | |\n|---|---|\n"));
    for (key, value) in results.machine.rows() {
        text.push_str(&format!("| {key} | {value} |\n"));
    }
    text.push_str(&losses(results));
    for bench in results.benches() {
        text.push_str(&section(results, bench));
    }
    let skipped: Vec<String> = results.skipped().map(|(bench, why)| format!("- {bench}: {why}\n")).collect();
    if !skipped.is_empty() {
        text.push_str(&format!("\n## Left out of this run\n\n{}", skipped.concat()));
    }
    text
}

fn section(results: &Results, bench: &str) -> String {
    let about = ABOUT.iter().find(|(name, _)| *name == bench).map_or("", |(_, about)| about);
    let conditions = results.conditions().find(|(name, _)| *name == bench);
    let conditions = conditions.map_or_else(String::new, |(_, conditions)| format!("\nThe machine: {conditions}.\n"));
    let rows = table::markdown(&results.records_of(bench));
    format!("\n## {bench}\n\n{about}{conditions}\n{rows}\n![{bench}](benches/plots/{bench}.svg)\n")
}

/// Each row in which a peer was ahead, and each goal that was missed.
fn losses(results: &Results) -> String {
    let is_lost = |record: &&Record| record.is_met == Some(false) || (record.is_against_a_peer() && record.ratio > 1.0);
    let line = |record: &Record| {
        let goal = table::goal(record);
        let goal = if goal.is_empty() { String::new() } else { format!(" (goal: {goal})") };
        let ratio = three_digits(record.ratio);
        format!("- {}: {}, {}: {ratio} x {}{goal}\n", record.bench, record.case, record.ours_name, record.peer_name)
    };
    let lines: Vec<String> = results.records().filter(is_lost).map(line).collect();
    format!("\n## Where we lose\n\n{LOSSES}\nIn this run, by ratio:\n\n{}", lines.concat())
}
