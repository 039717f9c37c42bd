use claviger_core::{FailureKind, ProviderFailure};
use http::Response;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{answer::Unanswered, twitch::tests::twitch};
use Connection::{Connected, Disconnected, Gone};

const NOW: Timestamp = Timestamp::from_millis(1_795_132_800_000);

fn client() -> Client {
    twitch("id", "s").client
}

fn answer(status: u16, body: &str) -> Answer {
    let mut answer = Response::new(Bytes::from(body.to_owned()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(answer)
}

fn ids(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn read(asked: &str, body: &str) -> ConnectionsAnswer {
    Authorizations.read(&client(), answer(200, body), &ids(asked), NOW)
}

const UNREADABLE: ConnectionsAnswer =
    ConnectionsAnswer::Unknown(ProviderFailure::new(FailureKind::Unreadable));

#[test]
fn a_probe_names_each_user_once_and_ten_at_most() {
    let app = AccessToken::new("token");
    let address = |asked: &str| Authorizations.request(&client(), &app, &ids(asked)).uri().to_string();
    let base = "https://api.twitch.tv/helix/authorization/users";
    assert_eq!(address("141981764 197886470"), format!("{base}?user_id=141981764&user_id=197886470"));
    assert_eq!(address("1 2 1 ä a&b"), format!("{base}?user_id=1&user_id=2&user_id=a%26b"));
    assert_eq!(
        address("1 2 3 4 5 6 7 8 9 10 11 12"),
        format!("{base}?{}", (1..=10).map(|id| format!("user_id={id}")).collect::<Vec<_>>().join("&"))
    );
    assert_eq!(address(""), base);
    let request = Authorizations.request(&client(), &app, &ids("1"));
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.headers()["client-id"], "id");
    assert_eq!(request.headers()["authorization"], "Bearer token");
}

#[test]
fn what_is_said_of_each_user_is_known() {
    let documented = r#"{"data":[
        {"user_id":"141981764","user_name":"TwitchDev","user_login":"twitchdev","scopes":["bits:read"],"has_authorized":true},
        {"user_id":"197886470","user_name":"TwitchRivals","user_login":"twitchrivals","scopes":[],"has_authorized":false}]}"#;
    let asked = "197886470 7 141981764";
    let known = [("197886470", Disconnected), ("7", Gone), ("141981764", Connected)];
    assert_eq!(
        read(asked, documented),
        ConnectionsAnswer::Known(known.map(|(id, is)| (id.to_owned(), is)).into())
    );
}

/// The entry of a user: `1+` lets us in, `1-` does not, `1?` says nothing of it, `1!` says
/// something else.
fn body(entries: &str) -> String {
    let entry = |entry: &str| {
        let (id, sign) = entry.split_at(entry.len() - 1);
        match sign {
            "+" => json!({ "user_id": id, "has_authorized": true }),
            "-" => json!({ "user_id": id, "has_authorized": false }),
            "?" => json!({ "user_id": id }),
            _ => json!({ "user_id": id, "has_authorized": "true" }),
        }
    };
    json!({ "data": entries.split_whitespace().map(entry).collect::<Vec<_>>() }).to_string()
}

