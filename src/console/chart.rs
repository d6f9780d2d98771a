//! Pictures: numbers as SVG in a page, drawn with `plotters`. Pure.
//!
//! Each picture is drawn twice: wide, and for a phone with fewer marks; the style sheet shows one of them. `plotters` writes
//! colours as attributes, since pages allow no style of their own; `console.css` names the same ones again and says what
//! they are in the dark.

use std::error::Error;
use std::fmt::Write as _;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Cartesian2d, DrawingArea, FontFamily, IntoDrawingArea, IntoFont, PathElement, Polygon, RGBColor,
    Rectangle, SVGBackend, ShapeStyle, Text, TextStyle,
};
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, Pos, VPos};

mod scale;

use scale::{Scale, compact, fraction};

/// What a colour stands for. `console.css` knows each by its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// Core credits.
    Core,
    /// Premium credits.
    Premium,
    /// Credits on lease.
    Leased,
    /// Credits that are stranded.
    Stranded,
    /// Refused requests.
    Refused,
    /// The line that is not to be crossed.
    Limit,
    /// What numbers are read against.
    Grid,
    /// Words.
    Words,
}

impl Colour {
    fn rgb(self) -> RGBColor {
        match self {
            Self::Core => RGBColor(0x2A, 0x6F, 0xDB),
            Self::Premium => RGBColor(0xB0, 0x53, 0x0D),
            Self::Leased => RGBColor(0x17, 0x80, 0x5A),
            Self::Stranded => RGBColor(0x7A, 0x4D, 0x00),
            Self::Refused => RGBColor(0xB3, 0x26, 0x1E),
            Self::Limit => RGBColor(0x8A, 0x3F, 0xB8),
            Self::Grid => RGBColor(0xD4, 0xD9, 0xE0),
            Self::Words => RGBColor(0x5A, 0x64, 0x72),
        }
    }

    fn filled(self) -> ShapeStyle {
        self.rgb().filled()
    }
}

/// A picture, for wide and for narrow windows.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    /// The wide one, an `<svg>`.
    pub(super) broad: String,
    /// The narrow one.
    pub(super) slim: String,
}

impl Picture {
    fn draw(label: &str, size: impl Fn(Size) -> u32, draw: impl Fn(&Area<'_>, Size) -> Drawn) -> Self {
        let one = |window: Size| {
            let draw = |area: &Area<'_>| draw(area, window);
            svg((window.width, size(window)), label, &format!("class=\"{}\"", window.class), draw)
        };
        Self { broad: one(BROAD), slim: one(SLIM) }
    }
}

/// How a picture is fit to a window.
#[derive(Debug, Clone, Copy)]
struct Size {
    width: u32,
    font: i32,
    class: &'static str,
}

const BROAD: Size = Size { width: 1000, font: 13, class: "broad" };
const SLIM: Size = Size { width: 330, font: 13, class: "slim" };

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// Values in equal stretches of time, from left to right; 0: nothing was there.
#[derive(Debug)]
pub(super) struct Timeline<'a> {
    /// What the picture says, for those who do not see it.
    pub(super) label: &'a str,
    /// The values.
    pub(super) values: &'a [u64],
    /// What the values are.
    pub(super) colour: Colour,
    /// What to write under some of them: many, and few for narrow windows.
    pub(super) marks: [Vec<(usize, String)>; 2],
    /// The line that is not to be crossed.
    pub(super) limit: Option<u64>,
}

/// With more values than this no gap would be left between bars, so they become steps of one shape.
const MOST_BARS: usize = 100;
/// A limit so many times above all values would press them flat, so it is left to words.
const LIMIT_IN_SIGHT: u64 = 5;

