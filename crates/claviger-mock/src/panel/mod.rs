//! What the page at `/` shows of this mock, in the words of [`page`](crate::page).

mod orders;
mod settings;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::config::{Client, User};
use crate::eventsub::{DeliveryEntry, DeliveryState, RevocationReason, Subscription, SubscriptionType};
use crate::faults::Fault;
use crate::log::{Endpoint, LogEntry, Outcome};
use crate::mock::MockTwitch;
use crate::page::{Field, Form, Item, Kind, Page, Said, Section};

/// Maximum number of items in one list; a mock with more is used by programs.
const SHOWN: usize = 100;

/// Faults that one button adds: its words, and the fault as on the command line.
const READY_FAULTS: [(&str, &str); 8] = [
    ("Refresh: no answer, but it took effect", "token:close-after:grant=refresh_token:times=1"),
    ("Refresh: three times 503", "token:503:grant=refresh_token:times=3"),
    ("Refresh: 5 seconds slow", "token:delay-ms=5000:grant=refresh_token:times=1"),
    ("Code: 503 once", "token:503:grant=authorization_code:times=1"),
    ("Code: answer compressed", "token:encoding=gzip:grant=authorization_code:times=1"),
    ("Validation: 429 once", "validate:429:retry-after=5:times=1"),
    ("Validation: unreadable once", "validate:malformed=html:times=1"),
    ("Helix: 500 until removed", "helix-users:500"),
];

impl MockTwitch {
    /// The page of this mock.
    pub(crate) fn page(&self, base: &str, said: Option<Said>) -> Page {
        Page {
            title: "Mock Twitch",
            words: "This server stands in for id.twitch.tv and a part of Helix. Try an app with “Log in with Twitch” \
                    without credentials, and see what it does when things go wrong. Anybody who reaches this server \
                    can sign in as anybody: keep it on your own computer.",
            said,
            addresses: addresses(base),
            sections: vec![
                self.users_section(),
                self.faults_section(),
                self.webhooks_section(),
                self.tokens_section(),
                settings::section(self),
                self.apps_section(),
            ],
            watched: vec![self.log_section(), self.deliveries_section()],
        }
    }

    fn users_section(&self) -> Section {
        let mut live: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (_, token) in self.state.live_access(self.last_now_ms) {
            live.entry(token.sign_in.pair.user_id.as_deref().unwrap_or_default()).or_default().0 += 1;
        }
        for (_, token) in self.state.live_refresh() {
            live.entry(token.sign_in.pair.user_id.as_deref().unwrap_or_default()).or_default().1 += 1;
        }
        let mut connected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (pair, scopes) in self.state.authorizations() {
            let client = self.clients.get(&pair.client_id);
            if let (Some(user_id), Some(client)) = (&pair.user_id, client) {
                let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
                let words = format!("connected with {} ({})", client.name, scopes.join(" "));
                connected.entry(user_id).or_default().push(words);
            }
        }
        let items = self.users().take(SHOWN).map(|user| {
            let (access, refresh) = live.get(user.id.as_str()).copied().unwrap_or_default();
            user_item(user, access, refresh, connected.remove(user.id.as_str()).unwrap_or_default())
        });
        Section {
            id: "users",
            title: "Users",
            words: "Everybody here can sign in without a password. Disconnecting tells the webhooks; killing tokens \
                    tells nobody, as a changed password.",
            items: items.collect(),
            forms: vec![
                Form { order: "add-user", button: "Add a user", ..Form::default() }
                    .field(Field::new("id", "Id", Kind::Text).hint("digits, as at Twitch"))
                    .field(Field::new("login", "Login", Kind::Text))
                    .field(Field::new("display_name", "Display name", Kind::Text)),
            ],
            empty: "There are no users.",
        }
    }

    fn faults_section(&self) -> Section {
        let ready = READY_FAULTS.iter().map(|(words, fault)| {
            Form { order: "ready-fault", button: words, ..Form::default() }.with("fault", *fault)
        });
        let mut forms: Vec<Form> = ready.collect();
        forms.push(fault_form());
        if self.faults().next().is_some() {
            forms.push(Form { order: "clear-faults", button: "Remove all faults", ..Form::default() });
        }
        Section {
            id: "faults",
            title: "Faults",
            words: "A fault makes the next calls of an address fail, come late, or carry another answer.",
            items: self
                .faults()
                .enumerate()
                .take(SHOWN)
                .map(|(index, fault)| fault_item(index, fault))
                .collect(),
            forms,
            empty: "No fault waits.",
        }
    }

