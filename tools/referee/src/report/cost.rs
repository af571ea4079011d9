//! What each rule has done and cost so far, for people, as JSON and as metrics: how often its condition held or faulted,
//! what the sampled ones took, and how its body's runs went. Whoever reports; only words of numbers that others counted.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use rules::RuleSet;
use serde::{Deserialize, Serialize};

use super::metrics::Text;

/// Rules that metrics name at most.
const SHOWN: usize = 1000;
/// So many times a condition has to have been timed for their mean to say something.
const FEWEST: u64 = 32;
/// Before that much time has passed the counter's rate is not known well.
const SETTLED: Duration = Duration::from_millis(50);

/// How long a tick of the processor's counter takes, measured from its making on.
#[derive(Clone, Copy, Debug)]
pub struct Ticking {
    begun: Instant,
    ticks: u64,
    /// Ticks between two looks with nothing in between.
    look: u64,
}

impl Ticking {
    pub fn begun() -> Ticking {
        let look = || {
            let ticks = dataplane_sys::ticks();
            dataplane_sys::ticks().saturating_sub(ticks)
        };
        let look = (0..64).map(|_| look()).min().unwrap_or(0);
        Ticking { begun: Instant::now(), ticks: dataplane_sys::ticks(), look }
    }

    fn ns_per_tick(&self) -> Option<f64> {
        let (passed, ticks) = (self.begun.elapsed(), dataplane_sys::ticks().saturating_sub(self.ticks));
        (passed >= SETTLED && ticks > 0).then(|| passed.as_nanos() as f64 / ticks as f64)
    }
}

/// One rule, as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleStanding {
    pub rule: String,
    pub scope: String,
    /// Not left out by its settings.
    pub enabled: bool,
    /// It only looks on.
    pub shadow: bool,
    /// Its body kept failing: it matches nothing any more.
    pub switched_off: bool,
    /// How often its condition held, and overflowed or divided by zero.
    pub matched: u64,
    pub faults: u64,
    /// Mean of the sampled times its condition was asked, the gathering of what it was first to read included, ns;
    /// `None` below 32 samples.
    pub guard_ns: Option<f64>,
    pub guard_samples: u64,
    /// Runs of its body, their mean and the longest, µs; `None` if they are not timed.
    pub body_runs: u64,
    pub body_us: Option<f64>,
    pub body_us_most: Option<f64>,
    /// Runs that failed, and that were stopped at their deadline.
    pub errors: u64,
    pub overruns: u64,
}

/// Every rule in force, by number.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Standings(pub Vec<RuleStanding>);

pub fn standing(rules: &RuleSet, ticking: Option<&Ticking>) -> Standings {
    let rate = ticking.and_then(|ticking| Some((ticking.look, ticking.ns_per_tick()?)));
    let of = |(number, meta): (u16, &rules::RuleMeta)| {
        let counters = rules.counters(number)?;
        let cost = counters.cost();
        let guard_ns = rate.filter(|_| cost.samples >= FEWEST).map(|(look, ns_per_tick)| {
            let ticks = cost.ticks.saturating_sub(look.saturating_mul(cost.samples));
            ticks as f64 / cost.samples as f64 * ns_per_tick
        });
        let timed = cost.run_ns > 0;
        Some(RuleStanding {
            rule: meta.name.clone(),
            scope: meta.scope.as_str().to_owned(),
            enabled: meta.enabled,
            shadow: meta.shadow,
            switched_off: rules.is_off(number),
            matched: counters.matched(),
            faults: counters.faults(),
            guard_ns,
            guard_samples: cost.samples,
            body_runs: cost.runs,
            body_us: timed.then(|| cost.run_ns as f64 / cost.runs.max(1) as f64 / 1000.0),
            body_us_most: timed.then(|| cost.run_ns_most as f64 / 1000.0),
            errors: cost.errors,
            overruns: cost.overruns,
        })
    };
    Standings(rules.in_force().filter_map(of).collect())
}

