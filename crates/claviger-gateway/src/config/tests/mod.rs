use claviger_core::{ProviderHabits, Rotation};
use claviger_provider::twitch;

use super::*;
use super::{declare::Setting, keys::SETTINGS, layers::literal, secrets::Secrets};

mod checks;

pub(super) const MINIMAL: &str = r#"
public_url = "https://app.example"
upstream = "http://127.0.0.1:3000"
keyring = ["1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"]

[provider]
client_id = "abc"
client_secret = "canary-secret"
"#;

pub(super) fn load(text: &str, variables: &[(&str, &str)]) -> Result<(Config, Layers), Problems> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let layers = Layers::defaults().text(text, "claviger.toml")?.environment(variables);
    Ok((Config::new(&layers)?, layers))
}

fn problems(text: &str, variables: &[(&str, &str)]) -> String {
    load(text, variables).map(drop).unwrap_err().to_string()
}

/// The smallest configuration with one line more at the top.
pub(super) fn with(line: &str) -> String {
    format!("{line}\n{MINIMAL}")
}

#[test]
fn the_smallest_configuration_is_enough() {
    let (config, layers) = load(MINIMAL, &[]).unwrap();
    assert_eq!(config.public_url.origin(), "https://app.example");
    assert_eq!(config.listen.address().unwrap().to_string(), "127.0.0.1:8080");
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
    assert_eq!(config.routes[0].assurance.0, RouteAssurance::None);
    let origin = |key| layers.origin(key).unwrap().to_string();
    assert_eq!(origin("session.idle"), "environment variable CLAVIGER_SESSION__IDLE");
    assert_eq!(origin("session.proof"), "claviger.toml line 12");
    assert_eq!(origin("session.absolute"), "default");
}

#[test]
fn all_missing_settings_are_reported_at_once() {
    let shown = problems("", &[]);
    let required = ["public_url", "keyring_file", "provider.client_id", "provider.client_secret_file"];
    for key in required {
        assert!(shown.contains(&format!("{key}: is required")), "{key} is missing:\n{shown}");
    }
    assert_eq!(shown.lines().count(), 1 + required.len(), "{shown}");
    let nobody = Layers::defaults().missing().count();
    assert_eq!((nobody, load(MINIMAL, &[]).unwrap().1.missing().count()), (required.len(), 0));
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
    let shown = problems(text, &[("CLAVIGER_LIMITS__CONECTIONS", "1"), ("CLAVIGER_LOG__FORMAT", "xml")]);
    for words in [
        "publik_url (claviger.toml line 2): there is no such setting; did you mean public_url?",
        "limits.conections (environment variable CLAVIGER_LIMITS__CONECTIONS): there is no such setting",
        "routes[0].asurance (claviger.toml line 12): there is no such setting; did you mean assurance?",
        "public_url: is required",
        "keyring_file: is required",
        "provider.client_id: is required",
        "provider.client_secret_file: is required",
        "listen (claviger.toml line 3): expected an IP address and a port, such as \"127.0.0.1:8080\"",
        "upstream (claviger.toml line 4)",
        "trusted_proxies[0] (claviger.toml line 5): expected an IP address, such as \"127.0.0.1\"",
        "session.idle (claviger.toml line 7)",
        "session.devices_per_user (claviger.toml line 8)",
        "session.custody (claviger.toml line 9)",
        "routes[0].assurance (claviger.toml line 10): is required",
        "log.format (environment variable CLAVIGER_LOG__FORMAT)",
    ] {
        assert!(shown.contains(words), "{words:?} is missing:\n{shown}");
    }
    // Values that do not fit together are reported too, if each by itself can be read.
    let shown = problems("colour = 1\n[limits]\nconnections = 0\n", &[]);
    for words in [
        "colour",
        "limits.connections (claviger.toml line 3): must be from 1 to 1000000",
        "public_url: is required",
    ] {
        assert!(shown.contains(words), "{words:?} is missing:\n{shown}");
    }
    assert_eq!(shown.matches("public_url").count(), 1, "what stands in for it is not looked at:\n{shown}");
}

#[test]
fn a_key_that_is_unknown_leaves_the_others_as_they_are() {
    let text = format!("{MINIMAL}\n[session]\nidel = \"1d\"\nproof = \"30m\"\n");
    let layers = Layers::defaults().text(&text, "claviger.toml").unwrap();
    let shown = explain::settings(&layers);
    assert!(shown.contains("\"30m\"") && shown.contains("\"14d\"") && !shown.contains("idel"), "{shown}");
}