    fn tokens_section(&self) -> Section {
        let item = |kind: &str, token: &String, user: Option<&String>, fact: String| {
            let fingerprint = self.fingerprint(token);
            let user = user.and_then(|id| self.users.get(id)).map(|user| user.display_name.clone());
            Item {
                title: format!("{kind} {fingerprint}"),
                facts: vec![user.unwrap_or_else(|| "no user: the app's own".to_owned()), fact],
                forms: vec![
                    Form::button("kill-token", "Kill", &fingerprint).with("fingerprint", fingerprint.clone()),
                ],
                ..Item::default()
            }
        };
        let access = self.state.live_access(self.last_now_ms).map(|(value, token)| {
            let secs = token.expires_at_ms.saturating_sub(self.last_now_ms) / 1_000;
            item("access", value, token.sign_in.pair.user_id.as_ref(), format!("expires in {secs} s"))
        });
        let refresh = self.state.live_refresh().map(|(value, token)| {
            let spent = if token.spent { "spent, and still works" } else { "not spent" };
            item("refresh", value, token.sign_in.pair.user_id.as_ref(), spent.to_owned())
        });
        Section {
            id: "tokens",
            title: "Live tokens",
            words: "Tokens are named by a fingerprint, as in the list of requests.",
            items: access.take(SHOWN).chain(refresh.take(SHOWN)).collect(),
            forms: Vec::new(),
            empty: "No token lives.",
        }
    }

    fn webhooks_section(&self) -> Section {
        let users =
            self.users().take(SHOWN).map(|user| (user.id.clone(), user.display_name.clone())).collect();
        let kinds = SubscriptionType::ALL.map(|kind| (kind.name().to_owned(), kind.name().to_owned()));
        Section {
            id: "webhooks",
            title: "Webhooks",
            words: "Subscriptions of apps to EventSub. The settings lose, hold, delay, repeat or spoil messages.",
            items: self.subscriptions().take(SHOWN).map(subscription_item).collect(),
            forms: vec![
                Form { order: "notify", button: "Send a message without an event", ..Form::default() }
                    .field(Field::new("type", "Type", Kind::Choice(kinds.to_vec())))
                    .field(Field::new("user", "User", Kind::Choice(users))),
                Form { order: "release", button: "Release held messages", ..Form::default() },
            ],
            empty: "No app has subscribed.",
        }
    }

    fn apps_section(&self) -> Section {
        let item = |client: &Client| Item {
            title: client.name.clone(),
            facts: std::iter::once(format!("client id {}", client.client_id))
                .chain(client.redirect_uris.iter().map(|uri| format!("returns to {uri}")))
                .collect(),
            ..Item::default()
        };
        Section {
            id: "apps",
            title: "Apps",
            words: "The mock prints the client secret when it starts.",
            items: self.clients().take(SHOWN).map(item).collect(),
            forms: vec![
                Form { order: "add-app", button: "Register an app", ..Form::default() }
                    .field(Field::new("name", "Name", Kind::Text))
                    .field(Field::new("redirect_uris", "Redirect URIs", Kind::Lines).hint("one a line")),
                Form { order: "reset", button: "Restore the initial state", ..Form::default() },
            ],
            empty: "No app is registered.",
        }
    }

    fn log_section(&self) -> Section {
        let items = self.log().rev().take(SHOWN).map(|entry| self.log_item(entry));
        Section {
            id: "requests",
            title: "Requests",
            words: "The newest first. Times are UTC.",
            items: items.collect(),
            forms: vec![Form { order: "clear-log", button: "Clear", ..Form::default() }],
            empty: "No request has come yet.",
        }
    }

