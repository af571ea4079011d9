//! The terminal: text for people, colour where it is one, and output whose reader may have gone away.
//!
//! Main thread only. Knows nothing about packets; the commands make the words.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use comfy_table::{Table, presets};

use crate::error::Failure;

/// Columns that running text is broken at, if the terminal has as many.
pub const WIDTH: usize = 96;

/// Columns of a terminal; `None` if it is none.
pub fn columns(of: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(of).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Columns there are on standard output.
pub fn width() -> usize {
    columns(io::stdout()).map_or(WIDTH, |terminal| terminal.clamp(40, WIDTH))
}

/// Says something on standard error. If that is closed there is nobody left to tell.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "referee: {text}");
}

/// How long something may take before it is said.
const PATIENCE: Duration = Duration::from_secs(1);

/// Does what may take long, and says so if it does.
pub fn patiently<R>(what: &str, work: impl FnOnce() -> R) -> R {
    let (working, done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let wait = move || {
            if done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                note(what);
            }
        };
        // Without a thread it is done without a word.
        let _ = thread::Builder::new().spawn_scoped(scope, wait);
        let result = work();
        drop(working);
        result
    })
}

/// Writes to standard output; a reader that went away has seen enough, which is no failure.
///
/// # Errors
/// Standard output can't be written (a full disk behind it).
pub fn show(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            // What is still buffered has no reader; dropping the buffer would try once more.
            let _ = out.into_parts();
            Ok(())
        }
        Err(error) => Err(Failure::failed(format!("standard output can't be written: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Colours for standard output: only on a terminal, and not if NO_COLOR is set (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    pub fn for_stdout() -> Paint {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Paint { on: io::stdout().is_terminal() && !refused && !dumb }
    }

    #[cfg(test)]
    pub const fn plain() -> Paint {
        Paint { on: false }
    }

    fn paint(self, code: &str, text: impl Display) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub fn bold(self, text: impl Display) -> String {
        self.paint("1", text)
    }

    pub fn dim(self, text: impl Display) -> String {
        self.paint("2", text)
    }

    pub fn red(self, text: impl Display) -> String {
        self.paint("1;31", text)
    }

    pub fn yellow(self, text: impl Display) -> String {
        self.paint("1;33", text)
    }

    pub fn green(self, text: impl Display) -> String {
        self.paint("1;32", text)
    }

    pub fn blue(self, text: impl Display) -> String {
        self.paint("1;34", text)
    }
}

/// Breaks text at spaces into lines of at most [`WIDTH`] columns, fewer on a narrow terminal, the first after
/// `head`, the others indented by as much. A word longer than a line stays whole. Control characters, which a
/// packet could have brought in, become �.
pub fn wrap(head: &str, text: &str) -> String {
    let columns = width();
    let indent = " ".repeat(head.chars().count());
    let mut out = String::new();
    let mut line = head.to_owned();
    let mut begun = false;
    for word in text.split_whitespace() {
        if begun && line.chars().count() + 1 + word.chars().count() > columns {
            out.push_str(line.trim_end());
            out.push('\n');
            line.clone_from(&indent);
            begun = false;
        }
        if begun {
            line.push(' ');
        }
        line.extend(word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        begun = true;
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

/// A table without lines or frame.
pub fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// A table's lines, without the blanks that would begin and end each.
pub fn lines(table: &Table) -> impl Iterator<Item = String> {
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
}

/// A number with its thousands parted.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// "1 flow", "2,000 flows".
pub fn plural(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Packets a second, in millions where there are as many.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn rate(packets: u64, seconds: f64) -> String {
    let rate = packets as f64 / seconds.max(1e-6);
    if rate >= 1e6 {
        format!("{:.2} Mpps", rate / 1e6)
    } else if rate >= 1e3 {
        format!("{:.0} kpps", rate / 1e3)
    } else {
        format!("{rate:.0} pps")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_and_made_harmless() {
        let text = wrap("  why: ", &"word ".repeat(60));
        assert!(text.lines().all(|line| line.len() <= WIDTH && !line.ends_with(' ')));
        assert!(text.starts_with("  why: word") && text.lines().nth(1).unwrap().starts_with("       word"));
        assert_eq!(text.matches("word").count(), 60);
        let long = "x".repeat(200);
        assert_eq!(wrap("", &format!("a {long} b")), format!("a\n{long}\nb\n"));
        assert_eq!(wrap("", "a\x1b[31m"), "a\u{fffd}[31m\n");
        assert_eq!(wrap("head", ""), "head\n");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1000, 1_234_567].map(count).each_ref().map(String::as_str)
        );
        assert_eq!((plural(1, "flow"), plural(2000, "flow")), ("1 flow".into(), "2,000 flows".into()));
    }

    #[test]
    fn no_colour_unless_wanted() {
        assert_eq!(Paint::plain().red("x"), "x");
        assert_eq!(Paint { on: true }.red("x"), "\x1b[1;31mx\x1b[0m");
    }
}
