//! Draws a day as an SVG: live sessions, validations a minute, the budget, and the provider's
//! outages.

use std::{fmt::Write as _, time::Duration};

use super::{Report, Span};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 880.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 380.0;

/// Colours that work on light and dark backgrounds and for colour-blind readers.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-size:16px;font-weight:600}\
.axis{stroke:#57606a;fill:none}.grid{stroke:#d0d7de}.incident{fill:#bf8700;opacity:.18}\
.live{stroke:#0969da;stroke-width:2;fill:none}.live-text{fill:#0969da}\
.rate{stroke:#bc4c00;stroke-width:1.2;fill:none}.rate-text{fill:#bc4c00}\
.budget{stroke:#bc4c00;stroke-dasharray:6 4;fill:none}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#8b949e}.grid{stroke:#30363d}\
.live{stroke:#58a6ff}.live-text{fill:#58a6ff}.rate,.budget{stroke:#f0883e}.rate-text{fill:#f0883e}}";

/// Maps times and shares of the height to positions.
struct Frame {
    from_hour: f64,
    hours: f64,
}

impl Frame {
    fn x(&self, elapsed: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * (elapsed.as_secs_f64() / 3600.0 / self.hours).min(1.0)
    }

    fn y(share: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * share.min(1.0)
    }
}

pub(super) fn draw(report: &Report) -> String {
    let day = &report.day;
    let frame = Frame {
        from_hour: f64::from(day.from_hour),
        hours: f64::from(day.to_hour.saturating_sub(day.from_hour).max(1)),
    };
    let most_live = report.samples.iter().map(|sample| sample.live).max().unwrap_or(0);
    let budget = u64::from(report.budget) * 60;
    let most_sent = report.by_minute.iter().copied().max().unwrap_or(0).max(budget);
    let (live_top, sent_top) = (round_up(most_live), round_up(most_sent));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"t\">\n\
         <title id=\"t\">Live sessions and validations a minute over a simulated day</title>\n<style>{STYLE}</style>\n"
    );
    text(
        &mut svg,
        LEFT,
        24.0,
        "title",
        "start",
        &format!("A day of {} sessions", grouped(day.sessions as u64)),
    );
    for (name, span) in report.incidents() {
        incident(&mut svg, &frame, name, span);
    }
    axes(&mut svg, &frame, live_top, sent_top);
    let live = report.samples.iter().map(|sample| (frame.x(sample.elapsed), share(sample.live, live_top)));
    line(&mut svg, "live", live);
    let minute = |n: usize| Duration::from_secs(60 * n as u64);
    let sent = report.by_minute.iter().enumerate();
    line(&mut svg, "rate", sent.map(|(n, sent)| (frame.x(minute(n)), share(*sent, sent_top))));
    line(&mut svg, "budget", [LEFT, RIGHT].map(|x| (x, share(budget, sent_top))).into_iter());
    let y = Frame::y(share(budget, sent_top)) - 6.0;
    text(&mut svg, LEFT + 6.0, y, "rate-text", "start", "budget");
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String, frame: &Frame, live_top: u64, sent_top: u64) {
    for quarter in 0..=4_u64 {
        let y = Frame::y(quarter as f64 / 4.0);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
        text(svg, LEFT - 8.0, y + 4.0, "live-text", "end", &grouped(live_top * quarter / 4));
        text(svg, RIGHT + 8.0, y + 4.0, "rate-text", "start", &grouped(sent_top * quarter / 4));
    }
    text(svg, LEFT, TOP - 14.0, "live-text", "start", "live sessions");
    text(svg, RIGHT, TOP - 14.0, "rate-text", "end", "validations a minute");
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}V{TOP}\"/>");
    let every = if frame.hours > 12.0 { 3 } else { 1 };
    // A float becomes the nearest number that fits.
    for hour in (0..=frame.hours as u64).step_by(every) {
        let x = frame.x(Duration::from_secs(hour * 3600));
        let name = format!("{:02.0}:00", frame.from_hour + hour as f64);
        text(svg, x, BOTTOM + 20.0, "", "middle", &name);
    }
}

fn incident(svg: &mut String, frame: &Frame, name: &str, span: Span) {
    let (from, to) = (frame.x(span.from), frame.x(span.from + span.lasts));
    let (width, height) = ((to - from).max(2.0), BOTTOM - TOP);
    let _ = writeln!(
        svg,
        "<rect class=\"incident\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"/>"
    );
    text(svg, f64::midpoint(from, to), BOTTOM - 8.0, "", "middle", name);
}

fn line(svg: &mut String, class: &str, points: impl Iterator<Item = (f64, f64)>) {
    let mut path = String::new();
    for (n, (x, share)) in points.enumerate() {
        let step = if n == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{step}{x:.1} {:.1}", Frame::y(share));
    }
    let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

fn share(value: u64, of: u64) -> f64 {
    value as f64 / of.max(1) as f64
}

/// Rounds up to one or two significant digits and a multiple of four.
fn round_up(value: u64) -> u64 {
    let mut step = 4;
    while step * 15 < value {
        step *= 10;
    }
    value.div_ceil(step).max(1) * step
}

/// Formats a number with thousands separators.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_round_and_grouped() {
        let table = [(0, 4), (3, 4), (59, 60), (61, 80), (9_300, 12_000), (412_345, 440_000)];
        for (value, expected) in table {
            assert_eq!(round_up(value), expected, "{value}");
        }
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
