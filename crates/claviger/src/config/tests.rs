use super::*;
use super::{
    layers::literal,
    secrets::Secrets,
    settings::{Kind, SETTINGS, Setting},
};

const MINIMAL: &str = r#"
public_url = "https://app.example"
upstream = "http://127.0.0.1:3000"
keyring = ["1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]

[provider]
client_id = "abc"
client_secret = "canary-secret"
"#;

fn load(text: &str, variables: &[(&str, &str)]) -> Result<(Config, Layers), Problems> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let layers = Layers::defaults().text(text, "claviger.toml")?.environment(variables);
    Ok((Config::new(&layers)?, layers))
}

fn problems(text: &str, variables: &[(&str, &str)]) -> String {
    load(text, variables).map(drop).unwrap_err().to_string()
}

/// The smallest configuration with one line more at the top.
fn with(line: &str) -> String {
    format!("{line}\n{MINIMAL}")
}

#[test]
fn the_smallest_configuration_is_enough() {
    let (config, layers) = load(MINIMAL, &[]).unwrap();
    assert_eq!(config.public_url.origin(), "https://app.example");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.session.idle.0.as_secs(), 14 * 86_400);
    assert_eq!(config.api.allow, [Allowed { method: "GET".into(), path: "/users".into() }]);
    assert!(Secrets::load(&config, &layers).is_ok());
}

