//! What a box keeps, as it keeps it: its endless pcapng, copied into Wireshark's pipe.
//!
//! Main thread. A run that ends may be one that is started anew: its next stream is another section of the same capture.

use std::fs::File;
use std::thread;
use std::time::Duration;

use super::capture::{Copied, copy};
use crate::captures::live::path;
use crate::client::{Answer, Client};
use crate::error::Failure;

const PAUSE: Duration = Duration::from_secs(1);
/// Pauses until a run that has ended is given up.
const PAUSES: u32 = 30;

/// Until nobody reads it any more, or no run is left.
///
/// # Errors
/// Usage: the filter. Failed: the box can't be asked, or the pipe not written.
pub fn run(
    client: &Client,
    filter: &str,
    open: impl FnOnce() -> Result<File, Failure>,
) -> Result<(), Failure> {
    let path = path(filter);
    let mut answer = client.get(&path)?;
    let mut to = open()?;
    while copy(&mut answer.body, &mut to)? == Copied::All {
        answer = again(client, &path)?;
    }
    Ok(())
}

fn again(client: &Client, path: &str) -> Result<Answer, Failure> {
    for _ in 1..PAUSES {
        thread::sleep(PAUSE);
        if let Ok(answer) = client.get(path) {
            return Ok(answer);
        }
    }
    thread::sleep(PAUSE);
    client.get(path)
}
