//! Cuts a rule file into its top-level items, so that each can be parsed, and can fail, by itself.
//!
//! Runs at load time. It knows just enough of Rhai's lexical form (comments, strings, braces) to find
//! where an item ends; what is inside an item is Rhai's to parse. The items go to `language::syntax`.

use std::iter::Peekable;
use std::str::CharIndices;

/// What an item is, by its first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemKind {
    Param,
    Constant,
    Rule,
    Function,
    /// Anything else: refused with a word about what to write.
    Other,
}

/// One top-level item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) kind: ItemKind,
    pub(crate) text: &'a str,
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
}

impl Item<'_> {
    pub(crate) fn first_word(&self) -> &str {
        let end = self.text.find(|c: char| !is_word(c)).unwrap_or(self.text.len());
        &self.text[..end]
    }

    /// The item with enough blank lines and blanks before it that positions count in the whole file.
    pub(crate) fn padded(&self) -> String {
        let mut text = "\n".repeat(self.line - 1);
        text.extend(std::iter::repeat_n(' ', self.column - 1));
        text.push_str(self.text);
        text
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Word,
    Number,
    Text,
    Symbol(char),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind,
    pub(super) text: &'a str,
    pub(super) start: usize,
    line: usize,
    column: usize,
    first_on_line: bool,
}

impl Token<'_> {
    fn item_kind(&self) -> Option<ItemKind> {
        match (self.kind, self.text) {
            (TokenKind::Word, "param") => Some(ItemKind::Param),
            (TokenKind::Word, "const") => Some(ItemKind::Constant),
            (TokenKind::Word, "rule") => Some(ItemKind::Rule),
            (TokenKind::Word, "fn" | "private") => Some(ItemKind::Function),
            _ => None,
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whole numbers of the file that do not fit 64 bits: Rhai would quietly make them floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// The tokens of a text as far as this word, without blanks and comments.
pub(super) fn tokens_to<'a>(text: &'a str, word: &str) -> Vec<Token<'a>> {
    Scanner::new(text).tokens(|token| token.kind == TokenKind::Word && token.text == word)
}

/// The items of a file, in order, and its too large numbers.
pub(crate) fn split(text: &str) -> (Vec<Item<'_>>, Vec<TooLarge<'_>>) {
    let tokens = Scanner::new(text).tokens(|_| false);
    let too_large = tokens.iter().filter(|t| t.kind == TokenKind::Number && is_too_large(t.text));
    let too_large = too_large.map(|t| TooLarge { text: t.text, line: t.line, column: t.column }).collect();
    let mut items = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let first = tokens[at];
        if first.kind == TokenKind::Symbol(';') {
            at += 1;
            continue;
        }
        let kind = first.item_kind().unwrap_or(ItemKind::Other);
        let after = item_end(&tokens, at, kind);
        let last = tokens[after - 1];
        let text = &text[first.start..last.start + last.text.len()];
        items.push(Item { kind, text, line: first.line, column: first.column });
        at = after;
    }
    (items, too_large)
}

fn is_too_large(number: &str) -> bool {
    let digits = number.replace('_', "");
    digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<i64>().is_err()
}

/// The index after the item's last token. An item that never ends as it should stops before the next
/// line that can only start another one.
fn item_end(tokens: &[Token], start: usize, kind: ItemKind) -> usize {
    let mut depth = 0usize;
    let mut then_seen = false;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        let next_item = at > start
            && token.item_kind().is_some()
            && token.first_on_line
            && (depth == 0 || token.column == 1 && token.text != "const");
        if next_item {
            return at;
        }
        match token.kind {
            TokenKind::Symbol('{' | '(' | '[') => depth += 1,
            TokenKind::Symbol('}' | ')' | ']') => {
                depth = depth.saturating_sub(1);
                let closes_block = depth == 0 && token.kind == TokenKind::Symbol('}');
                let ends = match kind {
                    ItemKind::Rule => then_seen,
                    ItemKind::Function | ItemKind::Other => true,
                    ItemKind::Param | ItemKind::Constant => false,
                };
                if closes_block && ends {
                    return at + 1;
                }
            }
            TokenKind::Symbol(';') if depth == 0 && kind != ItemKind::Rule => return at + 1,
            TokenKind::Word if depth == 0 && token.text == "then" => then_seen = true,
            _ => {}
        }
    }
    tokens.len()
}

