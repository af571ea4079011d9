//! What is switched by hand in a live run: a rule only looks on, or is left out. Stronger than files and settings, for as
//! long as the run goes on; at a reload it is laid over what was read.
//!
//! Control thread, which makes a set of it like any other.

use std::collections::BTreeMap;
use std::sync::Arc;

use rules::{LoadError, Override, RuleMeta, RuleSet, SourceFile};
use serde::{Deserialize, Serialize};

use super::Control;
use super::client::words;
use super::command::{Mistake, Reloaded};
use super::last_good::{mistake, mistakes};
use crate::config::Placed;
use crate::rules::load::Origin;

/// What can be switched of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    Shadow,
    Enabled,
}

impl Switch {
    const fn param(self) -> &'static str {
        match self {
            Switch::Shadow => "shadow",
            Switch::Enabled => "enabled",
        }
    }

    const fn of(self, meta: &RuleMeta) -> bool {
        match self {
            Switch::Shadow => meta.shadow,
            Switch::Enabled => meta.enabled,
        }
    }

    /// What comes after the rule's name.
    pub const fn words(self, on: bool) -> &'static str {
        match (self, on) {
            (Switch::Shadow, true) => "only looks on",
            (Switch::Shadow, false) => "does not only look on",
            (Switch::Enabled, true) => "is not left out",
            (Switch::Enabled, false) => "is left out",
        }
    }

    fn setting(self, rule: &str, on: bool) -> Placed {
        let set = Override { rule: rule.to_owned(), param: self.param().to_owned(), value: on.to_string() };
        Placed { place: format!("{rule}.{}, switched by hand", self.param()), set }
    }
}

/// One, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    pub rule: String,
    pub switch: Switch,
    pub on: bool,
    /// There is no such rule now.
    pub waits: bool,
}

/// What a set is made of.
pub struct Made {
    pub origin: Origin,
    pub files: Vec<SourceFile>,
}

impl Made {
    pub fn new(origin: &Origin, params: Vec<Placed>, files: Vec<SourceFile>) -> Made {
        Made { origin: Origin { params, ..origin.clone() }, files }
    }

    fn load(&self, previous: Option<&RuleSet>, more: Vec<Placed>) -> Result<Arc<RuleSet>, Vec<LoadError>> {
        let params = self.origin.params.iter().cloned().chain(more).collect();
        Origin { params, ..self.origin.clone() }.load(previous, &self.files)
    }
}

/// Those turned otherwise than files and settings have them.
#[derive(Clone, Debug, Default)]
pub struct Switches(BTreeMap<(String, Switch), bool>);

impl Switches {
    /// How they are, seen from a set.
    pub fn told(&self, rules: &RuleSet) -> Vec<Switched> {
        let told = |((rule, switch), on): (&(String, Switch), &bool)| Switched {
            rule: rule.clone(),
            switch: *switch,
            on: *on,
            waits: find(rules, rule).is_none(),
        };
        self.0.iter().map(told).collect()
    }

    /// The set that follows `previous`. A switch whose rule is not there waits until it is.
    ///
    /// # Errors
    /// All mistakes that are not of a switch's making.
    pub fn load(&self, made: &Made, previous: Option<&RuleSet>) -> Result<Arc<RuleSet>, Vec<LoadError>> {
        let mut settings: Vec<_> =
            self.0.iter().map(|((rule, switch), on)| switch.setting(rule, *on)).collect();
        made.load(previous, settings.clone()).or_else(|errors| {
            let is_switch = |error: &LoadError| settings.iter().any(|setting| setting.place == error.file);
            let (idle, others): (Vec<_>, Vec<_>) = errors.into_iter().partition(is_switch);
            if !others.is_empty() {
                return Err(others);
            }
            settings.retain(|setting| idle.iter().all(|error| error.file != setting.place));
            made.load(previous, settings)
        })
    }
}

fn find<'a>(rules: &'a RuleSet, rule: &str) -> Option<&'a RuleMeta> {
    rules.in_force().find(|(_, meta)| meta.name == rule).map(|(_, meta)| meta)
}

impl Control {
    /// Turns a rule's switch, in the set as it is in force: its files may be broken by now. Nothing is refused that would
    /// count as a reload.
    pub(super) fn switch(&mut self, rule: &str, switch: Switch, on: bool) -> Reloaded {
        match self.turn(rule, switch, on) {
            Ok((done, same)) => {
                if !same {
                    let how = switch.words(on);
                    self.say(format!("rules: {rule} {how} until this run ends: {}", words(&done)));
                }
                done
            }
            Err(errors) => Reloaded { errors, ..self.sets.described() },
        }
    }

