//! Reads a request's path in every way that a server behind us might.
//!
//! The path is forwarded byte for byte. What it means is the app's business, and apps differ: some decode `%2F` before
//! they split, some merge slashes, drop `;parameters` or ignore case. A rule that guards `/admin` must hold for all of
//! them. So a path that climbs (`..`), hides a control character or backslash, or begins like a host (`//`) is refused in any encoding, and of the
//! other differences the policy takes the strictest reading ([`super::policy`]).

/// Claviger's own addresses. Nothing at or below them reaches the app.
pub const OWN: &[&str] = &["/auth", "/api/twitch", "/healthz", "/readyz"];

/// A path that is refused, because servers disagree about what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path of this address can be read in more than one way")]
pub struct Ambiguous;

/// The readings of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// As it was sent and will be forwarded.
    pub raw: &'a str,
    /// As servers may read it that decode once, and twice.
    pub canonical: [String; 2],
}

impl Reading<'_> {
    /// Whether every server reads it alike, but for case and a slash at its end.
    pub fn is_plain(&self) -> bool {
        let raw = self.raw.to_lowercase();
        let raw = raw.strip_suffix('/').unwrap_or(&raw);
        self.canonical.iter().all(|canonical| canonical == raw)
    }
}

/// Reads a path.
///
/// # Errors
/// [`Ambiguous`] if it must be refused.
pub fn read(raw: &str) -> Result<Reading<'_>, Ambiguous> {
    if !raw.starts_with('/') || !raw.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Ambiguous);
    }
    let once = decode(raw.as_bytes()).ok_or(Ambiguous)?;
    // What looks like an escape only after the first decoding may be no escape at all: then there is one reading less.
    let twice = decode(&once).unwrap_or_else(|| once.clone());
    for reading in [raw.as_bytes(), &once, &twice] {
        if climbs_or_hides(reading) || names_a_host(reading) {
            return Err(Ambiguous);
        }
    }
    Ok(Reading { raw, canonical: [fold(&once), fold(&twice)] })
}

/// Whether [`read`] would refuse a path. Cheap for the paths that nobody could read in another way.
pub fn is_refused(raw: &str) -> bool {
    let simple = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_');
    let certain = raw.starts_with('/') && !raw.starts_with("//") && raw.bytes().all(simple);
    !certain && read(raw).is_err()
}

/// How a path is compared that has no escapes of its own, such as a rule's.
pub fn canonical(path: &str) -> String {
    fold(path.as_bytes())
}

/// Whether a path is this prefix or lies below it, segment by segment.
pub fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (high, low) = (hex(rest.next()?)?, hex(rest.next()?)?);
        decoded.push(high << 4 | low);
    }
    Some(decoded)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn climbs_or_hides(path: &[u8]) -> bool {
    path.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\')
        || path.split(|byte| *byte == b'/').any(|segment| matches!(without_parameters(segment), b"." | b".."))
}

/// Servers that read a path as an address take what follows two slashes for a host, and the rest for the path.
fn names_a_host(path: &[u8]) -> bool {
    path.starts_with(b"//")
}

fn without_parameters(segment: &[u8]) -> &[u8] {
    segment.split(|byte| *byte == b';').next().unwrap_or_default()
}

/// Lower case, without parameters, empty segments and a slash at its end.
fn fold(path: &[u8]) -> String {
    let segments = path.split(|byte| *byte == b'/').map(without_parameters);
    let mut folded = String::with_capacity(path.len());
    for segment in segments.filter(|segment| !segment.is_empty()) {
        folded.push('/');
        folded.push_str(&String::from_utf8_lossy(segment).to_lowercase());
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_climbs_or_hides_something_is_refused_in_any_encoding() {
        let refused = [
            "",
            "*",
            "a",
            "http://evil.example/",
            "/..",
            "/../",
            "/a/..",
            "/a/../b",
            "/.",
            "/a/./b",
            "/%2e%2e/a",
            "/%2E./a",
            "/.%2e/a",
            "/a/%2e%2e",
            "/a%2f..%2fb",
            "/a%2F%2e%2e%2fb",
            "/%252e%252e/a",
            "/a%252f%252e%252e/b",
            "/..;/a",
            "/..;x=y/a",
            "/a/..%3b/b",
            "/a/..%253bx/b",
            "//",
            "//x/admin",
            "/%2fx/admin",
            "/%252fx/admin",
            "/a\\b",
            "/a%5cb",
            "/a%5C..%5cb",
            "/a%255cb",
            "/a%00",
            "/a%0d%0ab",
            "/a%2500",
            "/a%7f",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a b",
            "/\u{e9}",
            "/a\tb",
        ];
        for path in refused {
            assert_eq!(read(path), Err(Ambiguous), "{path:?}");
        }
    }

    #[test]
    fn other_paths_are_read_in_each_way() {
        let table = [
            ("/", ["", ""], true),
            ("/a", ["/a", "/a"], true),
            ("/a/", ["/a", "/a"], true),
            ("/A/B", ["/a/b", "/a/b"], true),
            ("/a//b", ["/a/b", "/a/b"], false),
            ("/a%2fb", ["/a/b", "/a/b"], false),
            ("/%61dmin", ["/admin", "/admin"], false),
            ("/%2561dmin", ["/%61dmin", "/admin"], false),
            ("/a;x=1/b", ["/a/b", "/a/b"], false),
            ("/100%25", ["/100%", "/100%"], false),
            ("/...", ["/...", "/..."], true),
            ("/a..b/.c", ["/a..b/.c", "/a..b/.c"], true),
        ];
        for (raw, canonical, plain) in table {
            let reading = read(raw).unwrap();
            assert_eq!(reading.canonical, canonical.map(str::to_owned), "{raw}");
            assert_eq!(reading.is_plain(), plain, "{raw}");
        }
    }

    #[test]
    fn the_short_way_refuses_what_the_long_way_does() {
        for path in ["/", "/a/b-c_d", "//a", "/a//b", "/a/../b", "/a.b", "", "a", "/%2e%2e"] {
            assert_eq!(is_refused(path), read(path).is_err(), "{path}");
        }
    }

    #[test]
    fn below_means_whole_segments() {
        let table = [
            ("/admin", "/admin", true),
            ("/admin/", "/admin", true),
            ("/admin/x", "/admin", true),
            ("/admin/x", "/admin/", true),
            ("/administrator", "/admin", false),
            ("/", "/admin", false),
            ("/anything", "/", true),
        ];
        for (path, prefix, expected) in table {
            assert_eq!(is_below(path, prefix), expected, "{path} {prefix}");
        }
    }
}