/// Template strings inside template strings beyond this are read as plain text.
const MAX_NESTING: usize = 16;

/// Rhai's lexical form, coarsely.
struct Scanner<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    line: usize,
    column: usize,
    /// Template strings inside template strings, so far.
    nesting: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, chars: text.char_indices().peekable(), line: 1, column: 1, nesting: 0 }
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|&(_, c)| c)
    }

    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |&(at, _)| at)
    }

    fn bump(&mut self) -> Option<char> {
        let (_, c) = self.chars.next()?;
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn rest_starts_with(&mut self, prefix: &str) -> bool {
        let at = self.offset();
        self.text[at..].starts_with(prefix)
    }

    /// Up to the last one, or the first that `ends` it.
    fn tokens(mut self, ends: impl Fn(&Token) -> bool) -> Vec<Token<'a>> {
        let mut tokens: Vec<Token> = Vec::new();
        while !tokens.last().is_some_and(&ends) {
            self.skip_blank();
            let (start, line, column) = (self.offset(), self.line, self.column);
            let Some(kind) = self.token() else { break };
            let text = &self.text[start..self.offset()];
            let first_on_line = tokens.last().is_none_or(|t| t.line != line);
            tokens.push(Token { kind, text, start, line, column, first_on_line });
        }
        tokens
    }

    fn skip_blank(&mut self) {
        while let Some(c) = self.peek() {
            if c == '/' && self.rest_starts_with("//") {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.bump();
                }
            } else if c == '/' && self.rest_starts_with("/*") {
                self.skip_block_comment();
            } else if c.is_whitespace() {
                self.bump();
            } else {
                return;
            }
        }
    }

    /// Block comments nest.
    fn skip_block_comment(&mut self) {
        let mut depth = 0usize;
        loop {
            if self.rest_starts_with("/*") {
                depth += 1;
                self.bump();
            } else if self.rest_starts_with("*/") {
                depth -= 1;
                self.bump();
            }
            if self.bump().is_none() || depth == 0 {
                return;
            }
        }
    }

    fn token(&mut self) -> Option<TokenKind> {
        let first = self.peek()?;
        Some(match first {
            '"' | '\'' => self.quoted(first),
            '`' => self.template(),
            '#' if self.rest_starts_with("#\"") || self.rest_starts_with("##") => self.raw_string(),
            c if c.is_ascii_digit() => self.number(),
            c if is_word(c) => {
                while self.peek().is_some_and(is_word) {
                    self.bump();
                }
                TokenKind::Word
            }
            c => {
                self.bump();
                TokenKind::Symbol(c)
            }
        })
    }

    /// A string ends at its quote, or unterminated at the end of its line unless that is escaped.
    fn quoted(&mut self, quote: char) -> TokenKind {
        self.bump();
        while let Some(c) = self.peek() {
            if c == '\n' {
                break;
            }
            self.bump();
            if c == quote {
                break;
            }
            if c == '\\' {
                self.bump();
            }
        }
        TokenKind::Text
    }

    /// A template string, with code inside `${…}` that may hold strings of its own.
    fn template(&mut self) -> TokenKind {
        self.bump();
        if self.nesting == MAX_NESTING {
            return TokenKind::Symbol('`');
        }
        self.nesting += 1;
        while let Some(c) = self.peek() {
            if c == '$' && self.rest_starts_with("${") {
                self.bump();
                self.template_code();
                continue;
            }
            self.bump();
            if c == '`' {
                break;
            }
        }
        self.nesting -= 1;
        TokenKind::Text
    }

    /// From the opening to the closing brace of a template string's code.
    fn template_code(&mut self) {
        let mut depth = 0usize;
        loop {
            self.skip_blank();
            match self.token() {
                Some(TokenKind::Symbol('{')) => depth += 1,
                Some(TokenKind::Symbol('}')) => depth -= 1,
                None => return,
                Some(_) => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// `#"…"#`, with as many `#` after as before.
    fn raw_string(&mut self) -> TokenKind {
        let mut marks = 0;
        while self.peek() == Some('#') {
            self.bump();
            marks += 1;
        }
        if self.peek() != Some('"') {
            return TokenKind::Symbol('#');
        }
        self.bump();
        let end = format!("\"{}", "#".repeat(marks));
        while self.peek().is_some() {
            if self.rest_starts_with(&end) {
                for _ in 0..end.len() {
                    self.bump();
                }
                break;
            }
            self.bump();
        }
        TokenKind::Text
    }

    /// Digits, underscores, a fraction, an exponent; the dots of a range are not part of it.
    fn number(&mut self) -> TokenKind {
        loop {
            while self.peek().is_some_and(is_word) {
                self.bump();
            }
            let at = self.offset();
            let fraction = self.text[at..].strip_prefix('.').and_then(|rest| rest.chars().next());
            match fraction {
                Some(c) if c.is_ascii_digit() => self.bump(),
                _ => return TokenKind::Number,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<(ItemKind, &str, usize, usize)> {
        split(source).0.into_iter().map(|i| (i.kind, i.text, i.line, i.column)).collect()
    }

    #[test]
    fn items_end_where_they_should() {
        let source = "// rule \"no\"\nparam a = 1;\n\nrule \"r\" on rst when \
            #{a: 1}.a == 1 then {\n if x { } \n} ; fn f(a) { a }";
        let items = texts(source);
        assert_eq!(items.len(), 3, "{items:?}");
        assert_eq!((items[0].0, items[0].2, items[0].3), (ItemKind::Param, 2, 1));
        assert_eq!((items[1].0, items[1].2, items[1].3), (ItemKind::Rule, 4, 1));
        assert!(items[1].1.ends_with('}'));
        assert_eq!((items[2].0, items[2].1, items[2].3), (ItemKind::Function, "fn f(a) { a }", 5));
    }

    #[test]
    fn braces_in_strings_and_comments_do_not_count() {
        let source = "rule \"r\" on rst then { x(\"}\"); y(`} ${ if a { `}${1}` } else { \"}\" } } }`); \
            /* } /* } */ */ z(#\"}\"#); '}' }\nparam b = 2;";
        let items = texts(source);
        assert_eq!(items.len(), 2, "{items:?}");
        assert_eq!(items[1].1, "param b = 2;");
    }

    #[test]
    fn an_unfinished_item_does_not_swallow_the_next() {
        let items = texts(
            "rule \"a\" on rst then {\n  if x {\nrule \"b\" on rst then { }\nparam c = 1\nparam d = 2;",
        );
        let kinds: Vec<_> = items.iter().map(|i| (i.0, i.2)).collect();
        assert_eq!(
            kinds,
            [(ItemKind::Rule, 1), (ItemKind::Rule, 3), (ItemKind::Param, 4), (ItemKind::Param, 5)]
        );
    }

    #[test]
    fn what_follows_a_rule_is_an_item_of_its_own() {
        let items = texts("rule \"a\" on rst then { }\n[1, 2];");
        assert_eq!(items[1], (ItemKind::Other, "[1, 2];", 2, 1));
    }

    #[test]
    fn too_large_numbers_are_found_and_ranges_are_not_fractions() {
        let (_, large) =
            split("param a = 99_999_999_999_999_999_999; param b = 9223372036854775807; x in 1..10; 1.5e3");
        assert_eq!(large.len(), 1);
        assert_eq!((large[0].line, large[0].column), (1, 11));
    }

    #[test]
    fn deep_nesting_is_bounded() {
        let deep = "`${".repeat(100_000);
        assert!(!split(&deep).0.is_empty());
    }
}
