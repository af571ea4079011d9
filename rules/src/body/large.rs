//! Functions on lists, maps and texts that can be long: Rhai's own would do all of that as one operation, and go as deep
//! as a value is nested. On the judge's thread; each is charged ([`Meter`]) before it works.

use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, Map};

use crate::body::meter::Meter;
use crate::body::views::Address;

type Fallible<T> = Result<T, Box<EvalAltResult>>;

pub(crate) fn register(engine: &mut Engine, meter: &Meter) {
    comparing(engine, meter);
    writing(engine, meter);
    texts(engine, meter);
}

fn comparing(engine: &mut Engine, meter: &Meter) {
    let is_same = |meter: &Meter, a: Dynamic, b: Dynamic| -> Fallible<bool> {
        meter.charge_for(&a)?;
        meter.charge_for(&b)?;
        Ok(same(&a, &b))
    };
    let m = meter.clone();
    engine.register_fn("==", move |a: Array, b: Array| is_same(&m, a.into(), b.into()));
    let m = meter.clone();
    engine.register_fn("!=", move |a: Array, b: Array| is_same(&m, a.into(), b.into()).map(|same| !same));
    let m = meter.clone();
    engine.register_fn("==", move |a: Map, b: Map| is_same(&m, a.into(), b.into()));
    let m = meter.clone();
    engine.register_fn("!=", move |a: Map, b: Map| is_same(&m, a.into(), b.into()).map(|same| !same));
    let m = meter.clone();
    engine.register_fn("contains", move |list: &mut Array, value: Dynamic| -> Fallible<bool> {
        m.charge(list.len(), 0)?;
        for item in list.iter() {
            m.charge_for(item)?;
        }
        Ok(list.iter().any(|item| same(item, &value)))
    });
}

fn writing(engine: &mut Engine, meter: &Meter) {
    let written = |meter: &Meter, value: Dynamic| -> Fallible<String> {
        // Writing costs more than looking.
        (0..8).try_for_each(|_| meter.charge_for(&value))?;
        let mut text = String::new();
        write(&value, &mut text);
        Ok(text)
    };
    for name in ["to_string", "to_debug"] {
        let m = meter.clone();
        engine.register_fn(name, move |list: &mut Array| written(&m, list.clone().into()));
        let m = meter.clone();
        engine.register_fn(name, move |map: &mut Map| written(&m, map.clone().into()));
    }
}

fn texts(engine: &mut Engine, meter: &Meter) {
    let m = meter.clone();
    engine.register_fn("contains", move |text: ImmutableString, part: ImmutableString| -> Fallible<bool> {
        m.charge(0, text.len())?;
        Ok(text.contains(part.as_str()))
    });
    let m = meter.clone();
    engine.register_fn("index_of", move |text: ImmutableString, part: ImmutableString| -> Fallible<i64> {
        m.charge(0, text.len())?;
        let at = text.find(part.as_str()).map(|at| text.get(..at).map_or(0, |before| before.chars().count()));
        Ok(at.map_or(-1, |at| at as i64))
    });
    let m = meter.clone();
    engine.register_fn("split", move |text: ImmutableString, by: ImmutableString| -> Fallible<Array> {
        m.charge(0, 16 * text.len())?;
        // One part more than a list may have is enough to say so.
        let part = |part: &str| Dynamic::from(ImmutableString::from(part));
        Ok(text.split(by.as_str()).take(super::engine::MAX_ARRAY + 1).map(part).collect())
    });
    let m = meter.clone();
    engine.register_fn("to_upper", move |text: ImmutableString| -> Fallible<String> {
        m.charge(0, text.len())?;
        Ok(text.to_uppercase())
    });
    let m = meter.clone();
    engine.register_fn("to_lower", move |text: ImmutableString| -> Fallible<String> {
        m.charge(0, text.len())?;
        Ok(text.to_lowercase())
    });
}

/// As Rhai compares the elements of lists: numbers by value, anything else that is of two kinds as different.
fn same(a: &Dynamic, b: &Dynamic) -> bool {
    if let (Ok(a), Ok(b)) = (a.as_array_ref(), b.as_array_ref()) {
        return a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b));
    }
    if let (Ok(a), Ok(b)) = (a.as_map_ref(), b.as_map_ref()) {
        let in_b = |(name, value): (&_, &Dynamic)| b.get(name).is_some_and(|other| same(value, other));
        return a.len() == b.len() && a.iter().all(in_b);
    }
    if let (Ok(a), Ok(b)) = (a.as_immutable_string_ref(), b.as_immutable_string_ref()) {
        return *a == *b;
    }
    let address = |value: &Dynamic| value.read_lock::<Address>().map(|address| address.0);
    let text = |value: &Dynamic| value.as_immutable_string_ref().ok().and_then(|text| text.parse().ok());
    if let Some(one) = address(a).or_else(|| address(b)) {
        let other = |value: &Dynamic| address(value).or_else(|| text(value));
        return other(a) == Some(one) && other(b) == Some(one);
    }
    match (a.as_int(), b.as_int()) {
        (Ok(a), Ok(b)) => return a == b,
        (Ok(int), Err(_)) => return b.as_float().is_ok_and(|float| int as f64 == float),
        (Err(_), Ok(int)) => return a.as_float().is_ok_and(|float| int as f64 == float),
        (Err(_), Err(_)) => {}
    }
    let floats = a.as_float().ok().zip(b.as_float().ok()).map(|(a, b)| a == b);
    let bools = a.as_bool().ok().zip(b.as_bool().ok()).map(|(a, b)| a == b);
    let chars = a.as_char().ok().zip(b.as_char().ok()).map(|(a, b)| a == b);
    floats.or(bools).or(chars).unwrap_or(a.is_unit() && b.is_unit())
}

/// `[1, "a", #{"b": 2}]`
fn write(value: &Dynamic, out: &mut String) {
    if let Ok(list) = value.as_array_ref() {
        out.push('[');
        for (n, item) in list.iter().enumerate() {
            out.push_str(if n == 0 { "" } else { ", " });
            write(item, out);
        }
        out.push(']');
    } else if let Ok(map) = value.as_map_ref() {
        out.push_str("#{");
        for (n, (name, item)) in map.iter().enumerate() {
            out.push_str(if n == 0 { "" } else { ", " });
            out.push_str(&format!("{name:?}: "));
            write(item, out);
        }
        out.push('}');
    } else if let Some(address) = value.read_lock::<Address>() {
        out.push_str(&address.0.to_string());
    } else {
        out.push_str(&format!("{value:?}"));
    }
}
