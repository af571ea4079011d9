//! When files that change are loaded: once nobody writes to them, nothing more has happened for a moment, and two looks
//! at them agree; later if a file that held rules has gone or is empty, which may be half of what somebody does.
//!
//! Control thread.

use std::thread;
use std::time::{Duration, Instant};

use rules::SourceFile;

use super::Control;
use crate::error::Failure;
use crate::rules::load::Origin;

/// How long nothing may happen before the files are read, and after how long they are read anyway.
const QUIET: Duration = Duration::from_millis(250);
const AT_LAST: Duration = Duration::from_secs(5);
/// Between two looks that have to agree, and how many there are at most.
const BETWEEN: Duration = Duration::from_millis(100);
const LOOKS: usize = 20;
/// How long rules that have gone are waited for.
const GONE: Duration = Duration::from_secs(2);

/// Files that have changed, or will be found not to have.
pub(super) struct Settling {
    began: Instant,
    /// When they are read.
    at: Instant,
    /// Since when rules are missing.
    gone: Option<Instant>,
}

impl Settling {
    pub(super) fn begun() -> Settling {
        let now = Instant::now();
        Settling { began: now, at: now + QUIET, gone: None }
    }

    /// Something happened again.
    pub(super) fn again(&mut self, now: Instant) {
        self.at = (now + QUIET).min(self.began + AT_LAST);
    }
}

/// The files, once two looks in a row agree; `None` if they never do.
pub(super) fn read_twice(origin: &Origin) -> Option<Result<Vec<SourceFile>, Failure>> {
    let mut before = origin.files();
    for _ in 0..LOOKS {
        thread::sleep(BETWEEN);
        let now = origin.files();
        if now == before {
            return Some(now);
        }
        before = now;
    }
    None
}

/// The first file that held something and now holds nothing, or is not there.
fn gone<'a>(before: &'a [SourceFile], now: &[SourceFile]) -> Option<&'a str> {
    let holds = |file: &SourceFile| !file.text.trim().is_empty();
    let stays = |file: &&SourceFile| now.iter().any(|other| other.name == file.name && holds(other));
    before.iter().filter(|file| holds(file)).find(|file| !stays(file)).map(|file| file.name.as_str())
}

impl Control {
    /// Reads files that have changed, if it is time to.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        let Some(settling) = &mut self.settling else { return };
        if now < settling.at || self.watch.being_written().is_some() {
            return;
        }
        let Some(files) = read_twice(&self.origin) else {
            settling.at = now + QUIET;
            return;
        };
        let before = self.tried.as_deref().unwrap_or_default();
        let missing = match &files {
            Ok(files) => gone(before, files).map(|name| format!("{name} holds nothing any more")),
            Err(failure) => (!before.is_empty()).then(|| failure.message.clone()),
        };
        if let Some(what) = missing {
            let first = settling.gone.is_none();
            let since = *settling.gone.get_or_insert(now);
            if since.elapsed() < GONE {
                settling.at = since + GONE;
                if first {
                    self.say(format!("rules: {what}; if that stays so, it counts in {} s", GONE.as_secs()));
                }
                return;
            }
        }
        self.settling = None;
        // Something happened that is no news: another file, or a change and back.
        let news = match &files {
            Ok(files) => self.tried.as_ref() != Some(files),
            Err(_) => self.tried.is_some(),
        };
        if news {
            self.load(files);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn what_held_rules_and_holds_none() {
        let before = [file("a", "rule"), file("b", "  \n"), file("c", "rule")];
        assert_eq!(gone(&before, &before), None);
        assert_eq!(gone(&before, &[file("a", "other"), file("c", "rule")]), None);
        assert_eq!(gone(&before, &[file("a", "rule"), file("c", " ")]), Some("c"));
        assert_eq!(gone(&before, &[file("c", "rule")]), Some("a"));
    }

    #[test]
    fn each_event_puts_it_off_but_not_for_ever() {
        let mut settling = Settling::begun();
        let began = settling.began;
        settling.again(began + Duration::from_secs(1));
        assert_eq!(settling.at, began + Duration::from_millis(1250));
        settling.again(began + Duration::from_secs(5));
        assert_eq!(settling.at, began + AT_LAST);
        settling.again(began + Duration::from_secs(9));
        assert_eq!(settling.at, began + AT_LAST, "it is over time");
    }
}
