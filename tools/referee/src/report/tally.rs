//! What a run found, in the numbers and incidents that people are shown.
//!
//! Main thread, between two batches; bounded however much is found. `report` makes the words.

use std::collections::BTreeMap;

use dataplane::judge::Incident;
use dataplane::source::Nanos;
use rules::Severity;

/// Incidents told in words, at most: the most severe, then the earliest.
const TOLD: usize = 200;

/// Kinds counted apart, at most: the rules there can be, and a few native kinds.
const KINDS: usize = 8192;

#[derive(Default)]
pub struct Tally {
    incidents: Vec<Incident>,
    /// All of them, by severity from the least.
    pub by_severity: [u64; Severity::ALL.len()],
    /// Incidents that were told when they closed, and are not told again.
    pub told_before: u64,
    pub flows: u64,
    /// Per kind: flows it was found on, and how often in all.
    pub findings: BTreeMap<String, (u64, u64)>,
    /// Start of the earliest and end of the latest flow.
    pub span: Option<(Nanos, Nanos)>,
}

impl Tally {
    /// A flow that began and ended then, and what was found on it.
    pub fn flow(&mut self, (start, end): (Nanos, Nanos), findings: &BTreeMap<String, u64>) {
        self.flows += 1;
        let (first, last) = self.span.unwrap_or((start, end));
        self.span = Some((first.min(start), last.max(end)));
        for (kind, &count) in findings {
            if let Some((flows, total)) = self.findings.get_mut(kind) {
                *flows += 1;
                *total += count;
            } else if self.findings.len() < KINDS {
                self.findings.insert(kind.clone(), (1, count));
            }
        }
    }

    /// Counts an incident that has been told already.
    pub fn told_already(&mut self, incident: &Incident) {
        self.by_severity[incident.severity as usize] += 1;
        self.told_before += 1;
    }

    pub fn incident(&mut self, incident: Incident) {
        self.by_severity[incident.severity as usize] += 1;
        self.incidents.push(incident);
        if self.incidents.len() > 2 * TOLD {
            self.rank();
        }
    }

    fn rank(&mut self) {
        self.incidents.sort_by(|a, b| {
            let worse_first = b.severity.cmp(&a.severity);
            worse_first.then(a.first_ns.cmp(&b.first_ns)).then_with(|| a.id.cmp(&b.id))
        });
        self.incidents.truncate(TOLD);
    }

    /// The incidents to tell of, worst first.
    pub fn told(&mut self) -> &[Incident] {
        self.rank();
        &self.incidents
    }
}
