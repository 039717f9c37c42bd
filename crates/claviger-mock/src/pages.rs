//! The pages for people; askama escapes every value.

use askama::Template;
use bytes::Bytes;
use http::StatusCode;

use crate::config::{Client, Settings, User};
use crate::exchange::{self, Answer, Params, Refusal};
use crate::log::{LogEntry, Outcome};
use crate::mock::MockTwitch;
use crate::oauth::authorize::Request;
use crate::scopes;

/// People shown on a page; a mock with more is driven by programs.
const SHOWN: usize = 100;

/// The parameters that the consent form carries from the page to the decision.
const CARRIED: [&str; 10] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
    "force_verify",
    "nonce",
    "claims",
    "code_challenge",
    "code_challenge_method",
];

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentPage<'a> {
    client_name: &'a str,
    redirect_uri: &'a str,
    scopes: Vec<(&'a str, &'static str)>,
    users: Vec<(&'a User, bool)>,
    carried: Vec<(&'a str, &'a str)>,
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct RefusalPage<'a> {
    message: &'a str,
}

#[derive(Template)]
#[template(path = "connections.html")]
struct ConnectionsPage<'a> {
    current: Option<&'a User>,
    connections: Vec<ConnectionRow<'a>>,
}

struct ConnectionRow<'a> {
    user: &'a User,
    client_id: &'a str,
    client_name: &'a str,
    scopes: String,
}

#[derive(Template)]
#[template(path = "index.html")]
struct IndexPage<'a> {
    base: &'a str,
    users: Vec<&'a User>,
    clients: Vec<&'a Client>,
    settings: Vec<(String, String)>,
    faults: usize,
    log: Vec<LogRow<'a>>,
}

struct LogRow<'a> {
    entry: &'a LogEntry,
    endpoint: &'static str,
    outcome: String,
}

/// The consent page: who are you, and may this app do that?
pub(crate) fn consent(
    mock: &MockTwitch,
    request: &Request,
    params: &Params,
    current: Option<&str>,
) -> Answer {
    let preselected = current.or_else(|| mock.users.keys().next().map(String::as_str));
    let mut users: Vec<(&User, bool)> =
        mock.users.values().map(|user| (user, preselected == Some(user.id.as_str()))).collect();
    users.sort_by_key(|(_, preselected)| !preselected);
    users.truncate(SHOWN);
    page(
        StatusCode::OK,
        &ConsentPage {
            client_name: &request.client_name,
            redirect_uri: &request.redirect_uri,
            scopes: request.scopes.iter().map(|scope| (scope.as_str(), scopes::in_words(scope))).collect(),
            users,
            carried: CARRIED.iter().filter_map(|name| Some((*name, params.get(name)?))).collect(),
        },
    )
}

/// A page that says what is wrong.
pub(crate) fn refusal(refusal: &Refusal, status: StatusCode) -> Answer {
    page(status, &RefusalPage { message: refusal.message() })
}

/// The page with all connections; those of the browser's user first.
pub(crate) fn connections(mock: &MockTwitch, current: Option<&str>) -> Answer {
    let mut connections: Vec<ConnectionRow<'_>> = mock
        .state
        .authorizations()
        .filter_map(|(pair, scopes)| {
            let client = mock.clients.get(&pair.client_id)?;
            let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
            Some(ConnectionRow {
                user: mock.users.get(pair.user_id.as_ref()?)?,
                client_id: &client.client_id,
                client_name: &client.name,
                scopes: scopes.join(" "),
            })
        })
        .collect();
    connections.sort_by_key(|row| Some(row.user.id.as_str()) != current);
    connections.truncate(SHOWN);
    let current = current.and_then(|id| mock.users.get(id));
    page(StatusCode::OK, &ConnectionsPage { current, connections })
}

/// The page at `/`.
pub(crate) fn index(mock: &MockTwitch, base: &str) -> Answer {
    let log = mock.log().rev().take(SHOWN).map(|entry| LogRow {
        entry,
        endpoint: entry.endpoint.name(),
        outcome: outcome_in_words(entry.outcome),
    });
    page(
        StatusCode::OK,
        &IndexPage {
            base,
            users: mock.users().take(SHOWN).collect(),
            clients: mock.clients().take(SHOWN).collect(),
            settings: settings_in_words(&mock.settings),
            faults: mock.faults().count(),
            log: log.collect(),
        },
    )
}

/// The style sheet of all pages.
pub(crate) fn style() -> Answer {
    let sheet = Bytes::from_static(include_bytes!("../templates/style.css"));
    exchange::typed(StatusCode::OK, "text/css; charset=utf-8", sheet)
}

fn settings_in_words(settings: &Settings) -> Vec<(String, String)> {
    let value = serde_json::to_value(settings).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), value.to_string())).collect()
}

fn outcome_in_words(outcome: Outcome) -> String {
    match outcome {
        Outcome::Answered(status) => status.to_string(),
        Outcome::ClosedBefore => "closed before the effect".to_owned(),
        Outcome::ClosedAfter(status) => format!("closed after the effect ({status})"),
    }
}

fn page(status: StatusCode, template: &impl Template) -> Answer {
    // Rendering into a string fails only if a value refuses to be displayed, and all values are strings.
    exchange::html(status, template.render().unwrap_or_default())
}
