//! Phrases that a reader stumbles over, from `xtask/tidy/phrases.toml`.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{
    fault::{Fault, Rule},
    prose::{Line, Prose},
};

/// The file of the phrases, which is not searched for them.
pub(crate) const FILE: &str = "xtask/tidy/phrases.toml";

/// The most words that `…` stands for.
const GAP: usize = 8;

/// The phrases to look for.
pub(crate) struct Phrases(Vec<Phrase>);

struct Phrase {
    shape: Vec<Part>,
    instead: String,
}

/// One part of `words`.
enum Part {
    SentenceStart,
    OneOf(Vec<String>),
    Gap,
}

/// A word or a mark of punctuation, where it stands.
#[derive(Debug, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl Token<'_> {
    fn is_word(&self) -> bool {
        self.text.starts_with(is_part_of_word)
    }
}

impl Phrases {
    /// Reads the file.
    ///
    /// # Errors
    /// If it is not a list of phrases.
    pub(crate) fn parse(file: &str) -> Result<Phrases> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            phrase: Vec<Entry>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Entry {
            words: String,
            instead: String,
        }
        let file: File = toml::from_str(file).context(FILE)?;
        let phrases = file.phrase.into_iter();
        Ok(Phrases(
            phrases.map(|Entry { words, instead }| Phrase { shape: shape(&words), instead }).collect(),
        ))
    }

    /// Looks for the phrases in the prose of one file.
    pub(crate) fn check(&self, at: &str, prose: &[Prose]) -> Vec<Fault> {
        prose.iter().flat_map(|prose| self.check_text(at, prose)).collect()
    }

    fn check_text(&self, at: &str, lines: &[Line]) -> Vec<Fault> {
        let tokens = tokens(lines);
        let starts = (0..tokens.len()).flat_map(|start| self.0.iter().map(move |phrase| (start, phrase)));
        let found = starts.filter_map(|(start, phrase)| {
            let end = matches(&phrase.shape, &tokens, start)?;
            let found = tokens.get(start..end)?;
            let line =
                lines.iter().find(|line| Some(line.number) == found.first().map(|token| token.line))?;
            let found: Vec<_> = found.iter().map(|token| token.text).collect();
            Some(Fault {
                rule: Rule::Phrases,
                at: at.to_owned(),
                line: Some(line.number),
                what: line.whole.clone(),
                message: format!("\"{}\"; write: {}", found.join(" "), phrase.instead),
            })
        });
        found.collect()
    }
}

fn shape(words: &str) -> Vec<Part> {
    let part = |word: &str| match word {
        "^" => Part::SentenceStart,
        "…" => Part::Gap,
        words => Part::OneOf(words.split('|').map(str::to_lowercase).collect()),
    };
    words.split_whitespace().map(part).collect()
}

/// Where a phrase that begins at a token ends, if it does.
fn matches(shape: &[Part], tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let Some((part, rest)) = shape.split_first() else { return Some(at) };
    match part {
        Part::SentenceStart => {
            let before = at.checked_sub(1).and_then(|before| tokens.get(before));
            let starts = before.is_none_or(|token| matches!(token.text, "." | ";" | ":" | "?" | "!"));
            starts.then(|| matches(rest, tokens, at)).flatten()
        }
        Part::OneOf(words) => {
            let word = tokens.get(at)?.text;
            let is_it = words.iter().any(|other| word.eq_ignore_ascii_case(other));
            is_it.then(|| matches(rest, tokens, at + 1)).flatten()
        }
        Part::Gap => {
            let words = tokens.iter().skip(at).take(GAP).take_while(|token| token.is_word()).count();
            (1..=words).find_map(|length| matches(rest, tokens, at + length))
        }
    }
}

/// The words and marks of a text. Marks of Markdown around a word are passed over.
fn tokens(lines: &[Line]) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for line in lines {
        let mut rest = line.text();
        while let Some(first) = rest.chars().next() {
            let in_word = is_part_of_word(first);
            let end = rest.find(|c| is_part_of_word(c) != in_word).unwrap_or(rest.len());
            let (run, after) = rest.split_at(if in_word { end } else { first.len_utf8() });
            if !first.is_whitespace() && !matches!(first, '*' | '`' | '_') {
                tokens.push(Token { text: run, line: line.number });
            }
            rest = after;
        }
    }
    tokens
}

fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '\'' || c == '’'
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
        [[phrase]]
        words = "forty|fifty winks"
        instead = "a nap"

        [[phrase]]
        words = "^ he … winks"
        instead = "a name"
    "#;

    fn found(text: &str) -> Vec<(usize, String)> {
        let lines =
            text.lines().enumerate().map(|(index, line)| Line::trimmed(index + 1, line, true)).collect();
        let faults = Phrases::parse(SAMPLE).unwrap().check("a.md", &[lines]);
        faults.into_iter().map(|fault| (fault.line.unwrap(), fault.message)).collect()
    }

    #[test]
    fn a_phrase_is_found_in_any_case_and_across_lines_with_what_to_write() {
        assert_eq!(found("They took Forty\nwinks."), [(1, "\"Forty winks\"; write: a nap".to_owned())]);
        assert_eq!(found("a\nfifty *winks*").len(), 1);
        assert_eq!(found("Forty, winks"), []);
        assert_eq!(found("fortywinks"), []);
    }

    #[test]
    fn a_gap_ends_at_punctuation_and_needs_the_start_of_a_sentence() {
        assert_eq!(found("So: he who waits winks.").len(), 1);
        assert_eq!(found("He, who waits, winks."), []);
        assert_eq!(found("Then he often winks."), []);
        assert_eq!(found("He one two three four five six seven eight nine winks."), []);
    }

    #[test]
    fn the_phrases_of_the_repository_are_read() {
        let file = std::fs::read_to_string(crate::tools::root().join(FILE)).unwrap();
        assert!(Phrases::parse(&file).unwrap().0.len() > 5);
        assert!(Phrases::parse("[[phrase]]\nword = \"a\"").is_err());
    }
}
