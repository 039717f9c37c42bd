//! Reads a Rust file: its syntax, and what people read in it.
//!
//! The parser drops comments, so they are found in the gaps between the tokens that it gives.

use std::ops::Range;

use anyhow::{Result, anyhow};
use proc_macro2::{Ident, TokenStream, TokenTree};

use super::{
    markdown,
    prose::{Line, Prose},
};

/// A Rust file.
pub(crate) struct RustFile {
    pub(crate) syntax: syn::File,
    /// Comments, string literals, and the names of functions with spaces between their words.
    pub(crate) prose: Vec<Prose>,
}

impl RustFile {
    /// Parses a file.
    ///
    /// # Errors
    /// If it is not Rust.
    pub(crate) fn parse(text: &str) -> Result<RustFile> {
        let stream: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
        let mut reader =
            Reader { text, lines: text.lines().collect(), starts: starts(text), ..Reader::default() };
        reader.read(stream.clone());
        reader.gap(text.len());
        Ok(RustFile { syntax: syn::parse2(stream)?, prose: reader.finish() })
    }
}

/// The offsets at which lines begin.
fn starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

#[derive(Default)]
struct Reader<'a> {
    text: &'a str,
    lines: Vec<&'a str>,
    starts: Vec<usize>,
    /// The end of what has been read, in bytes.
    read_to: usize,
    comments: Vec<Comment>,
    others: Vec<Prose>,
}

/// A line of a comment.
struct Comment {
    line: Line,
    marker: &'static str,
    /// Whether nothing but the comment stands on the line.
    alone: bool,
}

impl Reader<'_> {
    fn read(&mut self, stream: TokenStream) {
        let mut after_fn = false;
        for tree in stream {
            match &tree {
                TokenTree::Group(group) => {
                    self.token(group.span_open().byte_range());
                    self.read(group.stream());
                    self.token(group.span_close().byte_range());
                }
                TokenTree::Ident(name) if after_fn => self.name(name),
                TokenTree::Literal(literal) => {
                    let range = literal.span().byte_range();
                    if range.start >= self.read_to && literal.to_string().starts_with(['"', 'r']) {
                        self.others.push(self.lines_of(range, |line| line.trim_end_matches('\\').trim_end()));
                    }
                }
                _ => {}
            }
            after_fn = matches!(&tree, TokenTree::Ident(word) if word == "fn");
            self.token(tree.span().byte_range());
        }
    }

    /// A token that is not a group. A doc comment arrives as several, each with the place of the
    /// comment.
    fn token(&mut self, range: Range<usize>) {
        if range.start < self.read_to {
            return;
        }
        self.gap(range.start);
        let is_comment = self.text.get(range.clone()).is_some_and(|text| marker(text).is_some());
        if is_comment {
            self.comment(range.clone());
        }
        self.read_to = range.end;
    }

    /// Finds the comments between the last token and the next one.
    fn gap(&mut self, end: usize) {
        while let Some(rest) = self.text.get(self.read_to..end) {
            let Some(start) = rest.find('/').map(|at| self.read_to + at) else { break };
            let comment = self.text.get(start..end).unwrap_or_default();
            let length = match marker(comment) {
                Some("/*") => comment.find("*/").map_or(comment.len(), |at| at + 2),
                _ => comment.find('\n').unwrap_or(comment.len()),
            };
            self.comment(start..start + length);
            self.read_to = start + length;
        }
    }

    fn comment(&mut self, range: Range<usize>) {
        let marker = self.text.get(range.start..).and_then(marker).unwrap_or_default();
        for mut line in self.lines_of(range, |line| line.trim_end_matches("*/").trim_end()) {
            let alone = line.whole.get(..line.start).is_none_or(|before| before.trim().is_empty());
            let _ = line.strip(marker) || line.strip("*");
            line.wraps = true;
            self.comments.push(Comment { line, marker, alone });
        }
    }

    fn name(&mut self, name: &Ident) {
        let words = name.to_string().replace('_', " ");
        self.others.push(vec![Line::trimmed(name.span().start().line, &words, false)]);
    }

    /// The lines that a range of bytes touches, with the text that lies in it.
    fn lines_of(&self, range: Range<usize>, cut: impl Fn(&str) -> &str) -> Vec<Line> {
        let first = self.starts.partition_point(|begin| *begin <= range.start).saturating_sub(1);
        let lines = self.lines.iter().zip(&self.starts).enumerate().skip(first);
        let lines = lines.take_while(|(_, (_, begin))| **begin < range.end);
        let line = |(index, (whole, begin)): (usize, (&&str, &usize))| {
            let from = range.start.saturating_sub(*begin).min(whole.len());
            let to = (range.end - begin).min(whole.len());
            let text = whole.get(from..to).unwrap_or_default();
            let start = to - text.trim_start().len();
            let end = start + cut(text.trim()).len();
            Line { number: index + 1, whole: (*whole).to_owned(), start, end, wraps: false }
        };
        lines.map(line).collect()
    }

    /// Joins the comments that stand below each other, and says which of their lines wrap.
    fn finish(self) -> Vec<Prose> {
        let mut prose = self.others;
        let follows = |a: &Comment, b: &Comment| {
            a.alone && b.alone && a.marker == b.marker && a.line.is_followed_by(&b.line)
        };
        for block in self.comments.chunk_by(follows) {
            let wraps = markdown::wrappable(block.iter().map(|comment| comment.line.text()));
            let lines = block.iter().zip(wraps);
            prose.push(lines.map(|(comment, wraps)| Line { wraps, ..comment.line.clone() }).collect());
        }
        prose
    }
}

/// The marker that a comment begins with.
fn marker(text: &str) -> Option<&'static str> {
    ["///", "//!", "//", "/*"].into_iter().find(|marker| text.starts_with(marker))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r##"//! A page
//! of two lines.

/// Doc with "quotes" // inside.
/// | a | table |
fn a_name_of_words() { // beside
    let text = "a // string \
        of two lines";
    let raw = r#"/* raw */"#; let slash = 4 / 2;
    /* a block
     * of two */
    // ä
    // ö
}
"##;

    /// The texts of a sample: the number of the first line, its lines, and whether each wraps.
    fn read(source: &str) -> Vec<(usize, Vec<(String, bool)>)> {
        let mut prose = RustFile::parse(source).unwrap().prose;
        prose.sort_by_key(|lines| lines[0].number);
        let texts = |lines: &Prose| lines.iter().map(|line| (line.text().to_owned(), line.wraps)).collect();
        prose.iter().map(|lines| (lines[0].number, texts(lines))).collect()
    }

    #[test]
    fn comments_strings_and_names_are_found_where_they_stand() {
        let expected: &[(usize, &[(&str, bool)])] = &[
            (1, &[("A page", true), ("of two lines.", true)]),
            (4, &[("Doc with \"quotes\" // inside.", true), ("| a | table |", false)]),
            (6, &[("a name of words", false)]),
            (6, &[("beside", true)]),
            (7, &[("\"a // string", false), ("of two lines\"", false)]),
            (9, &[("r#\"/* raw */\"#", false)]),
            (10, &[("a block", true), ("of two", true)]),
            (12, &[("ä", true), ("ö", true)]),
        ];
        let owned =
            |lines: &[(&str, bool)]| lines.iter().map(|(text, wraps)| ((*text).to_owned(), *wraps)).collect();
        let expected: Vec<_> = expected.iter().map(|(number, lines)| (*number, owned(lines))).collect();
        assert_eq!(read(SAMPLE), expected);
    }

    #[test]
    fn what_is_no_rust_is_an_error() {
        assert!(RustFile::parse("fn {").is_err());
    }
}
