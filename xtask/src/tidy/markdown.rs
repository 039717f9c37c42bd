//! Which lines of Markdown are prose that can be wrapped, in files and in doc comments.

/// Says for each line whether it can be wrapped.
///
/// Code, tables, headings, HTML and the targets of links by reference cannot.
pub(crate) fn wrappable<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<bool> {
    let mut fence: Option<&str> = None;
    let judge = |line: &'a str| {
        let text = line.trim_start();
        if let Some(open) = fence {
            if text.starts_with(open) {
                fence = None;
            }
            return false;
        }
        fence = ["```", "~~~"].into_iter().find(|mark| text.starts_with(mark));
        fence.is_none() && !text.starts_with(['|', '<']) && !is_heading(text) && !is_target(text)
    };
    lines.map(judge).collect()
}

fn is_heading(text: &str) -> bool {
    text.starts_with('#') && text.trim_start_matches('#').starts_with(' ')
}

/// The second half of a link by reference: `[name]: https://…`.
fn is_target(text: &str) -> bool {
    text.starts_with('[') && text.contains("]: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_tables_headings_html_and_targets_do_not_wrap() {
        let table = [
            ("prose", true),
            ("## heading", false),
            ("#12 is an issue", true),
            ("| table |", false),
            ("<img src=\"a.png\">", false),
            ("[name]: https://a.example", false),
            ("[name](a.md) is a link", true),
            ("  ```sh", false),
            ("  prose in code", false),
            ("  ```", false),
            ("- an item", true),
        ];
        let found = wrappable(table.iter().map(|(line, _)| *line));
        assert_eq!(found, table.map(|(_, expected)| expected));
    }
}
