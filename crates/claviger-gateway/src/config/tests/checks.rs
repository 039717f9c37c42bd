//! What is wrong with a configuration is reported with its place and what to do.

use super::{MINIMAL, load, with};

/// Loads each configuration. Its error contains these words; without words it has none.
fn check<const N: usize>(table: [(String, Vec<&str>); N]) {
    for (text, expected) in table {
        let error = load(&text, &[]).map(drop).err().map(|problems| problems.to_string());
        assert_eq!(error.is_none(), expected.is_empty(), "{text}\n{error:?}");
        for words in expected {
            assert!(error.as_ref().unwrap().contains(words), "{words:?} is missing for {text}:\n{error:?}");
        }
    }
}

/// A configuration with a route, and these lines after it.
fn route(lines: &str) -> String {
    format!("{MINIMAL}\n[[routes]]\npath = \"/a\"\nassurance = \"none\"\n{lines}\n")
}

fn session(line: &str) -> String {
    format!("{MINIMAL}\n[session]\n{line}\n")
}

fn webhook(lines: &str) -> String {
    format!("{MINIMAL}[webhook]\n{lines}\n")
}

/// A configuration for development with a webhook, and this line in the section of the provider.
fn developed(line: &str) -> String {
    let text = with("insecure_plain_http_for_development = true\nwebhook.secret = \"canary-of-hook\"");
    text.replace("https://app.example", "http://localhost:8080") + line
}

#[test]
fn unknown_missing_and_doubled_keys_are_reported() {
    check([
        (with("publik_url = \"x\""), vec!["publik_url (claviger.toml line 1)", "did you mean public_url?"]),
        (
            format!("{MINIMAL}trusted_proxies = [\"127.0.0.1\"]\n"),
            vec![
                "provider.trusted_proxies (claviger.toml line",
                "belongs above [provider], at the top of the file",
            ],
        ),
        (with("colour = 1"), vec!["colour (claviger.toml line 1): there is no such setting"]),
        (with("session = 3"), vec!["session (claviger.toml line 1): there is no such setting"]),
        (
            session("idel = \"1d\""),
            vec!["session.idel (claviger.toml line 11)", "did you mean session.idle?"],
        ),
        (route("assurence = \"none\""), vec!["routes[0].assurence", "did you mean assurance?"]),
        (with("keyring_file = \"k\""), vec!["keyring_file (claviger.toml line 1)", "keyring is set as well"]),
        (MINIMAL.replace("public_url", "#"), vec!["public_url", "is required", "CLAVIGER_PUBLIC_URL"]),
        (MINIMAL.replace("client_id", "#"), vec!["provider.client_id", "CLAVIGER_PROVIDER__CLIENT_ID"]),
        (MINIMAL.replace("client_secret", "#"), vec!["provider.client_secret_file", "is required"]),
        (MINIMAL.replace("keyring", "#"), vec!["keyring_file", "claviger keys generate"]),
        ("public_url = ".to_owned(), vec!["the file (claviger.toml line 1): is not TOML"]),
    ]);
}

#[test]
fn addresses_and_limits_are_checked() {
    check([
        (format!("{MINIMAL}[limits]\nheader_bytes = 1\n"), vec!["limits.header_bytes", "from 8192"]),
        (
            format!("{MINIMAL}[limits]\nheader_read = \"0s\"\n"),
            vec!["limits.header_read", "must be from \"1ns\" to \"1d\""],
        ),
        (format!("{MINIMAL}[log]\nfilter = \"a=b=c\"\n"), vec!["log.filter", "is not a valid filter"]),
        (with("listen = \"localhost\""), vec!["listen (claviger.toml line 1)"]),
        (with("trusted_proxies = [\"proxy\"]"), vec!["trusted_proxies[0] (claviger.toml line 1)"]),
        (
            MINIMAL.replace("https:", "http:"),
            vec!["public_url", "https://", "insecure_plain_http_for_development"],
        ),
        (with("insecure_plain_http_for_development = true"), vec!["public_url", "localhost"]),
        (MINIMAL.replace("upstream", "#"), vec![]),
        (MINIMAL.replace(":3000", ":8080"), vec!["upstream", "the gateway itself"]),
        (MINIMAL.replace("http://127.0.0.1:3000", "h2c://127.0.0.1:8080"), vec!["the gateway itself"]),
        (
            format!("listen = \"unix:/a\"\n{}", MINIMAL.replace("http://127.0.0.1:3000", "unix:/a")),
            vec!["the gateway itself"],
        ),
    ]);
}

#[test]
fn the_settings_of_a_database_need_a_database() {
    check([
        (with("store.connections = 0"), vec!["store.connections", "from 1 to 1000"]),
        (with("store.transaction_pooler = true"), vec!["store.transaction_pooler", "set store.url_file"]),
        (with("store.ca_file = \"ca.pem\""), vec!["store.ca_file", "set store.url_file"]),
        (
            with("store.url = \"x\"\nstore.url_file = \"y\""),
            vec!["store.url_file (claviger.toml line 2): store.url is set as well"],
        ),
        (
            with("store.url = \"x\"\nstore.ca_file = \"y\"\nstore.insecure_plaintext_to_database = true"),
            vec!["store.ca_file", "keep one of the two"],
        ),
    ]);
}

