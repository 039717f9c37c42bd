//! Wraps the paragraphs that have a line of more than 100 columns: `cargo xtask tidy --wrap`.
//!
//! Only comments that stand alone and Markdown are wrapped. A comment beside code is left to a
//! person.

use std::collections::BTreeMap;

use super::{
    columns::{COLUMNS, after_bullet, breaks},
    prose::{Line, Prose},
};

/// The text of a file with its wide paragraphs wrapped.
pub(crate) fn wrap(text: &str, prose: &[Prose]) -> String {
    let paragraphs = prose.iter().flat_map(|lines| lines.chunk_by(is_one_paragraph));
    let wide = paragraphs.filter(|lines| lines.iter().any(is_wide) && lines.iter().all(stands_alone));
    let mut wrapped: BTreeMap<usize, (usize, Vec<String>)> = BTreeMap::new();
    for lines in wide {
        let first = lines.first().map_or(0, |line| line.number);
        wrapped.insert(first, (lines.len(), fill(lines)));
    }
    let mut result = String::new();
    let mut lines = text.split_inclusive('\n').enumerate();
    while let Some((index, line)) = lines.next() {
        if let Some((count, paragraph)) = wrapped.get(&(index + 1)) {
            paragraph.iter().for_each(|line| result.extend([line, "\n"]));
            (1..*count).for_each(|_| _ = lines.next());
        } else {
            result.push_str(line);
        }
    }
    result
}

fn is_wide(line: &Line) -> bool {
    line.wraps && line.whole.chars().count() > COLUMNS && breaks(line)
}

/// Whether nothing stands before the text but the marker of a comment.
fn stands_alone(line: &Line) -> bool {
    let before = line.whole.get(..line.start).unwrap_or_default().trim();
    line.wraps && ["", "//", "///", "//!"].contains(&before) && !line.text().starts_with('>')
}

fn is_one_paragraph(a: &Line, b: &Line) -> bool {
    let is_indented = b.start == a.start || b.start == a.start + bullet(a).len();
    a.is_followed_by(b)
        && a.wraps == b.wraps
        && !a.text().is_empty()
        && !b.text().is_empty()
        && bullet(b).is_empty()
        && is_indented
}

/// The mark that a line begins with if it is an item of a list.
fn bullet(line: &Line) -> &str {
    let text = line.text();
    text.get(..text.len() - after_bullet(text).len()).unwrap_or_default()
}

/// The lines of a paragraph, filled again.
fn fill(lines: &[Line]) -> Vec<String> {
    let Some(first) = lines.first() else { return Vec::new() };
    let mut line = first.whole.get(..first.start).unwrap_or_default().to_owned();
    let rest = line.clone() + &" ".repeat(bullet(first).chars().count());
    let text = lines.iter().map(Line::text).collect::<Vec<_>>().join(" ");
    let mut filled = Vec::new();
    let mut is_empty = true;
    for word in words(&text) {
        let is_full = line.chars().count() + 1 + word.chars().count() > COLUMNS;
        if is_full && !is_empty {
            filled.push(std::mem::replace(&mut line, rest.clone()));
        } else if !is_empty {
            line.push(' ');
        }
        line.push_str(&word);
        is_empty = false;
    }
    filled.push(line);
    filled
}

/// The words of a text. What stands between two backticks is one word, and a word that a line
/// cannot begin with is one with the word before it.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut in_code = false;
    for word in text.split_whitespace() {
        match words.last_mut().filter(|_| in_code || !may_begin(word)) {
            Some(last) => last.extend([" ", word]),
            None => words.push(word.to_owned()),
        }
        in_code ^= word.matches('`').count() % 2 == 1;
    }
    words
}

/// Whether a line that begins with this word still reads as prose, and not as a list, heading or
/// table.
fn may_begin(word: &str) -> bool {
    let is_number = word.strip_suffix('.').is_some_and(|number| number.parse::<u32>().is_ok());
    let is_bullet = matches!(word, "-" | "*" | "+") || word.chars().all(|c| c == '#');
    !is_number && !is_bullet && !word.starts_with(['>', '|', '<'])
}

#[cfg(test)]
mod tests {
    use super::super::{prose, rust::RustFile};
    use super::*;

    fn markdown(text: &str) -> String {
        wrap(text, &prose::of_markdown(text))
    }

    fn rust(text: &str) -> String {
        wrap(text, &RustFile::parse(text).unwrap().prose)
    }

    #[test]
    fn a_wide_paragraph_is_filled_again_and_the_others_stay() {
        let word = "abcdefghi ";
        let text = format!("a short\nline\n\n{}\nend\n\nlast\n", word.repeat(11).trim_end());
        let expected = format!("a short\nline\n\n{}\nabcdefghi end\n\nlast\n", word.repeat(10).trim_end());
        assert_eq!(markdown(&text), expected);
        assert_eq!(markdown(&expected), expected);
    }

    #[test]
    fn an_item_of_a_list_is_indented_and_a_table_stays() {
        let words = "abcdefghi ".repeat(10);
        let text = format!("- {words}end\n- next\n\n| {words} | {words} |\n");
        let expected =
            format!("- {}\n  abcdefghi end\n- next\n\n| {words} | {words} |\n", words[..89].trim());
        assert_eq!(markdown(&text), expected);
    }

    #[test]
    fn comments_keep_their_marker_and_indentation() {
        let words = "abcdefghi ".repeat(9);
        let text = format!(
            "mod a {{\n    /// {words}end\n    ///\n    /// more\n    fn f() {{}} // {words}{words}\n}}\n"
        );
        let expected = text.replace(" end\n", "\n    /// end\n");
        assert_eq!(rust(&text), expected);
    }

    #[test]
    fn code_is_not_broken_and_no_line_begins_like_a_list() {
        let words = "abcdefghi ".repeat(9);
        assert_eq!(
            markdown(&format!("{words}`one two three`\n")),
            format!("{}\n`one two three`\n", words.trim())
        );
        let minus = format!("{words}abcdefg - {words}");
        assert!(markdown(&minus).lines().all(|line| !line.starts_with('-')), "{minus}");
    }
}
