//! The HTML pages; askama escapes every value.

use askama::Template;
use bytes::Bytes;
use http::StatusCode;

use crate::config::User;
use crate::exchange::{self, Answer, Params, Refusal};
use crate::mock::MockTwitch;
use crate::oauth::authorize::Request;
use crate::scopes;

/// Maximum number of users shown on a page; a mock with more is used by programs.
const SHOWN: usize = 100;

/// The parameters that the consent form passes on to the decision.
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
    /// Whether the user chooses among the scopes.
    partial: bool,
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
#[template(path = "callback.html")]
struct CallbackPage<'a> {
    location: &'a str,
}

/// The consent page: choose a user, and authorize the app or not.
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
            partial: mock.settings.partial_grants,
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

/// The page that shows a callback instead of redirecting to it.
pub(crate) fn callback(location: &str) -> Answer {
    page(StatusCode::OK, &CallbackPage { location })
}

/// The style sheet of all pages.
pub(crate) fn style() -> Answer {
    let sheet = Bytes::from_static(include_bytes!("../templates/style.css"));
    exchange::typed(StatusCode::OK, "text/css; charset=utf-8", sheet)
}

fn page(status: StatusCode, template: &impl Template) -> Answer {
    // Rendering into a string fails only if `Display` of a value fails, and all values are strings.
    exchange::html(status, template.render().unwrap_or_default())
}
