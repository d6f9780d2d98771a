//! The plot: operations per request over the rate of a token on a node, both in powers of ten.

use std::fmt::Write;

use crate::report::{Report, classes, cost};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 56.0;
/// The powers of ten at the ends of the axes.
const RATES: (i32, i32) = (-2, 4);
const COSTS: (i32, i32) = (-4, 1);
const COLOURS: [&str; 4] = ["#1b6ca8", "#2f9e6e", "#c77d1e", "#b0304f"];

fn across(rate: f64) -> f64 {
    let (from, to) = (f64::from(RATES.0), f64::from(RATES.1));
    LEFT + (rate.log10() - from) / (to - from) * (WIDTH - LEFT - RIGHT)
}

fn down(cost: f64) -> f64 {
    let (from, to) = (f64::from(COSTS.0), f64::from(COSTS.1));
    HEIGHT - BOTTOM - (cost.log10() - from) / (to - from) * (HEIGHT - TOP - BOTTOM)
}

pub fn draw(report: &Report) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#333\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n",
    );
    draw_axes(&mut svg);
    let mut series: Vec<(String, Vec<(f64, f64)>)> = report
        .skewed
        .iter()
        .map(|(nodes, findings)| {
            let points = classes(findings)
                .iter()
                .map(|class| ((class.from * class.below).sqrt(), class.cost()))
                .collect();
            (format!("100,000 tokens, {nodes} nodes"), points)
        })
        .collect();
    let steady = report.steady.iter().map(|(rate, findings)| (f64::from(*rate), cost(findings))).collect();
    series.push(("one token, 3 nodes".to_owned(), steady));
    for (at, ((name, points), colour)) in series.iter().zip(COLOURS).enumerate() {
        draw_series(&mut svg, f64::from(u32::try_from(at).unwrap()), name, points, colour);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_axes(svg: &mut String) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for power in RATES.0..=RATES.1 {
        let (x, rate) = (across(10_f64.powi(power)), 10_f64.powi(power));
        let _ = writeln!(svg, "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#e4e4e4\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{rate}</text>",
            bottom + 18.0
        );
    }
    for power in COSTS.0..=COSTS.1 {
        let (y, cost) = (down(10_f64.powi(power)), 10_f64.powi(power));
        let _ = writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#e4e4e4\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{cost}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
    let (x, y) = (across(1_000.0), down(0.005));
    let _ = writeln!(
        svg,
        "<path d=\"M{x:.1} {bottom}V{y:.1}H{right}\" fill=\"none\" stroke=\"#333\" stroke-dasharray=\"5 4\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">law 4: at most 0.005</text>",
        right - 4.0,
        y - 6.0,
    );
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">requests/s of a token on a node</text>\n\
         <text x=\"16\" y=\"20\" font-size=\"14\">Store operations per request</text>",
        f64::midpoint(LEFT, right),
        HEIGHT - 14.0,
    );
}

fn draw_series(svg: &mut String, at: f64, name: &str, points: &[(f64, f64)], colour: &str) {
    let mut path = String::new();
    for (rate, cost) in points {
        let (x, y) = (across(*rate), down(*cost));
        let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
    }
    let (x, y) = (LEFT + 16.0, HEIGHT - BOTTOM - 76.0 + at * 18.0);
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>\n\
         <path d=\"M{x:.1} {:.1}h22\" stroke=\"{colour}\" stroke-width=\"3\"/>\n\
         <text x=\"{:.1}\" y=\"{y:.1}\">{name}</text>",
        y - 4.0,
        x + 30.0,
    );
}
