//! Which assurance a path of the app needs.

use std::{sync::Arc, time::Duration};

use super::{
    Assurance,
    path::{Fault, Readings, canonical, has_no_aliases, is_below, may_be_below},
};

/// Which requests pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// All. Nothing is checked, and the app gets no identity headers.
    Anyone,
    /// All. The app gets identity headers where there is a session.
    Optional,
    /// Those of a session with this assurance.
    Vouched(Assurance),
}

impl Default for Admission {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Admission {
    /// What a path needs that no rule mentions.
    pub const DEFAULT: Self = Self::Vouched(Assurance::Session);

    /// The stricter of two.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        if other.strictness() > self.strictness() { other } else { self }
    }

    /// A rank that grows with strictness.
    fn strictness(self) -> (u8, Duration) {
        match self {
            Self::Anyone => (0, Duration::ZERO),
            Self::Optional => (1, Duration::ZERO),
            Self::Vouched(Assurance::Cookie) => (2, Duration::ZERO),
            Self::Vouched(Assurance::Row) => (3, Duration::ZERO),
            Self::Vouched(Assurance::Session) => (4, Duration::ZERO),
            Self::Vouched(Assurance::Provider { max_age }) => (5, Duration::MAX.saturating_sub(max_age)),
        }
    }
}

/// A path and everything below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The path, plain.
    pub path: String,
    /// The methods that the rule is for, in capitals. Without any it is for all. `GET` includes
    /// `HEAD`.
    pub methods: Vec<String>,
    /// Which requests pass.
    pub admission: Admission,
    /// Which faults of a path are refused.
    pub faults: Faults,
    /// What pages of other origins may do.
    pub cross_origin: CrossOrigin,
}

/// Which faults of a path are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faults {
    /// All of them.
    #[default]
    Refused,
    /// Those that no honest address has.
    Tolerated,
}

/// What pages of other origins may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrossOrigin {
    /// Origins whose pages may read answers and send changes, such as `https://www.app.example`.
    pub allowed: Vec<String>,
    /// Whether the app answers preflights.
    pub passes_preflights: bool,
}

/// What happens with a preflight: the question of a browser whether a page of another origin may
/// send a request (Fetch standard, "CORS-preflight request"). It never carries a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preflight {
    /// It needs what any request needs.
    Ordinary,
    /// The app answers it.
    Passes,
    /// Yes.
    Allowed,
}

impl CrossOrigin {
    /// Whether pages of this origin may read answers and send changes.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.allowed.iter().any(|allowed| allowed.as_bytes() == origin)
    }

    /// What happens with a preflight for a page of this origin.
    pub fn preflight(&self, origin: &[u8]) -> Preflight {
        if self.passes_preflights {
            Preflight::Passes
        } else if self.allows(origin) {
            Preflight::Allowed
        } else {
            Preflight::Ordinary
        }
    }
}

/// The method that a rule is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedMethod<'a> {
    /// This one.
    One(&'a str),
    /// The app may take the request for one of any method.
    Any,
}

/// What the rules say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling<'a> {
    /// What it needs.
    pub admission: Admission,
    /// What pages of other origins may do, if the path has one reading.
    pub cross_origin: Option<&'a CrossOrigin>,
}

/// The rules of all routes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The longest path first; among rules for one path, those for certain methods first.
    rules: Arc<[Rule]>,
}

#[derive(Clone, Debug)]
struct Rule {
    canonical: String,
    /// Whether its path names a script, below which servers may answer by another path.
    names_script: bool,
    route: Route,
}

impl Rule {
    fn new(route: Route) -> Self {
        let canonical = canonical(&route.path);
        let names_script = !has_no_aliases(&format!("{canonical}/x"));
        Self { canonical, names_script, route }
    }

    fn is_for(&self, method: &str) -> bool {
        let (methods, method) = (&self.route.methods, if method == "HEAD" { "GET" } else { method });
        methods.is_empty() || methods.iter().any(|listed| listed == method)
    }
}