/// What is known, in the same signs, and `1x` for one who is gone.
fn shown(answer: ConnectionsAnswer) -> String {
    let sign = |connection| match connection {
        Connected => '+',
        Disconnected => '-',
        Gone => 'x',
    };
    match answer {
        ConnectionsAnswer::Known(known) => {
            known.iter().map(|(id, is)| format!("{id}{}", sign(*is))).collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn an_unreadable_entry_proves_nothing_about_its_user() {
    let nothing = &*shown(UNREADABLE);
    let table = [
        ("1 2", "1+ 2-", "1+ 2-"),
        ("1 2", "2- 1+", "1+ 2-"),
        ("1 2", "1+ 1+ 2-", "1+ 2-"),
        // Left out of an answer that is sound
        ("1 2", "1+", "1+ 2x"),
        ("1 2", "1-", "1- 2x"),
        ("1 2 3", "3-", "1x 2x 3-"),
        ("1 2", "1+ 1+", "1+ 2x"),
        ("1", "", "1x"),
        ("1 1", "", "1x"),
        // Left out of an answer that says nothing at all
        ("1 2", "", nothing),
        ("1 2 3 4 5 6 7 8 9 10", "", nothing),
        ("", "", nothing),
        // Left out of an answer with something strange in it
        ("1 2 3", "1+ 2?", "1+"),
        ("1 2 3", "1+ 2!", "1+"),
        ("1 2 3", "1+ 4+", "1+"),
        ("1 2", "1+ 3-", "1+"),
        ("1", "2+", nothing),
        ("1", "1?", nothing),
        ("1", "1!", nothing),
        ("1 2", "3+ 4-", nothing),
        // Twice and not the same
        ("1 2", "1+ 1- 2-", "2-"),
        ("1 2", "1+ 1? 2-", "2-"),
        ("1 2", "1! 1- 2+", "2+"),
        ("1 2 3", "1+ 1- 2+", "2+"),
        ("1 2", "1+ 1-", nothing),
        // An id is compared as it stands
        ("1 2", "01+ 2+", "2+"),
        ("a b", "A+ b+", "b+"),
        // Ids beyond the tenth, and what is no id, were never asked about
        ("1 2 3 4 5 6 7 8 9 10 11", "1+", "1+ 2x 3x 4x 5x 6x 7x 8x 9x 10x"),
        ("1 ä", "1+", "1+"),
    ];
    for (asked, entries, expected) in table {
        assert_eq!(shown(read(asked, &body(entries))), expected, "{asked}: {entries}");
    }
}

#[test]
fn what_is_no_list_proves_nothing() {
    let table = [
        "",
        "<html>",
        "null",
        "[]",
        "{}",
        r#"{"data":null}"#,
        r#"{"data":{}}"#,
        r#"{"data":"1"}"#,
        r#"{"data":[1]}"#,
        r#"{"data":[null]}"#,
        r#"{"data":[["1",false]]}"#,
        r#"{"data":[{}]}"#,
        r#"{"data":[{"user_id":1,"has_authorized":false}]}"#,
        r#"{"data":[{"user_id":"1","has_authorized":0}]}"#,
        r#"{"data":[{"user_id":"1","has_authorized":null}]}"#,
        r#"{"data":[{"user_id":"1","has_authorized":"false"}]}"#,
        r#"{"data":[{"user_id":"1","has_authorized":false,"has_authorized":true}]}"#,
        r#"{"data":[],"data":[]}"#,
        r#"[[{"user_id":"1","has_authorized":false}]]"#,
    ];
    for body in table {
        assert_eq!(read("1", body), UNREADABLE, "{body}");
    }
    let large = format!(r#"{{"data":[],"x":"{}"}}"#, "x".repeat(64 * 1024));
    assert_eq!(read("1", &large), UNREADABLE);
}

#[test]
fn other_answers_prove_nothing_of_any_user() {
    let says = |status: u16, message: &str| {
        answer(status, &json!({ "error": "e", "status": status, "message": message }).to_string())
    };
    let unknown = |kind| ConnectionsAnswer::Unknown(ProviderFailure::new(kind));
    let table = [
        (says(401, "Invalid OAuth token"), ConnectionsAnswer::TokenDead),
        (says(401, "Client ID and OAuth token do not match"), ConnectionsAnswer::Misconfigured),
        (says(400, "The ID in user_id is not valid"), unknown(FailureKind::Status(400))),
        (answer(404, &body("1-")), unknown(FailureKind::Status(404))),
        (answer(500, &body("1-")), unknown(FailureKind::Status(500))),
        (answer(204, ""), unknown(FailureKind::Status(204))),
        (answer(206, &body("1-")), unknown(FailureKind::Status(206))),
        (Err(Unanswered::NotSent), unknown(FailureKind::NotSent)),
        (Err(Unanswered::NoAnswer), unknown(FailureKind::NoAnswer)),
    ];
    for (answer, expected) in table {
        let described = format!("{answer:?}");
        assert_eq!(Authorizations.read(&client(), answer, &ids("1"), NOW), expected, "{described}");
    }
}

fn entries() -> impl Strategy<Value = String> {
    proptest::collection::vec("[1-6][-+?!]", 0..8).prop_map(|entries| entries.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]
    #[test]
    fn no_answer_panics(status in 100_u16..=999, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut answer = Response::new(Bytes::from(body));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        let known = Authorizations.read(&client(), Ok(answer), &ids("1 2"), NOW);
        prop_assert!(!matches!(known, ConnectionsAnswer::Known(_)));
    }

    #[test]
    fn nobody_is_signed_out_without_a_word(asked in "([1-8] ){1,6}", entries in entries()) {
        let ConnectionsAnswer::Known(known) = read(&asked, &body(&entries)) else { return Ok(()) };
        let says = |id: &str, sign: char| entries.split(' ').any(|said| said == format!("{id}{sign}"));
        for (id, connection) in &known {
            prop_assert!(asked.contains(id.as_str()));
            match connection {
                Connected => prop_assert!(says(id, '+') && !says(id, '-')),
                Disconnected => prop_assert!(says(id, '-') && !says(id, '+')),
                Gone => {
                    prop_assert!(!entries.contains(id.as_str()) && !entries.contains(['?', '!']));
                    // Somebody else is named, or there is nobody else.
                    prop_assert!(known.iter().any(|(_, is)| *is != Gone) || known.len() == 1);
                }
            }
        }
    }
}
