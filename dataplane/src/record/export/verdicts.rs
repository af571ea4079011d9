//! The verdicts' words and the packets they belong on: of each incident that names a packet's flow, on the packet that
//! raised the incident's rule, else on the flow's last packet up to the incident's end.
//!
//! Runs wherever captures are read. The incidents' file is read line by line; kept is only which lines matter, where
//! they are, and the best packet so far. The words are read again when they are written.

use std::collections::{HashMap, HashSet};
use std::io;

use serde::Deserialize;

use super::super::StoreError;
use super::super::incidents::{IncidentFiles, LinePlace};
use super::super::pcapng::{self, Finished};
use super::super::store::Store;

/// What the comment on a packet that raised an event begins with; the rule's name follows.
pub(super) const RAISED: &str = "referee: ";

/// Most incidents whose words are added: the newest.
pub(super) const INCIDENTS_LIMIT: usize = 50_000;

/// Most pairs of an incident and a flow of it.
const CLAIMS_LIMIT: usize = 250_000;

/// What is needed of an incident's line.
#[derive(Deserialize)]
struct Line {
    id: String,
    #[serde(default)]
    rule: String,
    #[serde(default)]
    last_ns: u64,
    #[serde(default)]
    flow_ids: Vec<String>,
    #[serde(default)]
    explain: String,
    #[serde(default)]
    advise: String,
}

impl Line {
    fn words(&self) -> String {
        let mut words = format!("referee verdict: {} (incident {})", self.rule, self.id);
        for part in [&self.explain, &self.advise] {
            if !part.is_empty() {
                words.push('\n');
                words.push_str(part);
            }
        }
        words
    }
}

/// An incident that has something to say of a packet of the export.
struct Told {
    place: LinePlace,
    last_ns: u64,
    rule: u32,
    /// Bytes that its words take in a packet's block.
    words: usize,
}

/// An incident's wish for a packet of one flow.
struct Claim {
    flow: u64,
    incident: u32,
    best: Option<Best>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Best {
    ts: u64,
    packet_id: u64,
    raises: bool,
}

/// The flows of an export, as far as they are counted.
pub(super) struct Flows {
    known: HashSet<u64>,
    last: Option<u64>,
    /// There are more than are known.
    more: bool,
}

/// Flows told apart in one export.
pub(super) const FLOWS_LIMIT: usize = 1_000_000;

impl Flows {
    pub(super) fn new() -> Flows {
        Flows { known: HashSet::new(), last: None, more: false }
    }

    pub(super) fn see(&mut self, flow: u64) {
        if self.last == Some(flow) {
            return;
        }
        self.last = Some(flow);
        if self.known.len() < FLOWS_LIMIT {
            self.known.insert(flow);
        } else {
            self.more |= !self.known.contains(&flow);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.known.len() as u64
    }

    fn may_hold(&self, flow: u64) -> bool {
        self.more || self.known.contains(&flow)
    }
}

/// All verdicts of an export.
pub(super) struct Verdicts {
    files: IncidentFiles,
    rules: Vec<String>,
    incidents: Vec<Told>,
    claims: Vec<Claim>,
    /// After [`Verdicts::settle`]: time and packet id, and the incident; in the packets' order.
    settled: Vec<((u64, u64), u32)>,
}

impl Verdicts {
    /// Finds the incidents that name a flow of the export, each as last written.
    pub(super) fn find(store: &Store, flows: &Flows) -> Result<Verdicts, StoreError> {
        let mut found = Found::default();
        let files = store.incident_files()?;
        let mut lines = files.lines(&[]);
        while let Some(line) = lines.next_line()? {
            if let Some(parsed) = line.parse() {
                found.take(line.place, &parsed, flows);
            }
        }
        let mut kept: Vec<Entry> = found.by_id.into_values().collect();
        kept.sort_unstable_by_key(|entry| entry.first);
        let (mut incidents, mut claims) = (Vec::with_capacity(kept.len()), Vec::new());
        for entry in kept {
            let incident = u32::try_from(incidents.len()).unwrap_or(u32::MAX);
            let room = CLAIMS_LIMIT.saturating_sub(claims.len());
            claims.extend(entry.flows.iter().take(room).map(|&flow| Claim { flow, incident, best: None }));
            incidents.push(entry.told);
        }
        claims.sort_unstable_by_key(|claim| (claim.flow, claim.incident));
        Ok(Verdicts { files, rules: found.rules, incidents, claims, settled: Vec::new() })
    }

    /// Every packet of the export must come by, in order.
    pub(super) fn see(&mut self, block: &Finished<'_>) {
        let from = self.claims.partition_point(|claim| claim.flow < block.flow_id);
        let of_flow = self.claims.get_mut(from..).unwrap_or_default();
        for claim in of_flow.iter_mut().take_while(|claim| claim.flow == block.flow_id) {
            let Some(incident) = self.incidents.get(claim.incident as usize) else { continue };
            let rule = self.rules.get(incident.rule as usize).map_or("", String::as_str);
            let in_time = block.ts <= incident.last_ns;
            let raises = in_time && block.comments().any(|words| names_rule(words, rule));
            let better = claim.best.is_none_or(|best| in_time && (raises || !best.raises));
            if better {
                claim.best = Some(Best { ts: block.ts, packet_id: block.packet_id, raises });
            }
        }
    }

