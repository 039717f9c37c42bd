//! `claviger status`

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use serde::de::DeserializeOwned;

use super::{
    ConfigArgs,
    plan::{grouped, in_words, rate},
    print,
};
use crate::status::{Asked, Clock, Counted, Keys, Status, StoreFails, Webhook};

pub(super) const HELP: &str = "\
The command asks the gateway at metrics.listen of its configuration, so run it on the same computer with the same file and
environment variables. The output names no user. Programs get the same as JSON: curl http://127.0.0.1:9464/status";

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(args: ConfigArgs) -> anyhow::Result<()> {
    print(&listed(&ask(&args, "status").await?))
}

/// Asks the gateway of this configuration.
pub(super) async fn ask<T: DeserializeOwned>(args: &ConfigArgs, path: &str) -> anyhow::Result<T> {
    let layers = args.layers()?;
    let config = args.config(&layers)?;
    let listen = config.metrics.listen.ok_or_else(|| {
        anyhow!(
            "metrics.listen is not set, and a gateway reports its state only there; set it in the file, as in \
             metrics.listen = \"127.0.0.1:9464\", or with CLAVIGER_METRICS__LISTEN, and restart the gateway"
        )
    })?;
    ask_at(reachable(listen.0), path).await
}

/// The address to connect to. The unspecified address stands for all addresses of this computer.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask_at<T: DeserializeOwned>(address: SocketAddr, path: &str) -> anyhow::Result<T> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()?;
    let answer = client.get(format!("http://{address}/{path}")).send().await.map_err(|_| {
        anyhow!(
            "no gateway answers at {address}, which is metrics.listen; is it running, with this configuration, on this \
             computer?"
        )
    })?;
    let (status, body) = (answer.status(), answer.text().await?);
    match status.as_u16() {
        200 => serde_json::from_str(&body)
            .with_context(|| format!("what answers at {address} is no gateway of this version")),
        503 => bail!("the gateway at {address} is running, but {}", body.trim()),
        _ => bail!("what answers at {address} is no gateway of this version (status {status})"),
    }
}

/// One line per item, its name first.
fn listed(status: &Status) -> String {
    let mut lines = vec![("gateway", format!("version {}", status.version))];
    lines.extend(of_store(&status.store_fails));
    lines.extend(status.store_trouble.iter().map(|trouble| ("store", format!("TROUBLE: {trouble}"))));
    match &status.counted {
        Some(counted) => of_sessions(counted, &mut lines),
        None => lines.push(("sessions", "not counted yet; ask again in a minute".to_owned())),
    }
    let pending = match (status.revocations_owed, status.oldest_owed_seconds) {
        (None, _) => "not known: the store cannot be read".to_owned(),
        (Some(0), _) | (_, None) => "none pending".to_owned(),
        (Some(count), Some(age)) => format!("{} pending, the oldest for {}", grouped(count), span(age)),
    };
    lines.push(("revocations", pending));
    lines.push(("refreshes sent", of_breaker(status.refreshes).to_owned()));
    lines.push(("validations sent", of_breaker(status.validations).to_owned()));
    lines.push(("webhook", of_webhook(status.webhook).to_owned()));
    lines.push(("keys", of_keys(&status.keys)));
    lines.extend(status.clock.map(|clock| ("clock", of_clock(clock))));
    let wide = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (name, value) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:wide$}  {value}");
    }
    text
}

fn of_store(fails: &[StoreFails]) -> Vec<(&'static str, String)> {
    if fails.is_empty() {
        return vec![("store", "works".to_owned())];
    }
    let line = |StoreFails { access, seconds, error }: &StoreFails| {
        ("store", format!("FAILS to {access} for {}: {error}", span(*seconds)))
    };
    fails.iter().map(line).collect()
}

