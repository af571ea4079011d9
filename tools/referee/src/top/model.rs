//! What `referee top` knows of a box: what its API said last, in the order it is shown, and where the reader is.
//!
//! Main thread; plain values. `feed` brings them, `keys` move, `view` draws.

use serde_json::Value;

/// Seconds that curves show at most.
pub const SECONDS: usize = 300;
/// Seconds that a latency may be old.
const LATELY: usize = 10;

/// A page of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    Now,
    Traffic,
    Rules,
    Books,
}

impl Tab {
    pub const ALL: [Tab; 4] = [Tab::Now, Tab::Traffic, Tab::Rules, Tab::Books];

    pub const fn name(self) -> &'static str {
        match self {
            Tab::Now => "Now",
            Tab::Traffic => "Traffic",
            Tab::Rules => "Rules",
            Tab::Books => "Books",
        }
    }
}

/// One round of questions.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub version: Value,
    pub health: Value,
    /// Samples of the last minutes, a second each.
    pub series: Vec<Value>,
    /// Open incidents.
    pub incidents: Vec<Value>,
    pub rules: Vec<Value>,
    pub books: Value,
}

/// What is shown, and where the reader is.
#[derive(Debug)]
pub struct Model {
    pub told: Told,
    /// Why nothing new comes; `None` while the box answers.
    pub silent: Option<String>,
    /// Something came at least once.
    pub known: bool,
    pub tab: Tab,
    /// Which line of the tab's list.
    pub at: usize,
    /// The chosen line is shown whole.
    pub open: bool,
    pub help: bool,
    /// What came of the last thing that was asked for.
    pub said: String,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            told: Told::default(),
            silent: None,
            known: false,
            tab: Tab::Now,
            at: 0,
            open: false,
            help: false,
            said: String::new(),
        }
    }
}

impl Model {
    /// The box has answered.
    pub fn take(&mut self, mut told: Told) {
        let rank = |incident: &Value| match text(incident, "severity") {
            "critical" => 0,
            "warning" => 1,
            _ => 2,
        };
        told.incidents.sort_by_key(|one| (rank(one), std::cmp::Reverse(number(one, "first_ns"))));
        let cost = |rule: &Value| {
            let body = rule["body_us"].as_f64().unwrap_or(0.0) * number(rule, "body_runs") as f64;
            (body, number(rule, "matched") as f64)
        };
        told.rules.sort_by(|a, b| cost(b).partial_cmp(&cost(a)).unwrap_or(std::cmp::Ordering::Equal));
        let skip = told.series.len().saturating_sub(SECONDS);
        told.series.drain(..skip);
        let chosen = self.incident().map(|one| ("id", one)).or(self.rule().map(|one| ("rule", one)));
        let chosen = chosen.map(|(name, one)| (name, text(one, name).to_owned()));
        (self.told, self.silent, self.known) = (told, None, true);
        self.at = self.at.min(self.lines().saturating_sub(1));
        if let Some((name, chosen)) = chosen {
            self.stay_at(name, &chosen);
        }
        self.open &= self.lines() > 0;
    }

    /// What comes and goes above the chosen line moves it. What is gone was closed: its page does not show another.
    fn stay_at(&mut self, name: &str, chosen: &str) {
        let list = if self.tab == Tab::Now { &self.told.incidents } else { &self.told.rules };
        match list.iter().position(|one| text(one, name) == chosen) {
            Some(at) => self.at = at,
            None => self.open = false,
        }
    }

    pub fn lost(&mut self, why: String) {
        self.silent = Some(why);
    }

    /// Lines of the tab's list.
    pub fn lines(&self) -> usize {
        match self.tab {
            Tab::Now => self.told.incidents.len(),
            Tab::Rules => self.told.rules.len(),
            Tab::Traffic | Tab::Books => 0,
        }
    }

    pub fn incident(&self) -> Option<&Value> {
        self.told.incidents.get(self.at).filter(|_| self.tab == Tab::Now)
    }

    pub fn rule(&self) -> Option<&Value> {
        self.told.rules.get(self.at).filter(|_| self.tab == Tab::Rules)
    }

    pub fn turn_to(&mut self, tab: Tab) {
        (self.tab, self.at, self.open) = (tab, 0, false);
    }

    pub fn turn(&mut self, by: usize) {
        let now = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        if let Some(tab) = Tab::ALL.get((now + by) % Tab::ALL.len()) {
            self.turn_to(*tab);
        }
    }