impl Policy {
    /// Makes a policy of routes.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let mut rules: Vec<Rule> = routes.into_iter().map(Rule::new).collect();
        rules.sort_by_key(|rule| {
            let Route { path, methods, .. } = &rule.route;
            (std::cmp::Reverse(path.len()), methods.is_empty())
        });
        Self { rules: rules.into() }
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What a request needs, and what pages of other origins may do.
    ///
    /// # Errors
    /// The fault for which the path is refused.
    pub fn ruling(
        &self,
        method: AskedMethod<'_>,
        raw: &str,
        readings: &Readings,
    ) -> Result<Ruling<'_>, Fault> {
        let asked = self.asks(method, raw, readings)?;
        Ok(asked.unwrap_or(Ruling { admission: Admission::DEFAULT, cross_origin: None }))
    }

    /// What the rules say of a request, or `None` if they do not mention it. The longest rule that
    /// matches method and path as they were sent decides, unless a stricter rule matches another
    /// reading. A rule that matches the path as it was sent matches all readings.
    ///
    /// # Errors
    /// The fault for which the path is refused.
    pub fn asks(
        &self,
        method: AskedMethod<'_>,
        raw: &str,
        readings: &Readings,
    ) -> Result<Option<Ruling<'_>>, Fault> {
        match method {
            AskedMethod::One(method) => self.asks_for(method, raw, readings),
            AskedMethod::Any => self.asks_for_any(raw, readings),
        }
    }

    /// The strictest ruling for all methods that rules name, and for one that none names.
    fn asks_for_any(&self, raw: &str, readings: &Readings) -> Result<Option<Ruling<'_>>, Fault> {
        let named = self.rules.iter().flat_map(|rule| &rule.route.methods).map(String::as_str);
        let mut mentioned = false;
        let mut admission: Option<Admission> = None;
        for method in named.chain([""]) {
            let asked = self.asks_for(method, raw, readings)?;
            mentioned |= asked.is_some();
            let needed = asked.map_or(Admission::DEFAULT, |ruling| ruling.admission);
            admission = Some(admission.map_or(needed, |known| known.stricter(needed)));
        }
        Ok(admission.filter(|_| mentioned).map(|admission| Ruling { admission, cross_origin: None }))
    }

    fn asks_for(&self, method: &str, raw: &str, readings: &Readings) -> Result<Option<Ruling<'_>>, Fault> {
        let rules = || self.rules.iter().filter(|rule| rule.is_for(method));
        let certain = |rule: &&Rule| is_below(raw, &rule.route.path);
        let decided = rules().find(certain);
        let tolerated = decided.is_some_and(|rule| rule.route.faults == Faults::Tolerated);
        if let Some(fault) = readings.fault()
            && !(tolerated && fault.may_pass())
        {
            return Err(fault);
        }
        let named = decided.map_or("", |rule| rule.canonical.as_str());
        let matches = |rule: &Rule| {
            let below = |path: &str| may_be_below(path, &rule.canonical, named);
            readings.whole(raw).any(below) || readings.aliases().any(below)
        };
        let mut possible = rules().filter(|rule| !certain(rule) && matches(rule)).peekable();
        // A path that no rule mentions as it was sent passes no more easily by another reading. And
        // a path with a fault or an alias may be read as one that no rule mentions.
        let unmentioned = |path: &str| !rules().any(|rule| is_below(path, &rule.canonical));
        let may_be_unmentioned = match decided {
            Some(rule) => {
                readings.fault().is_some() && readings.whole(raw).any(unmentioned)
                    || !rule.names_script && readings.aliases().any(unmentioned)
            }
            None => possible.peek().is_some(),
        };
        let is_clear = possible.peek().is_none() && !may_be_unmentioned;
        let asked = decided.into_iter().chain(possible).map(|rule| rule.route.admission);
        let default = may_be_unmentioned.then_some(Admission::DEFAULT);
        let admission = asked.chain(default).reduce(Admission::stricter);
        let cross_origin = decided.filter(|_| is_clear).map(|rule| &rule.route.cross_origin);
        Ok(admission.map(|admission| Ruling { admission, cross_origin }))
    }
}

#[cfg(test)]
mod tests;
