//! The lanes as a picture: one small SVG each, in places that are parts of its width, so that it fits
//! every screen. Long stretches in which nothing changes are drawn shorter, and say so.

use maud::{Markup, html};

use super::lanes::{self, Lane, Span};
use super::story::Story;
use super::{Session, events};
use crate::console::{text, times};

/// Most lanes of a picture.
const MAX_LANES: usize = 60;

/// A stretch is drawn shorter if it is longer than this part of the whole.
const LONG: f64 = 0.3;

/// And as long as this part of the rest.
const SHORTENED: f64 = 0.35;

/// Least width of what is drawn, in percent.
const LEAST: f64 = 0.4;

/// From times to places, in percent.
struct Scale {
    /// Times in order, with their places.
    points: Vec<(i64, f64)>,
    /// Stretches that are drawn shorter: from, to, and how long they are.
    gaps: Vec<(f64, f64, i64)>,
}

impl Scale {
    fn new(lanes: &[Lane], begin: i64, end: i64) -> Self {
        let spans = lanes
            .iter()
            .flat_map(|of| &of.spans)
            .flat_map(|of| [of.from, of.to]);
        let marks = lanes.iter().flat_map(|of| &of.marks).map(|of| of.0);
        let mut edges: Vec<i64> = spans.chain(marks).chain([begin, end]).collect();
        edges
            .iter_mut()
            .for_each(|of| *of = (*of).clamp(begin, end));
        edges.sort_unstable();
        edges.dedup();
        let lengths: Vec<f64> = edges
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let whole: f64 = lengths.iter().sum();
        let is_long = |length: f64| length > LONG * whole && length > 5e9;
        let rest: f64 = lengths.iter().filter(|of| !is_long(**of)).sum();
        let drawn = |length: f64| match is_long(length) && rest > 0.0 {
            true => length.min(rest * SHORTENED),
            false => length,
        };
        let total: f64 = lengths.iter().map(|of| drawn(*of)).sum();
        let mut at = 0.0;
        let (mut points, mut gaps) = (vec![(begin, 0.0)], Vec::new());
        for (pair, length) in edges.windows(2).zip(&lengths) {
            let next = at + drawn(*length) / total.max(1.0) * 100.0;
            if drawn(*length) < *length {
                gaps.push((at, next, pair[1] - pair[0]));
            }
            points.push((pair[1], next));
            at = next;
        }
        Self { points, gaps }
    }

    fn place(&self, time: i64) -> f64 {
        let after = self.points.partition_point(|(of, _)| *of < time);
        match (
            after.checked_sub(1).and_then(|at| self.points.get(at)),
            self.points.get(after),
        ) {
            (Some((from, start)), Some((to, end))) if to > from => {
                start + (time - from) as f64 / (to - from) as f64 * (end - start)
            }
            (_, Some((_, place))) => *place,
            (Some((_, place)), None) => *place,
            (None, None) => 0.0,
        }
    }

    /// The time at a place.
    fn time(&self, place: f64) -> i64 {
        let after = self.points.partition_point(|(_, of)| *of < place);
        match (
            after.checked_sub(1).and_then(|at| self.points.get(at)),
            self.points.get(after),
        ) {
            (Some((from, start)), Some((to, end))) if end > start => {
                from + ((place - start) / (end - start) * (to - from) as f64) as i64
            }
            (_, Some((time, _))) | (Some((time, _)), None) => *time,
            (None, None) => 0,
        }
    }
}

/// The picture.
pub fn draw(story: &Story, session: &Session<'_>) -> Markup {
    let mut lanes = lanes::of(story);
    let left_out = lanes.len().saturating_sub(MAX_LANES);
    if left_out > 0 {
        // The agent's own stays.
        lanes.drain(1..=left_out);
    }
    let scale = Scale::new(&lanes, story.begin, story.end);
    html! {
        section.timeline aria-labelledby="timeline-heading" {
            div.bar {
                h2 #timeline-heading { "Timeline" }
                ul.legend aria-hidden="true" {
                    li.good { "worked" } li.running { "works" } li.bad { "failed" } li.wait { "waits" } li.approval { "waits for people" }
                }
            }
            @if left_out > 0 { p.note { "The last " (MAX_LANES) " lanes; " (left_out) " before them are left out." } }
            div #lanes data-swap .lanes {
                div.lane.axis aria-hidden="true" { span {} (axis(&scale, story)) }
                @for lane in &lanes {
                    div class={ "lane " (lane.kind) } {
                        @if lane.event_id > 0 {
                            a.label href=(events::link(session, lane.event_id)) data-detail title=(lane.label) { (text::name(&lane.label)) }
                        } @else {
                            span.label { (lane.label) }
                        }
                        (picture(lane, &scale))
                    }
                }
            }
        }
    }
}

