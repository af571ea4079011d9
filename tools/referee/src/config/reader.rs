//! Takes numbers and words of referee.toml, and says what is wrong with them and where, in the operator's words.
//!
//! Main thread; used by `config` alone. What the TOML reader says of types is for programmers, and is put otherwise here.

use std::ops::{Range, RangeInclusive};

use super::near::{distance, nearest};
use super::raw::{Number, Text};
use crate::error::Failure;

/// Turns numbers of the file into settings, and gathers what is wrong.
pub struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    pub errors: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(name: &'a str, text: &'a str) -> Reader<'a> {
        Reader { name, text, errors: Vec::new() }
    }

    /// "file:line:column" of a byte range; columns in characters from 1.
    pub fn place(&self, span: Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }

    pub fn say(&mut self, span: Range<usize>, what: &str) {
        let place = self.place(span);
        self.errors.push(format!("{place}: {what}"));
    }

    /// Puts one of a few words into its setting, if one is given and it is one of them.
    pub fn choose<T: Copy>(&mut self, setting: &mut T, given: &Text, key: &str, choices: &[(&str, T)]) {
        let Some(given) = given else { return };
        match choices.iter().find(|(word, _)| word == given.get_ref()) {
            Some((_, choice)) => *setting = *choice,
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.say(given.span(), &no_choice(key, given.get_ref(), &words));
            }
        }
    }

    /// Puts a number into its setting, in the setting's unit, if it is given and in range.
    pub fn set<T: TryFrom<u64>>(
        &mut self,
        setting: &mut T,
        given: &Number,
        key: &str,
        range: RangeInclusive<u64>,
        unit: u64,
    ) {
        let Some(given) = given else { return };
        let number = *given.get_ref();
        let value = if range.contains(&number) { number.checked_mul(unit) } else { None };
        match value.and_then(|value| T::try_from(value).ok()) {
            Some(value) => *setting = value,
            None => {
                let (low, high) = range.into_inner();
                self.say(given.span(), &format!("`{key}` is {number}; give {low} to {high}"));
            }
        }
    }

    /// What the TOML reader says, with its place and, for an unknown key, the nearest known one.
    pub fn refused(&self, error: &toml::de::Error) -> Failure {
        let place = error.span().map_or_else(|| self.name.to_owned(), |span| self.place(span));
        let (message, key) = (error.message(), error.span().and_then(|span| self.key(span.start)));
        let what = || key.map_or_else(|| "a value".to_owned(), |key| format!("`{key}`"));
        if let Some((unknown, known)) = message.strip_prefix("unknown field `").and_then(names) {
            let failure = Failure::usage(format!("{place}: there is no key `{unknown}` here"));
            return match nearest(unknown, &known) {
                Some(near) => failure.help(format!("did you mean `{near}`?")),
                None => failure.help(format!("there are {}", known.join(", "))),
            };
        }
        if let Some((unknown, known)) = message.strip_prefix("unknown variant `").and_then(names) {
            return Failure::usage(format!("{place}: {}", no_choice(key.unwrap_or("it"), unknown, &known)));
        }
        let kinds = message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: "));
        Failure::usage(match kinds.and_then(|kinds| kinds.split_once(", expected ")) {
            Some((found, expected)) => {
                format!(
                    "{place}: {} is {}; give {}",
                    what(),
                    is(found),
                    wanted(expected, key.unwrap_or("NAME"), is(found))
                )
            }
            None if message == "duplicate key" => {
                let key = error.span().and_then(|span| self.text.get(span)).unwrap_or("a key");
                format!("{place}: `{key}` is given twice")
            }
            None => format!("{place}: {}", message.strip_suffix(", expected nothing").unwrap_or(message)),
        })
    }

    /// The key whose value begins here, if that is on the same line.
    fn key(&self, at: usize) -> Option<&str> {
        let (before, _) = self.text.get(..at)?.rsplit('\n').next()?.rsplit_once('=')?;
        before.rsplit(['{', ',']).next().map(str::trim).filter(|key| !key.is_empty())
    }
}

/// "x`, expected one of `a`, `b`": x, and the others.
fn names(listed: &str) -> Option<(&str, Vec<&str>)> {
    let mut names = listed.split('`').step_by(2);
    Some((names.next()?, names.filter(|name| !name.is_empty()).collect()))
}

/// Not one of the words there are.
fn no_choice(key: &str, given: &str, words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let list = match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.join(""),
    };
    // Of words as short as these most are two letters away from each other.
    let near = nearest(given, words).filter(|near| 2 * distance(given, near) <= given.chars().count());
    let near = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
    format!("`{key}` is \"{given}\"; give {list}{near}")
}

/// What stands there, as it stands there.
fn is(found: &str) -> &str {
    match found {
        "sequence" => "a list",
        "map" => "a table",
        _ => found.strip_prefix("string ").or(found.split('`').nth(1)).unwrap_or(found),
    }
}

/// What could stand there instead.
fn wanted(expected: &str, key: &str, found: &str) -> String {
    match expected {
        "a sequence" if found.starts_with('"') => return format!("a list in brackets, such as [{found}]"),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i64" | "i32" => "a whole number",
        "f64" => "a number",
        "a string" => "a text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list in brackets, such as [2, 3]",
        _ if expected.starts_with("struct ") || expected == "a map" => {
            return format!("a table: [{key}] on a line of its own, its keys below");
        }
        _ => expected,
    }
    .to_owned()
}
