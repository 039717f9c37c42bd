//! Comments and Markdown prose stay within 100 columns.
//!
//! A line passes if there is no space at which it could be broken, as with a long link.

use super::{
    fault::{Fault, Rule},
    prose::{Line, Prose},
};

/// The width of a page.
pub(crate) const COLUMNS: usize = 100;

/// Judges the prose of one file.
pub(crate) fn check(at: &str, prose: &[Prose]) -> Vec<Fault> {
    let lines = prose.iter().flatten().filter(|line| line.wraps);
    let wide = lines.filter(|line| line.whole.chars().count() > COLUMNS && breaks(line));
    wide.map(|line| Fault {
        rule: Rule::Columns,
        at: at.to_owned(),
        line: Some(line.number),
        what: line.whole.clone(),
        message: format!(
            "{} columns: `cargo xtask tidy --wrap {at}`, or put a comment above its line",
            line.whole.chars().count()
        ),
    })
    .collect()
}

/// Whether a space between two words stands within the limit.
pub(crate) fn breaks(line: &Line) -> bool {
    let before = line.whole.get(..line.start).unwrap_or_default().chars().count();
    let text = after_bullet(line.text());
    let bullet = line.text().chars().count() - text.chars().count();
    text.chars().position(|c| c == ' ').is_some_and(|at| before + bullet + at <= COLUMNS)
}

/// The text of a list item or quotation.
pub(crate) fn after_bullet(text: &str) -> &str {
    let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
    ["- ", "* ", "> ", ". "]
        .iter()
        .find_map(|bullet| number.strip_prefix(bullet))
        .map_or(text, str::trim_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(line: &str, wraps: bool) -> usize {
        check("a.md", &[vec![Line::trimmed(1, line, wraps)]]).len()
    }

    #[test]
    fn a_line_of_more_than_100_columns_is_a_fault_if_it_can_be_broken() {
        let long = "word ".repeat(21);
        let url = "https://example.org/".repeat(6);
        assert_eq!(faults(&format!("{}end", "word ".repeat(19)), true), 0);
        assert_eq!(faults(long.trim_end(), true), 1);
        assert_eq!(faults(long.trim_end(), false), 0);
        assert_eq!(faults(&url, true), 0);
        assert_eq!(faults(&format!("- {url}"), true), 0);
        assert_eq!(faults(&format!("12. {url}"), true), 0);
        assert_eq!(faults(&format!("see {url}"), true), 1);
    }

    #[test]
    fn columns_are_characters_and_not_bytes() {
        assert_eq!(faults(&format!("{} {}", "ä".repeat(50), "ö".repeat(49)), true), 0);
    }
}
