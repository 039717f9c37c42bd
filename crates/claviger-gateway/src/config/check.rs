//! What is wrong with the values of a configuration: those outside of their limits, and those that
//! do not fit together.

use claviger_core::{
    policy::{Custody, limits},
    request::{
        host::{self, Host},
        path,
    },
};
use claviger_engine::{SettingsError, registration_problems};
use toml::Value;

use super::{
    declare::Bounds,
    endpoints::{ListenAt, Upstream, Via},
    keys::SETTINGS,
    layers::{Layers, literal},
    problem::Problem,
    settings::{Allowed, Config, Private, Route, RouteAssurance},
    values::{FieldName, HostName, is_loopback},
};
use crate::{
    rules::claims,
    rules::{self, calls},
};

/// The values that are outside of the limits of their settings.
pub(super) fn limits(layers: &Layers) -> Vec<Problem> {
    let outside = SETTINGS.iter().filter_map(|setting| {
        let (limits, value) = (setting.limits?, layers.value(&setting.key)?);
        let is_outside = is_within(value, limits) == Some(false);
        is_outside.then(|| layers.problem(&setting.key, format!("must be {limits}")))
    });
    outside.collect()
}

/// Whether a value is within limits. None: it cannot be compared, and serde reports it.
pub(super) fn is_within(value: &Value, limits: Bounds) -> Option<bool> {
    let (low, high) = (literal(limits.low)?, literal(limits.high)?);
    match (value, &low, &high) {
        (Value::Integer(number), Value::Integer(low), Value::Integer(high)) => {
            Some((low..=high).contains(&number))
        }
        (Value::String(span), Value::String(low), Value::String(high)) => {
            let read = |text: &str| humantime::parse_duration(text).ok();
            Some((read(low)?..=read(high)?).contains(&read(span)?))
        }
        _ => None,
    }
}

/// What is wrong with values that can be read.
pub(super) fn problems(config: &Config, layers: &Layers) -> Vec<Problem> {
    let mut check = Check { config, layers, problems: Vec::new() };
    check.addresses();
    check.hosts();
    check.headers();
    check.assertion();
    check.store();
    check.provider();
    check.engine();
    check.webhook();
    check.private();
    check.routes();
    check.api();
    check.log();
    check.problems
}

