//! The packets of incidents as they are found: each new incident of a box becomes a section of one endless pcapng.
//!
//! Main thread. Looks at the box's list once a second; what was there at the beginning is not told again. An incident comes
//! once, as soon as its packets are on the box's disk: what it gathers later is in a capture of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::capture::{Copied, copy, download};
use super::interfaces::is_id;
use crate::client::Client;
use crate::error::{Code, Failure};

const LOOK: Duration = Duration::from_secs(1);
/// Looks that an incident waits at first: what led up to it lies in memory for a second.
const SETTLE: u32 = 2;
/// Looks until an incident without packets is given up.
const PATIENCE: u32 = 10;
/// Looks in a row that may fail: a run that is started anew is back by then.
const FAILURES: u32 = 30;
const LIST: &str = "/api/v1/incidents?limit=500";

/// An empty section with an Ethernet interface: Wireshark begins with it, though nothing may come for hours.
fn beginning() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28, 1, 20, 1, 0, 20] {
        bytes.extend_from_slice(&u32::to_le_bytes(word));
    }
    bytes
}

/// Until nobody reads it any more.
///
/// # Errors
/// Failed: the box can't be asked, or the pipe not written.
pub fn run(client: &Client, to: &mut dyn Write) -> Result<(), Failure> {
    let known = ids(&client.json(LIST)?);
    to.write_all(&beginning()).map_err(|error| Failure::failed(format!("Wireshark's pipe: {error}")))?;
    let (mut news, mut failures) = (News { known, waiting: BTreeMap::new() }, 0);
    loop {
        thread::sleep(LOOK);
        match client.json(LIST) {
            Ok(list) => {
                failures = 0;
                news.look(ids(&list));
            }
            Err(failure) if failures >= FAILURES => return Err(failure),
            Err(_) => failures += 1,
        }
        for id in news.due() {
            match client.get(&download(&id)) {
                // Its packets are not there yet, or never will be.
                Err(failure) if failure.code == Code::Usage => {}
                Err(_) => {}
                Ok(answer) => {
                    news.waiting.remove(&id);
                    if copy(&mut { answer.body }, to)? == Copied::Gone {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn ids(list: &Value) -> BTreeSet<String> {
    let items = list.get("items").and_then(Value::as_array);
    let id = |incident: &Value| incident.get("id").and_then(Value::as_str).map(str::to_owned);
    items.into_iter().flatten().filter_map(id).filter(|id| is_id(id)).collect()
}

/// Which incidents have been told.
struct News {
    known: BTreeSet<String>,
    /// Looks since each was first seen.
    waiting: BTreeMap<String, u32>,
}

impl News {
    fn look(&mut self, listed: BTreeSet<String>) {
        self.waiting.values_mut().for_each(|looks| *looks += 1);
        self.waiting.retain(|_, looks| *looks <= PATIENCE);
        for id in listed {
            if self.known.insert(id.clone()) {
                self.waiting.insert(id, 0);
            }
        }
    }

    fn due(&self) -> Vec<String> {
        self.waiting.iter().filter(|(_, looks)| **looks >= SETTLE).map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_incident_is_told_once_and_not_waited_for_without_end() {
        let list =
            |all: &[&str]| ids(&json!({"items": all.iter().map(|id| json!({"id": id})).collect::<Vec<_>>()}));
        let mut news = News { known: list(&["aa"]), waiting: BTreeMap::new() };
        news.look(list(&["aa", "bb", "no id"]));
        assert!(news.due().is_empty());
        news.look(list(&["aa", "bb"]));
        news.look(list(&["aa", "bb"]));
        assert_eq!(news.due(), ["bb"]);
        for _ in 0..PATIENCE {
            news.look(list(&["bb"]));
        }
        assert!(news.due().is_empty());
        assert_eq!(news.waiting.len(), 0);
    }

    #[test]
    fn it_begins_with_whole_blocks() {
        let bytes = beginning();
        assert_eq!(bytes.len(), 28 + 20);
        assert_eq!(bytes[28..32], [1, 0, 0, 0]);
        assert_eq!(bytes[4..8], bytes[24..28]);
        assert_eq!(bytes[32..36], bytes[44..48]);
    }
}