#[test]
fn the_environment_stands_above_the_file_and_the_file_above_defaults() {
    let text = format!("{MINIMAL}\n[session]\nidle = \"7d\"\nproof = \"30m\"\n[sweep]\nperiod = \"25m\"\n");
    let variables = [
        ("CLAVIGER_SESSION__IDLE", "3d"),
        ("CLAVIGER_TRUSTED_PROXIES", "10.0.0.1, ::1"),
        ("CLAVIGER_SESSION__CARRY_ACCESS_TOKEN", "true"),
        ("CLAVIGER_LIMITS__CONNECTIONS", "10"),
        ("CLAVIGER_ROUTES", "[{ path = \"/open\", assurance = \"none\" }]"),
        ("CLAVIGER_SERVICE_HOST", "10.0.0.1"),
        ("CLAVIGER_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PATH", "/bin"),
    ];
    let (config, layers) = load(&text, &variables).unwrap();
    assert_eq!(config.session.idle.0.as_secs(), 3 * 86_400);
    assert_eq!(config.session.proof.0.as_secs(), 30 * 60);
    assert_eq!(config.trusted_proxies.len(), 2);
    assert!(config.session.carry_access_token);
    assert_eq!(config.limits.connections, 10);
    assert_eq!(config.routes[0].assurance, RouteAssurance::None);
    let origin = |key| layers.origin(key).unwrap().to_string();
    assert_eq!(origin("session.idle"), "environment variable CLAVIGER_SESSION__IDLE");
    assert_eq!(origin("session.proof"), "claviger.toml line 12");
    assert_eq!(origin("session.absolute"), "default");
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_to_do() {
    let route = |line: &str| format!("{MINIMAL}\n[[routes]]\npath = \"/a\"\nassurance = \"none\"\n{line}\n");
    let session = |line: &str| format!("{MINIMAL}\n[session]\n{line}\n");
    let webhook = |lines: &str| format!("{MINIMAL}[webhook]\n{lines}\n");
    let developed = |line: &str| {
        let text = with("insecure_plain_http_for_development = true\nwebhook.secret = \"canary-of-hook\"");
        text.replace("https://app.example", "http://localhost:8080") + line
    };
    let table = [
        (with("publik_url = \"x\""), vec!["publik_url (claviger.toml line 1)", "did you mean public_url?"]),
        (with("colour = 1"), vec!["colour (claviger.toml line 1): there is no such setting"]),
        (with("session = 3"), vec!["session (claviger.toml line 1): there is no such setting"]),
        (
            session("idel = \"1d\""),
            vec!["session.idel (claviger.toml line 11)", "did you mean session.idle?"],
        ),
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
        (session("idle = \"soon\""), vec!["session.idle (claviger.toml line 11)", "span of time"]),
        (session("idle = 14"), vec!["session.idle", "such as \"30s\""]),
        (session("idle = \"60d\""), vec!["session.idle", "longer than session.absolute"]),
        (session("idle = \"0s\""), vec!["session.idle", "a second at least"]),
        (session("max_unverified = \"1m\""), vec!["session.max_unverified", "shorter than session.proof"]),
        (session("refresh_spread = \"2d\""), vec!["session.refresh_spread", "a day at most"]),
        (session("refresh_spread = \"0s\""), vec![]),
        (session("devices_per_user = 0"), vec!["session.devices_per_user", "from 1 to 1000"]),
        (session("devices_per_user = -1"), vec!["session.devices_per_user"]),
        (session("custody = \"browser\""), vec!["session.custody", "`device`, `server`, `none`"]),
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
        (
            session("proof = \"30m\""),
            vec!["sweep.period (default)", "shorter than session.proof (30m) by more than 2m"],
        ),
        (format!("{MINIMAL}[sweep]\nperiod = \"58m\"\n"), vec!["sweep.period (claviger.toml line 10)"]),
        (format!("{MINIMAL}[sweep]\nperiod = \"57m\"\n[session]\nproof = \"1h 1m\"\n"), vec![]),
        (format!("{MINIMAL}[sweep]\nperiod = \"59s\"\n"), vec!["sweep.period", "a minute at least"]),
        (
            format!("{MINIMAL}[sweep]\nvalidations_per_second = 0\n"),
            vec!["sweep.validations_per_second", "from 1 to 100000", "claviger plan"],
        ),
        (
            format!("{MINIMAL}[sweep]\nprobe_period = \"59m\"\n"),
            vec!["sweep.probe_period", "an hour to 30 days"],
        ),
        (
            format!("{MINIMAL}[sweep]\nkeep_alive = true\n"),
            vec!["sweep.keep_alive", "session.custody = \"server\""],
        ),
        (format!("{MINIMAL}[sweep]\nkeep_alive = true\n[session]\ncustody = \"server\"\n"), vec![]),
        (session("cascade = \"never\""), vec![]),
        (session("cascade = \"all\""), vec!["session.cascade", "`confirm`, `always`, `never`"]),
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
            vec!["webhook.callback_url", "a public address only"],
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
        (format!("{MINIMAL}rotation = \"daily\"\n"), vec!["provider.rotation", "`one_time`"]),
        (format!("{MINIMAL}replay_window = \"2y\"\n"), vec!["provider.replay_window", "a year at most"]),
        (
            format!("{MINIMAL}refreshes_per_second = 0\n"),
            vec!["provider.refreshes_per_second", "from 1 to 100000"],
        ),
        (route("max_age = \"5m\""), vec!["routes[0].max_age (claviger.toml line 13)", "\"provider\" only"]),
        (route("assurence = \"none\""), vec!["routes[0].assurence", "did you mean assurance?"]),
        (
            route("[[routes]]\npath = \"/a/\"\nassurance = \"none\""),
            vec!["routes[1].path", "has a rule already"],
        ),
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
            vec!["routes[1].assurance (claviger.toml line 13)", "is needed"],
        ),
        (
            format!("{MINIMAL}[[api.allow]]\nmethod = \"get\"\npath = \"/users\"\n"),
            vec!["api.allow[0].method", "capitals"],
        ),
        (
            format!("{MINIMAL}[[api.allow]]\nmethod = \"GET\"\npath = \"/a/../b\"\n"),
            vec!["api.allow[0].path", "/*"],
        ),
        (format!("{MINIMAL}[limits]\nheader_bytes = 1\n"), vec!["limits.header_bytes", "from 8192"]),
        (format!("{MINIMAL}[limits]\nheader_read = \"0s\"\n"), vec!["limits.header_read"]),
        (format!("{MINIMAL}[log]\nfilter = \"a=b=c\"\n"), vec!["log.filter", "is no filter"]),
        (with("listen = \"localhost\""), vec!["listen (claviger.toml line 1)"]),
        (with("trusted_proxies = [\"proxy\"]"), vec!["trusted_proxies[0] (claviger.toml line 1)"]),
        (with("keyring_file = \"k\""), vec!["keyring_file (claviger.toml line 1)", "keyring is set as well"]),
        (
            MINIMAL.replace("https:", "http:"),
            vec!["public_url", "https://", "insecure_plain_http_for_development"],
        ),
        (with("insecure_plain_http_for_development = true"), vec!["public_url", "localhost"]),
        (MINIMAL.replace("upstream", "#"), vec![]),
        (MINIMAL.replace(":3000", ":8080"), vec!["upstream", "the gateway itself"]),
        (MINIMAL.replace("public_url", "#"), vec!["public_url", "is needed", "CLAVIGER_PUBLIC_URL"]),
        (MINIMAL.replace("client_id", "#"), vec!["provider.client_id", "CLAVIGER_PROVIDER__CLIENT_ID"]),
        (MINIMAL.replace("client_secret", "#"), vec!["provider.client_secret_file", "is needed"]),
        (MINIMAL.replace("keyring", "#"), vec!["keyring_file", "claviger keys generate"]),
        (
            format!("{MINIMAL}mock_url_for_development = \"http://127.0.0.1:1\"\n"),
            vec!["anybody can sign in as anybody"],
        ),
        ("public_url = ".to_owned(), vec!["the file (claviger.toml line 1): is not TOML"]),
    ];
    for (text, expected) in table {
        let told = load(&text, &[]).map(drop).err().map(|problems| problems.to_string());
        assert_eq!(told.is_none(), expected.is_empty(), "{text}\n{told:?}");
        for words in expected {
            assert!(told.as_ref().unwrap().contains(words), "{words:?} is not told of {text}:\n{told:?}");
        }
    }
}

