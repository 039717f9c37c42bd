//! The form for the settings.

use serde_json::{Map, Value, json};

use crate::config::{LiveTokenLimit, Settings};
use crate::exchange::{Params, Refusal};
use crate::mock::MockTwitch;
use crate::page::{Field, Form, Kind, Section};

/// How a setting is shown and read.
#[derive(Clone, Copy)]
enum Shape {
    Number,
    Check,
    Choice(&'static [(&'static str, &'static str)]),
    /// Numbers with commas between them.
    Numbers,
    Limit,
    User,
}

/// The settings: group, name, words, shape. Those of a group are below a field of that name.
const SETTINGS: [(&str, &str, &str, Shape); 23] = [
    (
        "",
        "rotation",
        "What a refresh does to the refresh token",
        Shape::Choice(&[
            ("none", "it is repeated"),
            ("rotates", "a new one; the old one still works"),
            ("one_time", "a new one; the old one is dead"),
            ("one_time_kills_connection", "a new one; using the old one disconnects the app"),
        ]),
    ),
    ("", "refresh_kills_old_access_token", "A refresh kills the old access token", Shape::Check),
    ("", "token_lifetime_secs", "Seconds that an access token lives", Shape::Number),
    ("", "app_token_lifetime_secs", "Seconds that an app's own token lives", Shape::Number),
    ("", "code_lifetime_secs", "Seconds that a code lives", Shape::Number),
    ("", "live_token_limit", "Limit of live tokens: off, kills-oldest:50 or refuses:50", Shape::Limit),
    ("", "token_lag_ms", "Milliseconds until validation and Helix know a new token", Shape::Number),
    ("", "partial_grants", "Users choose which scopes they grant", Shape::Check),
    ("", "callback_by_hand", "Show the callback as a link, to open it twice or late", Shape::Check),
    ("", "authorize_at_once_as", "Skip the consent page and sign in as", Shape::User),
    ("", "allow_any_loopback_redirect", "Accept any redirect URI on localhost", Shape::Check),
    ("", "pkce", "Check PKCE", Shape::Check),
    ("", "callback_iss", "Add iss to the callback", Shape::Check),
    ("", "awkward_refresh_tokens", "Refresh tokens that need URL encoding", Shape::Check),
    ("", "helix_points_per_minute", "Helix calls a minute", Shape::Number),
    ("eventsub", "drop", "Webhooks: lose messages", Shape::Check),
    ("eventsub", "hold", "Webhooks: hold messages until released", Shape::Check),
    ("eventsub", "wrong_signature", "Webhooks: sign with a wrong secret", Shape::Check),
    ("eventsub", "delay_ms", "Webhooks: milliseconds that messages come late", Shape::Number),
    ("eventsub", "copies", "Webhooks: copies of each message", Shape::Number),
    ("eventsub", "timestamp_offset_ms", "Webhooks: milliseconds added to timestamps", Shape::Number),
    ("eventsub", "retry_after_ms", "Webhooks: milliseconds before each repetition", Shape::Numbers),
    ("eventsub", "failures_until_revoked", "Webhooks: failures until revoked", Shape::Number),
];

pub(super) fn section(mock: &MockTwitch) -> Section {
    let all = serde_json::to_value(mock.settings()).unwrap_or_default();
    let fields = SETTINGS.iter().map(|(group, name, words, shape)| {
        let place = if group.is_empty() { &all } else { all.get(group).unwrap_or(&Value::Null) };
        let value = place.get(name).unwrap_or(&Value::Null);
        let field = Field::new(name, words, kind(*shape, mock));
        field.value(shown(*shape, value, mock.settings()))
    });
    let mut form = Form { order: "settings", button: "Change the settings", ..Form::default() };
    form.fields = fields.collect();
    Section {
        id: "settings",
        title: "Settings",
        words: "They count from the next request on.",
        forms: vec![form],
        items: Vec::new(),
        empty: "",
    }
}

/// The patch that a form with all settings means.
pub(super) fn patch(params: &Params) -> Result<Map<String, Value>, Refusal> {
    let mut patch = Map::new();
    let mut groups: Map<String, Value> = Map::new();
    for (group, name, words, shape) in SETTINGS {
        let given = params.get(name).unwrap_or_default().trim();
        let value = read(shape, given)
            .ok_or_else(|| Refusal::bad_request(format!("{words}: {given:?} is no value of it")))?;
        if group.is_empty() {
            patch.insert(name.to_owned(), value);
        } else if let Some(fields) = groups.entry(group).or_insert_with(|| json!({})).as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
    }
    patch.extend(groups);
    Ok(patch)
}

fn kind(shape: Shape, mock: &MockTwitch) -> Kind {
    let owned = |(value, words): (&str, &str)| (value.to_owned(), words.to_owned());
    match shape {
        Shape::Number => Kind::Number,
        Shape::Check => Kind::Check,
        Shape::Numbers | Shape::Limit => Kind::Text,
        Shape::Choice(choices) => Kind::Choice(choices.iter().copied().map(owned).collect()),
        Shape::User => {
            let users = mock.users().take(super::SHOWN).map(|user| owned((&user.id, &user.display_name)));
            Kind::Choice(std::iter::once(owned(("", "nobody"))).chain(users).collect())
        }
    }
}

fn shown(shape: Shape, value: &Value, settings: &Settings) -> String {
    match (shape, value) {
        (Shape::Limit, _) => settings.live_token_limit.to_string(),
        (Shape::Numbers, Value::Array(numbers)) => {
            numbers.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
        }
        (_, Value::String(text)) => text.clone(),
        (_, Value::Null) => String::new(),
        (_, value) => value.to_string(),
    }
}

fn read(shape: Shape, given: &str) -> Option<Value> {
    Some(match shape {
        Shape::Number => json!(given.parse::<i64>().ok()?),
        Shape::Check => json!(given == "true"),
        Shape::Choice(_) => json!(given),
        Shape::Numbers => {
            let numbers = given.split(',').map(str::trim).filter(|number| !number.is_empty());
            json!(numbers.map(|number| number.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?)
        }
        Shape::Limit => serde_json::to_value(given.parse::<LiveTokenLimit>().ok()?).ok()?,
        Shape::User if given.is_empty() => Value::Null,
        Shape::User => json!(given),
    })
}
