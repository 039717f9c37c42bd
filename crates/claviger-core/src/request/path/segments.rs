//! The ends of segments that some servers drop.
//!
//! All paths here are in the form of [`canonical`](super::canonical).

/// Whether some server may take a path for this rule, or for one below it.
///
/// Each segment may lose its end. But a segment of `named`, a rule that matches the path as it was
/// sent, keeps its suffix: a rule for `/report.pdf` means exactly that.
pub(in crate::request) fn may_be_below(path: &str, rule: &str, named: &str) -> bool {
    let (mut segments, mut named) = (of(path).peekable(), of(named));
    of(rule).all(|wanted| {
        let Some(segment) = segments.next() else { return false };
        let keeps_suffix = named.next() == Some(segment);
        segment == wanted || {
            let whole = without_end(segment);
            let is_last = segments.peek().is_none();
            whole == wanted || !keeps_suffix && without_suffix(whole, is_last).any(|name| name == wanted)
        }
    })
}

/// Whether a segment has only dots and spaces.
pub(super) fn climbs(path: &str) -> bool {
    of(path).any(|segment| without_end(segment).is_empty())
}

fn of(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// A segment without the spaces around it, the dots at its end, and the name of a stream of NTFS
/// (`admin::$DATA`).
pub(super) fn without_end(segment: &str) -> &str {
    let name = match segment.find(':') {
        Some(colon) if segment.contains(":$") => segment.get(..colon).unwrap_or_default(),
        _ => segment,
    };
    trim(name)
}

/// The name of a segment, cut at its last dot and at its first.
///
/// What follows a dot in the middle of a path may be a part of a number, such as in `/v1.2/x`.
fn without_suffix(segment: &str, is_last: bool) -> impl Iterator<Item = &str> {
    let cuts = [segment.rfind('.'), segment.find('.')].into_iter().flatten();
    let names = cuts.filter_map(|dot| Some((segment.get(..dot)?, segment.get(dot + 1..)?)));
    names
        .filter(move |(_, suffix)| is_last || suffix.starts_with(|c: char| c.is_ascii_alphabetic()))
        .map(|(name, _)| trim(name))
}

/// What follows the last dot of a segment with a name.
pub(super) fn extension(segment: &str) -> Option<&str> {
    segment.rsplit_once('.').filter(|(name, _)| !name.is_empty()).map(|(_, ending)| ending)
}

fn trim(name: &str) -> &str {
    // JavaScript takes the byte order mark for a space.
    let is_blank = |c: char| c.is_whitespace() || c == '\u{feff}';
    name.trim_start_matches(is_blank).trim_end_matches(|c| c == '.' || is_blank(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_segment_may_be_dropped() {
        let table = [
            ("/private", "/private", true),
            ("/private/x", "/private", true),
            ("/privately", "/private", false),
            ("/", "/private", false),
            ("/x", "/", true),
            ("/private.json", "/private", true),
            ("/private.json/x", "/private", true),
            ("/private.php/x", "/private", true),
            ("/a/b.tar.gz", "/a/b.tar", true),
            ("/a/b.tar.gz", "/a/b", true),
            ("/a.x/b.y", "/a/b", true),
            ("/a.x/b.y", "/a.x/b", true),
            ("/.hidden", "/hidden", false),
            ("/v1.2", "/v1", true),
            ("/v1.2/x", "/v1", false),
            ("/v1.beta/x", "/v1", true),
            ("/private.", "/private", true),
            ("/private../x", "/private", true),
            ("/private /x", "/private", true),
            ("/private. /x", "/private", true),
            ("/ private/x", "/private", true),
            ("/private\u{a0}", "/private", true),
            ("/private\u{3000}/x", "/private", true),
            ("/private\u{feff}", "/private", true),
            ("/private .css", "/private", true),
            ("/private::$data", "/private", true),
            ("/private:$i30:$index_allocation/x", "/private", true),
            ("/private.php::$data", "/private", true),
            ("/private:x", "/private", false),
            ("/private:5$", "/private", false),
            ("/@private", "/private", false),
        ];
        for (path, rule, expected) in table {
            assert_eq!(may_be_below(path, rule, ""), expected, "{path} {rule}");
        }
    }

    #[test]
    fn a_segment_that_a_rule_names_keeps_its_suffix() {
        let table = [
            ("/report.pdf", "/report", "/report.pdf", false),
            ("/report.pdf/x", "/report", "/report.pdf", false),
            ("/report.pdf", "/report", "/", true),
            ("/report.doc", "/report", "/report.pdf", true),
            ("/v1.beta/x", "/v1", "/v1.beta", false),
            ("/v1.beta/x.json", "/v1.beta/x", "/v1.beta", true),
        ];
        for (path, rule, named, expected) in table {
            assert_eq!(may_be_below(path, rule, named), expected, "{path} {rule} {named}");
        }
    }

    #[test]
    fn a_segment_of_dots_and_spaces_climbs() {
        for path in ["/..", "/a/./b", "/a/. ", "/a/\u{a0}/b", "/a/..\u{feff}", "/a/..::$index_allocation"] {
            assert!(climbs(path), "{path}");
        }
        for path in ["/", "/a", "/a../b", "/.a", "/a/..b"] {
            assert!(!climbs(path), "{path}");
        }
    }
}
