//! What is wrong with a configuration although each value by itself is well-formed.

use std::time::Duration;

use claviger_core::policy::limits;

use super::{Allowed, Config, Custody, Layers, Problem, Route, RouteAssurance, values::is_loopback};
use crate::{api::allow, proxy::path};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HEADER_BYTES: std::ops::RangeInclusive<usize> = 8 * 1024..=1024 * 1024;
const REPLAY_WINDOW: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const SHUTDOWN: Duration = Duration::from_secs(10 * 60);
const SHORTEST_PERIOD: Duration = Duration::from_secs(60);
const PROBE_PERIOD: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60 * 60)..=Duration::from_secs(30 * 24 * 60 * 60);
const DEVICES: std::ops::RangeInclusive<u32> = 1..=1000;
const DATABASE_CONNECTIONS: std::ops::RangeInclusive<usize> = 1..=1000;
const CONNECTIONS: std::ops::RangeInclusive<usize> = 1..=1_000_000;

/// What is required and nobody gave.
pub(super) fn missing(layers: &Layers) -> Vec<Problem> {
    let told = |keys: &'static [&'static str]| {
        let key = *keys.first()?;
        Some(match key {
            "keyring_file" => layers.problem(
                key,
                "is needed: make one with `claviger keys generate --file claviger.keys` and give its name",
            ),
            "provider.client_secret_file" => layers.problem(
                key,
                "is needed: the name of a file with the client secret; or set provider.client_secret",
            ),
            _ => layers.problem_of_missing(key),
        })
    };
    layers.missing().filter_map(told).collect()
}

/// What is wrong with the values that were given.
pub(super) fn problems(config: &Config, layers: &Layers) -> Vec<Problem> {
    let mut check = Check { config, layers, problems: Vec::new() };
    check.addresses();
    check.store();
    check.provider();
    check.session();
    check.sweep();
    check.webhook();
    check.routes();
    check.api();
    check.limits();
    check.problems
}

