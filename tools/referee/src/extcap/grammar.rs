//! The sentences that Wireshark reads from an extcap program: a word, then `{name=value}` for each thing said of it.
//!
//! Main thread. Makes text only.

use std::fmt::Write as _;

/// Sentences, a line each.
#[derive(Debug, Default)]
pub struct Sentences(String);

impl Sentences {
    pub fn say(&mut self, word: &str, things: &[(&str, &str)]) {
        self.0.push_str(word);
        for (number, (name, value)) in things.iter().enumerate() {
            let gap = if number == 0 { " " } else { "" };
            let _ = write!(self.0, "{gap}{{{name}={}}}", plain(value));
        }
        self.0.push('\n');
    }

    pub fn text(self) -> String {
        self.0
    }
}

/// A brace ends what is said, a line the sentence; there is no way to write them.
fn plain(value: &str) -> String {
    let put = |c: char| match c {
        '{' => '(',
        '}' => ')',
        c if c.is_control() => ' ',
        c => c,
    };
    value.chars().map(put).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_cannot_be_broken_out_of() {
        let mut said = Sentences::default();
        said.say("interface", &[("value", "a"), ("display", "x}{value=evil}\ninterface {value=b}")]);
        said.say("alone", &[]);
        assert_eq!(said.text(), "interface {value=a}{display=x)(value=evil) interface (value=b)}\nalone\n");
    }
}