#[test]
fn the_settings_of_the_provider_are_checked() {
    check([
        (format!("{MINIMAL}rotation = \"daily\"\n"), vec!["provider.rotation", "`one_time`"]),
        (
            format!("{MINIMAL}replay_window = \"2y\"\n"),
            vec!["provider.replay_window", "must be at most \"365d\""],
        ),
        (
            format!("{MINIMAL}refreshes_per_second = 0\n"),
            vec!["provider.refreshes_per_second", "from 1 to 100000"],
        ),
        (
            format!("{MINIMAL}mock_url_for_development = \"http://127.0.0.1:1\"\n"),
            vec!["anybody can sign in as anybody"],
        ),
    ]);
}

#[test]
fn the_settings_of_sessions_are_checked() {
    check([
        (session("idle = \"soon\""), vec!["session.idle (claviger.toml line 11)", "span of time"]),
        (session("idle = 14"), vec!["session.idle", "such as \"30s\""]),
        (session("idle = \"60d\""), vec!["session.idle", "longer than session.absolute"]),
        (session("idle = \"0s\""), vec!["session.idle", "must be from \"2m\" to \"3650d\""]),
        (session("max_unverified = \"1m\""), vec!["session.max_unverified", "shorter than session.proof"]),
        (session("refresh_spread = \"2d\""), vec!["session.refresh_spread", "must be at most \"1d\""]),
        (session("refresh_spread = \"0s\""), vec![]),
        (session("devices_per_user = 0"), vec!["session.devices_per_user", "from 1 to 1000"]),
        (session("devices_per_user = -1"), vec!["session.devices_per_user"]),
        (session("custody = \"browser\""), vec!["session.custody", "`device`, `server`, `none`"]),
        (session("cascade = \"never\""), vec![]),
        (session("cascade = \"all\""), vec!["session.cascade", "`confirm`, `always`, `never`"]),
    ]);
}

#[test]
fn the_sweep_must_keep_proofs_young() {
    check([
        (
            session("proof = \"30m\""),
            vec!["sweep.period (default)", "shorter than session.proof (30m) by more than 2m"],
        ),
        (format!("{MINIMAL}[sweep]\nperiod = \"58m\"\n"), vec!["sweep.period (claviger.toml line 10)"]),
        (format!("{MINIMAL}[sweep]\nperiod = \"57m\"\n[session]\nproof = \"1h 1m\"\n"), vec![]),
        (format!("{MINIMAL}[sweep]\nperiod = \"59s\"\n"), vec!["sweep.period", "must be from \"1m\""]),
        (
            format!("{MINIMAL}[sweep]\nvalidations_per_second = 0\n"),
            vec!["sweep.validations_per_second", "from 1 to 100000"],
        ),
        (
            format!("{MINIMAL}[sweep]\nconnection_check_period = \"59m\"\n"),
            vec!["sweep.connection_check_period (claviger.toml line 10)", "must be from \"1h\" to \"30d\""],
        ),
        (
            format!("{MINIMAL}[sweep]\nkeep_alive = true\n"),
            vec!["sweep.keep_alive", "session.custody = \"server\""],
        ),
        (format!("{MINIMAL}[sweep]\nkeep_alive = true\n[session]\ncustody = \"server\"\n"), vec![]),
    ]);
}

#[test]
fn a_webhook_needs_a_secret_and_a_public_address() {
    check([
        (webhook("secret = \"canary-of-hook\""), vec![]),
        (
            webhook("secret = \"canary-of-hook\"\nsecret_file = \"f\""),
            vec!["webhook.secret_file", "webhook.secret is set as well"],
        ),
        (
            webhook("callback_url = \"https://app.example/hook\""),
            vec!["webhook.callback_url", "needs webhook.secret_file"],
        ),
        (webhook("secret = \"canary-of-hook\"\ncallback_url = \"https://hooks.example/a/b\""), vec![]),
        (
            webhook("secret = \"canary-of-hook\"\ncallback_url = \"https://hooks.example:8443/a\""),
            vec!["webhook.callback_url (claviger.toml line 11)", "https on port 443"],
        ),
        (
            webhook("secret = \"canary-of-hook\"\ncallback_url = \"http://hooks.example/a\""),
            vec!["webhook.callback_url", "https on port 443"],
        ),
        (
            webhook("secret = \"canary-of-hook\"\ncallback_url = \"https://localhost/a\""),
            vec!["webhook.callback_url", "of a public address"],
        ),
        (
            webhook("secret = \"canary-of-hook\"\ncallback_url = \"https://hooks.example/a?b\""),
            vec!["webhook.callback_url", "without '?'"],
        ),
        (
            webhook("secret = \"canary-of-hook\"").replace("app.example", "app.example:8443"),
            vec!["webhook.callback_url", "is https://app.example:8443/auth/webhook"],
        ),
        (developed(""), vec!["webhook.callback_url", "http://localhost:8080/auth/webhook"]),
        (developed("mock_url_for_development = \"http://127.0.0.1:8410\"\n"), vec![]),
    ]);
}

