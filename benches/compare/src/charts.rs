//! Charts: an SVG file per section, with a panel of bars per table.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::{
    DrawingArea, IntoDrawingArea, PathElement, RGBColor, Rectangle, SVGBackend, Text, TextStyle, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont};

use crate::report::{Row, Section, Table, number};
use crate::rivals::Role;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

const WIDTH: u32 = 860;
const NAMES: i32 = 240;
const FIGURES: i32 = 130;
const HEADING: i32 = 44;
const STEP: i32 = 22;
const BAR: i32 = 14;
const INK: RGBColor = RGBColor(36, 41, 47);
const FAINT: RGBColor = RGBColor(110, 119, 129);

fn colour(role: Role) -> RGBColor {
    match role {
        Role::Ours => RGBColor(9, 105, 218),
        Role::Yardstick => RGBColor(191, 135, 0),
        Role::Peer => RGBColor(130, 80, 223),
        Role::Limit => RGBColor(140, 149, 159),
        Role::Inline | Role::Floor => RGBColor(208, 215, 222),
    }
}

/// Draws each section into `DIR/NAME.svg`.
pub(crate) fn draw(sections: &[Section], dir: &Path) -> Drawn {
    fs::create_dir_all(dir)?;
    sections.iter().try_for_each(|section| draw_section(section, &dir.join(format!("{}.svg", section.name))))
}

fn draw_section(section: &Section, path: &Path) -> Drawn {
    let heights: Vec<i32> = section.tables.iter().map(|table| HEADING + STEP * table.rows.len() as i32).collect();
    let height = heights.iter().sum::<i32>() as u32 + 12;
    let mut rest = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    rest.fill(&WHITE)?;
    for (table, height) in section.tables.iter().zip(heights) {
        let (panel, below) = rest.split_vertically(height);
        draw_table(table, &panel)?;
        rest = below;
    }
    rest.present()?;
    Ok(())
}

fn draw_table(table: &Table, panel: &Area<'_>) -> Drawn {
    let heading = format!("{}, {}", table.title, table.unit);
    panel.draw(&Text::new(heading, (12, HEADING / 2 + 4), style(18, INK, HPos::Left)))?;
    let most = table.rows.iter().map(|row| row.figure.max).fold(f64::MIN_POSITIVE, f64::max);
    let full = f64::from(WIDTH as i32 - NAMES - FIGURES);
    for (n, row) in (0..).zip(&table.rows) {
        draw_row(row, panel, HEADING + n * STEP, full / most)?;
    }
    Ok(())
}

/// Draws a bar to the median, and a line from minimum to maximum.
fn draw_row(row: &Row, panel: &Area<'_>, top: i32, scale: f64) -> Drawn {
    let at = |value: f64| NAMES + (value * scale).round() as i32;
    let middle = top + BAR / 2;
    panel.draw(&Text::new(row.name.clone(), (NAMES - 8, middle), style(15, INK, HPos::Right)))?;
    let bar = [(NAMES, top), (at(row.figure.median).max(NAMES + 1), top + BAR)];
    panel.draw(&Rectangle::new(bar, colour(row.role).filled()))?;
    let range = [(at(row.figure.min), middle), (at(row.figure.max), middle)];
    panel.draw(&PathElement::new(range, INK.stroke_width(1)))?;
    let figure = number(row.figure.median);
    panel.draw(&Text::new(figure, (at(row.figure.max) + 8, middle), style(15, FAINT, HPos::Left)))?;
    Ok(())
}

fn style(size: i32, colour: RGBColor, side: HPos) -> TextStyle<'static> {
    let color = colour.to_backend_color();
    TextStyle { font: ("sans-serif", size).into_font(), color, pos: Pos::new(side, VPos::Center) }
}
