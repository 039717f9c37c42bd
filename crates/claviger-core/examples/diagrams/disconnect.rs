//! What follows from the suspicion that a user disconnected the app.

use claviger_core::{Cascade, Cause, Connection, Finding, Verdict, suspicion, suspicion::Response};

pub(crate) fn draw() {
    println!("```mermaid\nflowchart TD");
    for (cause, _) in Cause::NAMES {
        let id = node_id(cause);
        println!("    {id}([\"{}\"])", cause_in_words(cause));
        for (node, choices) in responses(cause) {
            match choices.len() {
                CASCADES => println!("    {id} --> {node}"),
                _ => println!("    {id} -->|\"session.cascade {}\"| {node}", choices.join(", ")),
            }
        }
    }
    println!("    confirm[\"ask the provider about the user\"]");
    for (words, connection, newest) in questions() {
        println!("    confirm -->|\"{words}\"| {}", finding_node(suspicion::finding(connection, newest)));
    }
    println!("    each[\"ask about each older session by itself\"]");
    println!("    eachAgain[\"ask about each older session by itself, and about the user again later\"]");
    println!("    contradiction([\"nobody is signed out; ask again later\"])");
    println!("    nothing([\"each session is on its own\"])");
    println!("    all([\"every session older than the event ends, in one step\"])\n```\n");
}

/// The number of values of `session.cascade`.
const CASCADES: usize = 3;

/// Where a suspicion of this cause leads, with the settings that lead there.
fn responses(cause: Cause) -> Vec<(&'static str, Vec<&'static str>)> {
    let cascades: [_; CASCADES] =
        [("confirm", Cascade::Confirm), ("always", Cascade::Always), ("never", Cascade::Never)];
    let leads = |node| -> Vec<_> {
        cascades
            .iter()
            .filter(|(_, by)| response_node(cause.response(*by)) == node)
            .map(|(name, _)| *name)
            .collect()
    };
    ["confirm", "all", "nothing"]
        .into_iter()
        .map(|node| (node, leads(node)))
        .filter(|(_, names)| !names.is_empty())
        .collect()
}

fn response_node(response: Response) -> &'static str {
    match response {
        Response::Confirm => "confirm",
        Response::EndAll(_) => "all",
        Response::Nothing => "nothing",
    }
}

fn node_id(cause: Cause) -> &'static str {
    match cause {
        Cause::WebhookEvent => "webhook",
        Cause::AccessTokenRejected => "access",
        Cause::RefreshTokenRejected => "refresh",
        Cause::ConnectionCheck => "check",
    }
}

fn cause_in_words(cause: Cause) -> &'static str {
    match cause {
        Cause::WebhookEvent => "a signed webhook event",
        Cause::AccessTokenRejected => "the provider rejected an access token before its time",
        Cause::RefreshTokenRejected => "the provider rejected a refresh token",
        Cause::ConnectionCheck => "a connection check found the user disconnected",
    }
}

type Question = (&'static str, Option<Connection>, Option<Verdict>);

fn questions() -> [Question; 6] {
    let (gone, disconnected) = (Some(Connection::Gone), Some(Connection::Disconnected));
    [
        ("disconnected, and the newest live token is dead", disconnected, Some(Verdict::Rejected)),
        ("disconnected, and no token lives or nothing answers", disconnected, None),
        ("no such user, and no live token is good", gone, None),
        (
            "disconnected or no such user, but the newest live token is good",
            disconnected,
            Some(Verdict::Valid),
        ),
        ("connected", Some(Connection::Connected), None),
        ("no answer", None, None),
    ]
}

fn finding_node(finding: Finding) -> &'static str {
    match finding {
        Finding::EndAll(_) => "all",
        Finding::AskEach => "each",
        Finding::AskEachAndAgain => "eachAgain",
        Finding::Contradiction => "contradiction",
    }
}
