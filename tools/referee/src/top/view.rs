//! Draws what is known of a box on a terminal of 80 × 24 and up. Main thread; pure: a model in, cells out.
//!
//! Whatever a packet may have brought in (names, rules' words) goes through [`clean`]. Colours are the terminal's own
//! sixteen; without them everything is still said in words.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table, TableState, Wrap};
use serde_json::Value;

use super::fit::{Ends, Fitted, cut, fitted, wide};
use super::model::{Model, Tab, number, text};
use super::pages;
use crate::term::{count, plural};
use crate::time::{span, utc};

/// The least there has to be.
pub const LEAST: (u16, u16) = (80, 20);

/// How things look on this terminal.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    pub colour: bool,
    /// It shows more than ASCII.
    pub unicode: bool,
}

const ASCII_BARS: bar::Set<'static> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "=",
    five_eighths: "=",
    half: "-",
    three_eighths: "-",
    one_quarter: ".",
    one_eighth: ".",
    empty: " ",
};

impl Looks {
    pub(super) fn of(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    pub(super) fn strong(self, colour: Color) -> Style {
        self.of(colour).add_modifier(Modifier::BOLD)
    }

    fn severity(self, severity: &str) -> Style {
        match severity {
            "critical" => self.strong(Color::Red),
            "warning" => self.strong(Color::Yellow),
            _ => self.of(Color::Blue),
        }
    }

    /// A line across, with a title.
    pub(super) fn rule(self, title: &str) -> Block<'_> {
        let block = Block::new().borders(Borders::TOP).title(title);
        match self.unicode {
            true => block,
            false => block.border_set(ratatui::symbols::border::Set {
                horizontal_top: "-",
                ..ratatui::symbols::border::PLAIN
            }),
        }
    }
}

/// All of it.
pub fn draw(frame: &mut Frame, model: &Model, looks: Looks, now_ns: u64) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let what =
            format!("{} x {} is too small: {} x {} at least", area.width, area.height, LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(what).wrap(Wrap { trim: true }), area);
        return;
    }
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(top_line(model, looks, now_ns, head.width)), head);
    frame.render_widget(Paragraph::new(tab_line(model, looks)), tabs);
    match model.tab {
        _ if !model.known => nobody(frame, body, model),
        Tab::Now => now(frame, body, model, looks, now_ns),
        Tab::Traffic => pages::traffic(frame, body, model, looks),
        Tab::Rules => pages::rules(frame, body, model, looks),
        Tab::Books => pages::books(frame, body, model, looks),
    }
    frame.render_widget(Paragraph::new(foot_line(model, looks, foot.width.into())), foot);
    if model.help {
        pages::help(frame, body, looks);
    }
}

fn top_line(model: &Model, looks: Looks, now_ns: u64, room: u16) -> Line<'static> {
    let version = &model.told.version;
    let interfaces: Vec<String> =
        version["interfaces"].as_array().into_iter().flatten().map(|one| clean(text(one, "name"))).collect();
    let started = number(version, "started_ns");
    let up =
        if started > 0 { format!("  up {}", span(now_ns.saturating_sub(started))) } else { String::new() };
    let status = text(&model.told.health, "status");
    let (word, style) = match (&model.silent, status) {
        (Some(_), _) => (" no answer ".to_owned(), looks.strong(Color::Red)),
        (None, "ok") => (" ok ".to_owned(), looks.strong(Color::Green)),
        (None, "degraded") => (" degraded ".to_owned(), looks.strong(Color::Yellow)),
        (None, other) => (format!(" {} ", clean(other)), looks.strong(Color::Red)),
    };
    let name = clean(text(version, "hostname"));
    // How it is matters more than which interfaces it has.
    let left = usize::from(room).saturating_sub("Referee   ".len() + wide(&up) + wide(&word));
    let place = cut(&format!("{name}  {}", interfaces.join(" ")), left, looks);
    Line::from(vec![
        Span::styled("Referee ", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("{place}{up}  ")),
        Span::styled(word, style.add_modifier(Modifier::REVERSED)),
    ])
}

fn tab_line(model: &Model, looks: Looks) -> Line<'static> {
    let tab = |(number, tab): (usize, &Tab)| {
        let style = match *tab == model.tab {
            true => looks.strong(Color::Cyan).add_modifier(Modifier::UNDERLINED),
            false => Style::new(),
        };
        [Span::styled(format!("{} {}", number + 1, tab.name()), style), Span::raw("   ")]
    };
    Line::from(Tab::ALL.iter().enumerate().flat_map(tab).collect::<Vec<_>>())
}

