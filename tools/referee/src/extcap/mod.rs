//! Referee among Wireshark's interfaces: what Wireshark asks of a program in its extcap folder, and the commands that put
//! Referee there and name other boxes.
//!
//! Main thread. Every start of Wireshark waits for the answers about interfaces and dialogs, so these never wait long for
//! a box. A capture copies what the API sends into Wireshark's pipe; packets are looked at by neither.

mod boxes;
mod capture;
mod demand;
mod grammar;
mod install;
mod interfaces;
mod live;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::Failure;
use crate::term;

/// Referee in Wireshark's list of interfaces.
#[derive(Subcommand)]
pub enum ExtcapCommand {
    /// Put Referee into Wireshark's list of interfaces
    Install(PlaceArgs),
    /// Take it out again
    Remove(PlaceArgs),
    /// Name another box, to be chosen in the dialog of a Referee interface
    Add(boxes::AddArgs),
    /// The boxes that can be chosen, and what Wireshark is told
    List,
}

#[derive(Args)]
pub struct PlaceArgs {
    /// For this user only (Wireshark 4.2 and later)
    #[arg(long, conflicts_with = "folder")]
    pub user: bool,
    /// Wireshark's folder of extcap programs; without it, the one that tshark names
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// `referee extcap …`
///
/// # Errors
/// Failed: files can't be written or read. Usage: what is said of a box is wrong.
pub fn run(command: &ExtcapCommand) -> Result<(), Failure> {
    match command {
        ExtcapCommand::Install(args) => install::install(args),
        ExtcapCommand::Remove(args) => install::remove(args),
        ExtcapCommand::Add(args) => boxes::add(args),
        ExtcapCommand::List => {
            let boxes = boxes::Boxes::load()?;
            term::show(|out| {
                writeln!(out, "{}", boxes::THIS)?;
                boxes.named.iter().try_for_each(|(name, known)| writeln!(out, "{name}  {}", known.url))
            })?;
            term::show(|out| out.write_all(interfaces::list(&boxes).as_bytes()))
        }
    }
}

/// What Wireshark calls with, if it is Wireshark who calls.
pub fn called(arguments: impl Iterator<Item = OsString>) -> Option<Call> {
    let arguments: Vec<String> = arguments.skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    let own = |name: &str| arguments.iter().any(|text| text.starts_with(name));
    (own("--extcap-") || (own("--capture") && own("--fifo"))).then(|| Call::read(&arguments))
}

/// One call of Wireshark's, whose options may be of versions to come.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Call {
    given: BTreeMap<String, String>,
}

impl Call {
    fn read(arguments: &[String]) -> Call {
        let mut given = BTreeMap::new();
        let mut rest = arguments.iter().peekable();
        while let Some(argument) = rest.next() {
            let Some(name) = argument.strip_prefix("--") else { continue };
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                // A filter may begin with a minus, but not with two.
                None => (name, rest.next_if(|next| !next.starts_with("--")).cloned().unwrap_or_default()),
            };
            given.insert(name.to_owned(), value);
        }
        Call { given }
    }

    fn asks(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// What was given, unless that is nothing.
    fn value(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Answers it. What is not known is answered with nothing: later versions of Wireshark ask more.
///
/// # Errors
/// Only a capture fails: Wireshark shows what it says on standard error.
pub fn answer(call: &Call) -> Result<(), Failure> {
    let interface = call.value("extcap-interface").unwrap_or_default();
    if call.asks("capture") {
        return capture::run(call, interface);
    }
    // Without its file the boxes are none; a list that fails would hide this one, too.
    let boxes = boxes::Boxes::load().unwrap_or_default();
    let text = if call.asks("extcap-interfaces") {
        interfaces::list(&boxes)
    } else if call.asks("extcap-dlts") {
        interfaces::dlts(interface)
    } else if call.asks("extcap-config") {
        interfaces::config(call, interface, &boxes)
    } else if [interfaces::LIVE, interfaces::DEMAND].contains(&interface) {
        // Whether a filter is one; without a filter there is nothing wrong with it.
        demand::mistake(call.value("extcap-capture-filter").unwrap_or_default())
    } else {
        String::new()
    };
    term::show(|out| out.write_all(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str) -> Option<Call> {
        called(std::iter::once("referee").chain(text.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn wireshark_is_told_from_a_person() {
        for text in ["run -i eth0", "captures list", "", "replay --capture"] {
            assert_eq!(call(text), None, "{text}");
        }
        let asked = call("--extcap-interfaces --extcap-version=4.0").unwrap();
        assert!(asked.asks("extcap-interfaces"));
        assert_eq!(asked.value("extcap-version"), Some("4.0"));
        let asked =
            call("--capture --extcap-interface referee-live --fifo /tmp/f --url  --last 30s -x y --new")
                .unwrap();
        assert!(asked.asks("capture") && asked.asks("new"));
        assert_eq!(
            (asked.value("fifo"), asked.value("last"), asked.value("url")),
            (Some("/tmp/f"), Some("30s"), None)
        );
    }

    #[test]
    fn what_it_does_not_know_it_answers_with_nothing() {
        assert_eq!(answer(&call("--extcap-cleanup").unwrap()), Ok(()));
        assert_eq!(interfaces::dlts("somebody-elses"), "");
    }
}