fn percent(place: f64) -> String {
    format!("{place:.3}%")
}

fn axis(scale: &Scale, story: &Story) -> Markup {
    let places = [
        (0.0, "start"),
        (25.0, "middle"),
        (50.0, "middle"),
        (75.0, "middle"),
        (100.0, "end"),
    ];
    html! {
        svg width="100%" height="18" {
            @for (place, anchor) in places {
                text x=(percent(place)) y="12" text-anchor=(anchor) class=[(place == 25.0 || place == 75.0).then_some("minor")] {
                    (times::span(scale.time(place).saturating_sub(story.begin)))
                }
            }
        }
    }
}

fn picture(lane: &Lane, scale: &Scale) -> Markup {
    html! {
        svg width="100%" height="24" role="img" aria-label=(words(lane)) {
            @for (from, to, length) in &scale.gaps {
                rect.gap x=(percent(*from)) y="0" width=(percent(to - from)) height="24" { title { (times::span(*length)) ", drawn shorter" } }
            }
            @for place in [0.0, 25.0, 50.0, 75.0, 100.0] {
                line.grid x1=(percent(place)) x2=(percent(place)) y1="0" y2="24" {}
            }
            @for span in &lane.spans { (bar(span, scale)) }
            @for (time, title) in &lane.marks {
                circle.mark cx=(percent(scale.place(*time))) cy="12" r="4" { title { (title) } }
            }
        }
    }
}

fn bar(span: &Span, scale: &Scale) -> Markup {
    let (from, to) = (scale.place(span.from), scale.place(span.to));
    let width = (to - from).max(LEAST);
    let from = from.min(100.0 - width);
    let is_thin = matches!(span.class, "wait" | "ended");
    let (top, height) = if is_thin { (10, 4) } else { (6, 12) };
    html! {
        rect class={ "span " (span.class) } x=(percent(from)) y=(top) width=(percent(width)) height=(height) rx="2" {
            title { (span.title) ", " (times::span(span.to.saturating_sub(span.from))) }
        }
    }
}

/// The lane for those who do not see it.
fn words(lane: &Lane) -> String {
    let spans = lane.spans.iter().filter(|of| !of.title.is_empty()).take(8);
    let spans = spans.map(|of| {
        format!(
            "{} for {}",
            of.title,
            times::span(of.to.saturating_sub(of.from))
        )
    });
    let marks = lane.marks.iter().take(8).map(|(_, title)| title.clone());
    let all: Vec<String> = spans.chain(marks).collect();
    format!("{}: {}", lane.label, all.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn lane(spans: &[(i64, i64)]) -> Lane {
        let spans = spans.iter().map(|(from, to)| Span {
            from: from * SECOND,
            to: to * SECOND,
            class: "good",
            title: String::new(),
        });
        Lane {
            spans: spans.collect(),
            ..Lane::default()
        }
    }

    #[test]
    fn places_are_in_proportion_where_nothing_is_long() {
        let lanes = [lane(&[(0, 25), (25, 50), (50, 75), (75, 100)])];
        let scale = Scale::new(&lanes, 0, 100 * SECOND);
        assert!(scale.gaps.is_empty());
        assert!((scale.place(30 * SECOND) - 30.0).abs() < 1e-6);
        assert_eq!(scale.time(50.0), 50 * SECOND);
        assert_eq!(scale.place(-5), 0.0);
    }

    #[test]
    fn a_long_sleep_leaves_room_for_the_work_around_it() {
        let day = 86_400;
        let lanes = [lane(&[(0, 4), (day, day + 4)])];
        let scale = Scale::new(&lanes, 0, (day + 4) * SECOND);
        assert_eq!(scale.gaps.len(), 1);
        let worked = scale.place(4 * SECOND);
        assert!(worked > 25.0, "{worked}");
        assert!((scale.place((day + 4) * SECOND) - 100.0).abs() < 1e-6);
    }

    #[test]
    fn a_session_that_has_just_begun_has_a_picture() {
        let scale = Scale::new(&[lane(&[(0, 0)])], 0, 0);
        assert_eq!(scale.place(0), 0.0);
        assert_eq!(scale.time(100.0), 0);
    }
}
