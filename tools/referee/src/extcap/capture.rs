//! A capture that Wireshark asked for: the answer of a box, copied into Wireshark's pipe as it comes.
//!
//! Main thread; a second one waits for the signal that Wireshark ends a capture with. Packets are not looked at.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};

use super::boxes::Boxes;
use super::interfaces::{DEMAND, INCIDENT, LIVE, NEWEST, is_id, newest_id};
use super::{Call, demand, live};
use crate::client::Client;
use crate::error::Failure;
use crate::live::signals::end_when_told;

const PIECE: usize = 64 << 10;

/// # Errors
/// Usage: it is not said what to capture. Failed: the box can't be reached or refuses, or the pipe is none.
pub fn run(call: &Call, interface: &str) -> Result<(), Failure> {
    let fifo = call.value("fifo").ok_or_else(|| Failure::usage("--fifo names no pipe"))?;
    let opened = Cell::new(false);
    let open = || {
        opened.set(true);
        File::options().write(true).open(fifo).map_err(|error| Failure::failed(format!("{fifo}: {error}")))
    };
    let ran = capture(call, interface, &open);
    if ran.is_err() && !opened.get() {
        // Wireshark's capture process waits for somebody to open the pipe, and would for ever.
        drop(open());
    }
    ran
}

fn capture(call: &Call, interface: &str, open: &dyn Fn() -> Result<File, Failure>) -> Result<(), Failure> {
    let client = Client::reach(&Boxes::load()?.meant(call)?)?;
    if interface == DEMAND {
        return demand::run(&client, call, open);
    }
    // Whoever ends it has what it wanted.
    end_when_told(|| {})?;
    if interface == LIVE {
        return live::run(&client, call.value("extcap-capture-filter").unwrap_or_default(), open);
    }
    let incident = incident(call, interface)?;
    let incident = if incident == NEWEST { newest_id(&client)? } else { incident };
    let mut from = client.get(&download(&incident))?.body;
    copy(&mut from, &mut open()?).map(drop)
}

/// Where an incident's packets are.
fn download(incident: &str) -> String {
    format!("/api/v1/captures/download?incident={incident}&stream=true")
}

/// Which incident is meant: that of the interface, the one whose id was typed, or the one chosen.
fn incident(call: &Call, interface: &str) -> Result<String, Failure> {
    let Some(rest) = interface.strip_prefix(INCIDENT) else {
        return Err(Failure::usage(format!("there is no interface {interface}")));
    };
    let named = rest.strip_prefix('-').or(call.value("id")).or(call.value("incident")).unwrap_or(NEWEST);
    match named == NEWEST || is_id(named) {
        true => Ok(named.to_owned()),
        false => Err(Failure::usage(format!("`{named}` is no incident's id"))),
    }
}

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    All,
    /// Nobody reads it any more.
    Gone,
}

/// Until there is no more, or nobody reads it any more.
pub fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<Copied, Failure> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(Copied::All),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::failed(format!("the capture broke off: {error}"))),
        };
        match to.write_all(piece.get(..read).unwrap_or_default()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Copied::Gone),
            Err(error) => return Err(Failure::failed(format!("Wireshark's pipe: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_says_which_incident_is_meant() {
        let meant = |interface: &str, text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            incident(&Call::read(&words), interface).ok()
        };
        let is = |id: &str| Some(id.to_owned());
        assert_eq!(meant("referee-incident", "--incident 00ff"), is("00ff"));
        assert_eq!(meant("referee-incident", "--incident newest --id 00ff"), is("00ff"));
        assert_eq!(meant("referee-incident-00ff", "--incident 11"), is("00ff"));
        assert_eq!(meant("referee-incident", ""), is("newest"));
        for (interface, text) in
            [("referee-incident", "--id x&y"), ("referee-incident-x&y", ""), ("eth0", "")]
        {
            assert_eq!(meant(interface, text), None, "{interface}");
        }
    }

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_has_seen_enough() {
        assert_eq!(copy(&mut &[1_u8; 100_000][..], &mut Gone), Ok(Copied::Gone));
        let mut all = Vec::new();
        assert_eq!(copy(&mut &[1_u8; 100_000][..], &mut all), Ok(Copied::All));
        assert_eq!(all.len(), 100_000);
    }
}