    fn log_item(&self, entry: &LogEntry) -> Item {
        let user = entry.user_id.as_ref().map(|id| self.users.get(id).map_or(id, |user| &user.display_name));
        let facts = [
            Some(time(entry.at_ms)),
            entry.grant_type.clone(),
            user.cloned(),
            entry.token.as_ref().map(|token| format!("token {token}")),
            entry.reused.then(|| "spent before".to_owned()),
            entry.faulty.then(|| "fault".to_owned()),
        ];
        let (mark, is_bad) = outcome_in_words(entry.outcome);
        Item {
            title: format!("{} {}", entry.method, entry.endpoint.name()),
            mark,
            is_bad,
            facts: facts.into_iter().flatten().collect(),
            ..Item::default()
        }
    }

    fn deliveries_section(&self) -> Section {
        Section {
            id: "deliveries",
            title: "Webhook messages",
            words: "",
            items: self.deliveries().rev().take(SHOWN).map(|entry| delivery_item(&entry)).collect(),
            forms: Vec::new(),
            empty: "No message was sent.",
        }
    }
}

fn addresses(base: &str) -> Vec<(&'static str, String)> {
    [
        ("Authorize", "/oauth2/authorize"),
        ("Token", "/oauth2/token"),
        ("Validate", "/oauth2/validate"),
        ("Revoke", "/oauth2/revoke"),
        ("OpenID discovery", "/oauth2/.well-known/openid-configuration"),
        ("Helix", "/helix"),
        ("A user's connections", "/settings/connections"),
    ]
    .map(|(name, path)| (name, format!("{base}{path}")))
    .to_vec()
}

fn user_item(user: &User, access: usize, refresh: usize, connected: Vec<String>) -> Item {
    let button = |order, words| Form::button(order, words, &user.display_name).with("user", user.id.as_str());
    let rename = Form {
        order: "rename",
        button: "Rename",
        label: format!("Rename: {}", user.display_name),
        ..Form::default()
    }
    .with("user", user.id.as_str())
    .field(Field::new("login", "Login", Kind::Text).value(user.login.as_str()))
    .field(Field::new("display_name", "Display name", Kind::Text).value(user.display_name.as_str()));
    let suspension = if user.suspended {
        button("suspend", "End the suspension").with("suspended", "false")
    } else {
        button("suspend", "Suspend").with("suspended", "true")
    };
    let mut facts = vec![format!("{} · {}", user.login, user.id)];
    facts.push(format!("{access} access and {refresh} refresh tokens"));
    facts.extend(connected);
    Item {
        title: user.display_name.clone(),
        mark: if user.suspended { "suspended".to_owned() } else { String::new() },
        is_bad: user.suspended,
        facts,
        forms: vec![
            button("disconnect", "Disconnect all apps"),
            button("expire", "Expire access tokens"),
            button("kill-tokens", "Kill all tokens"),
            suspension,
            button("delete-user", "Delete the account"),
            rename,
        ],
    }
}

fn fault_item(index: usize, fault: &Fault) -> Item {
    let title = [Some(fault.endpoint.name()), fault.grant_type.as_deref()].into_iter().flatten();
    let skip = (fault.skip > 0).then(|| format!("after {} more calls", fault.skip));
    let calls = fault.calls.map_or("until removed".to_owned(), |calls| format!("{calls} more calls"));
    Item {
        title: title.collect::<Vec<_>>().join(" "),
        facts: [skip, Some(calls), serde_json::to_string(&fault.kind).ok()].into_iter().flatten().collect(),
        forms: vec![
            Form::button("remove-fault", "Remove", fault.endpoint.name()).with("index", index.to_string()),
        ],
        ..Item::default()
    }
}

