//! The value of a `param`, and how one given from outside is read. Load time only.
//! Never on a worker. Values go into guards as constants and into bodies as variables.

use std::fmt;

use crate::verdict::EvidenceValue;

/// A parameter's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ParamValue {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
}

impl ParamValue {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            ParamValue::Int(_) => "an integer",
            ParamValue::Float(_) => "a float",
            ParamValue::Bool(_) => "a bool",
            ParamValue::Text(_) => "text",
        }
    }

    /// A value of the same type, read from text: underscores between digits are allowed, quotes around
    /// text are not needed.
    pub(crate) fn parse_like(&self, text: &str) -> Option<ParamValue> {
        let text = text.trim();
        let number = || text.replace('_', "");
        match self {
            ParamValue::Int(_) => number().parse().ok().map(ParamValue::Int),
            ParamValue::Float(_) => {
                number().parse().ok().filter(|value: &f64| value.is_finite()).map(ParamValue::Float)
            }
            ParamValue::Bool(_) => text.parse().ok().map(ParamValue::Bool),
            ParamValue::Text(_) => {
                let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                Some(ParamValue::Text(unquoted.unwrap_or(text).to_owned()))
            }
        }
    }
}

impl From<&ParamValue> for EvidenceValue {
    fn from(value: &ParamValue) -> EvidenceValue {
        match value {
            ParamValue::Int(value) => EvidenceValue::Int(*value),
            ParamValue::Float(value) => EvidenceValue::Float(*value),
            ParamValue::Bool(value) => EvidenceValue::Bool(*value),
            ParamValue::Text(value) => EvidenceValue::Text(value.clone()),
        }
    }
}

impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamValue::Int(value) => write!(f, "{value}"),
            ParamValue::Float(value) => write!(f, "{value:?}"),
            ParamValue::Bool(value) => write!(f, "{value}"),
            ParamValue::Text(value) => write!(f, "{value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_keep_the_type() {
        assert_eq!(ParamValue::Int(1).parse_like("30_000"), Some(ParamValue::Int(30_000)));
        assert_eq!(ParamValue::Int(1).parse_like("1.5"), None);
        assert_eq!(ParamValue::Float(1.0).parse_like("2"), Some(ParamValue::Float(2.0)));
        assert_eq!(ParamValue::Float(1.0).parse_like("inf"), None);
        assert_eq!(ParamValue::Bool(true).parse_like("no"), None);
        let text = ParamValue::Text("10.0.0.0/8".to_owned());
        assert_eq!(ParamValue::Text(String::new()).parse_like("\"10.0.0.0/8\""), Some(text));
    }
}
