//! Which calls of the provider's API pass.

use http::Method;

/// The calls that pass.
#[derive(Clone, Debug)]
pub struct AllowList {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    method: Method,
    path: String,
    and_below: bool,
}

impl AllowList {
    /// Makes a list of methods and paths. An invalid method allows nothing.
    pub fn new<'a>(allowed: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let rules = allowed.into_iter().filter_map(|(method, path)| {
            let below = path.strip_suffix("/*");
            Some(Rule {
                method: method.parse().ok()?,
                path: below.unwrap_or(path).to_owned(),
                and_below: below.is_some(),
            })
        });
        Self { rules: rules.collect() }
    }

    /// Whether a call passes.
    pub fn permits(&self, method: &Method, path: &str) -> bool {
        self.rules.iter().any(|rule| rule.permits(method, path))
    }
}

impl Rule {
    fn permits(&self, method: &Method, path: &str) -> bool {
        let same_method = self.method == *method || (self.method == Method::GET && *method == Method::HEAD);
        let same_path = if self.and_below {
            path.strip_prefix(&self.path).is_some_and(|rest| rest.starts_with('/'))
        } else {
            path == self.path
        };
        same_method && same_path
    }
}

/// Whether all servers read a path alike: it has segments of letters, digits, `-` and `_` only.
pub fn is_clean(path: &str) -> bool {
    let plain = |segment: &str| {
        !segment.is_empty()
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_calls_pass() {
        let list = AllowList::new([("GET", "/users"), ("POST", "/polls"), ("DELETE", "/moderation/*")]);
        let table = [
            (Method::GET, "/users", true),
            (Method::HEAD, "/users", true),
            (Method::POST, "/users", false),
            (Method::GET, "/users/blocks", false),
            (Method::GET, "/usersx", false),
            (Method::GET, "/Users", false),
            (Method::POST, "/polls", true),
            (Method::HEAD, "/polls", false),
            (Method::DELETE, "/moderation/bans", true),
            (Method::DELETE, "/moderation/a/b", true),
            (Method::DELETE, "/moderation", false),
        ];
        for (method, path, expected) in table {
            assert_eq!(list.permits(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_clean_path_has_plain_segments_only() {
        for path in ["/users", "/a/b", "/channel_points/custom-rewards", "/a1"] {
            assert!(is_clean(path), "{path}");
        }
        let unclean = [
            "",
            "/",
            "users",
            "//users",
            "/users/",
            "/users//x",
            "/./users",
            "/../users",
            "/users/..",
            "/%75sers",
            "/%2e%2e/users",
            "/users%2fx",
            "/a@b",
            "/@evil.example",
            "/a\\b",
            "/a:b",
            "/a;b",
            "/a b",
            "/a.b",
            "/a?b",
            "/\u{e9}",
        ];
        for path in unclean {
            assert!(!is_clean(path), "{path}");
        }
    }
}