#[test]
fn defaults_follow_from_the_check_interval_of_the_preset() {
    let mut preset = twitch::PRESET;
    let mut layers = Layers::defaults();
    layers.follow(&preset);
    assert_eq!(layers.tree(), Layers::defaults().tree(), "they are declared as they are for the default");
    preset.check_interval = Some(std::time::Duration::from_secs(2 * 60 * 60));
    layers.follow(&preset);
    let mut given = Layers::defaults().text("session.proof = \"30m\"", "claviger.toml").unwrap();
    given.follow(&preset);
    for (layers, proof) in [(layers, "2h"), (given, "30m")] {
        assert_eq!(layers.value("session.proof"), Some(&proof.into()));
        assert_eq!(layers.value("sweep.period"), Some(&"1h 55m".into()));
    }
}

#[test]
fn the_habits_of_the_provider_are_those_of_its_preset_unless_set() {
    let (config, _) = load(MINIMAL, &[]).unwrap();
    assert_eq!(config.provider.habits(), twitch::HABITS);
    let more = "rotation = \"one_time\"\nreplay_window = \"0s\"\nreuse_kills_connection = true\n\
                old_access_token_survives = false\n";
    let (config, _) = load(&format!("{MINIMAL}{more}"), &[]).unwrap();
    let expected = ProviderHabits {
        rotation: Rotation::OneTime,
        replay_window: std::time::Duration::ZERO,
        reuse_kills_connection: true,
        old_access_token_survives: false,
    };
    assert_eq!(config.provider.habits(), expected);
    let (config, _) = load(MINIMAL, &[("CLAVIGER_PROVIDER__ROTATION", "none")]).unwrap();
    assert_eq!(config.provider.habits().rotation, Rotation::None);
}

#[test]
fn forward_auth_without_a_trusted_proxy_gets_a_warning() {
    let proxy = "trusted_proxies = [\"10.0.0.2\"]\n";
    let alone = MINIMAL.replace("upstream", "#");
    let table = [
        (MINIMAL.to_owned(), false),
        (alone.clone(), true),
        (format!("{proxy}{alone}"), false),
        (format!("listen = \"0.0.0.0:80\"\n{alone}"), true),
    ];
    for (text, expected) in table {
        let shown = warnings::of_config(&load(&text, &[]).unwrap().0).join("\n");
        assert_eq!(shown.contains("the front proxy's word"), expected, "{text}\n{shown}");
        assert_eq!(shown.matches("to trusted_proxies").count(), usize::from(expected), "{shown}");
    }
}

#[test]
fn a_note_says_how_soon_a_disconnect_is_noticed() {
    let table: [(&[(&str, &str)], &str); 4] = [
        (&[], "is signed out within 55m, not at once (without a living token within 1day)"),
        (&[("CLAVIGER_SWEEP__PERIOD", "20m")], "within 20m"),
        (
            &[("CLAVIGER_WEBHOOK__SECRET", "canary-of-hook")],
            "webhook events to https://app.example/auth/webhook",
        ),
        (
            &[
                ("CLAVIGER_WEBHOOK__SECRET_FILE", "/run/secret"),
                ("CLAVIGER_WEBHOOK__CALLBACK_URL", "https://hooks.example/twitch"),
            ],
            "pass that address on to the gateway's /auth/webhook",
        ),
    ];
    for (variables, expected) in table {
        let shown = explain::notes(&load(MINIMAL, variables).unwrap().0).join("\n");
        assert!(shown.contains(expected), "{expected:?} is missing: {shown}");
    }
}

