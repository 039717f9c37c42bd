//! What works but deserves a look: `check-config` prints it, and the gateway logs it at its start.
//!
//! A warning names the setting, what can happen, and what to do.

use std::{collections::BTreeMap, net::IpAddr, path::Path, time::Duration};

use crate::secret_file::others_can_read;

use super::{
    endpoints::ListenAt,
    layers::{Layers, Origin},
    secrets::Secrets,
    settings::Config,
};

const NO_FRONT_PROXY: &str = "\
upstream is not set and trusted_proxies is empty. As forward-auth, the gateway then does not trust the front proxy's word \
on the original method and address: after a sign-in the user arrives at / instead of the page that was asked for, and a \
POST from another site is recognised only if the proxy asks with the original method, or names it in X-Forwarded-Method or \
X-Original-Method. Add the proxy's address to trusted_proxies";

/// Browsers keep no cookie for longer (RFC 6265bis section 5.5).
const LONGEST_COOKIE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Number of files that a gateway has open beside its connections, at most.
const OTHER_FILES: u64 = 100;

/// All warnings.
pub fn all(config: &Config, layers: &Layers, secrets: &Secrets) -> Vec<String> {
    let mut warnings = of_config(config);
    warnings.extend(of_inline_secrets(layers));
    warnings.extend(of_webhook(secrets));
    warnings.extend(open_files().and_then(|limit| of_open_files(config, limit)));
    warnings
}

/// Warnings about settings.
pub fn of_config(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.insecure_plain_http_for_development {
        warnings.push("insecure_plain_http_for_development is set: do not use it in production".to_owned());
    }
    let store = &config.store;
    if store.is_shared() && store.insecure_plaintext_to_database {
        warnings.push(
            "store.insecure_plaintext_to_database is set: unless the address is a socket in the file system, anybody on \
             the network between can read and change every session"
                .to_owned(),
        );
    }
    if store.is_shared() && store.transaction_pooler && !store.listens_elsewhere() {
        warnings.push(
            "store.listen_url_file is not set: the pooler does not pass on sign-outs at other instances"
                .to_owned(),
        );
    }
    warnings.extend(of_readable_files(config));
    if config.upstream.is_none() {
        warnings.push(
            "upstream is not set: the gateway serves only its own pages, as forward-auth needs".to_owned(),
        );
    }
    warnings.extend(of_proxies(config));
    if let Some(address) =
        config.metrics.listen.map(|listen| listen.0).filter(|address| !is_private(address.ip()))
    {
        warnings.push(format!(
            "metrics.listen is {address}: anybody who reaches this computer can read it; choose 127.0.0.1 or an address \
             of a private network"
        ));
    }
    if let Some(address) = config.private.listen.as_ref().and_then(ListenAt::address)
        && !address.ip().is_loopback()
    {
        warnings.push(format!(
            "private.listen is {address}: it speaks plain HTTP, so anybody on the network between can read credentials and \
             tokens; use 127.0.0.1, a Unix socket, or a network of your own"
        ));
    }
    if let Some(upstream) =
        config.upstream.as_ref().filter(|app| !app.site().is_https() && !app.is_on_this_computer())
    {
        warnings.push(format!(
            "upstream is {}: between here and there, anybody on the network can read what users send, and an app that \
             others can reach believes their X-Auth-… headers. Use https, or a network of your own",
            upstream
        ));
    }
    if config.session.absolute.0 > LONGEST_COOKIE {
        warnings.push(format!(
            "session.absolute is {}: a stolen cookie works for as long, and browsers keep no cookie for more than 400 \
             days; choose at most 400d",
            humantime::format_duration(config.session.absolute.0)
        ));
    }
    warnings
}