impl Timeline<'_> {
    /// The limit, if it can be drawn.
    pub(super) fn limit_in_sight(&self) -> Option<u64> {
        let most = self.values.iter().max().copied().unwrap_or(0);
        self.limit.filter(|limit| *limit <= most.saturating_mul(LIMIT_IN_SIGHT).max(1))
    }

    /// Draws it.
    pub(super) fn draw(&self) -> Picture {
        let height = |window: Size| if window.class == BROAD.class { 260 } else { 210 };
        Picture::draw(self.label, height, |area, window| self.draw_for(area, window))
    }

    fn draw_for(&self, area: &Area<'_>, window: Size) -> Drawn {
        let limit = self.limit_in_sight();
        let most = self.values.iter().copied().chain(limit).max().unwrap_or(0);
        let scale = Scale::of(most);
        let (width, height) = area.dim_in_pixel();
        let (width, height) = (i32::try_from(width)?, i32::try_from(height)?);
        let longest = scale.marks().map(|mark| compact(mark).len()).max().unwrap_or(1);
        let left = i32::try_from(longest)? * window.font * 6 / 10 + 10;
        let (top, bottom) = (window.font + 6, height - window.font - 10);
        // From the bottom up.
        let range = (left..width - 2, bottom..top);
        let count = fraction(self.values.len().max(1));
        let spec =
            Cartesian2d::<RangedCoordf64, RangedCoordf64>::new(0.0..count, 0.0..scale.top_as_f64(), range);
        let plot = area.apply_coord_spec(spec);
        for mark in scale.marks() {
            let y = scale::float(mark);
            plot.draw(&PathElement::new([(0.0, y), (count, y)], Colour::Grid.rgb()))?;
            let at = plot.map_coordinate(&(0.0, y));
            write(area, &compact(mark), (left - 6, at.1), (HPos::Right, VPos::Center), window)?;
        }
        self.draw_values(&plot, scale.top_as_f64() / f64::from((bottom - top).max(1)))?;
        let marks = if window.class == BROAD.class { &self.marks[0] } else { &self.marks[1] };
        for (at, text) in marks {
            let (x, y) = plot.map_coordinate(&(fraction(*at) + 0.5, 0.0));
            // A word in the middle of the first or last bar would be cut off at the edge.
            let half = i32::try_from(text.chars().count())? * window.font * 3 / 10;
            let x = x.clamp(left.min(half), (width - half).max(0)).max(half);
            write(area, text, (x, y + 6), (HPos::Center, VPos::Top), window)?;
        }
        if let Some(limit) = limit {
            let y = scale::float(limit);
            plot.draw(&PathElement::new([(0.0, y), (count, y)], Colour::Limit.rgb().stroke_width(2)))?;
        }
        Ok(())
    }

    /// `least`: a value that still can be seen.
    fn draw_values(
        &self,
        plot: &DrawingArea<SVGBackend<'_>, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
        least: f64,
    ) -> Drawn {
        let seen = |value: u64| if value == 0 { 0.0 } else { scale::float(value).max(least) };
        if self.values.len() <= MOST_BARS {
            for (at, value) in self.values.iter().enumerate().filter(|(_, value)| **value > 0) {
                let corners = [(fraction(at) + 0.12, 0.0), (fraction(at) + 0.88, seen(*value))];
                plot.draw(&Rectangle::new(corners, self.colour.filled()))?;
            }
            return Ok(());
        }
        // What shares a pixel or two is drawn as the most of it, so that no peak is lost.
        let pixels = plot.get_x_axis_pixel_range().len() / 2;
        let shared = self.values.len().div_ceil(pixels.max(1));
        let mut outline = vec![(0.0, 0.0)];
        let mut before = 0;
        for (at, values) in self.values.chunks(shared).enumerate() {
            let value = values.iter().max().copied().unwrap_or(0);
            if value != before {
                outline.push((fraction(at * shared), seen(before)));
                outline.push((fraction(at * shared), seen(value)));
                before = value;
            }
        }
        let end = fraction(self.values.len());
        outline.extend([(end, seen(before)), (end, 0.0)]);
        plot.draw(&Polygon::new(outline, self.colour.filled()))?;
        Ok(())
    }
}

/// One of several that are compared.
#[derive(Debug)]
pub(super) struct Rank {
    /// Its name.
    pub(super) name: String,
    /// What it has of each colour.
    pub(super) parts: Vec<(u64, Colour)>,
}

impl Rank {
    fn total(&self) -> u64 {
        self.parts.iter().fold(0, |sum: u64, (part, _)| sum.saturating_add(*part))
    }
}

