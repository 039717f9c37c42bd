//! Where a sign-in may send the browser afterwards: only to a path of this site (RFC 9700 section
//! 4.11.1).

use std::fmt;

use crate::limits::{RETURN_TO_BYTES, SHORT_RETURN_TO_BYTES};

/// A path of this site with its query, such as `/inbox?page=2`. It cannot name another origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnTo(String);

impl ReturnTo {
    /// Parses a client's text. Returns `None` if it could lead a browser away from this site.
    ///
    /// A browser drops tabs and line breaks from an address, reads `\` as `/`, and takes `//` at
    /// the start for a host name (WHATWG URL, "basic URL parser"). So the text must begin with
    /// exactly one slash in any spelling, and contain only printable ASCII. Everything else must be
    /// percent-encoded.
    pub fn parse(text: &str) -> Option<Self> {
        let second = text.strip_prefix('/')?.chars().next();
        let safe = text.len() <= RETURN_TO_BYTES
            && !matches!(second, Some('/' | '\\'))
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
            && !climbs(text);
        safe.then(|| Self(text.to_owned()))
    }

    /// Parses the target of a request: its path and query, as the client wrote them. Octets that
    /// stand in no return address are percent-encoded first. What comes out is as safe as what
    /// [`ReturnTo::parse`] accepts.
    pub fn of_target(target: &[u8]) -> Option<Self> {
        let encoded = target.iter().map(|byte| match byte {
            b'\\' => "%5C".to_owned(),
            byte if byte.is_ascii_graphic() => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        });
        Self::parse(&encoded.collect::<String>())
    }

    /// Returns whether headers and cookies have room for it everywhere.
    pub fn is_short(&self) -> bool {
        self.0.len() <= SHORT_RETURN_TO_BYTES
    }

    /// Returns the page of ours that says that a destination is not known any more.
    pub fn lost() -> Self {
        Self(Self::KEPT.to_owned())
    }

    /// The path of the page that leads on to a destination that was kept.
    pub const KEPT: &str = "/auth/return";

    /// Returns the front page.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Returns the path with its query.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether dot segments could move a later `//` to the front, as in `/.//host`.
fn climbs(text: &str) -> bool {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    path.split('/').any(|segment| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    })
}

impl Default for ReturnTo {
    fn default() -> Self {
        Self::root()
    }
}

impl fmt::Display for ReturnTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn paths_of_this_site_are_accepted() {
        for text in [
            "/",
            "/a",
            "/a/b?c=d&e=%2F%2Ff",
            "/a?next=https://b.example/",
            "/%2F%2Fx",
            "/a//b",
            "/a#b",
            "/.well-known/x",
        ] {
            assert_eq!(ReturnTo::parse(text).as_ref().map(ReturnTo::as_str), Some(text));
        }
    }

    #[test]
    fn hostile_forms_are_refused() {
        let long = format!("/{}", "a".repeat(RETURN_TO_BYTES));
        for text in [
            "",
            "a",
            "//h",
            "///h",
            "/\\h",
            "\\h",
            "\\\\h",
            "https:h",
            "https://h",
            "//h@x",
            "/\t/h",
            "/\n/h",
            "/\r/h",
            " /a",
            "/ a",
            "\t//h",
            "/a\0",
            "javascript:alert(1)",
            "/\u{2f}\u{2f}h/..",
            "/.//h",
            "/..//h",
            "/%2e//h",
            "/a/%2E%2e//h",
            "/a/../..//h",
            "/ä",
            "/\u{ff0f}h",
            &long,
        ] {
            assert_eq!(ReturnTo::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_target_of_a_request_becomes_a_return_address() {
        let long = format!("/{}", "a".repeat(RETURN_TO_BYTES));
        let table: [(&[u8], Option<&str>); 12] = [
            (b"/", Some("/")),
            (b"/a?b=c&d=%2F", Some("/a?b=c&d=%2F")),
            ("/wiki/K\u{e4}se?q=\u{fc}".as_bytes(), Some("/wiki/K%C3%A4se?q=%C3%BC")),
            (b"/a?path=c:\\d", Some("/a?path=c:%5Cd")),
            (b"/\xff?\x7f \t", Some("/%FF?%7F%20%09")),
            (b"/\\evil.example", Some("/%5Cevil.example")),
            (b"//evil.example", None),
            (b"\\/evil.example", None),
            (b"/../\\evil.example", None),
            (b"https://evil.example", None),
            (b"", None),
            (long.as_bytes(), None),
        ];
        for (target, expected) in table {
            let found = ReturnTo::of_target(target);
            assert_eq!(found.as_ref().map(ReturnTo::as_str), expected, "{target:?}");
        }
    }

    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/"),
            Just("\\"),
            Just("//"),
            Just(".."),
            Just("."),
            Just("%2e"),
            Just("%2f"),
            Just("%5c"),
            Just("\t"),
            Just("\n"),
            Just("\r"),
            Just("@"),
            Just(":"),
            Just("https:"),
            Just("evil.example"),
            Just("?"),
            Just("#"),
            Just(" "),
            Just("\0"),
            Just("ﬀ"),
            Just("[::1]"),
        ];
        prop_oneof![
            proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat()),
            any::<String>(),
            any::<String>().prop_map(|tail| format!("/{tail}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn accepted_paths_stay_on_this_site(text in hostile()) {
            for path in [ReturnTo::parse(&text), ReturnTo::of_target(text.as_bytes())].into_iter().flatten() {
                let base = Url::parse("https://app.example/auth/callback").unwrap();
                let target = base.join(path.as_str()).unwrap();
                prop_assert_eq!(target.origin(), base.origin());
                prop_assert!(target.username().is_empty() && target.password().is_none());
                prop_assert!(!target.path().starts_with("//"), "{}", target);
            }
        }
    }
}