fn foot_line(model: &Model, looks: Looks, room: usize) -> Line<'static> {
    match (&model.silent, model.said.as_str()) {
        (Some(why), _) if model.known => {
            let what = format!("what is shown is old: {}", clean(why));
            Line::styled(cut(&what, room, looks), looks.of(Color::Red))
        }
        (_, "") => {
            let arrows = if looks.unicode { "↑↓" } else { "up down" };
            Line::styled(format!("? help   q quit   1-4 Tab pages   {arrows} choose   Enter open"), dim())
        }
        (_, said) => Line::raw(cut(&clean(said), room, looks)),
    }
}

pub(super) fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn nobody(frame: &mut Frame, area: Rect, model: &Model) {
    let why = model.silent.as_deref().unwrap_or("asking …");
    let words = format!("\nNo run answers; it is asked again every second.\n\n{}", clean_lines(why));
    frame.render_widget(Paragraph::new(words).wrap(Wrap { trim: true }), area);
}

fn now(frame: &mut Frame, area: Rect, model: &Model, looks: Looks, now_ns: u64) {
    if let Some(incident) = model.incident().filter(|_| model.open) {
        incident_page(frame, area, incident, looks);
        return;
    }
    let [curves, list, detail] =
        Layout::vertical([Constraint::Length(4), Constraint::Min(5), Constraint::Length(6)]).areas(area);
    three_curves(frame, curves, model, looks);
    let open = model.told.incidents.len();
    let title = match open {
        0 => "nothing a person needs to look at ".to_owned(),
        n => format!(
            "{} now ",
            plural(n as u64, "thing is broken").replace("thing is brokens", "things are broken")
        ),
    };
    let block = looks.rule(&title);
    let (first, rest) = (block.inner(list), list);
    frame.render_widget(block, rest);
    if open == 0 {
        frame.render_widget(Paragraph::new(healthy(model)).wrap(Wrap { trim: true }), first);
    } else {
        incident_list(frame, first, model, looks, now_ns);
    }
    let chosen = model.incident().map(|one| clean(text(one, "explain"))).unwrap_or_default();
    let block = looks.rule("why ");
    frame.render_widget(Paragraph::new(chosen).wrap(Wrap { trim: true }).block(block), detail);
}

fn healthy(model: &Model) -> String {
    let minute = |name: &str| model.curve(name).iter().rev().take(60).sum::<u64>();
    let troubles = model.told.health["checks"].as_array().into_iter().flatten();
    let troubles: Vec<String> = troubles
        .filter(|check| text(check, "status") != "ok")
        .map(|check| format!("{}: {}", clean(text(check, "name")), clean(text(check, "what"))))
        .collect();
    let packets = match minute("packets") {
        _ if model.told.version["live"] == false => {
            "A store, and no run: `referee web` and `referee captures list` show what it has.".to_owned()
        }
        0 => "No packets come: is the mirror on?".to_owned(),
        n => format!("{} in the last minute.", plural(n, "packet")),
    };
    format!("{packets}\n{}", troubles.join("\n"))
}

/// Widest kind that is shown whole: as long as the longest of the shipped ones.
const KIND: usize = 23;

fn incident_list(frame: &mut Frame, area: Rect, model: &Model, looks: Looks, now_ns: u64) {
    let listed = &model.told.incidents;
    let ends: Vec<Ends> = listed.iter().map(|one| Ends::of(&one["subject"])).collect();
    let head = ["", "what", "who", "for", "events"].map(str::to_owned).to_vec();
    let row = |(one, ends): (&Value, &Ends)| {
        vec![
            clean(&text(one, "severity").to_uppercase()),
            cut(&clean(text(one, "kind")), KIND, looks),
            ends.whole(),
            span(now_ns.saturating_sub(number(one, "first_ns"))),
            count(number(one, "count")),
        ]
    };
    let mut rows: Vec<Vec<String>> = std::iter::once(head).chain(listed.iter().zip(&ends).map(row)).collect();
    let Fitted { columns, widths } = fitted(&rows, 2, &[4, 3], area.width);
    let who = columns.iter().position(|column| *column == 2).and_then(|at| widths.get(at));
    let room = usize::from(who.copied().unwrap_or(0));
    for (row, ends) in rows.iter_mut().skip(1).zip(&ends) {
        row.splice(2..3, [ends.within(room, looks)]);
    }
    let style = |at: usize, column: usize| match listed.get(at) {
        Some(one) if column == 0 => looks.severity(text(one, "severity")),
        _ => Style::new(),
    };
    chosen(frame, area, table(&rows, &columns, widths, style), model);
}