/// Draws several to compare, one below the other, each as long as it has parts.
pub(super) fn draw_ranks(label: &str, ranks: &[Rank]) -> Picture {
    let most = ranks.iter().map(Rank::total).max().unwrap_or(0).max(1);
    let row = |window: Size| window.font + 24;
    let height = |window: Size| row(window).unsigned_abs() * u32::try_from(ranks.len()).unwrap_or(0) + 4;
    Picture::draw(label, height, |area, window| {
        let width = i32::try_from(window.width)?;
        for (at, rank) in ranks.iter().enumerate() {
            let top = i32::try_from(at)? * row(window) + 2;
            let amount = super::words::grouped(rank.total());
            let room = width / (window.font * 6 / 10) - i32::try_from(amount.len())? - 3;
            let name = shorten(&rank.name, usize::try_from(room).unwrap_or(0));
            write(area, &name, (0, top + 4), (HPos::Left, VPos::Top), window)?;
            write(area, &amount, (width, top + 4), (HPos::Right, VPos::Top), window)?;
            let bar = top + window.font + 8;
            segments(area, (bar, bar + 9), width, &rank.parts, most)?;
        }
        Ok(())
    })
}

/// Draws parts of a whole as one bar without words.
pub(super) fn draw_share(label: &str, parts: &[(u64, Colour)], whole: u64) -> String {
    let attributes = "class=\"share\" preserveAspectRatio=\"none\"";
    svg((1000, 10), label, attributes, |area| {
        area.draw(&Rectangle::new([(0, 0), (1000, 10)], Colour::Grid.filled()))?;
        segments(area, (0, 10), 1000, parts, whole.max(1))
    })
}

/// Parts beside each other, none of them beyond the width.
fn segments(
    area: &Area<'_>,
    (top, bottom): (i32, i32),
    width: i32,
    parts: &[(u64, Colour)],
    whole: u64,
) -> Drawn {
    let mut sum: u64 = 0;
    let mut from = 0;
    for (part, colour) in parts.iter().filter(|(part, _)| *part > 0) {
        sum = sum.saturating_add(*part);
        let scaled = u128::from(sum) * u128::from(width.unsigned_abs()) / u128::from(whole);
        let to = i32::try_from(scaled).unwrap_or(width).clamp((from + 2).min(width), width);
        if to > from {
            area.draw(&Rectangle::new([(from, top), (to, bottom)], colour.filled()))?;
        }
        from = to;
    }
    Ok(())
}

fn write(area: &Area<'_>, text: &str, at: (i32, i32), (h, v): (HPos, VPos), window: Size) -> Drawn {
    // What `plotters` takes for the size of a font is larger by this than what it writes.
    let font = (FontFamily::SansSerif, f64::from(window.font) * 1.24).into_font();
    let colour = Colour::Words.rgb();
    let style = TextStyle::from(font).color(&colour).pos(Pos::new(h, v));
    area.draw(&Text::new(text, at, style))?;
    Ok(())
}

/// At most so many characters.
fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// An `<svg>` for a page, with a label for those who do not see it.
fn svg(size: (u32, u32), label: &str, attributes: &str, draw: impl Fn(&Area<'_>) -> Drawn) -> String {
    let mut drawn = String::new();
    {
        let area = SVGBackend::with_string(&mut drawn, size).into_drawing_area();
        if let Err(error) = draw(&area).and_then(|()| Ok(area.present()?)) {
            tracing::error!(%error, "a picture of the console cannot be drawn");
        }
    }
    let inside = drawn.split_once(">\n").map_or("", |(_, inside)| inside);
    let label = escape(label);
    let mut text = String::with_capacity(drawn.len());
    let _ = writeln!(
        text,
        "<svg {attributes} viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{label}\"><title>{label}</title>",
        size.0, size.1
    );
    // What is so by itself, or comes from the style of the page.
    let mut inside = inside.to_owned();
    for plain in
        [" opacity=\"1\"", " stroke=\"none\"", " stroke-width=\"1\"", " font-family=\"sans-serif\"", "\n"]
    {
        inside = inside.replace(plain, "");
    }
    text + &inside
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
