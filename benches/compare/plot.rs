//! The plots: an SVG for each bench.

use std::io;
use std::path::Path;

use svg::Document;
use svg::node::element::{Line, Rectangle, Text};

use crate::chart::{self, Kind};
use crate::record::Record;
use crate::results::Results;

const WIDTH: f64 = 860.0;
/// Names stand left of this, bars right of it.
const LEFT: f64 = 210.0;
/// Bars end here, so that there is room for their values.
const RIGHT: f64 = 680.0;
const ROW: f64 = 18.0;
const BAR: f64 = 12.0;

const INK: &str = "#1e293b";
const FAINT: &str = "#cbd5e1";

/// A longer bar than this would make ours invisible on a linear scale.
const MOST_LINEAR: f64 = 12.0;

/// Writes one `NAME.svg` for each bench.
pub(crate) fn write_all(results: &Results, folder: &Path) -> io::Result<()> {
    for bench in results.benches() {
        svg::save(folder.join(format!("{bench}.svg")), &plot(bench, &results.records_of(bench)))?;
    }
    Ok(())
}

fn color(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours => "#c2410c",
        Kind::OursToo => "#fdba74",
        Kind::Peer => "#94a3b8",
        Kind::Goal => "#ffffff",
    }
}

fn plot(bench: &str, records: &[&Record]) -> Document {
    let cases = chart::cases(records);
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
        let x = scale.position(mark);
        let line = Line::new().set("x1", x).set("x2", x).set("y1", 66.0).set("y2", height - 12.0).set("stroke", FAINT);
        document = document.add(line).add(text(label_of(mark), x, 61.0, "middle").set("font-size", 10));
    }
    let mut y = 84.0;
    for case in &cases {
        document = document.add(text(case.name, 16.0, y, "start").set("font-weight", "bold"));
        y += ROW;
        for bar in &case.bars {
            let end = scale.position(bar.times);
            let rectangle = Rectangle::new()
                .set("x", LEFT)
                .set("y", y - BAR + 2.0)
                .set("width", (end - LEFT).max(1.0))
                .set("height", BAR)
                .set("fill", color(bar.kind))
                .set("stroke", if bar.kind == Kind::Goal { INK } else { "none" });
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

/// Maps multiples of ours to horizontal positions.
struct Scale {
    least: f64,
    most: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn for_all(times: impl Iterator<Item = f64>) -> Scale {
        let (least, most) = times.fold((1.0_f64, 1.0_f64), |(least, most), times| (least.min(times), most.max(times)));
        if most > MOST_LINEAR {
            // Bars begin below the shortest of them.
            Scale { least: least / 3.0, most, is_logarithmic: true }
        } else {
            Scale { least: 0.0, most, is_logarithmic: false }
        }
    }

    fn position(&self, times: f64) -> f64 {
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
            "multiples of ours (logarithmic; shorter is better)"
        } else {
            "multiples of ours (shorter is better)"
        }
    }
}

fn label_of(mark: f64) -> String {
    format!("{mark} ×")
}