fn of_sessions(counted: &Counted, lines: &mut Vec<(&'static str, String)>) {
    let Counted { live, parked, suspect, .. } = counted;
    lines.push((
        "sessions",
        format!(
            "{} live, {} parked, {} suspect (counted {} ago)",
            grouped(*live),
            grouped(*parked),
            grouped(*suspect),
            span(counted.seconds_ago)
        ),
    ));
    if let (Some(in_flight), Some(ambiguous)) = (counted.refreshes_in_flight, counted.refreshes_ambiguous) {
        let text = format!("{} in flight, {} ambiguous", grouped(in_flight), grouped(ambiguous));
        lines.push(("refreshes", text));
    }
    let oldest =
        counted.oldest_proof_seconds.map_or_else(|| "none".to_owned(), |age| format!("{} old", span(age)));
    lines.push(("oldest proof", oldest));
    let lag = match counted.sweep_lag_seconds {
        0..10 => "on time".to_owned(),
        lag => format!("{} behind", span(lag)),
    };
    lines.push(("sweep", lag));
    let rates = [counted.budget_per_second, counted.allowed_per_second, counted.needed_per_second].map(rate);
    let [budget, allowed, needed] = rates;
    lines.push(("validations", format!("budget {budget} a second, {allowed} allowed now, {needed} needed")));
    lines.push(("", verdict(counted)));
}

/// Whether the budget suffices, and what to do if not.
fn verdict(counted: &Counted) -> String {
    if !counted.budget_suffices {
        return format!(
            "the budget is TOO SMALL: proofs grow older than session.proof; set sweep.validations_per_second to {}",
            grouped(counted.sufficient_per_second.ceil() as u64)
        );
    }
    if counted.allowed_per_second < counted.needed_per_second {
        return "the budget suffices, but the provider answered with 429: fewer are sent for some minutes"
            .to_owned();
    }
    "the budget suffices".to_owned()
}

fn of_breaker(asked: Asked) -> &'static str {
    match asked {
        Asked::Yes => "yes",
        Asked::OneRequest => "with one request, to try whether the provider is back",
        Asked::No => "no: the provider fails, so requests pause for a moment",
    }
}

fn of_webhook(webhook: Webhook) -> &'static str {
    match webhook {
        Webhook::NotConfigured => {
            "not configured: a disconnect is noticed within sweep.period, or sweep.connection_check_period"
        }
        Webhook::Waiting => {
            "not subscribed yet: the provider, or its way to the callback, does not answer (see the log)"
        }
        Webhook::Refused => "NOT subscribed: the provider refuses; the log has its reason",
        Webhook::OtherSettings => {
            "NOT subscribed: another instance has another webhook secret, callback address or client id; give all \
             instances the same"
        }
        Webhook::Subscribed => "subscribed",
    }
}

fn of_keys(keys: &Keys) -> String {
    let sealing = format!("key {} seals", keys.sealing);
    let left = match (keys.older_keys, keys.older_rows) {
        (0, _) => return format!("{sealing}; there is no older key"),
        (_, None) => "rows of older keys are not counted yet".to_owned(),
        (_, Some(0)) => "no row needs an older key".to_owned(),
        (_, Some(rows)) => format!("{} rows are still to be sealed again", grouped(rows)),
    };
    match keys.round_permille {
        Some(permille) => format!("{sealing}; {left}; {}% of a round done", permille / 10),
        None => format!("{sealing}; {left}"),
    }
}

fn of_clock(clock: Clock) -> String {
    let state = match clock.provider_ahead_seconds {
        Some(0) => "agrees with the provider's".to_owned(),
        Some(ahead) => {
            let side = if ahead > 0 { "behind" } else { "AHEAD of" };
            format!("{} {side} the provider's: set it", span(ahead.unsigned_abs()))
        }
        None if clock.confirmed => "not compared: the provider names no time".to_owned(),
        None => "not confirmed yet: no session ends by age or idleness until the provider answers".to_owned(),
    };
    match (clock.last_jump_seconds, clock.last_jump_seconds_ago) {
        (Some(by), Some(ago)) => {
            let way = if by > 0 { "ahead" } else { "back" };
            format!("{state}; it jumped {} {way} {} ago", span(by.unsigned_abs()), span(ago))
        }
        _ => state,
    }
}

