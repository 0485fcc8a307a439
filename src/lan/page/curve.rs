//! The curve of the last hour, as inline SVG: requests as an area, orders as bars.

use std::fmt::Write as _;

use super::words::Words;
use crate::lan::history::{MINUTES, Minute};

/// The drawing's size in its own units; it is scaled to the page.
const WIDTH: u64 = 600;
const HEIGHT: u64 = 80;

/// Draws both curves.
pub fn draw(html: &mut String, minutes: &[Minute], words: &Words) {
    let _ = write!(
        html,
        "<section><h2>{}</h2><div class=\"curves\">",
        words.last_hour
    );
    let requests: Vec<u64> = minutes.iter().map(|minute| minute.requests).collect();
    let orders: Vec<u64> = minutes.iter().map(|minute| minute.orders).collect();
    figure(html, words.requests, &requests, words, area);
    figure(html, words.orders_per_minute, &orders, words, bars);
    html.push_str("</div></section>");
}

fn figure(
    html: &mut String,
    title: &str,
    values: &[u64],
    words: &Words,
    shape: fn(&mut String, &[u64], u64),
) {
    let most = values.iter().copied().max().unwrap_or(0);
    let at_most = words.at_most;
    let _ = write!(
        html,
        "<figure><figcaption>{title} <small>{at_most} {most}</small></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}: {at_most} {most}\">\
         <path class=\"base\" d=\"M0 {HEIGHT}H{WIDTH}\"/>",
    );
    shape(html, values, most.max(1));
    let _ = write!(
        html,
        "</svg><p class=\"axis\"><span>{}</span><span>{}</span></p></figure>",
        words.hour_ago, words.now
    );
}

fn area(html: &mut String, values: &[u64], most: u64) {
    let mut line = String::new();
    for (place, value) in (0_u64..).zip(values) {
        let x = place * WIDTH / (MINUTES as u64 - 1);
        let verb = if place == 0 { "M" } else { "L" };
        let _ = write!(line, "{verb}{x} {}", y(*value, most));
    }
    let _ = write!(
        html,
        "<path class=\"area\" d=\"{line}V{HEIGHT}H0Z\"/><path class=\"line\" d=\"{line}\"/>"
    );
}

fn bars(html: &mut String, values: &[u64], most: u64) {
    let step = WIDTH / MINUTES as u64;
    for (place, value) in (0_u64..).zip(values).filter(|(_, value)| **value > 0) {
        let (x, top) = (place * step + 1, y(*value, most));
        let (width, height) = (step - 2, HEIGHT - top);
        let _ = write!(
            html,
            "<rect class=\"bar\" x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"{height}\"/>"
        );
    }
}

/// Leaves a little room above the highest point, so that the line is not cut.
const fn y(value: u64, most: u64) -> u64 {
    HEIGHT - value.saturating_mul(HEIGHT - 4) / most
}
