//! Parameters, and the switches `shadow` and `enabled`, set from outside: `--set` and `[rules.NAME]`. At load time; goes into
//! the files' parameters before their rules are compiled.

use crate::error::LoadError;
use crate::header::Switches;
use crate::language::RuleFile;
use crate::nearest::nearest;
use crate::set::Override;

/// A rule's name picks the file it is in; else a file's stem does.
pub(crate) fn apply_overrides(files: &mut [RuleFile], overrides: &[Override]) -> Vec<LoadError> {
    let mut errors = Vec::new();
    for set in overrides {
        let has_rule = |file: &RuleFile| file.rules.iter().any(|rule| rule.name.text == set.rule);
        let by_rule = files.iter().position(has_rule);
        let index = by_rule.or_else(|| files.iter().position(|file| file.stem == set.rule));
        let outcome = match index {
            Some(index) => apply_override(&mut files[index], set),
            None => {
                let rules =
                    files.iter().flat_map(|file| file.rules.iter().map(|rule| rule.name.text.as_str()));
                let stems = files.iter().map(|file| file.stem.as_str());
                let help =
                    nearest(&set.rule, rules.chain(stems)).map(|near| format!("did you mean `{near}`?"));
                let help =
                    help.unwrap_or_else(|| "name a rule, or a rule file without its extension".to_owned());
                Err((format!("there is no rule or rule file `{}`", set.rule), help))
            }
        };
        if let Err((message, help)) = outcome {
            errors.push(LoadError {
                file: "--set".to_owned(),
                line: 0,
                column: 0,
                message,
                help: Some(help),
            });
        }
    }
    errors
}

fn apply_override(file: &mut RuleFile, set: &Override) -> Result<(), (String, String)> {
    let Override { rule, param, value } = set;
    if file.broken.contains(param) {
        return Ok(());
    }
    if file.constants.contains(param) {
        let help = "declare it with `param` instead of `const` if it is to be set from outside";
        return Err((format!("`{rule}.{param}` is a constant"), help.to_owned()));
    }
    if Switches::knows(param) && !file.params.contains_key(param) {
        let by_name = file.rules.iter().any(|known| known.name.text == *rule);
        let mut rules = file.rules.iter_mut().filter(|known| !by_name || known.name.text == *rule);
        return rules.try_for_each(|known| known.switches.set(set));
    }
    let Some(current) = file.params.get_mut(param) else {
        let known: Vec<&str> =
            file.params.keys().filter(|name| !file.constants.contains(*name)).map(String::as_str).collect();
        let help = match nearest(param, known.iter().copied()) {
            Some(near) => format!("did you mean `{rule}.{near}`?"),
            None if known.is_empty() => format!("`{}` has no params", file.name),
            None => format!("its params are {}", known.join(", ")),
        };
        return Err((format!("`{rule}` has no param `{param}`"), help));
    };
    match current.parse_like(value) {
        Some(parsed) => {
            *current = parsed;
            Ok(())
        }
        None => {
            let message = format!("`{rule}.{param}` is {}; `{value}` is not", current.type_name());
            Err((message, format!("its value in the file is {current}")))
        }
    }
}