impl RuleStanding {
    fn state(&self) -> &'static str {
        match self {
            RuleStanding { enabled: false, .. } => "left out",
            RuleStanding { switched_off: true, .. } => "switched off",
            RuleStanding { shadow: true, .. } => "in shadow",
            _ => "",
        }
    }
}

impl Display for Standings {
    /// For people: the rules that cost most first.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&RuleStanding> = self.0.iter().collect();
        let cost =
            |s: &RuleStanding| (s.body_us.unwrap_or(0.0) * s.body_runs as f64, s.guard_ns.unwrap_or(0.0));
        sorted.sort_by(|a, b| cost(b).partial_cmp(&cost(a)).unwrap_or(std::cmp::Ordering::Equal));
        writeln!(
            f,
            "{:<32} {:<8} {:>10} {:>7} {:>9} {:>10} {:>9} {:>10} {:>7} {:>8}  state",
            "rule",
            "scope",
            "matched",
            "faults",
            "guard ns",
            "body runs",
            "body µs",
            "longest µs",
            "errors",
            "overruns"
        )?;
        let known = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        for s in sorted {
            let (guard, body, most) = (known(s.guard_ns), known(s.body_us), known(s.body_us_most));
            let line = format!(
                "{:<32} {:<8} {:>10} {:>7} {guard:>9} {:>10} {body:>9} {most:>10} {:>7} {:>8}  {}",
                s.rule,
                s.scope,
                s.matched,
                s.faults,
                s.body_runs,
                s.errors,
                s.overruns,
                s.state()
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A family's name, what it says, and its value of a rule; `None` if there is nothing to say.
type Family = (&'static str, &'static str, fn(&RuleStanding) -> Option<f64>);

fn some(count: u64) -> Option<f64> {
    (count > 0).then_some(count as f64)
}

const COUNTERS: [Family; 6] = [
    ("referee_rule_runs_total", "Runs of a rule's body.", |s| some(s.body_runs)),
    ("referee_rule_failures_total", "Of these, runs that failed.", |s| some(s.errors)),
    ("referee_rule_overruns_total", "Runs that used up their operations, memory or time.", |s| {
        some(s.overruns)
    }),
    ("referee_rule_body_seconds_total", "Time in a rule's body, while it is looked at.", |s| {
        s.body_us.map(|us| us * s.body_runs as f64 / 1e6)
    }),
    (
        "referee_rule_guard_samples_total",
        "How often a rule's condition was timed, of 1,024 times once.",
        |s| s.guard_ns.and(some(s.guard_samples)),
    ),
    ("referee_rule_guard_sampled_seconds_total", "What a rule's condition took at those times.", |s| {
        s.guard_ns.map(|ns| ns * s.guard_samples as f64 / 1e9)
    }),
];
const GAUGES: [Family; 3] = [
    (
        "referee_rule_guard_seconds",
        "Mean time of a rule's condition, of one raise in 1,024, while that is looked at.",
        |s| s.guard_ns.map(|ns| ns / 1e9),
    ),
    ("referee_rule_body_longest_seconds", "The longest run of a rule's body.", |s| {
        s.body_us_most.map(|us| us / 1e6)
    }),
    ("referee_rule_in_shadow", "1 for a rule that only looks on.", |s| s.shadow.then_some(1.0)),
];

/// Families of rules that have something to tell.
pub(super) fn show(page: &mut Text, Standings(standing): &Standings) {
    for (name, help, path, value) in HELD {
        let told: Vec<_> = standing.iter().filter(|s| value(s) > 0).take(SHOWN).collect();
        if !told.is_empty() {
            page.counter(name, help);
        }
        for s in told {
            page.account(&format!("rules.by_rule.{}.{path}", s.rule), &[("rule", &s.rule)], value(s));
        }
    }
    let mut family = |(name, help, value): Family, counter: bool| {
        let told: Vec<_> = standing.iter().filter_map(|s| Some((&s.rule, value(s)?))).take(SHOWN).collect();
        if told.is_empty() {
            return;
        }
        if counter {
            page.counter(name, help)
        } else {
            page.gauge(name, help)
        };
        told.into_iter().for_each(|(rule, value)| page.labelled(&[("rule", rule)], value));
    };
    COUNTERS.into_iter().for_each(|one| family(one, true));
    GAUGES.into_iter().for_each(|one| family(one, false));
}

/// What the ledger has of each rule: a family's name, what it says, the account's name, and its value.
type Held = (&'static str, &'static str, &'static str, fn(&RuleStanding) -> u64);

const HELD: [Held; 2] = [
    ("referee_rule_matches_total", "How often a rule's condition held.", "matched", |s| s.matched),
    (
        "referee_rule_faults_total",
        "How often a rule's condition overflowed or divided by zero.",
        "faults",
        |s| s.faults,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> RuleSet {
        let text = "rule \"a\" on rst then { }\nrule \"b\" on tick when host.rsts(1) > 0 then { }";
        let source = rules::SourceFile { name: "t.rhai".to_owned(), text: text.to_owned() };
        RuleSet::load(&[source], &[]).expect("it loads")
    }

    #[test]
    fn what_a_rule_did_is_told_and_what_nobody_looked_at_is_not() {
        let rules = set();
        let counters = rules.counters(0).expect("a rule");
        counters.count_match();
        counters.count_run(Some(Duration::from_micros(30)));
        counters.count_run(Some(Duration::from_micros(10)));
        counters.count_failure(true);
        let (mut hits, mut facts) = (rules::Hits::new(), rules::facts::FlowFacts::default());
        let mut ask = || {
            rules.match_flow_timed(rules::Event::Rst, &mut facts, &mut hits, |_, _| {}, dataplane_sys::ticks);
        };
        (1..FEWEST).for_each(|_| ask());
        let begun = || Ticking { begun: Instant::now() - SETTLED, ..Ticking::begun() };
        assert_eq!(standing(&rules, Some(&begun())).0[0].guard_ns, None, "one slow one would be all of it");
        ask();
        let ticking = begun();
        let standing = standing(&rules, Some(&ticking));
        let [a, b] = standing.0.as_slice() else { panic!("{standing:?}") };
        assert_eq!((a.matched, a.body_runs, a.overruns, a.errors, a.guard_samples), (1, 2, 1, 0, FEWEST));
        assert_eq!((a.body_us, a.body_us_most), (Some(20.0), Some(30.0)));
        assert!(a.guard_ns.is_some());
        assert_eq!((b.guard_ns, b.body_us, b.scope.as_str()), (None, None, "host"));
        assert_eq!((b.state(), b.enabled, b.switched_off), ("", true, false));
        assert_eq!(RuleStanding { shadow: true, ..b.clone() }.state(), "in shadow");
        assert_eq!(RuleStanding { shadow: true, switched_off: true, ..b.clone() }.state(), "switched off");
        assert_eq!(RuleStanding { enabled: false, shadow: true, ..b.clone() }.state(), "left out");
        let mut page = Text::default();
        show(&mut page, &standing);
        let page = page.into_text();
        assert!(page.contains("referee_rule_matches_total{rule=\"a\"} 1\n"), "{page}");
        assert!(page.contains("# TYPE referee_rule_body_seconds_total counter"), "{page}");
        assert!(!page.contains("rule=\"b\"") && !page.contains("failures"), "{page}");
        assert!(standing.to_string().lines().nth(1).is_some_and(|line| line.starts_with("a ")));
    }

    #[test]
    fn a_rate_is_told_when_it_is_known() {
        assert_eq!(Ticking::begun().ns_per_tick(), None);
        assert!(super::standing(&set(), None).0.iter().all(|s| s.guard_ns.is_none()));
    }
}
