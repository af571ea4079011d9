//! One rule file as a whole: its parameters, helper functions and rules, and every mistake in it.
//!
//! Runs at load time. Items are cut apart (`source`) and parsed one by one (`syntax`), so that a mistake
//! in one hides none in another. The file goes to `load`, which checks, lowers and joins.

pub(crate) mod builtin;
pub(crate) mod check;
mod operands;
pub(crate) mod source;
pub(crate) mod syntax;

use std::collections::{BTreeMap, BTreeSet};

use rhai::Position;

use crate::error::LoadError;
use crate::language::syntax::{FunctionItem, Name, ParamItem, Parsed, Parser, Refusal, RuleItem};
use crate::lower::expr;
use crate::set::SourceFile;
use crate::value::ParamValue;

/// Beyond these a file is refused before it is parsed: positions are 16 bits wide in the parser.
const MAX_LINES: usize = 10_000;
const MAX_LINE_CHARS: usize = 10_000;
const MAX_BYTES: usize = 1 << 20;

/// A parsed rule file.
pub(crate) struct RuleFile {
    pub(crate) name: String,
    /// The file's name without directories and extension.
    pub(crate) stem: String,
    pub(crate) params: BTreeMap<String, ParamValue>,
    /// Of them, those that can't be set from outside.
    pub(crate) constants: BTreeSet<String>,
    /// Parameters whose value was refused.
    pub(crate) broken: BTreeSet<String>,
    pub(crate) functions: Vec<FunctionItem>,
    /// The functions' text.
    pub(crate) helpers: String,
    pub(crate) rules: Vec<RuleItem>,
    pub(crate) errors: Vec<LoadError>,
}

impl RuleFile {
    pub(crate) fn parse(parser: &Parser, source: &SourceFile) -> RuleFile {
        let mut file = RuleFile {
            name: source.name.clone(),
            stem: stem(&source.name).to_owned(),
            params: BTreeMap::new(),
            constants: BTreeSet::new(),
            broken: BTreeSet::new(),
            functions: Vec::new(),
            helpers: String::new(),
            rules: Vec::new(),
            errors: Vec::new(),
        };
        // Some editors begin a file with a byte order mark.
        let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
        if let Some(message) = too_big(text) {
            file.report(Refusal::new(
                Position::NONE,
                message,
                "break long lines, and split what is too large into several files",
            ));
            return file;
        }
        let (items, too_large) = source::split(text);
        for number in too_large {
            file.errors.push(LoadError {
                file: file.name.clone(),
                line: number.line,
                column: number.column,
                message: format!("{} does not fit a 64-bit integer", number.text),
                help: Some("the largest is 9_223_372_036_854_775_807".to_owned()),
            });
        }
        for item in &items {
            if item.kind == source::ItemKind::Function {
                file.helpers.push_str(item.text);
            }
            match parser.parse(item) {
                Ok(parsed) => file.add(parsed),
                Err(refusal) => file.report(refusal),
            }
        }
        file
    }

    pub(crate) fn report(&mut self, refusal: Refusal) {
        self.errors.push(LoadError {
            file: self.name.clone(),
            line: refusal.at.line().unwrap_or(0),
            column: refusal.at.position().unwrap_or(0),
            message: refusal.message,
            help: refusal.help,
        });
    }

    fn add(&mut self, parsed: Parsed) {
        match parsed {
            Parsed::Param(param) => self.value(param, false),
            Parsed::Constant(constant) => self.value(constant, true),
            Parsed::Function(function) => {
                if let Some(refusal) = self.function_name(&function) {
                    return self.report(refusal);
                }
                self.functions.push(function);
            }
            Parsed::Rule(rule) => self.rules.push(rule),
        }
    }

    /// A parameter or a constant; either may name the constants before it.
    fn value(&mut self, item: ParamItem, constant: bool) {
        let Name { text: name, at } = item.name;
        if let Some(refusal) = self.param_name(&name, at) {
            return self.report(refusal);
        }
        let known = |name: &String| self.params.get(name).map(|value| (name.clone(), value.clone()));
        let constants = self.constants.iter().filter_map(known).collect();
        if constant {
            self.constants.insert(name.clone());
        }
        match expr::constant(&item.value, &constants) {
            Ok(value) => {
                self.params.insert(name, value);
            }
            Err(refusals) => {
                self.broken.insert(name);
                refusals.into_iter().for_each(|refusal| self.report(refusal));
            }
        }
    }

    fn param_name(&self, name: &str, at: Position) -> Option<Refusal> {
        if check::ROOTS.contains(&name) {
            return Some(Refusal::new(
                at,
                format!("`{name}` is the name of the facts"),
                "choose another name",
            ));
        }
        let again = self.params.contains_key(name) || self.broken.contains(name);
        again.then(|| Refusal::new(at, format!("`{name}` is declared twice"), "remove one of them"))
    }

    fn function_name(&self, function: &FunctionItem) -> Option<Refusal> {
        let (name, at) = (&function.name.text, function.name.at);
        if builtin::is_known(name) {
            let message = format!("`{name}` is a function of the language");
            return Some(Refusal::new(at, message, "choose another name"));
        }
        let same = |f: &FunctionItem| f.name.text == *name && f.params.len() == function.params.len();
        self.functions.iter().any(same).then(|| {
            Refusal::new(at, format!("the function `{name}` is declared twice"), "remove one of them")
        })
    }
}

/// `rules/rst_storm.rhai` → `rst_storm`
fn stem(name: &str) -> &str {
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
    match base.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => base,
    }
}

fn too_big(text: &str) -> Option<String> {
    if text.len() > MAX_BYTES {
        return Some(format!("the file has {} bytes; at most {MAX_BYTES} are read", text.len()));
    }
    if text.lines().count() > MAX_LINES {
        return Some(format!("the file has more than {MAX_LINES} lines"));
    }
    let long = text.lines().position(|line| line.chars().count() > MAX_LINE_CHARS)?;
    Some(format!("line {} has more than {MAX_LINE_CHARS} characters", long + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems() {
        assert_eq!(stem("/etc/referee/rules/rst_storm.rhai"), "rst_storm");
        assert_eq!(stem("a.b.rhai"), "a.b");
        assert_eq!(stem(".rhai"), ".rhai");
        assert_eq!(stem("x"), "x");
    }
}
