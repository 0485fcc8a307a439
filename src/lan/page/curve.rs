//! Curves as inline SVG: the last hour minute by minute, the last day in steps of ten minutes. An area for what is measured,
//! bars for what is counted; a gap where the box did not look.

use std::fmt::Write as _;

use super::Page;

/// The drawing's size in its own units; it is scaled to the page.
const WIDTH: usize = 600;
const HEIGHT: i64 = 80;

/// One curve.
struct Curve<'c> {
    title: &'c str,
    /// What stands behind the greatest value.
    unit: &'static str,
    values: &'c [Option<i64>],
    ago: &'c str,
    shape: fn(&mut String, &[Option<i64>], i64),
}

impl Page<'_> {
    /// The last hour.
    pub(super) fn hour(&self, html: &mut String) {
        let (status, words) = (self.status, self.words);
        let count = |count: u64| Some(i64::try_from(count).unwrap_or(i64::MAX));
        let requests: Vec<_> = status.minutes.iter().map(|m| count(m.requests)).collect();
        let orders: Vec<_> = status.minutes.iter().map(|m| count(m.orders)).collect();
        let _ = write!(
            html,
            "<section><h2>{}</h2><div class=\"curves\">",
            words.last_hour
        );
        for (title, values, shape) in [
            (
                words.requests,
                &requests,
                area as fn(&mut String, &[Option<i64>], i64),
            ),
            (words.orders_per_minute, &orders, bars),
        ] {
            self.figure(
                html,
                &Curve {
                    title,
                    unit: "",
                    values,
                    ago: words.hour_ago,
                    shape,
                },
            );
        }
        html.push_str("</div></section>");
    }

    /// The last day, as the way out saw it.
    pub(super) fn day(&self, html: &mut String) {
        let steps = &self.status.day;
        let outbox: Vec<_> = steps.iter().map(|step| step.outbox).collect();
        let latency: Vec<_> = steps.iter().map(|step| step.latency_ms).collect();
        let orders: Vec<_> = steps
            .iter()
            .map(|step| Some(i64::try_from(step.orders).unwrap_or(i64::MAX)))
            .collect();
        let ago = self.say("24 h ago", "il y a 24 h");
        let _ = write!(
            html,
            "<section><h2>{}</h2><div class=\"curves three\">",
            self.say("The last 24 hours", "Les dernières 24 heures")
        );
        let curves = [
            (
                self.say("Waits for the platform", "En attente de la plateforme"),
                "",
                &outbox,
                area as fn(&mut String, &[Option<i64>], i64),
            ),
            (
                self.say("The platform answers in", "La plateforme répond en"),
                "ms",
                &latency,
                area,
            ),
            (
                self.say("Orders received", "Commandes reçues"),
                "",
                &orders,
                bars,
            ),
        ];
        for (title, unit, values, shape) in &curves {
            self.figure(
                html,
                &Curve {
                    title,
                    unit,
                    values,
                    ago: &ago,
                    shape: *shape,
                },
            );
        }
        html.push_str("</div></section>");
    }

    fn figure(&self, html: &mut String, curve: &Curve<'_>) {
        let most = curve.values.iter().copied().flatten().max();
        let label = match most {
            Some(most) => format!(
                "{} {}{}{}",
                self.words.at_most,
                self.number(most),
                if curve.unit.is_empty() { "" } else { "\u{a0}" },
                curve.unit
            ),
            None => self.say("nothing yet", "rien encore"),
        };
        let title = curve.title;
        let _ = write!(
            html,
            "<figure><figcaption>{title} <small>{label}</small></figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}: {label}\">\
             <path class=\"base\" d=\"M0 {HEIGHT}H{WIDTH}\"/>",
        );
        (curve.shape)(html, curve.values, most.unwrap_or(0).max(1));
        let _ = write!(
            html,
            "</svg><p class=\"axis\"><span>{}</span><span>{}</span></p></figure>",
            curve.ago, self.words.now
        );
    }
}

/// Connected stretches, each an area under a line; a single point is drawn as wide as its step.
fn area(html: &mut String, values: &[Option<i64>], most: i64) {
    let last = values.len().saturating_sub(1).max(1);
    let x = |place: usize| place * WIDTH / last;
    let mut place = 0;
    while place < values.len() {
        let stretch: Vec<i64> = values[place..].iter().map_while(|value| *value).collect();
        if stretch.is_empty() {
            place += 1;
            continue;
        }
        let mut line = String::new();
        for (step, value) in stretch.iter().enumerate() {
            let verb = if step == 0 { "M" } else { "L" };
            let _ = write!(line, "{verb}{} {}", x(place + step), y(*value, most));
        }
        let (start, mut end) = (x(place), x(place + stretch.len() - 1));
        if start == end {
            end = (start + WIDTH / last).min(WIDTH);
            let _ = write!(line, "H{end}");
        }
        let _ = write!(
            html,
            "<path class=\"area\" d=\"{line}V{HEIGHT}H{start}Z\"/><path class=\"line\" d=\"{line}\"/>"
        );
        place += stretch.len();
    }
}

fn bars(html: &mut String, values: &[Option<i64>], most: i64) {
    let count = values.len().max(1);
    for (place, value) in values.iter().enumerate() {
        let Some(value @ 1..) = *value else { continue };
        // Tenths of a unit: a day's steps are four units wide.
        let (x, width) = (place * WIDTH * 10 / count, WIDTH * 8 / count);
        let top = y(value, most);
        let _ = write!(
            html,
            "<rect class=\"bar\" x=\"{}.{}\" y=\"{top}\" width=\"{}.{}\" height=\"{}\"/>",
            x / 10,
            x % 10,
            width / 10,
            width % 10,
            HEIGHT - top
        );
    }
}

/// Leaves a little room above the highest point, so that the line is not cut.
const fn y(value: i64, most: i64) -> i64 {
    HEIGHT - value.saturating_mul(HEIGHT - 4) / most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_breaks_the_line_and_every_shape_stays_inside() {
        let mut html = String::new();
        let values = [Some(1), Some(4), None, Some(2), None, None];
        area(&mut html, &values, 4);
        assert_eq!(html.matches("class=\"line\"").count(), 2, "{html}");
        assert!(html.contains("M0 61L120 4"), "{html}");
        html.clear();
        bars(&mut html, &[Some(0), Some(3), None], 3);
        assert_eq!(html.matches("<rect").count(), 1, "{html}");
        assert!(html.contains("x=\"200.0\" y=\"4\""), "{html}");
    }
}