    /// After the last packet: decides where the words go.
    pub(super) fn settle(&mut self) {
        let best = |claim: &Claim| claim.best.map(|best| ((best.ts, best.packet_id), claim.incident));
        self.settled = std::mem::take(&mut self.claims).iter().filter_map(best).collect();
        self.settled.sort_unstable();
    }

    pub(super) fn count(&self) -> u64 {
        self.settled.len() as u64
    }

    /// Bytes that each verdict adds to the capture.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u64> {
        self.settled.iter().filter_map(|(_, nth)| Some(self.incidents.get(*nth as usize)?.words as u64))
    }

    /// The words for one packet; packets come in order, `next` counts on.
    pub(super) fn words(&self, packet: (u64, u64), next: &mut usize) -> io::Result<Vec<String>> {
        let mut words = Vec::new();
        while let Some((_, nth)) = self.settled.get(*next).filter(|(at, _)| *at == packet) {
            *next += 1;
            let Some(incident) = self.incidents.get(*nth as usize) else { continue };
            let line: Line = serde_json::from_slice(&self.files.read_again(incident.place)?)?;
            words.push(line.words());
        }
        Ok(words)
    }
}

struct Entry {
    told: Told,
    /// Of the first line that named a flow of the export.
    first: LinePlace,
    flows: Vec<u64>,
}

/// Incidents found so far.
#[derive(Default)]
struct Found {
    by_id: HashMap<String, Entry>,
    rules: Vec<String>,
    rule_numbers: HashMap<String, u32>,
}

impl Found {
    fn take(&mut self, place: LinePlace, line: &Line, flows: &Flows) {
        let named = line.flow_ids.iter().filter_map(|id| u64::from_str_radix(id, 16).ok());
        let mut named: Vec<u64> = named.filter(|&flow| flows.may_hold(flow)).collect();
        if named.is_empty() || (line.explain.is_empty() && line.advise.is_empty()) {
            // A later line replaces the earlier, also where it has less to say.
            self.by_id.remove(&line.id);
            return;
        }
        named.sort_unstable();
        named.dedup();
        let rule = self.rule(&line.rule);
        let told = Told { place, last_ns: line.last_ns, rule, words: pcapng::comment_bytes(&line.words()) };
        if let Some(entry) = self.by_id.get_mut(&line.id) {
            (entry.told, entry.flows) = (told, named);
            return;
        }
        if self.by_id.len() >= INCIDENTS_LIMIT {
            self.drop_oldest();
        }
        self.by_id.insert(line.id.clone(), Entry { told, first: place, flows: named });
    }

    fn rule(&mut self, name: &str) -> u32 {
        if let Some(number) = self.rule_numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
        self.rules.push(name.to_owned());
        self.rule_numbers.insert(name.to_owned(), number);
        number
    }

    /// Makes room: the older half goes.
    fn drop_oldest(&mut self) {
        let mut at: Vec<LinePlace> = self.by_id.values().map(|entry| entry.told.place).collect();
        let middle = at.len() / 2;
        let horizon = *at.select_nth_unstable(middle).1;
        self.by_id.retain(|_, entry| entry.told.place >= horizon);
    }
}

/// The comment lists rules, each with its event in brackets ("referee: half_open (keepalive), …"). An event may
/// have the name of another rule, so only the first word of each part counts.
fn names_rule(comment: &str, rule: &str) -> bool {
    let parts = comment.strip_prefix(RAISED).unwrap_or("").split([',', ';']);
    let mut names = parts.filter_map(|part| part.split_whitespace().next());
    names.any(|name| name == rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_named_by_a_whole_word() {
        assert!(names_rule("referee: rst", "rst"));
        assert!(names_rule("referee: a, rst (again)", "rst"));
        assert!(!names_rule("referee: rst_after_idle (rst)", "rst"));
        assert!(!names_rule("rst", "rst"));
        assert!(!names_rule("referee: ", ""));
    }

    #[test]
    fn the_newest_incidents_stay_when_there_are_too_many() {
        let flows = Flows { known: HashSet::from([1]), last: None, more: false };
        let mut found = Found::default();
        for number in 0..INCIDENTS_LIMIT as u64 + 10 {
            let line = Line {
                id: number.to_string(),
                rule: "r".into(),
                last_ns: 0,
                flow_ids: vec!["0000000000000001".into()],
                explain: "x".into(),
                advise: String::new(),
            };
            found.take(LinePlace { file: 0, at: number, len: 1 }, &line, &flows);
        }
        assert!(found.by_id.len() <= INCIDENTS_LIMIT && found.by_id.len() > INCIDENTS_LIMIT / 2);
        assert!(
            found.by_id.contains_key(&(INCIDENTS_LIMIT + 9).to_string()) && !found.by_id.contains_key("0")
        );
    }
}