/// Warnings about a proxy in front that is not named.
fn of_proxies(config: &Config) -> Option<String> {
    if !config.trusted_proxies.is_empty() {
        return None;
    }
    if config.upstream.is_none() {
        return Some(NO_FRONT_PROXY.to_owned());
    }
    if config.insecure_plain_http_for_development {
        return None;
    }
    let Some(listen) = config.listen.address() else {
        let words = "listen is a Unix socket, and trusted_proxies is empty: a proxy that uses it then gets the places of \
                     one client (limits.connections_per_address), and nobody knows the addresses of visitors; add \
                     \"unix:\" there";
        return Some(words.to_owned());
    };
    let words = if listen.ip().is_loopback() {
        "trusted_proxies is empty: a proxy on this computer then gets the places of one client \
         (limits.connections_per_address), and every visitor has its address; add 127.0.0.1 there"
    } else {
        "other computers can reach the address of listen, and trusted_proxies is empty: if a proxy in front terminates \
         TLS, add its address there"
    };
    Some(words.to_owned())
}

/// Warnings about files of secrets that others can read.
fn of_readable_files(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let files = [
        ("keyring_file", &config.keyring_file),
        ("provider.client_secret_file", &config.provider.client_secret_file),
        ("webhook.secret_file", &config.webhook.secret_file),
        ("store.url_file", &config.store.url_file),
        ("store.listen_url_file", &config.store.listen_url_file),
    ];
    for (key, path) in files {
        if let Some(path) = path.as_ref().filter(|path| others_can_read(path)) {
            warnings.push(format!("{key}: others can read {0}; run `chmod 600 {0}`", path.display()));
        }
    }
    warnings
}

/// Warnings about secrets in configuration files that others can read.
fn of_inline_secrets(layers: &Layers) -> Vec<String> {
    const SECRETS: [&str; 5] =
        ["keyring", "provider.client_secret", "webhook.secret", "store.url", "store.listen_url"];
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in SECRETS {
        if let Some(Origin::File { path, .. }) = layers.origin(key)
            && others_can_read(Path::new(path))
        {
            files.entry(path).or_default().push(key);
        }
    }
    let warning = |(path, keys): (&str, Vec<&str>)| {
        format!("{}: others can read {path}; run `chmod 600 {path}`", keys.join(", "))
    };
    files.into_iter().map(warning).collect()
}

fn of_webhook(secrets: &Secrets) -> Option<String> {
    let mut letters = secrets.webhook.as_ref()?.expose().chars();
    let first = letters.next()?;
    letters.all(|letter| letter == first).then(|| {
        "webhook.secret repeats one character, so anybody can guess it and sign users out; make one with `openssl rand \
         -hex 32`"
            .to_owned()
    })
}

/// A connection takes a file, and one more towards the app. The private listener has as many
/// connections again, and none towards the app.
fn of_open_files(config: &Config, limit: u64) -> Option<String> {
    let connections = config.limits.connections;
    let each = if config.private.listen.is_some() { 3 } else { 2 };
    let needed = each * u64::try_from(connections).unwrap_or(u64::MAX / 4) + OTHER_FILES;
    (limit < needed).then(|| {
        format!(
            "limits.connections is {connections}, but this process may open only {limit} files. Let it open {needed} \
             (LimitNOFILE of systemd, or `ulimit -n`), or lower limits.connections"
        )
    })
}

