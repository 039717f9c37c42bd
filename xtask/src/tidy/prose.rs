//! The parts of a file that people read: comments, strings, names, Markdown.

use super::markdown;

/// Lines that read as one text, such as a paragraph or the comments above an item.
pub(crate) type Prose = Vec<Line>;

/// A line of a file, and the part of it that is text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) whole: String,
    /// Where the text begins in `whole`, in bytes.
    pub(crate) start: usize,
    /// Where the text ends in `whole`, in bytes.
    pub(crate) end: usize,
    /// Whether a person can break this line where they like.
    pub(crate) wraps: bool,
}

impl Line {
    /// A line whose text is all of it but the space around it.
    pub(crate) fn trimmed(number: usize, whole: &str, wraps: bool) -> Line {
        let start = whole.len() - whole.trim_start().len();
        Line { number, whole: whole.to_owned(), start, end: whole.trim_end().len().max(start), wraps }
    }

    pub(crate) fn text(&self) -> &str {
        self.whole.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes this from the beginning of the text, with the space behind it, and says whether it was
    /// there.
    pub(crate) fn strip(&mut self, marker: &str) -> bool {
        let Some(text) = self.text().strip_prefix(marker) else { return false };
        self.start = self.end - text.trim_start().len();
        true
    }

    pub(crate) fn is_followed_by(&self, other: &Line) -> bool {
        self.number + 1 == other.number
    }
}

/// Reads a Markdown file: one text for each paragraph.
pub(crate) fn of_markdown(text: &str) -> Vec<Prose> {
    let wraps = markdown::wrappable(text.lines());
    let lines = text.lines().zip(wraps).enumerate();
    paragraphs(lines.map(|(index, (line, wraps))| Line::trimmed(index + 1, line, wraps)))
}

/// Reads a file of another kind, in which only the lines that begin with a marker wrap.
pub(crate) fn of_lines(text: &str, marker: Option<&str>) -> Vec<Prose> {
    let lines = text.lines().enumerate().map(|(index, whole)| {
        let mut line = Line::trimmed(index + 1, whole, false);
        line.wraps = marker.is_some_and(|marker| line.strip(marker));
        line
    });
    paragraphs(lines)
}

/// Joins lines that follow each other, unless one is a comment and one is not.
fn paragraphs(lines: impl Iterator<Item = Line>) -> Vec<Prose> {
    let lines: Vec<_> = lines.filter(|line| !line.text().is_empty()).collect();
    let joined = lines.chunk_by(|a, b| a.is_followed_by(b) && a.wraps == b.wraps);
    joined.map(<[Line]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(prose: &[Prose]) -> Vec<(bool, Vec<&str>)> {
        prose.iter().map(|lines| (lines[0].wraps, lines.iter().map(Line::text).collect())).collect()
    }

    #[test]
    fn markdown_is_read_by_paragraph_and_its_tables_do_not_wrap() {
        let read = of_markdown("one\ntwo\n\n| a | b |\n\nthree\n");
        let expected = [(true, vec!["one", "two"]), (false, vec!["| a | b |"]), (true, vec!["three"])];
        assert_eq!(texts(&read), expected);
        assert_eq!(read[2][0].number, 6);
    }

    #[test]
    fn only_comments_of_other_files_wrap() {
        let read = of_lines("  // one\n  // two\n  run(\"three\");\n", Some("//"));
        assert_eq!(texts(&read), [(true, vec!["one", "two"]), (false, vec!["run(\"three\");"])]);
        assert_eq!(texts(&of_lines("# one\n", None)), [(false, vec!["# one"])]);
    }
}
