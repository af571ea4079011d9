//! Has what is shown fit where there is little room: what is cut has a mark, and no address, port or number is cut within.
//!
//! Main thread; pure. `view` and `pages` ask it.

use ratatui::text::Span;
use serde_json::Value;

use super::model::{number, text};
use super::view::{Looks, clean};

/// Cells on the terminal.
pub(super) fn wide(text: &str) -> usize {
    Span::raw(text).width()
}

/// Stands for what is left out.
pub(super) fn mark(looks: Looks) -> &'static str {
    if looks.unicode { "…" } else { ".." }
}

/// As many of its words, or letters of a single one, as there is room for, and a mark if that is not all.
pub(super) fn cut(text: &str, room: usize, looks: Looks) -> String {
    if wide(text) <= room {
        return text.to_owned();
    }
    let room = room.saturating_sub(wide(mark(looks)));
    let fits = text
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| text.get(..*end).is_some_and(|begin| wide(begin) <= room));
    let end = fits.last().unwrap_or(0);
    let whole = text.get(end..).is_some_and(|rest| rest.starts_with(' '));
    let begin = text.get(..end).unwrap_or_default();
    let words = if whole { begin } else { begin.rsplit_once(' ').map_or(begin, |(words, _)| words) };
    format!("{}{}", words.trim_end(), mark(looks))
}

/// Whom an incident is about, in words that fit: the server's end stays longest.
pub(super) struct Ends {
    /// The client's address and port.
    from: Option<(String, u64)>,
    to: String,
    /// What can be done without.
    more: String,
}

impl Ends {
    pub(super) fn of(subject: &Value) -> Ends {
        let address = |name: &str| match clean(text(subject, name)) {
            host if host.contains(':') => format!("[{host}]"),
            host => host,
        };
        let to = || format!("{}:{}", address("dst"), number(subject, "dport"));
        let alone = |to: String| Ends { from: None, to, more: String::new() };
        match subject {
            of if !of["host"].is_null() => alone(clean(text(of, "host"))),
            of if !of["src"].is_null() => {
                Ends { from: Some((address("src"), number(of, "sport"))), ..alone(to()) }
            }
            of if !of["dst"].is_null() => {
                Ends { more: format!(" {}", clean(text(of, "proto"))), ..alone(to()) }
            }
            _ => alone("all traffic".to_owned()),
        }
    }

    pub(super) fn whole(&self) -> String {
        match &self.from {
            Some((host, port)) => format!("{host}:{port} > {}", self.to),
            None => format!("{}{}", self.to, self.more),
        }
    }

    pub(super) fn within(&self, room: usize, looks: Looks) -> String {
        let mut ways = vec![self.whole()];
        if let Some((host, _)) = &self.from {
            ways.push(format!("{host}:{} > {}", mark(looks), self.to));
            ways.push(format!("{} > {}", mark(looks), self.to));
        }
        ways.push(self.to.clone());
        ways.into_iter().find(|way| wide(way) <= room).unwrap_or_else(|| mark(looks).to_owned())
    }
}

/// The columns of a table that there is room for, and how wide each is.
pub(super) struct Fitted {
    pub columns: Vec<usize>,
    pub widths: Vec<u16>,
}

/// Every column is as wide as what is in it, but for `main`, which has what the others leave. If that is less than it
/// takes, the `spare` ones go, the first of them first.
pub(super) fn fitted(rows: &[Vec<String>], main: usize, spare: &[usize], room: u16) -> Fitted {
    let widest = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| wide(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(widest).collect();
    let mut columns: Vec<usize> = (0..widths.len()).collect();
    let width = |column: &usize| widths.get(*column).copied().unwrap_or(0);
    // One cell between two columns.
    let taken =
        |columns: &[usize]| columns.iter().map(|column| width(column) + 1).sum::<usize>().saturating_sub(1);
    for gone in spare {
        if taken(&columns) <= usize::from(room) {
            break;
        }
        columns.retain(|column| column != gone);
    }
    let others = taken(&columns).saturating_sub(width(&main));
    let left = usize::from(room).saturating_sub(others);
    let of = |column: &usize| if *column == main { left } else { width(column) };
    let widths = columns.iter().map(|column| u16::try_from(of(column)).unwrap_or(u16::MAX)).collect();
    Fitted { columns, widths }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAIN: Looks = Looks { colour: false, unicode: true };

    #[test]
    fn texts_are_cut_between_words_with_a_mark() {
        assert_eq!(cut("lost/s 12,345  (67 in 5 min)", 28, PLAIN), "lost/s 12,345  (67 in 5 min)");
        assert_eq!(cut("lost/s 12,345  (67 in 5 min)", 27, PLAIN), "lost/s 12,345  (67 in 5…");
        assert_eq!(cut("lost/s 12,345  (67 in 5 min)", 12, PLAIN), "lost/s…");
        assert_eq!(cut("a_long_name", 6, PLAIN), "a_lon…");
        assert_eq!(cut("a_long_name", 6, Looks { unicode: false, ..PLAIN }), "a_lo..");
        for room in 0..3 {
            assert!(wide(&cut("日本", room, PLAIN)) <= room.max(1), "{room}");
        }
    }

    #[test]
    fn ends_are_whole_or_left_out() {
        let v6 = json!({ "proto": "tcp", "src": "fd00:aaaa:bbbb:1::10", "sport": 39662, "dst": "fd00:aaaa:bbbb:2::20",
            "dport": 9000 });
        let ends = Ends::of(&v6);
        let ways = [
            "[fd00:aaaa:bbbb:1::10]:39662 > [fd00:aaaa:bbbb:2::20]:9000",
            "[fd00:aaaa:bbbb:1::10]:… > [fd00:aaaa:bbbb:2::20]:9000",
            "… > [fd00:aaaa:bbbb:2::20]:9000",
            "[fd00:aaaa:bbbb:2::20]:9000",
            "…",
        ];
        for room in 1..80 {
            let shown = ends.within(room, PLAIN);
            assert!(ways.contains(&shown.as_str()) && wide(&shown) <= room, "{room}: {shown}");
        }
        assert_eq!(ways.map(|way| ends.within(wide(way), PLAIN)), ways);
        let service = Ends::of(&json!({ "dst": "10.0.0.1", "dport": 53, "proto": "udp" }));
        assert_eq!([20, 11].map(|room| service.within(room, PLAIN)), ["10.0.0.1:53 udp", "10.0.0.1:53"]);
        assert_eq!(Ends::of(&json!({ "link": "all" })).whole(), "all traffic");
        assert_eq!(Ends::of(&json!({ "host": "fd00::1" })).whole(), "fd00::1");
    }

    #[test]
    fn smaller_columns_go_first() {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let rows = [row(["a", "twelve chars", "12", "345"]), row(["", "x", "1234", ""])];
        let of = |room| {
            let fitted = fitted(&rows, 1, &[3, 2], room);
            (fitted.columns, fitted.widths)
        };
        assert_eq!(of(30), (vec![0, 1, 2, 3], vec![1, 19, 4, 3]));
        assert_eq!(of(22), (vec![0, 1, 2], vec![1, 15, 4]));
        assert_eq!(of(18), (vec![0, 1], vec![1, 16]));
        assert_eq!(of(9), (vec![0, 1], vec![1, 7]));
    }
}