fn span(seconds: u64) -> String {
    in_words(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGREES: Clock = Clock {
        confirmed: true,
        provider_ahead_seconds: Some(0),
        jumps: 0,
        last_jump_seconds: None,
        last_jump_seconds_ago: None,
    };

    fn status() -> Status {
        Status {
            version: "1.2.3".to_owned(),
            store_fails: Vec::new(),
            store_trouble: None,
            counted: Some(Counted {
                seconds_ago: 34,
                live: 123_456,
                parked: 7_000,
                suspect: 0,
                refreshes_in_flight: Some(2),
                refreshes_ambiguous: Some(1),
                oldest_proof_seconds: Some(3_120),
                sweep_lag_seconds: 2,
                budget_per_second: 50.0,
                allowed_per_second: 50.0,
                needed_per_second: 37.41,
                sufficient_per_second: 44.9,
                budget_suffices: true,
            }),
            revocations_owed: Some(3),
            oldest_owed_seconds: Some(90),
            refreshes: Asked::Yes,
            validations: Asked::No,
            webhook: Webhook::Subscribed,
            keys: Keys {
                sealing: 2,
                older_keys: 1,
                older_rows: Some(1_234),
                resealed: 99,
                round_permille: Some(574),
            },
            clock: Some(AGREES),
        }
    }

    #[test]
    fn it_is_a_list_that_people_can_read() {
        let expected = "\
gateway           version 1.2.3
store             works
sessions          123,456 live, 7,000 parked, 0 suspect (counted 34s ago)
refreshes         2 in flight, 1 ambiguous
oldest proof      52m old
sweep             on time
validations       budget 50 a second, 50 allowed now, 37.4 needed
                  the budget suffices
revocations       3 pending, the oldest for 1m 30s
refreshes sent    yes
validations sent  no: the provider fails, so requests pause for a moment
webhook           subscribed
keys              key 2 seals; 1,234 rows are still to be sealed again; 57% of a round done
clock             agrees with the provider's
";
        assert_eq!(listed(&status()), expected);
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let with = |change: fn(&mut Counted)| {
            let mut status = status();
            change(status.counted.as_mut().unwrap());
            listed(&status)
        };
        let small = with(|counted| (counted.budget_per_second, counted.budget_suffices) = (20.0, false));
        assert!(
            small.contains("TOO SMALL") && small.contains("sweep.validations_per_second to 45"),
            "{small}"
        );
        let slowed = with(|counted| counted.allowed_per_second = 5.0);
        assert!(slowed.contains("answered with 429"), "{slowed}");
        let late = with(|counted| counted.sweep_lag_seconds = 75);
        assert!(late.contains("1m 15s behind"), "{late}");
        let early = listed(&Status { counted: None, revocations_owed: Some(0), ..status() });
        let error = "the session store is full: a test".to_owned();
        let full = StoreFails { access: "write".to_owned(), seconds: 75, error };
        let full = listed(&Status { store_fails: vec![full], revocations_owed: None, ..status() });
        assert!(full.contains("FAILS to write for 1m 15s: the session store is full"), "{full}");
        assert!(full.contains("the store cannot be read"), "{full}");
        let gone = Some("the file is gone".to_owned());
        let gone = listed(&Status { store_trouble: gone, ..status() });
        assert!(gone.contains("TROUBLE: the file is gone"), "{gone}");
        assert!(early.contains("not counted yet") && early.contains("none pending"), "{early}");
    }

    #[test]
    fn a_wrong_clock_is_said_in_words() {
        let jumped = |by| Clock { last_jump_seconds: Some(by), last_jump_seconds_ago: Some(90), ..AGREES };
        let ahead = |seconds| Clock { provider_ahead_seconds: seconds, ..AGREES };
        let table = [
            (ahead(Some(90)), "1m 30s behind the provider's: set it"),
            (ahead(Some(-90)), "1m 30s AHEAD of the provider's: set it"),
            (ahead(None), "not compared: the provider names no time"),
            (
                Clock { confirmed: false, ..ahead(None) },
                "not confirmed yet: no session ends by age or idleness until the provider answers",
            ),
            (jumped(90), "agrees with the provider's; it jumped 1m 30s ahead 1m 30s ago"),
            (jumped(-90), "agrees with the provider's; it jumped 1m 30s back 1m 30s ago"),
        ];
        for (clock, expected) in table {
            assert_eq!(of_clock(clock), expected);
        }
    }

    #[test]
    fn every_address_of_the_computer_is_called_at_its_own() {
        let table = [
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("0.0.0.0:9", "127.0.0.1:9"),
            ("[::]:9", "[::1]:9"),
            ("10.0.0.7:9", "10.0.0.7:9"),
        ];
        for (listen, expected) in table {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
