//! A rule's condition as it is written, taken apart at its `&&`: what a person is shown of it later.
//!
//! Runs at load time, on text that the parser has taken; the operands go to `clause`, in the order of the parsed ones.

use crate::language::source::{Token, TokenKind, tokens_to};

/// The operands of the condition of a rule, in order; none without a condition.
pub(crate) fn of_rule(text: &str) -> Vec<String> {
    let tokens = tokens_to(text, "then");
    let mut operands = Vec::new();
    let at = |word: &str| top(&tokens).find(|(_, token)| is_word(token, word)).map(|(at, _)| at);
    if let (Some(when), Some(then)) = (at("when"), at("then"))
        && let Some(condition) = tokens.get(when + 1..then)
    {
        split(text, condition, &mut operands);
    }
    operands
}

fn is_word(token: &Token, word: &str) -> bool {
    token.kind == TokenKind::Word && token.text == word
}

/// The tokens that are in no brackets, and where they stand.
fn top<'t, 'a>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = (usize, &'t Token<'a>)> {
    let mut depth = 0usize;
    tokens.iter().enumerate().filter(move |(_, token)| match token.kind {
        TokenKind::Symbol('(' | '[' | '{') => {
            depth += 1;
            false
        }
        TokenKind::Symbol(')' | ']' | '}') => {
            depth = depth.saturating_sub(1);
            false
        }
        _ => depth == 0,
    })
}

/// Where `&&` or `||` stands outside of brackets: the place of its first character.
fn places(tokens: &[Token], symbol: char) -> Vec<usize> {
    let mut places: Vec<usize> = Vec::new();
    for (at, token) in top(tokens) {
        let twice = tokens
            .get(at + 1)
            .is_some_and(|next| next.kind == TokenKind::Symbol(symbol) && next.start == token.start + 1);
        let second = at > 0 && places.last() == Some(&(at - 1));
        if token.kind == TokenKind::Symbol(symbol) && twice && !second {
            places.push(at);
        }
    }
    places
}

fn split(text: &str, tokens: &[Token], operands: &mut Vec<String>) {
    let tokens = without_brackets(tokens);
    let ands = places(tokens, '&');
    if ands.is_empty() || !places(tokens, '|').is_empty() {
        operands.push(written(text, tokens));
        return;
    }
    let mut from = 0;
    for at in ands {
        split(text, tokens.get(from..at).unwrap_or_default(), operands);
        from = at + 2;
    }
    split(text, tokens.get(from..).unwrap_or_default(), operands);
}

/// Without brackets around all of it.
fn without_brackets<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    match tokens {
        [open, inner @ .., close]
            if open.kind == TokenKind::Symbol('(')
                && close.kind == TokenKind::Symbol(')')
                && closes_last(inner) =>
        {
            without_brackets(inner)
        }
        tokens => tokens,
    }
}

/// Every bracket in there is opened before it is closed.
fn closes_last(inner: &[Token]) -> bool {
    let mut depth = 0i64;
    inner.iter().all(|token| {
        match token.kind {
            TokenKind::Symbol('(') => depth += 1,
            TokenKind::Symbol(')') => depth -= 1,
            _ => {}
        }
        depth >= 0
    })
}

/// As it is written, on one line and without comments.
fn written(text: &str, tokens: &[Token]) -> String {
    let mut line = String::new();
    let mut end = None;
    for token in tokens {
        if end.is_some_and(|end| end < token.start) {
            line.push(' ');
        }
        let after = token.start + token.text.len();
        line.push_str(text.get(token.start..after).unwrap_or_default());
        end = Some(after);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_cut_at_its_ands_and_nowhere_else() {
        let of = |condition: &str| of_rule(&format!("rule \"when\" on rst when {condition} then {{ }}"));
        assert_eq!(of("a"), ["a"]);
        assert_eq!(
            of("a.b > 1\n  // why\n  && (c || d && e)   &&f( x && y )"),
            ["a.b > 1", "c || d && e", "f( x && y )"]
        );
        assert_eq!(of("((a && b)) && !(c && d)"), ["a", "b", "!(c && d)"]);
        assert_eq!(of("(a) == (b) && c"), ["(a) == (b)", "c"]);
        assert_eq!(of("a && b || c"), ["a && b || c"]);
        assert_eq!(of("x in [\"&&\", `then`] && y"), ["x in [\"&&\", `then`]", "y"]);
        assert!(of_rule("rule \"r\" on rst then { let when = 1; }").is_empty());
        assert_eq!(of("&& &&"), ["", "", ""], "what the parser refuses does no harm");
    }
}
