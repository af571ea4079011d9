//! Texts in guards: names out of packets compared with constants, without regard to the case of ASCII letters, as DNS
//! does (RFC 4343).
//!
//! Lowered at load time, evaluated on workers without allocating. A name that the capture or its place cut decides
//! only what the part that is left decides; the rest is unknown.

use rhai::{Expr, FnCallExpr, Position};

use crate::facts::Name;
use crate::facts::table::Subject;
use crate::lower::expr::{Frame, Lower, start_of};
use crate::lower::test::{Comparison, Test};
use crate::lower::types::{Stop, Term, Typed};

/// What can be asked of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Is,
    StartsWith,
    EndsWith,
    Contains,
}

impl Asked {
    pub(crate) fn from_method(name: &str) -> Option<Asked> {
        Some(match name {
            "starts_with" => Asked::StartsWith,
            "ends_with" => Asked::EndsWith,
            "contains" => Asked::Contains,
            _ => return None,
        })
    }

    /// The answer as far as it can be given; `text` in small letters.
    pub(crate) fn of(self, name: &Name, text: &str) -> Option<bool> {
        let (kept, text) = (name.kept(), text.as_bytes());
        let begins = |long: &[u8], short: &[u8]| {
            long.get(..short.len()).is_some_and(|start| start.eq_ignore_ascii_case(short))
        };
        let ends = || {
            let at = kept.len().checked_sub(text.len());
            at.and_then(|at| kept.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(text))
        };
        let holds =
            || text.is_empty() || kept.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text));
        if !name.is_cut() {
            return Some(match self {
                Asked::Is => kept.eq_ignore_ascii_case(text),
                Asked::StartsWith => begins(kept, text),
                Asked::EndsWith => ends(),
                Asked::Contains => holds(),
            });
        }
        // More of the name follows what is left of it.
        match self {
            Asked::Is => (text.len() <= kept.len() || !begins(text, kept)).then_some(false),
            Asked::StartsWith if text.len() <= kept.len() => Some(begins(kept, text)),
            Asked::StartsWith => (!begins(text, kept)).then_some(false),
            Asked::EndsWith => text.is_empty().then_some(true),
            Asked::Contains => holds().then_some(true),
        }
    }
}

/// `asked` of a name, with any of `texts`.
pub(crate) fn any_of<S: Subject>(asked: Asked, name: Term<S, Name>, texts: Vec<String>) -> Test<S> {
    let texts: Box<[Box<str>]> = texts.into_iter().map(|text| text.to_ascii_lowercase().into()).collect();
    Test::Sure(Box::new(move |s| {
        let name = name.eval(s)?;
        let mut known = true;
        for text in &texts {
            match asked.of(&name, text) {
                Some(true) => return Ok(true),
                Some(false) => {}
                None => known = false,
            }
        }
        if known { Ok(false) } else { Err(Stop::Unknown) }
    }))
}

pub(crate) fn compare<S: Subject>(op: Comparison, name: Term<S, Name>, text: String) -> Test<S> {
    let same = any_of(Asked::Is, name, vec![text]);
    if op == Comparison::Equal { same } else { same.not() }
}

impl Lower<'_> {
    /// `subject.method(text)`, if it is a method that texts have.
    pub(crate) fn method<S: Subject>(
        &mut self,
        subject: Typed<S>,
        call: &FnCallExpr,
        at: Position,
        frame: Option<&Frame>,
    ) -> Option<Typed<S>> {
        let name = call.name.as_str();
        let Some(asked) = Asked::from_method(name) else {
            let help = "a condition can ask a text `.starts_with(…)`, `.ends_with(…)` and `.contains(…)`";
            return self.refuse(at, format!("`{name}` cannot be called in a condition"), help);
        };
        let [argument] = call.args.as_slice() else {
            return self.refuse(at, format!("`{name}` takes one argument"), "a text in double quotes");
        };
        let text = self.expr::<S>(argument, frame)?;
        self.asked(asked, subject, text, start_of(argument), at)
    }

    pub(crate) fn asked<S: Subject>(
        &mut self,
        asked: Asked,
        subject: Typed<S>,
        text: Typed<S>,
        text_at: Position,
        at: Position,
    ) -> Option<Typed<S>> {
        match (subject, text) {
            (Typed::Name(name), Typed::Text(text)) => Some(Typed::Bool(any_of(asked, name, vec![text]))),
            (Typed::Name(_), other) => {
                let message = format!("expected a constant text, found {}", other.type_name());
                self.refuse(
                    text_at,
                    message,
                    "write a text in double quotes, or a param or const that is one",
                )
            }
            (other, _) => {
                let message = format!("{} has no parts to look for", other.type_name());
                self.refuse(at, message, "only texts can be asked for their start, end or a part")
            }
        }
    }

    /// A fact's or argument's text, asked by a method: `name.ends_with(".example")`.
    pub(crate) fn dotted<S: Subject>(
        &mut self,
        expr: &Expr,
        frame: Option<&Frame>,
    ) -> Option<Option<Typed<S>>> {
        let Expr::Dot(pair, ..) = expr else { return None };
        let (Expr::Variable(name, ..), Expr::MethodCall(call, at)) = (&pair.lhs, &pair.rhs) else {
            return None;
        };
        let argument = frame.is_some_and(|frame| frame.has(&name.1));
        if !argument {
            return None;
        }
        let subject = self.expr::<S>(&pair.lhs, frame);
        Some(subject.and_then(|subject| self.method(subject, call, *at, frame)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_name_decides_what_its_rest_decides() {
        let long = Name::of(&[b"www.example.", [b'x'; 80].as_slice()].concat());
        assert!(long.is_cut());
        let kept = format!("www.example.{}", "x".repeat(49));
        let ask = |asked: Asked, text: &str| asked.of(&long, text);
        assert_eq!(ask(Asked::StartsWith, "www."), Some(true));
        assert_eq!(ask(Asked::StartsWith, "mail."), Some(false));
        assert_eq!(ask(Asked::StartsWith, &format!("{kept}x")), None);
        assert_eq!(ask(Asked::StartsWith, &format!("a{kept}x")), Some(false));
        assert_eq!(ask(Asked::EndsWith, "x"), None);
        assert_eq!(ask(Asked::EndsWith, ""), Some(true));
        assert_eq!(ask(Asked::Contains, "example"), Some(true));
        assert_eq!(ask(Asked::Contains, "zzz"), None);
        assert_eq!(ask(Asked::Is, "www.example.com"), Some(false));
        assert_eq!(ask(Asked::Is, &kept), Some(false), "there is more of it");
        assert_eq!(ask(Asked::Is, &format!("{kept}x")), None);
    }

    #[test]
    fn letters_are_alike_in_either_case() {
        let name = Name::of(b"WWW.Example.COM");
        let ask = |asked: Asked, text: &str| asked.of(&name, text);
        assert_eq!(ask(Asked::Is, "www.example.com"), Some(true));
        assert_eq!(ask(Asked::Is, "www.example.co"), Some(false));
        assert_eq!(ask(Asked::StartsWith, "www."), Some(true));
        assert_eq!(ask(Asked::EndsWith, ".com"), Some(true));
        assert_eq!(ask(Asked::EndsWith, "xwww.example.com"), Some(false));
        assert_eq!(ask(Asked::Contains, "mple"), Some(true));
        assert_eq!(ask(Asked::Contains, ""), Some(true));
        assert_eq!(ask(Asked::Contains, "mplex"), Some(false));
    }
}
