//! `referee top`: what a run does and finds, at a glance, on a terminal. Asks the run's API, on this host or another.
//!
//! Main thread draws and hears keys; a second thread asks. The terminal is given back as it was however this ends.

mod feed;
mod fit;
mod keys;
mod model;
mod pages;
#[cfg(test)]
mod tests;
mod view;

use std::env;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use rustix::event::{PollFd, PollFlags, Timespec};
use signal_hook::consts::SIGTERM;

use crate::client::{Client, ReachArgs};
use crate::error::Failure;
use feed::News;
use keys::Asked;
use model::Model;
use view::Looks;

/// How long a key is waited for before news is looked for: 100 ms.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// # Errors
/// Usage: no terminal, or what says which box is wrong. Failed: the terminal can't be used.
pub fn run(args: &ReachArgs) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let what = "`referee top` is for a terminal";
        return Err(Failure::usage(what).help("`referee status --json` is for programs"));
    }
    let client = Client::reach(args)?;
    let failed = |error: io::Error| Failure::failed(format!("the terminal can't be used: {error}"));
    let stop = Arc::new(AtomicBool::new(false));
    // SIGHUP ends it at once: there is no terminal left to give back.
    signal_hook::flag::register(SIGTERM, Arc::clone(&stop)).map_err(failed)?;
    let ((wishes, wished), (news, heard)) = (channel(), channel());
    let body = move || feed::run(&client, &wished, &news);
    thread::Builder::new().name("feed".to_owned()).spawn(body).map_err(failed)?;
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let shown = show(&mut terminal, &wishes, &heard, &stop);
    if let Ok(Ended::Alone) = shown {
        // Nothing is given back to a terminal that has gone, and nobody is left to hear about it.
        std::mem::forget(terminal);
        return Ok(());
    }
    ratatui::restore();
    shown.map(drop).map_err(failed)
}

/// How it ended: by a key or a signal, or because the terminal has gone.
enum Ended {
    Told,
    Alone,
}

fn show(
    terminal: &mut DefaultTerminal,
    wishes: &Sender<Asked>,
    news: &Receiver<News>,
    stop: &AtomicBool,
) -> io::Result<Ended> {
    let (mut model, looks) = (Model::default(), looks());
    while !stop.load(Ordering::Relaxed) {
        terminal.draw(|frame| view::draw(frame, &model, looks, now_ns()))?;
        if !listen()? {
            return Ok(Ended::Alone);
        }
        while event::poll(Duration::ZERO)? {
            let Event::Key(key) = event::read()? else { continue };
            match keys::press(&mut model, key) {
                Some(Asked::Quit) => return Ok(Ended::Told),
                Some(wish) => drop(wishes.send(wish)),
                None => {}
            }
        }
        for one in news.try_iter() {
            match one {
                News::Told(told) => model.take(*told),
                News::Lost(why) => model.lost(why),
                News::Said(what) => model.said = what,
            }
        }
    }
    Ok(Ended::Told)
}

/// Whether the terminal is still there, once a key came or nothing did for a while. Asked before crossterm reads it, which
/// reads one that has gone over and over.
fn listen() -> io::Result<bool> {
    let keys = io::stdin();
    let mut looked = [PollFd::new(&keys, PollFlags::IN)];
    match rustix::event::poll(&mut looked, Some(&LOOK)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(looked.iter().all(|one| !one.revents().intersects(PollFlags::HUP | PollFlags::ERR)))
}

/// As <https://no-color.org> and the locale's variables say, in the order in which they count.
fn looks() -> Looks {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| set(name)).unwrap_or_default();
    let locale = locale.to_ascii_uppercase();
    Looks { colour: set("NO_COLOR").is_none(), unicode: locale.contains("UTF-8") || locale.contains("UTF8") }
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    u64::try_from(now).unwrap_or(u64::MAX)
}
