//! Text of strangers that people read, such as a user's name.

/// Whether a character shows as itself: no control character, and none that turns or hides the text
/// around it (Unicode Standard Annex 9, section 2).
pub fn shows_itself(c: char) -> bool {
    let hides = matches!(
        c,
        // Marks, embeddings, overrides and isolates of the bidirectional algorithm.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        // Separators of lines, invisible characters, notes. Joiners stay: scripts and emoji need
        // them.
        | '\u{2028}' | '\u{2029}' | '\u{ad}' | '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
    );
    !c.is_control() && !hides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_turn_or_hide_text_do_not_show() {
        let shown = |text: &str| text.chars().filter(|c| shows_itself(*c)).collect::<String>();
        let table = [
            (
                "Zoë \u{1f469}\u{200d}\u{1f680} می\u{200c}خواهم",
                "Zoë \u{1f469}\u{200d}\u{1f680} می\u{200c}خواهم",
            ),
            ("ada\u{202e}nimda", "adanimda"),
            ("\u{2066}a\u{2069}\u{200f}b\u{61c}", "ab"),
            ("a\u{200b}\u{feff}\u{ad}b", "ab"),
            ("a\r\nb\u{2028}c\u{85}", "abc"),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }
}
