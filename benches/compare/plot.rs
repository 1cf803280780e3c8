//! A plot for each bench: what everybody takes, as many times ours, as bars.
//!
//! Where somebody is further away than a reader could see side by side, the scale is logarithmic, and says so.

use std::io;
use std::path::Path;

use svg::Document;
use svg::node::element::{Line, Rectangle, Text};

use crate::record::{Record, THE_GOAL, three_digits};
use crate::results::Results;

const WIDTH: f64 = 860.0;
/// Names stand left of here, bars right of it.
const LEFT: f64 = 210.0;
/// Bars end here, so that their values have room.
const RIGHT: f64 = 680.0;
const ROW: f64 = 18.0;
const BAR: f64 = 12.0;

const OURS: &str = "#c2410c";
const OURS_TOO: &str = "#fdba74";
const PEER: &str = "#94a3b8";
const GOAL: &str = "#ffffff";
const INK: &str = "#1e293b";
const FAINT: &str = "#cbd5e1";

/// Beyond this, a linear scale would leave nothing of us to be seen.
const MOST_LINEAR: f64 = 12.0;

/// One `NAME.svg` for each bench.
pub(crate) fn write_all(results: &Results, folder: &Path) -> io::Result<()> {
    for bench in results.benches() {
        svg::save(folder.join(format!("{bench}.svg")), &plot(bench, &results.of_bench(bench)))?;
    }
    Ok(())
}

/// Bars that belong together: ours, and what it stands against.
struct Case<'a> {
    name: &'a str,
    bars: Vec<Bar<'a>>,
}

struct Bar<'a> {
    name: &'a str,
    /// As many times ours.
    times: f64,
    label: String,
    colour: &'static str,
}

fn plot(bench: &str, records: &[&Record]) -> Document {
    let cases = cases(records);
    let rows: usize = cases.iter().map(|case| case.bars.len() + 2).sum();
    let height = 84.0 + ROW * rows as f64;
    let scale = Scale::for_all(cases.iter().flat_map(|case| &case.bars).map(|bar| bar.times));
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("font-family", "system-ui, sans-serif")
        .set("font-size", 12)
        .add(Rectangle::new().set("width", WIDTH).set("height", height).set("fill", "#ffffff"))
        .add(text(format!("{bench}: deluxe-process and its peers"), 16.0, 26.0, "start").set("font-size", 17))
        .add(text(scale.label(), LEFT, 46.0, "start").set("fill", "#475569"));
    for mark in scale.marks() {
        let x = scale.place(mark);
        let line = Line::new().set("x1", x).set("x2", x).set("y1", 66.0).set("y2", height - 12.0).set("stroke", FAINT);
        document = document.add(line).add(text(shown_mark(mark), x, 61.0, "middle").set("font-size", 10));
    }
    let mut y = 84.0;
    for case in &cases {
        document = document.add(text(case.name, 16.0, y, "start").set("font-weight", "bold"));
        y += ROW;
        for bar in &case.bars {
            let end = scale.place(bar.times);
            let rectangle = Rectangle::new()
                .set("x", LEFT)
                .set("y", y - BAR + 2.0)
                .set("width", (end - LEFT).max(1.0))
                .set("height", BAR)
                .set("fill", bar.colour)
                .set("stroke", if bar.colour == GOAL { INK } else { "none" });
            let name = text(bar.name, LEFT - 8.0, y, "end");
            document = document.add(name).add(rectangle).add(text(bar.label.as_str(), end + 6.0, y, "start"));
            y += ROW;
        }
        y += ROW;
    }
    document
}

fn text(content: impl Into<String>, x: f64, y: f64, anchor: &str) -> Text {
    Text::new(content).set("x", x).set("y", y).set("text-anchor", anchor).set("fill", INK)
}

/// Where one case is measured in several ways of ours, peers stand against the first; the others are bars like them.
fn cases<'a>(records: &[&'a Record]) -> Vec<Case<'a>> {
    let mut cases: Vec<Case<'a>> = Vec::new();
    for record in records {
        // There is no bar for so many times nothing.
        if record.ours == 0.0 || record.peer == 0.0 {
            continue;
        }
        let ours = record.ours_name.as_str();
        let known = cases.iter().position(|case| case.name == record.case);
        let index = known.unwrap_or_else(|| {
            let label = record.unit.show(record.ours);
            cases.push(Case { name: &record.case, bars: vec![Bar { name: ours, times: 1.0, label, colour: OURS }] });
            cases.len() - 1
        });
        let bars = &mut cases[index].bars;
        if bars.iter().all(|bar| bar.name != ours) {
            let first = records.iter().find(|other| other.case == record.case && other.ours_name == bars[0].name);
            let times = first.map_or(1.0, |first| record.ours / first.ours);
            let label = format!("{} × ({})", three_digits(times), record.unit.show(record.ours));
            let place = bars.iter().take_while(|bar| bar.colour != PEER).count();
            bars.insert(place, Bar { name: ours, times, label, colour: OURS_TOO });
        }
        if bars[0].name == ours {
            let times = 1.0 / record.ratio;
            let name = record.peer_name.as_str();
            let colour = match name {
                THE_GOAL => GOAL,
                _ if !record.is_against_a_peer() => OURS_TOO,
                _ => PEER,
            };
            let label = format!("{} × ({})", three_digits(times), record.unit.show(record.peer));
            bars.push(Bar { name, times, label, colour });
        }
    }
    cases
}

/// Where on the paper so many times ours is.
struct Scale {
    least: f64,
    most: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn for_all(times: impl Iterator<Item = f64>) -> Scale {
        let (least, most) = times.fold((1.0_f64, 1.0_f64), |(least, most), times| (least.min(times), most.max(times)));
        if most > MOST_LINEAR {
            // A bar has to begin somewhere: below the least of them.
            Scale { least: least / 3.0, most, is_logarithmic: true }
        } else {
            Scale { least: 0.0, most, is_logarithmic: false }
        }
    }

    fn place(&self, times: f64) -> f64 {
        let share = if self.is_logarithmic {
            (times / self.least).ln() / (self.most / self.least).ln()
        } else {
            times / self.most
        };
        LEFT + share * (RIGHT - LEFT)
    }

    fn marks(&self) -> Vec<f64> {
        let candidates: Vec<f64> = if self.is_logarithmic {
            (-3..7).map(|power| 10_f64.powi(power)).collect()
        } else if self.most > 4.0 {
            (0..=12).step_by(2).map(f64::from).collect()
        } else {
            (0..=8).map(|half| f64::from(half) / 2.0).collect()
        };
        candidates.into_iter().filter(|mark| (self.least..=self.most).contains(mark)).collect()
    }

    fn label(&self) -> &'static str {
        if self.is_logarithmic {
            "as many times ours (logarithmic; shorter is better)"
        } else {
            "as many times ours (shorter is better)"
        }
    }
}

fn shown_mark(mark: f64) -> String {
    format!("{mark} ×")
}