struct Check<'a> {
    config: &'a Config,
    layers: &'a Layers,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// Reports a wrong value. A missing one is reported elsewhere, and what stands in for it is
    /// valid.
    fn wrong(&mut self, key: &str, what: impl Into<String>) {
        if !self.layers.missing().any(|setting| setting.key == key) {
            self.problems.push(self.layers.problem(key, what));
        }
    }

    fn ensure(&mut self, holds: bool, key: &str, what: impl Into<String>) {
        if !holds {
            self.wrong(key, what);
        }
    }

    fn assertion(&mut self) {
        let audience = self.config.assertion.audience.as_deref();
        let is_empty = audience.is_some_and(|audience| audience.trim().is_empty());
        self.ensure(!is_empty, "assertion.audience", "must name your app, such as by its address");
    }

    fn addresses(&mut self) {
        let Config { public_url, upstream, listen, insecure_plain_http_for_development: insecure, .. } =
            self.config;
        if *insecure {
            self.ensure(
                public_url.is_loopback(),
                "public_url",
                "must be on localhost while insecure_plain_http_for_development is set; remove that setting for an \
                 address that others can reach",
            );
        } else {
            self.ensure(
                public_url.is_https(),
                "public_url",
                "must begin with https://; for development on this computer set \
                 insecure_plain_http_for_development = true",
            );
        }
        let private = self.config.private.listen.as_ref();
        let itself = upstream.as_ref().is_some_and(|upstream| {
            let is_public =
                !matches!(upstream.via(), Via::Unix(_)) && upstream.site().origin() == public_url.origin();
            is_public || [listen].into_iter().chain(private).any(|own| is_at(upstream, own))
        });
        self.ensure(!itself, "upstream", "is the gateway itself; give the address of the app behind it");
    }

    fn hosts(&mut self) {
        let public = &self.config.public_url;
        for (index, HostName(other)) in self.config.other_hosts.iter().enumerate() {
            let found = host::compare(other.as_bytes(), public.host(), &[], false);
            let what = "is the host of public_url, which is served anyway; ports are not compared";
            self.ensure(found != Host::Public, &format!("other_hosts[{index}]"), what);
        }
    }

    fn headers(&mut self) {
        let has_front = !self.config.trusted_proxies.is_empty();
        for (index, FieldName(name)) in self.config.proxy.pass_headers.iter().enumerate() {
            let (key, name) = (format!("proxy.pass_headers[{index}]"), name.as_str());
            if claims::is_set_by_us(name) {
                self.wrong(&key, "is a header that Claviger sets itself");
            } else if !claims::is_claim(name) {
                self.wrong(&key, "is a header that passes anyway; remove it, or correct its spelling");
            } else if claims::needs_front(name) && !has_front {
                self.wrong(
                    &key,
                    "needs trusted_proxies: a client could send this header itself, so it passes only from a proxy in \
                     front that sets or removes it",
                );
            }
        }
    }

    fn store(&mut self) {
        let store = &self.config.store;
        let of_databases = [
            ("store.ca_file", store.ca_file.is_some()),
            ("store.insecure_plaintext_to_database", store.insecure_plaintext_to_database),
            ("store.transaction_pooler", store.transaction_pooler),
            ("store.listen_url", store.listen_url.is_some()),
            ("store.listen_url_file", store.listen_url_file.is_some()),
        ];
        for (key, is_set) in of_databases {
            self.ensure(
                store.is_shared() || !is_set,
                key,
                "is for a database, and no database is configured; set store.url_file, or remove this setting",
            );
        }
        self.ensure(
            store.ca_file.is_none() || !store.insecure_plaintext_to_database,
            "store.ca_file",
            "has no effect while store.insecure_plaintext_to_database is set; keep one of the two",
        );
    }

    fn provider(&mut self) {
        let provider = &self.config.provider;
        for problem in registration_problems(&provider.client_id, &provider.scopes) {
            self.engine_refuses(problem);
        }
        self.ensure(
            provider.mock_url_for_development.is_none() || self.config.insecure_plain_http_for_development,
            "provider.mock_url_for_development",
            "needs insecure_plain_http_for_development = true, because at a mock anybody can sign in as anybody",
        );
    }

    /// What the engine would refuse, in the words of the configuration.
    fn engine(&mut self) {
        for problem in self.config.engine().problems() {
            self.engine_refuses(problem);
        }
    }

    fn engine_refuses(&mut self, problem: SettingsError) {
        let format = humantime::format_duration;
        let (key, what) = match problem {
            SettingsError::IdleTooLong => (
                "session.idle",
                "is longer than session.absolute, which would end the session first".to_owned(),
            ),
            SettingsError::MaxUnverifiedTooShort => {
                ("session.max_unverified", "is shorter than session.proof".to_owned())
            }
            SettingsError::PeriodTooLong => {
                let what = format!(
                    "must be shorter than session.proof ({}) by more than {}, the time that a validation may be late. \
                     Otherwise a proof expires before the token is validated again. Shorten sweep.period, or lengthen \
                     session.proof",
                    format(self.config.session.proof.0),
                    format(limits::SWEEP_SLACK),
                );
                ("sweep.period", what)
            }
            SettingsError::KeepAliveWithoutCustody => {
                let what = "needs session.custody = \"server\", because otherwise the server cannot open a refresh \
                            token while its user is away. Without keep_alive, unused sessions are parked until their \
                            user returns";
                ("sweep.keep_alive", what.to_owned())
            }
            SettingsError::ClientId => ("provider.client_id", "must be text without spaces".to_owned()),
            SettingsError::Scope => {
                ("provider.scopes", "must be a list of scopes, each a text without spaces".to_owned())
            }
            // The limits of the settings allow no zero.
            SettingsError::Zero(_) => return,
        };
        self.wrong(key, what);
    }

    fn private(&mut self) {
        let Private { listen, credentials_file, insecure_listen_on_network: insecure } = &self.config.private;
        self.ensure(
            listen.is_none() || credentials_file.is_some(),
            "private.listen",
            "needs private.credentials_file; make the file with `claviger credentials add`",
        );
        self.ensure(
            listen.is_some() || credentials_file.is_none(),
            "private.credentials_file",
            "has no effect without private.listen",
        );
        let address = listen.as_ref().and_then(ListenAt::address);
        self.ensure(
            *insecure || address.is_none_or(|address| address.ip().is_loopback()),
            "private.listen",
            "must be an address of this computer only, such as \"127.0.0.1:9465\", or a Unix socket. Containers may \
             need another one: private.insecure_listen_on_network = true allows it",
        );
    }

    fn webhook(&mut self) {
        const KEY: &str = "webhook.callback_url";
        let config = self.config;
        if !config.webhook.is_wanted() {
            let unused = config.webhook.callback_url.is_none();
            self.ensure(unused, KEY, "needs webhook.secret_file: without a secret there is no webhook");
            return;
        }
        let address = config.callback();
        if config.provider.mock_url_for_development.is_some() && is_loopback(&address) {
            return;
        }
        let provider = config.provider.preset.0;
        let Some(events) = provider.webhook_events else {
            let name = provider.display_name;
            self.wrong("webhook.secret", format!("is of no use, because {name} sends no webhook events"));
            return;
        };
        // The address may be the one that follows from public_url.
        if let Err(needed) = events.reaches(&address) {
            let what = format!(
                "is {address}, but {} sends webhook events only to {needed}. Give such an address that leads here; or \
                 remove webhook.secret, and disconnects are noticed within sweep.period, or for users without a live \
                 token within sweep.connection_check_period",
                provider.display_name
            );
            self.wrong(KEY, what);
        }
    }

    fn routes(&mut self) {
        let (routes, api_path) = (&self.config.routes, self.config.provider.api_path());
        for (index, route) in routes.iter().enumerate() {
            let (path_key, age_key) = (format!("routes[{index}].path"), format!("routes[{index}].max_age"));
            if let Err(what) = fits_a_route(route, &api_path) {
                self.wrong(&path_key, what);
            }
            let twice = routes.iter().take(index).any(|other| is_for_the_same(other, route));
            self.ensure(!twice, &path_key, "has a rule already");
            self.methods_of(route, index);
            self.origins_of(route, index);
            let asks = route.assurance.0 == RouteAssurance::Provider;
            self.ensure(
                !(asks && self.config.session.custody.0 == Custody::None),
                &format!("routes[{index}].assurance"),
                "\"provider\" is not possible with session.custody \"none\", because no token is kept to ask the \
                 provider with; choose assurance \"session\", or another custody",
            );
            let aged = route.max_age.is_none() || asks;
            self.ensure(aged, &age_key, "is for assurance \"provider\" only");
        }
    }

    fn methods_of(&mut self, route: &Route, index: usize) {
        let Some(methods) = &route.methods else { return };
        let key = format!("routes[{index}].methods");
        let is_method = |text: &String| {
            let known = http::Method::from_bytes(text.as_bytes()).is_ok();
            known && !text.bytes().any(|byte| byte.is_ascii_lowercase())
        };
        self.ensure(
            !methods.is_empty() && methods.iter().all(is_method),
            &key,
            "must be a list of methods in capitals, such as [\"GET\", \"POST\"]; without it the rule is for all methods",
        );
        let get = !methods.iter().any(|method| method == "HEAD");
        self.ensure(get, &key, "cannot have HEAD, which counts as GET");
    }

    fn origins_of(&mut self, route: &Route, index: usize) {
        let Config { public_url, insecure_plain_http_for_development: insecure, .. } = self.config;
        for (number, origin) in route.allowed_origins.iter().flatten().enumerate() {
            let key = format!("routes[{index}].allowed_origins[{number}]");
            let itself = origin.origin() == public_url.origin();
            self.ensure(!itself, &key, "is public_url, whose pages need no permission");
            self.ensure(
                origin.is_https() || *insecure,
                &key,
                "must begin with https://, since anybody on the network between can change a page of plain http",
            );
        }
    }

    fn api(&mut self) {
        for (index, Allowed { method, path }) in self.config.api.allow.iter().enumerate() {
            let known = ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str());
            let key = format!("api.allow[{index}].method");
            self.ensure(known, &key, "must be one of GET, POST, PUT, PATCH and DELETE, in capitals");
            let key = format!("api.allow[{index}].path");
            let clean = calls::is_clean(path.strip_suffix("/*").unwrap_or(path));
            self.ensure(
                clean,
                &key,
                "must begin with a slash and hold only letters, digits, '-', '_' and '/', with /* at its end for \
                 everything below it",
            );
        }
    }

    fn log(&mut self) {
        let filter = tracing_subscriber::EnvFilter::try_new(&self.config.log.filter);
        self.ensure(
            filter.is_ok(),
            "log.filter",
            "is not a valid filter; write it like \"info\" or \"claviger=debug,warn\"",
        );
    }
}