#[test]
fn all_that_is_missing_is_told_at_once() {
    let told = problems("", &[]);
    for keys in settings::REQUIRED {
        assert!(told.contains(&format!("{}: is needed", keys[0])), "{keys:?} is not told:\n{told}");
    }
    assert_eq!(told.lines().count(), 1 + settings::REQUIRED.len(), "{told}");
    let nobody = Layers::defaults().missing().count();
    assert_eq!((nobody, load(MINIMAL, &[]).unwrap().1.missing().count()), (settings::REQUIRED.len(), 0));
}

#[test]
fn no_wrong_setting_hides_another() {
    let text = r#"
publik_url = "https://app.example"
listen = "localhost"
upstream = 3000
trusted_proxies = ["proxy", "other"]
[session]
idle = "soon"
devices_per_user = -1
custody = "browser"
[[routes]]
path = "/a"
asurance = "none"
[limits]
connections = 0
"#;
    let told = problems(text, &[("CLAVIGER_LIMITS__CONECTIONS", "1"), ("CLAVIGER_LOG__FORMAT", "xml")]);
    for words in [
        "publik_url (claviger.toml line 2): there is no such setting; did you mean public_url?",
        "limits.conections (environment variable CLAVIGER_LIMITS__CONECTIONS): there is no such setting",
        "routes[0].asurance (claviger.toml line 12): there is no such setting; did you mean assurance?",
        "public_url: is needed",
        "keyring_file: is needed",
        "provider.client_id: is needed",
        "provider.client_secret_file: is needed",
        "listen (claviger.toml line 3)",
        "upstream (claviger.toml line 4)",
        "trusted_proxies[0] (claviger.toml line 5)",
        "session.idle (claviger.toml line 7)",
        "session.devices_per_user (claviger.toml line 8)",
        "session.custody (claviger.toml line 9)",
        "routes[0].assurance (claviger.toml line 10): is needed",
        "log.format (environment variable CLAVIGER_LOG__FORMAT)",
    ] {
        assert!(told.contains(words), "{words:?} is not told:\n{told}");
    }
    // What values come to beside each other is told as well, where each by itself is well-formed.
    let told = problems("colour = 1\n[limits]\nconnections = 0\n", &[]);
    for words in
        ["colour", "limits.connections (claviger.toml line 3): has to be from 1", "public_url: is needed"]
    {
        assert!(told.contains(words), "{words:?} is not told:\n{told}");
    }
    assert_eq!(told.matches("public_url").count(), 1, "what stands in for it is not looked at:\n{told}");
}