#[test]
fn variables_that_are_no_settings_are_reported() {
    let shown = problems(MINIMAL, &[("CLAVIGER_SESION__IDLE", "1d")]);
    assert!(shown.contains("environment variable CLAVIGER_SESION__IDLE"), "{shown}");
    assert!(shown.contains("did you mean session.idle (CLAVIGER_SESSION__IDLE)?"), "{shown}");
    let shown = problems(MINIMAL, &[("CLAVIGER_LISTEN", "nowhere")]);
    assert!(shown.contains("listen (environment variable CLAVIGER_LISTEN)"), "{shown}");
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
    let shown = [
        explain::settings(&layers),
        format!("{config:?}"),
        warnings::of_config(&config).join("\n"),
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
    for text in shown {
        for secret in ["canary", "AAAAAAAA"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    for keyring in ["canary", "1:canary", "canary:AAAA"] {
        let text = MINIMAL.replace("1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE", keyring);
        let (config, layers) = load(&text, &[]).unwrap();
        let shown = Secrets::load(&config, &layers).unwrap_err().to_string();
        assert!(shown.contains("keyring") && !shown.contains("canary"), "{shown}");
    }
    let text = with("webhook.secret = \"canary secret\"");
    let (config, layers) = load(&text, &[]).unwrap();
    let shown = Secrets::load(&config, &layers).unwrap_err().to_string();
    assert!(
        shown.contains("webhook.secret") && shown.contains("10 to 100") && !shown.contains("canary"),
        "{shown}"
    );
    let shown = explain::settings(&layers) + &explain::notes(&config).join("\n") + &format!("{config:?}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn secrets_are_read_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("secret"), "s3cret\n").unwrap();
    let keys = "# newest first\n\n2:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI\n1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n";
    std::fs::write(path("keys"), keys).unwrap();
    std::fs::write(path("empty"), "\n").unwrap();
    let text = |secret: &str, keys: &str| {
        MINIMAL
            .replace("client_secret = \"canary-secret\"", &format!("client_secret_file = {:?}", path(secret)))
            .replace(
                "keyring = [\"1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\"]",
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
    let shown = read("empty", "missing").unwrap_err().to_string();
    assert!(shown.contains("client_secret_file") && shown.contains("holds no client secret"), "{shown}");
    assert!(shown.contains("keyring_file") && shown.contains("cannot be read"), "{shown}");
    assert!(read("secret", "empty").unwrap_err().to_string().contains("at least one root key"));
}

type Variables<'a> = &'a [(&'a str, &'a str)];

#[test]
fn a_renamed_setting_works_under_its_old_name() {
    let file = |line: &str| format!("{MINIMAL}[sweep]\n{line}\n");
    let old = "CLAVIGER_SWEEP__PROBE_PERIOD";
    let table: [(String, Variables<'_>, u64, &str, &str); 4] = [
        (file("connection_check_period = \"2h\""), &[], 2, "claviger.toml line 10", ""),
        (
            file("probe_period = \"2h\""),
            &[],
            2,
            "claviger.toml line 10, as sweep.probe_period",
            "sweep.probe_period (claviger.toml line 10) is now called sweep.connection_check_period",
        ),
        (
            MINIMAL.to_owned(),
            &[(old, "3h")],
            3,
            "environment variable CLAVIGER_SWEEP__PROBE_PERIOD, as sweep.probe_period",
            "is now called sweep.connection_check_period (CLAVIGER_SWEEP__CONNECTION_CHECK_PERIOD)",
        ),
        // A layer above counts, and the old name below is reported all the same.
        (
            file("probe_period = \"2h\""),
            &[("CLAVIGER_SWEEP__CONNECTION_CHECK_PERIOD", "4h")],
            4,
            "environment variable CLAVIGER_SWEEP__CONNECTION_CHECK_PERIOD",
            "sweep.probe_period (claviger.toml line 10) is now called",
        ),
    ];
    for (text, variables, hours, origin, sentence) in table {
        let (config, layers) = load(&text, variables).unwrap();
        assert_eq!(config.sweep.connection_check_period.0.as_secs(), hours * 60 * 60, "{text}");
        let shown = explain::settings(&layers);
        let line = shown.lines().find(|line| line.starts_with("sweep.connection_check_period")).unwrap();
        assert!(line.ends_with(&format!("  {origin}")), "{line}");
        let renamed = explain::renamed(&layers).join("\n");
        assert!(renamed.contains(sentence) && renamed.is_empty() == sentence.is_empty(), "{renamed}");
    }
}

#[test]
fn an_old_name_beside_the_new_one_is_refused() {
    let both = format!("{MINIMAL}[sweep]\nprobe_period = \"2h\"\nconnection_check_period = \"2h\"\n");
    let shown = problems(&both, &[]);
    let expected = "sweep.probe_period (claviger.toml line 10): is the old name of \
                    sweep.connection_check_period, which is set as well; remove it";
    assert!(shown.contains(expected), "{shown}");
    let variables =
        [("CLAVIGER_SWEEP__PROBE_PERIOD", "2h"), ("CLAVIGER_SWEEP__CONNECTION_CHECK_PERIOD", "2h")];
    let shown = problems(MINIMAL, &variables);
    assert!(
        shown.contains("sweep.probe_period (environment variable CLAVIGER_SWEEP__PROBE_PERIOD): is the old"),
        "{shown}"
    );
    let shown = problems(&format!("{MINIMAL}[sweep]\nprobe_period = \"1m\"\n"), &[]);
    assert!(shown.contains("sweep.connection_check_period (claviger.toml line 10): must be from"), "{shown}");
}

#[test]
fn each_declaration_is_whole() {
    for setting in SETTINGS.iter() {
        let Setting { key, kind, limits, .. } = setting;
        assert!(!setting.documentation(" ").is_empty(), "{key} has no documentation");
        assert!(setting.default.is_none() || setting.example.is_none(), "{key}: the default is the example");
        let sample = literal(setting.sample());
        let sample = sample.unwrap_or_else(|| panic!("{key}: neither default nor example is TOML"));
        if let Some(limits) = limits {
            assert_eq!(check::is_within(&sample, *limits), Some(true), "{key}");
        }
        // The sample of each setting has the type of its field.
        let layers = Layers::defaults().text(MINIMAL, "f").unwrap();
        let layers = layers.text(&format!("{key} = {}", setting.sample()), "g").unwrap();
        let (config, wrong) = read(&layers);
        assert!(config.is_some() && wrong.is_empty(), "{key}: {wrong:?}");
        if let Some(keys) = kind.item_keys() {
            let item = keys.iter().map(|inner| format!("{} = {}", inner.key, inner.sample()));
            let item = item.collect::<Vec<_>>().join(", ");
            let layers = layers.text(&format!("{key} = [{{ {item} }}]"), "g").unwrap();
            Config::new(&layers).unwrap();
        }
    }
}

#[test]
fn the_documentation_is_what_the_declarations_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let (written, made) = (std::fs::read_to_string(path).unwrap_or_default(), reference::markdown());
    if written != made {
        std::fs::write(path, &made).unwrap();
        panic!("docs/configuration.md was out of date and has been rewritten: look at it and commit it");
    }
}

#[test]
fn the_address_of_a_database_is_read_and_never_shown() {
    let shown = |text: &str| {
        let (config, layers) = load(&with(text), &[]).unwrap();
        assert!(!format!("{config:?}{}", explain::settings(&layers)).contains("canary"), "SECRET");
        let secrets = Secrets::load(&config, &layers).map_err(|problems| problems.to_string());
        assert!(!format!("{secrets:?}").contains("canary"), "SECRET");
        secrets.map(|secrets| secrets.database.is_some())
    };
    assert_eq!(shown(""), Ok(false));
    assert_eq!(shown("store.url = \"postgres://claviger:canary@db.example/claviger\""), Ok(true));
    assert_eq!(shown("store.url = \"host=/run/postgresql user=claviger password=canary\""), Ok(true));
    let weak =
        shown("store.url = \"postgres://claviger:canary@db.example/claviger?sslmode=prefer\"").unwrap_err();
    assert!(weak.contains("store.url (claviger.toml line 1): must not say sslmode"), "{weak}");
    let other = shown("store.url = \"mysql://claviger:canary@db.example/claviger\"").unwrap_err();
    assert!(other.contains("store.url") && other.contains("PostgreSQL"), "{other}");
    let missing = shown("store.url_file = \"no/such/file\"").unwrap_err();
    assert!(missing.contains("store.url_file") && missing.contains("cannot be read"), "{missing}");
    let authorities =
        shown("store.url = \"postgres://db.example/claviger\"\nstore.ca_file = \"no/such/file\"");
    assert!(authorities.unwrap_err().contains("store.ca_file (claviger.toml line 2)"));
}

#[test]
fn settings_that_weaken_a_database_get_a_warning() {
    let warned = |text: &str| warnings::of_config(&load(&with(text), &[]).unwrap().0).join("\n");
    let url = "store.url = \"postgres://db.example/claviger\"\n";
    assert!(!warned(url).contains("store."));
    let plain = warned(&format!("{url}store.insecure_plaintext_to_database = true"));
    assert!(plain.contains("can read and change every session"), "{plain}");
    let pooled = warned(&format!("{url}store.transaction_pooler = true"));
    assert!(pooled.contains("store.listen_url_file is not set"), "{pooled}");
}

#[test]
fn a_reload_names_the_settings_that_need_a_restart() {
    let layers = |listen: &str, secret: &str| {
        let text = format!("listen = \"{listen}\"\n{}", MINIMAL.replace("canary-secret", secret));
        Layers::defaults().text(&text, "claviger.toml").unwrap()
    };
    let started = layers("127.0.0.1:8080", "canary-secret");
    assert_eq!(layers("127.0.0.1:8080", "another").need_restart(&started), [] as [&str; 0]);
    assert_eq!(layers("127.0.0.1:8081", "another").need_restart(&started), ["listen"]);
    let private = "[private]\nlisten = \"127.0.0.1:9465\"\ncredentials_file";
    let at = |file: &str| {
        let text = format!("{MINIMAL}\n{private} = \"{file}\"");
        Layers::defaults().text(&text, "claviger.toml").unwrap()
    };
    assert_eq!(at("/new").need_restart(&at("/old")), [] as [&str; 0], "a reload reads the new file");
}