/// Whether two rules are for the same path and for a method in common. A rule for certain methods
/// goes before one for all.
fn is_for_the_same(one: &Route, other: &Route) -> bool {
    let same_methods = match (&one.methods, &other.methods) {
        (None, None) => true,
        (Some(one), Some(other)) => one.iter().any(|method| other.contains(method)),
        (None, Some(_)) | (Some(_), None) => false,
    };
    same_methods && path::canonical(&one.path) == path::canonical(&other.path)
}

fn fits_a_route(route: &Route, api_path: &str) -> Result<(), String> {
    if !route.path.starts_with('/') {
        return Err("must begin with a slash".to_owned());
    }
    let plain = path::read(&route.path).is_plain();
    if !plain || route.path.contains(['*', '?', '#', '%']) {
        return Err("must be a plain path: no '..', no '//', no '%', no '*', no '?'".to_owned());
    }
    if let Some(own) = rules::own(api_path).into_iter().find(|own| path::is_below(&route.path, own)) {
        return Err(format!("is below {own}, which is Claviger's own and never reaches the app"));
    }
    Ok(())
}

/// Whether requests to the app would arrive at this socket of the gateway.
fn is_at(upstream: &Upstream, own: &ListenAt) -> bool {
    let site = upstream.site();
    match (upstream.via(), own) {
        (Via::Unix(app), ListenAt::Unix(own)) => app == own,
        (Via::Unix(_), _) | (_, ListenAt::Unix(_)) => false,
        (_, ListenAt::Tcp(own)) => {
            let same_port = own.port() != 0 && site.url().port_or_known_default() == Some(own.port());
            same_port && site.is_loopback() && !site.is_https()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A use is recorded once in [`limits::LAST_SEEN_EVERY`], so a shorter idle time would end
    /// sessions in use.
    #[test]
    fn the_shortest_idle_time_is_twice_the_interval_of_recording_uses() {
        let idle = crate::config::keys::find("session.idle").unwrap();
        let shortest = humantime::parse_duration(idle.limits.unwrap().low.trim_matches('"')).unwrap();
        assert_eq!(shortest, 2 * limits::LAST_SEEN_EVERY);
    }

    #[test]
    fn limits_include_their_ends() {
        let numbers = Bounds { low: "1", high: "3" };
        let spans = Bounds { low: "\"1s\"", high: "\"1d\"" };
        let table = [
            (numbers, "0", Some(false)),
            (numbers, "1", Some(true)),
            (numbers, "3", Some(true)),
            (numbers, "4", Some(false)),
            (numbers, "\"2\"", None),
            (spans, "\"999ms\"", Some(false)),
            (spans, "\"1s\"", Some(true)),
            (spans, "\"24h\"", Some(true)),
            (spans, "\"25h\"", Some(false)),
            (spans, "\"soon\"", None),
            (spans, "2", None),
        ];
        for (limits, value, expected) in table {
            assert_eq!(is_within(&literal(value).unwrap(), limits), expected, "{value}");
        }
    }
}