    pub fn up(&mut self, by: usize) {
        self.at = self.at.saturating_sub(by);
    }

    pub fn down(&mut self, by: usize) {
        self.at = (self.at + by).min(self.lines().saturating_sub(1));
    }

    /// A figure of every second, oldest first.
    pub fn curve(&self, name: &str) -> Vec<u64> {
        self.told.series.iter().map(|sample| number(sample, name)).collect()
    }

    /// What half and 95 % took at most, µs, in the newest of the last seconds in which something was measured.
    pub fn latency(&self, name: &str) -> Option<(u64, u64)> {
        let newest = self.told.series.iter().rev().take(LATELY).map(|sample| &sample["latency"][name]);
        newest
            .filter(|spread| spread.is_object())
            .map(|of| (number(of, "p50_us"), number(of, "p95_us")))
            .next()
    }

    /// The figure of the last second.
    pub fn last(&self, name: &str) -> u64 {
        self.told.series.last().map_or(0, |sample| number(sample, name))
    }
}

/// A number of an object, 0 if it has none.
pub fn number(object: &Value, name: &str) -> u64 {
    let value = &object[name];
    value.as_u64().or_else(|| value.as_f64().map(|value| value.max(0.0) as u64)).unwrap_or(0)
}

/// A text of an object, empty if it has none.
pub fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_worst_and_newest_come_first_and_the_reader_stays_within() {
        let mut model = Model::default();
        let one =
            |id: &str, severity: &str, at: u64| json!({ "id": id, "severity": severity, "first_ns": at });
        let incidents = vec![
            one("a", "info", 9),
            one("b", "critical", 1),
            one("c", "warning", 2),
            one("d", "warning", 3),
        ];
        model.take(Told { incidents, ..Told::default() });
        let ids: Vec<_> = model.told.incidents.iter().map(|one| text(one, "id")).collect();
        assert_eq!(ids, ["b", "d", "c", "a"]);
        model.down(9);
        model.open = true;
        assert_eq!(model.incident().map(|one| text(one, "id")), Some("a"));
        model.take(Told { incidents: vec![one("b", "critical", 1)], ..Told::default() });
        assert_eq!((model.at, model.open), (0, false), "it has closed, and another is not what was opened");
        model.take(Told::default());
        assert!(!model.open && model.incident().is_none() && model.known);
    }

    #[test]
    fn the_chosen_incident_stays_chosen_whatever_comes_above_it() {
        let mut model = Model::default();
        let told = |ids: &[&str]| {
            let first = |at| u64::try_from(100 - at).unwrap_or(0);
            let one =
                |(at, id): (usize, &&str)| json!({ "id": id, "severity": "warning", "first_ns": first(at) });
            Told { incidents: ids.iter().enumerate().map(one).collect(), ..Told::default() }
        };
        model.take(told(&["b", "c"]));
        model.down(1);
        model.take(told(&["x", "a", "b", "c"]));
        assert_eq!((model.at, model.incident().map(|one| text(one, "id"))), (3, Some("c")));
        model.open = true;
        model.take(told(&["c", "d"]));
        assert_eq!((model.at, model.open), (0, true));
    }

    #[test]
    fn tabs_go_round_and_curves_have_an_end() {
        let mut model = Model::default();
        let tabs: Vec<_> = (0..4)
            .map(|_| {
                model.turn(1);
                model.tab.name()
            })
            .collect();
        assert_eq!(tabs, ["Traffic", "Rules", "Books", "Now"]);
        model.turn(3);
        assert_eq!(model.tab, Tab::Books);
        let series = (0..1000).map(|n| json!({ "packets": n, "history_s": 9.7 })).collect();
        model.take(Told { series, ..Told::default() });
        assert_eq!((model.curve("packets").len(), model.last("packets")), (SECONDS, 999));
        assert_eq!((model.last("history_s"), model.last("none")), (9, 0));
        let dns = |n: u64| if n == 12 { json!({ "p50_us": 840, "p95_us": 1900 }) } else { Value::Null };
        let sample = |n: u64| json!({ "latency": { "dns_answer": dns(n) } });
        model.take(Told { series: (0..20).map(sample).collect(), ..Told::default() });
        assert_eq!((model.latency("dns_answer"), model.latency("connect")), (Some((840, 1900)), None));
        model.take(Told { series: (0..30).map(sample).collect(), ..Told::default() });
        assert_eq!(model.latency("dns_answer"), None, "too old");
    }
}