fn fault_form() -> Form {
    let choices = |names: &[(&str, &str)]| {
        Kind::Choice(names.iter().map(|(value, words)| ((*value).to_owned(), (*words).to_owned())).collect())
    };
    let endpoints = Endpoint::ALL.map(|endpoint| (endpoint.name(), endpoint.name()));
    Form { order: "add-fault", button: "Add a fault", ..Form::default() }
        .field(Field::new("endpoint", "Address", choices(&endpoints)).value("token"))
        .field(Field::new(
            "grant_type",
            "Only this grant",
            choices(&[
                ("", "all"),
                ("authorization_code", "authorization_code"),
                ("refresh_token", "refresh_token"),
                ("client_credentials", "client_credentials"),
            ]),
        ))
        .field(Field::new(
            "what",
            "What happens",
            choices(&[
                ("", "it takes effect"),
                ("status", "nothing; the answer below is given"),
                ("close_before", "nothing; the connection closes"),
                ("close_after", "it takes effect; the connection closes"),
                ("garbage", "it takes effect; the answer is garbage"),
                ("truncated", "it takes effect; half the answer comes"),
                ("html", "it takes effect; the answer is HTML"),
                ("other_shape", "it takes effect; the answer is other JSON"),
            ]),
        ))
        .field(Field::new("status", "Status", Kind::Number).hint("200 to 599"))
        .field(Field::new("body", "Body", Kind::Lines).hint("if nothing takes effect"))
        .field(Field::new("set", "Fields with another value", Kind::Lines).hint("one a line: expires_in = 0"))
        .field(Field::new("remove", "Fields left out", Kind::Text).hint("such as scope refresh_token"))
        .field(
            Field::new("headers", "Headers", Kind::Lines)
                .hint("one a line: Retry-After: 5; none after the colon removes it"),
        )
        .field(Field::new(
            "encoding",
            "Compression",
            choices(&[
                ("", "none"),
                ("gzip", "gzip"),
                ("deflate", "deflate"),
                ("raw_deflate", "deflate without zlib"),
            ]),
        ))
        .field(Field::new("byte_order_mark", "A byte order mark first", Kind::Check))
        .field(Field::new("delay_ms", "Delay in milliseconds", Kind::Number))
        .field(Field::new("calls", "Number of calls", Kind::Number).value("1").hint("empty: until removed"))
        .field(Field::new("skip", "Calls that pass first", Kind::Number))
}

fn subscription_item(subscription: &Subscription) -> Item {
    let reasons = RevocationReason::ALL.map(|reason| {
        let name = reason.status().name().to_owned();
        (name.clone(), name)
    });
    let revoke = Form {
        order: "revoke-subscription",
        button: "Revoke",
        label: format!("Revoke: {}", subscription.kind.name()),
        ..Form::default()
    };
    let revoke = revoke.with("id", subscription.id.as_str()).field(Field::new(
        "reason",
        "Reason",
        Kind::Choice(reasons.to_vec()),
    ));
    Item {
        title: subscription.kind.name().to_owned(),
        mark: subscription.status.name().to_owned(),
        is_bad: !subscription.status.is_live(),
        facts: vec![subscription.callback.clone(), format!("id {}", subscription.id)],
        forms: if subscription.status.is_live() { vec![revoke] } else { Vec::new() },
    }
}

fn delivery_item(entry: &DeliveryEntry) -> Item {
    let (mark, is_bad) = match entry.state {
        DeliveryState::Waiting => ("waiting".to_owned(), false),
        DeliveryState::Held => ("held".to_owned(), false),
        DeliveryState::UnderWay => ("sent".to_owned(), false),
        DeliveryState::Answered(status) => (status.to_string(), !(200..300).contains(&status)),
        DeliveryState::NoAnswer => ("no answer".to_owned(), true),
        DeliveryState::Dropped => ("dropped".to_owned(), true),
    };
    let retry = (entry.retry > 0).then(|| format!("try {}", entry.retry + 1));
    let user = entry.user_id.as_ref().map(|user| format!("user {user}"));
    Item {
        title: match entry.message_type.name() {
            "notification" => entry.subscription_type.name().to_owned(),
            other => other.to_owned(),
        },
        mark,
        is_bad,
        facts: [Some(time(entry.due_at_ms)), user, retry].into_iter().flatten().collect(),
        forms: Vec::new(),
    }
}

fn outcome_in_words(outcome: Outcome) -> (String, bool) {
    match outcome {
        Outcome::Answered(status) => (status.to_string(), status >= 400),
        Outcome::ClosedBefore => ("closed, no effect".to_owned(), true),
        Outcome::ClosedAfter(_) => ("closed after the effect".to_owned(), true),
    }
}

/// The time of day in UTC.
fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or(String::new(), |at| at.strftime("%H:%M:%S").to_string())
}