/// The number of files that this process may open, where the system says so.
fn open_files() -> Option<u64> {
    soft_limit(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

/// Reads the soft limit of open files (proc_pid_limits(5)).
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{MINIMAL, load, with};

    fn warned(text: &str) -> String {
        of_config(&load(text, &[]).unwrap().0).join("\n")
    }

    const PROXY: &str = "trusted_proxies = [\"127.0.0.1\"]";

    #[test]
    fn a_proxy_on_this_computer_is_to_be_named() {
        let local = MINIMAL.replace("https://app.example", "http://localhost:8080");
        let development = format!("insecure_plain_http_for_development = true\n{local}");
        let shown = |text: &str| warned(text).contains("add 127.0.0.1");
        assert!(shown(MINIMAL) && !shown(&with(PROXY)) && !shown(&development));
    }

    #[test]
    fn a_proxy_at_a_unix_socket_is_to_be_named() {
        let socket = "listen = \"unix:/run/claviger.sock\"";
        assert!(warned(&with(socket)).contains("add \"unix:\""));
        assert!(
            !warned(&with(&format!("{socket}\ntrusted_proxies = [\"unix:\"]"))).contains("trusted_proxies")
        );
    }

    #[test]
    fn risky_settings_are_named_with_what_to_do() {
        let table: [(&str, &[&str]); 12] = [
            ("metrics.listen = \"0.0.0.0:9464\"", &["metrics.listen is 0.0.0.0:9464", "127.0.0.1"]),
            ("metrics.listen = \"[::]:9464\"", &["metrics.listen"]),
            ("metrics.listen = \"203.0.113.1:9464\"", &["metrics.listen"]),
            ("metrics.listen = \"127.0.0.1:9464\"", &[]),
            ("metrics.listen = \"10.0.0.1:9464\"", &[]),
            ("metrics.listen = \"[fd00::1]:9464\"", &[]),
            ("session.absolute = \"3650d\"", &["session.absolute is 9years", "400d"]),
            ("session.absolute = \"400d\"", &[]),
            ("session.absolute = \"401d\"", &["session.absolute"]),
            ("proxy.connect_timeout = \"1s\"", &[]),
            ("limits.connections = 10", &[]),
            ("log.filter = \"warn\"", &[]),
        ];
        for (line, expected) in table {
            let shown = warned(&with(&format!("{PROXY}\n{line}")));
            assert_eq!(shown.is_empty(), expected.is_empty(), "{line}: {shown}");
            for words in expected {
                assert!(shown.contains(words), "{words:?} is missing for {line}: {shown}");
            }
        }
        for (app, expected) in [
            ("http://127.0.0.1:3000", false),
            ("http://app.localhost", false),
            ("https://app.internal", false),
            ("http://app:3000", true),
            ("http://10.0.0.2:3000", true),
        ] {
            let shown = warned(&MINIMAL.replace("http://127.0.0.1:3000", app));
            assert_eq!(shown.contains(&format!("upstream is {app}")), expected, "{app}: {shown}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_of_secrets_that_others_can_read_is_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("claviger.toml");
        std::fs::write(&path, MINIMAL).unwrap();
        for (mode, expected) in [(0o644, true), (0o600, false), (0o640, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let layers = Layers::defaults().file(&path).unwrap();
            let shown = of_inline_secrets(&layers).join("\n");
            assert_eq!(
                shown.contains("keyring, provider.client_secret: others can read"),
                expected,
                "{shown}"
            );
            assert_eq!(shown.contains("chmod 600"), expected, "{shown}");
        }
        let other = directory.path().join("other.toml");
        std::fs::write(&other, "webhook.secret = \"canary-of-hook\"\n").unwrap();
        for file in [&path, &other] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let layers = Layers::defaults().file(&path).unwrap().file(&other).unwrap();
        let shown = of_inline_secrets(&layers);
        let expected = [
            format!(
                "keyring, provider.client_secret: others can read {0}; run `chmod 600 {0}`",
                path.display()
            ),
            format!("webhook.secret: others can read {0}; run `chmod 600 {0}`", other.display()),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_webhook_secret_of_one_letter_is_named() {
        for (secret, expected) in [("aaaaaaaaaaaa", true), ("canary-of-hook", false)] {
            let (config, layers) = load(&with(&format!("webhook.secret = \"{secret}\"")), &[]).unwrap();
            let secrets = Secrets::load(&config, &layers).unwrap();
            let shown = of_webhook(&secrets).unwrap_or_default();
            assert_eq!(shown.contains("webhook.secret repeats one character"), expected, "{shown}");
            assert!(!shown.contains(secret), "SECRET");
        }
    }

    #[test]
    fn the_connections_need_as_many_files() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             63517                63517                processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(soft_limit(&limits.replace("1024", "unlimited")), Some(u64::MAX));
        assert_eq!(soft_limit("nothing"), None);
        let (config, _) = load(MINIMAL, &[]).unwrap();
        let shown = of_open_files(&config, 1024).unwrap();
        assert!(shown.contains("4096") && shown.contains("1024") && shown.contains("8292"), "{shown}");
        assert_eq!(of_open_files(&config, 8292), None);
        let private = "private.listen = \"127.0.0.1:9465\"\nprivate.credentials_file = \"/x\"";
        let (config, _) = load(&with(private), &[]).unwrap();
        assert!(of_open_files(&config, 12_387).unwrap().contains("12388"));
        assert_eq!(of_open_files(&config, 12_388), None);
    }
}
