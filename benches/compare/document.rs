//! `BENCHMARKS.md`: a dated copy of one run, with the plots that lie beside the benches.

use crate::record::{Record, three_digits};
use crate::results::Results;
use crate::table;

/// What the measurements mean, which no measurement says; by hand.
const ABOUT: &[(&str, &str)] = &[
    ("spawn", include_str!("about/spawn.md")),
    ("resident", include_str!("about/resident.md")),
    ("stall", include_str!("about/stall.md")),
    ("streams", include_str!("about/streams.md")),
    ("exit", include_str!("about/exit.md")),
    ("signal", include_str!("about/signal.md")),
    ("crowd", include_str!("about/crowd.md")),
    ("daemon", include_str!("about/daemon.md")),
    ("counts", include_str!("about/counts.md")),
];

const HEAD: &str = include_str!("about/head.md");

/// Why we lose where we do, as far as it is known; by hand.
const LOSSES: &str = include_str!("about/losses.md");

pub(crate) fn of(results: &Results) -> String {
    let mut text = format!("{HEAD}\n## The machine\n\n| | |\n|---|---|\n");
    for (key, value) in results.machine.rows() {
        text.push_str(&format!("| {key} | {value} |\n"));
    }
    text.push_str(&losses(results));
    for bench in results.benches() {
        let about = ABOUT.iter().find(|(name, _)| *name == bench).map_or("", |(_, about)| about);
        let records = table::markdown(&results.of_bench(bench));
        text.push_str(&format!("\n## {bench}\n\n{about}\n{records}\n![{bench}](benches/plots/{bench}.svg)\n"));
    }
    let skipped: Vec<String> = results.skipped().map(|(bench, why)| format!("- {bench}: {why}\n")).collect();
    if !skipped.is_empty() {
        text.push_str(&format!("\n## Left out of this run\n\n{}", skipped.concat()));
    }
    text
}

/// Every row in which a peer was ahead, and every goal that was missed.
fn losses(results: &Results) -> String {
    let is_lost =
        |record: &&Record| record.is_held == Some(false) || (record.is_against_a_peer() && record.ratio > 1.0);
    let line = |record: &Record| {
        let goal = table::goal(record);
        let goal = if goal.is_empty() { String::new() } else { format!(" (goal: {goal})") };
        let ratio = three_digits(record.ratio);
        format!("- {}: {}, {}: {ratio} x {}{goal}\n", record.bench, record.case, record.ours_name, record.peer_name)
    };
    let lines: Vec<String> = results.records().filter(is_lost).map(line).collect();
    format!("\n## Where we lose\n\n{LOSSES}\nIn this run, by ratio:\n\n{}", lines.concat())
}
