//! Which assurance a path needs.

use std::time::Duration;

use claviger_core::request::Assurance;

use super::path::{Reading, canonical, is_below};
use crate::config::{Route, RouteAssurance};

/// Who may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Anyone. Nothing is checked, and the app is told nothing.
    Anyone,
    /// Whoever is vouched for in this way.
    Vouched(Assurance),
}

impl Admission {
    /// Grows with strictness.
    fn strictness(self) -> (u8, Duration) {
        match self {
            Self::Anyone => (0, Duration::ZERO),
            Self::Vouched(Assurance::Cookie) => (1, Duration::ZERO),
            Self::Vouched(Assurance::Session) => (2, Duration::ZERO),
            Self::Vouched(Assurance::Provider { max_age }) => (3, Duration::MAX.saturating_sub(max_age)),
        }
    }

    fn of(route: &Route) -> Self {
        match route.assurance {
            RouteAssurance::None => Self::Anyone,
            RouteAssurance::Cookie => Self::Vouched(Assurance::Cookie),
            RouteAssurance::Session => Self::Vouched(Assurance::Session),
            RouteAssurance::Provider => {
                let max_age = route.max_age.map_or(Duration::ZERO, |span| span.0);
                Self::Vouched(Assurance::Provider { max_age })
            }
        }
    }
}

/// The rules of all routes.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The longest path first.
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    path: String,
    canonical: String,
    entry: Admission,
}

impl Policy {
    /// Makes a policy of configured routes.
    pub fn new(routes: &[Route]) -> Self {
        let mut rules: Vec<Rule> = routes
            .iter()
            .map(|route| Rule {
                path: route.path.clone(),
                canonical: canonical(&route.path),
                entry: Admission::of(route),
            })
            .collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.path.len()));
        Self { rules }
    }

    /// Who may come to a path: as the longest rule says that its plain reading fits, or a stricter rule that only
    /// another reading fits. A path of which the plain reading fits a rule fits it in every reading.
    pub fn entry(&self, reading: &Reading<'_>) -> Admission {
        let certain = |rule: &&Rule| is_below(reading.raw, &rule.path);
        let decided =
            self.rules.iter().find(certain).map_or(Admission::Vouched(Assurance::Session), |rule| rule.entry);
        let possible = self.rules.iter().filter(|rule| {
            !certain(rule) && reading.canonical.iter().any(|path| is_below(path, &rule.canonical))
        });
        possible.map(|rule| rule.entry).fold(decided, |strictest, entry| {
            if entry.strictness() > strictest.strictness() { entry } else { strictest }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Span, proxy::path};

    fn route(path: &str, assurance: RouteAssurance, max_age_secs: Option<u64>) -> Route {
        let max_age = max_age_secs.map(|secs| Span(Duration::from_secs(secs)));
        Route { path: path.to_owned(), assurance, max_age }
    }

    fn provider(secs: u64) -> Admission {
        Admission::Vouched(Assurance::Provider { max_age: Duration::from_secs(secs) })
    }

    #[test]
    fn the_strictest_reading_of_a_path_decides() {
        let policy = Policy::new(&[
            route("/public", RouteAssurance::None, None),
            route("/public/private", RouteAssurance::Session, None),
            route("/fast", RouteAssurance::Cookie, None),
            route("/admin", RouteAssurance::Provider, Some(300)),
            route("/admin/pay", RouteAssurance::Provider, None),
            route("/admin/logo.png", RouteAssurance::None, None),
        ]);
        let session = Admission::Vouched(Assurance::Session);
        let cookie = Admission::Vouched(Assurance::Cookie);
        let table = [
            ("/", session),
            ("/elsewhere", session),
            ("/public", Admission::Anyone),
            ("/public/", Admission::Anyone),
            ("/public/Picture%20of%20me.JPG", Admission::Anyone),
            ("/publicity", session),
            ("/public/private/x", session),
            ("/public//private", session),
            ("/public/%70rivate", session),
            ("/public/PRIVATE", session),
            ("/PUBLIC", session),
            ("//public", session),
            ("/fast/lane", cookie),
            ("/admin", provider(300)),
            ("/ADMIN", provider(300)),
            ("//admin", provider(300)),
            ("/%61dmin", provider(300)),
            ("/%2561dmin", provider(300)),
            ("/admin;x/y", provider(300)),
            ("/x%2f..", session),
            ("/admin/pay", provider(0)),
            ("/admin//pay", provider(0)),
            ("/admin/logo.png", Admission::Anyone),
            ("/admin//logo.png", provider(300)),
            ("/%61dmin/logo.png", provider(300)),
        ];
        for (raw, expected) in table {
            let Ok(reading) = path::read(raw) else { continue };
            assert_eq!(policy.entry(&reading), expected, "{raw}");
        }
    }

    #[test]
    fn without_rules_everything_needs_a_session() {
        let reading = path::read("/anything").unwrap();
        assert_eq!(Policy::new(&[]).entry(&reading), Admission::Vouched(Assurance::Session));
    }
}