#[test]
fn a_key_that_is_unknown_leaves_the_others_as_they_are() {
    let text = format!("{MINIMAL}\n[session]\nidel = \"1d\"\nproof = \"30m\"\n");
    let layers = Layers::defaults().text(&text, "claviger.toml").unwrap();
    let shown = explain::settings(&layers);
    assert!(shown.contains("\"30m\"") && shown.contains("\"14d\"") && !shown.contains("idel"), "{shown}");
}

#[test]
fn the_habits_of_the_provider_are_what_the_core_knows_of_twitch_unless_set() {
    let (config, _) = load(MINIMAL, &[]).unwrap();
    assert_eq!(config.provider.habits(), ProviderHabits::TWITCH);
    let more = "rotation = \"one_time\"\nreplay_window = \"0s\"\nreuse_kills_connection = true\n\
                old_access_token_survives = false\n";
    let (config, _) = load(&format!("{MINIMAL}{more}"), &[]).unwrap();
    let expected = ProviderHabits {
        rotation: policy::Rotation::OneTime,
        replay_window: std::time::Duration::ZERO,
        reuse_kills_connection: true,
        old_access_token_survives: false,
    };
    assert_eq!(config.provider.habits(), expected);
    let (config, _) = load(MINIMAL, &[("CLAVIGER_PROVIDER__ROTATION", "none")]).unwrap();
    assert_eq!(config.provider.habits().rotation, policy::Rotation::None);
}

#[test]
fn forward_auth_without_a_trusted_proxy_is_warned_of() {
    let proxy = "trusted_proxies = [\"10.0.0.2\"]\n";
    let alone = MINIMAL.replace("upstream", "#");
    let table = [
        (MINIMAL.to_owned(), false),
        (alone.clone(), true),
        (format!("{proxy}{alone}"), false),
        (format!("listen = \"0.0.0.0:80\"\n{alone}"), true),
    ];
    for (text, expected) in table {
        let told = explain::warnings(&load(&text, &[]).unwrap().0).join("\n");
        assert_eq!(told.contains("the front proxy's word"), expected, "{text}\n{told}");
        assert_eq!(told.matches("to trusted_proxies").count(), usize::from(expected), "{told}");
    }
}

#[test]
fn it_is_told_how_soon_a_disconnect_is_noticed() {
    let table: [(&[(&str, &str)], &str); 4] = [
        (&[], "is signed out within 55m, and not at once (users without a living token within 1day)"),
        (&[("CLAVIGER_SWEEP__PERIOD", "20m")], "within 20m"),
        (&[("CLAVIGER_WEBHOOK__SECRET", "canary-of-hook")], "notices to https://app.example/auth/webhook"),
        (
            &[
                ("CLAVIGER_WEBHOOK__SECRET_FILE", "/run/secret"),
                ("CLAVIGER_WEBHOOK__CALLBACK_URL", "https://hooks.example/twitch"),
            ],
            "lead that address to the gateway's /auth/webhook",
        ),
    ];
    for (variables, expected) in table {
        let told = explain::notes(&load(MINIMAL, variables).unwrap().0).join("\n");
        assert!(told.contains(expected), "{expected:?} is not told: {told}");
    }
}

#[test]
fn variables_that_are_no_settings_are_told() {
    let told = problems(MINIMAL, &[("CLAVIGER_SESION__IDLE", "1d")]);
    assert!(told.contains("environment variable CLAVIGER_SESION__IDLE"), "{told}");
    assert!(told.contains("did you mean session.idle (CLAVIGER_SESSION__IDLE)?"), "{told}");
    let told = problems(MINIMAL, &[("CLAVIGER_LISTEN", "nowhere")]);
    assert!(told.contains("listen (environment variable CLAVIGER_LISTEN)"), "{told}");
}

