//! What a rule keeps from one run of its body to the next: `state["name"]`, and what it counts. On the judge's thread, by
//! the rule's name; small, and as it was before if a run fails.

use std::collections::BTreeMap;

use rhai::{Dynamic, Engine, EvalAltResult, FuncRegistration, ImmutableString};

use crate::body::engine::Stage;

/// Names in one rule's state, and counters of one rule, at most.
const NAMES: usize = 64;
const COUNTERS: usize = 16;
/// Bytes of one rule's state: names, texts, and 16 for each value.
const BYTES: usize = 8_192;
const NAME_BYTES: usize = 64;

/// One rule's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    state: BTreeMap<ImmutableString, Dynamic>,
    bytes: usize,
    pub(crate) counts: BTreeMap<String, u64>,
}

type Done = Result<(), Box<EvalAltResult>>;

impl Memory {
    pub(crate) fn is_empty(&self) -> bool {
        self.state.is_empty() && self.counts.is_empty()
    }

    fn get(&self, name: &str) -> Dynamic {
        self.state.get(name).cloned().unwrap_or(Dynamic::UNIT)
    }

    fn set(&mut self, name: ImmutableString, value: Dynamic) -> Done {
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(format!("a name in state has 1 to {NAME_BYTES} bytes").into());
        }
        let old = self.state.remove(&name).map_or(0, |old| name.len() + cost(&old));
        self.bytes -= old;
        if value.is_unit() {
            return Ok(());
        }
        let kept = value.is_int() || value.is_float() || value.is_bool() || value.is_string();
        if !kept {
            return Err(format!("state keeps numbers, bools and texts, not {}", value.type_name()).into());
        }
        if self.state.len() == NAMES {
            return Err(format!("state holds more than {NAMES} names").into());
        }
        self.bytes += name.len() + cost(&value);
        if self.bytes > BYTES {
            return Err(format!("state holds more than {BYTES} bytes").into());
        }
        self.state.insert(name, value);
        Ok(())
    }

    fn count(&mut self, name: &str, more: i64) -> Done {
        let more =
            u64::try_from(more).map_err(|_| format!("count(\"{name}\", {more}): a counter only rises"))?;
        if let Some(count) = self.counts.get_mut(name) {
            *count = count.saturating_add(more);
            return Ok(());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(plain) {
            return Err(format!("a counter's name is of 1 to {NAME_BYTES} letters, digits and `_`").into());
        }
        if self.counts.len() == COUNTERS {
            return Err(format!("a rule has at most {COUNTERS} counters").into());
        }
        self.counts.insert(name.to_owned(), more);
        Ok(())
    }
}

fn cost(value: &Dynamic) -> usize {
    16 + value.as_immutable_string_ref().map_or(0, |text| text.len())
}

/// What `state` is in a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State;

pub(crate) fn register(engine: &mut Engine, stage: &Stage) {
    engine.register_type_with_name::<State>("state");
    let at = stage.clone();
    engine.register_indexer_get(move |_: &mut State, name: ImmutableString| at.memory(|m| m.get(&name)));
    let at = stage.clone();
    // Pure, as the engine has it: what changes is not the value that the body holds.
    FuncRegistration::new_index_setter()
        .with_purity(true)
        .register_into_engine(engine, move |_: &mut State, name: ImmutableString, value: Dynamic| {
            at.change(|m| m.set(name, value))
        });
    let at = stage.clone();
    engine.register_fn("contains", move |_: State, name: ImmutableString| {
        at.memory(|m| m.state.contains_key(&name))
    });
    let at = stage.clone();
    engine.register_fn("count", move |name: ImmutableString| at.change(|m| m.count(&name, 1)));
    let at = stage.clone();
    engine.register_fn("count", move |name: ImmutableString, more: i64| at.change(|m| m.count(&name, more)));
}