/// A table of a head and lines, of these columns. `style` is asked with a line and a column.
pub(super) fn table(
    rows: &[Vec<String>],
    columns: &[usize],
    widths: Vec<u16>,
    style: impl Fn(usize, usize) -> Style,
) -> Table<'static> {
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    let head = rows
        .first()
        .map(|head| Row::new(columns.iter().map(|column| cell(head, *column))))
        .unwrap_or_default();
    let lines = rows.iter().skip(1).enumerate().map(|(at, row)| {
        Row::new(columns.iter().map(|column| Span::styled(cell(row, *column), style(at, *column))))
    });
    Table::new(lines, widths.into_iter().map(Constraint::Length)).header(head.style(dim()))
}

/// A table with the reader's line marked.
pub(super) fn chosen(frame: &mut Frame, area: Rect, table: Table, model: &Model) {
    let mark = Style::new().add_modifier(Modifier::REVERSED);
    let mut state = TableState::new().with_selected(Some(model.at));
    frame.render_stateful_widget(table.row_highlight_style(mark), area, &mut state);
}

fn incident_page(frame: &mut Frame, area: Rect, one: &Value, looks: Looks) {
    let severity = text(one, "severity");
    let mut lines = vec![
        Line::from(vec![
            Span::styled(clean(&severity.to_uppercase()), looks.severity(severity)),
            Span::raw("  "),
            Span::styled(clean(text(one, "kind")), Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!("  {}", Ends::of(&one["subject"]).whole())),
        ]),
        Line::raw(format!(
            "since {}, last {}; {}, {}",
            utc(number(one, "first_ns")),
            utc(number(one, "last_ns")),
            plural(number(one, "count"), "event"),
            plural(number(one, "flows"), "flow")
        )),
        Line::raw(""),
        Line::raw(clean(text(one, "explain"))),
        Line::raw(""),
    ];
    for (what, name) in [("what to do: ", "advise"), ("proof: ", "proof")] {
        if !text(one, name).is_empty() {
            lines.push(Line::raw(format!("{what}{}", clean(text(one, name)))));
        }
    }
    lines.push(Line::raw(format!("id {}", clean(text(one, "id")))));
    for (name, value) in one["evidence"].as_object().into_iter().flatten() {
        lines.push(Line::styled(format!("  {} = {}", clean(name), clean(&plain(value))), dim()));
    }
    let block = looks.rule("Esc back ");
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn three_curves(frame: &mut Frame, area: Rect, model: &Model, looks: Looks) {
    let third = Constraint::Ratio(1, 3);
    let [left, middle, right] = Layout::horizontal([third, third, third]).spacing(1).areas(area);
    let bits: Vec<u64> = model.curve("bytes").iter().map(|bytes| bytes.saturating_mul(8)).collect();
    let lost = model.curve("dropped");
    let ever: u64 = lost.iter().sum();
    let (warn, calm) = (looks.strong(Color::Red), looks.of(Color::Green));
    let packets = format!("packets/s {}", count(model.last("packets")));
    curve(frame, left, &packets, &model.curve("packets"), calm, looks);
    let mbits = bits.last().copied().unwrap_or(0) as f64 / 1e6;
    curve(frame, middle, &format!("Mbit/s {mbits:.1}"), &bits, calm, looks);
    let title = format!("lost/s {}  ({} in 5 min)", count(model.last("dropped")), count(ever));
    curve(frame, right, &title, &lost, if ever > 0 { warn } else { calm }, looks);
}

/// The newest second at the right edge.
pub(super) fn curve(frame: &mut Frame, area: Rect, title: &str, data: &[u64], style: Style, looks: Looks) {
    let [head, bars] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    frame.render_widget(Paragraph::new(cut(title, head.width.into(), looks)), head);
    let width = usize::from(bars.width);
    let newest = data.get(data.len().saturating_sub(width)..).unwrap_or_default();
    let padded: Vec<u64> =
        std::iter::repeat_n(0, width - newest.len()).chain(newest.iter().copied()).collect();
    let set = if looks.unicode { bar::NINE_LEVELS } else { ASCII_BARS };
    frame.render_widget(Sparkline::default().data(&padded).style(style).bar_set(set), bars);
}

/// Nothing in it moves the cursor or changes colours, and it stays on its line.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The same for a text of several lines.
fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}
