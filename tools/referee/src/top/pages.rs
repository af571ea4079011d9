//! The pages behind the first: traffic, rules, books, keys. Main thread; pure, as [`view`](super::view), which has what they
//! share.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::Line;
use ratatui::widgets::{Clear, Paragraph, Wrap};
use serde_json::Value;

use super::fit::{Fitted, cut, fitted};
use super::model::{Model, number, text};
use super::view::{Looks, chosen, clean, curve, dim, plain, table};
use crate::term::count;

pub(super) fn traffic(frame: &mut Frame, area: Rect, model: &Model, looks: Looks) {
    let [curves, last] = Layout::vertical([Constraint::Min(3), Constraint::Length(2)]).areas(area);
    frame.render_widget(Paragraph::new(latencies(model, last.width.into(), looks)), last);
    let rows: [Rect; 3] = Layout::vertical([Constraint::Ratio(1, 3); 3]).areas(curves);
    let figures = [
        [("packets/s", "packets", Color::Green), ("bytes/s", "bytes", Color::Green)],
        [("lost/s", "dropped", Color::Red), ("flows begun/s", "flows_created", Color::Cyan)],
        [("flows", "flows", Color::Cyan), ("history, s", "history_s", Color::Blue)],
    ];
    for (row, pair) in rows.into_iter().zip(figures) {
        let half = Constraint::Ratio(1, 2);
        let places: [Rect; 2] = Layout::horizontal([half, half]).spacing(2).areas(row);
        for (place, (title, name, colour)) in places.into_iter().zip(pair) {
            let data = model.curve(name);
            let most = data.iter().max().copied().unwrap_or(0);
            let title = format!("{title} {}  (most {})", count(model.last(name)), count(most));
            curve(frame, place, &title, &data, looks.of(colour), looks);
        }
    }
}

/// What half and 95 % took at most, lately.
fn latencies(model: &Model, room: usize, looks: Looks) -> Vec<Line<'static>> {
    let of = |(title, name): (&str, &str)| match model.latency(name) {
        Some((p50, p95)) => format!("{title} {} / {}", ms(p50), ms(p95)),
        None => format!("{title} -"),
    };
    let round_trips = [("to servers", "rtt_server"), ("to clients", "rtt_client")].map(of);
    let waits = [("connect", "connect"), ("first byte", "first_byte"), ("DNS", "dns_answer")].map(of);
    let trips = format!("half / 95 % within, ms:  round trip {}", round_trips.join("   "));
    [trips, waits.join("   ")].map(|line| Line::raw(cut(&line, room, looks))).to_vec()
}

/// Three digits.
fn ms(us: u64) -> String {
    let digits = match us {
        0..10_000 => 2,
        10_000..100_000 => 1,
        _ => 0,
    };
    format!("{:.digits$}", us as f64 / 1000.0)
}

pub(super) fn rules(frame: &mut Frame, area: Rect, model: &Model, looks: Looks) {
    if let Some(rule) = model.rule().filter(|_| model.open) {
        rule_page(frame, area, rule, looks);
        return;
    }
    let known = |rule: &Value, name: &str| match rule[name].as_f64() {
        Some(value) => format!("{value:.1}"),
        None => "-".to_owned(),
    };
    let micros = if looks.unicode { "body µs" } else { "body us" };
    let head = ["rule", "matched", "guard ns", "bodies", micros, "failed", ""].map(str::to_owned).to_vec();
    let row = |rule: &Value| {
        vec![
            clean(text(rule, "rule")),
            count(number(rule, "matched")),
            known(rule, "guard_ns"),
            count(number(rule, "body_runs")),
            known(rule, "body_us"),
            count(number(rule, "errors") + number(rule, "overruns")),
            rule_state(rule).to_owned(),
        ]
    };
    let listed = &model.told.rules;
    let mut rows: Vec<Vec<String>> = std::iter::once(head).chain(listed.iter().map(row)).collect();
    let Fitted { columns, widths } = fitted(&rows, 0, &[3, 4, 2], area.width);
    let room = usize::from(widths.first().copied().unwrap_or(0));
    for row in &mut rows {
        row.iter_mut().take(1).for_each(|name| *name = cut(name, room, looks));
    }
    let style = |at: usize, column: usize| match listed.get(at).map(rule_state) {
        Some("switched off") if column == STATE => looks.strong(Color::Red),
        Some(_) if column == STATE => looks.of(Color::Yellow),
        _ => Style::new(),
    };
    chosen(frame, area, table(&rows, &columns, widths, style), model);
}

/// The column that says how a rule stands.
const STATE: usize = 6;

fn rule_state(rule: &Value) -> &'static str {
    let is = |name: &str| rule[name].as_bool().unwrap_or(false);
    match (is("switched_off"), rule["enabled"].as_bool() == Some(false), is("shadow")) {
        (_, true, _) => "left out",
        (true, ..) => "switched off",
        (.., true) => "in shadow",
        _ => "",
    }
}

fn rule_page(frame: &mut Frame, area: Rect, rule: &Value, looks: Looks) {
    let all = rule.as_object().into_iter().flatten();
    let line = |(name, value): (&String, &Value)| {
        Line::raw(format!("{:<16} {}", clean(name).replace('_', " "), clean(&plain(value))))
    };
    let lines: Vec<Line> = all.filter(|(_, value)| !value.is_null()).map(line).collect();
    let block = looks.rule("Esc back   s shadow on/off ");
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

pub(super) fn books(frame: &mut Frame, area: Rect, model: &Model, looks: Looks) {
    let books = &model.told.books;
    let mut lines = Vec::new();
    for name in ["received", "analysed", "filtered", "kept", "written"] {
        lines.push(Line::raw(format!("{name:<28} {:>20}", count(number(books, name)))));
    }
    for group in ["dropped", "unwritten"] {
        for (reason, lost) in books[group].as_object().into_iter().flatten() {
            let lost = lost.as_u64().unwrap_or(0);
            let style = if lost > 0 { looks.strong(Color::Red) } else { dim() };
            let name = format!("{group}: {}", clean(reason));
            lines.push(Line::styled(format!("{name:<28} {:>20}", count(lost)), style));
        }
    }
    for (group, name) in
        [("flows", "created"), ("flows", "live"), ("judge", "hits"), ("judge", "incidents_opened")]
    {
        let told = format!("{group}: {}", name.replace('_', " "));
        lines.push(Line::raw(format!("{told:<28} {:>20}", count(number(&books[group], name)))));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

pub(super) fn help(frame: &mut Frame, area: Rect, looks: Looks) {
    let words = "1 2 3 4, Tab    pages: now, traffic, rules, books\n\
                 up down k j     choose a line; PgUp PgDn by ten\n\
                 Enter           all of it\n\
                 Esc             back\n\
                 s               rules: let it only look on, or speak again\n\
                 q, Ctrl-C       quit";
    let [_, place, _] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(8), Constraint::Min(0)]).areas(area);
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(words).block(looks.rule("keys ")), place);
}