    fn turn(&mut self, rule: &str, switch: Switch, on: bool) -> Result<(Reloaded, bool), Vec<Mistake>> {
        let current = self.sets.current();
        if find(&current, rule).is_none() {
            return Err(no_such(&self.made, rule, switch.setting(rule, on)));
        }
        // Turned back to what files and settings say, it is not switched any more.
        let mut switches = self.switches.clone();
        switches.0.remove(&(rule.to_owned(), switch));
        let is = |set: &RuleSet| find(set, rule).is_some_and(|meta| switch.of(meta) == on);
        let mut set = switches.load(&self.made, Some(&current)).map_err(mistakes)?;
        if !is(&set) {
            switches.0.insert((rule.to_owned(), switch), on);
            set = switches.load(&self.made, Some(&current)).map_err(mistakes)?;
        }
        if !is(&set) {
            let (file, param) = (find(&set, rule).map(|meta| meta.file.clone()), switch.param());
            let message = format!("`{rule}` can't be switched: `{param}` is a param of its file");
            let help = Some("give the param another name".to_owned());
            return Err(vec![Mistake { file: file.unwrap_or_default(), line: 0, column: 0, message, help }]);
        }
        let done =
            self.sets.replace(set, &self.stop).map_err(|failure| mistake(&self.made.origin, &failure))?;
        self.switches = switches;
        Ok(done)
    }
}

/// What is wrong with the name, in the words that are used for settings.
fn no_such(made: &Made, rule: &str, setting: Placed) -> Vec<Mistake> {
    let place = setting.place.clone();
    let errors = made.load(None, vec![setting]).err().unwrap_or_default();
    let mut mine: Vec<_> = errors.into_iter().filter(|error| error.file == place).collect();
    if mine.is_empty() {
        let help = Some("name one of its rules: `referee rules list --live` shows them".to_owned());
        let message = format!("`{rule}` is a rule file, not a rule");
        mine.push(LoadError { file: place, line: 0, column: 0, message, help });
    }
    mistakes(mine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(files: &[(&str, &str)]) -> Made {
        let file = |(name, text): &(&str, &str)| SourceFile { name: (*name).into(), text: (*text).into() };
        let origin = Origin { path: None, library: false, params: Vec::new() };
        Made::new(&origin, Vec::new(), files.iter().map(file).collect())
    }

    const RESET: &str = "rule \"reset\" on rst then { }";
    const OTHER: &str = "rule \"other\" on rst then { }";

    #[test]
    fn a_switch_is_laid_over_every_set_and_waits_for_its_rule() {
        let switches = Switches(BTreeMap::from([
            (("reset".to_owned(), Switch::Shadow), true),
            (("other".to_owned(), Switch::Enabled), false),
        ]));
        let both = switches.load(&made(&[("a.rhai", RESET), ("b.rhai", OTHER)]), None).unwrap();
        let [reset, other] = ["reset", "other"].map(|rule| find(&both, rule).unwrap());
        assert_eq!((reset.shadow, reset.enabled, other.shadow, other.enabled), (true, true, false, false));
        // One has gone: the other's switch holds.
        let one = switches.load(&made(&[("b.rhai", OTHER)]), Some(&both)).unwrap();
        assert!(!find(&one, "other").unwrap().enabled);
        let told: Vec<_> = switches.told(&one).into_iter().map(|one| (one.rule, one.waits)).collect();
        assert_eq!(told, [("other".to_owned(), false), ("reset".to_owned(), true)]);
        let back = switches.load(&made(&[("a.rhai", RESET)]), Some(&one)).unwrap();
        assert!(find(&back, "reset").unwrap().shadow);
        // A mistake is the file's, whatever was switched of what is in it.
        let errors =
            switches.load(&made(&[("a.rhai", "rule \"reset\" on rsd then { }")]), None).err().unwrap();
        assert_eq!(errors.iter().map(|error| error.file.as_str()).collect::<Vec<_>>(), ["a.rhai"]);
    }

    #[test]
    fn a_name_that_is_no_rules_is_told_with_the_nearest() {
        let made = made(&[("own.rhai", RESET)]);
        let wrong = |rule: &str| no_such(&made, rule, Switch::Shadow.setting(rule, true)).remove(0);
        let slip = wrong("rest");
        assert_eq!(slip.message, "there is no rule or rule file `rest`");
        assert_eq!(slip.help.as_deref(), Some("did you mean `reset`?"));
        assert_eq!(wrong("own").message, "`own` is a rule file, not a rule");
    }
}
