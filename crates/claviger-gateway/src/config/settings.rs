//! Every setting: its name, type, default, limits, example and documentation.
//!
//! This is the one place where a setting is declared. The structs, the environment variables,
//! `check-config`, the range checks and `docs/configuration.md` follow from it.
//! [`declare`](super::declare) explains the parts of a declaration.

use std::path::PathBuf;

use claviger_axum::{SameSite, SiteData};
use claviger_core::policy::{Cascade, Custody, Rotation};

use super::{
    assertion::Assertion,
    declare::settings,
    endpoints::{ListenAt, Upstream},
    values::{FieldName, HookUrl, HostName, PresetName, Proxies, Secret, SiteUrl, Span, Word},
};

mod operator;

pub use operator::{Log, LogFormat, Metrics, Private};

settings! {
    /// A whole configuration.
    pub struct Config {
        /// The address where the gateway listens, for plain HTTP/1.1 and HTTP/2. The proxy in front
        /// of the gateway terminates TLS.
        ///
        /// `localhost:8080` is `127.0.0.1:8080`, and `:8080` is every address of this computer.
        /// `unix:/run/claviger/claviger.sock` is a Unix socket. Its directory must exist. The user
        /// and the group of the gateway can use the socket, so put the proxy's user into that
        /// group. A socket that a gateway left behind is replaced.
        listen: ListenAt = "127.0.0.1:8080";

        /// The address where browsers reach the gateway. It determines the cookies, which pages may
        /// send changes, and the redirect URI `{public_url}/auth/callback`, to be registered with
        /// the provider. It must be https, unless `insecure_plain_http_for_development` is set.
        public_url: SiteUrl, example "https://app.example";

        /// The address of the app behind the gateway. Without it the gateway serves only its own
        /// pages, as forward-auth needs.
        ///
        /// | form | the app speaks |
        /// |---|---|
        /// | `http://127.0.0.1:3000`, `https://app.internal` | HTTP/1.1, and WebSockets |
        /// | `h2c://127.0.0.1:3000` | HTTP/2 without TLS and without upgrade, and so gRPC. WebSockets do not pass |
        /// | `unix:/run/app/app.sock` | HTTP/1.1, and WebSockets, at a Unix socket |
        upstream: Option<Upstream>, example "http://127.0.0.1:3000";

        /// Other hosts under which browsers may reach the gateway, such as `www.app.example`. Ports
        /// are not compared. A browser that opens any further host is led to the same address at
        /// `public_url`; other requests for it get 421. Users sign in at `public_url` only, so a
        /// browser that needs to is led there.
        ///
        /// `/auth/check`, `/auth/webhook`, `/healthz` and `/readyz` may be asked by any name. So
        /// may everything by a trusted proxy that uses an IP address, `localhost` or a name without
        /// a dot: it is served as `public_url`.
        other_hosts: Vec<HostName> = [];

        /// IP addresses and networks of the proxies in front of the gateway, such as `10.0.0.1` and
        /// `10.0.0.0/8`. Only these may say from whom a
        /// request came, in `X-Forwarded-For`, and at `/auth/check` what the original request was.
        /// Let them pass the `Host` header on.
        ///
        /// A proxy that connects to the Unix socket of `listen` has no address; `unix:` stands for
        /// it. Without that, Claviger ignores what it reports of its clients, and all its
        /// connections count together for `limits.connections_per_address`.
        trusted_proxies: Vec<Proxies> = [];

        /// Allows a `public_url` of plain http on localhost. Never use it in production: cookies
        /// travel unencrypted and are named `claviger-insecure`.
        insecure_plain_http_for_development: bool = false;

        /// The root keys, as `claviger keys generate` prints them. The first key seals, and every
        /// key opens what it sealed. The key with the highest id is the newest. A file is safer:
        /// `keyring_file`.
        keyring: Option<Vec<Secret>>, example ["1:…"];

        /// A file with one root key per line. The first key seals, and every key opens what it
        /// sealed. The key with the highest id is the newest. Empty lines and lines that begin with
        /// `#` are skipped. The gateway reads the file again when it changes and at SIGHUP;
        /// [operations.md](operations.md) explains how to rotate keys.
        keyring_file: Option<PathBuf>, example "/etc/claviger/claviger.keys",
            needed "make a file with `claviger keys generate --file claviger.keys` and give its name";

        /// Where the sessions are stored.
        store: Store;

        /// The provider that users sign in with.
        provider: Provider;

        /// How long sessions live, and how they are protected.
        session: Session;

        /// How the tokens of all sessions are validated.
        sweep: Sweep;

        /// How the provider reports users who disconnect the app.
        webhook: Webhook;

        /// How requests are passed on to the app.
        proxy: Proxy;

        /// The assurance that each path needs. The longest matching path decides; a path that
        /// matches none needs `session`. A path that servers could read in more than one way needs
        /// the strictest assurance of all its readings: in another case, decoded up to three times,
        /// with single slashes, without `;parameters`, without dots and spaces at the end of a
        /// part, without a suffix such as `.json`, and without a script such as `/index.php` before
        /// it. A rule for exactly such a path, suffix included, speaks for itself and for
        /// what lies below it. A path with `..`, a backslash or the like is refused.
        ///
        /// A path that only the app takes for another needs a rule of its own: where the app
        /// answers `/en/admin` or Next.js's `/_next/data/BUILD/admin.json` like `/admin`, guard
        /// these too.
        routes: Vec<Route> = [];

        /// How the browser may call the provider's API.
        api: Api;

        /// What proves to the app who is calling.
        assertion: Assertion;

        /// Limits for connections and requests.
        limits: Limits;

        /// What is exported to Prometheus and to `claviger status`.
        metrics: Metrics;

        /// What servers ask with a credential.
        private: Private;

        /// What is logged.
        log: Log;
    }

    /// `[store]`
    pub struct Store {
        /// The SQLite file that holds the sessions. The gateway creates it; its directory must
        /// exist. Not used if `store.url` or `store.url_file` is set.
        path: PathBuf = "claviger.db";

        /// The PostgreSQL database (13 or newer) that holds the sessions in place of a file.
        /// Several instances can share it. The form `host=/run/postgresql user=claviger
        /// dbname=claviger` works too.
        ///
        /// The tables are in a schema named `claviger`. The gateway creates and migrates them at
        /// start; `claviger migrate` does it beforehand.
        ///
        /// Connections use TLS, and the server's certificate must match its name, unless the
        /// address is a socket in the file system. An address with `sslmode` is refused. An address
        /// may hold a password, so a file is safer: `store.url_file`.
        url: Option<Secret>, example "postgres://claviger:…@db.example/claviger";

        /// A file that holds only the address of the database.
        url_file: Option<PathBuf>, example "/etc/claviger/database-url";

        /// A PEM file with the authorities that may issue the database's certificate. Without it
        /// the authorities of the operating system are trusted.
        ca_file: Option<PathBuf>, example "/etc/claviger/database-ca.pem";

        /// Connects to the database without TLS. Anybody on the network between can read and change
        /// every row, and can impersonate the database. Use it only on a network of your own.
        insecure_plaintext_to_database: bool = false;

        /// Set this if `store.url` leads to a pooler that lends a connection for one transaction,
        /// such as PgBouncer with `pool_mode = transaction`. Statements are then sent unnamed and
        /// planned each time. Such a pooler passes on no notifications: set `store.listen_url_file`
        /// too. Time limits are not set on its connections either: set `statement_timeout` and
        /// `idle_in_transaction_session_timeout` for the role.
        transaction_pooler: bool = false;

        /// The address for receiving the changes of other instances, if it is not `store.url`. It
        /// leads to the same database without any pooler. A file is safer: `store.listen_url_file`.
        listen_url: Option<Secret>, example "postgres://claviger:…@db.example/claviger";

        /// A file that holds only the address for receiving changes.
        listen_url_file: Option<PathBuf>, example "/etc/claviger/database-listen-url";

        /// Maximum number of connections to the database. A quarter is reserved for reads. Two more
        /// connections count sessions and receive changes. The connections of all instances
        /// together must stay below the database's `max_connections`.
        connections: usize = 16, in 1..=1000;

        /// How long a call to the store waits during a short outage, such as a failover or restart
        /// of the database, before its request gets 503. A call is made again only if it certainly
        /// changed nothing. At most 1,024 calls wait at a time, and none once an outage lasts
        /// longer than a minute. Health checks never wait. `0s` turns waiting off. The time limit
        /// of a front proxy must be longer.
        wait: Span = "5s", in "0s"..="1m";

        /// How long a start waits for a database that cannot be reached. Until then `/healthz`
        /// answers 200, and other well-formed requests for the gateway's hosts get 503. A wrong
        /// password or database name ends the start at once.
        start_wait: Span = "1m", in "0s"..="1h";
    }

    /// `[provider]`
    pub struct Provider {
        /// The provider that users sign in with. Its name is also in the path of its API,
        /// `/api/NAME/…`, and in the header `X-Auth-Provider`.
        preset: PresetName = "twitch";

        /// The client id of your app at the provider.
        client_id: String, example "abc123";

        /// The client secret of your app at the provider. A file is safer:
        /// `provider.client_secret_file`.
        client_secret: Option<Secret>, example "…";

        /// A file that holds only the client secret.
        client_secret_file: Option<PathBuf>, example "/etc/claviger/twitch-secret",
            needed "give the name of a file with the client secret, or set provider.client_secret";

        /// The scopes that a sign-in asks the user for, such as `user:read:email`. Ask for as
        /// little as you need.
        scopes: Vec<String> = [];

        /// What a refresh does to the refresh token that was sent:
        ///
        /// - `none`: the token stays valid.
        /// - `rotates`: a new token may come, and the old one stays valid for a while.
        /// - `one_time`: a new token comes, and the old one is spent at once.
        ///
        /// Without this setting and the three below, the habits of the preset apply. What Twitch
        /// does is unproven: its documentation promises nothing, and the habits of its preset are
        /// the likely reading. The cautious setting is `replay_window = "0s"`: a lost answer then
        /// always sends the user to the provider and back.
        ///
        /// | preset | `rotation` | `replay_window` | `reuse_kills_connection` | `old_access_token_survives` |
        /// |---|---|---|---|---|
        /// | `twitch` | `rotates` | `24h` | `false` | `true` |
        rotation: Option<Word<Rotation>>, example "one_time";

        /// How long a refresh token may be sent a second time after the answer to a refresh was
        /// lost. With `"0s"` it never is, and the user signs in again. With rotation `none` it may
        /// be sent at any time.
        replay_window: Option<Span>, in "0s"..="365d", example "0s";

        /// Whether sending a spent refresh token again ends all of the user's sign-ins at this app,
        /// on every device. If it does, set `provider.replay_window` to what the provider promises,
        /// or to `"0s"`.
        reuse_kills_connection: Option<bool>, example true;

        /// Whether an access token stays valid after a refresh. With `false`, an access token that
        /// died early shows that a refresh whose answer was lost did happen. The refresh token is
        /// then not sent again if that could do harm.
        old_access_token_survives: Option<bool>, example false;

        /// Whether refresh tokens are revoked too when a session ends. Set it if they outlive the
        /// revocation of their access token. Only tokens that the server can open are revoked:
        /// those of a device that signs itself out, and all with custody `server`.
        ///
        /// The preset `twitch` does not. It is unproven whether Twitch accepts them, and whether
        /// two sign-ins of one user may get the same refresh token. If they do, revoking it would
        /// sign out another device. With custody `none` no device needs one, so they are revoked
        /// unless this is `false`.
        revokes_refresh_tokens: Option<bool>, example true;

        /// Maximum number of refreshes per second, with bursts of twice this number. A refresh over
        /// the limit waits for at most 12 seconds; then the client must try again. This
        /// protects a provider that returns from an outage.
        refreshes_per_second: u32 = 100, in 1..=100000;

        /// Sends users to a mock of Twitch at this address (`claviger mock-twitch`), where anybody
        /// can sign in as anybody. Needs `insecure_plain_http_for_development`.
        mock_url_for_development: Option<SiteUrl>, example "http://127.0.0.1:8410";
    }

    /// `[session]`
    pub struct Session {
        /// Who can open a refresh token:
        ///
        /// - `device`: only the browser's next request, with the secret in its cookie. A stolen
        ///   database opens none.
        /// - `server`: the server, at any time.
        /// - `none`: nobody. The tokens show once who signed in and are then revoked. Every call
        ///   under `/api/NAME/` is answered with 403, and no route can have assurance `provider`,
        ///   because no token is kept to ask the provider with.
        custody: Word<Custody> = "device";

        /// A session ends when its user has not used it for this time. The minimum is two minutes,
        /// because uses are recorded once a minute.
        idle: Span = "14d", in "2m"..="3650d";

        /// A session ends at this age, used or not.
        absolute: Span = "30d", in "1s"..="3650d";

        /// How long a proof from the provider counts for a request. The default is the check
        /// interval of the preset: `twitch` demands a validation per hour. How often tokens are
        /// validated while nobody uses them is `sweep.period`.
        proof: Span = "1h", in "1s"..="3650d";

        /// How long a session lives while no answer of the provider proves anything.
        max_unverified: Span = "24h", in "1s"..="3650d";

        /// How long before they must be, at most, the tokens of a session in use are refreshed in
        /// the background. Each session has its own moment, so sessions that began together do not
        /// refresh together. With `"0s"` a refresh waits until the last half minute, and a request
        /// waits for it.
        refresh_spread: Span = "10m", in "0s"..="1d";

        /// Maximum number of devices per user. A new sign-in ends the session of the least recently
        /// used device. Twitch keeps about 50 tokens per user and app.
        devices_per_user: u32 = 20, in 1..=1000;

        /// Whether the browser carries its access token in a second sealed cookie. This saves
        /// reading the store on API calls. The cookie is a hint, never authority.
        carry_access_token: bool = false;

        /// How long an instance that is cut off from PostgreSQL, and so from the sign-outs on other
        /// instances, serves requests with assurance `cookie`. After it, `cookie` counts as
        /// `session`. Open streams and WebSockets are closed then, too.
        cookie_when_cut_off: Span = "1m", in "0s"..="1d";

        /// What a browser erases of this site when it signs out (`Clear-Site-Data`). Without
        /// `cache`, the button "Back" may show pages that were only for the user. `cookies` and
        /// `storage` erase what the app keeps in the browser, too.
        clear_site_data: Vec<Word<SiteData>> = ["cache"];

        /// Whether the session cookie comes along from other sites. With `strict` a user who
        /// follows a link from another site arrives signed out.
        same_site: Word<SameSite> = "lax";

        /// What happens to a user's other devices when the token of one device turns out to be dead
        /// early:
        ///
        /// - `confirm`: the gateway asks the provider whether the user disconnected the app, and
        ///   ends the others only if the provider clearly says so. One request covers several
        ///   users.
        /// - `always`: a rejected refresh token ends all of the user's older sessions at once. It
        ///   needs no request, but a token that died alone signs its user out everywhere. These
        ///   sessions end with the reason `administrator`, since nobody asked whether the user
        ///   disconnected the app.
        /// - `never`: each device is on its own. It notices a disconnect when its own token is
        ///   validated, up to `sweep.period` later than the first.
        ///
        /// What the provider itself reports, at the webhook or in a connection check, is always
        /// investigated.
        cascade: Word<Cascade> = "confirm";
    }

    /// `[sweep]`
    pub struct Sweep {
        /// Every access token of a live session is validated once in this time, unless its last
        /// proof is less than three minutes old. A shorter period means as many more validations.
        /// They are spread evenly. The default is five minutes less than the check interval of the
        /// preset. The period must be shorter than `session.proof` by more than two minutes, or
        /// sessions would be without a proof for a while in each round.
        period: Span = "55m", in "1m"..="3650d";

        /// Maximum number of validations per second, for all instances that share a store. After a
        /// 429 the gateway sends fewer for some minutes. `claviger plan` says what your users need,
        /// and `claviger status` whether this suffices.
        validations_per_second: u32 = 20, in 1..=100000;

        /// Whether unused tokens are refreshed before they expire. Needs `session.custody =
        /// "server"`. Without it a session whose access token has expired is parked: it is neither
        /// validated nor refreshed until its user returns, and that request waits for a refresh.
        /// [What parking means](answers.md).
        keep_alive: bool = false;

        /// How often the provider is asked whether users without a living token are still
        /// connected, several users per request. This finds a disconnect when there is no token to
        /// validate.
        connection_check_period: Span = "24h", in "1h"..="30d";
    }

    /// `[webhook]`
    pub struct Webhook {
        /// The secret with which the provider signs webhook events: 10 to 100 visible ASCII
        /// characters of your choice, such as `openssl rand -hex 32` prints. A file is safer:
        /// `webhook.secret_file`.
        ///
        /// With a secret, the gateway subscribes to the provider's events and receives them at
        /// `/auth/webhook`. A user who disconnects the app is then signed out everywhere at once.
        /// Without it there is no webhook. A disconnect is then noticed within `sweep.period`, and
        /// for users without a live token within `sweep.connection_check_period`.
        ///
        /// [operations.md](operations.md#try-the-webhook) shows how to try it.
        secret: Option<Secret>, example "…";

        /// A file that holds only the webhook secret.
        secret_file: Option<PathBuf>, example "/etc/claviger/webhook-secret";

        /// The address where the provider sends events; without it `{public_url}/auth/webhook`.
        /// Twitch wants https on port 443 with a valid certificate, reachable over IPv4. The proxy
        /// in front must pass it on to the gateway's `/auth/webhook`, with body and
        /// `Twitch-Eventsub-…` headers unchanged. Instances that share a store need the same
        /// address.
        callback_url: Option<HookUrl>, example "https://app.example/auth/webhook";
    }

    /// `[proxy]`
    pub struct Proxy {
        /// Whether the app sees the host that the browser asked for, that of `public_url` or one of
        /// `other_hosts`. With `false` it sees its own, from `upstream`.
        preserve_host: bool = true;

        /// Names of headers that the app needs, such as `X-Forwarded-Prefix`, although a client
        /// could make a false claim with them. They pass from `trusted_proxies` only, which must
        /// set or remove them. `X-HTTP-Method-Override` and its like pass from anybody, but not on
        /// a GET.
        ///
        /// Without this setting the app gets no header of this kind, in any spelling:
        ///
        /// | claims | headers |
        /// |---|---|
        /// | from where a request came | `Forwarded`, `X-Forwarded-…`, `X-Real-IP`, `True-Client-IP`, `CF-Connecting-IP` and those of other proxies |
        /// | how it was asked for | `X-Original-…`, `X-Rewrite-…`, `X-Host`, `X-HTTP-Method-Override` |
        /// | by which path | `Script-Name`, `X-Script-Name`, `Path-Info`, `X-Ingress-Path`, `X-Invoke-…` and their like |
        /// | who sent it | `Remote-…`, `X-Remote-…`, `X-WebAuth-…`, `X-User`, `X-Userinfo`, `OIDC-…`, `CF-Access-…` and those of other gateways |
        /// | with which certificate | names with `Client-Cert`, `X-SSL-…`, `SSL-Client-…` |
        /// | settings of servers | `Proxy`, `X-Sendfile-Type`, `X-Accel-Mapping` |
        ///
        /// Claviger itself sets `X-Forwarded-For` from what trusted proxies say, and
        /// `X-Forwarded-Proto` and `X-Forwarded-Host` from `public_url`. `Authorization` and keys
        /// such as `X-API-Key` pass: the app checks them itself. With `log.filter` at `debug` the
        /// log names each header that was removed.
        pass_headers: Vec<FieldName> = [];

        /// How long the app may take to accept a connection.
        connect_timeout: Span = "5s", in "1ns"..="1d";

        /// How long the app may be silent before it begins its answer. The time counts from the
        /// last octet of the request that it took. It does not run while the client pauses, which
        /// `limits.body_pause` limits. The answer itself may take any time.
        answer_timeout: Span = "60s", in "1ns"..="1d";
    }

    /// One of `[[routes]]`
    pub struct Route {
        /// The path and everything below it: `/admin` covers `/admin` and `/admin/…`, but not
        /// `/administrator`.
        path: String, example "/admin";

        /// The methods that the rule is for, in capitals. `GET` includes `HEAD`. Other methods are
        /// judged by the longest rule that is for them. Without this setting a rule is for all
        /// methods, except those of another rule for the same path. Such rules do not protect an
        /// app that takes the method from elsewhere, such as a field of a form. A request with a
        /// header that names a method, such as `X-HTTP-Method-Override`, needs the strictest
        /// assurance of all methods.
        methods: Option<Vec<String>>, example ["GET", "POST"];

        /// Other origins whose pages may read answers and send changes in the user's name (CORS).
        /// A script of such a page can do all that the user can do here. The gateway answers its
        /// preflights, and allows the origin in each answer in which the app does not say itself
        /// who is allowed. Browsers send the session cookie along from pages of the same site
        /// only: from `www.app.example` to `api.app.example`, but not to `other.example`.
        allowed_origins: Option<Vec<SiteUrl>>, example ["https://www.app.example"];

        /// Whether the app answers preflights (CORS) itself. They reach it without a session, from
        /// any origin, and with no identity headers. Other requests are checked as ever: to send
        /// changes with the session cookie, an origin must be in `allowed_origins`.
        passes_preflights: Option<bool>, example true;

        /// What a request needs:
        ///
        /// - `none`: nothing, and the app gets no identity headers.
        /// - `optional`: nothing. The app gets identity headers where a session is known.
        /// - `cookie`: a valid sealed cookie.
        /// - `session`: a session that the provider proved within `session.proof`.
        /// - `provider`: an answer of the provider that is not older than `max_age`.
        ///
        /// As forward-auth, the rules are the minimum of what `/auth/check` requires for the
        /// original address.
        assurance: Word<RouteAssurance>, example "provider";

        /// With assurance `provider`: how old the provider's answer may be. Without it, the
        /// provider is asked on each request. A user whose requests ask for more than their share
        /// of answers is served on one that is up to a second old.
        max_age: Option<Span>, example "5m";

        /// Whether addresses pass that servers may read in different ways: with a backslash, two
        /// slashes at the start, a `%` that begins no escape, an encoded `?` or `#`, or characters
        /// that are not UTF-8 or not encoded. The strictest assurance of all readings counts. Paths
        /// with `..` or control characters never pass.
        tolerates_faults: Option<bool>, example true;
    }

    /// `[api]`
    pub struct Api {
        /// The calls of the provider's API that pass through `/api/NAME/…`, such as
        /// `/api/twitch/users`. NAME is `provider.preset`. With the default, a
        /// user's pages can read the user's own profile only.
        ///
        /// A call that is refused because the token is dead is repeated once with a fresh token.
        /// All other refusals are passed on unchanged. A body over 32 KiB is not kept for
        /// repeating: such a call gets the provider's 401 and the header `X-Claviger-Not-Retried:
        /// body-too-large`, and the caller may send it again at once.
        allow: Vec<Allowed> = [{ method = "GET", path = "/users" }];

        /// Maximum size of the body of an API call, in bytes.
        max_body_bytes: usize = 1048576;

        /// How long the provider's API may take to begin its answer, and how long it may pause
        /// within it.
        answer_timeout: Span = "30s", in "1ns"..="1d";
    }

    /// One of `[[api.allow]]`
    #[derive(PartialEq, Eq)]
    pub struct Allowed {
        /// The method. `GET` allows `HEAD` as well.
        method: String, example "GET";

        /// The path below `/api/NAME`. With `/*` at its end it covers everything below it.
        path: String, example "/users";
    }

    /// `[limits]`
    pub struct Limits {
        /// Maximum number of connections that are served at a time. More are accepted, and
        /// wait for one to end. An
        /// open request over HTTP/2 counts like a connection; more get 503.
        connections: usize = 4096, in 1..=1000000;

        /// Maximum number of connections from one address (IPv6: one /64 network), counted in the
        /// same way. Further ones are closed at once. `trusted_proxies` have no such limit.
        connections_per_address: usize = 1024, in 1..=1000000;

        /// How long a new connection may take to send the whole head of its first request.
        header_read: Span = "10s", in "1ns"..="1d";

        /// How long a used connection may wait for the whole head of its next request. An HTTP/2
        /// connection without requests is closed after this time, although it answers pings. Keep
        /// it
        /// above the time for which the proxy in front keeps idle connections (nginx: 60s, Traefik:
        /// 90s, Caddy: 120s). Otherwise that proxy sometimes uses a connection that is just being
        /// closed.
        keep_alive: Span = "130s", in "1ns"..="1d";

        /// How long the body of a request may pause before the request is aborted.
        body_pause: Span = "60s", in "1ns"..="1d";

        /// How long a client may take nothing of an answer that waits for it. Then its connection
        /// is closed, or over HTTP/2 the stream of that answer.
        answer_pause: Span = "60s", in "1ns"..="1d";

        /// Maximum size of the part of a body that nobody needs, because the answer was given
        /// before. It is read on and discarded, so that the answer arrives; after that the
        /// connection is closed.
        discard_bytes: usize = 67108864, in 0..=1099511627776;

        /// How long such a part of a body is read on. If the app's answer ended before, the app has
        /// this long to read the rest.
        discard_time: Span = "30s", in "1ns"..="1d";

        /// Maximum size of the head of a request, in bytes. Cookies may take 32768 of them; a
        /// browser that sends more gets a page that says so.
        header_bytes: usize = 65536, in 8192..=1048576;

        /// How long the gateway goes on serving after it received a signal to stop, while `/readyz`
        /// says 503 so that a load balancer sends new requests elsewhere. Without this setting it
        /// is 5s with a shared database, and nothing with a file, which no other instance can use.
        shutdown_notice: Option<Span>, in "0s"..="10m", example "15s";

        /// How long requests may take to finish after that. WebSockets and streams of events are
        /// ended at once; clients open them again. See "Time to stop" in operations.md.
        shutdown: Span = "15s", in "0s"..="10m";
    }
}

claviger_core::named! {
    /// `routes.assurance`
    pub enum RouteAssurance {
        /// Every request passes.
        None = "none",
        /// Every request passes, and the app learns who is signed in.
        Optional = "optional",
        /// A valid cookie suffices.
        Cookie = "cookie",
        /// A session with a recent proof.
        Session = "session",
        /// A recent answer of the provider.
        Provider = "provider",
    }
}
