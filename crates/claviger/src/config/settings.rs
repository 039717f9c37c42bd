//! Every setting there is: the one table that finds unknown keys, fills in defaults, reads environment variables,
//! explains a configuration and writes docs/configuration.md.

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text that is never shown.
    Secret,
    /// Texts that are never shown.
    Secrets,
    /// The path of a file; relative paths start where the process does.
    Path,
    /// An http or https address.
    Url,
    /// An IP address and a port.
    Socket,
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number,
    /// A span of time such as `"30s"`, `"1h 30m"` or `"14d"`.
    Span,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A list of tables with these keys.
    Tables(&'static [Setting]),
}

impl Kind {
    /// Whether values of this kind are never shown.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::Secrets)
    }

    /// What a value looks like, for people.
    pub fn in_words(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Secret => "secret text".to_owned(),
            Self::Secrets => "list of secret texts".to_owned(),
            Self::Path => "path of a file".to_owned(),
            Self::Url => "address".to_owned(),
            Self::Socket => "IP address and port".to_owned(),
            Self::Switch => "`true` or `false`".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Span => "span of time".to_owned(),
            Self::Word(words) => {
                words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
            }
            Self::Texts => "list of texts".to_owned(),
            Self::Tables(_) => "list of tables".to_owned(),
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key, with dots between the sections.
    pub key: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// Its value where nobody sets it, as TOML. None: it has no value then.
    pub default: Option<&'static str>,
    /// A value as TOML, for the documentation.
    pub example: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

const fn setting(key: &'static str, kind: Kind, default: Option<&'static str>, doc: &'static str) -> Setting {
    Setting {
        key,
        kind,
        default,
        example: match default {
            Some(default) => default,
            None => "",
        },
        doc,
    }
}

const fn needed(key: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Setting {
    Setting { key, kind, default: None, example, doc }
}

/// The keys of one of `[[routes]]`.
pub const ROUTE: &[Setting] = &[
    needed(
        "path",
        Kind::Text,
        "\"/admin\"",
        "The path and everything below it: `/admin` means `/admin` and `/admin/…`, not `/administrator`.",
    ),
    needed(
        "assurance",
        Kind::Word(&["none", "cookie", "session", "provider"]),
        "\"provider\"",
        "Who vouches for a request. `none`: nobody, anyone may come, and the app is told nothing. `cookie`: the sealed \
         cookie. `session`: the session's row, proven by the provider within `session.proof`. `provider`: the provider \
         itself, asked not longer ago than `max_age`.",
    ),
    needed(
        "max_age",
        Kind::Span,
        "\"5m\"",
        "With assurance `provider`: how old its answer may be. Without it, it is asked each time.",
    ),
];

/// The keys of one of `[[api.allow]]`.
pub const ALLOWED: &[Setting] = &[
    needed("method", Kind::Text, "\"GET\"", "The method. `GET` allows `HEAD` as well."),
    needed(
        "path",
        Kind::Text,
        "\"/users\"",
        "The path below `/api/twitch`: exactly this one, or with `/*` at its end everything below it.",
    ),
];

/// All settings, in the order of the documentation.
pub const SETTINGS: &[Setting] = &[
    setting(
        "listen",
        Kind::Socket,
        Some("\"127.0.0.1:8080\""),
        "Where the gateway listens, for plain HTTP/1.1 and HTTP/2. TLS is the business of the proxy in front of it.",
    ),
    needed(
        "public_url",
        Kind::Url,
        "\"https://app.example\"",
        "The address under which browsers reach the gateway. It decides the redirect URI (`{public_url}/auth/callback`, to be registered with the provider), the cookies, and which pages may send changes. It has to be https, unless `insecure_plain_http_for_development` is set.",
    ),
    needed(
        "upstream",
        Kind::Url,
        "\"http://127.0.0.1:3000\"",
        "The app that the gateway stands in front of. Without it only Claviger's own addresses are served, as forward-auth needs.",
    ),
    setting(
        "trusted_proxies",
        Kind::Texts,
        Some("[]"),
        "IP addresses of the proxies in front of the gateway. `X-Forwarded-…` headers count from these only.",
    ),
    setting(
        "insecure_plain_http_for_development",
        Kind::Switch,
        Some("false"),
        "Allows a `public_url` of plain http on localhost. Never for production: cookies travel in the clear and are named `claviger-insecure`.",
    ),
    needed(
        "keyring",
        Kind::Secrets,
        "[\"1:…\"]",
        "The root keys, as `claviger keys generate` prints them. The first seals, each opens what it sealed; the newest is the one with the highest id. Better in a file: `keyring_file`.",
    ),
    needed(
        "keyring_file",
        Kind::Path,
        "\"/etc/claviger/claviger.keys\"",
        "A file with one root key in each line: the first seals, each opens what it sealed, and the newest is the one with the highest id. It is read anew when it changes, and at SIGHUP; [operations.md](operations.md) tells how to rotate. Empty lines and lines that begin with `#` are passed over.",
    ),
    setting(
        "store.path",
        Kind::Path,
        Some("\"claviger.db\""),
        "The SQLite file that holds the sessions. It is made if it does not exist; its directory has to exist. Not used where `store.url` or `store.url_file` is set.",
    ),
    needed(
        "store.url",
        Kind::Secret,
        "\"postgres://claviger:…@db.example/claviger\"",
        "The PostgreSQL database (13 or newer) that holds the sessions in place of a file, so that several instances can share it. Also in the form `host=/run/postgresql user=claviger dbname=claviger`. The tables stand in a schema named `claviger`, and are made and brought up to date at start; `claviger migrate` does so before. The way there is always TLS, and the server's certificate has to have its name, unless it is a socket in the file system; an address with `sslmode` is refused. Since it may hold a password, better in a file: `store.url_file`.",
    ),
    needed(
        "store.url_file",
        Kind::Path,
        "\"/etc/claviger/database-url\"",
        "A file that holds the address of the database and nothing else.",
    ),
    needed(
        "store.ca_file",
        Kind::Path,
        "\"/etc/claviger/database-ca.pem\"",
        "The certificates of the authorities that the database's certificate may be from, as PEM. Without it, those that the operating system believes.",
    ),
    setting(
        "store.insecure_plaintext_to_database",
        Kind::Switch,
        Some("false"),
        "Takes the way to the database without TLS. Whoever is between here and there reads every row, may change it, and may pass for the database. For a network that nobody else is on.",
    ),
    setting(
        "store.transaction_pooler",
        Kind::Switch,
        Some("false"),
        "Whether `store.url` leads to a pooler that gives a connection for one transaction at a time, such as PgBouncer with `pool_mode = transaction`. Statements are then sent without names, and planned each time. Such a pooler cannot be listened through: set `store.listen_url_file` too. Nor are time limits set on connections: set `statement_timeout` and `idle_in_transaction_session_timeout` of the role.",
    ),
    needed(
        "store.listen_url",
        Kind::Secret,
        "\"postgres://claviger:…@db.example/claviger\"",
        "Where the sign-outs of other instances are listened to, if not at `store.url`: the same database, by a way past any pooler. Better in a file: `store.listen_url_file`.",
    ),
    needed(
        "store.listen_url_file",
        Kind::Path,
        "\"/etc/claviger/database-listen-url\"",
        "A file that holds the address to listen at and nothing else.",
    ),
    setting(
        "store.connections",
        Kind::Number,
        Some("16"),
        "So many connections to the database are made at most, a quarter of which is kept for reads; two more are for counting and for listening. Those of all instances together have to be fewer than its `max_connections`.",
    ),
    needed("provider.client_id", Kind::Text, "\"abc123\"", "The client id of your app at Twitch."),
    needed(
        "provider.client_secret",
        Kind::Secret,
        "\"…\"",
        "The client secret of your app at Twitch. Better in a file: `provider.client_secret_file`.",
    ),
    needed(
        "provider.client_secret_file",
        Kind::Path,
        "\"/etc/claviger/twitch-secret\"",
        "A file that holds the client secret and nothing else.",
    ),
    setting(
        "provider.scopes",
        Kind::Texts,
        Some("[]"),
        "What a sign-in asks the user for, such as `user:read:email`. Ask for as little as you need.",
    ),
    setting(
        "provider.rotation",
        Kind::Word(&["none", "rotates", "one_time"]),
        Some("\"rotates\""),
        "What a refresh does to the refresh token that was sent. `none`: it is good again and again. `rotates`: a new one may come, and the old one goes on for a while. `one_time`: a new one comes, and the old one is spent at once. What is known of Twitch here is unproven: its documentation shows and promises nothing that decides it, and the defaults of this setting and the three below are the likely reading. A careful one is `replay_window = \"0s\"`: then a lost answer always costs the device a way to Twitch and back.",
    ),
    setting(
        "provider.replay_window",
        Kind::Span,
        Some("\"24h\""),
        "For so long after a refresh whose answer was lost, the same refresh token is sent once more; with `\"0s\"` it never is, and the user signs in again. With rotation `none` it may be sent at any time. Unproven for Twitch.",
    ),
    setting(
        "provider.reuse_kills_connection",
        Kind::Switch,
        Some("false"),
        "Whether a spent refresh token that is sent again ends all that the user has signed in at this app, on every device. Where it does, set `provider.replay_window` to what the provider promises, or to `\"0s\"`. Unproven for Twitch.",
    ),
    setting(
        "provider.old_access_token_survives",
        Kind::Switch,
        Some("true"),
        "Whether the access token from before a refresh goes on after it. With `false`, an access token that died before its time tells that a refresh whose answer was lost did happen, and where a second use of the refresh token would do harm it is not sent again. Unproven for Twitch.",
    ),
    setting(
        "provider.revokes_refresh_tokens",
        Kind::Switch,
        Some("false"),
        "Whether refresh tokens are revoked too when a session ends, because they live on when their access token is revoked. Only those that the server can open: of a device that signs out itself, or with custody `server`. Whether Twitch takes them is unproven, and so is whether two sign-ins of one user may be given the same one; then revoking it would sign out another device.",
    ),
    setting(
        "provider.refreshes_per_second",
        Kind::Number,
        Some("100"),
        "So many refreshes are sent to the provider in a second, and twice as many at once after a pause. What is over it waits its turn for up to 12 seconds, and is then told to try again. It keeps an app from falling upon a provider that was away for a while.",
    ),
    needed(
        "provider.mock_url_for_development",
        Kind::Url,
        "\"http://127.0.0.1:8410\"",
        "Sends users to a mock of Twitch at this address (`claviger mock-twitch`), where anybody can sign in as anybody. Needs `insecure_plain_http_for_development`.",
    ),
    setting(
        "session.custody",
        Kind::Word(&["device", "server", "none"]),
        Some("\"device\""),
        "Who can open a refresh token. `device`: only the browser's next request, with the secret in its cookie; a stolen database holds none. `server`: the server, at any time. `none`: nobody; the tokens say once who signed in and are revoked. Every call under `/api/twitch/` is then answered with 403, and no route can have assurance `provider`: nothing is kept to ask the provider with.",
    ),
    setting(
        "session.idle",
        Kind::Span,
        Some("\"14d\""),
        "A session that its user does not use for so long ends.",
    ),
    setting("session.absolute", Kind::Span, Some("\"30d\""), "A session of this age ends, used or not."),
    setting(
        "session.proof",
        Kind::Span,
        Some("\"1h\""),
        "A proof from the provider counts for so long. Twitch asks for one an hour.",
    ),
    setting(
        "session.max_unverified",
        Kind::Span,
        Some("\"24h\""),
        "A session may live so long while the provider answers nothing that proves anything.",
    ),
    setting(
        "session.refresh_spread",
        Kind::Span,
        Some("\"10m\""),
        "The tokens of a session in use are refreshed up to so long before they have to be, beside the request that comes by then: each session at its own moment, so that those who signed in together do not come back together. With `\"0s\"` a refresh waits until the last half minute, and a request waits for it.",
    ),
    setting(
        "session.devices_per_user",
        Kind::Number,
        Some("20"),
        "So many devices may a user have signed in; the one used least recently makes room. Twitch keeps about 50 tokens for one user of one app.",
    ),
    setting(
        "session.carry_access_token",
        Kind::Switch,
        Some("false"),
        "Whether the browser carries its access token in a second sealed cookie, which saves reading the store on API calls. It is a hint, never authority.",
    ),
    setting(
        "session.same_site",
        Kind::Word(&["lax", "strict"]),
        Some("\"lax\""),
        "`strict` keeps the session cookie from coming along when somebody follows a link from another site: the user arrives signed out there.",
    ),
    setting(
        "session.cascade",
        Kind::Word(&["confirm", "always", "never"]),
        Some("\"confirm\""),
        "What it means for a user's other devices that one device's token turns out to be dead before its time. `confirm`: the provider is asked whether the user disconnected the app, and only its clear word ends the others; costs one question for ten such users. `always`: a refresh token that the provider rejects ends all of the user's older sessions at once; it costs nothing to ask, and a token that died alone signs its user out everywhere. `never`: each device is on its own, and notices a disconnect when its own token is asked about, so up to `sweep.period` later than the first. What the provider reports by itself, at the webhook or when it is asked about users, is looked into whatever is chosen here.",
    ),
    setting(
        "sweep.period",
        Kind::Span,
        Some("\"55m\""),
        "Every live session's access token is validated once in this time, each in its own part of it, so that the load is even. Twitch asks for it once an hour. It has to be shorter than `session.proof` by more than two minutes, or sessions would go unproven for a while in each round.",
    ),
    setting(
        "sweep.validations_per_second",
        Kind::Number,
        Some("20"),
        "So many access tokens are validated in a second at most, by all instances that share a store. After a 429 fewer are sent for some minutes. `claviger plan` says what your users need, and `claviger status` whether this suffices.",
    ),
    setting(
        "sweep.keep_alive",
        Kind::Switch,
        Some("false"),
        "Whether tokens that nobody uses are refreshed before they expire. Needs `session.custody = \"server\"`. Without it a session whose access token has expired is parked: it is neither validated nor refreshed until its user comes back, which costs that one request a refresh. [What parking means](answers.md).",
    ),
    setting(
        "sweep.probe_period",
        Kind::Span,
        Some("\"24h\""),
        "Users without a living token are asked about once in this time, ten in one question, so that a disconnect is noticed although there is no token to validate.",
    ),
    needed(
        "webhook.secret",
        Kind::Secret,
        "\"…\"",
        "What the provider signs its notices with: 10 to 100 visible ASCII characters that you make up, such as `openssl rand -hex 32` prints. Better in a file: `webhook.secret_file`. With it the gateway subscribes to the provider's notices, takes them at `/auth/webhook`, and a user who disconnects the app is signed out everywhere at once. Without it there is no webhook, and a disconnect is noticed within `sweep.period`.",
    ),
    needed(
        "webhook.secret_file",
        Kind::Path,
        "\"/etc/claviger/webhook-secret\"",
        "A file with the webhook secret, and nothing else.",
    ),
    needed(
        "webhook.callback_url",
        Kind::Url,
        "\"https://app.example/auth/webhook\"",
        "Where the provider sends its notices: `{public_url}/auth/webhook` unless set. Twitch wants https on port 443 with a valid certificate, reachable over IPv4. Whatever is in front has to lead it to the gateway's `/auth/webhook`, body and `Twitch-Eventsub-…` headers unchanged. Instances that share a store have the same.",
    ),
    setting(
        "proxy.preserve_host",
        Kind::Switch,
        Some("true"),
        "Whether the app sees the `Host` that the browser asked for; otherwise it sees its own, from `upstream`.",
    ),
    setting(
        "proxy.connect_timeout",
        Kind::Span,
        Some("\"5s\""),
        "The app has so long to accept a connection.",
    ),
    setting(
        "proxy.answer_timeout",
        Kind::Span,
        Some("\"60s\""),
        "The app has so long to begin its answer. The answer itself may take as long as it likes.",
    ),
    setting(
        "routes",
        Kind::Tables(ROUTE),
        Some("[]"),
        "Which assurance each path needs; the longest path that fits decides, and `session` where none does. A path that servers could read in more than one way needs the strictest assurance of all its readings; one with `..`, a backslash or the like is refused.",
    ),
    setting(
        "api.allow",
        Kind::Tables(ALLOWED),
        Some("[{ method = \"GET\", path = \"/users\" }]"),
        "Which calls of the provider's API pass through `/api/twitch/…`. The default lets a user's pages read the user's own profile and nothing else. A call that is refused because the token is dead is repeated once with a fresh one; every other refusal is passed on as it came. A body of more than 32 KiB is not kept for that: such a call is answered with the provider's 401 and the header `X-Claviger-Not-Retried: body-too-large`, and may be sent again at once.",
    ),
    setting(
        "api.max_body_bytes",
        Kind::Number,
        Some("1048576"),
        "The body of an API call may have so many bytes.",
    ),
    setting(
        "api.answer_timeout",
        Kind::Span,
        Some("\"30s\""),
        "The provider's API has so long to begin its answer, and for each pause within it.",
    ),
    setting(
        "limits.connections",
        Kind::Number,
        Some("4096"),
        "So many connections are served at a time; more wait to be accepted.",
    ),
    setting(
        "limits.header_read",
        Kind::Span,
        Some("\"10s\""),
        "A new connection has so long to send the whole head of its first request.",
    ),
    setting(
        "limits.keep_alive",
        Kind::Span,
        Some("\"130s\""),
        "A connection that was used may wait so long for the whole head of its next request. Keep it above the time for \
         which the proxy in front keeps idle connections (nginx: 60s, Traefik: 90s, Caddy: 120s), or that proxy will now \
         and then use one that is just being closed.",
    ),
    setting(
        "limits.body_pause",
        Kind::Span,
        Some("\"60s\""),
        "The body of a request may pause for so long before the request is given up.",
    ),
    setting(
        "limits.header_bytes",
        Kind::Number,
        Some("32768"),
        "The head of a request may have so many bytes; at least 8192.",
    ),
    setting(
        "limits.shutdown",
        Kind::Span,
        Some("\"25s\""),
        "Requests have so long to finish when the gateway is told to stop.",
    ),
    needed(
        "metrics.listen",
        Kind::Socket,
        "\"127.0.0.1:9464\"",
        "Where metrics are served to Prometheus, at `/metrics`, and how things are to `claviger status`. Without it neither is. It asks nobody who they are, so keep it from the outside. [What there is](metrics.md).",
    ),
    setting(
        "log.format",
        Kind::Word(&["text", "json"]),
        Some("\"text\""),
        "How log lines on standard error look.",
    ),
    setting(
        "log.filter",
        Kind::Text,
        Some("\"info\""),
        "Which log lines are written, in the language of `RUST_LOG`: `info`, `claviger=debug,warn`. The variable `RUST_LOG` counts where neither file nor environment sets this.",
    ),
];

/// What has to be given: one key of each group, the one to recommend first.
pub const REQUIRED: &[&[&str]] = &[
    &["public_url"],
    &["keyring_file", "keyring"],
    &["provider.client_id"],
    &["provider.client_secret_file", "provider.client_secret"],
];

/// The setting of this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// Whether settings lie below this key.
pub fn is_section(key: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key that looks most like an unknown one, if any does.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|key| (distance(unknown, key), key))
        .filter(|(distance, key)| *distance <= key.len().max(unknown.len()) / 3)
        .min()
        .map(|(_, key)| key)
}

/// How many letters have to be added, removed or changed to turn one text into the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut next = vec![line + 1];
        for ((above, before), other) in row.iter().skip(1).zip(&row).zip(&to) {
            let left = next.last().copied().unwrap_or_default();
            next.push((above + 1).min(left + 1).min(before + usize::from(letter != *other)));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_told_what_it_may_have_been_meant_to_be() {
        let keys = || SETTINGS.iter().map(|setting| setting.key);
        let table = [
            ("publicurl", Some("public_url")),
            ("session.idel", Some("session.idle")),
            ("provider.clientid", Some("provider.client_id")),
            ("colour", None),
        ];
        for (unknown, expected) in table {
            assert_eq!(nearest(unknown, keys()), expected, "{unknown}");
        }
    }

    #[test]
    fn distances_are_counted_in_letters() {
        let table = [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("same", "same", 0)];
        for (from, to, expected) in table {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn no_key_is_taken_for_what_container_systems_set_for_a_service_of_our_name() {
        for setting in SETTINGS {
            assert!(
                !setting.key.starts_with("service") && !setting.key.starts_with("port"),
                "{}",
                setting.key
            );
        }
    }
}
