//! The evidence of an incident, merged over its flows without hiding that they differ. Runs on the judge's
//! thread; bounded in keys and values. Goes into the incident's `evidence` object.
//!
//! A value all flows share stays plain; numbers that differ become `{"min":…,"max":…}`; other values that
//! differ become `{"values":[…]}`, with `"more":true` if there were too many to list.

use rules::{EvidenceValue, Verdict};
use serde_json::{Map, Value, json};

/// Names kept of one incident.
const KEYS: usize = 64;
/// Differing values listed under one name.
const VALUES: usize = 8;

#[derive(Clone, Debug)]
pub struct Evidence {
    fields: Vec<(String, Field)>,
    /// What the judge itself adds, after the body's own.
    notes: Vec<(&'static str, Value)>,
    tags: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Same(EvidenceValue),
    Span(EvidenceValue, EvidenceValue),
    Several(Vec<EvidenceValue>, bool),
}

impl Evidence {
    pub fn new(given: &[(String, EvidenceValue)]) -> Evidence {
        let fields = given.iter().take(KEYS).map(|(k, v)| (k.clone(), Field::Same(known(v)))).collect();
        Evidence { fields, notes: Vec::new(), tags: Vec::new() }
    }

    /// What a body left beside its words.
    pub fn of(verdict: &Verdict) -> Evidence {
        Evidence { tags: verdict.tags.clone(), ..Evidence::new(&verdict.evidence) }
    }

    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    pub fn merge(&mut self, other: &Evidence) {
        for (name, theirs) in &other.fields {
            match self.fields.iter().position(|(n, _)| n == name) {
                Some(at) => self.fields[at].1.merge(theirs),
                None if self.fields.len() < KEYS => self.fields.push((name.clone(), theirs.clone())),
                None => {}
            }
        }
        let new = other.tags.iter().filter(|tag| !self.tags.contains(tag)).cloned().collect::<Vec<_>>();
        self.tags.extend(new);
        self.tags.truncate(Verdict::TAGS);
    }

    /// Adds something the judge knows and no body said; wins over a body's value of the same name.
    pub fn note(&mut self, name: &'static str, value: Value) {
        self.notes.retain(|(n, _)| *n != name);
        self.notes.push((name, value));
    }

    pub fn to_json(&self) -> Map<String, Value> {
        let mut object: Map<String, Value> =
            self.fields.iter().map(|(name, field)| (name.clone(), field.to_json())).collect();
        for (name, value) in &self.notes {
            object.insert((*name).to_owned(), value.clone());
        }
        object
    }
}

impl Field {
    fn merge(&mut self, other: &Field) {
        match other {
            Field::Same(value) => self.add(value),
            Field::Span(min, max) => {
                self.add(min);
                self.add(max);
            }
            Field::Several(values, more) => {
                values.iter().for_each(|value| self.add(value));
                if let (Field::Several(_, ours), true) = (&mut *self, more) {
                    *ours = true;
                }
            }
        }
    }

    /// A fact unknown on one flow says nothing against what another flow showed.
    fn add(&mut self, value: &EvidenceValue) {
        if *value == EvidenceValue::Unknown {
            return;
        }
        match self {
            Field::Same(EvidenceValue::Unknown) => *self = Field::Same(value.clone()),
            Field::Same(ours) if ours == value => {}
            Field::Same(ours) => *self = differ(ours, value),
            Field::Span(min, max) => match (number(min), number(max), number(value)) {
                (Some(low), _, Some(new)) if new < low => *min = value.clone(),
                (_, Some(high), Some(new)) if new > high => *max = value.clone(),
                (_, _, Some(_)) => {}
                _ => *self = Field::Several(vec![min.clone(), max.clone(), value.clone()], true),
            },
            Field::Several(values, _) if values.contains(value) => {}
            Field::Several(values, _) if values.len() < VALUES => values.push(value.clone()),
            Field::Several(_, more) => *more = true,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Field::Same(value) => plain(value),
            Field::Span(min, max) => json!({"min": plain(min), "max": plain(max)}),
            Field::Several(values, false) => json!({"values": values.iter().map(plain).collect::<Vec<_>>()}),
            Field::Several(values, true) => {
                json!({"values": values.iter().map(plain).collect::<Vec<_>>(), "more": true})
            }
        }
    }
}

fn differ(ours: &EvidenceValue, value: &EvidenceValue) -> Field {
    match (number(ours), number(value)) {
        (Some(a), Some(b)) if a <= b => Field::Span(ours.clone(), value.clone()),
        (Some(_), Some(_)) => Field::Span(value.clone(), ours.clone()),
        _ => Field::Several(vec![ours.clone(), value.clone()], false),
    }
}

fn number(value: &EvidenceValue) -> Option<f64> {
    match value {
        EvidenceValue::Int(n) => Some(*n as f64),
        EvidenceValue::Float(x) => Some(*x),
        _ => None,
    }
}

/// JSON has no infinity and no NaN: such a result is not known.
pub(super) fn known(value: &EvidenceValue) -> EvidenceValue {
    match value {
        EvidenceValue::Float(x) if !x.is_finite() => EvidenceValue::Unknown,
        other => other.clone(),
    }
}

pub(super) fn plain(value: &EvidenceValue) -> Value {
    match value {
        EvidenceValue::Int(n) => json!(n),
        EvidenceValue::Float(x) => json!(x),
        EvidenceValue::Bool(b) => json!(b),
        EvidenceValue::Text(text) => json!(text),
        EvidenceValue::Address(addr) => json!(addr.to_string()),
        EvidenceValue::Unknown => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: EvidenceValue) -> Evidence {
        Evidence::new(&[(name.to_owned(), value)])
    }

    fn merged(values: &[EvidenceValue]) -> Value {
        let mut all = one("k", values[0].clone());
        values[1..].iter().for_each(|value| all.merge(&one("k", value.clone())));
        all.to_json()["k"].clone()
    }

    #[test]
    fn equal_values_stay_plain_and_numbers_that_differ_become_a_span() {
        use EvidenceValue::{Float, Int};
        assert_eq!(merged(&[Int(7), Int(7)]), json!(7));
        assert_eq!(merged(&[Int(7), Int(3), Int(5), Int(9)]), json!({"min": 3, "max": 9}));
        assert_eq!(merged(&[Int(7), Float(0.5)]), json!({"min": 0.5, "max": 7}));
    }

    #[test]
    fn other_values_are_listed_and_the_list_is_bounded() {
        use EvidenceValue::{Bool, Int, Text, Unknown};
        assert_eq!(merged(&[Bool(true), Bool(false), Bool(true)]), json!({"values": [true, false]}));
        assert_eq!(merged(&[Unknown, Int(4), Unknown]), json!(4));
        assert_eq!(merged(&[Unknown, Unknown]), Value::Null);
        let many: Vec<_> = (0..20).map(|n| Text(n.to_string())).collect();
        let listed = merged(&many);
        assert_eq!(listed["values"].as_array().map(Vec::len), Some(VALUES));
        assert_eq!(listed["more"], json!(true));
        assert_eq!(merged(&[EvidenceValue::Float(f64::NAN)]), Value::Null);
    }

    #[test]
    fn merging_keeps_names_only_one_side_has_up_to_a_limit() {
        let mut all = one("a", EvidenceValue::Int(1));
        (0..200).for_each(|n| all.merge(&one(&format!("b{n}"), EvidenceValue::Int(n))));
        all.note("a", json!("noted"));
        let object = all.to_json();
        assert_eq!(object.len(), KEYS);
        assert_eq!(object["a"], json!("noted"));
    }
}