struct Check<'a> {
    config: &'a Config,
    layers: &'a Layers,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// Tells what is wrong with a value. That it is missing is told elsewhere, and what stands in for it is right.
    fn wrong(&mut self, key: &str, what: impl Into<String>) {
        if !self.layers.missing().any(|keys| keys.contains(&key)) {
            self.problems.push(self.layers.problem(key, what));
        }
    }

    fn ensure(&mut self, holds: bool, key: &str, what: impl Into<String>) {
        if !holds {
            self.wrong(key, what);
        }
    }

    fn addresses(&mut self) {
        let Config { public_url, upstream, listen, insecure_plain_http_for_development: insecure, .. } =
            self.config;
        if *insecure {
            self.ensure(
                public_url.is_loopback(),
                "public_url",
                "has to be on localhost while insecure_plain_http_for_development is set; take that setting out for \
                 an address that others can reach",
            );
        } else {
            self.ensure(
                public_url.is_https(),
                "public_url",
                "has to begin with https://; for development on this computer set \
                 insecure_plain_http_for_development = true",
            );
        }
        let itself = upstream.as_ref().is_some_and(|upstream| {
            let same_port = upstream.url().port_or_known_default() == Some(listen.port());
            upstream.origin() == public_url.origin()
                || (same_port && listen.port() != 0 && upstream.is_loopback() && !upstream.is_https())
        });
        self.ensure(!itself, "upstream", "is the gateway itself; give the address of the app behind it");
    }

    fn store(&mut self) {
        let store = &self.config.store;
        self.ensure(
            DATABASE_CONNECTIONS.contains(&store.connections),
            "store.connections",
            format!("has to be from {} to {}", DATABASE_CONNECTIONS.start(), DATABASE_CONNECTIONS.end()),
        );
        let alone = [
            ("store.ca_file", store.ca_file.is_some()),
            ("store.insecure_plaintext_to_database", store.insecure_plaintext_to_database),
            ("store.transaction_pooler", store.transaction_pooler),
            ("store.listen_url", store.listen_url.is_some()),
            ("store.listen_url_file", store.listen_url_file.is_some()),
        ];
        for (key, is_set) in alone {
            self.ensure(
                store.is_shared() || !is_set,
                key,
                "is about a database, and none is named; set store.url_file, or take this out",
            );
        }
        self.ensure(
            store.ca_file.is_none() || !store.insecure_plaintext_to_database,
            "store.ca_file",
            "has no use while store.insecure_plaintext_to_database is set; keep one of the two",
        );
    }

    fn provider(&mut self) {
        let provider = &self.config.provider;
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        self.ensure(plain(&provider.client_id), "provider.client_id", "has to be text without spaces");
        self.ensure(
            provider.scopes.iter().all(|scope| plain(scope)),
            "provider.scopes",
            "has to be a list of scopes without spaces, one text each",
        );
        self.ensure(
            provider.mock_url_for_development.is_none() || self.config.insecure_plain_http_for_development,
            "provider.mock_url_for_development",
            "needs insecure_plain_http_for_development = true: at a mock anybody can sign in as anybody",
        );
        self.ensure(
            provider.replay_window.0 <= REPLAY_WINDOW,
            "provider.replay_window",
            "has to be a year at most",
        );
        self.ensure(
            (1..=100_000).contains(&provider.refreshes_per_second),
            "provider.refreshes_per_second",
            "has to be from 1 to 100000",
        );
    }

    fn session(&mut self) {
        let session = &self.config.session;
        let spans = [
            ("session.idle", session.idle.0),
            ("session.absolute", session.absolute.0),
            ("session.proof", session.proof.0),
            ("session.max_unverified", session.max_unverified.0),
        ];
        for (key, span) in spans {
            self.ensure(span >= Duration::from_secs(1), key, "has to be a second at least");
            self.ensure(span <= 3650 * DAY, key, "has to be ten years at most");
        }
        self.ensure(
            session.idle.0 >= 2 * limits::LAST_SEEN_EVERY,
            "session.idle",
            "has to be two minutes at least: uses are written down once a minute",
        );
        self.ensure(
            session.idle.0 <= session.absolute.0,
            "session.idle",
            "is longer than session.absolute, which would end the session first",
        );
        self.ensure(
            session.max_unverified.0 >= session.proof.0,
            "session.max_unverified",
            "is shorter than session.proof",
        );
        self.ensure(session.refresh_spread.0 <= DAY, "session.refresh_spread", "has to be a day at most");
        self.ensure(
            DEVICES.contains(&session.devices_per_user),
            "session.devices_per_user",
            format!("has to be from {} to {}", DEVICES.start(), DEVICES.end()),
        );
    }

    fn sweep(&mut self) {
        let (sweep, session) = (&self.config.sweep, &self.config.session);
        let proof = session.proof.0;
        self.ensure(
            sweep.period.0 + limits::SWEEP_SLACK < proof,
            "sweep.period",
            format!(
                "has to be shorter than session.proof ({}) by more than {}, which a visit may be late: each token is \
                 validated once a period, and its proof would run out before the next; make it shorter, or \
                 session.proof longer",
                humantime::format_duration(proof),
                humantime::format_duration(limits::SWEEP_SLACK),
            ),
        );
        self.ensure(
            sweep.period.0 >= SHORTEST_PERIOD,
            "sweep.period",
            "has to be a minute at least: the provider is asked about every live session in this time",
        );
        self.ensure(
            (1..=100_000).contains(&sweep.validations_per_second),
            "sweep.validations_per_second",
            "has to be from 1 to 100000; `claviger plan` says what your users need",
        );
        self.ensure(
            !sweep.keep_alive || session.custody == Custody::Server,
            "sweep.keep_alive",
            "needs session.custody = \"server\": otherwise the server can open no refresh token while its user is away; \
             take it out, and sessions that nobody uses are parked until their user comes back",
        );
        self.ensure(
            PROBE_PERIOD.contains(&sweep.probe_period.0),
            "sweep.probe_period",
            "has to be from an hour to 30 days",
        );
    }

    fn webhook(&mut self) {
        const KEY: &str = "webhook.callback_url";
        let config = self.config;
        if !config.webhook.is_wanted() {
            let idle = config.webhook.callback_url.is_none();
            self.ensure(idle, KEY, "needs webhook.secret_file: without a secret there is no webhook");
            return;
        }
        let address = config.callback();
        if config.provider.mock_url_for_development.is_some() && is_loopback(&address) {
            return;
        }
        let reachable = address.scheme() == "https"
            && address.port_or_known_default() == Some(443)
            && !is_loopback(&address);
        // The address may be the one that follows from public_url.
        self.ensure(
            reachable,
            KEY,
            format!(
                "is {address}, and Twitch sends notices to https on port 443 of a public address only; give one that \
                 leads here, or take webhook.secret out and disconnects are noticed within sweep.period"
            ),
        );
    }

    fn routes(&mut self) {
        let routes = &self.config.routes;
        for (index, route) in routes.iter().enumerate() {
            let (path_key, age_key) = (format!("routes[{index}].path"), format!("routes[{index}].max_age"));
            if let Err(what) = fits_a_route(route) {
                self.wrong(&path_key, what);
            }
            let twice = routes
                .iter()
                .take(index)
                .any(|other| path::canonical(&other.path) == path::canonical(&route.path));
            self.ensure(!twice, &path_key, "has a rule already");
            let asks = route.assurance == RouteAssurance::Provider;
            self.ensure(
                !(asks && self.config.session.custody == Custody::None),
                &format!("routes[{index}].assurance"),
                "\"provider\" cannot be had with session.custody \"none\": no token is kept to ask the provider with; \
                 choose assurance \"session\", or another custody",
            );
            let aged = route.max_age.is_none() || asks;
            self.ensure(aged, &age_key, "is for assurance \"provider\" only");
        }
    }

    fn api(&mut self) {
        for (index, Allowed { method, path }) in self.config.api.allow.iter().enumerate() {
            let known = ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str());
            let key = format!("api.allow[{index}].method");
            self.ensure(known, &key, "has to be one of GET, POST, PUT, PATCH and DELETE, in capitals");
            let key = format!("api.allow[{index}].path");
            let clean = allow::is_clean(path.strip_suffix("/*").unwrap_or(path));
            self.ensure(
                clean,
                &key,
                "has to begin with a slash and hold letters, digits, '-', '_' and '/' only, with /* at its end for \
                 everything below it",
            );
        }
    }

    fn limits(&mut self) {
        let Config { limits: given, proxy, api, log, .. } = self.config;
        self.ensure(
            CONNECTIONS.contains(&given.connections),
            "limits.connections",
            format!("has to be from {} to {}", CONNECTIONS.start(), CONNECTIONS.end()),
        );
        self.ensure(
            HEADER_BYTES.contains(&given.header_bytes),
            "limits.header_bytes",
            format!("has to be from {} to {}", HEADER_BYTES.start(), HEADER_BYTES.end()),
        );
        let spans = [
            ("limits.header_read", given.header_read.0),
            ("limits.keep_alive", given.keep_alive.0),
            ("limits.body_pause", given.body_pause.0),
            ("proxy.connect_timeout", proxy.connect_timeout.0),
            ("proxy.answer_timeout", proxy.answer_timeout.0),
            ("api.answer_timeout", api.answer_timeout.0),
        ];
        for (key, span) in spans {
            self.ensure(
                !span.is_zero() && span <= DAY,
                key,
                "has to be longer than nothing and a day at most",
            );
        }
        self.ensure(given.shutdown.0 <= SHUTDOWN, "limits.shutdown", "has to be ten minutes at most");
        let filter = tracing_subscriber::EnvFilter::try_new(&log.filter);
        self.ensure(
            filter.is_ok(),
            "log.filter",
            "is no filter; write it like \"info\" or \"claviger=debug,warn\"",
        );
    }
}

fn fits_a_route(route: &Route) -> Result<(), String> {
    if !route.path.starts_with('/') {
        return Err("has to begin with a slash".to_owned());
    }
    let plain = path::read(&route.path).is_ok_and(|reading| reading.is_plain());
    if !plain || route.path.contains(['*', '?', '#', '%']) {
        return Err("has to be a plain path: no '..', no '//', no '%', no '*', no '?'".to_owned());
    }
    if let Some(own) = path::OWN.iter().find(|own| path::is_below(&route.path, own)) {
        return Err(format!("lies below {own}, which is Claviger's own and never reaches the app"));
    }
    Ok(())
}
