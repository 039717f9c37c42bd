//! Segments that some servers take out of a path.
//!
//! All paths here are in the form of [`canonical`](super::canonical).

use super::segments::{extension, without_end};

/// The endings of scripts. Servers run a script, and hand it the rest of the path: to
/// `/index.php/admin` answers what answers to `/admin`.
const SCRIPTS: [&str; 27] = [
    "php", "php3", "php4", "php5", "php7", "php8", "pht", "phtml", "phar", "asp", "aspx", "ashx", "asmx",
    "axd", "svc", "cgi", "fcgi", "pl", "py", "wsgi", "rb", "lua", "jsp", "jspx", "cfm", "cfc", "dll",
];

/// Whether a path has no aliases.
pub(in crate::request) fn are_none(path: &str) -> bool {
    script(path).is_none() && !path.contains("/(")
}

/// What is left of a path without its tickets, its first script, and both.
pub(super) fn of(path: &str) -> Vec<String> {
    let mut all: Vec<String> = without_tickets(path).into_iter().flatten().collect();
    let whole = all.iter().map(String::as_str).chain([path]);
    let behind: Vec<String> = whole.filter_map(without_script).flatten().collect();
    all.extend(behind);
    all
}

/// A path without its first script, and what follows the script.
fn without_script(path: &str) -> Option<[String; 2]> {
    let (before, behind) = script(path)?;
    Some([format!("{before}{behind}"), behind.to_owned()])
}

/// What stands before and behind the first script, if something follows it.
pub(super) fn script(path: &str) -> Option<(&str, &str)> {
    // Most paths have no dot.
    path.contains('.').then_some(())?;
    let slashes = path.match_indices('/').map(|(slash, _)| slash);
    let ends = slashes.clone().skip(1);
    slashes.zip(ends).find_map(|(slash, end)| {
        let name = path.get(slash + 1..end)?;
        let is_script = extension(without_end(name)).is_some_and(|ending| SCRIPTS.contains(&ending));
        (is_script && path.len() > end + 1)
            .then(|| path.split_at(end))
            .map(|(_, behind)| (&path[..slash], behind))
    })
}

/// A path without the tickets of ASP.NET, which keeps sessions and sign-ins of browsers without
/// cookies in the path: `/(S(x))/admin` is `/admin`. Where more follows a ticket, some versions
/// join it to the segment before.
fn without_tickets(path: &str) -> Option<[String; 2]> {
    path.contains("/(").then_some(())?;
    let (mut apart, mut joined) = (String::new(), String::new());
    let mut found = false;
    for segment in path.split('/').skip(1) {
        let rest = behind_ticket(segment);
        found |= rest.is_some();
        match rest {
            Some("") => {}
            Some(rest) => {
                apart.extend(["/", rest]);
                joined.extend([if joined.is_empty() { "/" } else { "" }, rest]);
            }
            None => {
                apart.extend(["/", segment]);
                joined.extend(["/", segment]);
            }
        }
    }
    found.then_some([apart, joined])
}

/// What follows a ticket such as `(s(x)a(y))` at the start of a segment.
fn behind_ticket(segment: &str) -> Option<&str> {
    let mut rest = segment.strip_prefix('(')?;
    loop {
        let value = rest.strip_prefix(|c: char| c.is_ascii_lowercase())?.strip_prefix('(')?;
        (_, rest) = value.split_once(')')?;
        if let Some(behind) = rest.strip_prefix(')') {
            return Some(behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_tickets_are_taken_out() {
        let table: &[(&str, &[&str])] = &[
            ("/admin", &[]),
            ("/index.php", &[]),
            ("/index.php/admin", &["/admin", "/admin"]),
            ("/public/index.php/admin/x", &["/public/admin/x", "/admin/x"]),
            ("/a.php/index.php/admin", &["/index.php/admin", "/index.php/admin"]),
            ("/index.php::$data/admin", &["/admin", "/admin"]),
            ("/app.js/x", &[]),
            ("/v1.2/x", &[]),
            ("/.php/x", &[]),
            ("/php/x", &[]),
            ("/(s(x))/admin", &["/admin", "/admin"]),
            ("/(s(x)a(y))/admin", &["/admin", "/admin"]),
            ("/(s(x))/ad/(s(y))min", &["/ad/min", "/admin"]),
            ("/(s(x))admin", &["/admin", "/admin"]),
            (
                "/(s(x))/a/index.aspx/y",
                &["/a/index.aspx/y", "/a/index.aspx/y", "/a/y", "/y", "/a/y", "/y", "/(s(x))/a/y", "/y"],
            ),
            ("/(s(x)/admin", &[]),
            ("/(group)/x", &[]),
            ("/products(1)/x", &[]),
            ("/f(x)/(y)", &[]),
        ];
        for (path, expected) in table {
            assert_eq!(of(path), *expected, "{path}");
            assert_eq!(are_none(path), expected.is_empty() && !path.contains("/("), "{path}");
        }
    }
}
