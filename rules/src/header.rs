//! What a rule's header says beside its events, and the switches that are set from outside: severity, shadow, sample,
//! enabled. At load time; goes into [`RuleMeta`](crate::set::RuleMeta).

use rhai::Position;

use crate::event::{Event, EventSet};
use crate::language::syntax::{HeaderWord, Name, Refusal, RuleItem};
use crate::set::Override;
use crate::verdict::Severity;

/// One flow in so many is judged, at most.
const MAX_SAMPLE: i64 = 1_000_000;

/// Set with `[rules.NAME] shadow = …, enabled = …` or `--set`; what is not set is as the file says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Switches {
    shadow: Option<bool>,
    enabled: Option<bool>,
}

impl Switches {
    /// Whether `param` is the name of one.
    pub(crate) fn knows(param: &str) -> bool {
        ["shadow", "enabled"].contains(&param)
    }

    /// # Errors
    /// What is wrong, and what to write instead.
    pub(crate) fn set(&mut self, set: &Override) -> Result<(), (String, String)> {
        let Override { rule, param, value } = set;
        let yes = value.parse().map_err(|_| {
            (format!("`{rule}.{param}` is a bool; `{value}` is not"), "give true or false".to_owned())
        })?;
        match param.as_str() {
            "shadow" => self.shadow = Some(yes),
            _ => self.enabled = Some(yes),
        }
        Ok(())
    }

    /// What goes into the set's hash; nothing if nothing is set.
    pub(crate) fn text(&self, rule: &str) -> String {
        match (self.shadow, self.enabled) {
            (None, None) => String::new(),
            (shadow, enabled) => format!("{rule}: {shadow:?} {enabled:?}\n"),
        }
    }
}

/// The severity of this name.
pub(crate) fn severity(text: &str, at: Position) -> Result<Severity, Refusal> {
    let refusal = || {
        let help = "use \"info\", \"warning\" or \"critical\"";
        Refusal::new(at, format!("there is no severity \"{text}\""), help)
    };
    Severity::from_name(text).ok_or_else(refusal)
}

/// A rule's header, read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) severity: Option<Severity>,
    pub(crate) shadow: bool,
    /// One flow in so many.
    pub(crate) sample: u64,
    pub(crate) enabled: bool,
}

impl Header {
    pub(crate) fn of(rule: &RuleItem, events: EventSet, refusals: &mut Vec<Refusal>) -> Header {
        let Switches { shadow, enabled } = rule.switches;
        let mut header =
            Header { severity: None, shadow: false, sample: 1, enabled: enabled.unwrap_or(true) };
        let (mut shadowed, mut sampled) = (false, false);
        for word in &rule.header {
            let (again, at, what) = match word {
                HeaderWord::Severity(Name { at, .. }) => (header.severity.is_some(), *at, "severity"),
                HeaderWord::Shadow => (shadowed, rule.name.at, "shadow"),
                HeaderWord::Sample(_, at) => (sampled, *at, "sample"),
            };
            if again {
                refusals.push(Refusal::new(at, format!("`{what}` is said twice"), "remove one"));
            }
            match word {
                HeaderWord::Severity(Name { text, at }) => {
                    header.severity = severity(text, *at).map_err(|refusal| refusals.push(refusal)).ok();
                }
                HeaderWord::Shadow => shadowed = true,
                HeaderWord::Sample(n, at) => {
                    sampled = true;
                    header.sample = n.unsigned_abs();
                    refusals
                        .extend(refused_sample(*n, events).map(|(what, help)| Refusal::new(*at, what, help)));
                }
            }
        }
        header.shadow = shadow.unwrap_or(shadowed);
        header
    }
}

fn refused_sample(n: i64, events: EventSet) -> Option<(&'static str, &'static str)> {
    if events.contains(Event::Tick) {
        return Some(("`sample` takes flows; a tick has none", "remove it"));
    }
    let fits = (1..=MAX_SAMPLE).contains(&n);
    (!fits).then_some(("one flow in how many? From 1 to 1,000,000", "for example `sample 100`"))
}