#[test]
fn a_secret_and_its_file_replace_each_other_between_layers() {
    let (config, _) = load(MINIMAL, &[("CLAVIGER_PROVIDER__CLIENT_SECRET_FILE", "/run/secret")]).unwrap();
    assert!(config.provider.client_secret.is_none());
    let text = MINIMAL.replace("client_secret = \"canary-secret\"", "client_secret_file = \"/run/secret\"");
    let (config, _) = load(&text, &[("CLAVIGER_PROVIDER__CLIENT_SECRET", "other")]).unwrap();
    assert!(config.provider.client_secret_file.is_none());
    assert_eq!(config.provider.client_secret.unwrap().expose(), "other");
}

#[test]
fn no_error_and_no_explanation_shows_a_secret() {
    let (config, layers) = load(MINIMAL, &[]).unwrap();
    let told = [
        explain::settings(&layers),
        format!("{config:?}"),
        explain::warnings(&config).join("\n"),
        problems(&MINIMAL.replace("\"canary-secret\"", "[\"canary-secret\"]"), &[]),
        problems(&MINIMAL.replace("\"canary-secret\"", "\"canary-secret"), &[]),
        problems(&MINIMAL.replace("client_secret", "client_secrets"), &[]),
        problems(
            &MINIMAL.replace("public_url", "public"),
            &[("CLAVIGER_PROVIDER__CLIENT_SECRET", "canary-two")],
        ),
        problems(
            &with("upstream = \"http://user:canary@app\"")
                .replace("upstream = \"http://127.0.0.1:3000\"", ""),
            &[],
        ),
    ];
    for text in told {
        for secret in ["canary", "AAAAAAAA"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    for keyring in ["canary", "1:canary", "canary:AAAA"] {
        let text = MINIMAL.replace("1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", keyring);
        let (config, layers) = load(&text, &[]).unwrap();
        let told = Secrets::load(&config, &layers).unwrap_err().to_string();
        assert!(told.contains("keyring") && !told.contains("canary"), "{told}");
    }
    let text = with("webhook.secret = \"canary secret\"");
    let (config, layers) = load(&text, &[]).unwrap();
    let told = Secrets::load(&config, &layers).unwrap_err().to_string();
    assert!(
        told.contains("webhook.secret") && told.contains("10 to 100") && !told.contains("canary"),
        "{told}"
    );
    let shown = explain::settings(&layers) + &explain::notes(&config).join("\n") + &format!("{config:?}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn secrets_are_read_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("secret"), "s3cret\n").unwrap();
    let keys = "# newest first\n\n2:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
    std::fs::write(path("keys"), keys).unwrap();
    std::fs::write(path("empty"), "\n").unwrap();
    let text = |secret: &str, keys: &str| {
        MINIMAL
            .replace("client_secret = \"canary-secret\"", &format!("client_secret_file = {:?}", path(secret)))
            .replace(
                "keyring = [\"1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"]",
                &format!("keyring_file = {:?}", path(keys)),
            )
    };
    let read = |secret, keys| {
        let (config, layers) = load(&text(secret, keys), &[]).unwrap();
        Secrets::load(&config, &layers)
    };
    let secrets = read("secret", "keys").unwrap();
    assert_eq!(secrets.client_secret.expose(), "s3cret");
    assert_eq!(format!("{:?}", secrets.keyring), "Keyring[2, 1]");
    assert!(secrets.webhook.is_none());
    std::fs::write(path("hook"), "0123456789abcdef\n").unwrap();
    let hook = format!("webhook.secret_file = {:?}\n{}", path("hook"), text("secret", "keys"));
    let (config, layers) = load(&hook, &[]).unwrap();
    assert_eq!(Secrets::load(&config, &layers).unwrap().webhook.unwrap().expose(), "0123456789abcdef");
    let told = read("empty", "missing").unwrap_err().to_string();
    assert!(told.contains("client_secret_file") && told.contains("holds no client secret"), "{told}");
    assert!(told.contains("keyring_file") && told.contains("cannot be read"), "{told}");
    assert!(read("secret", "empty").unwrap_err().to_string().contains("at least one root key"));
}

#[test]
fn the_table_and_the_configuration_know_the_same_keys() {
    for Setting { key, kind, default, example, doc } in SETTINGS {
        assert!(!doc.is_empty() && doc.ends_with('.'), "{key} is not described");
        assert!(literal(example).is_some(), "{key}: the example is no TOML");
        assert!(default.is_none_or(|default| literal(default).is_some()), "{key}: the default is no TOML");
        if let Kind::Tables(keys) = kind {
            let item = keys
                .iter()
                .map(|inner| format!("{} = {}", inner.key, inner.example))
                .collect::<Vec<_>>()
                .join(", ");
            let layers = Layers::defaults().text(MINIMAL, "f").unwrap();
            let layers = layers.text(&format!("{key} = [{{ {item} }}]"), "g").unwrap();
            Config::new(&layers).unwrap();
        }
        // Each key by itself has a field: were there none, serde would call it unknown.
        let mut layers = Layers::defaults().text(MINIMAL, "f").unwrap();
        layers = layers.text(&format!("{key} = {example}"), "g").unwrap();
        if let Err(problems) = Config::new(&layers) {
            assert!(!problems.to_string().contains("unknown field"), "{problems}");
        }
    }
}

#[test]
fn the_documentation_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let (written, made) = (std::fs::read_to_string(path).unwrap_or_default(), reference::markdown());
    if written != made {
        std::fs::write(path, &made).unwrap();
        panic!("docs/configuration.md was out of date and has been written anew: look at it and commit it");
    }
}

#[test]
fn the_address_of_a_database_is_read_and_never_shown() {
    let told = |text: &str| {
        let (config, layers) = load(&with(text), &[]).unwrap();
        assert!(!format!("{config:?}{}", explain::settings(&layers)).contains("canary"), "SECRET");
        let secrets = Secrets::load(&config, &layers).map_err(|problems| problems.to_string());
        assert!(!format!("{secrets:?}").contains("canary"), "SECRET");
        secrets.map(|secrets| secrets.database.is_some())
    };
    assert_eq!(told(""), Ok(false));
    assert_eq!(told("store.url = \"postgres://claviger:canary@db.example/claviger\""), Ok(true));
    assert_eq!(told("store.url = \"host=/run/postgresql user=claviger password=canary\""), Ok(true));
    let weak =
        told("store.url = \"postgres://claviger:canary@db.example/claviger?sslmode=prefer\"").unwrap_err();
    assert!(weak.contains("store.url (claviger.toml line 1): must not say sslmode"), "{weak}");
    let other = told("store.url = \"mysql://claviger:canary@db.example/claviger\"").unwrap_err();
    assert!(other.contains("store.url") && other.contains("PostgreSQL"), "{other}");
    let missing = told("store.url_file = \"no/such/file\"").unwrap_err();
    assert!(missing.contains("store.url_file") && missing.contains("cannot be read"), "{missing}");
    let authorities =
        told("store.url = \"postgres://db.example/claviger\"\nstore.ca_file = \"no/such/file\"");
    assert!(authorities.unwrap_err().contains("store.ca_file (claviger.toml line 2)"));
}

#[test]
fn what_weakens_a_database_is_warned_of() {
    let warned = |text: &str| explain::warnings(&load(&with(text), &[]).unwrap().0).join("\n");
    let url = "store.url = \"postgres://db.example/claviger\"\n";
    assert!(!warned(url).contains("store."));
    let plain = warned(&format!("{url}store.insecure_plaintext_to_database = true"));
    assert!(plain.contains("reads and changes every session"), "{plain}");
    let pooled = warned(&format!("{url}store.transaction_pooler = true"));
    assert!(pooled.contains("store.listen_url_file is not set"), "{pooled}");
}