#[test]
fn routes_and_calls_must_be_plain() {
    check([
        (
            format!(
                "{MINIMAL}[session]\ncustody = \"none\"\n[[routes]]\npath = \"/a\"\nassurance = \"provider\"\n"
            ),
            vec!["routes[0].assurance (claviger.toml line 13)", "no token is kept to ask the provider with"],
        ),
        (
            format!(
                "{MINIMAL}[session]\ncustody = \"none\"\n[[routes]]\npath = \"/a\"\nassurance = \"session\"\n"
            ),
            vec![],
        ),
        (route("max_age = \"5m\""), vec!["routes[0].max_age (claviger.toml line 13)", "\"provider\" only"]),
        (
            route("[[routes]]\npath = \"/a/\"\nassurance = \"none\""),
            vec!["routes[1].path", "has a rule already"],
        ),
        (
            route(
                "methods = [\"GET\", \"POST\"]\n[[routes]]\npath = \"/A\"\nmethods = [\"GET\"]\nassurance = \"none\"",
            ),
            vec!["routes[1].path", "has a rule already"],
        ),
        (route("methods = []"), vec!["routes[0].methods", "a list of methods in capitals"]),
        (route("methods = [\"get\"]"), vec!["routes[0].methods", "a list of methods in capitals"]),
        (route("methods = [\"HEAD\"]"), vec!["routes[0].methods", "counts as GET"]),
        (
            route("allowed_origins = [\"https://b.example\", \"http://www.app.example\"]"),
            vec!["routes[0].allowed_origins[1]", "must begin with https://"],
        ),
        (
            route("allowed_origins = [\"https://app.example\"]"),
            vec!["routes[0].allowed_origins[0]", "is public_url"],
        ),
        (route("allowed_origins = [\"*\"]"), vec!["routes[0].allowed_origins"]),
        (
            route("[[routes]]\npath = \"a\"\nassurance = \"none\""),
            vec!["routes[1].path", "begin with a slash"],
        ),
        (route("[[routes]]\npath = \"/a/../b\"\nassurance = \"none\""), vec!["routes[1].path", "plain path"]),
        (route("[[routes]]\npath = \"/a/*\"\nassurance = \"none\""), vec!["routes[1].path", "no '*'"]),
        (
            route("[[routes]]\npath = \"/auth/x\"\nassurance = \"none\""),
            vec!["routes[1].path", "Claviger's own"],
        ),
        (
            route("[[routes]]\npath = \"/b\""),
            vec!["routes[1].assurance (claviger.toml line 13)", "is required"],
        ),
        (
            format!("{MINIMAL}[[api.allow]]\nmethod = \"get\"\npath = \"/users\"\n"),
            vec!["api.allow[0].method", "capitals"],
        ),
        (
            format!("{MINIMAL}[[api.allow]]\nmethod = \"GET\"\npath = \"/a/../b\"\n"),
            vec!["api.allow[0].path", "/*"],
        ),
    ]);
}

#[test]
fn the_private_listener_is_for_this_computer_and_needs_credentials() {
    let private = |lines: &str| format!("{MINIMAL}[private]\ncredentials_file = \"c\"\n{lines}\n");
    let behind = |app: &str, listen: &str| private(listen).replace("http://127.0.0.1:3000", app);
    check([
        (private("listen = \"127.0.0.1:9465\""), vec![]),
        (private("listen = \"[::1]:9465\""), vec![]),
        (private("listen = \"unix:/run/claviger/private.sock\""), vec![]),
        (
            private("listen = \":9465\""),
            vec!["private.listen", "an address of this computer only", "private.insecure_listen_on_network"],
        ),
        (private("listen = \"10.0.0.7:9465\""), vec!["an address of this computer only"]),
        (private("listen = \":9465\"\ninsecure_listen_on_network = true"), vec![]),
        (private(""), vec!["private.credentials_file", "has no effect without private.listen"]),
        (
            format!("{MINIMAL}[private]\nlisten = \"127.0.0.1:9465\"\n"),
            vec!["needs private.credentials_file", "claviger credentials add"],
        ),
        (behind("http://127.0.0.1:9465", "listen = \"127.0.0.1:9465\""), vec!["is the gateway itself"]),
        (behind("unix:/run/p.sock", "listen = \"unix:/run/p.sock\""), vec!["is the gateway itself"]),
        (behind("http://127.0.0.1:9466", "listen = \"127.0.0.1:9465\""), vec![]),
    ]);
}
