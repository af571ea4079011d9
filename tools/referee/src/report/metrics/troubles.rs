//! Incidents by kind and severity: how many were told, and how many of them are open. Main's desk counts them as they
//! come; the metrics show them. Kinds are bounded, as rules of the operator's may have any.

use std::collections::{BTreeMap, HashMap};

use dataplane::judge::Incident;

use super::text::Text;

/// Kinds counted by their names; further ones are counted together.
const KINDS: usize = 200;
const OTHER: &str = "other";

/// Open incidents known, at most.
const OPEN: usize = 1 << 16;

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    all: u64,
    open: u64,
}

type Named = (String, &'static str);

#[derive(Clone, Debug, Default)]
pub struct Troubles {
    /// By kind and severity.
    told: BTreeMap<Named, Told>,
    /// By id, as what an open one was counted: what is known of it may change until it closes.
    open: HashMap<String, Named>,
}

impl Troubles {
    /// As they are shown, without what it takes to count on.
    pub fn shown(&self) -> Troubles {
        Troubles { told: self.told.clone(), open: HashMap::new() }
    }

    pub fn opened(&mut self, incident: &Incident) {
        let (named, told) = self.of(incident);
        told.all += 1;
        if self.open.len() < OPEN && self.open.insert(incident.id.clone(), named.clone()).is_none() {
            self.told.entry(named).or_default().open += 1;
        }
    }

    /// Closed or taken back; it may never have been told of as open.
    pub fn over(&mut self, incident: &Incident) {
        match self.open.remove(&incident.id) {
            Some(named) => self.told.entry(named).or_default().open -= 1,
            None => self.of(incident).1.all += 1,
        }
    }

    fn of(&mut self, incident: &Incident) -> (Named, &mut Told) {
        let severity = incident.severity.as_str();
        let named = (incident.kind.clone(), severity);
        let known = self.told.len() < KINDS || self.told.contains_key(&named);
        let named = if known { named } else { (OTHER.to_owned(), severity) };
        (named.clone(), self.told.entry(named).or_default())
    }

    pub(super) fn show(&self, page: &mut Text) {
        if self.told.is_empty() {
            return;
        }
        page.counter("referee_incidents_total", "Incidents told of, by kind and severity.");
        for ((kind, severity), told) in &self.told {
            page.labelled(&[("kind", kind), ("severity", severity)], told.all);
        }
        page.gauge("referee_incidents_open", "Of these, those that are open.");
        for ((kind, severity), told) in &self.told {
            page.labelled(&[("kind", kind), ("severity", severity)], told.open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::metrics::tests::incident;

    #[test]
    fn open_are_those_that_are_not_over() {
        let mut troubles = Troubles::default();
        let mut page = Text::default();
        troubles.show(&mut page);
        assert_eq!(page.into_text(), "");
        let with_id = |kind: &str, id: &str| Incident { id: id.to_owned(), ..incident(kind) };
        troubles.opened(&with_id("rst_after_idle", "1"));
        troubles.opened(&with_id("rst_after_idle", "2"));
        troubles.over(&with_id("rst_injected", "1"));
        troubles.over(&with_id("unseen", "3"));
        (0..2 * KINDS).for_each(|n| troubles.opened(&with_id(&format!("own_{n:03}"), &format!("4{n}"))));
        let mut page = Text::default();
        troubles.show(&mut page);
        let page = page.into_text();
        for line in [
            "referee_incidents_total{kind=\"rst_after_idle\",severity=\"warning\"} 2\n",
            "referee_incidents_open{kind=\"rst_after_idle\",severity=\"warning\"} 1\n",
            "referee_incidents_open{kind=\"unseen\",severity=\"warning\"} 0\n",
            "referee_incidents_total{kind=\"other\",severity=\"warning\"} 202\n",
        ] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
        assert_eq!(
            page.lines().filter(|line| line.starts_with("referee_incidents_open{")).count(),
            KINDS + 1
        );
    }
}
