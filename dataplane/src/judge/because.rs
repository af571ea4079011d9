//! Why a rule fired, as incidents tell it: the operands of its condition, with what they saw at that moment. Judge's
//! thread; plain conversion of what the rule set has read, which bounds it.

use std::sync::Arc;

use rules::{Because, EvidenceValue};
use serde_json::{Map, Value, json};

use super::evidence::{known, plain};

/// `[{"if": operand, "facts": {…}, "params": {…}}]`, in the order they are written.
pub fn to_json(because: &[Because]) -> Vec<Value> {
    because.iter().map(clause).collect()
}

fn clause(because: &Because) -> Value {
    let mut object = Map::new();
    object.insert("if".to_owned(), json!(&*because.clause));
    object.insert("facts".to_owned(), values(&because.facts));
    if !because.params.is_empty() {
        object.insert("params".to_owned(), values(&because.params));
    }
    object.into()
}

/// A fact's or parameter's value; null if it is not known.
pub fn value(of: &EvidenceValue) -> Value {
    plain(&known(of))
}

fn values(named: &[(Arc<str>, EvidenceValue)]) -> Value {
    let values = named.iter().map(|(name, value)| (String::from(&**name), self::value(value)));
    values.collect::<Map<String, Value>>().into()
}
